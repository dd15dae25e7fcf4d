use super::*;
use aws_sdk_ec2::types::Tag;

const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/k";
const OTHER_KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/customer";

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

#[test]
fn a_key_of_another_region_is_not_used() {
    assert_eq!(key_in_region(Some(KEY.into()), &Target::example()).as_deref(), Some(KEY));
    let elsewhere = Target { region: "us-east-1".into(), ..Target::example() };
    assert_eq!(key_in_region(Some(KEY.into()), &elsewhere), None);
}

fn resized(mut snapshots: CaseSnapshots, size: i32) -> CaseSnapshots {
    snapshots.originals.iter_mut().for_each(|s| s.volume_size = Some(size));
    snapshots
}

#[test]
fn originals_under_the_stacks_key_or_their_verified_copies_can_be_shared() {
    let own = snapshot("snap-1", "completed", true, None, Some(KEY));
    let plain = snapshot("snap-2", "completed", false, None, None);
    let copy = |id: &str, state: &str, key: &str| snapshot(id, state, true, Some("snap-2"), Some(key));
    let copies = vec![
        copy("snap-3", "completed", OTHER_KEY),
        copy("snap-4", "completed", KEY),
        copy("snap-5", "completed", KEY),
    ];
    let orphan = vec![snapshot("snap-7", "completed", true, Some("snap-6"), Some(KEY))];
    let case = CaseSnapshots {
        originals: vec![own, plain],
        copies: [("snap-2".to_owned(), copies), ("snap-6".to_owned(), orphan)].into(),
    };
    let ids = |case: &CaseSnapshots| -> Vec<String> {
        shareable(case, KEY).iter().filter_map(|s| s.snapshot_id().map(ToOwned::to_owned)).collect()
    };
    assert_eq!(ids(&case), ["snap-1", "snap-4", "snap-7"]);
    assert_eq!(ids(&resized(case, 8)), ["snap-1", "snap-7"], "a copy of another size replaces nothing");
}
