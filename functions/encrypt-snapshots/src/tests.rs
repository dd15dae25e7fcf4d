use super::*;
use aws_sdk_ec2::operation::copy_snapshot::{CopySnapshotError, CopySnapshotOutput};
use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/k";

fn target() -> Target {
    Target::example()
}

fn step(rules: &[&Rule]) -> EncryptSnapshots {
    let credentials = aws_credential_types::Credentials::new("AKID", "secret", None, None, "test");
    let provider = aws_credential_types::provider::SharedCredentialsProvider::new(credentials);
    EncryptSnapshots {
        aws: SdkConfig::builder().credentials_provider(provider).build(),
        ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, rules),
        key: Some(KEY.into()),
        under_this_key: false,
    }
}

/// The step where a forensic account is configured.
fn sharing(rules: &[&Rule]) -> EncryptSnapshots {
    EncryptSnapshots { under_this_key: true, ..step(rules) }
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

async fn read(step: &EncryptSnapshots) -> Found<SnapshotCopy, CaseSnapshots> {
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
    let goal = step.contained(&target(), &found, &Journaled::default());
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
async fn a_copy_names_the_volume_of_an_original_whose_tags_could_not_be_written() {
    let original = Snapshot::builder().snapshot_id("snap-1").volume_id("vol-7").encrypted(false);
    let case = case(vec![original.state(SnapshotState::Completed).build()]);
    let copied = mock!(Client::copy_snapshot)
        .match_requests(|r| {
            let tags = r.tag_specifications()[0].tags();
            tags.iter().any(|tag| (tag.key(), tag.value()) == (Some("VolumeId"), Some("vol-7")))
        })
        .then_output(|| CopySnapshotOutput::builder().snapshot_id("snap-2").build());
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
        assert_eq!(step.contained(&target(), &found, &Journaled::default()).state == found.state, verified);
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

const OTHER_KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/customer";

#[tokio::test]
async fn where_copies_are_to_be_shared_a_snapshot_under_another_key_is_copied_under_the_stacks() {
    let snapshots = vec![
        snapshot("snap-1", "completed", true, None, Some(OTHER_KEY)),
        snapshot("snap-8", "completed", true, None, Some(KEY)),
    ];
    let signed = mock!(Client::copy_snapshot)
        .match_requests(|r| {
            r.source_snapshot_id() == Some("snap-1")
                && r.kms_key_id() == Some(KEY)
                && r.destination_region() == Some("eu-west-1")
                && r.presigned_url().is_some_and(|url| url.contains("SourceSnapshotId=snap-1&"))
        })
        .then_output(|| CopySnapshotOutput::builder().snapshot_id("snap-2").build());
    let found = case(snapshots);
    assert!(write(&sharing(&[&found, &signed])).await.failures.is_empty());
    assert_eq!(signed.num_calls(), 1);
}

#[tokio::test]
async fn without_a_forensic_account_a_snapshot_under_another_key_is_left_as_it_is() {
    let case = case(vec![snapshot("snap-1", "completed", true, None, Some(OTHER_KEY))]);
    assert!(read(&step(&[&case])).await.state.is_empty());
}

#[tokio::test]
async fn a_copy_that_failed_for_its_sources_key_says_whose_policy_has_to_change() {
    let source = snapshot("snap-1", "completed", true, None, Some(OTHER_KEY));
    let mut copy = snapshot("snap-2", "error", true, Some("snap-1"), Some(KEY));
    copy.state_message = Some("Given key ID is not accessible".to_owned());
    let case = case(vec![source, copy]);
    let state = &read(&sharing(&[&case])).await.state[&Key::new("snap-1", COPY)].state;
    assert!(
        state.starts_with("error: Given key ID is not accessible; the policy of the source's key, arn:aws:kms:"),
        "{state}"
    );
    assert!(state.contains("key/customer") && state.contains("kms:Decrypt"), "{state}");
}

#[tokio::test]
async fn a_copy_carries_the_moment_that_its_source_shows() {
    let mut source = snapshot("snap-1", "completed", false, None, None);
    source.start_time = Some(aws_sdk_ec2::primitives::DateTime::from_secs(1_795_230_007));
    let tagged = mock!(Client::copy_snapshot)
        .match_requests(|r| {
            let tags = r.tag_specifications()[0].tags();
            tags.iter().any(|t| t.key() == Some("TakenAt") && t.value() == Some("2026-11-21T03:00:07Z"))
        })
        .then_output(|| CopySnapshotOutput::builder().snapshot_id("snap-2").build());
    let case = case(vec![source]);
    assert!(write(&step(&[&case, &tagged])).await.failures.is_empty());
}
