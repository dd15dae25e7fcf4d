//! Reads everything back and says what is released and what is not. Changes nothing of the instance; closes its case when
//! nothing of it is left to release.
//!
//! The verdict comes from AWS as it is now, never from what a step said of itself.

mod verdict;

use aws_config::SdkConfig;
use aws_smithy_types::date_time::{DateTime, Format};
use cases::{CaseTable, now};
use containment::{Error, Outcome, Reported, Result, Status, Step, Target, inspect_release};
use create_flow_logs::CreateFlowLogs;
use deregister_targets::DeregisterTargets;
use detach_autoscaling::DetachAutoscaling;
use detach_profile::DetachProfile;
use evidence::Bucket;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use isolate_network::IsolateNetwork;
use plan_release::{AUTO_SCALING, STEPS};
use preserve_volumes::PreserveVolumes;
use protect_instance::ProtectInstance;
use revoke_credentials::RevokeCredentials;
use runtime::Aws;
use serde::Deserialize;
use serde_json::{Value, json};
use tag_resources::TagResources;
use verify_containment::Report;

use verdict::{CLOSE, Verified, planned, verified};

/// The function's name.
pub const NAME: &str = "verify-release";

/// What the state machine hands over when all steps of an instance have ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Event {
    /// The instance, with the steps that were to be released.
    pub target: Value,
    /// What the steps answered.
    #[serde(default)]
    pub outcomes: Vec<Reported>,
    /// Whether the case is closed although something of it is not released: what can't be restored was done by hand.
    #[serde(default)]
    pub close_case: bool,
    /// How many bytes the answer may have: all instances' answers share one state of 256 KiB (trap H3).
    #[serde(default = "a_whole_state")]
    pub output_bytes: usize,
}

fn a_whole_state() -> usize {
    200_000
}

/// The function: a target and its outcomes in, a verdict out. The whole of it goes into the evidence bucket.
pub async fn handle(aws: &Aws, event: Value) -> Result<Report> {
    let event: Event =
        serde_json::from_value(event).map_err(|error| Error::InvalidInput(format!("the event of {NAME}: {error}")))?;
    let target = Target::parse(event.target)?;
    let Some(asked) = target.release.clone() else {
        return Err(Error::InvalidInput(
            "Target.Release: missing; accepted: the steps that were to be released".into(),
        ));
    };
    let ran: Vec<Outcome> = event.outcomes.into_iter().map(Outcome::from).collect();
    let report = Report::new(&target, json!({}), None);
    if target.dry_run {
        return Ok(planned(report, ran).shortened(event.output_bytes));
    }
    let (bucket, cases) = (Bucket::of(aws)?, aws.case_table()?);
    let config = aws.of(&target, NAME).await?;
    let checks = checks(&config, &target, &cases).await;
    let Verified { mut report, left } = verified(report, &asked, &ran, checks);
    let whole = serde_json::to_value(&report).unwrap_or_default();
    let entered = async {
        let entry = bucket.put(&target, NAME, &whole).await?;
        report.evidence.push(entry.pointer.clone());
        evidence::enter(&cases, &target, &entry).await
    };
    if let Err(error) = entered.await {
        report.record_is_missing(NAME, &error);
    }
    if let Err(error) = cases.note_verdict(&target, &format!("{:?}", report.verdict)).await {
        report.record_is_missing(NAME, &error);
    }
    close(&cases, &target, &mut report, left, event.close_case).await;
    Ok(report.shortened(event.output_bytes))
}

/// Closes the case, or says why it stays open: a row of the report like a step's.
async fn close(cases: &CaseTable, target: &Target, report: &mut Report, left: Vec<String>, close_case: bool) {
    let left: Vec<String> = left.into_iter().chain(report.open.iter().map(|line| first_word(line))).collect();
    let outcome = match verdict::closing(&left, close_case) {
        Err(why) => Outcome::new(CLOSE, Status::NotApplicable, why),
        Ok(reason) => match cases.close(target, &utc(now())).await {
            Ok(true) => Outcome::new(CLOSE, Status::Done, reason),
            Ok(false) => {
                let taken = "another execution has taken the case over meanwhile, so it stays open";
                Outcome::new(CLOSE, Status::Failed, taken.to_owned())
            }
            Err(error) => Outcome::new(CLOSE, Status::Failed, format!("the case could not be closed: {error}")),
        },
    };
    verdict::conclude(report, outcome);
}

/// In UTC, to the second.
fn utc(seconds: i64) -> String {
    DateTime::from_secs(seconds).fmt(Format::DateTime).unwrap_or_default()
}

/// The step, or the function, that a line of `Open` is about.
fn first_word(line: &str) -> String {
    line.split([' ', ':']).next().unwrap_or_default().to_owned()
}

/// A step's name and how AWS shows it, all steps at once, in the order of the workflow. Of those that were not asked for
/// too: whether the case can be closed depends on all.
async fn checks(config: &SdkConfig, target: &Target, cases: &CaseTable) -> Vec<(&'static str, Result<Outcome>)> {
    let all = STEPS.into_iter().chain([AUTO_SCALING]).map(ToOwned::to_owned).collect();
    let target = &Target { release: Some(all), ..target.clone() };
    let checks: Vec<Check<'_>> = vec![
        check(RevokeCredentials::new(config), target, cases),
        check(DetachProfile::new(config), target, cases),
        check(IsolateNetwork::new(config), target, cases),
        check(DeregisterTargets::new(config), target, cases),
        check(ProtectInstance::new(config), target, cases),
        check(PreserveVolumes::new(config), target, cases),
        // Without a bucket, because nothing is written here.
        check(CreateFlowLogs::new(config, None), target, cases),
        check(TagResources::new(config), target, cases),
        check(DetachAutoscaling::new(config), target, cases),
    ];
    join_all(checks).await
}

type Check<'a> = BoxFuture<'a, (&'static str, Result<Outcome>)>;

fn check<'a, S: Step + Send + 'a>(step: S, target: &'a Target, cases: &'a CaseTable) -> Check<'a> {
    async move { (S::NAME, inspect_release(&step, target, cases).await) }.boxed()
}
