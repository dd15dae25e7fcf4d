//! The paths of an interface that track connections regardless of its groups, so that an open connection may go on
//! (aws-behaviour#automatic-tracking).

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, Route, RouteTable};
use containment::{Error, Result};

use crate::Interface;

/// Always true: an interface endpoint or a load balancer needs no route.
const WITHOUT_A_ROUTE: &str = "connections that are open through a Network Load Balancer, a PrivateLink interface endpoint \
     or Global Accelerator are tracked automatically and may go on until they end or idle out (up to 5 days)";

/// One sentence for each kind of path that two-step isolation can't cut, with the interfaces that have it.
///
/// Reads the route tables of the interfaces' VPCs. A subnet without a table of its own uses the VPC's main one.
pub async fn automatically_tracked<'a>(
    ec2: &Client,
    interfaces: impl IntoIterator<Item = (&'a str, &'a Interface)>,
) -> Result<Vec<String>> {
    let interfaces: Vec<(&str, &Interface)> = interfaces.into_iter().collect();
    let vpcs: BTreeSet<String> = interfaces.iter().map(|(_, i)| i.vpc.clone()).collect();
    Ok(risks(&read_tables(ec2, vpcs).await?, &interfaces))
}

pub(crate) async fn read_tables(ec2: &Client, vpcs: BTreeSet<String>) -> Result<Vec<RouteTable>> {
    let of_vpcs = Filter::builder().name("vpc-id").set_values(Some(vpcs.iter().cloned().collect())).build();
    let pages = ec2.describe_route_tables().filters(of_vpcs).into_paginator().items().send();
    let on = vpcs.into_iter().collect::<Vec<_>>().join(", ");
    pages.try_collect().await.map_err(Error::aws("ec2:DescribeRouteTables", on))
}

fn risks(tables: &[RouteTable], interfaces: &[(&str, &Interface)]) -> Vec<String> {
    let mut through: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (id, interface) in interfaces {
        for route in table_of(tables, interface).iter().flat_map(|table| table.routes()) {
            if let Some(path) = tracked_path(route) {
                through.entry(path).or_default().insert(id);
            }
        }
    }
    let sentence = |(path, ids): (String, BTreeSet<&str>)| {
        let ids = ids.into_iter().collect::<Vec<_>>().join(", ");
        format!(
            "connections of {ids} that are open through {path} are tracked automatically and may go on until they end or idle out"
        )
    };
    let mut risks: Vec<String> = through.into_iter().map(sentence).collect();
    risks.push(WITHOUT_A_ROUTE.to_owned());
    risks
}

/// The route table of an interface's subnet: its own, or else the VPC's main one.
pub(crate) fn table_of<'a>(tables: &'a [RouteTable], interface: &Interface) -> Option<&'a RouteTable> {
    let own = |t: &&RouteTable| t.associations().iter().any(|a| a.subnet_id() == Some(&interface.subnet));
    let main = |t: &&RouteTable| {
        t.vpc_id() == Some(&interface.vpc) && t.associations().iter().any(|a| a.main().unwrap_or(false))
    };
    tables.iter().find(own).or_else(|| tables.iter().find(main))
}

fn tracked_path(route: &Route) -> Option<String> {
    if let Some(nat) = route.nat_gateway_id() {
        return Some(format!("the NAT gateway {nat}"));
    }
    if let Some(gateway) = route.egress_only_internet_gateway_id() {
        return Some(format!("the egress-only internet gateway {gateway}"));
    }
    let gateway = route.gateway_id().filter(|id| id.starts_with("vpce-"))?;
    Some(match route.destination_prefix_list_id() {
        Some(service) => format!("the gateway endpoint {gateway} ({service})"),
        None => format!("the endpoint {gateway} (Network Firewall or Gateway Load Balancer)"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::types::RouteTableAssociation;

    fn interface(subnet: &str) -> Interface {
        Interface { vpc: "vpc-1".into(), subnet: subnet.into(), ..Interface::default() }
    }

    fn tables() -> Vec<RouteTable> {
        let main = RouteTableAssociation::builder().main(true).build();
        let private = RouteTableAssociation::builder().subnet_id("subnet-private").build();
        let to = |route: aws_sdk_ec2::types::builders::RouteBuilder| route.destination_cidr_block("0.0.0.0/0").build();
        vec![
            RouteTable::builder()
                .vpc_id("vpc-1")
                .associations(main)
                .routes(to(Route::builder().gateway_id("igw-1")))
                .build(),
            RouteTable::builder()
                .vpc_id("vpc-1")
                .associations(private)
                .routes(to(Route::builder().nat_gateway_id("nat-1")))
                .routes(Route::builder().gateway_id("vpce-1").destination_prefix_list_id("pl-dynamodb").build())
                .build(),
        ]
    }

    #[test]
    fn a_private_subnet_behind_nat_is_named_with_its_gateway() {
        let risks = risks(&tables(), &[("eni-1", &interface("subnet-private"))]);
        assert_eq!(risks.len(), 3);
        assert!(risks.iter().any(|r| r.contains("eni-1") && r.contains("NAT gateway nat-1")));
        assert!(risks.iter().any(|r| r.contains("gateway endpoint vpce-1")));
    }

    #[test]
    fn a_subnet_without_a_table_of_its_own_uses_the_main_one() {
        assert_eq!(risks(&tables(), &[("eni-1", &interface("subnet-public"))]), [WITHOUT_A_ROUTE]);
    }
}
