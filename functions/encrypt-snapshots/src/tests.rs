use super::*;
use aws_sdk_ec2::operation::copy_snapshot::{CopySnapshotError, CopySnapshotOutput};
use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/k";

fn target() -> Target {
    Target::example()
}

fn step(rules: &[&Rule]) -> EncryptSnapshots {
    EncryptSnapshots { ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, rules), key: Some(KEY.into()) }
}

fn snapshot(id: &str, state: &str, encrypted: bool, source: Option<&str>, key: Option<&str>) -> Snapshot {
    let tags = [("VolumeId", Some("vol-1")), ("SourceSnapshotId", source)];
    let tags = tags.into_iter().filter_map(|(k, v)| Some(Tag::builder().key(k).value(v?).build()));
    Snapshot::builder()
        .snapshot_id(id)
        .state(SnapshotState::from(state))
        .encrypted(encrypted)
        .set_kms_key_id(key.map(ToOwned::to_owned))
        .set_tags(Some(tags.collect()))
        .build()
}

async fn read(step: &EncryptSnapshots) -> Found<EncryptedCopy, CaseSnapshots> {
    step.read(&target()).await.expect("read")
}

fn case(snapshots: Vec<Snapshot>) -> Rule {
    mock!(Client::describe_snapshots)
        .match_requests(|r| r.owner_ids() == ["self"] && r.filters()[0].values() == ["c-1"])
        .then_output(move || DescribeSnapshotsOutput::builder().set_snapshots(Some(snapshots.clone())).build())
}

fn copied() -> Rule {
    mock!(Client::copy_snapshot)
        .match_requests(|r| {
            r.encrypted() == Some(true) && r.kms_key_id() == Some(KEY) && r.source_snapshot_id() == Some("snap-1")
        })
        .then_output(|| CopySnapshotOutput::builder().snapshot_id("snap-2").build())
}

async fn write(step: &EncryptSnapshots) -> Writes {
    let found = read(step).await;
    let goal = step.contained(&target(), &found);
    step.write(&target(), &found, &goal.state).await
}

#[tokio::test]
async fn only_the_unencrypted_snapshot_is_copied_under_the_key_with_its_lineage() {
    let snapshots =
        vec![snapshot("snap-1", "completed", false, None, None), snapshot("snap-8", "completed", true, None, None)];
    let (case, copied) = (case(snapshots), copied());
    assert!(write(&step(&[&case, &copied])).await.failures.is_empty());
    assert_eq!(copied.num_calls(), 1);
}

#[tokio::test]
async fn a_pending_source_is_waited_for_and_not_copied() {
    let (case, copied) = (case(vec![snapshot("snap-1", "pending", false, None, None)]), copied());
    let step = step(&[&case, &copied]);
    assert!(read(&step).await.state.values().all(|copy| step.accepted(copy)));
    write(&step).await;
    assert_eq!(copied.num_calls(), 0);
}

#[tokio::test]
async fn a_completed_copy_under_the_key_is_a_fixed_point_and_one_under_another_key_is_not() {
    for (key, verified) in [(KEY, true), ("arn:aws:kms:eu-west-1:123456789012:key/other", false)] {
        let snapshots = vec![
            snapshot("snap-1", "completed", false, None, None),
            snapshot("snap-2", "completed", true, Some("snap-1"), Some(key)),
        ];
        let case = case(snapshots);
        let step = step(&[&case]);
        let found = read(&step).await;
        assert_eq!(step.contained(&target(), &found).state == found.state, verified);
    }
}

#[tokio::test]
async fn a_copy_that_failed_without_a_word_is_made_once_more_and_then_left_to_a_person() {
    let failed = |id: &str| snapshot(id, "error", true, Some("snap-1"), None);
    for (copies, calls) in [(vec![failed("snap-2")], 1), (vec![failed("snap-2"), failed("snap-3")], 0)] {
        let snapshots = copies.into_iter().chain([snapshot("snap-1", "completed", false, None, None)]).collect();
        let (case, copied) = (case(snapshots), copied());
        write(&step(&[&case, &copied])).await;
        assert_eq!(copied.num_calls(), calls);
    }
}

#[tokio::test]
async fn the_limit_of_copies_at_a_time_is_waited_out() {
    let full = mock!(Client::copy_snapshot).then_error(|| {
        CopySnapshotError::generic(aws_sdk_ec2::error::ErrorMetadata::builder().code("ResourceLimitExceeded").build())
    });
    let case = case(vec![snapshot("snap-1", "completed", false, None, None)]);
    let writes = write(&step(&[&case, &full])).await;
    assert!(writes.waiting && writes.failures.is_empty());
}

#[test]
fn a_key_of_another_region_is_not_used() {
    assert_eq!(key_in_region(Some(KEY.into()), &target()).as_deref(), Some(KEY));
    let elsewhere = Target { region: "us-east-1".into(), ..target() };
    assert_eq!(key_in_region(Some(KEY.into()), &elsewhere), None);
}
