//! The snapshots of a case: originals, the copies that may replace them, requests for copies, and locks.
//!
//! Reads EC2. Changes nothing, except for the copies that [`ask_for`] requests.

mod blocks;
mod copies;
mod copy_url;
mod forensic;
mod locks;

use std::collections::BTreeMap;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::primitives::DateTimeFormat;
use aws_sdk_ec2::types::{Filter, Snapshot, SnapshotState};
use containment::{Error, Result, Target};

pub use blocks::{BlockList, HASH_SNAPSHOTS, Part, Parts, block_lists, parts};
pub use copies::{SnapshotCopy, ask_for, best};
pub use copy_url::copy_url;
pub use forensic::{ForensicCopy, forensic_copies};
pub use locks::{locked_days, locks};

/// The snapshots of a case: originals, and copies by the original that they were made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CaseSnapshots {
    /// The snapshots that `create-snapshots` took.
    pub originals: Vec<Snapshot>,
    /// By the id of the original; an original may be gone.
    pub copies: BTreeMap<String, Vec<Snapshot>>,
}

/// Whether EC2 says that a snapshot was taken of a volume. A copy names a volume that does not
/// exist (aws-behaviour#copy-lineage); tags do not turn an original into a copy (aws-behaviour#tags).
pub fn is_of_a_volume(snapshot: &Snapshot) -> bool {
    snapshot.volume_id().is_some_and(|volume| volume != "vol-ffffffff")
}

/// Reads the snapshots of a target's case.
pub async fn case_snapshots(ec2: &Client, target: &Target) -> Result<CaseSnapshots> {
    let mut snapshots = CaseSnapshots::default();
    for snapshot in snapshots_of_case(ec2, target).await? {
        match tag(&snapshot, "SourceSnapshotId").filter(|_| !is_of_a_volume(&snapshot)) {
            Some(source) => snapshots.copies.entry(source.to_owned()).or_default().push(snapshot),
            None => snapshots.originals.push(snapshot),
        }
    }
    Ok(snapshots)
}

/// A tag's value. Tags say which snapshot is a copy of which, but never prove it (aws-behaviour#tags).
pub fn tag<'a>(snapshot: &'a Snapshot, key: &str) -> Option<&'a str> {
    snapshot.tags().iter().find(|t| t.key() == Some(key)).and_then(|t| t.value())
}

/// Whether a copy may replace its original: completed, encrypted, and under the requested key.
pub fn is_verified(copy: &Snapshot, key: Option<&str>) -> bool {
    copy.state() == Some(&SnapshotState::Completed)
        && copy.encrypted().unwrap_or(false)
        && key.is_none_or(|key| copy.kms_key_id() == Some(key))
}

/// The snapshots of a case that can be shared: for each original, itself if it is under the stack's key, or else a
/// verified copy of the same size.
pub fn shareable<'a>(snapshots: &'a CaseSnapshots, key: &str) -> Vec<&'a Snapshot> {
    let verified = |snapshot: &&Snapshot| is_verified(snapshot, Some(key));
    let (own, others): (Vec<_>, Vec<_>) = snapshots.originals.iter().partition(verified);
    let standing_for = |original: &Snapshot| {
        let copies = snapshots.copies.get(original.snapshot_id()?)?;
        copies.iter().filter(verified).find(|copy| copy.volume_size() == original.volume_size())
    };
    let gone = snapshots
        .copies
        .iter()
        .filter(|(id, _)| snapshots.originals.iter().all(|original| original.snapshot_id() != Some(id.as_str())));
    let left = gone.filter_map(|(_, copies)| copies.iter().find(verified));
    own.into_iter().chain(others.into_iter().filter_map(standing_for)).chain(left).collect()
}

/// The stack's key, if it is in the target's Region: a key works only there.
pub fn key_in_region(key: Option<String>, target: &Target) -> Option<String> {
    key.filter(|arn| arn.split(':').nth(3) == Some(&target.region))
}

/// When a snapshot's content was taken: its own start, or the time that a copy has from its source.
pub fn taken_at(snapshot: &Snapshot) -> Option<String> {
    let own = || snapshot.start_time().and_then(|at| at.fmt(DateTimeFormat::DateTime).ok());
    tag(snapshot, "TakenAt").map(ToOwned::to_owned).or_else(own)
}

/// A copy's failure in AWS's words. EBS notices only later that it may not use a key, and gives no further detail.
pub fn failure(message: Option<&str>, source_key: Option<&str>) -> String {
    let message = message.unwrap_or("without a message");
    match source_key.filter(|_| message.contains("key ID is not accessible")) {
        Some(key) => format!(
            "error: {message}; the policy of the source's key, {key}, must let this role use it through EC2 \
             (kms:Decrypt, kms:DescribeKey, kms:ReEncryptFrom, kms:CreateGrant)"
        ),
        None => format!("error: {message}"),
    }
}

/// The snapshots that carry the case's tag, copies among them.
pub async fn snapshots_of_case(ec2: &Client, target: &Target) -> Result<Vec<Snapshot>> {
    let of_case = Filter::builder().name("tag:CordonCase").values(&target.case_id).build();
    let pages = ec2.describe_snapshots().owner_ids("self").filters(of_case).into_paginator().items().send();
    pages.try_collect().await.map_err(Error::aws("ec2:DescribeSnapshots", &target.case_id))
}

#[cfg(test)]
mod tests;
