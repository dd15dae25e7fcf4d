//! The case's copies in the forensic account, for the steps that report them.

use std::collections::BTreeMap;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::primitives::{DateTime, DateTimeFormat};
use aws_sdk_ec2::types::{LockState, LockedSnapshotsInfo, Snapshot, SnapshotState};
use containment::{Result, Target};
use serde::Serialize;

use crate::{locked_days, locks, snapshots_of_case};

/// A copy in the forensic account, with its origin and its lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ForensicCopy {
    /// The copy.
    pub snapshot_id: String,
    /// The forensic account.
    pub account_id: String,
    /// Its Region.
    pub region: String,
    /// `pending`, `completed`, `error`.
    pub state: String,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_size: Option<i32>,
    /// When the copy was begun, ISO 8601 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copied_at: Option<String>,
    /// Its tags, with its lineage: `SourceSnapshotId`, `OriginalSnapshotId`, `SourceAccountId`, `SourceRegion`, `VolumeId`,
    /// `DeviceName`, `InstanceId`, `TakenAt`.
    pub tags: BTreeMap<String, String>,
    /// `none`, `governance`, `compliance-cooloff`, `compliance`, `expired`.
    pub lock: String,
    /// For how many days it is locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked_for_days: Option<i32>,
    /// When the lock ends, ISO 8601 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<String>,
}

/// The case's copies in the forensic account with their locks, by id.
///
/// Calls `DescribeSnapshots` and `DescribeLockedSnapshots` with the forensic account's credentials, in the Region that the
/// target's copies go to.
pub async fn forensic_copies(there: &Client, target: &Target, region: &str) -> Result<Vec<ForensicCopy>> {
    let case = snapshots_of_case(there, target).await?;
    let ids: Vec<String> = case.iter().filter_map(|copy| copy.snapshot_id.clone()).collect();
    let locks = locks(there, &ids).await?;
    let shown = |copy: &Snapshot| Some(shown(copy, locks.get(copy.snapshot_id()?), region));
    let mut copies: Vec<ForensicCopy> = case.iter().filter_map(shown).collect();
    copies.sort_by(|one, other| one.snapshot_id.cmp(&other.snapshot_id));
    Ok(copies)
}

fn shown(copy: &Snapshot, lock: Option<&LockedSnapshotsInfo>, region: &str) -> ForensicCopy {
    let utc = |at: Option<&DateTime>| at.and_then(|at| at.fmt(DateTimeFormat::DateTime).ok());
    ForensicCopy {
        snapshot_id: copy.snapshot_id().unwrap_or_default().to_owned(),
        account_id: copy.owner_id().unwrap_or_default().to_owned(),
        region: region.to_owned(),
        state: copy.state().map_or("unknown", SnapshotState::as_str).to_owned(),
        kms_key_id: copy.kms_key_id.clone(),
        volume_size: copy.volume_size,
        copied_at: utc(copy.start_time()),
        tags: copy.tags().iter().filter_map(|tag| Some((tag.key.clone()?, tag.value.clone()?))).collect(),
        lock: lock.and_then(|lock| lock.lock_state()).map_or("none", LockState::as_str).to_owned(),
        locked_for_days: lock.and_then(locked_days),
        locked_until: utc(lock.and_then(|lock| lock.lock_expires_on())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::describe_locked_snapshots::DescribeLockedSnapshotsOutput;
    use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
    use aws_sdk_ec2::types::Tag;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    #[tokio::test]
    async fn a_copy_is_shown_with_its_lineage_its_key_and_the_end_of_its_lock() {
        let case = mock!(Client::describe_snapshots).then_output(|| {
            let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
            let copy = |id: &str| Snapshot::builder().snapshot_id(id).owner_id("888888888888").volume_size(8);
            let good = copy("snap-8").state(SnapshotState::Completed).kms_key_id("key");
            let good = good.tags(tag("SourceSnapshotId", "snap-1")).tags(tag("VolumeId", "vol-1"));
            let other = copy("snap-7").state(SnapshotState::Pending);
            DescribeSnapshotsOutput::builder().snapshots(good.build()).snapshots(other.build()).build()
        });
        let locks = mock!(Client::describe_locked_snapshots)
            .match_requests(|r| r.snapshot_ids() == ["snap-8", "snap-7"])
            .then_output(|| {
                let lock = LockedSnapshotsInfo::builder().snapshot_id("snap-8").lock_state(LockState::Governance);
                let lock = lock.lock_created_on(DateTime::from_secs(1_795_230_007));
                let lock = lock.lock_expires_on(DateTime::from_secs(1_795_230_007 + 30 * 86_400));
                DescribeLockedSnapshotsOutput::builder().snapshots(lock.build()).build()
            });
        let there = mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&case, &locks]);
        let copies = forensic_copies(&there, &Target::example(), "eu-central-1").await.expect("read");
        assert_eq!(
            serde_json::to_value(&copies).expect("JSON"),
            serde_json::json!([
                { "SnapshotId": "snap-7", "AccountId": "888888888888", "Region": "eu-central-1", "State": "pending",
                  "VolumeSize": 8, "Tags": {}, "Lock": "none" },
                { "SnapshotId": "snap-8", "AccountId": "888888888888", "Region": "eu-central-1", "State": "completed",
                  "KmsKeyId": "key", "VolumeSize": 8, "Tags": { "SourceSnapshotId": "snap-1", "VolumeId": "vol-1" },
                  "Lock": "governance", "LockedForDays": 30, "LockedUntil": "2026-12-21T03:00:07Z" },
            ])
        );
    }
}
