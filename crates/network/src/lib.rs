//! The network around an instance: Cordon's security groups, the routes, and the ways out that a capture would use.

mod groups;
mod routes;
mod window;

use std::collections::BTreeSet;
use std::net::IpAddr;

use aws_sdk_ec2::types::NetworkInterface;

pub use groups::{CAPTURE, CONVERSION, Group, ISOLATION, NAMES, ensure, everything, find, prepare};
pub use routes::automatically_tracked;
pub use window::{Window, endpoints, windows};

/// What there is to know of one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Groups belong to a VPC, and an instance's interfaces may be in several (aws-behaviour#interfaces-and-vpcs).
    pub vpc: String,
    /// For the routes.
    pub subnet: String,
    /// For what an endpoint lets in: the primary private address, and those of IPv6.
    pub addresses: BTreeSet<IpAddr>,
    /// Who manages it, if not its owner: its groups can't be changed (aws-behaviour#requester-managed-interfaces).
    pub managed_by: Option<String>,
    /// `interface`, `trunk`, `efa`, …
    pub kind: String,
}

impl Interface {
    /// What EC2 shows of it.
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
