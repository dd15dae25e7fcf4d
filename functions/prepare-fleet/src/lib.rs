//! Prepares a fleet once, instead of once per instance: makes Cordon's isolation and conversion groups in every VPC and
//! reads them back, stores the fleet's list of instances, and sets the pace at which its batches may begin.
//!
//! Reads instances in pages. Creates and repairs Cordon's security groups, and puts the fleet's list into the evidence
//! bucket; in a dry run, only the latter. No instance and no interface is touched.

mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, Instance};
use containment::{Error, Result, Status, Target};
use evidence::{Bucket, Pointer, fleet_prefix};
use runtime::Aws;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use pace::{Pace, pace};

/// The function's name in member accounts and in answers.
const NAME: &str = "prepare-fleet";

/// The function's event.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Event {
    /// The fleet that intake has made of the input.
    pub fleet: Fleet,
    /// Whether this is a dry run.
    pub dry_run: bool,
    /// The fleet's execution.
    pub execution: String,
}

/// A fleet, cut into batches.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Fleet {
    /// Names its folder in the evidence bucket.
    pub id: String,
    /// The account of all its instances.
    pub account_id: String,
    /// The Region of all its instances.
    pub region: String,
    /// How many instances it has.
    pub instances: usize,
    /// Their ids.
    pub batches: Vec<Vec<String>>,
}

/// The function's answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Prepared {
    /// This function.
    pub step: &'static str,
    /// `Done`, or `Planned` in a dry run. If a group could not be made, the batches try again and report it if they
    /// fail too.
    pub status: Status,
    /// When the pace starts to count: milliseconds since 1970.
    pub at: u64,
    /// How fast the batches may begin.
    #[serde(flatten)]
    pub pace: Pace,
    /// The VPCs of the fleet's interfaces, which have Cordon's groups now.
    pub vpcs: BTreeSet<String>,
    /// How many interfaces the fleet has.
    pub interfaces: usize,
    /// How many instances EC2 does not show; their batches report each of them.
    pub not_found: usize,
    /// Why some groups could not be made.
    pub problems: Vec<String>,
    /// Where the fleet's list is, in a dry run too; its results will be there as well.
    pub list: Pointer,
}

/// A fleet as EC2 shows it.
#[derive(Debug, Default, PartialEq)]
struct Shown {
    instances: BTreeSet<String>,
    vpcs: BTreeSet<String>,
    interfaces: usize,
}

/// The function: a fleet in, its pace out.
pub async fn handle(aws: &Aws, event: Value) -> Result<Prepared> {
    let event: Event = serde_json::from_value(event)
        .map_err(|error| Error::InvalidInput(format!("the event of {NAME} is not a fleet: {error}")))?;
    let Some(target) = any_target(&event)? else {
        return Err(Error::InvalidInput("Fleet.Batches: no instance is named".to_owned()));
    };
    let ec2 = Client::new(&aws.of(&target, NAME).await?);
    let shown = shown(&ec2, &event.fleet).await?;
    let bucket = Bucket::of(aws)?;
    let groups = async {
        match event.dry_run {
            true => Vec::new(),
            false => network::prepare(&ec2, &target, &shown.vpcs).await,
        }
    };
    let (problems, list) = futures::join!(groups, write_down(&bucket, &event));
    let named = event.fleet.batches.concat();
    Ok(Prepared {
        step: NAME,
        status: if event.dry_run { Status::Planned } else { Status::Done },
        at: now(),
        pace: pace(named.len(), shown.interfaces, event.fleet.batches.len()),
        not_found: named.iter().filter(|id| !shown.instances.contains(*id)).count(),
        vpcs: shown.vpcs,
        interfaces: shown.interfaces,
        problems: problems.iter().map(ToString::to_string).collect(),
        list: list?,
    })
}

/// The fleet's first instance, for the session: one in a member account is for one step and one instance.
fn any_target(event: &Event) -> Result<Option<Target>> {
    let Some(first) = event.fleet.batches.iter().flatten().next() else { return Ok(None) };
    Target::parse(json!({
        "AccountId": event.fleet.account_id, "Region": event.fleet.region, "InstanceId": first,
        "CaseId": event.fleet.id, "Execution": event.execution, "DryRun": event.dry_run,
    }))
    .map(Some)
}

/// A filter takes 200 values at most, and an id that does not exist is no error in one (aws-behaviour#describe-by-id).
const IDS_A_FILTER: usize = 200;

async fn shown(ec2: &Client, fleet: &Fleet) -> Result<Shown> {
    let mut shown = Shown::default();
    for ids in fleet.batches.concat().chunks(IDS_A_FILTER) {
        let named = Filter::builder().name("instance-id").set_values(Some(ids.to_vec())).build();
        let pages = ec2.describe_instances().include_managed_resources(true).max_results(1_000).filters(named);
        let mut pages = pages.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(Error::aws("ec2:DescribeInstances", format!("{} instances", ids.len())))?;
            page.reservations().iter().flat_map(|r| r.instances()).for_each(|instance| shown.add(instance));
        }
    }
    Ok(shown)
}

impl Shown {
    fn add(&mut self, instance: &Instance) {
        self.instances.extend(instance.instance_id.clone());
        self.interfaces += instance.network_interfaces().len();
        self.vpcs.extend(instance.network_interfaces().iter().filter_map(|i| i.vpc_id.clone()));
    }
}

/// Stores the fleet's list, with which `report` compares the batches' results so that no instance is lost.
async fn write_down(bucket: &Bucket, event: &Event) -> Result<Pointer> {
    let numbered: BTreeMap<usize, &Vec<String>> = event.fleet.batches.iter().enumerate().collect();
    let list = json!({
        "Id": event.fleet.id, "AccountId": event.fleet.account_id, "Region": event.fleet.region,
        "Execution": event.execution, "Instances": event.fleet.instances, "Batches": numbered,
    });
    let key = format!("{}/fleet.json", fleet_prefix(&event.fleet.id));
    bucket.write(key, "application/json", list.to_string().into_bytes()).await
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
    use aws_sdk_ec2::types::{InstanceNetworkInterface, Reservation};
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    fn instance(id: &str, vpcs: &[&str]) -> Instance {
        let interfaces = vpcs.iter().map(|vpc| InstanceNetworkInterface::builder().vpc_id(*vpc).build()).collect();
        Instance::builder().instance_id(id).set_network_interfaces(Some(interfaces)).build()
    }

    fn fleet(count: usize) -> Fleet {
        let ids: Vec<String> = (0..count).map(|n| format!("i-{n:017x}")).collect();
        let batches = ids.chunks(10).map(<[String]>::to_vec).collect();
        Fleet {
            id: "f".into(),
            account_id: "123456789012".into(),
            region: "eu-west-1".into(),
            instances: count,
            batches,
        }
    }

    #[tokio::test]
    async fn a_fleet_is_read_by_filter_two_hundred_instances_at_a_time() {
        let rule = mock!(Client::describe_instances)
            .match_requests(|r| {
                r.instance_ids().is_empty() && r.filters().iter().all(|f| (1..=200).contains(&f.values().len()))
            })
            .then_output(|| {
                let found = instance("i-00000000000000000", &["vpc-a", "vpc-b"]);
                let reservation = Reservation::builder().instances(found).build();
                DescribeInstancesOutput::builder().reservations(reservation).build()
            });
        let ec2 = mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&rule]);
        let shown = shown(&ec2, &fleet(450)).await.expect("read");
        assert_eq!(rule.num_calls(), 3);
        assert_eq!(shown.vpcs, ["vpc-a".to_owned(), "vpc-b".to_owned()].into());
        assert_eq!(shown.instances, ["i-00000000000000000".to_owned()].into());
    }

    #[test]
    fn a_fleet_without_an_instance_has_no_target() {
        let event = Event { fleet: fleet(0), dry_run: false, execution: "arn".into() };
        assert!(any_target(&event).expect("no error").is_none());
    }
}
