//! The locks of snapshots.

use std::collections::BTreeMap;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::LockedSnapshotsInfo;
use containment::{Error, Result};

const IDS_A_CALL: usize = 200;

/// The locks of the account's own snapshots, by the snapshots' ids. A snapshot that was never locked has no entry; one
/// whose lock has ended is `expired`.
pub async fn locks(ec2: &Client, snapshots: &[String]) -> Result<BTreeMap<String, LockedSnapshotsInfo>> {
    let mut locks = BTreeMap::new();
    // Read by id, because other cases may have thousands of locks; without ids, the call would list them all.
    for ids in snapshots.chunks(IDS_A_CALL) {
        let mut page = None;
        loop {
            let call = ec2.describe_locked_snapshots().set_snapshot_ids(Some(ids.to_vec())).set_next_token(page);
            let reply = call
                .send()
                .await
                .map_err(Error::aws("ec2:DescribeLockedSnapshots", format!("{} snapshots", ids.len())))?;
            locks.extend(reply.snapshots().iter().filter_map(|lock| Some((lock.snapshot_id.clone()?, lock.clone()))));
            page = reply.next_token.filter(|token| !token.is_empty());
            if page.is_none() {
                break;
            }
        }
    }
    Ok(locks)
}

/// A lock's days: as requested, or counted if somebody has set a date.
pub fn locked_days(lock: &LockedSnapshotsInfo) -> Option<i32> {
    let counted = || {
        let from = lock.lock_duration_start_time().or(lock.lock_created_on())?.secs();
        i32::try_from((lock.lock_expires_on()?.secs() - from) / 86_400).ok()
    };
    lock.lock_duration.or_else(counted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::primitives::DateTime;

    #[test]
    fn a_lock_until_a_day_counts_as_the_days_between() {
        let from = DateTime::from_secs(1_795_230_007);
        let lock = LockedSnapshotsInfo::builder().lock_created_on(from);
        let lock = lock.lock_expires_on(DateTime::from_secs(from.secs() + 45 * 86_400 + 5)).build();
        assert_eq!(locked_days(&lock), Some(45));
    }
}
