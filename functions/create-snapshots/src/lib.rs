//! Takes a snapshot of every volume, all at the same point in time, before anything runs on the host
//! (aws-behaviour#snapshot-moment).

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::primitives::DateTimeFormat;
use aws_sdk_ec2::types::{InstanceSpecification, ResourceType, Snapshot, Tag, TagSpecification, Volume};
use containment::{Error, Found, Goal, Irreversible, Journaled, Key, Result, State, Step, Target, Writes};
use futures::{StreamExt, stream};
use serde::Serialize;

/// The step. Reads the instance's volumes and the case's snapshots; makes one `CreateSnapshots` set, or else one snapshot
/// per volume. Makes evidence, so it is never undone.
#[derive(Debug, Clone)]
pub struct CreateSnapshots {
    ec2: Client,
}

/// How a volume's snapshot of this case stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Taken {
    /// Absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// `none`, `pending`, `completed`, `error`, …
    pub state: String,
    /// When it was taken, which is the moment that it shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<String>,
    /// Whether the snapshot's tags name its volume, device and instance.
    pub lineage: bool,
}

/// Device by volume id.
type Devices = BTreeMap<String, String>;

impl CreateSnapshots {
    /// The step in the configuration's Region.
    pub fn new(aws: &SdkConfig) -> Self {
        CreateSnapshots { ec2: Client::new(aws) }
    }

    /// One crash-consistent set. Not retried by the SDK: there is no client token, so a retry after a lost answer would
    /// make a second set (aws-behaviour#no-client-token). The workflow's retry looks for the first one before it asks
    /// again.
    async fn create_set(&self, target: &Target) -> Result<Vec<(String, String)>> {
        let once = aws_sdk_ec2::config::Builder::new().retry_config(RetryConfig::disabled());
        let instance =
            InstanceSpecification::builder().instance_id(&target.instance_id).exclude_boot_volume(false).build();
        let call = self.ec2.create_snapshots().instance_specification(instance).description(description(target));
        let sent = call.tag_specifications(tags(target)).customize().config_override(once).send().await;
        let reply = sent.map_err(Error::aws("ec2:CreateSnapshots", &target.instance_id))?;
        let pair =
            |s: &aws_sdk_ec2::types::SnapshotInfo| Some((s.volume_id()?.to_owned(), s.snapshot_id()?.to_owned()));
        Ok(reply.snapshots().iter().filter_map(pair).collect())
    }

    async fn create_one(&self, target: &Target, volume: &str) -> Result<(String, String)> {
        let once = aws_sdk_ec2::config::Builder::new().retry_config(RetryConfig::disabled());
        let call = self.ec2.create_snapshot().volume_id(volume).description(description(target));
        let sent = call.tag_specifications(tags(target)).customize().config_override(once).send().await;
        let reply = sent.map_err(Error::aws("ec2:CreateSnapshot", volume))?;
        Ok((volume.to_owned(), reply.snapshot_id.unwrap_or_default()))
    }

    async fn tag_lineage(&self, snapshot: &str, volume: &str, device: &str, target: &Target) -> Result<()> {
        let lineage = [("VolumeId", volume), ("DeviceName", device), ("InstanceId", &target.instance_id)];
        let tags = lineage.map(|(key, value)| Tag::builder().key(key).value(value).build());
        let sent = self.ec2.create_tags().resources(snapshot).set_tags(Some(tags.into())).send().await;
        sent.map(|_| ()).map_err(Error::aws("ec2:CreateTags", snapshot))
    }
}

fn description(target: &Target) -> String {
    format!("Cordon case {}: {} as it was found", target.case_id, target.instance_id)
}

/// Set with the creation itself, so that a snapshot is never without its case.
fn tags(target: &Target) -> TagSpecification {
    let tags = target.incident_tags().into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
    let instance = Tag::builder().key("InstanceId").value(&target.instance_id).build();
    TagSpecification::builder()
        .resource_type(ResourceType::Snapshot)
        .set_tags(Some(tags.collect()))
        .tags(instance)
        .build()
}

/// The best snapshot that the case has of a volume. An encrypted copy stands for an original that has been deleted.
fn taken(volume: &str, snapshots: &[Snapshot]) -> Taken {
    let tag = |s: &Snapshot, key: &str| {
        s.tags().iter().find(|t| t.key() == Some(key)).and_then(|t| t.value().map(ToOwned::to_owned))
    };
    let of_volume = snapshots.iter().filter(|s| match tag(s, "SourceSnapshotId") {
        Some(_) => tag(s, "VolumeId").as_deref() == Some(volume),
        None => s.volume_id() == Some(volume),
    });
    let state = |s: &Snapshot| s.state().map_or("unknown", |state| state.as_str()).to_owned();
    let rank = |s: &&Snapshot| {
        let state = match state(s).as_str() {
            "completed" => 0,
            "pending" => 1,
            _ => 2,
        };
        (state, tag(s, "SourceSnapshotId").is_some(), s.snapshot_id().map(ToOwned::to_owned))
    };
    of_volume.min_by_key(rank).map_or_else(
        || Taken { snapshot_id: None, state: "none".to_owned(), taken_at: None, lineage: false },
        |s| Taken {
            snapshot_id: s.snapshot_id().map(ToOwned::to_owned),
            state: state(s),
            taken_at: s.start_time().and_then(|at| at.fmt(DateTimeFormat::DateTime).ok()),
            lineage: tag(s, "VolumeId").as_deref() == Some(volume) && tag(s, "DeviceName").is_some(),
        },
    )
}

fn found(target: &Target, volumes: &[Volume], snapshots: &[Snapshot]) -> Found<Taken, Devices> {
    let mut found = Found { state: State::new(), facts: Devices::new() };
    for volume in volumes {
        let Some(id) = volume.volume_id() else { continue };
        let here = volume.attachments().iter().find(|a| a.instance_id() == Some(&target.instance_id));
        found.facts.insert(id.to_owned(), here.and_then(|a| a.device()).unwrap_or("unknown").to_owned());
        found.state.insert(Key::new(id, "Snapshot"), taken(id, snapshots));
    }
    found
}

impl Step for CreateSnapshots {
    type Value = Taken;
    type Facts = Devices;
    const NAME: &'static str = "create-snapshots";

    async fn read(&self, target: &Target) -> Result<Found<Taken, Devices>> {
        let (volumes, snapshots) =
            futures::try_join!(instance::volumes(&self.ec2, target), snapshots::snapshots_of_case(&self.ec2, target))?;
        Ok(found(target, &volumes, &snapshots))
    }

    fn contained(&self, _: &Target, found: &Found<Taken, Devices>, _: &Journaled) -> Goal<Taken> {
        let completed = |taken: &Taken| Taken {
            snapshot_id: taken.snapshot_id.clone().filter(|_| !is_lost(taken)),
            state: "completed".to_owned(),
            taken_at: taken.taken_at.clone().filter(|_| !is_lost(taken)),
            lineage: true,
        };
        let mut goal = Goal::new(found.state.iter().map(|(key, taken)| (key.clone(), completed(taken))).collect());
        if found.state.is_empty() {
            goal.not_applicable =
                Some("the instance has no EBS volume; what is on instance store is in no snapshot".to_owned());
        }
        goal
    }

    fn accepted(&self, taken: &Taken) -> bool {
        taken.state == "pending" && taken.lineage
    }

    async fn write(&self, target: &Target, found: &Found<Taken, Devices>, _: &State<Taken>) -> Writes {
        let mut writes = Writes::default();
        let lost: Vec<&str> =
            found.state.iter().filter(|(_, taken)| is_lost(taken)).map(|(key, _)| key.resource.as_str()).collect();
        let none_yet = !lost.is_empty() && found.state.values().all(|taken| taken.snapshot_id.is_none());
        let mut created = Vec::new();
        let mut one_by_one = !none_yet;
        if none_yet {
            match self.create_set(target).await {
                Ok(set) => created = set,
                Err(error) if error.is_transient() && !is_full(&error) || error.name() == "AccessDenied" => {
                    writes.failures.push(error)
                }
                Err(error) => {
                    one_by_one = true;
                    writes.residual_risk.push(format!(
                        "the snapshots were taken one volume at a time and not at the same moment, because AWS refused the set: {error}"
                    ));
                }
            }
        }
        if one_by_one {
            let calls: Vec<_> = lost.iter().map(|volume| self.create_one(target, volume)).collect();
            let results: Vec<_> = stream::iter(calls).buffer_unordered(5).collect().await;
            for result in results {
                match result {
                    Err(error) if is_full(&error) => writes.waiting = true,
                    result => created.extend(writes.note(result)),
                }
            }
        }
        let known = found.state.iter().filter(|(_, taken)| !is_lost(taken) && !taken.lineage);
        created.extend(known.filter_map(|(key, taken)| Some((key.resource.clone(), taken.snapshot_id.clone()?))));
        let unknown = "unknown".to_owned();
        let calls: Vec<_> = created
            .iter()
            .map(|(volume, snapshot)| {
                self.tag_lineage(snapshot, volume, found.facts.get(volume).unwrap_or(&unknown), target)
            })
            .collect();
        for result in stream::iter(calls).buffer_unordered(10).collect::<Vec<_>>().await {
            writes.note(result);
        }
        writes
    }
}

impl Irreversible for CreateSnapshots {}

/// The volume has as many pending snapshots as EC2 allows (aws-behaviour#snapshot-quotas): the workflow asks again
/// later.
fn is_full(error: &Error) -> bool {
    matches!(error.code(), Some("ConcurrentSnapshotLimitExceeded" | "SnapshotLimitExceeded"))
}

/// There is no snapshot, or one that failed: a set fails as a whole (aws-behaviour#snapshot-sets).
fn is_lost(taken: &Taken) -> bool {
    !matches!(taken.state.as_str(), "pending" | "completed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::create_snapshot::CreateSnapshotOutput;
    use aws_sdk_ec2::operation::create_snapshots::{CreateSnapshotsError, CreateSnapshotsOutput};
    use aws_sdk_ec2::operation::create_tags::CreateTagsOutput;
    use aws_sdk_ec2::types::{SnapshotInfo, SnapshotState, VolumeAttachment};
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

    fn target() -> Target {
        Target::example()
    }

    fn step(rules: &[&Rule]) -> CreateSnapshots {
        CreateSnapshots { ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, rules) }
    }

    fn volumes(ids: &[&str]) -> Vec<Volume> {
        let attachment = VolumeAttachment::builder().instance_id("i-0123456789abcdef0").device("/dev/xvda").build();
        ids.iter().map(|id| Volume::builder().volume_id(*id).attachments(attachment.clone()).build()).collect()
    }

    fn snapshot(id: &str, volume: &str, state: &str, tags: &[(&str, &str)]) -> Snapshot {
        let tags = tags.iter().map(|(k, v)| Tag::builder().key(*k).value(*v).build()).collect();
        Snapshot::builder()
            .snapshot_id(id)
            .volume_id(volume)
            .state(SnapshotState::from(state))
            .set_tags(Some(tags))
            .build()
    }

    const LINEAGE: &[(&str, &str)] = &[("VolumeId", "vol-1"), ("DeviceName", "/dev/xvda")];

    fn refused(code: &'static str) -> Rule {
        mock!(Client::create_snapshots).then_error(move || {
            CreateSnapshotsError::generic(aws_sdk_ec2::error::ErrorMetadata::builder().code(code).build())
        })
    }

    fn tagged() -> Rule {
        mock!(Client::create_tags).then_output(|| CreateTagsOutput::builder().build())
    }

    fn one() -> Rule {
        mock!(Client::create_snapshot).then_output(|| CreateSnapshotOutput::builder().snapshot_id("snap-9").build())
    }

    #[test]
    fn a_snapshot_of_an_earlier_try_is_found_and_no_other_is_planned() {
        let found = found(&target(), &volumes(&["vol-1"]), &[snapshot("snap-1", "vol-1", "pending", LINEAGE)]);
        assert!(found.state.values().all(|taken| step(&[]).accepted(taken)));
    }

    #[test]
    fn completed_snapshots_are_a_fixed_point() {
        let found = found(&target(), &volumes(&["vol-1"]), &[snapshot("snap-1", "vol-1", "completed", LINEAGE)]);
        assert_eq!(step(&[]).contained(&target(), &found, &Journaled::default()).state, found.state);
    }

    #[test]
    fn a_failed_snapshot_is_no_snapshot_and_a_good_one_beside_it_counts() {
        let failed = snapshot("snap-1", "vol-1", "error", LINEAGE);
        assert!(is_lost(&taken("vol-1", std::slice::from_ref(&failed))));
        let good = snapshot("snap-2", "vol-1", "completed", LINEAGE);
        assert_eq!(taken("vol-1", &[failed, good]).snapshot_id.as_deref(), Some("snap-2"));
    }

    #[test]
    fn an_encrypted_copy_stands_for_an_original_that_was_deleted() {
        let tags = [("SourceSnapshotId", "snap-1"), ("VolumeId", "vol-1"), ("DeviceName", "/dev/xvda")];
        let copy = snapshot("snap-2", "vol-ffffffff", "completed", &tags);
        assert_eq!(taken("vol-1", &[copy]).snapshot_id.as_deref(), Some("snap-2"));
    }

    #[tokio::test]
    async fn all_volumes_go_in_one_set_whose_snapshots_are_tagged_with_their_origin() {
        let set = mock!(Client::create_snapshots)
            .match_requests(|r| {
                let tags = r.tag_specifications()[0].tags();
                tags.iter().any(|t| t.key() == Some("CordonCase") && t.value() == Some("c-1"))
            })
            .then_output(|| {
                let info = |s: &str, v: &str| SnapshotInfo::builder().snapshot_id(s).volume_id(v).build();
                CreateSnapshotsOutput::builder()
                    .snapshots(info("snap-1", "vol-1"))
                    .snapshots(info("snap-2", "vol-2"))
                    .build()
            });
        let tagged = tagged();
        let found = found(&target(), &volumes(&["vol-1", "vol-2"]), &[]);
        assert!(step(&[&set, &tagged]).write(&target(), &found, &State::new()).await.failures.is_empty());
        assert_eq!((set.num_calls(), tagged.num_calls()), (1, 2));
    }

    #[tokio::test]
    async fn a_refused_set_falls_back_to_one_snapshot_a_volume_and_says_so() {
        let (refused, one, tagged) = (refused("InvalidParameterValue"), one(), tagged());
        let found = found(&target(), &volumes(&["vol-1", "vol-2"]), &[]);
        let writes = step(&[&refused, &one, &tagged]).write(&target(), &found, &State::new()).await;
        assert!(writes.failures.is_empty());
        assert_eq!(one.num_calls(), 2);
        assert!(writes.residual_risk[0].contains("not at the same moment"));
    }

    #[tokio::test]
    async fn after_a_failed_set_only_the_volumes_without_a_snapshot_get_another() {
        let (one, tagged) = (one(), tagged());
        let snapshots = [snapshot("snap-1", "vol-1", "completed", LINEAGE), snapshot("snap-2", "vol-2", "error", &[])];
        let found = found(&target(), &volumes(&["vol-1", "vol-2"]), &snapshots);
        step(&[&one, &tagged]).write(&target(), &found, &State::new()).await;
        assert_eq!((one.num_calls(), tagged.num_calls()), (1, 1));
    }

    #[tokio::test]
    async fn a_volume_with_too_many_pending_snapshots_is_tried_again_later() {
        let set = refused("ConcurrentSnapshotLimitExceeded");
        let full = mock!(Client::create_snapshot).match_requests(|r| r.volume_id() == Some("vol-1")).then_error(|| {
            let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("ConcurrentSnapshotLimitExceeded").build();
            aws_sdk_ec2::operation::create_snapshot::CreateSnapshotError::generic(meta)
        });
        let (one, tagged) = (one(), tagged());
        let found = found(&target(), &volumes(&["vol-1", "vol-2"]), &[]);
        let writes = step(&[&set, &full, &one, &tagged]).write(&target(), &found, &State::new()).await;
        assert!(writes.waiting && writes.failures.is_empty());
        assert_eq!(one.num_calls(), 1);
    }

    #[tokio::test]
    async fn a_throttled_set_is_asked_for_once_and_left_to_the_workflow_to_retry() {
        let throttled = refused("RequestLimitExceeded");
        let found = found(&target(), &volumes(&["vol-1"]), &[]);
        let writes = step(&[&throttled]).write(&target(), &found, &State::new()).await;
        assert!(writes.failures[0].is_transient());
        assert_eq!(throttled.num_calls(), 1);
    }
}
