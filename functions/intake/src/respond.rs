//! Which execution responds to each instance, and whether a person is asked first: guardrails, and one holder at a
//! time.

use std::collections::BTreeSet;

use cases::{Case, CaseTable, Guardrail, now};
use containment::{Error, Result, Status, Target};
use futures::future::{join_all, try_join_all};
use request::{Execution, Holder, LeftOut, holder};

use crate::candidates::{Candidate, Request, Source};
use crate::{Plan, ResponseMode, Settings};

/// The list of instances left out travels through the execution's states, which have 256 KiB
/// (aws-behaviour#state-size).
const LEFT_OUT_AT_MOST: usize = 60;

/// The case table, and Step Functions to ask whether an execution is still running.
pub(crate) struct Intake {
    pub(crate) cases: CaseTable,
    pub(crate) sfn: aws_sdk_sfn::Client,
}

/// The facts about an instance on which the decision rests.
#[derive(Debug, Clone, Default, PartialEq)]
struct Seen {
    guardrail: Option<Guardrail>,
    case: Option<Case>,
    /// The last case, if it was released.
    released: Option<Case>,
    /// Whether another execution holds the case and is still running.
    held: bool,
}

/// The decision about an instance.
#[derive(Debug, Clone, PartialEq)]
enum Decision {
    /// Take the case (a new one, or the one that was seen) and respond.
    Respond,
    /// This execution already holds it: an earlier try of this function took it.
    Mine,
    /// Leave it out, with the reason; new findings are added to its case.
    Leave(LeftOut),
}

impl Intake {
    /// Makes the plan. Writes cases, and the count of automatic containments; a dry run writes nothing.
    pub(crate) async fn respond(&self, request: Request, execution: &Execution, settings: &Settings) -> Result<Plan> {
        let Request { trigger, candidates, mut left_out, batch, .. } = request;
        let source = trigger.source;
        let seen = join_all(candidates.iter().map(|w| self.look(w, execution))).await;
        let (mut responses, mut further) = (Vec::new(), Vec::new());
        for (mut candidate, seen) in candidates.into_iter().zip(seen) {
            let seen = match seen {
                Ok(seen) => seen,
                Err(error) if error.is_transient() => return Err(error),
                // A failure to read one instance's case must not keep Cordon from responding to the others.
                Err(error) => {
                    left_out.push(LeftOut::instance(&candidate.target, Status::Failed, error.to_string()));
                    continue;
                }
            };
            match decide(&candidate, &seen, source, execution) {
                Decision::Leave(reason) => {
                    if seen.case.is_some() && !candidate.target.dry_run {
                        further.push(candidate);
                    }
                    left_out.push(reason);
                }
                decision => {
                    if let Some(case) = &seen.case {
                        candidate.target.case_id.clone_from(&case.id);
                    }
                    let reasons = reasons_to_ask(&candidate, &seen, source, settings);
                    candidate.ask.extend(reasons);
                    if decision == Decision::Mine && asked(&seen) && candidate.ask.is_empty() {
                        candidate.ask.push("a limit on automatic containments has been reached".to_owned());
                    }
                    responses.push((candidate, seen, decision == Decision::Mine));
                }
            }
        }
        self.limit(&mut responses, source, execution, settings).await?;
        try_join_all(responses.iter().map(|(w, seen, mine)| self.take(w, seen, *mine, execution))).await?;
        // Last, because a known finding is not announced again: a try that fails must not make it known.
        try_join_all(further.iter().map(|w| self.cases.add_findings(&w.target, &w.findings))).await?;
        let targets: Vec<Target> = responses.into_iter().map(|(candidate, _, _)| candidate.into_target()).collect();
        let dry_run = !targets.is_empty() && targets.iter().all(|t| t.dry_run);
        let nothing_to_tell = targets.is_empty() && left_out.iter().all(|l| l.quiet);
        Ok(Plan {
            dry_run,
            sample: dry_run && source != Source::Hand,
            // The fleet's execution announces its batches.
            quiet: nothing_to_tell || (source == Source::Hand && dry_run) || batch.is_some(),
            trigger,
            targets,
            left_out: at_most(left_out),
            fleet: None,
            batch,
        })
    }

    async fn look(&self, candidate: &Candidate, execution: &Execution) -> Result<Seen> {
        let (guardrail, last) =
            futures::try_join!(self.cases.guardrail(&candidate.target), self.cases.last_case(&candidate.target))?;
        let (case, released) = match last {
            Some(last) if last.released.is_some() => (None, Some(last)),
            open => (open, None),
        };
        let held = match &case {
            Some(case) if case.execution != execution.id => {
                holder(&self.sfn, &case.execution, case.held_since).await? == Holder::Running
            }
            _ => false,
        };
        Ok(Seen { guardrail, case, released, held })
    }

    /// Asks for approval if an event would exceed the limits on automatic containments.
    async fn limit(
        &self,
        responses: &mut [(Candidate, Seen, bool)],
        source: Source,
        execution: &Execution,
        settings: &Settings,
    ) -> Result<()> {
        if source.is_decided() {
            return Ok(());
        }
        let at_once = settings.instances_per_execution;
        if responses.len() > at_once {
            let reason =
                format!("{} instances at once, and only {at_once} may be contained without approval", responses.len());
            responses.iter_mut().for_each(|(candidate, _, _)| candidate.ask.push(reason.clone()));
        }
        let uncounted = |(candidate, _, mine): &(Candidate, Seen, bool)| {
            candidate.ask.is_empty() && !candidate.target.dry_run && !mine
        };
        let new = responses.iter().filter(|r| uncounted(r)).count();
        let an_hour = settings.instances_per_hour;
        if new > 0 && !self.cases.count_automatic(execution.hour(), new, an_hour).await? {
            let reason = format!("the hourly limit on automatic containments ({an_hour}) has been reached");
            responses
                .iter_mut()
                .filter(|r| uncounted(r))
                .for_each(|(candidate, _, _)| candidate.ask.push(reason.clone()));
        }
        Ok(())
    }

    /// Takes the case, on condition that no other execution has taken it since. Otherwise [`Error::Conflict`]: the
    /// workflow tries again and finds the holder, which may be this execution if its first answer was lost.
    async fn take(&self, candidate: &Candidate, seen: &Seen, mine: bool, execution: &Execution) -> Result<()> {
        if candidate.target.dry_run || mine {
            return Ok(());
        }
        let asking = !candidate.ask.is_empty();
        let new = Case {
            id: candidate.target.case_id.clone(),
            execution: execution.id.clone(),
            held_since: now(),
            approval: asking.then(|| "Pending".to_owned()),
            verdict: None,
            findings: candidate.findings.clone(),
            asked_about: if asking { candidate.findings.clone() } else { BTreeSet::new() },
            released: None,
        };
        let taken = match &seen.case {
            Some(case) => self.cases.take_over(&candidate.target, case, &new).await?,
            None => self.cases.open(&candidate.target, &new).await?,
        };
        match taken {
            true => Ok(()),
            false => Err(Error::Conflict(format!(
                "another execution has just taken the case of {}",
                candidate.target.instance_id
            ))),
        }
    }
}

/// Decides about an instance.
fn decide(candidate: &Candidate, seen: &Seen, source: Source, execution: &Execution) -> Decision {
    let target = &candidate.target;
    let leave = |status, reason: String| LeftOut::instance(target, status, reason);
    if let Some(own) = seen.guardrail.as_ref().filter(|g| g.rule == "Cordon") {
        let reason = format!("it is Cordon's own and is never contained: {}", own.reason);
        return Decision::Leave(leave(Status::Failed, reason));
    }
    let Some(case) = seen.case.as_ref().filter(|_| !target.dry_run) else { return Decision::Respond };
    if case.execution == execution.id {
        return Decision::Mine;
    }
    if source == Source::Drift {
        let reason = format!("execution {} holds its case", case.execution);
        return match seen.held {
            true => Decision::Leave(leave(Status::NotApplicable, reason).quiet(true)),
            false => Decision::Respond,
        };
    }
    let by_a_person = !source.is_automatic();
    let repeated = candidate.findings.iter().all(|finding| case.findings.contains(finding));
    let added = if repeated { "" } else { "; the finding is added to its case" };
    let quiet = repeated && !by_a_person;
    let refused = case.approval.as_deref() == Some("Refused");
    let unanswered = case.approval.as_deref() == Some("Unanswered");
    if !by_a_person && refused && candidate.findings.is_subset(&case.asked_about) {
        let reason = format!("a person refused to contain it for this finding, in case {}", case.id);
        return Decision::Leave(leave(Status::NotApplicable, reason).quiet(true));
    }
    // After a refusal, or without an answer, the holder only finishes its snapshots.
    let free = (asked(seen) && by_a_person) || ((refused || unanswered) && (by_a_person || !repeated));
    if seen.held && !free {
        let doing = match asked(seen) {
            true => "has asked for approval and is waiting for the answer",
            false => "holds its case",
        };
        let reason = format!("execution {} {doing}{added}", case.execution);
        return Decision::Leave(leave(Status::NotApplicable, reason).quiet(quiet));
    }
    if source == Source::Hand {
        return Decision::Respond;
    }
    let isolated = match case.verdict.as_deref() {
        Some("Contained") => true,
        // The new finding may be about what is still open.
        Some("PartiallyContained") => repeated,
        _ => false,
    };
    if isolated {
        let verdict = case.verdict.as_deref().unwrap_or_default();
        let reason = format!("its case {} is open, with the verdict {verdict}{added}", case.id);
        return Decision::Leave(leave(Status::NotApplicable, reason).quiet(quiet));
    }
    Decision::Respond
}

fn asked(seen: &Seen) -> bool {
    seen.case.as_ref().is_some_and(|case| case.approval.as_deref() == Some("Pending"))
}

/// The reasons to ask a person that lie in this one instance.
fn reasons_to_ask(candidate: &Candidate, seen: &Seen, source: Source, settings: &Settings) -> Vec<String> {
    let mut reasons = Vec::new();
    if source.is_decided() {
        return reasons;
    }
    if source.is_automatic() && settings.response_mode == ResponseMode::RequestApproval {
        reasons.push("the response mode is RequestApproval".to_owned());
    }
    if let Some(protected) = seen.guardrail.as_ref().filter(|g| g.rule == "Protected") {
        reasons.push(format!("it is on the list of protected instances: {}", protected.reason));
    }
    // GuardDuty goes on reporting what a person has called a false alarm.
    let known = |case: &&Case| source.is_automatic() && candidate.findings.is_subset(&case.findings);
    if let Some(case) = seen.released.as_ref().filter(known) {
        let at = case.released.as_ref().map_or("some time", |released| &released.at);
        reasons.push(format!("its case {}, which had this finding, was released at {at}", case.id));
    }
    let being_released = |case: &&Case| matches!(case.verdict.as_deref(), Some("PartiallyReleased" | "NotReleased"));
    if let Some(case) = seen.case.as_ref().filter(known).filter(being_released) {
        reasons.push(format!("a release of its case {}, which had this finding, has begun", case.id));
    }
    reasons
}

fn at_most(mut left_out: Vec<LeftOut>) -> Vec<LeftOut> {
    // Failures come first.
    left_out.sort_by_key(|l| l.status != Status::Failed);
    let more = left_out.split_off(left_out.len().min(LEFT_OUT_AT_MOST));
    if let Some(first) = more.first() {
        let names: BTreeSet<&str> = more.iter().filter_map(|l| l.instance_id.as_deref()).take(200).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        left_out.push(LeftOut::finding(first.status, format!("{} more were left out: {names}", more.len())));
    }
    left_out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::Trigger;
    use crate::tests::{execution, settings};
    use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
    use aws_sdk_dynamodb::operation::put_item::{PutItemError, PutItemOutput};
    use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
    use aws_sdk_dynamodb::types::AttributeValue;
    use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;
    use cases::Released;

    const OTHER: &str = "arn:aws:states:ap-northeast-1:123456789012:execution:cordon-contain:other";

    fn candidate() -> Candidate {
        Candidate { target: Target::example(), findings: ["f-1".to_owned()].into(), ask: Vec::new() }
    }

    fn case() -> Case {
        Case { id: "c-0".into(), execution: OTHER.into(), held_since: 7, ..Case::default() }
    }

    fn reason(decision: Decision) -> LeftOut {
        match decision {
            Decision::Leave(left_out) => left_out,
            other => panic!("nothing is left out: {other:?}"),
        }
    }

    #[test]
    fn only_a_repeated_finding_about_a_released_instance_needs_approval() {
        let released = Released { at: "2026-11-21T03:00:00Z".into(), ..Released::default() };
        let last = Case { released: Some(released), findings: ["f-1".to_owned()].into(), ..case() };
        let seen = Seen { released: Some(last), ..Seen::default() };
        let ask = |findings: &[&str]| {
            let findings = findings.iter().map(|f| (*f).to_owned()).collect();
            reasons_to_ask(&Candidate { findings, ..candidate() }, &seen, Source::GuardDuty, &settings())
        };
        assert!(ask(&["f-1"])[0].contains("was released at 2026-11-21T03:00:00Z"));
        assert!(ask(&["f-2"]).is_empty());
        let begun = Case { verdict: Some("PartiallyReleased".into()), findings: ["f-1".to_owned()].into(), ..case() };
        let seen = Seen { case: Some(begun), ..Seen::default() };
        assert_eq!(reasons_to_ask(&candidate(), &seen, Source::GuardDuty, &settings()).len(), 1);
        assert!(reasons_to_ask(&candidate(), &seen, Source::Hand, &settings()).is_empty());
    }

    #[test]
    fn an_instance_without_a_case_gets_a_response() {
        assert_eq!(decide(&candidate(), &Seen::default(), Source::GuardDuty, &execution()), Decision::Respond);
    }

    #[test]
    fn an_instance_is_left_to_the_execution_that_holds_its_case() {
        let seen = Seen { case: Some(case()), held: true, ..Seen::default() };
        for source in [Source::Hand, Source::GuardDuty, Source::SecurityHubCustomAction] {
            let left = reason(decide(&candidate(), &seen, source, &execution()));
            assert!(left.reason.contains(OTHER) && left.status == Status::NotApplicable, "{left:?}");
        }
    }

    #[test]
    fn drift_is_repaired_in_any_open_case_that_no_execution_holds() {
        let refused = Case { approval: Some("Refused".into()), verdict: Some("Contained".into()), ..case() };
        let candidate = Candidate { findings: BTreeSet::new(), ..candidate() };
        for case in [case(), refused.clone()] {
            let seen = Seen { case: Some(case), ..Seen::default() };
            assert_eq!(decide(&candidate, &seen, Source::Drift, &execution()), Decision::Respond);
        }
        let held = Seen { case: Some(refused), held: true, ..Seen::default() };
        let left = reason(decide(&candidate, &held, Source::Drift, &execution()));
        assert!(left.quiet && left.status == Status::NotApplicable && left.reason.contains(OTHER), "{left:?}");
        let protected = Guardrail { rule: "Protected".into(), reason: "payments".into() };
        let seen = Seen { guardrail: Some(protected), ..Seen::default() };
        let asking = Settings { response_mode: ResponseMode::RequestApproval, ..settings() };
        assert!(reasons_to_ask(&candidate, &seen, Source::Drift, &asking).is_empty(), "it was decided with the case");
    }

    #[test]
    fn a_start_by_hand_does_not_wait_for_a_pending_approval() {
        let asked = Case { approval: Some("Pending".into()), ..case() };
        let seen = Seen { case: Some(asked), held: true, ..Seen::default() };
        assert_eq!(decide(&candidate(), &seen, Source::Hand, &execution()), Decision::Respond);
        assert!(
            reason(decide(&candidate(), &seen, Source::GuardDuty, &execution()))
                .reason
                .contains("has asked for approval")
        );
    }

    #[test]
    fn a_repeated_finding_about_a_contained_instance_is_quiet_and_a_new_one_is_not() {
        let contained = Case { verdict: Some("Contained".into()), findings: candidate().findings, ..case() };
        let seen = |case: Case| Seen { case: Some(case), ..Seen::default() };
        assert!(reason(decide(&candidate(), &seen(contained.clone()), Source::GuardDuty, &execution())).quiet);
        let new = Case { findings: ["f-0".to_owned()].into(), ..contained.clone() };
        let left = reason(decide(&candidate(), &seen(new.clone()), Source::GuardDuty, &execution()));
        assert!(!left.quiet && left.reason.ends_with("the finding is added to its case"));
        let partly = Case { verdict: Some("PartiallyContained".into()), ..new };
        assert_eq!(decide(&candidate(), &seen(partly), Source::GuardDuty, &execution()), Decision::Respond);
        assert_eq!(decide(&candidate(), &seen(contained), Source::Hand, &execution()), Decision::Respond);
    }

    #[test]
    fn a_failed_containment_is_tried_again_when_the_finding_comes_again() {
        let failed = Case { verdict: Some("NotContained".into()), findings: candidate().findings, ..case() };
        for case in [failed, case()] {
            let seen = Seen { case: Some(case), ..Seen::default() };
            assert_eq!(decide(&candidate(), &seen, Source::GuardDuty, &execution()), Decision::Respond);
        }
    }

    #[test]
    fn a_refusal_covers_only_the_findings_that_it_was_about() {
        let known: BTreeSet<String> = candidate().findings;
        for held in [false, true] {
            let refused = Case { approval: Some("Refused".into()), findings: known.clone(), ..case() };
            let seen = |asked_about: &BTreeSet<String>, findings: &BTreeSet<String>| {
                let case = Case { asked_about: asked_about.clone(), findings: findings.clone(), ..refused.clone() };
                Seen { case: Some(case), held, ..Seen::default() }
            };
            let left = reason(decide(&candidate(), &seen(&known, &known), Source::GuardDuty, &execution()));
            assert!(left.quiet && left.reason.contains("refused"), "{left:?}");
            let new = seen(&BTreeSet::new(), &BTreeSet::new());
            assert_eq!(decide(&candidate(), &new, Source::GuardDuty, &execution()), Decision::Respond);
            for person in [Source::SecurityHubCustomAction, Source::Hand] {
                assert_eq!(decide(&candidate(), &seen(&known, &known), person, &execution()), Decision::Respond);
            }
        }
        // It came while the approval was pending, and nobody was asked about it.
        let late = Case { approval: Some("Refused".into()), findings: known, ..case() };
        let seen = Seen { case: Some(late), ..Seen::default() };
        assert_eq!(decide(&candidate(), &seen, Source::GuardDuty, &execution()), Decision::Respond);
    }

    #[test]
    fn a_persons_request_is_never_left_out_quietly() {
        let contained = Case { verdict: Some("Contained".into()), findings: candidate().findings, ..case() };
        let seen = Seen { case: Some(contained), held: true, ..Seen::default() };
        for person in [Source::SecurityHubCustomAction, Source::Hand] {
            assert!(!reason(decide(&candidate(), &seen, person, &execution())).quiet);
        }
    }

    #[test]
    fn cordons_own_instances_are_never_contained_not_even_by_hand() {
        let guardrail = Guardrail { rule: "Cordon".into(), reason: "the forensic host".into() };
        let seen = Seen { guardrail: Some(guardrail), ..Seen::default() };
        let left = reason(decide(&candidate(), &seen, Source::Hand, &execution()));
        assert!(left.status == Status::Failed && left.reason.contains("the forensic host"));
    }

    #[test]
    fn protection_and_the_response_mode_need_approval_except_for_a_start_by_hand() {
        let guardrail = Guardrail { rule: "Protected".into(), reason: "payments".into() };
        let seen = Seen { guardrail: Some(guardrail), ..Seen::default() };
        let asking = Settings { response_mode: ResponseMode::RequestApproval, ..settings() };
        assert_eq!(reasons_to_ask(&candidate(), &seen, Source::GuardDuty, &asking).len(), 2);
        assert_eq!(reasons_to_ask(&candidate(), &seen, Source::SecurityHubCustomAction, &asking).len(), 1);
        assert!(reasons_to_ask(&candidate(), &seen, Source::Hand, &asking).is_empty());
    }

    /// An intake whose table is empty, or refuses conditional writes.
    fn intake(refuse_put: bool, refuse_count: bool) -> Intake {
        let refused = || {
            let meta = ErrorMetadata::builder().code("ConditionalCheckFailedException").build();
            ConditionalCheckFailedException::builder().meta(meta).build()
        };
        let get = mock!(aws_sdk_dynamodb::Client::get_item).then_output(|| GetItemOutput::builder().build());
        let put = match refuse_put {
            true => mock!(aws_sdk_dynamodb::Client::put_item)
                .then_error(move || PutItemError::ConditionalCheckFailedException(refused())),
            false => mock!(aws_sdk_dynamodb::Client::put_item).then_output(|| PutItemOutput::builder().build()),
        };
        let automatic = AttributeValue::S("automatic".into());
        let counted = mock!(aws_sdk_dynamodb::Client::update_item)
            .match_requests(move |r| r.key().expect("key")["Instance"] == automatic);
        let counted = match refuse_count {
            true => counted.then_error(move || UpdateItemError::ConditionalCheckFailedException(refused())),
            false => counted.then_output(|| UpdateItemOutput::builder().build()),
        };
        let findings = mock!(aws_sdk_dynamodb::Client::update_item)
            .match_requests(|r| {
                let mut names = r.expression_attribute_names().expect("names").values();
                r.update_expression().is_some_and(|update| update.starts_with("ADD ")) && names.any(|n| n == "Findings")
            })
            .then_output(|| UpdateItemOutput::builder().build());
        let table = mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [&get, &put, &counted, &findings]);
        // No case is held, so Step Functions is not called.
        Intake { cases: CaseTable::new(table, "cases"), sfn: mock_client!(aws_sdk_sfn, []) }
    }

    fn request(instances: usize) -> Request {
        let target = |n: usize| Target { instance_id: format!("i-{n:017x}"), ..Target::example() };
        let candidate = (0..instances).map(|n| Candidate { target: target(n), ..candidate() });
        let trigger = Trigger { source: Source::GuardDuty, findings: Vec::new(), drift: None };
        Request { trigger, candidates: candidate.collect(), left_out: Vec::new(), is_fleet: false, batch: None }
    }

    #[tokio::test]
    async fn instances_within_the_limits_are_contained_without_approval() {
        let plan = intake(false, false).respond(request(5), &execution(), &settings()).await.expect("a plan");
        assert!(plan.targets.len() == 5 && plan.targets.iter().all(|t| t.approval.is_none()));
    }

    #[tokio::test]
    async fn beyond_a_limit_every_instance_needs_approval() {
        let plan = intake(false, false).respond(request(6), &execution(), &settings()).await.expect("a plan");
        let asked = |plan: &Plan, text: &str| {
            plan.targets.iter().all(|t| t.approval.as_ref().is_some_and(|a| a.contains(text)))
        };
        assert!(asked(&plan, "6 instances at once"), "{:?}", plan.targets);
        let plan = intake(false, true).respond(request(2), &execution(), &settings()).await.expect("a plan");
        assert!(asked(&plan, "automatic containments (10)"), "{:?}", plan.targets);
    }

    #[tokio::test]
    async fn losing_the_race_for_a_case_is_a_transient_conflict() {
        let error = intake(true, false).respond(request(1), &execution(), &settings()).await.expect_err("taken");
        assert_eq!((error.name(), error.is_transient()), ("Conflict", true));
    }

    #[test]
    fn the_list_of_instances_left_out_stays_small_with_failures_first() {
        let one = |status| LeftOut::instance(&Target::example(), status, "x".repeat(300));
        let all = (0..5000).map(|n| one(if n == 4999 { Status::Failed } else { Status::NotApplicable })).collect();
        let kept = at_most(all);
        assert_eq!((kept.len(), kept[0].status), (LEFT_OUT_AT_MOST + 1, Status::Failed));
        assert!(serde_json::to_string(&kept).expect("JSON").len() < 40_000);
    }
}
