//! Finds the instances to respond to in an event from EventBridge. Pure.
//!
//! Tolerant in what it reads, strict in what it accepts: anything other than an instance in an account and a Region
//! that Cordon may act in is left out by name, and does not keep Cordon from responding to the others.

use std::collections::BTreeSet;

use containment::{Capture, Error, Result, Status, Target, check_account, check_instance_id, check_region};
use finding::{Alert, Finding, Named};
use request::{Execution, LeftOut};

use crate::candidates::{Candidate, Request, Source, Trigger, TriggerFinding};
use crate::manual::LONG_AT_MOST;
use crate::{ResponseMode, Settings};

/// The largest number of instances in one event: each may need approval, and the workflow's second Map takes 40 at a
/// time, so a 41st request for approval would wait for the answer to another (aws-behaviour#inline-map).
const INSTANCES_AT_MOST: usize = 40;

/// Findings that travel through the execution.
const FINDINGS_AT_MOST: usize = 20;

/// Reads an event. Errors: Cordon does not know this kind of event.
pub(crate) fn read(event: &serde_json::Value, execution: &Execution, settings: &Settings) -> Result<Request> {
    let alert = finding::read(event).map_err(|unreadable| Error::InvalidInput(unreadable.to_string()))?;
    let trigger = trigger(&alert);
    let mut left_out = Vec::new();
    let relevant = relevant(alert.findings, trigger.source, settings, &mut left_out);
    let mut candidates = Vec::new();
    for finding in &relevant {
        for named in &finding.instances {
            match target(named, execution, settings) {
                Ok(target) => {
                    // A sample's instance may not exist, and only a person may request a memory image.
                    let mode = settings.capture_on_finding.filter(|_| !finding.sample);
                    let capture = mode.map(|mode| Capture { mode, memory: false });
                    let target = Target { dry_run: finding.sample, capture, ..target };
                    add(&mut candidates, target, finding, trigger.source);
                }
                Err(error) => left_out.push(LeftOut {
                    instance_id: Some(named.instance_id.clone()),
                    ..LeftOut::finding(missed(finding.sample), error.to_string())
                }),
            }
        }
    }
    let too_many = candidates.split_off(candidates.len().min(INSTANCES_AT_MOST));
    left_out.extend(too_many.iter().map(|w| {
        let reason = format!("an event may name at most {INSTANCES_AT_MOST} instances; contain this one by hand");
        LeftOut::instance(&w.target, Status::Failed, reason)
    }));
    // If there are too many to capture in one execution, all are contained at once, without a capture.
    if candidates.len() > LONG_AT_MOST {
        candidates.iter_mut().for_each(|candidate| candidate.target.capture = None);
    }
    if trigger.source.is_automatic() && settings.response_mode == ResponseMode::NotifyOnly {
        left_out.extend(candidates.drain(..).map(|w| {
            let reason = "the response mode is NotifyOnly, so nothing was done";
            LeftOut::instance(&w.target, Status::NotApplicable, reason)
        }));
    }
    Ok(Request { trigger, candidates, left_out, is_fleet: false, batch: None })
}

fn trigger(alert: &Alert) -> Trigger {
    let source = match alert.source {
        finding::Source::GuardDuty => Source::GuardDuty,
        finding::Source::SecurityHubCustomAction => Source::SecurityHubCustomAction,
        finding::Source::SecurityHub => Source::SecurityHub,
    };
    let findings = alert.findings.iter().take(FINDINGS_AT_MOST).map(|finding| TriggerFinding {
        id: finding.id.clone(),
        finding_type: finding.finding_type.clone(),
        title: finding.title.clone(),
        severity: finding.severity,
        sample: finding.sample,
    });
    Trigger { source, findings: findings.collect(), drift: None }
}

/// The findings to respond to; the others are left out with the reason. Samples count only if no finding is real.
fn relevant(findings: Vec<Finding>, source: Source, settings: &Settings, left_out: &mut Vec<LeftOut>) -> Vec<Finding> {
    let mut relevant = Vec::new();
    for finding in findings {
        let below = finding.severity.filter(|s| source.is_automatic() && *s < settings.minimum_severity);
        let why = if let Some(severity) = below {
            format!("severity {severity} is below MinimumSeverity, {}", settings.minimum_severity)
        } else if finding.archived {
            "it is archived".to_owned()
        } else if finding.instances.is_empty() {
            format!("it is about {} and names no EC2 instance", finding.about)
        } else {
            relevant.push(finding);
            continue;
        };
        let reason = format!("nothing was done about finding {}: {why}", finding.id);
        left_out.push(LeftOut::finding(Status::NotApplicable, reason).quiet(below.is_some()));
    }
    let (samples, real): (Vec<_>, Vec<_>) = relevant.into_iter().partition(|finding| finding.sample);
    if real.is_empty() {
        return samples;
    }
    left_out.extend(samples.iter().map(|finding| {
        let reason = format!(
            "nothing was done about finding {}: it is a sample, and the event has real findings too",
            finding.id
        );
        LeftOut::finding(Status::NotApplicable, reason)
    }));
    real
}

/// The status of an instance that Cordon cannot act on. A sample's instance may not exist, so that is no failure.
pub(crate) fn missed(sample: bool) -> Status {
    if sample { Status::NotApplicable } else { Status::Failed }
}

fn target(named: &Named, execution: &Execution, settings: &Settings) -> Result<Target> {
    check_instance_id(&named.field, &named.instance_id)?;
    check_account(&format!("the account of {}", named.instance_id), &named.account_id)?;
    check_region(&format!("the Region of {}", named.instance_id), &named.region)?;
    let own = execution.account();
    if !settings.member_accounts.allow(&named.account_id, own) {
        return Err(Error::InvalidInput(format!(
            "the account of {}: {:?} is not accepted; accepted: {}",
            named.instance_id,
            named.account_id,
            settings.member_accounts.accepted(own)
        )));
    }
    Ok(execution.target(&named.account_id, &named.region, &named.instance_id))
}

/// Adds one response per instance, however many findings name it.
fn add(candidates: &mut Vec<Candidate>, target: Target, finding: &Finding, source: Source) {
    let of_another = source != Source::GuardDuty && target.account_id != finding.account_id;
    let known = match candidates.iter().position(|w| w.target.key() == target.key()) {
        Some(known) => known,
        None => {
            candidates.push(Candidate { target, findings: BTreeSet::new(), ask: Vec::new() });
            candidates.len() - 1
        }
    };
    let known = &mut candidates[known];
    known.findings.insert(finding.id.clone());
    if of_another {
        known.ask.push(format!(
            "the finding belongs to account {:?} but names an instance of another account",
            finding.account_id
        ));
    }
    if source.is_automatic() && finding.severity.is_none() {
        known.ask.push("the finding has no severity".to_owned());
    }
    if source.is_automatic() && finding.product != "GuardDuty" {
        known.ask.push(format!(
            "the finding comes from {}, so the instance may only be vulnerable, not compromised",
            finding.product
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{MEMBER, OWN, execution, settings};
    use containment::CaptureMode;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const A: &str = "i-0aaaaaaaaaaaaaaaa";
    const B: &str = "i-0bbbbbbbbbbbbbbbb";

    fn finding(id: &str, severity: f64) -> Value {
        json!({
            "version": "0", "source": "aws.guardduty", "detail-type": "GuardDuty Finding",
            "account": "999999999999", "region": "us-east-1",
            "detail": {
                "id": "f-1", "accountId": OWN, "region": "eu-west-1", "severity": severity,
                "type": "Backdoor:EC2/C&CActivity.B!DNS", "title": "Command and control",
                "resource": { "resourceType": "Instance", "instanceDetails": { "instanceId": id } },
                "service": { "archived": false },
            },
        })
    }

    fn asff(resources: &[(&str, &str)]) -> Value {
        let one = |(n, (id, account)): (usize, &(&str, &str))| {
            json!({
                "Id": format!("f-{n}"), "AwsAccountId": account, "Region": "eu-west-1", "ProductName": "GuardDuty",
                "Severity": { "Label": "LOW" }, "Types": ["TTPs/x"], "Title": "t", "RecordState": "ACTIVE",
                "Resources": [{ "Type": "AwsEc2Instance", "Id": format!("arn:aws:ec2:eu-west-1:{account}:instance/{id}") }],
            })
        };
        let findings: Vec<Value> = resources.iter().enumerate().map(one).collect();
        let kind = "Security Hub Findings - Custom Action";
        json!({ "source": "aws.securityhub", "detail-type": kind, "detail": { "findings": findings } })
    }

    fn asked(event: &Value) -> Request {
        read(event, &execution(), &settings()).expect("an event that Cordon knows")
    }

    fn reasons(request: &Request) -> String {
        request.left_out.iter().map(|l| l.reason.as_str()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_account_and_region_come_from_the_finding_and_not_from_the_envelope() {
        let request = asked(&finding(A, 8.0));
        let target = &request.candidates[0].target;
        assert_eq!(
            (target.account_id.as_str(), target.region.as_str(), target.instance_id.as_str()),
            (OWN, "eu-west-1", A)
        );
        assert_eq!(request.candidates[0].findings, ["f-1".to_owned()].into());
    }

    #[test]
    fn only_a_finding_below_the_minimum_severity_is_left_out_quietly() {
        assert_eq!(asked(&finding(A, 7.0)).candidates.len(), 1);
        let request = asked(&finding(A, 6.9));
        assert!(request.candidates.is_empty() && request.left_out[0].quiet);
        assert!(reasons(&request).contains("below MinimumSeverity"));
    }

    #[test]
    fn a_finding_without_a_severity_needs_approval() {
        let mut event = finding(A, 8.0);
        event["detail"]["severity"] = Value::Null;
        assert_eq!(asked(&event).candidates[0].ask, ["the finding has no severity"]);
    }

    #[test]
    fn archived_and_unrelated_findings_are_left_out_with_the_reason() {
        let mut archived = finding(A, 8.0);
        archived["detail"]["service"]["archived"] = json!("true");
        assert!(reasons(&asked(&archived)).contains("it is archived"));
        let mut other = finding(A, 8.0);
        other["detail"]["resource"] = json!({ "resourceType": "AccessKey", "accessKeyDetails": {} });
        let request = asked(&other);
        assert!(
            request.candidates.is_empty() && reasons(&request).contains("about AccessKey and names no EC2 instance")
        );
        assert!(request.left_out.iter().all(|l| l.status == Status::NotApplicable && !l.quiet));
    }

    #[test]
    fn a_sample_alone_is_a_dry_run_and_with_a_real_finding_it_is_left_out() {
        let mut sample = finding(A, 8.0);
        sample["detail"]["service"]["additionalInfo"] = json!({ "value": "{\"sample\":true}" });
        assert!(asked(&sample).candidates[0].target.dry_run);
        let mut both = asff(&[(A, OWN), (B, OWN)]);
        both["detail"]["findings"][0]["Sample"] = json!(true);
        let request = asked(&both);
        assert_eq!(request.candidates.len(), 1);
        assert!(request.candidates[0].target.instance_id == B && !request.candidates[0].target.dry_run);
        assert!(reasons(&request).contains("it is a sample, and the event has real findings too"));
    }

    #[test]
    fn the_parameter_decides_whether_a_finding_captures_and_a_sample_never_does() {
        let modes = [None, Some(CaptureMode::IsolateFirst), Some(CaptureMode::CaptureFirst)];
        let mut sample = finding(A, 8.0);
        sample["detail"]["service"]["additionalInfo"] = json!({ "sample": true });
        for mode in modes {
            let settings = Settings { capture_on_finding: mode, ..settings() };
            let asked =
                |event: &Value| read(event, &execution(), &settings).expect("read").candidates[0].target.capture;
            assert_eq!(asked(&finding(A, 8.0)), mode.map(|mode| Capture { mode, memory: false }));
            assert_eq!(
                asked(&asff(&[(A, OWN)])),
                mode.map(|mode| Capture { mode, memory: false }),
                "a custom action too"
            );
            assert_eq!(asked(&sample), None);
        }
    }

    #[test]
    fn a_sample_about_an_unknown_account_or_region_is_no_failure() {
        let mut sample = finding(A, 8.0);
        sample["detail"]["service"]["additionalInfo"] = json!({ "sample": true });
        for (field, value) in [("accountId", "111111111111"), ("region", "nowhere")] {
            let mut event = sample.clone();
            event["detail"][field] = json!(value);
            let request = asked(&event);
            assert!(request.candidates.is_empty());
            assert_eq!(request.left_out[0].status, Status::NotApplicable, "{}", reasons(&request));
        }
    }

    #[test]
    fn only_instances_in_accounts_that_are_not_allowed_are_left_out() {
        let request = asked(&asff(&[(A, "111111111111"), (B, MEMBER)]));
        assert_eq!(request.candidates[0].target.account_id, MEMBER);
        assert_eq!((request.left_out[0].status, request.left_out[0].instance_id.as_deref()), (Status::Failed, Some(A)));
        assert!(reasons(&request).contains("MemberAccounts: 210987654321"));
    }

    #[test]
    fn a_finding_that_names_an_instance_of_another_account_always_needs_approval() {
        let mut event = asff(&[(A, MEMBER)]);
        assert!(asked(&event).candidates[0].ask.is_empty());
        event["detail"]["findings"][0]["AwsAccountId"] = json!(OWN);
        let request = asked(&event);
        assert_eq!(request.candidates[0].target.account_id, MEMBER);
        assert!(request.candidates[0].ask[0].contains("names an instance of another account"));
    }

    #[test]
    fn an_invalid_id_is_left_out_and_the_reason_names_its_field() {
        let request = asked(&finding("i-0; rm -rf /", 8.0));
        assert!(request.candidates.is_empty());
        assert!(reasons(&request).starts_with("detail.resource.instanceDetails.instanceId:"));
    }

    #[test]
    fn two_findings_about_one_instance_get_one_response() {
        let request = asked(&asff(&[(A, OWN), (A, OWN)]));
        assert_eq!(request.candidates.len(), 1);
        assert_eq!(request.candidates[0].findings, ["f-0".to_owned(), "f-1".to_owned()].into());
    }

    #[test]
    fn instances_beyond_the_limit_of_an_event_are_left_out_by_name() {
        let ids: Vec<String> = (0..42).map(|n| format!("i-{n:017x}")).collect();
        let resources: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), OWN)).collect();
        let request = asked(&asff(&resources));
        assert_eq!((request.candidates.len(), request.left_out.len()), (40, 2));
        assert_eq!(request.left_out[1].instance_id.as_deref(), Some("i-00000000000000029"));
    }

    #[test]
    fn notify_only_mode_stops_findings_and_not_a_persons_custom_action() {
        let settings = Settings { response_mode: ResponseMode::NotifyOnly, ..settings() };
        let request = read(&finding(A, 8.0), &execution(), &settings).expect("read");
        assert!(request.candidates.is_empty() && reasons(&request).contains("NotifyOnly"));
        assert_eq!(read(&asff(&[(A, OWN)]), &execution(), &settings).expect("read").candidates.len(), 1);
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![Just(A.to_owned()), Just(OWN.to_owned()), "[a-z0-9:/ -]{0,12}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        let names = prop::sample::select(vec![
            "detail",
            "resource",
            "instanceDetails",
            "instanceId",
            "accountId",
            "region",
            "severity",
            "findings",
            "Resources",
            "Id",
            "Type",
            "service",
            "id",
        ]);
        leaf.prop_recursive(5, 48, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_event_causes_a_panic_or_a_target_that_it_does_not_name(
            detail in json_value(), source in prop::sample::select(vec!["aws.guardduty", "aws.securityhub"])
        ) {
            let kind = if source == "aws.guardduty" { "GuardDuty Finding" } else { "Security Hub Findings - Imported" };
            let event = json!({ "source": source, "detail-type": kind, "detail": detail });
            let text = event.to_string();
            if let Ok(request) = read(&event, &execution(), &settings()) {
                for candidate in request.candidates {
                    prop_assert!(text.contains(&candidate.target.instance_id));
                    prop_assert!([OWN, MEMBER].contains(&candidate.target.account_id.as_str()));
                }
            }
        }
    }
}
