//! Reads everything back and says what is released and what is not. Changes nothing of the instance; closes its case when
//! nothing is left to release.
//!
//! The verdict comes from AWS as it is now, never from what a step said of itself.

mod verified;

use aws_config::SdkConfig;
use aws_smithy_types::date_time::{DateTime, Format};
use cases::{CaseTable, now};
use containment::{Error, Outcome, Reported, Result, Reversible, Status, Target, inspect_release};
use create_flow_logs::CreateFlowLogs;
use deregister_targets::DeregisterTargets;
use detach_autoscaling::DetachAutoscaling;
use detach_profile::DetachProfile;
use evidence::Bucket;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use isolate_network::IsolateNetwork;
use preserve_volumes::PreserveVolumes;
use protect_instance::ProtectInstance;
use revoke_credentials::RevokeCredentials;
use runtime::Aws;
use serde::Deserialize;
use serde_json::{Value, json};
use tag_resources::TagResources;
use verdict::{InstanceReport, StepName, Workflow};

use verified::{Check, Verified, closing, verified};

/// The function's name.
pub const NAME: &str = StepName::VerifyRelease.name();

/// What the state machine passes when all steps of an instance have ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Event {
    /// The instance, with the steps to release.
    pub target: Value,
    /// What the steps answered.
    #[serde(default)]
    pub outcomes: Vec<Reported>,
    /// Whether the case is closed although something of it is not released: a person has restored it by hand.
    #[serde(default)]
    pub close_case: bool,
    /// How many bytes the answer may have: all instances' answers share one state of 256 KiB
    /// (aws-behaviour#state-size).
    #[serde(default = "a_whole_state")]
    pub output_bytes: usize,
}

fn a_whole_state() -> usize {
    200_000
}

/// The function: a target and its outcomes in, a verdict out. The evidence bucket gets the whole report.
pub async fn handle(aws: &Aws, event: Value) -> Result<InstanceReport> {
    let event: Event =
        serde_json::from_value(event).map_err(|error| Error::InvalidInput(format!("invalid {NAME} event: {error}")))?;
    let target = Target::parse(event.target)?;
    let Some(asked) = target.release.clone() else {
        return Err(Error::InvalidInput("Target.Release: missing; accepted: the steps to release".into()));
    };
    let ran: Vec<Outcome> = event.outcomes.into_iter().map(Outcome::from).collect();
    let report = InstanceReport {
        instance_id: target.instance_id.clone(),
        account_id: target.account_id.clone(),
        region: target.region.clone(),
        case_id: Some(target.case_id.clone()),
        facts: json!({}),
        ..InstanceReport::default()
    };
    if target.dry_run {
        return Ok(report.planned(Workflow::Release, ran).shortened(event.output_bytes));
    }
    let (bucket, cases) = (Bucket::of(aws)?, aws.case_table()?);
    let config = aws.of(&target, NAME).await?;
    let checks = checks(&config, &target, &cases).await;
    let Verified { mut report, mut left } = verified(report, &asked, &ran, checks);
    let whole = serde_json::to_value(&report).unwrap_or_default();
    let mut unrecorded = |report: &mut InstanceReport, error: Error| {
        report.leave_open(format!("{NAME}: its record could not be stored: {error}"));
        left.push(NAME.to_owned());
    };
    let entered = async {
        let entry = bucket.put(&target, NAME, &whole).await?;
        report.evidence.push(entry.pointer.clone());
        evidence::enter(&cases, &target, &entry).await
    };
    if let Err(error) = entered.await {
        unrecorded(&mut report, error);
    }
    if let Err(error) = cases.note_verdict(&target, report.verdict.as_str()).await {
        unrecorded(&mut report, error);
    }
    report.add(close(&cases, &target, &left, event.close_case).await);
    Ok(report.shortened(event.output_bytes))
}

/// Closes the case, or says why it stays open: a row of the report like a step's.
async fn close(cases: &CaseTable, target: &Target, left: &[String], close_case: bool) -> Outcome {
    let of = |status, reason: String| Outcome::new(StepName::CloseCase.name(), status, reason);
    match closing(left, close_case) {
        Err(why) => of(Status::NotApplicable, why),
        Ok(reason) => match cases.close(target, &utc(now())).await {
            Ok(true) => of(Status::Done, reason),
            Ok(false) => of(Status::Failed, "another execution took over the case, so it stays open".to_owned()),
            Err(error) => of(Status::Failed, format!("the case could not be closed: {error}")),
        },
    }
}

/// In UTC, to the second.
fn utc(seconds: i64) -> String {
    DateTime::from_secs(seconds).fmt(Format::DateTime).unwrap_or_default()
}

/// How AWS shows each step that a release can undo, all at once, in the order of the release. Those that were not asked
/// for too: whether the case can be closed depends on all of them.
async fn checks(config: &SdkConfig, target: &Target, cases: &CaseTable) -> Vec<Check> {
    let all = StepName::released();
    let target = &Target { release: Some(all.iter().map(ToString::to_string).collect()), ..target.clone() };
    let looks = all.into_iter().filter_map(|step| Some((step, look(step, config, target, cases)?)));
    join_all(looks.map(|(step, look)| async move { (step, look.await) })).await
}

type Look<'a> = BoxFuture<'a, Result<Outcome>>;

/// How AWS shows a step; none for one that no release undoes.
fn look<'a>(step: StepName, config: &SdkConfig, target: &'a Target, cases: &'a CaseTable) -> Option<Look<'a>> {
    Some(match step {
        StepName::RevokeCredentials => inspect(RevokeCredentials::new(config), target, cases),
        StepName::DetachProfile => inspect(DetachProfile::new(config), target, cases),
        StepName::IsolateNetwork => inspect(IsolateNetwork::new(config), target, cases),
        StepName::DeregisterTargets => inspect(DeregisterTargets::new(config), target, cases),
        StepName::ProtectInstance => inspect(ProtectInstance::new(config), target, cases),
        StepName::PreserveVolumes => inspect(PreserveVolumes::new(config), target, cases),
        // Without a bucket, because nothing is written here.
        StepName::CreateFlowLogs => inspect(CreateFlowLogs::new(config, None), target, cases),
        StepName::TagResources => inspect(TagResources::new(config), target, cases),
        StepName::DetachAutoscaling => inspect(DetachAutoscaling::new(config), target, cases),
        StepName::CreateSnapshots
        | StepName::EncryptSnapshots
        | StepName::ShareSnapshots
        | StepName::CopySnapshots
        | StepName::LockSnapshots
        | StepName::DeleteOriginals
        | StepName::TerminateSessions
        | StepName::CaptureVolatile
        | StepName::CollectFacts
        | StepName::DescribeInstance
        | StepName::DescribeNetwork
        | StepName::HashSnapshots
        | StepName::RequestApproval
        | StepName::VerifyContainment
        | StepName::VerifyRelease
        | StepName::SealEvidence
        | StepName::CloseCase => return None,
    })
}

fn inspect<'a, S: Reversible + Send + 'a>(step: S, target: &'a Target, cases: &'a CaseTable) -> Look<'a> {
    async move { inspect_release(&step, target, cases).await }.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_config::BehaviorVersion;

    #[test]
    fn every_step_that_a_release_undoes_is_read_back_and_no_other() {
        let config = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).build();
        let cases = CaseTable::new(aws_sdk_dynamodb::Client::new(&config), "cases");
        let target = Target::example();
        for step in StepName::ALL {
            let is_read = look(*step, &config, &target, &cases).is_some();
            assert_eq!(is_read, StepName::released().contains(step), "{step}: look() of verify-release");
        }
    }
}
