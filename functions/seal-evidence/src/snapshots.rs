//! The case's snapshots, as EC2 shows them now.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::primitives::DateTimeFormat;
use containment::{Result, Target};
use custody::Snapshot;

/// The snapshots of a target's case, by their id. Reads, changes nothing.
pub(crate) async fn of_case(ec2: Result<Client>, target: &Target) -> Result<Vec<Snapshot>> {
    let found = instance::snapshots_of_case(&ec2?, target).await?;
    let mut snapshots: Vec<Snapshot> = found.iter().map(|snapshot| sealed(target, snapshot)).collect();
    snapshots.sort_by(|one, other| one.snapshot_id.cmp(&other.snapshot_id));
    Ok(snapshots)
}

/// EC2's own word wherever it has one. A copy's volume is none that exists (trap G7): its lineage is in its tags.
fn sealed(target: &Target, snapshot: &aws_sdk_ec2::types::Snapshot) -> Snapshot {
    let tag = |key: &str| {
        snapshot.tags().iter().find(|t| t.key() == Some(key)).and_then(|t| t.value()).map(ToOwned::to_owned)
    };
    let source_snapshot_id = tag("SourceSnapshotId");
    let own = snapshot.volume_id().map(ToOwned::to_owned);
    Snapshot {
        snapshot_id: snapshot.snapshot_id().unwrap_or_default().to_owned(),
        account_id: snapshot.owner_id().unwrap_or(&target.account_id).to_owned(),
        region: target.region.clone(),
        state: snapshot.state().map_or("unknown", |state| state.as_str()).to_owned(),
        started_at: snapshot.start_time().and_then(|at| at.fmt(DateTimeFormat::DateTime).ok()),
        volume_id: if source_snapshot_id.is_some() { tag("VolumeId") } else { own },
        device_name: tag("DeviceName"),
        source_snapshot_id,
        volume_size: snapshot.volume_size().unwrap_or_default(),
        encrypted: snapshot.encrypted().unwrap_or(false),
        kms_key_id: snapshot.kms_key_id().map(ToOwned::to_owned),
        lock: None,
        blocks: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::types::{SnapshotState, Tag};

    fn snapshot(id: &str, volume: &str, tags: &[(&str, &str)]) -> aws_sdk_ec2::types::Snapshot {
        let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
        let built = aws_sdk_ec2::types::Snapshot::builder().snapshot_id(id).volume_id(volume).set_tags(Some(tags));
        built.state(SnapshotState::Completed).owner_id("123456789012").volume_size(8).build()
    }

    #[test]
    fn a_copy_has_its_lineage_from_its_tags_and_an_original_from_ec2() {
        let copy = [("SourceSnapshotId", "snap-1"), ("VolumeId", "vol-1"), ("DeviceName", "/dev/xvda")];
        let copy = sealed(&Target::example(), &snapshot("snap-2", "vol-ffffffff", &copy));
        assert_eq!((copy.volume_id.as_deref(), copy.source_snapshot_id.as_deref()), (Some("vol-1"), Some("snap-1")));
        let original = sealed(&Target::example(), &snapshot("snap-1", "vol-1", &[("VolumeId", "vol-forged")]));
        assert_eq!((original.volume_id.as_deref(), original.source_snapshot_id), (Some("vol-1"), None));
        assert_eq!((original.state.as_str(), original.volume_size), ("completed", 8));
    }
}
