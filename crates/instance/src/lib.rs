//! Reads that several steps share: the resources that belong to an instance.
//!
//! Every list is read to its last page, and includes resources that an AWS service manages, which EC2 otherwise hides
//! (aws-behaviour#managed-instances).

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, IamInstanceProfileAssociation, NetworkInterface, Volume};
use containment::{Error, Result, Target};

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// The network interfaces that are attached to the instance, which may be in several VPCs
/// (aws-behaviour#interfaces-and-vpcs).
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

/// The instance profile's associations: at most one, except during a change.
pub async fn profile_associations(ec2: &Client, target: &Target) -> Result<Vec<IamInstanceProfileAssociation>> {
    let of_instance = filter("instance-id", &target.instance_id);
    let pages = ec2.describe_iam_instance_profile_associations().filters(of_instance).into_paginator().items().send();
    pages.try_collect().await.map_err(Error::aws("ec2:DescribeIamInstanceProfileAssociations", &target.instance_id))
}
