//! Reads everything back and says what is contained and what is not. Changes nothing of the instance; notes the verdict
//! in the case.
//!
//! The verdict comes from AWS as it is now, never from what a step said of itself.

mod verdict;
mod watched;

use aws_config::SdkConfig;
use cases::{CaseTable, now};
use containment::{Error, Forensic, Outcome, Reported, Result, Step, Target, inspect};
use copy_snapshots::CopySnapshots;
use create_flow_logs::CreateFlowLogs;
use create_snapshots::CreateSnapshots;
use delete_originals::DeleteOriginals;
use deregister_targets::DeregisterTargets;
use detach_autoscaling::DetachAutoscaling;
use detach_profile::DetachProfile;
use encrypt_snapshots::EncryptSnapshots;
use evidence::{Bucket, Entry};
use futures::future::BoxFuture;
use futures::{FutureExt, future::join_all};
use isolate_network::IsolateNetwork;
use lock_snapshots::{LockSnapshots, wanted};
use network::automatically_tracked;
use preserve_volumes::PreserveVolumes;
use protect_instance::ProtectInstance;
use revoke_credentials::RevokeCredentials;
use runtime::Aws;
use serde::Deserialize;
use serde_json::Value;
use share_snapshots::ShareSnapshots;
use snapshots::key_in_region;
use tag_resources::TagResources;
use terminate_sessions::TerminateSessions;

/// The function's name.
pub const NAME: &str = "verify-containment";

pub use verdict::{Report, Row, Verdict, line, row, when};

/// What the state machine hands over when every branch has ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Event {
    /// What `describe-instance` answered.
    pub described: Described,
    /// What each branch's steps answered, branch by branch.
    #[serde(default)]
    pub outcomes: Vec<Vec<Reported>>,
    /// How many bytes the answer may have: all instances' answers share one state of 256 KiB (trap H3).
    #[serde(default = "a_whole_state")]
    pub output_bytes: usize,
}

/// The answer of `describe-instance`, as far as the verdict needs it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Described {
    /// The instance.
    pub target: Value,
    /// What was found.
    #[serde(default)]
    pub facts: Value,
    /// Where it was stored.
    #[serde(default)]
    pub evidence: Option<Entry>,
    /// Whether all of it was.
    pub outcome: Outcome,
}

fn a_whole_state() -> usize {
    200_000
}

/// The function: a target and its outcomes in, a verdict out. The whole of it goes into the evidence bucket.
pub async fn handle(aws: &Aws, event: Value) -> Result<Report> {
    let event: Event = serde_json::from_value(event)
        .map_err(|error| Error::InvalidInput(format!("the event of verify-containment: {error}")))?;
    let Described { target, facts, evidence, outcome } = event.described;
    // An instance with an open window is not contained yet.
    let target = Target { capture_window: false, ..Target::parse(target)? };
    let ran: Vec<Outcome> =
        [outcome].into_iter().chain(event.outcomes.into_iter().flatten().map(Outcome::from)).collect();
    let report = Report::new(&target, facts, evidence.map(|entry| entry.pointer));
    if target.dry_run {
        return Ok(report.planned(ran).shortened(event.output_bytes));
    }
    let config = aws.of(&target, NAME).await?;
    let began = now();
    let (checks, network) = futures::join!(checks(aws, &config, &target), network(&config, &target));
    let (checks, forensic) = (checks?, aws.forensic()?);
    let resources = watched::resources(&target, forensic.as_ref(), &network.found, &checks);
    let mut report = report.verified(&ran, checks, network.paths);
    let bucket = Bucket::of(aws)?;
    let whole = serde_json::to_value(&report).unwrap_or_default();
    let journal = aws.case_table()?;
    // A call that undoes the containment may name any of these and not the instance; whoever watches has to know them by
    // the time that the verdict says so.
    let (stored, noted) =
        futures::join!(bucket.put(&target, NAME, &whole), journal.note_resources(&target, &resources));
    if let Err(error) = noted {
        report.record_is_missing(NAME, &error);
    }
    match stored {
        Ok(entry) => {
            if let Err(error) = evidence::enter(&journal, &target, &entry).await {
                report.record_is_missing(NAME, &error);
            }
            report.evidence.push(entry.pointer);
        }
        Err(error) => report.record_is_missing(NAME, &error),
    }
    // For intake: a finding that is repeated about a contained instance needs no second containment.
    let isolated = matches!(report.verdict, Verdict::Contained | Verdict::PartiallyContained);
    let verdict = format!("{:?}", report.verdict);
    if let Err(error) = journal.note_verified(&target, &verdict, isolated, began).await {
        report.record_is_missing(NAME, &error);
    }
    Ok(report.shortened(event.output_bytes))
}

/// A step's name and how AWS shows it, all steps at once, in the order in which a reader wants them.
async fn checks(aws: &Aws, config: &SdkConfig, target: &Target) -> Result<Vec<(&'static str, Result<Outcome>)>> {
    let journal = aws.case_table()?;
    let key = key_in_region(aws.setting("SNAPSHOT_KEY_ARN"), target);
    let delete = aws.setting("DELETE_UNENCRYPTED_ORIGINALS").as_deref() == Some("true");
    let forensic = aws.forensic()?;
    let mut checks = vec![
        check(DetachAutoscaling::new(config), target, &journal),
        check(IsolateNetwork::new(config), target, &journal),
        check(DeregisterTargets::new(config), target, &journal),
        check(ProtectInstance::new(config), target, &journal),
        check(PreserveVolumes::new(config), target, &journal),
        check(TagResources::new(config), target, &journal),
        check(CreateSnapshots::new(config), target, &journal),
        check(EncryptSnapshots::new(config, key.clone(), forensic.is_some()), target, &journal),
    ];
    if let Some(forensic) = &forensic {
        checks.push(check(ShareSnapshots::new(config, forensic, key.clone()), target, &journal));
        checks.push(check_copies(aws, config, forensic, key.clone(), target, &journal));
        checks.push(check_locks(aws, forensic, target, &journal));
    }
    checks.extend([
        check(DeleteOriginals::new(config, delete, key), target, &journal),
        // Without a bucket, because nothing is written here.
        check(CreateFlowLogs::new(config, None), target, &journal),
        check(TerminateSessions::new(config), target, &journal),
        check(RevokeCredentials::new(config), target, &journal),
        check(DetachProfile::new(config), target, &journal),
    ]);
    Ok(join_all(checks).await)
}

type Check<'a> = BoxFuture<'a, (&'static str, Result<Outcome>)>;

fn check<'a, S: Step + Send + 'a>(step: S, target: &'a Target, journal: &'a CaseTable) -> Check<'a> {
    async move { (S::NAME, inspect(&step, target, journal).await) }.boxed()
}

/// With a session of its own in the forensic account: one that can't be had is the copies' failure and no other's.
fn check_copies<'a>(
    aws: &'a Aws,
    here: &'a SdkConfig,
    forensic: &'a Forensic,
    key: Option<String>,
    target: &'a Target,
    journal: &'a CaseTable,
) -> Check<'a> {
    let shown = async move {
        let there = aws.of_forensic(forensic, target, NAME).await?;
        inspect(&CopySnapshots::new(here, &there, forensic.clone(), key), target, journal).await
    };
    async move { (CopySnapshots::NAME, shown.await) }.boxed()
}

fn check_locks<'a>(aws: &'a Aws, forensic: &'a Forensic, target: &'a Target, journal: &'a CaseTable) -> Check<'a> {
    let shown = async move {
        let there = aws.of_forensic(forensic, target, NAME).await?;
        inspect(&LockSnapshots::new(&there, forensic.clone(), wanted(aws)?), target, journal).await
    };
    async move { (LockSnapshots::NAME, shown.await) }.boxed()
}

/// What is known of the instance's interfaces.
struct Network {
    /// The connections that group changes can't cut.
    paths: Vec<String>,
    /// The interfaces, their addresses and Cordon's groups; nothing where they could not be read.
    found: isolate_network::Facts,
}

/// The paths that group changes can't cut, looked up again: a re-run has nothing to write and would not look (trap A2).
async fn network(config: &SdkConfig, target: &Target) -> Network {
    let ec2 = aws_sdk_ec2::Client::new(config);
    let unknown = |error: Error| vec![format!("which connections cannot be cut is unknown: {error}")];
    let found = match IsolateNetwork::with_client(ec2.clone()).read(target).await {
        Ok(found) => found.facts,
        Err(error) => return Network { paths: unknown(error), found: isolate_network::Facts::default() },
    };
    let paths = automatically_tracked(&ec2, found.interfaces.iter().map(|(id, one)| (id.as_str(), one))).await;
    Network { paths: paths.unwrap_or_else(unknown), found }
}
