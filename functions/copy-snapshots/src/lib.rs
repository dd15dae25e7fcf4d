//! Copies the case's shared snapshots into the forensic account, under its own key: out of reach of whoever controls the
//! account that they were taken in, or the key that they were shared under (trap G6).

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{ResourceType, Snapshot, SnapshotState, Tag, TagSpecification};
use containment::{Error, Forensic, Found, Goal, Key, Result, State, Step, Target, Writes};
use encrypt_snapshots::{case_snapshots, copy_url, failure, is_verified, shareable, tag, taken_at};
use futures::{StreamExt, stream};
use serde::Serialize;

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

/// How the forensic account's copy of a snapshot stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ForensicCopy {
    /// Absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// `none`, `pending`, `completed`, `completed under another key`, `completed with another size`, `error: …`
    pub state: String,
    /// The key that the copy is under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
}

/// The snapshots that are to be copied, and the copies that there are, by the id of what they were made from.
#[derive(Debug, Clone, Default)]
pub struct Snapshots {
    sources: Vec<Snapshot>,
    copies: BTreeMap<String, Vec<Snapshot>>,
}

const COPY: &str = "ForensicCopy";

/// A copy whose key is not accessible fails without a word from `CopySnapshot` (trap G5); one more try, then a person.
const COPIES_AT_MOST: usize = 2;

impl CopySnapshots {
    /// The step, with the target's configuration, the forensic account's, and the key that snapshots are shared under.
    pub fn new(here: &SdkConfig, there: &SdkConfig, forensic: Forensic, key: Option<String>) -> Self {
        CopySnapshots { here: Client::new(here), there: Client::new(there), aws: there.clone(), forensic, key }
    }

    fn state_of(&self, source: &Snapshot, copies: &[Snapshot]) -> ForensicCopy {
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
            let (snapshot_id, kms_key_id) =
                (copy.snapshot_id().map(ToOwned::to_owned), copy.kms_key_id().map(ToOwned::to_owned));
            ForensicCopy { snapshot_id, state, kms_key_id }
        };
        let rank = |copy: &ForensicCopy| match copy.state.as_str() {
            "completed" => 0,
            "pending" => 1,
            _ => 2,
        };
        let none = || ForensicCopy { snapshot_id: None, state: "none".to_owned(), kms_key_id: None };
        copies.iter().map(shown).min_by_key(rank).unwrap_or_else(none)
    }

    async fn copy(&self, target: &Target, source: &Snapshot) -> Result<()> {
        let id = source.snapshot_id().unwrap_or_default();
        let to = self.forensic.region_for(target);
        let tags = lineage(target, source).into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
        let tags = TagSpecification::builder().resource_type(ResourceType::Snapshot).set_tags(Some(tags.collect()));
        // Not retried by the SDK, as there is no client token (trap G2): the workflow looks before it asks again.
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

/// Where a copy comes from, in its tags: EC2 copies none, and shows a volume that does not exist (trap G7).
fn lineage(target: &Target, source: &Snapshot) -> BTreeMap<String, String> {
    let mut tags = target.incident_tags();
    for key in ["VolumeId", "DeviceName"] {
        tags.extend(tag(source, key).map(|value| (key.to_owned(), value.to_owned())));
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
    type Value = ForensicCopy;
    type Facts = Snapshots;
    const NAME: &'static str = "copy-snapshots";

    async fn read(&self, target: &Target) -> Result<Found<ForensicCopy, Snapshots>> {
        let (Some(key), None) = (self.key.as_deref(), self.forensic.out_of_reach(target)) else {
            return Ok(Found { state: State::new(), facts: Snapshots::default() });
        };
        let (here, there) =
            futures::try_join!(case_snapshots(&self.here, target), instance::snapshots_of_case(&self.there, target))?;
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

    fn contained(&self, target: &Target, found: &Found<ForensicCopy, Snapshots>) -> Goal<ForensicCopy> {
        let completed = |copy: &ForensicCopy| ForensicCopy { state: "completed".to_owned(), ..copy.clone() };
        let mut goal = Goal::new(found.state.iter().map(|(key, copy)| (key.clone(), completed(copy))).collect());
        if let Some(why) = self.forensic.out_of_reach(target) {
            goal.unsupported.push(why);
        } else if self.key.is_none() {
            goal.unsupported.push(format!(
                "in {} no snapshot is shared: the key of encrypted copies reaches only its own Region (SnapshotKeyArn)",
                target.region
            ));
        } else if found.state.is_empty() {
            goal.not_applicable =
                Some("the case has no completed snapshot under the key of encrypted copies".to_owned());
        }
        goal
    }

    fn accepted(&self, copy: &ForensicCopy) -> bool {
        copy.state == "pending"
    }

    async fn write(&self, target: &Target, found: &Found<ForensicCopy, Snapshots>, _: &State<ForensicCopy>) -> Writes {
        let missing = |source: &&Snapshot| {
            let id = source.snapshot_id().unwrap_or_default();
            let tried = found.facts.copies.get(id).map_or(0, Vec::len);
            let copy = found.state.get(&Key::new(id, COPY));
            tried < COPIES_AT_MOST && copy.is_some_and(|copy| !self.accepted(copy) && copy.state != "completed")
        };
        let calls: Vec<_> =
            found.facts.sources.iter().filter(missing).map(|source| self.copy(target, source)).collect();
        let mut writes = Writes::default();
        for result in stream::iter(calls).buffer_unordered(5).collect::<Vec<_>>().await {
            match result {
                // 20 copies at a time for each destination Region, whosever case they are of (trap G3).
                Err(error) if error.code() == Some("ResourceLimitExceeded") => writes.waiting = true,
                result => _ = writes.note(result),
            }
        }
        writes
    }
}

#[cfg(test)]
mod tests;
