//! The case's snapshots, as EC2 shows them now.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::primitives::DateTimeFormat;
use containment::{Result, Target};
use custody::{Blocks, Lock, Snapshot};
use snapshots::{BlockList, ForensicCopy, is_of_a_volume};

/// The snapshots of a target's case, by their id. Reads, changes nothing.
pub(crate) async fn of_case(ec2: Result<Client>, target: &Target) -> Result<Vec<Snapshot>> {
    let found = snapshots::snapshots_of_case(&ec2?, target).await?;
    let mut snapshots: Vec<Snapshot> = found.iter().map(|snapshot| sealed(target, snapshot)).collect();
    snapshots.sort_by(|one, other| one.snapshot_id.cmp(&other.snapshot_id));
    Ok(snapshots)
}

/// EC2's own word wherever it has one. A copy's volume id names no real volume (aws-behaviour#copy-lineage): its
/// lineage is in its tags.
fn sealed(target: &Target, snapshot: &aws_sdk_ec2::types::Snapshot) -> Snapshot {
    let tag = |key: &str| {
        snapshot.tags().iter().find(|t| t.key() == Some(key)).and_then(|t| t.value()).map(ToOwned::to_owned)
    };
    let source_snapshot_id = tag("SourceSnapshotId").filter(|_| !is_of_a_volume(snapshot));
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

/// A copy in the forensic account: its lineage is in its tags, which only Cordon's role there can write.
pub(crate) fn in_forensic_account(copy: ForensicCopy) -> Snapshot {
    let tag = |key: &str| copy.tags.get(key).cloned();
    Snapshot {
        volume_id: tag("VolumeId"),
        device_name: tag("DeviceName"),
        source_snapshot_id: tag("SourceSnapshotId"),
        snapshot_id: copy.snapshot_id,
        account_id: copy.account_id,
        region: copy.region,
        state: copy.state,
        started_at: copy.copied_at,
        volume_size: copy.volume_size.unwrap_or_default(),
        encrypted: copy.kms_key_id.is_some(),
        kms_key_id: copy.kms_key_id,
        lock: Some(Lock { state: copy.lock, expires_at: copy.locked_until }).filter(|lock| lock.state != "none"),
        blocks: None,
    }
}

/// A snapshot's list of blocks.
pub(crate) fn blocks(list: &BlockList) -> Blocks {
    Blocks { parts: list.parts.clone(), count: list.count, sha256: list.sha256.clone() }
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
    fn a_copy_in_the_forensic_account_has_its_lineage_and_its_lock() {
        let lineage = [("SourceSnapshotId", "snap-2"), ("VolumeId", "vol-1"), ("DeviceName", "/dev/xvda")];
        let copy = ForensicCopy {
            snapshot_id: "snap-8".to_owned(),
            account_id: "888888888888".to_owned(),
            region: "eu-west-1".to_owned(),
            state: "completed".to_owned(),
            kms_key_id: Some("key".to_owned()),
            volume_size: Some(8),
            copied_at: None,
            tags: lineage.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            lock: "governance".to_owned(),
            locked_for_days: Some(30),
            locked_until: Some("2026-12-21T03:00:07Z".to_owned()),
        };
        let sealed = in_forensic_account(copy.clone());
        assert_eq!(
            (sealed.source_snapshot_id.as_deref(), sealed.volume_id.as_deref()),
            (Some("snap-2"), Some("vol-1"))
        );
        assert_eq!(sealed.lock.and_then(|lock| lock.expires_at), copy.locked_until);
        assert_eq!(in_forensic_account(ForensicCopy { lock: "none".to_owned(), ..copy }).lock, None);
    }

    #[test]
    fn a_copys_lineage_comes_from_its_tags_and_an_originals_from_ec2() {
        let copy = [("SourceSnapshotId", "snap-1"), ("VolumeId", "vol-1"), ("DeviceName", "/dev/xvda")];
        let copy = sealed(&Target::example(), &snapshot("snap-2", "vol-ffffffff", &copy));
        assert_eq!((copy.volume_id.as_deref(), copy.source_snapshot_id.as_deref()), (Some("vol-1"), Some("snap-1")));
        let forged = [("VolumeId", "vol-forged"), ("SourceSnapshotId", "snap-forged")];
        let original = sealed(&Target::example(), &snapshot("snap-1", "vol-1", &forged));
        assert_eq!((original.volume_id.as_deref(), original.source_snapshot_id), (Some("vol-1"), None));
        assert_eq!((original.state.as_str(), original.volume_size), ("completed", 8));
    }
}
