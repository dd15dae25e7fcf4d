//! The capture window: the VPC's own usable endpoints of Systems Manager and S3, which stay open for a capture.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    Filter, IpPermission, NetworkInterface, RouteTable, SecurityGroup, VpcEndpoint, VpcEndpointType,
};
use containment::{Error, Result, Target};

use crate::groups::to_endpoint;
use crate::routes::{read_tables, table_of};
use crate::{CAPTURE, Group, Interface};

/// The capture window of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// The capture group's rules: the same for all interfaces of a VPC, which share the group.
    pub rules: BTreeSet<String>,
    /// Why the host cannot be captured through this interface; empty if it can.
    pub obstacles: Vec<String>,
}

/// The services that a capture needs. The agent registers with `ssm`; it gets commands from `ssmmessages`, or from
/// `ec2messages` if that cannot be reached (Systems Manager's reference of these operations); results go to S3.
const NEEDED: [(&str, &[&str]); 3] =
    [("ssm", &["ssm"]), ("ssmmessages or ec2messages", &["ssmmessages", "ec2messages"]), ("s3", &["s3"])];

/// Isolation does not wait long for the window, which is only a convenience.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// The paths to Systems Manager and S3, as EC2 shows them.
#[derive(Debug, Default)]
struct Shown {
    endpoints: Vec<VpcEndpoint>,
    /// The endpoints' own network interfaces, for their addresses.
    interfaces: Vec<NetworkInterface>,
    /// The endpoints' security groups, for their ingress rules.
    groups: Vec<SecurityGroup>,
    /// The route tables of the instance's VPCs: a gateway endpoint is a route.
    tables: Vec<RouteTable>,
}

/// The Region's endpoints of the services that a capture needs, usable or not. If they cannot be read,
/// there is no window; the instance never stays connected for that.
pub async fn endpoints(ec2: &Client, target: &Target) -> std::result::Result<Vec<VpcEndpoint>, String> {
    let services = NEEDED.iter().flat_map(|(_, services)| *services);
    // In China some endpoint services have the other prefix.
    let names =
        services.flat_map(|s| ["com.amazonaws", "cn.com.amazonaws"].map(|p| format!("{p}.{}.{s}", target.region)));
    let named = Filter::builder().name("service-name").set_values(Some(names.collect())).build();
    let pages = ec2.describe_vpc_endpoints().filters(named).into_paginator().items().send();
    soon(async { pages.try_collect().await.map_err(Error::aws("ec2:DescribeVpcEndpoints", &target.region)) }).await
}

/// The capture windows of the interfaces, by their ids; `capture` has the existing capture groups, by VPC. Reads the
/// endpoints' interfaces and groups, and the route tables of the VPCs.
pub async fn windows(
    ec2: &Client,
    endpoints: std::result::Result<Vec<VpcEndpoint>, String>,
    interfaces: &BTreeMap<String, Interface>,
    capture: &BTreeMap<String, Group>,
) -> BTreeMap<String, Window> {
    let shown = match endpoints {
        Ok(endpoints) => soon(details(ec2, endpoints, interfaces)).await,
        Err(error) => Err(error),
    };
    let window = |id: &str, interface: &Interface| match &shown {
        Ok(shown) => window(shown, id, interface, capture),
        Err(error) => {
            let unread = format!("the endpoints of {} could not be read: {error}", interface.vpc);
            Window { rules: BTreeSet::new(), obstacles: vec![unread] }
        }
    };
    interfaces.iter().map(|(id, interface)| (id.clone(), window(id, interface))).collect()
}

async fn soon<T>(read: impl Future<Output = Result<T>>) -> std::result::Result<T, String> {
    match tokio::time::timeout(READ_WITHIN, read).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("EC2 did not answer within {} seconds", READ_WITHIN.as_secs())),
    }
}

async fn details(
    ec2: &Client,
    mut endpoints: Vec<VpcEndpoint>,
    interfaces: &BTreeMap<String, Interface>,
) -> Result<Shown> {
    let vpcs: BTreeSet<&str> = interfaces.values().map(|i| i.vpc.as_str()).collect();
    endpoints.retain(|endpoint| endpoint.vpc_id().is_some_and(|vpc| vpcs.contains(vpc)));
    let interfaces: BTreeSet<&String> = endpoints.iter().flat_map(|e| e.network_interface_ids()).collect();
    let groups: BTreeSet<&str> = endpoints.iter().flat_map(|e| e.groups()).filter_map(|g| g.group_id()).collect();
    if endpoints.is_empty() {
        return Ok(Shown::default());
    }
    let of = |name: &str, ids: Vec<String>| Filter::builder().name(name).set_values(Some(ids)).build();
    let interfaces = async {
        let ids: Vec<String> = interfaces.iter().map(|id| (*id).clone()).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let on = ids.join(", ");
        let pages = ec2.describe_network_interfaces().filters(of("network-interface-id", ids)).into_paginator();
        pages.items().send().try_collect().await.map_err(Error::aws("ec2:DescribeNetworkInterfaces", on))
    };
    let groups = async {
        let ids: Vec<String> = groups.iter().map(|id| (*id).to_owned()).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let on = ids.join(", ");
        let pages = ec2.describe_security_groups().filters(of("group-id", ids)).into_paginator();
        pages.items().send().try_collect().await.map_err(Error::aws("ec2:DescribeSecurityGroups", on))
    };
    let tables = read_tables(ec2, vpcs.iter().map(|vpc| (*vpc).to_owned()).collect());
    let (interfaces, groups, tables) = futures::try_join!(interfaces, groups, tables)?;
    Ok(Shown { endpoints, interfaces, groups, tables })
}

fn window(shown: &Shown, id: &str, interface: &Interface, capture: &BTreeMap<String, Group>) -> Window {
    let of_vpc: Vec<&VpcEndpoint> = shown.endpoints.iter().filter(|e| e.vpc_id() == Some(&interface.vpc)).collect();
    let rules = of_vpc.iter().flat_map(|endpoint| shown.peers(endpoint)).map(|peer| to_endpoint(&peer)).collect();
    let obstacles = NEEDED.iter().filter_map(|(name, services)| {
        let ours: Vec<&VpcEndpoint> = of_vpc.iter().copied().filter(|e| services.contains(&service(e))).collect();
        let hindered: Vec<String> =
            ours.iter().map_while(|endpoint| shown.hindrance(endpoint, id, interface, capture)).collect();
        let usable = hindered.len() < ours.len();
        let why = match (ours.is_empty(), *name) {
            (false, _) => hindered.join(", and "),
            // The agent is online: without it, there would be no capture to keep a window open for.
            (true, "ssm") => format!(
                "{} has no endpoint for ssm, so the host's agent reaches Systems Manager over the Internet or another network",
                interface.vpc
            ),
            (true, _) => format!("{} has no endpoint for {name}", interface.vpc),
        };
        (!usable).then_some(why)
    });
    Window { rules, obstacles: obstacles.collect() }
}

/// `ssm` of `com.amazonaws.eu-west-1.ssm`.
fn service(endpoint: &VpcEndpoint) -> &str {
    endpoint.service_name().and_then(|name| name.rsplit('.').next()).unwrap_or_default()
}

fn is_gateway(endpoint: &VpcEndpoint) -> bool {
    endpoint.vpc_endpoint_type() == Some(&VpcEndpointType::Gateway)
}

/// Why nobody in the VPC can use the endpoint; none if it is usable.
fn unused(endpoint: &VpcEndpoint) -> Option<&'static str> {
    // EC2's model has the states in upper case, its answers in lower case.
    let available = endpoint.state().is_some_and(|state| state.as_str().eq_ignore_ascii_case("available"));
    let resolver_only = endpoint.dns_options().and_then(|dns| dns.private_dns_only_for_inbound_resolver_endpoint());
    if !available {
        Some("is not available")
    } else if is_gateway(endpoint) {
        None
    } else if !endpoint.private_dns_enabled().unwrap_or(false) {
        Some("has no private DNS name, so the service's own name leads elsewhere")
    } else if resolver_only.unwrap_or(false) {
        Some("has its private DNS name for on-premises hosts only")
    } else {
        None
    }
}

impl Shown {
    /// The peers of an endpoint for the capture group's rules: its addresses, or the prefix list of its route.
    ///
    /// Not its security groups: other resources may be on them, such as everything on the VPC's default group, which an
    /// endpoint gets if nobody chooses one.
    fn peers(&self, endpoint: &VpcEndpoint) -> BTreeSet<String> {
        if unused(endpoint).is_some() {
            return BTreeSet::new();
        }
        if is_gateway(endpoint) {
            let routes = self.tables.iter().flat_map(|table| table.routes());
            let own = routes.filter(|route| route.gateway_id() == endpoint.vpc_endpoint_id());
            return own.filter_map(|route| route.destination_prefix_list_id().map(ToOwned::to_owned)).collect();
        }
        let is_own = |i: &&NetworkInterface| {
            i.network_interface_id().is_some_and(|id| endpoint.network_interface_ids().iter().any(|own| own == id))
        };
        self.interfaces.iter().filter(is_own).flat_map(addresses).map(|address| single(&address)).collect()
    }

    /// Why the interface cannot use the endpoint; none if it can.
    fn hindrance(
        &self,
        endpoint: &VpcEndpoint,
        id: &str,
        interface: &Interface,
        capture: &BTreeMap<String, Group>,
    ) -> Option<String> {
        let name = format!("{} ({})", endpoint.vpc_endpoint_id().unwrap_or("an endpoint"), service(endpoint));
        if let Some(why) = unused(endpoint) {
            return Some(format!("{name} {why}"));
        }
        if self.peers(endpoint).is_empty() {
            let what = if is_gateway(endpoint) { "route" } else { "address" };
            return Some(format!("{name} has no {what} in {}", interface.vpc));
        }
        if is_gateway(endpoint) {
            let table = table_of(&self.tables, interface);
            let routed = table.is_some_and(|t| t.routes().iter().any(|r| r.gateway_id() == endpoint.vpc_endpoint_id()));
            let table = table.and_then(|t| t.route_table_id()).unwrap_or("the route table");
            return (!routed)
                .then(|| format!("{table} of {}, where {id} is, has no route to {name}", interface.subnet));
        }
        let groups: Vec<&str> = endpoint.groups().iter().filter_map(|g| g.group_id()).collect();
        let capture = capture.get(&interface.vpc).map(|group| group.id.as_str());
        let of_endpoint = self.groups.iter().filter(|group| group.group_id().is_some_and(|id| groups.contains(&id)));
        let lets_in = |p: &IpPermission| lets_in_https(p, &interface.addresses, capture);
        if of_endpoint.flat_map(|group| group.ip_permissions()).any(lets_in) {
            return None;
        }
        let from = interface.addresses.first().map_or_else(|| "the interface".to_owned(), single);
        let or_group = capture.map_or_else(String::new, |group| format!(" (or from {group}, {CAPTURE})"));
        let groups = groups.join(", ");
        Some(format!("{name} does not let {id} in: {groups} lacks the rule ingress tcp 443 from {from}{or_group}"))
    }
}

/// An interface's addresses: the primary private one, and those of IPv6.
pub fn addresses(interface: &NetworkInterface) -> BTreeSet<IpAddr> {
    let v6 = interface.ipv6_addresses().iter().filter_map(|a| a.ipv6_address());
    let primary = interface.private_ip_address();
    primary.into_iter().chain(v6).filter_map(|address| address.parse().ok()).collect()
}

fn single(address: &IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// Whether a group's rule lets tcp/443 in from an interface with these addresses that is on the capture group alone.
/// Prefix lists are not read and count as letting it in: at worst, a window stays unused.
fn lets_in_https(permission: &IpPermission, addresses: &BTreeSet<IpAddr>, capture: Option<&str>) -> bool {
    let ports = match permission.ip_protocol() {
        Some("-1") => true,
        Some("tcp" | "6") => {
            let (from, to) = (permission.from_port().unwrap_or(0), permission.to_port().unwrap_or(65_535));
            (from..=to).contains(&443)
        }
        _ => false,
    };
    let v4 = permission.ip_ranges().iter().filter_map(|r| r.cidr_ip());
    let v6 = permission.ipv6_ranges().iter().filter_map(|r| r.cidr_ipv6());
    let by_address = v4.chain(v6).any(|cidr| addresses.iter().any(|address| is_within(cidr, address)));
    let by_group = permission.user_id_group_pairs().iter().any(|g| capture.is_some() && g.group_id() == capture);
    ports && (by_address || by_group || !permission.prefix_list_ids().is_empty())
}

fn is_within(cidr: &str, address: &IpAddr) -> bool {
    let Some((network, length)) = cidr.split_once('/') else { return false };
    let (Ok(network), Ok(length)) = (network.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    let (network, address, width) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (network.to_bits().into(), address.to_bits().into(), 32),
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    let differing: u128 = network ^ address;
    length <= width && differing.checked_shr(width - length).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests;
