use std::time::Duration;

use super::*;
use crate::cut::CONVERSION_STAYS;
use aws_sdk_ec2::operation::create_security_group::{CreateSecurityGroupError, CreateSecurityGroupOutput};
use aws_sdk_ec2::operation::describe_network_interfaces::DescribeNetworkInterfacesOutput;
use aws_sdk_ec2::operation::describe_route_tables::DescribeRouteTablesOutput;
use aws_sdk_ec2::operation::describe_security_group_rules::DescribeSecurityGroupRulesOutput;
use aws_sdk_ec2::operation::describe_security_groups::DescribeSecurityGroupsOutput;
use aws_sdk_ec2::operation::modify_network_interface_attribute::{
    ModifyNetworkInterfaceAttributeError, ModifyNetworkInterfaceAttributeOutput,
};
use aws_sdk_ec2::operation::revoke_security_group_egress::RevokeSecurityGroupEgressOutput;
use aws_sdk_ec2::types::{GroupIdentifier, IpPermission, IpRange, NetworkInterface, SecurityGroup, SecurityGroupRule};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

fn target() -> Target {
    Target::example()
}

fn step(rules: &[&Rule]) -> IsolateNetwork {
    IsolateNetwork::with_client(mock_client!(aws_sdk_ec2, RuleMode::MatchAny, rules))
}

fn set(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|v| (*v).to_owned()).collect()
}

/// Interfaces as (id, VPC, groups), in VPCs that have both of Cordon's groups, rules as they should be.
fn found(interfaces: &[(&str, &str, &[&str])]) -> Found<BTreeSet<String>, Facts> {
    let mut found = Found { state: State::new(), facts: Facts::default() };
    for (id, vpc, groups) in interfaces {
        let interface = Interface { vpc: (*vpc).into(), subnet: "subnet-1".into(), ..Interface::default() };
        found.facts.interfaces.insert((*id).into(), interface);
        found.state.insert(Key::new(*id, GROUPS), set(groups));
        let isolation = Group { id: format!("sg-iso-{vpc}"), rules: BTreeSet::new() };
        let conversion = Group { id: format!("sg-con-{vpc}"), rules: everything() };
        found.state.insert(rules_key(vpc, ISOLATION), isolation.rules.clone());
        found.state.insert(rules_key(vpc, CONVERSION), conversion.rules.clone());
        found.facts.isolation.insert((*vpc).into(), isolation);
        found.facts.conversion.insert((*vpc).into(), conversion);
    }
    found
}

#[test]
fn every_interface_ends_on_the_isolation_group_of_its_own_vpc() {
    let found = found(&[("eni-1", "vpc-a", &["sg-web"]), ("eni-2", "vpc-b", &["sg-x", "sg-y"])]);
    let goal = step(&[]).contained(&target(), &found, &Journaled::default());
    assert_eq!(goal.state[&Key::new("eni-1", GROUPS)], set(&["sg-iso-vpc-a"]));
    assert_eq!(goal.state[&Key::new("eni-2", GROUPS)], set(&["sg-iso-vpc-b"]));
}

#[test]
fn what_is_contained_stays_as_it_is() {
    let found = found(&[("eni-1", "vpc-a", &["sg-iso-vpc-a"])]);
    assert_eq!(step(&[]).contained(&target(), &found, &Journaled::default()).state, found.state);
}

#[test]
fn a_rule_that_was_added_to_the_isolation_group_is_not_part_of_the_goal() {
    let mut found = found(&[("eni-1", "vpc-a", &["sg-iso-vpc-a"])]);
    found.state.insert(rules_key("vpc-a", ISOLATION), set(&["ingress tcp 22-22 0.0.0.0/0"]));
    let goal = step(&[]).contained(&target(), &found, &Journaled::default());
    assert_eq!(goal.state[&rules_key("vpc-a", ISOLATION)], BTreeSet::new());
}

#[test]
fn a_new_vpc_is_to_get_both_groups() {
    let mut found = found(&[("eni-1", "vpc-a", &["sg-web"])]);
    found.state.retain(|key, _| key.attribute == GROUPS);
    (found.facts.isolation, found.facts.conversion) = Default::default();
    let goal = step(&[]).contained(&target(), &found, &Journaled::default());
    assert_eq!(goal.state[&rules_key("vpc-a", ISOLATION)], BTreeSet::new());
    assert_eq!(goal.state[&rules_key("vpc-a", CONVERSION)], everything());
}

#[test]
fn an_interface_that_aws_manages_is_unsupported_and_left_alone() {
    let mut found = found(&[("eni-1", "vpc-a", &["sg-web"])]);
    found.facts.interfaces.get_mut("eni-1").expect("there").managed_by = Some("amazon-eks".into());
    let goal = step(&[]).contained(&target(), &found, &Journaled::default());
    assert_eq!(goal.state, found.state);
    assert!(goal.unsupported[0].contains("eni-1 is managed by amazon-eks"));
}

#[test]
fn dns_and_imds_are_named_as_residual_risk_even_when_all_is_isolated() {
    let found = found(&[("eni-1", "vpc-a", &["sg-iso-vpc-a"])]);
    let risk = step(&[]).contained(&target(), &found, &Journaled::default()).residual_risk.join(" ");
    assert!(risk.contains("DNS") && risk.contains("metadata"));
}

#[tokio::test]
async fn interfaces_groups_and_drifted_rules_are_read_as_aws_has_them() {
    let interfaces = mock!(Client::describe_network_interfaces).then_output(|| {
        let interface = NetworkInterface::builder()
            .network_interface_id("eni-1")
            .vpc_id("vpc-a")
            .subnet_id("subnet-1")
            .groups(GroupIdentifier::builder().group_id("sg-iso").build());
        DescribeNetworkInterfacesOutput::builder().network_interfaces(interface.build()).build()
    });
    let groups = mock!(Client::describe_security_groups).then_output(|| {
        let ssh = IpPermission::builder().ip_protocol("tcp").from_port(22).to_port(22);
        let ssh = ssh.ip_ranges(IpRange::builder().cidr_ip("0.0.0.0/0").build()).build();
        let group = |owner: &str, vpc: &str, id: &str| {
            SecurityGroup::builder()
                .owner_id(owner)
                .vpc_id(vpc)
                .group_id(id)
                .group_name(ISOLATION)
                .ip_permissions(ssh.clone())
                .build()
        };
        DescribeSecurityGroupsOutput::builder()
            .security_groups(group("123456789012", "vpc-a", "sg-iso"))
            .security_groups(group("999999999999", "vpc-a", "sg-shared-by-a-stranger"))
            .security_groups(group("123456789012", "vpc-of-others", "sg-other"))
            .build()
    });
    let found = step(&[&interfaces, &groups]).read(&target()).await.expect("read");
    assert_eq!(found.state[&rules_key("vpc-a", ISOLATION)], set(&["ingress tcp 22-22 0.0.0.0/0"]));
    assert_eq!(found.facts.isolation["vpc-a"].id, "sg-iso");
    assert_eq!(found.state.len(), 2, "a VPC without an interface of the instance does not matter");
}

#[tokio::test]
async fn an_instance_without_interfaces_is_an_error_and_never_contained() {
    let none =
        mock!(Client::describe_network_interfaces).then_output(|| DescribeNetworkInterfacesOutput::builder().build());
    let groups =
        mock!(Client::describe_security_groups).then_output(|| DescribeSecurityGroupsOutput::builder().build());
    assert_eq!(step(&[&none, &groups]).read(&target()).await.expect_err("empty").name(), "NotFound");
}

/// The interface as it is now, on this group.
fn shows(group: &'static str) -> Rule {
    mock!(Client::describe_network_interfaces).then_output(move || {
        let groups = GroupIdentifier::builder().group_id(group).build();
        let interface = NetworkInterface::builder().network_interface_id("eni-1").groups(groups).build();
        DescribeNetworkInterfacesOutput::builder().network_interfaces(interface).build()
    })
}

fn modified() -> Rule {
    mock!(Client::modify_network_interface_attribute)
        .then_output(|| ModifyNetworkInterfaceAttributeOutput::builder().build())
}

fn routes() -> Rule {
    mock!(Client::describe_route_tables).then_output(|| DescribeRouteTablesOutput::builder().build())
}

fn modifies(group: &'static str) -> Rule {
    mock!(Client::modify_network_interface_attribute)
        .match_requests(move |r| r.groups() == [group.to_owned()])
        .then_output(|| ModifyNetworkInterfaceAttributeOutput::builder().build())
}

#[tokio::test(start_paused = true)]
async fn conversion_comes_first_stays_a_moment_and_isolation_follows() {
    let (conversion, isolation, routes) = (modifies("sg-con-vpc-a"), modifies("sg-iso-vpc-a"), routes());
    let found = found(&[("eni-1", "vpc-a", &["sg-web"])]);
    let client = mock_client!(aws_sdk_ec2, RuleMode::Sequential, [&conversion, &isolation, &routes]);
    let step = IsolateNetwork::with_client(client);
    let goal = step.contained(&target(), &found, &Journaled::default());
    let started = tokio::time::Instant::now();
    let writes = step.write(&target(), &found, &goal.state).await;
    assert!(writes.failures.is_empty());
    assert_eq!((conversion.num_calls(), isolation.num_calls()), (1, 1));
    assert!(started.elapsed() >= CONVERSION_STAYS);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_killed_on_the_conversion_group_goes_forward_to_isolation() {
    let (modified, routes) = (modifies("sg-iso-vpc-a"), routes());
    let found = found(&[("eni-1", "vpc-a", &["sg-con-vpc-a"])]);
    let step = step(&[&modified, &routes]);
    let goal = step.contained(&target(), &found, &Journaled::default());
    assert!(step.write(&target(), &found, &goal.state).await.failures.is_empty());
    assert_eq!(modified.num_calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_conversion_that_fails_does_not_keep_the_interface_from_being_isolated() {
    let refused = mock!(Client::modify_network_interface_attribute)
        .match_requests(|r| r.groups() == ["sg-con-vpc-a".to_owned()])
        .then_error(|| {
            let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("InvalidGroup.NotFound").build();
            ModifyNetworkInterfaceAttributeError::generic(meta)
        });
    let (isolation, routes) = (modifies("sg-iso-vpc-a"), routes());
    let found = found(&[("eni-1", "vpc-a", &["sg-web"])]);
    let step = step(&[&refused, &isolation, &routes]);
    let goal = step.contained(&target(), &found, &Journaled::default());
    let writes = step.write(&target(), &found, &goal.state).await;
    assert!(writes.failures.is_empty());
    assert_eq!(isolation.num_calls(), 1);
    assert!(writes.residual_risk[0].contains("open connections may go on"));
}

/// An interface on an isolation group that lets everything out.
fn drifted() -> Found<BTreeSet<String>, Facts> {
    let mut found = found(&[("eni-1", "vpc-a", &["sg-iso-vpc-a"])]);
    found.facts.isolation.get_mut("vpc-a").expect("there").rules = set(&["egress -1 0.0.0.0/0"]);
    found.state.insert(rules_key("vpc-a", ISOLATION), set(&["egress -1 0.0.0.0/0"]));
    found
}

/// That rule, as the first look shows it; the second shows none.
fn one_rule_and_then_none() -> Rule {
    mock!(Client::describe_security_group_rules)
        .sequence()
        .output(|| {
            let rule = SecurityGroupRule::builder().security_group_rule_id("sgr-1").is_egress(true).ip_protocol("-1");
            DescribeSecurityGroupRulesOutput::builder()
                .security_group_rules(rule.cidr_ipv4("0.0.0.0/0").build())
                .build()
        })
        .output(|| DescribeSecurityGroupRulesOutput::builder().build())
        .build()
}

#[tokio::test(start_paused = true)]
async fn a_drifted_isolation_group_is_emptied_by_rule_id_before_anything_is_put_on_it() {
    let found = drifted();
    let rules = one_rule_and_then_none();
    let revoked = mock!(Client::revoke_security_group_egress)
        .match_requests(|r| r.security_group_rule_ids() == ["sgr-1".to_owned()])
        .then_output(|| RevokeSecurityGroupEgressOutput::builder().build());
    let (conversion, isolation, routes) = (modifies("sg-con-vpc-a"), modifies("sg-iso-vpc-a"), routes());
    let step = step(&[&rules, &revoked, &conversion, &isolation, &routes]);
    let goal = step.contained(&target(), &found, &Journaled::default());
    let writes = step.write(&target(), &found, &goal.state).await;
    assert!(writes.failures.is_empty());
    assert!(writes.residual_risk[0].contains("cordon-isolation in vpc-a had rules"));
    assert_eq!(revoked.num_calls(), 1);
    assert_eq!((conversion.num_calls(), isolation.num_calls()), (1, 1), "what came in through the rule is cut as well");
}

#[tokio::test(start_paused = true)]
async fn another_containment_that_settles_the_same_group_first_is_no_failure() {
    let found = drifted();
    let rules = one_rule_and_then_none();
    let gone = mock!(Client::revoke_security_group_egress).then_error(|| {
        let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("InvalidPermission.NotFound").build();
        aws_sdk_ec2::operation::revoke_security_group_egress::RevokeSecurityGroupEgressError::generic(meta)
    });
    let (modified, routes) = (modified(), routes());
    let step = step(&[&rules, &gone, &modified, &routes]);
    let goal = step.contained(&target(), &found, &Journaled::default());
    assert!(step.write(&target(), &found, &goal.state).await.failures.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_somebody_took_first_is_used_after_its_rules_are_gone() {
    let mut found = found(&[("eni-1", "vpc-a", &["sg-con-vpc-a"])]);
    found.facts.isolation.clear();
    found.state.remove(&rules_key("vpc-a", ISOLATION));
    let taken = mock!(Client::create_security_group).then_error(|| {
        let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("InvalidGroup.Duplicate").build();
        CreateSecurityGroupError::generic(meta)
    });
    let theirs = mock!(Client::describe_security_groups).then_output(|| {
        let group = SecurityGroup::builder().group_name(ISOLATION).vpc_id("vpc-a").group_id("sg-theirs").build();
        DescribeSecurityGroupsOutput::builder().security_groups(group).build()
    });
    let rules = mock!(Client::describe_security_group_rules)
        .then_output(|| DescribeSecurityGroupRulesOutput::builder().build());
    let (isolated, routes) = (modifies("sg-theirs"), routes());
    let step = step(&[&taken, &theirs, &rules, &isolated, &routes]);
    let goal = step.contained(&target(), &found, &Journaled::default());
    assert!(step.write(&target(), &found, &goal.state).await.failures.is_empty());
    assert_eq!(isolated.num_calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_an_isolation_group_no_interface_is_put_on_the_conversion_group() {
    let mut found = found(&[("eni-1", "vpc-a", &["sg-con-vpc-a"])]);
    found.facts.isolation.clear();
    let created = mock!(Client::create_security_group).then_output(|| CreateSecurityGroupOutput::builder().build());
    let (modified, routes) = (modified(), routes());
    let step = step(&[&created, &modified, &routes]);
    let goal = step.contained(&target(), &found, &Journaled::default());
    let writes = step.write(&target(), &found, &goal.state).await;
    assert_eq!((writes.failures.len(), modified.num_calls()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_cannot_be_isolated_is_not_opened_to_everybody() {
    let mut found = found(&[("eni-1", "vpc-a", &["sg-web"])]);
    found.facts.isolation.clear();
    let refused = mock!(Client::create_security_group).then_error(|| {
        let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("SecurityGroupLimitExceeded").build();
        CreateSecurityGroupError::generic(meta)
    });
    let (modified, routes) = (modified(), routes());
    let step = step(&[&refused, &modified, &routes]);
    let goal = step.contained(&target(), &found, &Journaled::default());
    let writes = step.write(&target(), &found, &goal.state).await;
    assert_eq!((writes.failures.len(), modified.num_calls()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_refuses_the_isolation_group_does_not_stay_on_the_conversion_group() {
    let refused = mock!(Client::modify_network_interface_attribute)
        .match_requests(|r| r.groups() == ["sg-iso-vpc-a".to_owned()])
        .then_error(|| {
            let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("InvalidParameterValue").build();
            ModifyNetworkInterfaceAttributeError::generic(meta)
        });
    let (conversion, restored, routes) = (modifies("sg-con-vpc-a"), modifies("sg-web"), routes());
    let still_open = shows("sg-con-vpc-a");
    let found = found(&[("eni-1", "vpc-a", &["sg-web"])]);
    let step = step(&[&conversion, &refused, &restored, &routes, &still_open]);
    let goal = step.contained(&target(), &found, &Journaled::default());
    let writes = step.write(&target(), &found, &goal.state).await;
    assert_eq!((writes.failures.len(), refused.num_calls(), restored.num_calls()), (1, 4, 1));
}

#[tokio::test(start_paused = true)]
async fn an_interface_on_a_conversion_group_with_other_rules_is_converted_first() {
    let mut found = found(&[("eni-1", "vpc-a", &["sg-con-vpc-a"])]);
    let narrow = set(&["egress tcp 443-443 198.51.100.7/32"]);
    found.facts.conversion.get_mut("vpc-a").expect("there").rules = narrow.clone();
    found.state.insert(rules_key("vpc-a", CONVERSION), narrow);
    assert_eq!(Standing::of(&found, "eni-1"), Standing::Open);
    let goal = step(&[]).contained(&target(), &found, &Journaled::default());
    assert_eq!(goal.state[&rules_key("vpc-a", CONVERSION)], everything());
}

#[test]
fn a_trunk_is_not_called_isolated() {
    let mut found = found(&[("eni-1", "vpc-a", &["sg-iso-vpc-a"])]);
    found.facts.interfaces.get_mut("eni-1").expect("there").kind = "trunk".into();
    assert!(step(&[]).contained(&target(), &found, &Journaled::default()).unsupported[0].contains("branch interfaces"));
}

#[tokio::test(start_paused = true)]
async fn a_new_group_is_not_believed_to_be_empty_before_its_default_rule_has_been_seen() {
    let mut found = found(&[("eni-1", "vpc-a", &["sg-con-vpc-a"])]);
    found.facts.isolation.clear();
    found.state.remove(&rules_key("vpc-a", ISOLATION));
    let created = mock!(Client::create_security_group)
        .then_output(|| CreateSecurityGroupOutput::builder().group_id("sg-new").build());
    let late = mock!(Client::describe_security_group_rules)
        .sequence()
        .output(|| DescribeSecurityGroupRulesOutput::builder().build())
        .output(|| {
            let rule = SecurityGroupRule::builder().security_group_rule_id("sgr-1").is_egress(true).ip_protocol("-1");
            DescribeSecurityGroupRulesOutput::builder()
                .security_group_rules(rule.cidr_ipv4("0.0.0.0/0").build())
                .build()
        })
        .output(|| DescribeSecurityGroupRulesOutput::builder().build())
        .build();
    let revoked =
        mock!(Client::revoke_security_group_egress).then_output(|| RevokeSecurityGroupEgressOutput::builder().build());
    let (isolated, routes) = (modifies("sg-new"), routes());
    let step = step(&[&created, &late, &revoked, &isolated, &routes]);
    let goal = step.contained(&target(), &found, &Journaled::default());
    assert!(step.write(&target(), &found, &goal.state).await.failures.is_empty());
    assert_eq!((revoked.num_calls(), isolated.num_calls()), (1, 1));
}

const TO_SSM: &str = "egress tcp 443-443 10.0.9.1/32";

fn with_window() -> Target {
    Target { capture_window: true, ..Target::example() }
}

/// Gives every interface a usable window, and its VPC a capture group with these rules, if any.
fn with_ways(mut found: Found<BTreeSet<String>, Facts>, capture: Option<&[&str]>) -> Found<BTreeSet<String>, Facts> {
    let interfaces = found.facts.interfaces.clone();
    for (id, interface) in interfaces {
        found.facts.windows.insert(id, Window { rules: set(&[TO_SSM]), obstacles: Vec::new() });
        if let Some(rules) = capture {
            let group = Group { id: format!("sg-cap-{}", interface.vpc), rules: set(rules) };
            found.state.insert(rules_key(&interface.vpc, CAPTURE), group.rules.clone());
            found.facts.capture.insert(interface.vpc, group);
        }
    }
    found
}

#[test]
fn with_a_window_an_interface_ends_on_the_capture_group_and_the_outcome_says_what_is_open() {
    let found = with_ways(found(&[("eni-1", "vpc-a", &["sg-web"])]), None);
    let goal = step(&[]).contained(&with_window(), &found, &Journaled::default());
    assert_eq!(goal.state[&Key::new("eni-1", GROUPS)], set(&[CAPTURE]), "a group that has no id yet");
    assert_eq!(goal.state[&rules_key("vpc-a", CAPTURE)], set(&[TO_SSM]));
    assert_eq!(goal.state[&rules_key("vpc-a", ISOLATION)], BTreeSet::new());
    let risk = goal.residual_risk.join(" ");
    assert!(risk.contains("until the capture ends, eni-1 can reach tcp/443") && risk.contains("10.0.9.1/32"), "{risk}");
    assert!(risk.contains("endpoints' policies"), "{risk}");
}

#[test]
fn an_open_window_is_a_fixed_point_and_so_is_a_closed_one() {
    let open = with_ways(found(&[("eni-1", "vpc-a", &["sg-cap-vpc-a"])]), Some(&[TO_SSM]));
    assert_eq!(step(&[]).contained(&with_window(), &open, &Journaled::default()).state, open.state);
    let closed = with_ways(found(&[("eni-1", "vpc-a", &["sg-iso-vpc-a"])]), Some(&[TO_SSM]));
    assert_eq!(step(&[]).contained(&target(), &closed, &Journaled::default()).state, closed.state);
}

#[test]
fn a_late_run_does_not_open_a_window_on_an_isolated_interface() {
    let found = with_ways(found(&[("eni-1", "vpc-a", &["sg-iso-vpc-a"])]), Some(&[TO_SSM]));
    let goal = step(&[]).contained(&with_window(), &found, &Journaled::default());
    assert_eq!(goal.state, found.state);
    assert!(goal.residual_risk.iter().any(|r| r.contains("eni-1 is isolated, so no window")));
}

#[test]
fn an_open_window_does_not_count_as_isolated_once_no_window_is_wanted() {
    let found = with_ways(found(&[("eni-1", "vpc-a", &["sg-cap-vpc-a"])]), Some(&[TO_SSM]));
    let goal = step(&[]).contained(&target(), &found, &Journaled::default());
    assert_eq!(goal.state[&Key::new("eni-1", GROUPS)], set(&["sg-iso-vpc-a"]));
    assert_eq!(goal.state[&rules_key("vpc-a", CAPTURE)], set(&[TO_SSM]), "others may have theirs open");
}

#[test]
fn without_a_usable_endpoint_it_is_isolated_at_once_and_a_sentence_says_why() {
    let mut found = with_ways(found(&[("eni-1", "vpc-a", &["sg-web"])]), None);
    found.facts.windows.get_mut("eni-1").expect("there").obstacles = vec!["vpc-a has no endpoint for ssm".into()];
    let goal = step(&[]).contained(&with_window(), &found, &Journaled::default());
    assert_eq!(goal.state[&Key::new("eni-1", GROUPS)], set(&["sg-iso-vpc-a"]));
    assert!(!goal.state.contains_key(&rules_key("vpc-a", CAPTURE)));
    let risk = goal.residual_risk.join(" ");
    let why = "impossible after its isolation: vpc-a has no endpoint for ssm";
    assert!(risk.contains(why) && risk.contains("CaptureFirst"), "{risk}");
    found.state = goal.state;
    let afterwards = step(&[]).contained(&with_window(), &found, &Journaled::default()).residual_risk.join(" ");
    assert!(afterwards.contains(why), "{afterwards}");
}

#[test]
fn each_interface_has_the_window_of_its_own_vpc() {
    let mut found = with_ways(found(&[("eni-1", "vpc-a", &["sg-web"]), ("eni-2", "vpc-b", &["sg-x"])]), None);
    found.facts.windows.get_mut("eni-2").expect("there").obstacles = vec!["vpc-b has no endpoint for s3".into()];
    let goal = step(&[]).contained(&with_window(), &found, &Journaled::default());
    assert_eq!(goal.state[&Key::new("eni-1", GROUPS)], set(&[CAPTURE]));
    assert_eq!(goal.state[&Key::new("eni-2", GROUPS)], set(&["sg-iso-vpc-b"]));
}

#[test]
fn an_interface_that_aws_manages_gets_no_window() {
    let mut found = with_ways(found(&[("eni-1", "vpc-a", &["sg-web"])]), None);
    found.facts.interfaces.get_mut("eni-1").expect("there").managed_by = Some("amazon-eks".into());
    assert_eq!(step(&[]).contained(&with_window(), &found, &Journaled::default()).state, found.state);
}

#[tokio::test(start_paused = true)]
async fn conversion_comes_before_the_capture_group_as_well() {
    let (conversion, capture, routes) = (modifies("sg-con-vpc-a"), modifies("sg-cap-vpc-a"), routes());
    let found = with_ways(found(&[("eni-1", "vpc-a", &["sg-web"])]), Some(&[TO_SSM]));
    let client = mock_client!(aws_sdk_ec2, RuleMode::Sequential, [&conversion, &capture, &routes]);
    let step = IsolateNetwork::with_client(client);
    let goal = step.contained(&with_window(), &found, &Journaled::default());
    let started = tokio::time::Instant::now();
    assert!(step.write(&with_window(), &found, &goal.state).await.failures.is_empty());
    assert_eq!((conversion.num_calls(), capture.num_calls()), (1, 1));
    assert!(started.elapsed() >= CONVERSION_STAYS);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_killed_on_the_conversion_group_goes_forward_to_the_capture_group() {
    let (capture, routes) = (modifies("sg-cap-vpc-a"), routes());
    let found = with_ways(found(&[("eni-1", "vpc-a", &["sg-con-vpc-a"])]), Some(&[TO_SSM]));
    let step = step(&[&capture, &routes]);
    let goal = step.contained(&with_window(), &found, &Journaled::default());
    assert!(step.write(&with_window(), &found, &goal.state).await.failures.is_empty());
    assert_eq!(capture.num_calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_window_is_closed_without_letting_everybody_in_and_says_what_may_go_on() {
    let (isolation, routes) = (modifies("sg-iso-vpc-a"), routes());
    let found = with_ways(found(&[("eni-1", "vpc-a", &["sg-cap-vpc-a"])]), Some(&[TO_SSM]));
    let step = step(&[&isolation, &routes]);
    let goal = step.contained(&target(), &found, &Journaled::default());
    let started = tokio::time::Instant::now();
    let writes = step.write(&target(), &found, &goal.state).await;
    assert!(writes.failures.is_empty());
    assert_eq!((isolation.num_calls(), started.elapsed()), (1, Duration::ZERO));
    let risk = writes.residual_risk.join(" ");
    assert!(risk.contains("open through the capture window") && risk.contains("10.0.9.1/32"), "{risk}");
}

#[tokio::test(start_paused = true)]
async fn a_window_that_leads_elsewhere_is_closed_like_any_other_group() {
    let elsewhere = "egress tcp 443-443 198.51.100.7/32";
    let open = || found(&[("eni-1", "vpc-a", &["sg-cap-vpc-a"])]);
    let widened = with_ways(open(), Some(&[TO_SSM, elsewhere]));
    let mut unread = with_ways(open(), Some(&[TO_SSM]));
    unread.facts.windows.get_mut("eni-1").expect("there").rules.clear();
    for found in [widened, unread] {
        let (conversion, isolation, routes) = (modifies("sg-con-vpc-a"), modifies("sg-iso-vpc-a"), routes());
        let client = mock_client!(aws_sdk_ec2, RuleMode::Sequential, [&conversion, &isolation, &routes]);
        let step = IsolateNetwork::with_client(client);
        let goal = step.contained(&target(), &found, &Journaled::default());
        assert!(step.write(&target(), &found, &goal.state).await.failures.is_empty());
        assert_eq!((conversion.num_calls(), isolation.num_calls()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drifted_capture_group_is_brought_back_to_its_rules() {
    use aws_sdk_ec2::operation::authorize_security_group_egress::AuthorizeSecurityGroupEgressOutput;
    let found = with_ways(found(&[("eni-1", "vpc-a", &["sg-web"])]), Some(&["egress -1 0.0.0.0/0"]));
    let rule = |id: &str| SecurityGroupRule::builder().security_group_rule_id(id).is_egress(true);
    let drifted = rule("sgr-1").ip_protocol("-1").cidr_ipv4("0.0.0.0/0").build();
    let repaired = rule("sgr-2").ip_protocol("tcp").from_port(443).to_port(443).cidr_ipv4("10.0.9.1/32").build();
    let shows = |rule: SecurityGroupRule| {
        move || DescribeSecurityGroupRulesOutput::builder().security_group_rules(rule.clone()).build()
    };
    let rules =
        mock!(Client::describe_security_group_rules).sequence().output(shows(drifted)).output(shows(repaired)).build();
    let revoked = mock!(Client::revoke_security_group_egress)
        .match_requests(|r| r.security_group_rule_ids() == ["sgr-1".to_owned()])
        .then_output(|| RevokeSecurityGroupEgressOutput::builder().build());
    let authorized = mock!(Client::authorize_security_group_egress)
        .match_requests(|r| {
            let [permission] = r.ip_permissions() else { return false };
            let peer = permission.ip_ranges().first().and_then(|range| range.cidr_ip());
            let ports = (permission.ip_protocol(), permission.from_port(), permission.to_port());
            ports == (Some("tcp"), Some(443), Some(443)) && peer == Some("10.0.9.1/32")
        })
        .then_output(|| AuthorizeSecurityGroupEgressOutput::builder().build());
    let (conversion, capture, routes) = (modifies("sg-con-vpc-a"), modifies("sg-cap-vpc-a"), routes());
    let step = step(&[&rules, &revoked, &authorized, &conversion, &capture, &routes]);
    let goal = step.contained(&with_window(), &found, &Journaled::default());
    let writes = step.write(&with_window(), &found, &goal.state).await;
    assert!(writes.failures.is_empty(), "{:?}", writes.failures);
    assert!(writes.residual_risk[0].contains("cordon-capture in vpc-a had rules"));
    assert_eq!((revoked.num_calls(), authorized.num_calls(), capture.num_calls()), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn without_a_capture_group_the_interface_is_isolated_at_once_and_that_is_no_failure() {
    let found = with_ways(found(&[("eni-1", "vpc-a", &["sg-con-vpc-a"])]), None);
    let refused = mock!(Client::create_security_group).then_error(|| {
        let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("SecurityGroupLimitExceeded").build();
        CreateSecurityGroupError::generic(meta)
    });
    let (isolation, routes) = (modifies("sg-iso-vpc-a"), routes());
    let step = step(&[&refused, &isolation, &routes]);
    let goal = step.contained(&with_window(), &found, &Journaled::default());
    let writes = step.write(&with_window(), &found, &goal.state).await;
    assert!(writes.failures.is_empty());
    assert_eq!(isolation.num_calls(), 1);
    assert!(writes.residual_risk[0].contains("a capture through them is impossible"), "{:?}", writes.residual_risk);
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_refuses_the_capture_group_is_isolated_at_once() {
    let refused = mock!(Client::modify_network_interface_attribute)
        .match_requests(|r| r.groups() == ["sg-cap-vpc-a".to_owned()])
        .then_error(|| {
            let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("InvalidParameterValue").build();
            ModifyNetworkInterfaceAttributeError::generic(meta)
        });
    let (conversion, isolation, routes) = (modifies("sg-con-vpc-a"), modifies("sg-iso-vpc-a"), routes());
    let found = with_ways(found(&[("eni-1", "vpc-a", &["sg-web"])]), Some(&[TO_SSM]));
    let step = step(&[&refused, &conversion, &isolation, &routes]);
    let goal = step.contained(&with_window(), &found, &Journaled::default());
    let writes = step.write(&with_window(), &found, &goal.state).await;
    assert!(writes.failures.is_empty());
    assert_eq!((refused.num_calls(), isolation.num_calls()), (1, 1));
    assert!(writes.residual_risk.iter().any(|r| r.starts_with("eni-1 was isolated at once")));
}

#[tokio::test(start_paused = true)]
async fn without_an_isolation_group_the_capture_group_is_better_than_the_first_groups() {
    let mut found = with_ways(found(&[("eni-1", "vpc-a", &["sg-con-vpc-a"])]), Some(&[TO_SSM]));
    found.facts.isolation.clear();
    let refused = mock!(Client::create_security_group).then_error(|| {
        let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("SecurityGroupLimitExceeded").build();
        CreateSecurityGroupError::generic(meta)
    });
    let (capture, routes) = (modifies("sg-cap-vpc-a"), routes());
    let step = step(&[&refused, &capture, &routes]);
    let goal = step.contained(&with_window(), &found, &Journaled::default());
    let writes = step.write(&with_window(), &found, &goal.state).await;
    assert_eq!((writes.failures.len(), capture.num_calls()), (1, 1));
}

#[tokio::test]
async fn endpoints_are_read_only_where_a_window_is_wanted_or_open() {
    use aws_sdk_ec2::operation::describe_vpc_endpoints::DescribeVpcEndpointsOutput;
    let (interfaces, groups) = (
        shows("sg-web"),
        mock!(Client::describe_security_groups).then_output(|| DescribeSecurityGroupsOutput::builder().build()),
    );
    let endpoints = mock!(Client::describe_vpc_endpoints).then_output(|| DescribeVpcEndpointsOutput::builder().build());
    let step = step(&[&interfaces, &groups, &endpoints]);
    let found = step.read(&target()).await.expect("read");
    assert!(found.facts.windows.is_empty() && endpoints.num_calls() == 0);
    let found = step.read(&with_window()).await.expect("read");
    assert!(!found.facts.windows["eni-1"].obstacles.is_empty() && endpoints.num_calls() == 1);

    let on_capture = shows("sg-cap");
    let capture = mock!(Client::describe_security_groups).then_output(|| {
        let group = SecurityGroup::builder().group_name(CAPTURE).vpc_id("").group_id("sg-cap").build();
        DescribeSecurityGroupsOutput::builder().security_groups(group).build()
    });
    let found = self::step(&[&on_capture, &capture, &endpoints]).read(&target()).await.expect("read");
    assert!(found.facts.windows.contains_key("eni-1") && endpoints.num_calls() == 2);
}

fn first(groups: &[(&str, &[&str])]) -> First {
    groups.iter().map(|(id, groups)| (Key::new(*id, GROUPS), serde_json::json!(groups))).collect()
}

fn with_journaled(mut found: Found<BTreeSet<String>, Facts>, groups: &[&str]) -> Found<BTreeSet<String>, Facts> {
    found.facts.journaled = set(groups);
    found
}

#[tokio::test]
async fn a_release_puts_each_interface_back_in_one_call_and_leaves_cordons_groups_alone() {
    let modified = mock!(Client::modify_network_interface_attribute)
        .match_requests(|r| match r.network_interface_id() {
            Some("eni-1") => r.groups() == ["sg-web"],
            Some("eni-2") => r.groups() == ["sg-x", "sg-y"],
            _ => false,
        })
        .then_output(|| ModifyNetworkInterfaceAttributeOutput::builder().build());
    let step = step(&[&modified]);
    let contained = found(&[("eni-1", "vpc-a", &["sg-iso-vpc-a"]), ("eni-2", "vpc-b", &["sg-con-vpc-b"])]);
    let contained = with_journaled(contained, &["sg-web", "sg-x", "sg-y"]);
    let mut first = first(&[("eni-1", &["sg-web"]), ("eni-2", &["sg-y", "sg-x"])]);
    first.insert(rules_key("vpc-a", ISOLATION), serde_json::json!(["ingress tcp 22-22 0.0.0.0/0"]));
    let released = Target { release: Some(vec!["isolate-network".into()]), ..target() };
    let goal = step.released(&released, &contained, &first);
    assert_eq!(goal.state[&rules_key("vpc-a", ISOLATION)], BTreeSet::new(), "a rule that had drifted in stays out");
    assert!(step.restore(&released, &contained, &goal.state).await.failures.is_empty());
    assert_eq!(modified.num_calls(), 2);
    let again = Found { state: goal.state.clone(), facts: contained.facts };
    assert_eq!(step.released(&released, &again, &first), goal);
}

#[test]
fn an_interface_that_was_put_on_other_groups_since_stays_there_and_the_way_back_is_named() {
    let other = with_journaled(found(&[("eni-1", "vpc-a", &["sg-new"])]), &["sg-web"]);
    let goal = step(&[]).released(&target(), &other, &first(&[("eni-1", &["sg-web"])]));
    assert_eq!(goal.state, other.state);
    let said = &goal.unsupported[0];
    assert!(said.contains("on sg-new since, and it stays there"), "{said}");
    let command =
        "`aws ec2 modify-network-interface-attribute --region eu-west-1 --network-interface-id eni-1 --groups sg-web`";
    assert!(said.contains(command), "{said}");
}

#[test]
fn an_interface_that_has_lost_a_group_stays_isolated_and_the_others_go_back() {
    let contained = found(&[("eni-1", "vpc-a", &["sg-iso-vpc-a"]), ("eni-2", "vpc-a", &["sg-iso-vpc-a"])]);
    let contained = with_journaled(contained, &["sg-web", "sg-db"]);
    let goal =
        step(&[]).released(&target(), &contained, &first(&[("eni-1", &["sg-web", "sg-old"]), ("eni-2", &["sg-db"])]));
    assert_eq!(goal.state[&Key::new("eni-1", GROUPS)], set(&["sg-iso-vpc-a"]));
    assert_eq!(goal.state[&Key::new("eni-2", GROUPS)], set(&["sg-db"]));
    let said = &goal.unsupported[0];
    assert!(said.contains("eni-1 stays isolated") && said.contains("sg-old no longer exists"), "{said}");
    assert!(said.contains("--groups NEW-GROUP sg-web`"), "{said}");
}

#[test]
fn a_detached_interface_is_named_and_so_is_a_group_that_was_added_beside_cordons() {
    let contained = with_journaled(found(&[("eni-1", "vpc-a", &["sg-iso-vpc-a", "sg-extra"])]), &["sg-web"]);
    let goal = step(&[]).released(&target(), &contained, &first(&[("eni-1", &["sg-web"]), ("eni-9", &["sg-web"])]));
    assert_eq!(goal.state[&Key::new("eni-1", GROUPS)], set(&["sg-web"]));
    assert!(goal.unsupported[0].starts_with("eni-9 is no longer attached to the instance"));
    assert!(goal.residual_risk[0].contains("sg-extra"));
}

#[tokio::test]
async fn the_groups_to_go_back_to_are_read_by_a_filter_which_a_deleted_one_does_not_fail() {
    let interfaces = mock!(Client::describe_network_interfaces).then_output(|| {
        let on = GroupIdentifier::builder().group_id("sg-iso").build();
        let interface = aws_sdk_ec2::types::NetworkInterface::builder().network_interface_id("eni-1").vpc_id("vpc-a");
        DescribeNetworkInterfacesOutput::builder().network_interfaces(interface.groups(on).build()).build()
    });
    let named = mock!(Client::describe_security_groups)
        .match_requests(|r| r.filters()[0].name() == Some("group-name"))
        .then_output(|| DescribeSecurityGroupsOutput::builder().build());
    let by_id = mock!(Client::describe_security_groups)
        .match_requests(|r| {
            r.filters()[0].name() == Some("group-id") && r.filters()[0].values() == ["sg-old", "sg-web"]
        })
        .then_output(|| {
            let web = SecurityGroup::builder().group_id("sg-web").build();
            DescribeSecurityGroupsOutput::builder().security_groups(web).build()
        });
    let step = step(&[&interfaces, &named, &by_id]);
    let found = step.read_journaled(&target(), &first(&[("eni-1", &["sg-web", "sg-old"])])).await.expect("read");
    assert_eq!(found.facts.journaled, set(&["sg-web"]));
}
