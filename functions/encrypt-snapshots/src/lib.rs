//! Makes an encrypted copy of every unencrypted snapshot of the case, under the stack's key where it reaches.
//!
//! If copies go on to a forensic account, everything that is not under the stack's key is copied under it: a snapshot
//! under
//! the account's default key for EBS can't be shared at all (aws-behaviour#default-ebs-key), and another key is not
//! Cordon's to hand over. The original is the evidence's lineage and stays; `delete-originals` is a step of its own,
//! and off by default (aws-behaviour#deleted-originals).

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{ResourceType, Snapshot, SnapshotState, Tag, TagSpecification};
use containment::{Error, Found, Goal, Irreversible, Journaled, Key, Result, State, Step, Target, Writes};
use snapshots::{
    CaseSnapshots, SnapshotCopy, ask_for, best, case_snapshots, copy_url, failure, is_verified, tag, taken_at,
};

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
        // Not retried by the SDK, as there is no client token (aws-behaviour#no-client-token): the workflow looks
        // before it asks again.
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

    fn contained(&self, _: &Target, found: &Found<SnapshotCopy, CaseSnapshots>, _: &Journaled) -> Goal<SnapshotCopy> {
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

impl Irreversible for EncryptSnapshots {}

#[cfg(test)]
mod tests;
