use super::*;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ec2::operation::copy_snapshot::{CopySnapshotError, CopySnapshotOutput};
use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
use aws_sdk_ec2::primitives::DateTime;
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/k";

fn target() -> Target {
    Target::example()
}

fn step(here: &[&Rule], there: &[&Rule]) -> CopySnapshots {
    let credentials = Credentials::new("AKID", "secret", Some("token".into()), None, "test");
    CopySnapshots {
        here: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, here),
        there: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, there),
        aws: SdkConfig::builder().credentials_provider(SharedCredentialsProvider::new(credentials)).build(),
        forensic: Forensic::example(),
        key: Some(KEY.to_owned()),
    }
}

fn snapshot(id: &str, state: &str, key: &str, tags: &[(&str, &str)]) -> Snapshot {
    let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build());
    Snapshot::builder()
        .snapshot_id(id)
        .state(SnapshotState::from(state))
        .encrypted(true)
        .kms_key_id(key)
        .volume_size(8)
        .start_time(DateTime::from_secs(1_795_230_007))
        .set_tags(Some(tags.collect()))
        .build()
}

/// The encrypted copy of the original snap-0, as `encrypt-snapshots` makes it.
fn source() -> Snapshot {
    let tags = [
        ("SourceSnapshotId", "snap-0"),
        ("VolumeId", "vol-1"),
        ("DeviceName", "/dev/xvda"),
        ("TakenAt", "2026-11-21T03:00:00Z"),
    ];
    snapshot("snap-1", "completed", KEY, &tags)
}

fn copy(id: &str, state: &str, key: &str) -> Snapshot {
    snapshot(id, state, key, &[("SourceSnapshotId", "snap-1")])
}

fn shown(snapshots: Vec<Snapshot>) -> Rule {
    mock!(Client::describe_snapshots)
        .match_requests(|r| r.owner_ids() == ["self"] && r.filters()[0].values() == ["c-1"])
        .then_output(move || DescribeSnapshotsOutput::builder().set_snapshots(Some(snapshots.clone())).build())
}

fn copied() -> Rule {
    mock!(Client::copy_snapshot)
        .match_requests(|r| {
            r.source_snapshot_id() == Some("snap-1")
                && r.source_region() == Some("eu-west-1")
                && r.destination_region() == Some("eu-central-1")
                && r.encrypted() == Some(true)
                && r.kms_key_id() == Some(Forensic::example().key_arn.as_str())
        })
        .then_output(|| CopySnapshotOutput::builder().snapshot_id("snap-2").build())
}

async fn read(step: &CopySnapshots) -> Found<SnapshotCopy, Snapshots> {
    step.read(&target()).await.expect("read")
}

async fn write(step: &CopySnapshots) -> Writes {
    let found = read(step).await;
    let goal = step.contained(&target(), &found, &Journaled::default());
    step.write(&target(), &found, &goal.state).await
}

#[tokio::test]
async fn a_shared_snapshot_is_copied_into_the_other_account_and_region_under_that_accounts_key() {
    let (here, there, copied) = (shown(vec![source()]), shown(vec![]), copied());
    assert!(write(&step(&[&here], &[&there, &copied])).await.failures.is_empty());
    assert_eq!(copied.num_calls(), 1);
}

#[tokio::test]
async fn a_request_signed_for_the_sources_region_goes_along() {
    let signed = mock!(Client::copy_snapshot)
        .match_requests(|r| {
            r.presigned_url().is_some_and(|url| {
                url.starts_with("https://ec2.eu-west-1.amazonaws.com/?Action=CopySnapshot&")
                    && url.contains("&SourceSnapshotId=snap-1&DestinationRegion=eu-central-1&")
                    && url.contains("X-Amz-Security-Token=token")
            })
        })
        .then_output(|| CopySnapshotOutput::builder().snapshot_id("snap-2").build());
    let (here, there) = (shown(vec![source()]), shown(vec![]));
    assert!(write(&step(&[&here], &[&there, &signed])).await.failures.is_empty());
    assert_eq!(signed.num_calls(), 1);
}

#[test]
fn the_tags_of_a_copy_tell_where_it_comes_from_back_to_the_volume_and_the_moment() {
    let tags = lineage(&target(), &source());
    let expected = [
        ("CordonCase", "c-1"),
        ("DeviceName", "/dev/xvda"),
        ("Evidence", "Yes"),
        ("InstanceId", "i-0123456789abcdef0"),
        ("OriginalSnapshotId", "snap-0"),
        ("SecurityIncidentStatus", "Investigation"),
        ("SourceAccountId", "123456789012"),
        ("SourceRegion", "eu-west-1"),
        ("SourceSnapshotId", "snap-1"),
        ("TakenAt", "2026-11-21T03:00:00Z"),
        ("VolumeId", "vol-1"),
    ];
    assert_eq!(tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>(), expected);
    let original = snapshot("snap-9", "completed", KEY, &[("VolumeId", "vol-1")]);
    let tags = lineage(&target(), &original);
    assert_eq!((tags.get("OriginalSnapshotId"), tags["TakenAt"].as_str()), (None, "2026-11-21T03:00:07Z"));
}

#[test]
fn the_volume_of_an_original_without_tags_is_known_all_the_same_and_that_of_a_copy_is_not_believed() {
    let untagged = Snapshot::builder().snapshot_id("snap-9").volume_id("vol-1").build();
    assert_eq!(lineage(&target(), &untagged)["VolumeId"], "vol-1");
    let copy = Snapshot::builder().snapshot_id("snap-1").volume_id("vol-ffffffff");
    let copy = copy.tags(Tag::builder().key("SourceSnapshotId").value("snap-0").build()).build();
    assert_eq!(lineage(&target(), &copy).get("VolumeId"), None);
}

#[tokio::test]
async fn a_copy_that_an_earlier_try_made_is_found_and_no_other_is_asked_for() {
    let (here, there, copied) = (shown(vec![source()]), shown(vec![copy("snap-2", "pending", "key")]), copied());
    let step = step(&[&here], &[&there, &copied]);
    assert!(read(&step).await.state.values().all(|copy| step.accepted(copy)));
    write(&step).await;
    assert_eq!(copied.num_calls(), 0);
}

#[tokio::test]
async fn a_copy_is_good_only_if_it_is_completed_under_the_forensic_key_with_the_size_of_its_source() {
    let key = Forensic::example().key_arn;
    let mut cut = copy("snap-2", "completed", &key);
    cut.volume_size = Some(7);
    for (copy, state) in [
        (copy("snap-2", "completed", &key), "completed"),
        (copy("snap-2", "completed", KEY), "completed under another key"),
        (cut, "completed with another size"),
        (copy("snap-2", "pending", &key), "pending"),
    ] {
        let (here, there) = (shown(vec![source()]), shown(vec![copy]));
        let step = step(&[&here], &[&there]);
        let found = read(&step).await;
        let shown: Vec<&str> = found.state.values().map(|copy| copy.state.as_str()).collect();
        assert_eq!(shown, [state]);
        assert_eq!(step.contained(&target(), &found, &Journaled::default()).state == found.state, state == "completed");
    }
}

#[tokio::test]
async fn a_copy_that_failed_without_a_word_is_made_once_more_and_then_left_to_a_person_with_awss_message() {
    let failed = |id: &str| {
        let mut failed = copy(id, "error", "key");
        failed.state_message = Some("Given key ID is not accessible".to_owned());
        failed
    };
    for (copies, calls) in [(vec![failed("snap-2")], 1), (vec![failed("snap-2"), failed("snap-3")], 0)] {
        let (here, there, copied) = (shown(vec![source()]), shown(copies), copied());
        let step = step(&[&here], &[&there, &copied]);
        write(&step).await;
        assert_eq!(copied.num_calls(), calls);
        let state = &read(&step).await.state[&Key::new("snap-1", COPY)].state;
        assert!(state.contains("Given key ID is not accessible") && state.contains(KEY), "{state}");
    }
}

#[tokio::test]
async fn the_limit_of_copies_at_a_time_is_waited_out() {
    let full = mock!(Client::copy_snapshot).then_error(|| {
        CopySnapshotError::generic(aws_sdk_ec2::error::ErrorMetadata::builder().code("ResourceLimitExceeded").build())
    });
    let (here, there) = (shown(vec![source()]), shown(vec![]));
    let writes = write(&step(&[&here], &[&there, &full])).await;
    assert!(writes.waiting && writes.failures.is_empty());
}

#[tokio::test]
async fn a_snapshot_that_is_not_under_the_shared_key_is_no_source() {
    let (here, there) = (shown(vec![snapshot("snap-1", "completed", "another", &[])]), shown(vec![]));
    let step = step(&[&here], &[&there]);
    let found = read(&step).await;
    assert!(
        step.contained(&target(), &found, &Journaled::default())
            .not_applicable
            .expect("why")
            .contains("no completed snapshot")
    );
}

#[tokio::test]
async fn where_a_key_does_not_reach_nothing_is_asked_for_and_the_reason_is_given() {
    let elsewhere = CopySnapshots { forensic: Forensic { region: None, ..Forensic::example() }, ..step(&[], &[]) };
    let unshared = CopySnapshots { key: None, ..step(&[], &[]) };
    for (step, said) in [(elsewhere, "key in eu-central-1 does not reach"), (unshared, "no snapshot is shared")] {
        let found = read(&step).await;
        let goal = step.contained(&target(), &found, &Journaled::default());
        assert!(found.state.is_empty() && goal.unsupported[0].contains(said), "{:?}", goal.unsupported);
    }
}
