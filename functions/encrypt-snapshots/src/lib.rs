//! Makes an encrypted copy of every unencrypted snapshot of the case, under the stack's key where it reaches.
//!
//! Where copies go on to a forensic account, whatever is not under the stack's key is copied under it: a snapshot under
//! the account's default key for EBS can't be shared at all (trap G5), and another key is not Cordon's to hand over. The
//! original is the evidence's lineage and stays; `delete-originals` is a step of its own, and off by default (trap G11).

mod copies;
mod copy_url;

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::primitives::DateTimeFormat;
use aws_sdk_ec2::types::{ResourceType, Snapshot, SnapshotState, Tag, TagSpecification};
use containment::{Error, Found, Goal, Key, Result, State, Step, Target, Writes};

pub use copies::{SnapshotCopy, ask_for, best};
pub use copy_url::copy_url;

/// The step. Reads the case's snapshots; makes copies by `CopySnapshot`. Makes evidence, so it is never undone.
#[derive(Debug, Clone)]
pub struct EncryptSnapshots {
    aws: SdkConfig,
    ec2: Client,
    /// The key's ARN; without one, the account's default key for EBS.
    key: Option<String>,
    /// Whether what is encrypted under another key than this is copied too.
    under_this_key: bool,
}

const COPY: &str = "EncryptedCopy";
const WAITING: &str = "waiting for its source";

/// The snapshots of a case: originals, and copies by the original that they were made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CaseSnapshots {
    /// What `create-snapshots` took.
    pub originals: Vec<Snapshot>,
    /// By the id of the original; an original may be gone.
    pub copies: BTreeMap<String, Vec<Snapshot>>,
}

/// Whether EC2 says that a snapshot was taken of a volume. A copy has a volume that is none (trap G7), and whoever tags an
/// original as a copy does not make it one (trap K6).
pub fn is_of_a_volume(snapshot: &Snapshot) -> bool {
    snapshot.volume_id().is_some_and(|volume| volume != "vol-ffffffff")
}

/// Reads the snapshots of a target's case.
pub async fn case_snapshots(ec2: &Client, target: &Target) -> Result<CaseSnapshots> {
    let mut snapshots = CaseSnapshots::default();
    for snapshot in instance::snapshots_of_case(ec2, target).await? {
        match tag(&snapshot, "SourceSnapshotId").filter(|_| !is_of_a_volume(&snapshot)) {
            Some(source) => snapshots.copies.entry(source.to_owned()).or_default().push(snapshot),
            None => snapshots.originals.push(snapshot),
        }
    }
    Ok(snapshots)
}

/// A tag's value. Tags say what is a copy of what; they are never proof of it (trap K6).
pub fn tag<'a>(snapshot: &'a Snapshot, key: &str) -> Option<&'a str> {
    snapshot.tags().iter().find(|t| t.key() == Some(key)).and_then(|t| t.value())
}

/// A copy that may stand for its original: completed, encrypted, and under the key that was asked for.
pub fn is_verified(copy: &Snapshot, key: Option<&str>) -> bool {
    copy.state() == Some(&SnapshotState::Completed)
        && copy.encrypted().unwrap_or(false)
        && key.is_none_or(|key| copy.kms_key_id() == Some(key))
}

/// The snapshots of a case that can be shared: for each original, itself if it is under the stack's key, or else a
/// verified copy of the same size.
pub fn shareable<'a>(snapshots: &'a CaseSnapshots, key: &str) -> Vec<&'a Snapshot> {
    let verified = |snapshot: &&Snapshot| is_verified(snapshot, Some(key));
    let (own, others): (Vec<_>, Vec<_>) = snapshots.originals.iter().partition(verified);
    let standing_for = |original: &Snapshot| {
        let copies = snapshots.copies.get(original.snapshot_id()?)?;
        copies.iter().filter(verified).find(|copy| copy.volume_size() == original.volume_size())
    };
    let gone = snapshots
        .copies
        .iter()
        .filter(|(id, _)| snapshots.originals.iter().all(|original| original.snapshot_id() != Some(id.as_str())));
    let left = gone.filter_map(|(_, copies)| copies.iter().find(verified));
    own.into_iter().chain(others.into_iter().filter_map(standing_for)).chain(left).collect()
}

/// The stack's key, if it is one of the target's Region: a key reaches no further.
pub fn key_in_region(key: Option<String>, target: &Target) -> Option<String> {
    key.filter(|arn| arn.split(':').nth(3) == Some(&target.region))
}

/// When the state that a snapshot shows was: its own beginning, or what a copy was given from its source.
pub fn taken_at(snapshot: &Snapshot) -> Option<String> {
    let own = || snapshot.start_time().and_then(|at| at.fmt(DateTimeFormat::DateTime).ok());
    tag(snapshot, "TakenAt").map(ToOwned::to_owned).or_else(own)
}

/// A copy's failure in AWS's words. EBS finds out only afterwards that it may not use a key, and says no more than this.
pub fn failure(message: Option<&str>, source_key: Option<&str>) -> String {
    let message = message.unwrap_or("without a message");
    match source_key.filter(|_| message.contains("key ID is not accessible")) {
        Some(key) => format!(
            "error: {message}; the policy of {key}, which the source is under, must let this role use it through EC2 \
             (kms:Decrypt, kms:DescribeKey, kms:ReEncryptFrom, kms:CreateGrant)"
        ),
        None => format!("error: {message}"),
    }
}

impl EncryptSnapshots {
    /// The step in the configuration's Region, with the key that copies go under. `to_be_shared` says that they go on to a
    /// forensic account, so that everything has to be under that key.
    pub fn new(aws: &SdkConfig, key: Option<String>, to_be_shared: bool) -> Self {
        let under_this_key = to_be_shared && key.is_some();
        EncryptSnapshots { aws: aws.clone(), ec2: Client::new(aws), key, under_this_key }
    }

    fn needs_copy(&self, encrypted: Option<bool>, key: Option<&str>) -> bool {
        !encrypted.unwrap_or(false) || self.under_this_key && key != self.key.as_deref()
    }

    fn state_of(&self, source: &Snapshot, copies: &[Snapshot]) -> SnapshotCopy {
        let shown = |copy: &Snapshot| {
            let state = match copy.state() {
                Some(SnapshotState::Completed) if !is_verified(copy, self.key.as_deref()) => {
                    "completed under another key".to_owned()
                }
                Some(SnapshotState::Error) => failure(copy.state_message(), source.kms_key_id()),
                other => other.map_or("unknown", SnapshotState::as_str).to_owned(),
            };
            SnapshotCopy::shown(copy, state)
        };
        if let Some(best) = best(copies.iter().map(shown)) {
            return best;
        }
        match source.state() {
            Some(SnapshotState::Completed) => SnapshotCopy::none("none"),
            Some(SnapshotState::Error) => SnapshotCopy::none("its source failed"),
            _ => SnapshotCopy::none(WAITING),
        }
    }

    /// A dry run before the first run has volumes to plan from, and no snapshots.
    async fn plan(&self, target: &Target, facts: CaseSnapshots) -> Result<Found<SnapshotCopy, CaseSnapshots>> {
        let volumes = instance::volumes(&self.ec2, target).await?;
        let copied = volumes.iter().filter(|v| self.needs_copy(v.encrypted(), v.kms_key_id()));
        let state = copied.filter_map(|v| {
            Some((Key::new(format!("the snapshot of {}", v.volume_id()?), COPY), SnapshotCopy::none("none")))
        });
        Ok(Found { state: state.collect(), facts })
    }

    async fn copy(&self, target: &Target, source: &Snapshot) -> Result<()> {
        let id = source.snapshot_id().unwrap_or_default();
        // The source is an original: it says its volume also where its tags could not be written.
        let volume = |key: &str| source.volume_id().filter(|_| key == "VolumeId");
        let lineage = ["VolumeId", "DeviceName", "InstanceId"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), tag(source, key).or_else(|| volume(key))?.to_owned())))
            .chain(taken_at(source).map(|at| ("TakenAt".to_owned(), at)));
        let tags =
            target.incident_tags().into_iter().chain(lineage).chain([("SourceSnapshotId".to_owned(), id.to_owned())]);
        let tags = tags.map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let tags = TagSpecification::builder().resource_type(ResourceType::Snapshot).set_tags(Some(tags)).build();
        // Not retried by the SDK, as there is no client token (trap G2): the workflow looks before it asks again.
        let once = aws_sdk_ec2::config::Builder::new().retry_config(RetryConfig::disabled());
        let call = self.ec2.copy_snapshot().source_region(&target.region).source_snapshot_id(id).encrypted(true);
        let call = call.set_kms_key_id(self.key.clone()).tag_specifications(tags);
        let mut call = call.description(format!("Cordon case {}: encrypted copy of {id}", target.case_id));
        if source.encrypted().unwrap_or(false) {
            call = call.destination_region(&target.region);
            let url = copy_url(&self.aws, call.as_input()).await?;
            call = call.presigned_url(url);
        }
        let sent = call.customize().config_override(once).send().await;
        sent.map(|_| ()).map_err(Error::aws("ec2:CopySnapshot", id))
    }
}

impl Step for EncryptSnapshots {
    type Value = SnapshotCopy;
    type Facts = CaseSnapshots;
    const NAME: &'static str = "encrypt-snapshots";

    async fn read(&self, target: &Target) -> Result<Found<SnapshotCopy, CaseSnapshots>> {
        let facts = case_snapshots(&self.ec2, target).await?;
        if target.dry_run && facts.originals.is_empty() {
            return self.plan(target, facts).await;
        }
        let copied = facts.originals.iter().filter(|s| self.needs_copy(s.encrypted(), s.kms_key_id()));
        let state = copied.filter_map(|source| {
            let id = source.snapshot_id()?;
            let copies = facts.copies.get(id).map_or(&[][..], Vec::as_slice);
            Some((Key::new(id, COPY), self.state_of(source, copies)))
        });
        Ok(Found { state: state.collect(), facts })
    }

    fn contained(&self, _: &Target, found: &Found<SnapshotCopy, CaseSnapshots>) -> Goal<SnapshotCopy> {
        let mut goal = Goal::new(found.state.iter().map(|(key, copy)| (key.clone(), copy.completed())).collect());
        if found.state.is_empty() {
            goal.not_applicable = Some(match self.under_this_key {
                true => "every snapshot of the case is under the key of encrypted copies".to_owned(),
                false => "the case has no unencrypted snapshot".to_owned(),
            });
        } else if self.key.is_none() {
            goal.residual_risk.push(
                "copies are under the account's default key for EBS: they can't be shared with a forensic account \
                 (a key reaches only its own Region; SnapshotKeyArn sets it)"
                    .to_owned(),
            );
        }
        goal
    }

    fn accepted(&self, copy: &SnapshotCopy) -> bool {
        matches!(copy.state.as_str(), "pending" | WAITING)
    }

    async fn write(
        &self,
        target: &Target,
        found: &Found<SnapshotCopy, CaseSnapshots>,
        _: &State<SnapshotCopy>,
    ) -> Writes {
        let missing = |source: &&Snapshot| {
            let id = source.snapshot_id().unwrap_or_default();
            let tried = found.facts.copies.get(id).map_or(0, Vec::len);
            let copy = found.state.get(&Key::new(id, COPY));
            source.state() == Some(&SnapshotState::Completed)
                && copy.is_some_and(|copy| !self.accepted(copy) && copy.is_missing(tried))
        };
        ask_for(found.facts.originals.iter().filter(missing).map(|source| self.copy(target, source)).collect()).await
    }
}

#[cfg(test)]
mod tests;
