//! Seals a case: compares what is in the evidence bucket with what the case's ledger says must be there, and writes the
//! manifest, its signature and the report beside it. Changes nothing of the instance.
//!
//! Whatever is wrong is in the manifest, which is written and signed anyway: a case with a hole is evidence too.

mod collect;
mod compare;
mod lineage;
mod objects;
mod record;
mod render;
mod sign;
#[cfg(test)]
mod tests;

use std::time::Duration;

use containment::{Error, Journal, Outcome, Result, Status, Target};
use custody::{MANIFEST, REPORT, SIGNATURE};
use evidence::{Bucket, Entry};
use futures::FutureExt;
use runtime::Aws;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use verdict::{InstanceReport, StepName};

use collect::Sources;
use objects::Objects;

/// The step's name.
pub const NAME: &str = StepName::SealEvidence.name();

/// What the state machine passes when an instance has been verified.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Event {
    /// What `describe-instance` answered; after a release, the target alone.
    pub described: Described,
    /// What the verifier answered; it is passed on with this step's outcome in it.
    pub report: InstanceReport,
}

/// The answer of `describe-instance`, as far as sealing needs it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Described {
    /// The instance.
    pub target: Value,
    /// Its evidence, which nobody has entered into the ledger yet: before isolation there was no time for it.
    #[serde(default)]
    pub evidence: Option<Entry>,
}

/// How long evidence may be read for its hash; the rest of the function's time is for writing.
const READING: Duration = Duration::from_secs(90);

/// What sealing itself writes.
const OURS: [&str; 3] = [MANIFEST, SIGNATURE, REPORT];

/// The function: a report in, the same report with this step in it out.
///
/// Whatever goes wrong is in the step's outcome. Errors: [`Error::InvalidInput`] for an invalid event,
/// [`Error::Misconfigured`] for a function without its settings.
pub async fn handle(aws: &Aws, event: Value) -> Result<InstanceReport> {
    let event: Event =
        serde_json::from_value(event).map_err(|error| Error::InvalidInput(format!("invalid {NAME} event: {error}")))?;
    let target = Target::parse(event.described.target)?;
    if target.dry_run {
        return Ok(event.report);
    }
    let (bucket, key, journal) =
        (aws.required("EVIDENCE_BUCKET")?, aws.required("MANIFEST_KEY_ARN")?, aws.case_table()?);
    let sealer = Sealer {
        objects: Objects { s3: aws_sdk_s3::Client::new(aws.home()), bucket, until: Instant::now() + READING },
        writer: Bucket::of(aws)?,
        kms: aws_sdk_kms::Client::new(aws.home()),
        key,
        // Boxed, as below, because the whole future's type is too deep for the compiler's default limit.
        sealed_by: aws.caller().arn().boxed().await.unwrap_or_default(),
    };
    let sources = Sources::of(aws, &target).boxed().await;
    let verified = event.report.verdict.clone();
    let mut report = sealer.seal(&journal, sources, &target, event.described.evidence, event.report).boxed().await;
    // Intake has the verifier's word. While the evidence is not whole, a repeated finding is a reason to contain again.
    if report.verdict != verified
        && let Err(error) = journal.note_verdict(&target, report.verdict.as_str()).await
    {
        report.leave_open(format!("{NAME}: its verdict could not be noted: {error}"));
    }
    Ok(report)
}

/// What sealing needs of Cordon's own account.
struct Sealer {
    objects: Objects,
    writer: Bucket,
    kms: aws_sdk_kms::Client,
    /// The signing key's ARN.
    key: String,
    /// The function's own identity.
    sealed_by: String,
}

/// What is wrong with the case or could not be found out, in words.
#[derive(Debug, Default)]
struct Trouble(Vec<String>);

impl Trouble {
    /// The value, or a note about why there is none.
    fn or_none<T>(&mut self, what: &str, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(format!("{what}: {error}"))).ok()
    }

    fn outcome(&self, good: &str) -> Outcome {
        match self.0.is_empty() {
            true => Outcome::new(NAME, Status::Done, good.to_owned()),
            false => Outcome::new(NAME, Status::Failed, self.0.join("; ")),
        }
    }
}

impl Sealer {
    /// Collects what the case must have and what it has, compares both, and writes, signs and stores the result.
    async fn seal(
        &self,
        journal: &impl Journal,
        sources: Sources,
        target: &Target,
        described: Option<Entry>,
        mut report: InstanceReport,
    ) -> InstanceReport {
        let mut trouble = Trouble::default();
        let collected = self.collect(journal, sources, target, described, &mut trouble).await;
        let compared = self.compare(&collected, target, &report, &mut trouble).await;
        let (manifest, good) = self.manifest(target, &report, &collected, compared, &mut trouble);
        let written = self.publish(target, &collected.prefix, manifest, &good, &mut trouble).await;
        // So that the next sealing knows which manifest it follows.
        for entry in &written {
            let entered = evidence::enter(journal, target, entry).await;
            trouble.or_none("what was sealed could not be entered into the ledger", entered);
        }
        // Its reason is cut, as the reports of all instances share a state (aws-behaviour#state-size).
        report.add(trouble.outcome(&good).shortened(0));
        report.evidence.extend(written.into_iter().map(|entry| entry.pointer));
        report
    }
}
