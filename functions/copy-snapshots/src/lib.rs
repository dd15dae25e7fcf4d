//! Copies the case's shared snapshots into the forensic account, under its own key: out of reach of an attacker who
//! controls the account that they were taken in, or the key that they were shared under
//! (aws-behaviour#shared-snapshots).

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{ResourceType, Snapshot, SnapshotState, Tag, TagSpecification};
use containment::{Error, Forensic, Found, Goal, Irreversible, Journaled, Key, Result, State, Step, Target, Writes};
use snapshots::{
    SnapshotCopy, ask_for, best, case_snapshots, copy_url, failure, is_verified, shareable, tag, taken_at,
};

/// The step. Reads the case's snapshots in the target's account, and the case's copies in the forensic one; makes copies
/// there by `CopySnapshot`. Makes evidence, so it is never undone.
#[derive(Debug, Clone)]
pub struct CopySnapshots {
    here: Client,
    there: Client,
    /// The forensic account's, to sign with.
    aws: SdkConfig,
    forensic: Forensic,
    /// The key that snapshots are shared under, where it reaches.
    key: Option<String>,
}

/// The snapshots that are to be copied, and the existing copies, by the id of their source.
#[derive(Debug, Clone, Default)]
pub struct Snapshots {
    sources: Vec<Snapshot>,
    copies: BTreeMap<String, Vec<Snapshot>>,
}

const COPY: &str = "ForensicCopy";

impl CopySnapshots {
    /// The step, with the target's configuration, the forensic account's, and the key that snapshots are shared under.
    pub fn new(here: &SdkConfig, there: &SdkConfig, forensic: Forensic, key: Option<String>) -> Self {
        CopySnapshots { here: Client::new(here), there: Client::new(there), aws: there.clone(), forensic, key }
    }

    fn state_of(&self, source: &Snapshot, copies: &[Snapshot]) -> SnapshotCopy {
        let shown = |copy: &Snapshot| {
            let state = match copy.state() {
                Some(SnapshotState::Completed) if !is_verified(copy, Some(&self.forensic.key_arn)) => {
                    "completed under another key".to_owned()
                }
                Some(SnapshotState::Completed) if copy.volume_size() != source.volume_size() => {
                    "completed with another size".to_owned()
                }
                Some(SnapshotState::Error) => failure(copy.state_message(), source.kms_key_id()),
                other => other.map_or("unknown", SnapshotState::as_str).to_owned(),
            };
            SnapshotCopy::shown(copy, state)
        };
        best(copies.iter().map(shown)).unwrap_or_else(|| SnapshotCopy::none("none"))
    }

    async fn copy(&self, target: &Target, source: &Snapshot) -> Result<()> {
        let id = source.snapshot_id().unwrap_or_default();
        let to = self.forensic.region_for(target);
        let tags = lineage(target, source).into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
        let tags = TagSpecification::builder().resource_type(ResourceType::Snapshot).set_tags(Some(tags.collect()));
        // Not retried by the SDK, as there is no client token (aws-behaviour#no-client-token): the workflow looks
        // before it asks again.
        let once = aws_sdk_ec2::config::Builder::new().retry_config(RetryConfig::disabled());
        let call = self.there.copy_snapshot().source_region(&target.region).source_snapshot_id(id);
        let call = call.destination_region(to).encrypted(true).kms_key_id(&self.forensic.key_arn);
        let call = call.tag_specifications(tags.build());
        let call = call.description(format!("Cordon case {}: copy of {id} of {}", target.case_id, target.account_id));
        let url = copy_url(&self.aws, call.as_input()).await?;
        let sent = call.presigned_url(url).customize().config_override(once).send().await;
        sent.map(|_| ()).map_err(Error::aws("ec2:CopySnapshot", id))
    }
}

/// Where a copy comes from, in its tags: EC2 copies none, and shows a volume that does not exist
/// (aws-behaviour#copy-lineage).
fn lineage(target: &Target, source: &Snapshot) -> BTreeMap<String, String> {
    let mut tags = target.incident_tags();
    for key in ["VolumeId", "DeviceName"] {
        tags.extend(tag(source, key).map(|value| (key.to_owned(), value.to_owned())));
    }
    // An original whose tags could not be written still says its volume; the volume of a copy is made up
    // (aws-behaviour#copy-lineage).
    if tag(source, "SourceSnapshotId").is_none() {
        let volume = source.volume_id().map(|id| ("VolumeId".to_owned(), id.to_owned()));
        tags.extend(volume);
    }
    // What is shared may be an encrypted copy itself; then this is what it was made from.
    tags.extend(tag(source, "SourceSnapshotId").map(|id| ("OriginalSnapshotId".to_owned(), id.to_owned())));
    tags.extend(taken_at(source).map(|at| ("TakenAt".to_owned(), at)));
    tags.insert("SourceSnapshotId".to_owned(), source.snapshot_id().unwrap_or_default().to_owned());
    tags.insert("SourceAccountId".to_owned(), target.account_id.clone());
    tags.insert("SourceRegion".to_owned(), target.region.clone());
    tags.insert("InstanceId".to_owned(), target.instance_id.clone());
    tags
}

impl Step for CopySnapshots {
    type Value = SnapshotCopy;
    type Facts = Snapshots;
    const NAME: &'static str = "copy-snapshots";

    async fn read(&self, target: &Target) -> Result<Found<SnapshotCopy, Snapshots>> {
        let (Some(key), None) = (self.key.as_deref(), self.forensic.out_of_reach(target)) else {
            return Ok(Found { state: State::new(), facts: Snapshots::default() });
        };
        let (here, there) =
            futures::try_join!(case_snapshots(&self.here, target), snapshots::snapshots_of_case(&self.there, target))?;
        let sources: Vec<Snapshot> = shareable(&here, key).into_iter().cloned().collect();
        let mut copies: BTreeMap<String, Vec<Snapshot>> = BTreeMap::new();
        for copy in there {
            let Some(source) = tag(&copy, "SourceSnapshotId").map(ToOwned::to_owned) else { continue };
            copies.entry(source).or_default().push(copy);
        }
        let state = sources.iter().filter_map(|source| {
            let id = source.snapshot_id()?;
            Some((Key::new(id, COPY), self.state_of(source, copies.get(id).map_or(&[][..], Vec::as_slice))))
        });
        Ok(Found { state: state.collect(), facts: Snapshots { sources, copies } })
    }

    fn contained(&self, target: &Target, found: &Found<SnapshotCopy, Snapshots>, _: &Journaled) -> Goal<SnapshotCopy> {
        let mut goal = Goal::new(found.state.iter().map(|(key, copy)| (key.clone(), copy.completed())).collect());
        if let Some(why) = self.forensic.out_of_reach(target) {
            goal.unsupported.push(why);
        } else if self.key.is_none() {
            goal.unsupported.push(format!(
                "in {} no snapshot is shared: the key of encrypted copies (SnapshotKeyArn) reaches only its own Region",
                target.region
            ));
        } else if found.state.is_empty() {
            goal.not_applicable =
                Some("the case has no completed snapshot under the key of encrypted copies".to_owned());
        }
        goal
    }

    fn accepted(&self, copy: &SnapshotCopy) -> bool {
        copy.state == "pending"
    }

    async fn write(&self, target: &Target, found: &Found<SnapshotCopy, Snapshots>, _: &State<SnapshotCopy>) -> Writes {
        let missing = |source: &&Snapshot| {
            let id = source.snapshot_id().unwrap_or_default();
            let tried = found.facts.copies.get(id).map_or(0, Vec::len);
            let copy = found.state.get(&Key::new(id, COPY));
            copy.is_some_and(|copy| !self.accepted(copy) && copy.is_missing(tried))
        };
        ask_for(found.facts.sources.iter().filter(missing).map(|source| self.copy(target, source)).collect()).await
    }
}

impl Irreversible for CopySnapshots {}

#[cfg(test)]
mod tests;
