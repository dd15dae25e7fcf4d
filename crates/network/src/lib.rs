//! The network around an instance: Cordon's security groups, the routes, and the endpoints that a capture would use.

mod groups;
mod routes;
mod window;

use std::collections::BTreeSet;
use std::net::IpAddr;

use aws_sdk_ec2::types::NetworkInterface;

pub use groups::{CAPTURE, CONVERSION, Group, ISOLATION, NAMES, ensure, everything, find, prepare};
pub use routes::automatically_tracked;
pub use window::{Window, endpoints, windows};

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Groups belong to a VPC, and an instance's interfaces may be in several (aws-behaviour#interfaces-and-vpcs).
    pub vpc: String,
    /// Its subnet, for the routes.
    pub subnet: String,
    /// The primary private address and the IPv6 addresses, to compare with the rules of endpoints' groups.
    pub addresses: BTreeSet<IpAddr>,
    /// Who manages it, if not its owner: its groups can't be changed (aws-behaviour#requester-managed-interfaces).
    pub managed_by: Option<String>,
    /// `interface`, `trunk`, `efa`, …
    pub kind: String,
}

impl Interface {
    /// Reads an interface as EC2 shows it.
    pub fn of(interface: &NetworkInterface) -> Self {
        let managed = interface.requester_managed().unwrap_or(false);
        let manager = interface.operator().and_then(|o| o.principal()).or(interface.requester_id()).unwrap_or("AWS");
        let operated = interface.operator().and_then(|o| o.managed()).unwrap_or(false);
        Interface {
            vpc: interface.vpc_id().unwrap_or_default().to_owned(),
            subnet: interface.subnet_id().unwrap_or_default().to_owned(),
            addresses: window::addresses(interface),
            managed_by: (managed || operated).then(|| manager.to_owned()),
            kind: interface.interface_type().map_or("interface", |kind| kind.as_str()).to_owned(),
        }
    }
}
