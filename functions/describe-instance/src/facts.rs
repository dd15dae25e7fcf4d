//! What an investigator asks for first, small enough to travel through the execution.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::primitives::DateTimeFormat;
use aws_sdk_ec2::types::{Instance, InstanceLifecycleType, Volume};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use containment::{Found, Target};
use serde_json::{Value, json};

/// A tag's value is the owner's, or the attacker's: no more of it than this goes into the execution
/// (aws-behaviour#state-size).
const TAG_CHARACTERS: usize = 60;
const TAGS_AT_MOST: usize = 8;

/// Volumes and addresses; the evidence has all of them.
const ENTRIES_AT_MOST: usize = 16;

/// What `isolate-network` reads.
pub(crate) type Network = Found<BTreeSet<String>, isolate_network::Facts>;
/// What `detach-autoscaling` reads.
pub(crate) type Membership = Found<detach_autoscaling::Membership, BTreeMap<String, detach_autoscaling::Capacity>>;

/// What was read of the instance itself.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    /// As DescribeInstances shows it.
    pub instance: &'a Instance,
    /// Those that are attached to it.
    pub volumes: &'a [Volume],
    /// In base64, as EC2 answers; empty where there is none, absent where it could not be read.
    pub user_data: Option<&'a str>,
}

/// The facts as they go into the execution's result.
pub fn facts(
    target: &Target,
    read: Read<'_>,
    network: Option<&Network>,
    membership: Option<&Membership>,
    profile_arn: Option<&str>,
) -> Value {
    let Read { instance, volumes, user_data } = read;
    let interfaces = || network.iter().flat_map(|found| &found.facts.interfaces);
    let groups_of = |id: &String| network?.state.iter().find(|(key, _)| &key.resource == id).map(|(_, groups)| groups);
    let groups: BTreeMap<&String, _> = interfaces().filter_map(|(id, _)| Some((id, groups_of(id)?))).collect();
    let vpcs: BTreeSet<&String> = interfaces().map(|(_, interface)| &interface.vpc).collect();
    let subnets: BTreeSet<&String> = interfaces().map(|(_, interface)| &interface.subnet).collect();
    let volumes: BTreeMap<&str, Value> = volumes
        .iter()
        .take(ENTRIES_AT_MOST)
        .filter_map(|v| Some((v.volume_id()?, json!({ "Encrypted": v.encrypted(), "GiB": v.size() }))))
        .collect();
    json!({
        "InstanceId": instance.instance_id(),
        "InstanceType": instance.instance_type().map(|t| t.as_str()),
        "State": instance.state().and_then(|s| s.name()).map(|n| n.as_str()),
        "Spot": instance.instance_lifecycle() == Some(&InstanceLifecycleType::Spot),
        "Platform": instance.platform_details(),
        "Architecture": instance.architecture().map(|a| a.as_str()),
        "ImageId": instance.image_id(),
        "LaunchTime": instance.launch_time().and_then(|t| t.fmt(DateTimeFormat::DateTime).ok()),
        "KeyName": instance.key_name(),
        "UserData": user_data.map(fingerprint),
        "MetadataTokens": instance.metadata_options().and_then(|o| o.http_tokens()).map(|t| t.as_str()),
        "Region": target.region,
        "AvailabilityZone": instance.placement().and_then(|p| p.availability_zone()),
        "VpcIds": vpcs,
        "SubnetIds": subnets,
        "PrivateIpAddresses": private_addresses(instance),
        "PublicIpAddress": instance.public_ip_address(),
        "PublicIpAddresses": public_addresses(instance),
        "SecurityGroups": groups,
        "Volumes": volumes,
        "InstanceProfileArn": profile_arn,
        "AutoScalingGroups": membership.iter().flat_map(|found| found.state.keys()).map(|key| &key.resource).collect::<Vec<_>>(),
        "Tags": tags(instance),
    })
}

fn private_addresses(instance: &Instance) -> BTreeSet<&str> {
    let interfaces = || instance.network_interfaces().iter();
    let v4 = interfaces().flat_map(|i| i.private_ip_addresses()).filter_map(|a| a.private_ip_address());
    let v6 = interfaces().flat_map(|i| i.ipv6_addresses()).filter_map(|a| a.ipv6_address());
    instance.private_ip_address().into_iter().chain(v4).chain(v6).take(ENTRIES_AT_MOST).collect()
}

/// Every address has its own, and an Elastic IP on a second interface is not the instance's.
fn public_addresses(instance: &Instance) -> BTreeSet<&str> {
    let addresses = instance.network_interfaces().iter().flat_map(|i| i.private_ip_addresses());
    let public = addresses.filter_map(|a| a.association()?.public_ip());
    instance.public_ip_address().into_iter().chain(public).take(ENTRIES_AT_MOST).collect()
}

/// User data may hold secrets and is in the evidence whole: here is only what tells it from another.
fn fingerprint(base64: &str) -> Value {
    let text: String = base64.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = BASE64_STANDARD.decode(&text).unwrap_or_else(|_| text.into_bytes());
    match bytes.is_empty() {
        true => json!({ "Present": false }),
        false => json!({ "Present": true, "Bytes": bytes.len(), "Sha256": custody::sha256(&bytes) }),
    }
}

fn tags(instance: &Instance) -> BTreeMap<String, String> {
    let pairs = instance.tags().iter().filter_map(|t| Some((t.key()?, t.value().unwrap_or_default())));
    let shown = |text: &str| match text.char_indices().nth(TAG_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    let mut tags: BTreeMap<String, String> =
        pairs.take(TAGS_AT_MOST).map(|(key, value)| (shown(key), shown(value))).collect();
    let more = instance.tags().len().saturating_sub(TAGS_AT_MOST);
    if more > 0 {
        tags.insert("…".to_owned(), format!("and {more} more, in the evidence"));
    }
    tags
}
