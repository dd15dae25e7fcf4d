//! Reads everything back and says what is contained and what is not. Changes nothing of the instance; notes the verdict
//! in the case.
//!
//! The verdict comes from AWS as it is now, never from what a step said of itself.

mod monitored;
mod verified;

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
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, join};
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
use verdict::{InstanceReport, StepName, Verdict, Workflow};

use verified::{Check, verified};

/// The function's name.
pub const NAME: &str = StepName::VerifyContainment.name();

/// What the state machine passes when every branch has ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Event {
    /// What `describe-instance` answered.
    pub described: Described,
    /// What each branch's steps answered, branch by branch.
    #[serde(default)]
    pub outcomes: Vec<Vec<Reported>>,
    /// How many bytes the answer may have: all instances' answers share one state of 256 KiB
    /// (aws-behaviour#state-size).
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

/// The function: a target and its outcomes in, a verdict out. The evidence bucket gets the whole report.
pub async fn handle(aws: &Aws, event: Value) -> Result<InstanceReport> {
    let event: Event =
        serde_json::from_value(event).map_err(|error| Error::InvalidInput(format!("invalid {NAME} event: {error}")))?;
    let Described { target, facts, evidence, outcome } = event.described;
    // An instance with an open window is not contained yet.
    let target = Target { capture_window: false, ..Target::parse(target)? };
    let ran: Vec<Outcome> =
        [outcome].into_iter().chain(event.outcomes.into_iter().flatten().map(Outcome::from)).collect();
    let report = InstanceReport {
        instance_id: target.instance_id.clone(),
        account_id: target.account_id.clone(),
        region: target.region.clone(),
        case_id: Some(target.case_id.clone()),
        facts,
        evidence: evidence.into_iter().map(|entry| entry.pointer).collect(),
        ..InstanceReport::default()
    };
    if target.dry_run {
        return Ok(report.planned(Workflow::Contain, ran).shortened(event.output_bytes));
    }
    let config = aws.of(&target, NAME).await?;
    let began = now();
    let reader = Reader {
        journal: aws.case_table()?,
        key: key_in_region(aws.setting("SNAPSHOT_KEY_ARN"), &target),
        delete_originals: aws.setting("DELETE_UNENCRYPTED_ORIGINALS").as_deref() == Some("true"),
        forensic: aws.forensic()?,
        aws,
        config: &config,
        target: &target,
    };
    let (checks, network) = join!(reader.all(), network(&config, &target));
    let resources = monitored::resources(&target, reader.forensic.as_ref(), &network.found, &checks);
    let mut report = verified(report, target.capture.is_some(), &ran, checks, network.paths);
    let bucket = Bucket::of(aws)?;
    let whole = serde_json::to_value(&report).unwrap_or_default();
    // A call that undoes the containment may name any of these and not the instance: drift detection has to know them by
    // the time the verdict is out.
    let (stored, noted) = join!(bucket.put(&target, NAME, &whole), reader.journal.note_resources(&target, &resources));
    let unrecorded = |report: &mut InstanceReport, error: Error| {
        report.leave_open(format!("{NAME}: its record could not be stored: {error}"));
    };
    if let Err(error) = noted {
        unrecorded(&mut report, error);
    }
    match stored {
        Ok(entry) => {
            if let Err(error) = evidence::enter(&reader.journal, &target, &entry).await {
                unrecorded(&mut report, error);
            }
            report.evidence.push(entry.pointer);
        }
        Err(error) => unrecorded(&mut report, error),
    }
    // For intake: a repeated finding about a contained instance needs no second containment.
    let isolated = report.verdict.known().is_some_and(Verdict::is_isolated);
    let noted = reader.journal.note_verified(&target, report.verdict.as_str(), isolated, began).await;
    if let Err(error) = noted {
        unrecorded(&mut report, error);
    }
    Ok(report.shortened(event.output_bytes))
}

/// Reads steps back.
struct Reader<'a> {
    aws: &'a Aws,
    config: &'a SdkConfig,
    target: &'a Target,
    journal: CaseTable,
    key: Option<String>,
    delete_originals: bool,
    forensic: Option<Forensic>,
}

type Look<'a> = BoxFuture<'a, Result<Outcome>>;

impl Reader<'_> {
    /// How AWS shows each step, all at once, in the order in which a reader wants them.
    async fn all(&self) -> Vec<Check> {
        let looks = StepName::ALL.iter().filter_map(|step| Some((*step, self.look(*step)?)));
        join_all(looks.map(|(step, look)| async move { (step, look.await) })).await
    }

    /// How AWS shows a step; none for one that changes nothing, or that this stack does not have.
    fn look(&self, step: StepName) -> Option<Look<'_>> {
        let Reader { config, key, forensic, .. } = self;
        Some(match step {
            StepName::DetachAutoscaling => self.inspect(DetachAutoscaling::new(config)),
            StepName::IsolateNetwork => self.inspect(IsolateNetwork::new(config)),
            StepName::DeregisterTargets => self.inspect(DeregisterTargets::new(config)),
            StepName::ProtectInstance => self.inspect(ProtectInstance::new(config)),
            StepName::PreserveVolumes => self.inspect(PreserveVolumes::new(config)),
            StepName::TagResources => self.inspect(TagResources::new(config)),
            StepName::CreateSnapshots => self.inspect(CreateSnapshots::new(config)),
            StepName::EncryptSnapshots => self.inspect(EncryptSnapshots::new(config, key.clone(), forensic.is_some())),
            StepName::ShareSnapshots => self.inspect(ShareSnapshots::new(config, forensic.as_ref()?, key.clone())),
            StepName::CopySnapshots => self.copies(forensic.as_ref()?),
            StepName::LockSnapshots => self.locks(forensic.as_ref()?),
            StepName::DeleteOriginals => self.inspect(DeleteOriginals::new(config, self.delete_originals, key.clone())),
            // Without a bucket, because nothing is written here.
            StepName::CreateFlowLogs => self.inspect(CreateFlowLogs::new(config, None)),
            StepName::TerminateSessions => self.inspect(TerminateSessions::new(config)),
            StepName::RevokeCredentials => self.inspect(RevokeCredentials::new(config)),
            StepName::DetachProfile => self.inspect(DetachProfile::new(config)),
            StepName::CaptureVolatile
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

    fn inspect<'s, S: Step + Send + 's>(&'s self, step: S) -> Look<'s> {
        async move { inspect(&step, self.target, &self.journal).await }.boxed()
    }

    /// With its own session in the forensic account: one that cannot be had fails the copies and no other step.
    fn copies<'s>(&'s self, forensic: &'s Forensic) -> Look<'s> {
        async move {
            let there = self.aws.of_forensic(forensic, self.target, NAME).await?;
            let step = CopySnapshots::new(self.config, &there, forensic.clone(), self.key.clone());
            inspect(&step, self.target, &self.journal).await
        }
        .boxed()
    }

    fn locks<'s>(&'s self, forensic: &'s Forensic) -> Look<'s> {
        async move {
            let there = self.aws.of_forensic(forensic, self.target, NAME).await?;
            let step = LockSnapshots::new(&there, forensic.clone(), wanted(self.aws)?);
            inspect(&step, self.target, &self.journal).await
        }
        .boxed()
    }
}

/// What is known of the instance's interfaces.
struct Network {
    /// The connections that group changes cannot cut.
    paths: Vec<String>,
    /// The interfaces, their addresses and Cordon's groups; empty where they could not be read.
    found: isolate_network::Facts,
}

/// Reads the network once more: a repeated run has nothing to write, and would not look for uncut connections
/// (aws-behaviour#automatic-tracking).
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
