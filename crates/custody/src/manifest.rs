//! What a case consists of: `docs/manifest.schema.json` documents the same for readers that are not Rust.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use verdict::{Change, Outcome, Status, StepName, Verdict, Word};

/// The version of the format that this crate writes and reads.
pub const FORMAT: u32 = 1;

/// A case, as it was sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Manifest {
    /// The version of this format: 1.
    pub format: u32,
    /// The case.
    pub case_id: String,
    /// The instance's account, 12 digits.
    pub account_id: String,
    /// The instance's Region.
    pub region: String,
    /// The instance.
    pub instance_id: String,
    /// When the case was sealed; UTC, ISO 8601, by AWS's clock. So are all times.
    pub sealed_at: String,
    /// The execution that sealed it, an ARN.
    pub execution: String,
    /// The identity that sealed it, an ARN.
    pub sealed_by: String,
    /// How the instance stood.
    pub verdict: Word<Verdict>,
    /// What was not as it should be.
    pub open: Vec<String>,
    /// What an attacker can still do.
    pub residual_risk: Vec<String>,
    /// What each step of the containment did, in order.
    pub steps: Vec<Step>,
    /// How it was released, where this sealing followed a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// What the case consists of, except this manifest and its signature.
    pub evidence: Vec<Item>,
    /// The snapshots and their copies.
    pub snapshots: Vec<Snapshot>,
    /// What an investigator asks for first.
    pub facts: Value,
    /// The manifest that this one follows, when a case is sealed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
}

impl Manifest {
    /// Whether the sealing could read everything, and found it as it must be.
    pub fn was_sealed(&self) -> bool {
        self.steps.iter().any(|step| step.step == StepName::SealEvidence && step.status == Status::Done)
    }

    /// Adds a step that ran after the verdict was found; one that failed is open, and the verdict no longer a whole one.
    pub fn add(&mut self, outcome: &Outcome) {
        if outcome.status == Status::Failed {
            self.open.push(outcome.open_line());
            self.verdict = std::mem::take(&mut self.verdict).incomplete();
        }
        self.steps.push(Step::from(outcome.clone()));
    }

    /// The manifest's bytes, which are what is signed: indented JSON with a line feed at its end, always the same for the
    /// same manifest. Facts are in the order of their names.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// A release of the instance, whole or in part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Release {
    /// The execution that released it, an ARN.
    pub execution: String,
    /// Whether the case was closed: nothing was left to release, or a person had it closed anyway.
    pub case_closed: bool,
    /// What each step restored, in order; `Before` is the contained value, `After` the restored one.
    pub steps: Vec<Step>,
}

/// One step of the containment or of the release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Step {
    /// Its name.
    pub step: String,
    /// How it ended.
    pub status: Word<Status>,
    /// In its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the workflow entered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<String>,
    /// When the workflow left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// What it changed of the instance and what belongs to it.
    #[serde(default)]
    pub changes: Vec<Change>,
}

impl From<Outcome> for Step {
    fn from(outcome: Outcome) -> Step {
        let Outcome { step, status, changes, reason, when, residual_risk: _ } = outcome;
        Step { step, status: status.into(), reason, began: when.began, ended: when.ended, changes }
    }
}

/// One object in the evidence bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Item {
    /// Its key below the case's prefix, such as `describe-instance-20261121T091503211Z.json`.
    pub name: String,
    /// Its version in the bucket.
    pub version_id: String,
    /// Its state when the case was sealed.
    pub state: ItemState,
    /// How many bytes it has.
    pub size: u64,
    /// SHA-256 of its bytes, 64 hexadecimal digits. Absent where nobody in AWS could read all of it: see `Note`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// When S3 stored it.
    pub stored_at: String,
    /// What it is about: an instance's id.
    pub resource: String,
    /// The function that stored it, or asked the host for it.
    pub function: String,
    /// That function's identity, an ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The execution that it comes from, an ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<String>,
    /// The id of the request that stored it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The ids of the calls whose replies it holds, as `SERVICE:OPERATION REQUEST-ID`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// What a reader must know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The state of a piece of evidence when the case was sealed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemState {
    /// The ledger's version is in the bucket, with the ledger's size and hash.
    #[default]
    Intact,
    /// The ledger's version is in the bucket, and is not what the ledger says.
    Altered,
    /// The ledger has it, and the bucket does not.
    Missing,
    /// The bucket has it, and the ledger does not: none of Cordon's functions vouches for it. `Note` says what is known.
    Unlisted,
    /// The ledger has it, and it could not be read in the bucket: `Note` says why.
    Unread,
}

/// One EBS snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Snapshot {
    /// Its id.
    pub snapshot_id: String,
    /// The account that owns it.
    pub account_id: String,
    /// Its Region.
    pub region: String,
    /// `pending`, `completed`, `error`.
    pub state: String,
    /// The moment that it shows; for a copy, when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// The volume that it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<String>,
    /// The device that the volume was attached as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// The snapshot that it is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_snapshot_id: Option<String>,
    /// In GiB.
    #[serde(default)]
    pub volume_size: i32,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Under which key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// Whether it is locked, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
    /// The hash list of its blocks, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Blocks>,
}

/// An EBS Snapshot Lock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lock {
    /// `governance`, `compliance`, `compliance-cooloff`, `expired`.
    pub state: String,
    /// Until when it cannot be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// The hash list of a snapshot's blocks, a piece of evidence of its own (aws-behaviour#block-hashes).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Blocks {
    /// The names of the pieces of evidence that have the list, in order.
    pub parts: Vec<String>,
    /// How many blocks of 512 KiB the snapshot has.
    pub count: u64,
    /// SHA-256 of the parts' SHA-256s, each followed by a newline: one number for the whole snapshot, 64 hexadecimal digits.
    pub sha256: String,
}

/// An earlier manifest of the same case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Previous {
    /// Its version in the bucket; its key is the same.
    pub version_id: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
}
