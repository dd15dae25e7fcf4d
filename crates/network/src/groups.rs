//! Finds, makes and repairs Cordon's three security groups, of which a VPC has at most one each.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    Filter, IpPermission, IpRange, Ipv6Range, PrefixListId, ResourceType, SecurityGroup, SecurityGroupRule, Tag,
    TagSpecification,
};
use containment::{Error, Result, Target};
use futures::future::try_join;
use futures::stream::{self, StreamExt};

/// No rule at all, in or out. A name is unique in its VPC, regardless of case (aws-behaviour#group-names).
pub const ISOLATION: &str = "cordon-isolation";
/// All traffic, IPv4 and IPv6, both ways (aws-behaviour#untracked-connections).
pub const CONVERSION: &str = "cordon-conversion";
/// Only tcp/443 out to the VPC's endpoints of Systems Manager and S3, during a capture
/// (aws-behaviour#vpc-endpoints).
pub const CAPTURE: &str = "cordon-capture";

/// All of them.
pub const NAMES: [&str; 3] = [ISOLATION, CONVERSION, CAPTURE];

/// One of Cordon's security groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `sg-…`.
    pub id: String,
    /// Its rules in words, such as `ingress tcp 22-22 0.0.0.0/0`.
    pub rules: BTreeSet<String>,
}

/// The four rules of the conversion group.
pub fn everything() -> BTreeSet<String> {
    let rules = ["egress -1 0.0.0.0/0", "egress -1 ::/0", "ingress -1 0.0.0.0/0", "ingress -1 ::/0"];
    rules.map(ToOwned::to_owned).into()
}

/// The capture group's rule for one address, or for one prefix list (`pl-…`).
pub fn to_endpoint(peer: &str) -> String {
    format!("egress tcp 443-443 {peer}")
}

/// All of Cordon's groups in the Region: (name, VPC, group). A group that another account shares with this one does not
/// count.
pub async fn find(ec2: &Client, account: &str) -> Result<Vec<(&'static str, String, Group)>> {
    let named =
        NAMES.into_iter().fold(Filter::builder().name("group-name"), |f, name| f.values(any_letter(name))).build();
    let pages = ec2.describe_security_groups().filters(named).into_paginator().items().send();
    let found: Vec<SecurityGroup> =
        pages.try_collect().await.map_err(Error::aws("ec2:DescribeSecurityGroups", "Cordon's groups"))?;
    Ok(found
        .iter()
        .filter(|group| group.owner_id().is_none_or(|owner| owner == account))
        .filter_map(named_group)
        .collect())
}

/// Names are unique regardless of case, but filters are case-sensitive (aws-behaviour#group-names): a stranger's group
/// named `Cordon-Isolation` prevents the creation of ours, so Cordon must find and use it.
fn any_letter(name: &str) -> String {
    name.chars().map(|c| if c == '-' { '-' } else { '?' }).collect()
}

fn named_group(group: &SecurityGroup) -> Option<(&'static str, String, Group)> {
    let name = NAMES.into_iter().find(|name| group.group_name().is_some_and(|n| n.eq_ignore_ascii_case(name)))?;
    let ingress = group.ip_permissions().iter().flat_map(|p| in_words("ingress", p));
    let egress = group.ip_permissions_egress().iter().flat_map(|p| in_words("egress", p));
    let id = group.group_id()?.to_owned();
    Some((name, group.vpc_id()?.to_owned(), Group { id, rules: ingress.chain(egress).collect() }))
}

fn in_words(direction: &str, permission: &IpPermission) -> Vec<String> {
    let v4 = permission.ip_ranges().iter().filter_map(|r| r.cidr_ip());
    let v6 = permission.ipv6_ranges().iter().filter_map(|r| r.cidr_ipv6());
    let lists = permission.prefix_list_ids().iter().filter_map(|p| p.prefix_list_id());
    let groups = permission.user_id_group_pairs().iter().filter_map(|g| g.group_id());
    let (protocol, from, to) = (permission.ip_protocol(), permission.from_port(), permission.to_port());
    v4.chain(v6).chain(lists).chain(groups).map(|peer| words(direction, protocol, from, to, peer)).collect()
}

fn words(direction: &str, protocol: Option<&str>, from: Option<i32>, to: Option<i32>, peer: &str) -> String {
    let protocol = protocol.unwrap_or("-1");
    match (from, to) {
        (Some(from), Some(to)) if protocol != "-1" => format!("{direction} {protocol} {from}-{to} {peer}"),
        _ => format!("{direction} {protocol} {peer}"),
    }
}

/// Parses one of Cordon's own rules: whether it is an egress rule, and its permission for EC2.
fn from_words(rule: &str) -> Option<(bool, IpPermission)> {
    let (direction, rest) = rule.split_once(' ')?;
    let (what, peer) = rest.rsplit_once(' ')?;
    let permission = match what.split_once(' ') {
        Some((protocol, ports)) => {
            let (from, to) = ports.split_once('-')?;
            IpPermission::builder().ip_protocol(protocol).from_port(from.parse().ok()?).to_port(to.parse().ok()?)
        }
        None => IpPermission::builder().ip_protocol(what),
    };
    let permission = match peer {
        list if list.starts_with("pl-") => {
            permission.prefix_list_ids(PrefixListId::builder().prefix_list_id(list).build())
        }
        v6 if v6.contains(':') => permission.ipv6_ranges(Ipv6Range::builder().cidr_ipv6(v6).build()),
        v4 => permission.ip_ranges(IpRange::builder().cidr_ip(v4).build()),
    };
    Some((direction == "egress", permission.build()))
}

/// The groups of this many VPCs are made at a time: EC2 refills the tokens of CreateSecurityGroup at 5 a second
/// (aws-behaviour#api-throttling).
const VPCS_AT_ONCE: usize = 5;

/// Makes and verifies the isolation and the conversion group of several VPCs, once for all instances in them: each
/// instance's own run then finds them ready. Answers with the errors of those that could not be made.
pub async fn prepare(ec2: &Client, target: &Target, vpcs: &BTreeSet<String>) -> Vec<Error> {
    let found = match find(ec2, &target.account_id).await {
        Ok(found) => found,
        Err(error) => return vec![error],
    };
    let wanted = vpcs.iter().flat_map(|vpc| [(vpc, ISOLATION, BTreeSet::new()), (vpc, CONVERSION, everything())]);
    let calls = wanted.map(|(vpc, name, rules)| {
        let known = found.iter().find(|(n, v, _)| *n == name && v == vpc).map(|(_, _, group)| group);
        async move { ensure(ec2, target, vpc, name, known, &rules).await.err() }
    });
    let calls: Vec<_> = calls.collect();
    stream::iter(calls).buffer_unordered(2 * VPCS_AT_ONCE).filter_map(std::future::ready).collect().await
}

/// Makes one of Cordon's groups in a VPC, or repairs the rules of an existing one, and reads them back; answers with
/// its id.
///
/// Errors: those of its calls; `NotFound` if EC2 does not show the group's rules, `Conflict` if another call has made
/// the group and EC2 does not show it yet.
pub async fn ensure(
    ec2: &Client,
    target: &Target,
    vpc: &str,
    name: &'static str,
    known: Option<&Group>,
    rules: &BTreeSet<String>,
) -> Result<String> {
    if let Some(group) = known.filter(|group| &group.rules == rules) {
        return Ok(group.id.clone());
    }
    let (id, is_new) = match known {
        Some(group) => (group.id.clone(), false),
        None => (create(ec2, target, vpc, name).await?, true),
    };
    settle_rules(ec2, &id, rules, is_new).await?;
    Ok(id)
}

/// Creates a group; if another call has just taken the name, uses that group (its rules are repaired anyway).
async fn create(ec2: &Client, target: &Target, vpc: &str, name: &'static str) -> Result<String> {
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let tags = TagSpecification::builder()
        .resource_type(ResourceType::SecurityGroup)
        .tags(tag("Name", name))
        .tags(tag("ManagedBy", "Cordon"));
    let purpose = match name {
        ISOLATION => "Cordon: no traffic at all, for contained instances. Do not add rules.",
        CAPTURE => {
            "Cordon: only tcp/443 to endpoints of Systems Manager and S3, for the time of a capture. Do not add rules."
        }
        _ => "Cordon: all traffic, for the seconds before isolation. Do not use.",
    };
    let sent =
        ec2.create_security_group().group_name(name).vpc_id(vpc).description(purpose).tag_specifications(tags.build());
    match sent.send().await.map_err(Error::aws("ec2:CreateSecurityGroup", format!("{name} in {vpc}"))) {
        Ok(reply) => {
            reply.group_id.ok_or_else(|| Error::NotFound(format!("{name} in {vpc} was created without an id")))
        }
        Err(error) if error.code() == Some("InvalidGroup.Duplicate") => {
            let found = find(ec2, &target.account_id).await?;
            let taken = found.into_iter().find(|(n, v, _)| *n == name && v == vpc);
            // Not shown yet (aws-behaviour#eventual-consistency): the workflow asks again.
            taken.map(|(_, _, group)| group.id).ok_or_else(|| Error::Conflict(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// How often a group's rules are read until they are right.
const LOOKS: usize = 7;

/// Repairs a group's rules and reads them back.
///
/// Rules are revoked by id, because a revocation by properties that match nothing is no error in a default VPC
/// (aws-behaviour#revoking-rules). Another containment may repair the same group at the same time; both want the same
/// rules, so the next look sees the other's changes.
///
/// AWS gives a new group a rule that lets everything out, and may not show it at first
/// (aws-behaviour#eventual-consistency): a list without it counts only once that rule has been seen, or after some
/// seconds, or if the group should have it.
async fn settle_rules(ec2: &Client, group: &str, wanted: &BTreeSet<String>, is_new: bool) -> Result<()> {
    let mut seen_a_rule = !is_new || wanted.contains(BY_DEFAULT);
    let mut delay = Duration::from_millis(250);
    let mut failure = None;
    for look in 0..LOOKS {
        // The first look after a change comes at once; later looks wait for AWS to show the change.
        if look > 1 {
            tokio::time::sleep(delay).await;
            delay *= 2;
        }
        let (stale, missing) = match rules(ec2, group).await {
            Ok(rules) => difference(&rules, wanted),
            Err(error) if has_moved(&error) => {
                failure = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        seen_a_rule |= !stale.is_empty();
        if !seen_a_rule && look < 4 {
            continue;
        }
        if stale.is_empty() && missing.is_empty() {
            return Ok(());
        }
        match try_join(revoke(ec2, group, &stale), authorize(ec2, group, &missing)).await {
            Err(error) if !has_moved(&error) => return Err(error),
            result => failure = result.err(),
        }
    }
    Err(failure.unwrap_or_else(|| Error::NotFound(format!("{group} still lacks the right rules"))))
}

/// The rule that AWS gives a new group.
const BY_DEFAULT: &str = "egress -1 0.0.0.0/0";

/// Whether the group or its rules have changed since they were read: not shown yet
/// (aws-behaviour#eventual-consistency), or changed by another execution.
fn has_moved(error: &Error) -> bool {
    let moved = ["InvalidGroup.NotFound", "InvalidPermission", "InvalidSecurityGroupRuleId"];
    error.code().is_some_and(|code| moved.iter().any(|start| code.starts_with(start)))
}

async fn rules(ec2: &Client, group: &str) -> Result<Vec<SecurityGroupRule>> {
    let of_group = Filter::builder().name("group-id").values(group).build();
    let pages = ec2.describe_security_group_rules().filters(of_group).into_paginator().items().send();
    pages.try_collect().await.map_err(Error::aws("ec2:DescribeSecurityGroupRules", group))
}

/// The rules to revoke (whether egress, and the id), and the rules to authorize.
fn difference(rules: &[SecurityGroupRule], wanted: &BTreeSet<String>) -> (Vec<(bool, String)>, BTreeSet<String>) {
    let (mut missing, mut stale) = (wanted.clone(), Vec::new());
    for rule in rules {
        let is_wanted = rule_in_words(rule).is_some_and(|words| missing.remove(&words));
        if !is_wanted && let Some(id) = rule.security_group_rule_id() {
            stale.push((rule.is_egress().unwrap_or(false), id.to_owned()));
        }
    }
    (stale, missing)
}

fn rule_in_words(rule: &SecurityGroupRule) -> Option<String> {
    let direction = if rule.is_egress().unwrap_or(false) { "egress" } else { "ingress" };
    let group = rule.referenced_group_info().and_then(|group| group.group_id());
    let peer = rule.cidr_ipv4().or(rule.cidr_ipv6()).or(rule.prefix_list_id()).or(group)?;
    Some(words(direction, rule.ip_protocol(), rule.from_port(), rule.to_port(), peer))
}

async fn revoke(ec2: &Client, group: &str, stale: &[(bool, String)]) -> Result<()> {
    let ids = |egress: bool| -> Vec<String> {
        stale.iter().filter(|(direction, _)| *direction == egress).map(|(_, id)| id.clone()).collect()
    };
    if !ids(false).is_empty() {
        let call = ec2.revoke_security_group_ingress().group_id(group).set_security_group_rule_ids(Some(ids(false)));
        call.send().await.map_err(Error::aws("ec2:RevokeSecurityGroupIngress", group))?;
    }
    if !ids(true).is_empty() {
        let call = ec2.revoke_security_group_egress().group_id(group).set_security_group_rule_ids(Some(ids(true)));
        call.send().await.map_err(Error::aws("ec2:RevokeSecurityGroupEgress", group))?;
    }
    Ok(())
}

async fn authorize(ec2: &Client, group: &str, missing: &BTreeSet<String>) -> Result<()> {
    let permissions = |egress: bool| -> Vec<IpPermission> {
        let rules = missing.iter().filter_map(|rule| from_words(rule));
        rules.filter(|(direction, _)| *direction == egress).map(|(_, permission)| permission).collect()
    };
    let ingress = async {
        let permissions = Some(permissions(false)).filter(|p| !p.is_empty());
        let Some(permissions) = permissions else { return Ok(()) };
        let call = ec2.authorize_security_group_ingress().group_id(group).set_ip_permissions(Some(permissions));
        call.send().await.map(|_| ()).map_err(Error::aws("ec2:AuthorizeSecurityGroupIngress", group))
    };
    let egress = async {
        let permissions = Some(permissions(true)).filter(|p| !p.is_empty());
        let Some(permissions) = permissions else { return Ok(()) };
        let call = ec2.authorize_security_group_egress().group_id(group).set_ip_permissions(Some(permissions));
        call.send().await.map(|_| ()).map_err(Error::aws("ec2:AuthorizeSecurityGroupEgress", group))
    };
    try_join(ingress, egress).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::create_security_group::CreateSecurityGroupError;
    use aws_sdk_ec2::operation::describe_security_groups::DescribeSecurityGroupsOutput;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    #[tokio::test]
    async fn a_group_whose_name_differs_only_in_case_is_found() {
        let theirs = mock!(Client::describe_security_groups)
            .match_requests(|r| r.filters()[0].values() == ["??????-?????????", "??????-??????????", "??????-???????"])
            .then_output(|| {
                let group =
                    |name: &str| SecurityGroup::builder().group_name(name).vpc_id("vpc-a").group_id("sg-1").build();
                let groups = [group("Cordon-ISOLATION"), group("sneaky-isolation")];
                DescribeSecurityGroupsOutput::builder().set_security_groups(Some(groups.into())).build()
            });
        let client = mock_client!(aws_sdk_ec2, [&theirs]);
        let found = find(&client, "123456789012").await.expect("found");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, ISOLATION);
    }

    #[tokio::test]
    async fn a_fleets_groups_are_listed_once_and_made_only_if_they_are_missing() {
        let found = mock!(Client::describe_security_groups).then_output(|| {
            let of = |name: &str, id: &str| SecurityGroup::builder().group_name(name).vpc_id("vpc-a").group_id(id);
            let v4 =
                IpPermission::builder().ip_protocol("-1").ip_ranges(IpRange::builder().cidr_ip("0.0.0.0/0").build());
            let all = v4.ipv6_ranges(aws_sdk_ec2::types::Ipv6Range::builder().cidr_ipv6("::/0").build()).build();
            let conversion = of(CONVERSION, "sg-con").ip_permissions(all.clone()).ip_permissions_egress(all);
            DescribeSecurityGroupsOutput::builder()
                .set_security_groups(Some(vec![of(ISOLATION, "sg-iso").build(), conversion.build()]))
                .build()
        });
        let denied =
            mock!(Client::create_security_group).match_requests(|r| r.vpc_id() == Some("vpc-b")).then_error(|| {
                let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("UnauthorizedOperation").build();
                CreateSecurityGroupError::generic(meta)
            });
        let ec2 = mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&found, &denied]);
        let vpcs = ["vpc-a", "vpc-b"].map(ToOwned::to_owned).into();
        let problems = prepare(&ec2, &Target::example(), &vpcs).await;
        assert_eq!((found.num_calls(), denied.num_calls(), problems.len()), (1, 2, 2));
        assert!(problems.iter().all(|problem| problem.to_string().contains("in vpc-b")), "{problems:?}");
    }
}
