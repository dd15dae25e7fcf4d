//! What EC2 shows to belong to an instance: the reads that several steps share.
//!
//! Every list is paged to its end, and includes what an AWS service manages, which EC2 otherwise hides (trap A10).

use std::collections::BTreeMap;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    Filter, IamInstanceProfileAssociation, LockedSnapshotsInfo, NetworkInterface, Snapshot, Volume,
};
use containment::{Error, Result, Target};

const IDS_A_CALL: usize = 200;

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// The network interfaces that are attached to the instance, in whatever VPC (trap A7).
pub async fn interfaces(ec2: &Client, target: &Target) -> Result<Vec<NetworkInterface>> {
    let attached = filter("attachment.instance-id", &target.instance_id);
    let pages = ec2
        .describe_network_interfaces()
        .include_managed_resources(true)
        .filters(attached)
        .into_paginator()
        .items()
        .send();
    pages.try_collect().await.map_err(Error::aws("ec2:DescribeNetworkInterfaces", &target.instance_id))
}

/// The EBS volumes that are attached to the instance.
pub async fn volumes(ec2: &Client, target: &Target) -> Result<Vec<Volume>> {
    let attached = filter("attachment.instance-id", &target.instance_id);
    let pages =
        ec2.describe_volumes().include_managed_resources(true).filters(attached).into_paginator().items().send();
    pages.try_collect().await.map_err(Error::aws("ec2:DescribeVolumes", &target.instance_id))
}

/// The instance profile's associations: one at most, but for the moment of a change.
pub async fn profile_associations(ec2: &Client, target: &Target) -> Result<Vec<IamInstanceProfileAssociation>> {
    let of_instance = filter("instance-id", &target.instance_id);
    let pages = ec2.describe_iam_instance_profile_associations().filters(of_instance).into_paginator().items().send();
    pages.try_collect().await.map_err(Error::aws("ec2:DescribeIamInstanceProfileAssociations", &target.instance_id))
}

/// The snapshots that carry the case's tag, copies among them.
pub async fn snapshots_of_case(ec2: &Client, target: &Target) -> Result<Vec<Snapshot>> {
    let of_case = filter("tag:CordonCase", &target.case_id);
    let pages = ec2.describe_snapshots().owner_ids("self").filters(of_case).into_paginator().items().send();
    pages.try_collect().await.map_err(Error::aws("ec2:DescribeSnapshots", &target.case_id))
}

/// How the account's own snapshots are locked, by their ids. A snapshot that was never locked is not among them; one whose
/// lock has ended is, as `expired`.
pub async fn locks(ec2: &Client, snapshots: &[String]) -> Result<BTreeMap<String, LockedSnapshotsInfo>> {
    let mut locks = BTreeMap::new();
    // Asked about by id, because there may be thousands of other cases'; without ids, the question would be about all.
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
