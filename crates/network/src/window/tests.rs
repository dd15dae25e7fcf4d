use super::*;
use crate::groups::{Group, everything};
use aws_sdk_ec2::operation::describe_network_interfaces::DescribeNetworkInterfacesOutput;
use aws_sdk_ec2::operation::describe_route_tables::DescribeRouteTablesOutput;
use aws_sdk_ec2::operation::describe_security_groups::DescribeSecurityGroupsOutput;
use aws_sdk_ec2::operation::describe_vpc_endpoints::{DescribeVpcEndpointsError, DescribeVpcEndpointsOutput};
use aws_sdk_ec2::types::{
    DnsOptions, IpRange, Ipv6Range, NetworkInterfaceIpv6Address, PrefixListId, Route, RouteTableAssociation,
    SecurityGroupIdentifier, State, UserIdGroupPair,
};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use proptest::prelude::*;

const SSM: &str = "com.amazonaws.eu-west-1.ssm";
const MESSAGES: &str = "com.amazonaws.eu-west-1.ssmmessages";

fn interface(vpc: &str) -> Interface {
    let addresses = ["10.0.1.5".parse().expect("an address")].into();
    Interface { vpc: vpc.into(), subnet: "subnet-private".into(), addresses, ..Interface::default() }
}

fn one_interface() -> BTreeMap<String, Interface> {
    [("eni-1".to_owned(), interface("vpc-a"))].into()
}

fn endpoint(id: &str, service: &str) -> aws_sdk_ec2::types::builders::VpcEndpointBuilder {
    VpcEndpoint::builder()
        .vpc_endpoint_id(id)
        .vpc_id("vpc-a")
        .service_name(service)
        .vpc_endpoint_type(VpcEndpointType::Interface)
        .state(State::from("available"))
        .private_dns_enabled(true)
        .groups(SecurityGroupIdentifier::builder().group_id("sg-endpoints").build())
        .network_interface_ids(format!("eni-of-{id}"))
}

fn gateway() -> VpcEndpoint {
    let of_s3 =
        VpcEndpoint::builder().vpc_endpoint_id("vpce-s3").vpc_id("vpc-a").service_name("com.amazonaws.eu-west-1.s3");
    of_s3.vpc_endpoint_type(VpcEndpointType::Gateway).state(State::from("available")).build()
}

fn own_interface(id: &str, address: &str) -> NetworkInterface {
    NetworkInterface::builder().network_interface_id(format!("eni-of-{id}")).private_ip_address(address).build()
}

fn https() -> aws_sdk_ec2::types::builders::IpPermissionBuilder {
    IpPermission::builder().ip_protocol("tcp").from_port(443).to_port(443)
}

fn from_cidr(cidr: &str) -> IpPermission {
    https().ip_ranges(IpRange::builder().cidr_ip(cidr).build()).build()
}

fn table(id: &str, subnet: Option<&str>, routes: &[(&str, &str)]) -> RouteTable {
    let association = RouteTableAssociation::builder().set_subnet_id(subnet.map(Into::into)).main(subnet.is_none());
    let route = |(gateway, list): &(&str, &str)| {
        Route::builder().gateway_id(*gateway).destination_prefix_list_id(*list).build()
    };
    RouteTable::builder()
        .route_table_id(id)
        .vpc_id("vpc-a")
        .associations(association.build())
        .set_routes(Some(routes.iter().map(route).collect()))
        .build()
}

/// A VPC with everything that a capture needs.
fn shown() -> Shown {
    Shown {
        endpoints: vec![endpoint("vpce-ssm", SSM).build(), endpoint("vpce-messages", MESSAGES).build(), gateway()],
        interfaces: vec![own_interface("vpce-ssm", "10.0.9.1"), own_interface("vpce-messages", "10.0.9.2")],
        groups: vec![
            SecurityGroup::builder().group_id("sg-endpoints").ip_permissions(from_cidr("10.0.0.0/16")).build(),
        ],
        tables: vec![table("rtb-private", Some("subnet-private"), &[("vpce-s3", "pl-s3")])],
    }
}

fn seen(shown: &Shown) -> Window {
    window(shown, "eni-1", &interface("vpc-a"), &BTreeMap::new())
}

fn set(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|v| (*v).to_owned()).collect()
}

#[track_caller]
fn hindered(shown: &Shown, why: &str) {
    let obstacles = seen(shown).obstacles.join("; ");
    assert!(obstacles.contains(why), "{obstacles}");
}

#[test]
fn the_window_is_tcp_443_to_the_endpoints_own_addresses_and_the_route_of_s3() {
    let window = seen(&shown());
    assert_eq!(window.obstacles, Vec::<String>::new());
    let rules = ["egress tcp 443-443 10.0.9.1/32", "egress tcp 443-443 10.0.9.2/32", "egress tcp 443-443 pl-s3"];
    assert_eq!(window.rules, set(&rules));
}

#[test]
fn either_way_to_commands_is_enough() {
    let mut shown = shown();
    shown.endpoints[1] = endpoint("vpce-messages", "com.amazonaws.eu-west-1.ec2messages").build();
    assert!(seen(&shown).obstacles.is_empty());
    shown.endpoints.remove(1);
    hindered(&shown, "vpc-a has no endpoint for ssmmessages or ec2messages");
}

#[test]
fn an_interface_endpoint_for_s3_counts_if_the_vpcs_hosts_resolve_it() {
    let mut shown = shown();
    shown.interfaces.push(own_interface("vpce-s3", "10.0.9.3"));
    let of_s3 = || endpoint("vpce-s3", "com.amazonaws.eu-west-1.s3");
    shown.endpoints[2] = of_s3().build();
    assert!(seen(&shown).obstacles.is_empty());
    assert!(seen(&shown).rules.contains("egress tcp 443-443 10.0.9.3/32"));
    let resolver_only = DnsOptions::builder().private_dns_only_for_inbound_resolver_endpoint(true).build();
    shown.endpoints[2] = of_s3().dns_options(resolver_only).build();
    hindered(&shown, "vpce-s3 (s3) has its private DNS name for on-premises hosts only");
    assert!(!seen(&shown).rules.contains("egress tcp 443-443 10.0.9.3/32"));
}

#[test]
fn without_endpoints_the_reason_says_that_the_agent_uses_the_internet() {
    let window = seen(&Shown::default());
    assert!(window.rules.is_empty() && window.obstacles.len() == 3);
    assert!(
        window.obstacles[0].contains("vpc-a has no endpoint for ssm, so the host's agent reaches Systems Manager over")
    );
    assert!(window.obstacles[2].contains("vpc-a has no endpoint for s3"));
}

#[test]
fn endpoints_of_another_vpc_do_not_count() {
    let elsewhere = window(&shown(), "eni-2", &interface("vpc-b"), &BTreeMap::new());
    assert!(elsewhere.rules.is_empty() && elsewhere.obstacles.len() == 3);
}

#[test]
fn an_endpoint_that_is_pending_or_without_private_dns_is_named_and_gets_no_rule() {
    let mut shown = shown();
    shown.endpoints[0] = endpoint("vpce-ssm", SSM).state(State::from("pendingAcceptance")).build();
    shown.endpoints[1] = endpoint("vpce-messages", MESSAGES).private_dns_enabled(false).build();
    hindered(&shown, "vpce-ssm (ssm) is not available");
    hindered(&shown, "vpce-messages (ssmmessages) has no private DNS name");
    assert_eq!(seen(&shown).rules, set(&["egress tcp 443-443 pl-s3"]));
}

#[test]
fn an_endpoint_whose_group_lets_nobody_else_in_names_the_missing_rule() {
    let mut shown = shown();
    let workload = UserIdGroupPair::builder().group_id("sg-web").build();
    let rule = https().user_id_group_pairs(workload).build();
    shown.groups = vec![SecurityGroup::builder().group_id("sg-endpoints").ip_permissions(rule).build()];
    let missing = "vpce-ssm (ssm) does not let eni-1 in: sg-endpoints lacks the rule ingress tcp 443 from 10.0.1.5/32";
    hindered(&shown, missing);

    let capture = Group { id: "sg-capture".into(), rules: everything() };
    let capture = [("vpc-a".to_owned(), capture)].into();
    let why = window(&shown, "eni-1", &interface("vpc-a"), &capture).obstacles.join("; ");
    assert!(why.contains("(or from sg-capture, cordon-capture)"), "{why}");
    let pair = UserIdGroupPair::builder().group_id("sg-capture").build();
    let rule = https().user_id_group_pairs(pair).build();
    shown.groups = vec![SecurityGroup::builder().group_id("sg-endpoints").ip_permissions(rule).build()];
    assert!(window(&shown, "eni-1", &interface("vpc-a"), &capture).obstacles.is_empty());
}

#[test]
fn a_subnet_without_a_route_to_the_gateway_endpoint_cannot_reach_s3() {
    let mut shown = shown();
    shown.tables.insert(0, table("rtb-main", None, &[("vpce-s3", "pl-s3")]));
    shown.tables[1] = table("rtb-private", Some("subnet-private"), &[("igw-1", "pl-other")]);
    hindered(&shown, "rtb-private of subnet-private, where eni-1 is, has no route to vpce-s3 (s3)");
    // The group is the whole VPC's: its rules do not depend on one interface's subnet.
    assert!(seen(&shown).rules.contains("egress tcp 443-443 pl-s3"));
    shown.tables.remove(1);
    assert!(seen(&shown).obstacles.is_empty(), "the main table counts for a subnet without one of its own");
}

#[test]
fn a_rule_lets_https_in_by_port_protocol_address_and_group() {
    let addresses = |list: &[&str]| list.iter().map(|a| a.parse().expect("an address")).collect::<BTreeSet<IpAddr>>();
    let from = addresses(&["10.0.1.5", "2001:db8::5"]);
    let lets_in = |permission: IpPermission| lets_in_https(&permission, &from, Some("sg-capture"));
    assert!(lets_in(from_cidr("10.0.1.0/24")) && lets_in(from_cidr("10.0.1.5/32")) && lets_in(from_cidr("0.0.0.0/0")));
    assert!(!lets_in(from_cidr("10.0.2.0/24")) && !lets_in(from_cidr("10.0.1.4/32")) && !lets_in(from_cidr("junk")));
    let v6 = |cidr: &str| https().ipv6_ranges(Ipv6Range::builder().cidr_ipv6(cidr).build()).build();
    assert!(lets_in(v6("2001:db8::/64")) && lets_in(v6("::/0")) && !lets_in(v6("2001:db9::/64")));
    let any = IpRange::builder().cidr_ip("0.0.0.0/0").build();
    let on = |protocol: &str, from: i32, to: i32| {
        IpPermission::builder().ip_protocol(protocol).from_port(from).to_port(to).ip_ranges(any.clone()).build()
    };
    assert!(
        lets_in(on("tcp", 0, 65_535))
            && lets_in(IpPermission::builder().ip_protocol("-1").ip_ranges(any.clone()).build())
    );
    assert!(!lets_in(on("tcp", 80, 80)) && !lets_in(on("udp", 443, 443)) && !lets_in(on("icmp", -1, -1)));
    let list = PrefixListId::builder().prefix_list_id("pl-1").build();
    assert!(lets_in(https().prefix_list_ids(list).build()), "the list's content is unknown");
}

proptest! {
    #[test]
    fn no_cidr_causes_a_panic_and_a_network_contains_its_own_address(
        text in "[0-9a-f.:/ ]{0,24}", bits in any::<u32>(), length in 0_u32..=40
    ) {
        let address = IpAddr::from(bits.to_be_bytes());
        is_within(&text, &address);
        prop_assert_eq!(is_within(&format!("{address}/{length}"), &address), length <= 32);
    }
}

#[test]
fn the_addresses_of_an_interface_are_its_primary_one_and_those_of_ipv6() {
    let v6 = NetworkInterfaceIpv6Address::builder().ipv6_address("2001:db8::5").build();
    let interface = NetworkInterface::builder().private_ip_address("10.0.1.5").ipv6_addresses(v6).build();
    let found: Vec<String> = addresses(&interface).iter().map(single).collect();
    assert_eq!(found, ["10.0.1.5/32", "2001:db8::5/128"]);
}

#[tokio::test]
async fn endpoints_their_interfaces_and_groups_and_the_vpcs_routes_are_read() {
    let endpoints_rule = mock!(Client::describe_vpc_endpoints)
        .match_requests(|r| r.filters()[0].values().contains(&SSM.to_owned()) && r.filters()[0].values().len() == 8)
        .then_output(|| {
            let elsewhere = endpoint("vpce-elsewhere", SSM).vpc_id("vpc-of-others").build();
            DescribeVpcEndpointsOutput::builder()
                .set_vpc_endpoints(Some([shown().endpoints, vec![elsewhere]].concat()))
                .build()
        });
    let interfaces = mock!(Client::describe_network_interfaces)
        .match_requests(|r| r.filters()[0].values() == ["eni-of-vpce-messages", "eni-of-vpce-ssm"])
        .then_output(|| {
            DescribeNetworkInterfacesOutput::builder().set_network_interfaces(Some(shown().interfaces)).build()
        });
    let groups = mock!(Client::describe_security_groups)
        .match_requests(|r| r.filters()[0].values() == ["sg-endpoints"])
        .then_output(|| DescribeSecurityGroupsOutput::builder().set_security_groups(Some(shown().groups)).build());
    let tables = mock!(Client::describe_route_tables)
        .match_requests(|r| r.filters()[0].values() == ["vpc-a"])
        .then_output(|| DescribeRouteTablesOutput::builder().set_route_tables(Some(shown().tables)).build());
    let ec2 = mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&endpoints_rule, &interfaces, &groups, &tables]);
    let endpoints = endpoints(&ec2, &Target::example()).await;
    let windows = windows(&ec2, endpoints, &one_interface(), &BTreeMap::new()).await;
    assert_eq!(windows["eni-1"], seen(&shown()));
}

#[tokio::test]
async fn endpoints_that_cannot_be_read_are_an_obstacle_and_not_an_error() {
    let denied = mock!(Client::describe_vpc_endpoints).then_error(|| {
        let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("UnauthorizedOperation").build();
        DescribeVpcEndpointsError::generic(meta)
    });
    let ec2 = mock_client!(aws_sdk_ec2, [&denied]);
    let endpoints = endpoints(&ec2, &Target::example()).await;
    let windows = windows(&ec2, endpoints, &one_interface(), &BTreeMap::new()).await;
    assert!(windows["eni-1"].obstacles[0].contains("ec2:DescribeVpcEndpoints on eu-west-1: UnauthorizedOperation"));
}

#[tokio::test(start_paused = true)]
async fn isolation_does_not_wait_for_a_service_that_does_not_answer() {
    let said = soon(std::future::pending::<Result<()>>()).await;
    assert_eq!(said.expect_err("none"), "EC2 did not answer within 5 seconds");
}
