//! Stores what surrounds the instance: its security groups with their rules, subnets, routes and network ACLs.
//!
//! Containment changes none of it, so it is read beside the fast path and does not hold it up.

use std::collections::BTreeSet;

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, NetworkAcl, NetworkInterface, RouteTable, SecurityGroup, SecurityGroupRule, Subnet};
use containment::{Error, First, Journal, Outcome, Result, Status, Target};
use evidence::Bucket;
use evidence::Recorder;
use futures::FutureExt;
use serde_json::{Value, json};

/// The step's name.
pub const NAME: &str = "describe-network";

/// The step whose journal has the interfaces' first groups: it may be changing them at this moment.
const ISOLATION: &str = "isolate-network";

/// Reads the surroundings and stores AWS's replies in the evidence bucket. Changes nothing; a dry run stores nothing.
pub async fn describe_network(
    aws: &SdkConfig,
    journal: &impl Journal,
    bucket: &Bucket,
    target: &Target,
) -> Result<Outcome> {
    let recorder = Recorder::default();
    let config = aws_sdk_ec2::config::Builder::from(aws).interceptor(recorder.clone()).build();
    let first = journal.read(target, ISOLATION).await?.first;
    read(&Client::from_conf(config), target, &first).await?;
    if target.dry_run {
        return Ok(Outcome::new(NAME, Status::Done, "read; a dry run stores nothing".to_owned()));
    }
    let evidence = json!({ "Target": target, "Replies": recorder.replies() });
    let entry = bucket.put(target, NAME, &evidence).await?;
    evidence::enter(journal, target, &entry).await?;
    let pointer = entry.pointer;
    Ok(Outcome::new(NAME, Status::Done, format!("stored as s3://{}/{}", pointer.bucket, pointer.key)))
}

fn one_of(name: &str, values: impl IntoIterator<Item = String>) -> Filter {
    Filter::builder().name(name).set_values(Some(values.into_iter().collect())).build()
}

async fn read(ec2: &Client, target: &Target, first: &First) -> Result<()> {
    let interfaces = instance::interfaces(ec2, target).await?;
    let all = |of: fn(&NetworkInterface) -> Option<&str>| -> BTreeSet<String> {
        interfaces.iter().filter_map(of).map(ToOwned::to_owned).collect()
    };
    let (vpcs, subnets) = (all(NetworkInterface::vpc_id), all(NetworkInterface::subnet_id));
    let now = interfaces.iter().flat_map(|i| i.groups()).filter_map(|g| g.group_id());
    let before = first.values().flat_map(|groups| groups.as_array().into_iter().flatten().filter_map(Value::as_str));
    let groups: BTreeSet<String> =
        now.chain(before).filter(|id| id.starts_with("sg-")).map(ToOwned::to_owned).collect();
    if vpcs.is_empty() || groups.is_empty() {
        return Err(Error::NotFound(format!("interfaces of {} not found", target.instance_id)));
    }
    let on = &target.instance_id;
    let groups_read = async {
        let pages =
            ec2.describe_security_groups().filters(one_of("group-id", groups.clone())).into_paginator().items().send();
        let read: std::result::Result<Vec<SecurityGroup>, _> = pages.try_collect().await;
        read.map_err(Error::aws("ec2:DescribeSecurityGroups", on))
    };
    let rules_read = async {
        let pages = ec2
            .describe_security_group_rules()
            .filters(one_of("group-id", groups.clone()))
            .into_paginator()
            .items()
            .send();
        let read: std::result::Result<Vec<SecurityGroupRule>, _> = pages.try_collect().await;
        read.map_err(Error::aws("ec2:DescribeSecurityGroupRules", on))
    };
    let subnets_read = async {
        let pages =
            ec2.describe_subnets().filters(one_of("subnet-id", subnets.clone())).into_paginator().items().send();
        let read: std::result::Result<Vec<Subnet>, _> = pages.try_collect().await;
        read.map_err(Error::aws("ec2:DescribeSubnets", on))
    };
    let routes_read = async {
        let pages = ec2.describe_route_tables().filters(one_of("vpc-id", vpcs.clone())).into_paginator().items().send();
        let read: std::result::Result<Vec<RouteTable>, _> = pages.try_collect().await;
        read.map_err(Error::aws("ec2:DescribeRouteTables", on))
    };
    let acls_read = async {
        let pages = ec2
            .describe_network_acls()
            .filters(one_of("association.subnet-id", subnets.clone()))
            .into_paginator()
            .items()
            .send();
        let read: std::result::Result<Vec<NetworkAcl>, _> = pages.try_collect().await;
        read.map_err(Error::aws("ec2:DescribeNetworkAcls", on))
    };
    futures::try_join!(groups_read, rules_read, subnets_read, routes_read, acls_read).map(|_| ())
}

/// The function: a target in, an outcome out.
pub async fn handle(aws: &runtime::Aws, event: Value) -> Result<Outcome> {
    let target = Target::parse(event)?;
    let bucket = Bucket::of(aws)?;
    // Boxed, because the whole future's type is too deep for the compiler's default limit.
    let (config, journal) = (aws.of(&target, NAME).await?, aws.case_table()?);
    describe_network(&config, &journal, &bucket, &target).boxed().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::describe_network_acls::DescribeNetworkAclsOutput;
    use aws_sdk_ec2::operation::describe_network_interfaces::DescribeNetworkInterfacesOutput;
    use aws_sdk_ec2::operation::describe_route_tables::DescribeRouteTablesOutput;
    use aws_sdk_ec2::operation::describe_security_group_rules::DescribeSecurityGroupRulesOutput;
    use aws_sdk_ec2::operation::describe_security_groups::DescribeSecurityGroupsOutput;
    use aws_sdk_ec2::operation::describe_subnets::DescribeSubnetsOutput;
    use aws_sdk_ec2::types::GroupIdentifier;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use containment::Key;

    #[tokio::test]
    async fn the_first_groups_are_described_although_the_interface_is_isolated() {
        let interfaces = mock!(Client::describe_network_interfaces).then_output(|| {
            let isolated = GroupIdentifier::builder().group_id("sg-isolation").build();
            let interface = NetworkInterface::builder().vpc_id("vpc-1").subnet_id("subnet-1").groups(isolated).build();
            DescribeNetworkInterfacesOutput::builder().network_interfaces(interface).build()
        });
        let groups = mock!(Client::describe_security_groups)
            .match_requests(|r| r.filters()[0].values() == ["sg-isolation", "sg-web"])
            .then_output(|| DescribeSecurityGroupsOutput::builder().build());
        let rules = mock!(Client::describe_security_group_rules)
            .match_requests(|r| r.filters()[0].values() == ["sg-isolation", "sg-web"])
            .then_output(|| DescribeSecurityGroupRulesOutput::builder().build());
        let subnets = mock!(Client::describe_subnets).then_output(|| DescribeSubnetsOutput::builder().build());
        let routes = mock!(Client::describe_route_tables).then_output(|| DescribeRouteTablesOutput::builder().build());
        let acls = mock!(Client::describe_network_acls).then_output(|| DescribeNetworkAclsOutput::builder().build());
        let all = [&interfaces, &groups, &rules, &subnets, &routes, &acls];
        let event =
            json!({ "AccountId": "123456789012", "Region": "eu-west-1", "InstanceId": "i-0123abcd", "CaseId": "c-1" });
        let target = Target::parse(event).expect("a good event");
        let first: First = [
            (Key::new("eni-1", "Groups"), json!(["sg-web"])),
            (Key::new("vpc-1 cordon-isolation", "Rules"), json!(["ingress tcp 22-22 0.0.0.0/0"])),
        ]
        .into();
        read(&mock_client!(aws_sdk_ec2, RuleMode::MatchAny, all), &target, &first).await.expect("read");
        assert_eq!((groups.num_calls(), acls.num_calls()), (1, 1));
    }
}
