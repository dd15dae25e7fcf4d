//! Switches flow logs on for each interface of the instance that none covers yet.
//!
//! They show whether traffic was accepted after the isolation, which a change of groups does not prove
//! (aws-behaviour#tracked-connections), and whom the instance talked to. The first records arrive minutes later;
//! nothing waits for them.

use std::collections::{BTreeMap, BTreeSet};

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::RequestId;
use aws_sdk_ec2::types::{
    Filter, FlowLog, FlowLogsResourceType, LogDestinationType, NetworkInterface, ResourceType, Tag, TagSpecification,
    TrafficType, UnsuccessfulItem,
};
use containment::{
    AwsError, Error, First, Found, Goal, Journaled, Key, Kind, Result, Reversible, State, Step, Target, Writes,
    first_values,
};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

/// The step. Reads the flow logs of the instance's interfaces, of their subnets and of their VPCs; makes one for each
/// interface that none of them covers, and a release deletes those again. The delivered records are evidence and stay.
#[derive(Debug, Clone)]
pub struct CreateFlowLogs {
    ec2: Client,
    /// Where flow logs are delivered to; absent where the step only reads.
    bucket: Option<String>,
}

/// Which flow logs show all of an interface's traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Coverage {
    /// Whether there is any.
    pub covered: bool,
    /// Each one's destination by its id. The owner's own flow logs count; the reader sees where they go.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub flow_logs: BTreeMap<String, String>,
}

const FLOW_LOGS: &str = "FlowLogs";

/// The default fields, and those without which a NAT gateway, a load balancer or a container hides who talked to whom.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/flow-log-records.html>
const FIELDS: &str = "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} \
    ${packets} ${bytes} ${start} ${end} ${action} ${log-status} ${vpc-id} ${subnet-id} ${instance-id} ${tcp-flags} \
    ${type} ${pkt-srcaddr} ${pkt-dstaddr} ${pkt-src-aws-service} ${pkt-dst-aws-service} ${flow-direction} \
    ${traffic-path}";

/// A client token has 64 characters at most.
const TOKEN_CHARACTERS: usize = 64;

impl CreateFlowLogs {
    /// The step in the configuration's Region, delivering to this bucket.
    pub fn new(aws: &SdkConfig, bucket: Option<String>) -> Self {
        CreateFlowLogs { ec2: Client::new(aws), bucket }
    }

    /// The flow logs of these interfaces, subnets and VPCs. EC2 takes 200 values in a filter; an instance has fewer.
    async fn flow_logs(&self, target: &Target, interfaces: &[NetworkInterface]) -> Result<Vec<FlowLog>> {
        let resources = interfaces.iter().flat_map(observed_at).map(ToOwned::to_owned);
        let resources: BTreeSet<String> = resources.collect();
        let of_them = Filter::builder().name("resource-id").set_values(Some(resources.into_iter().collect())).build();
        let pages = self.ec2.describe_flow_logs().filter(of_them).into_paginator().items().send();
        pages.try_collect().await.map_err(Error::aws("ec2:DescribeFlowLogs", &target.instance_id))
    }

    /// One call for each interface, each with a token of its own: a retry after a lost answer makes no second flow log,
    /// and a retry for some of the interfaces does not look like another request under the same token.
    async fn create(&self, target: &Target, bucket: &str, interface: &str) -> Result<()> {
        let call = self
            .ec2
            .create_flow_logs()
            .resource_ids(interface)
            .resource_type(FlowLogsResourceType::NetworkInterface)
            .traffic_type(TrafficType::All)
            .max_aggregation_interval(60)
            .log_destination_type(LogDestinationType::S3)
            .log_destination(format!("arn:{}:s3:::{bucket}{}", target.partition(), prefix(target)))
            .log_format(FIELDS)
            .tag_specifications(tags(target))
            .client_token(token(target, interface));
        let reply = call.send().await.map_err(Error::aws("ec2:CreateFlowLogs", interface))?;
        match reply.unsuccessful() {
            [] => Ok(()),
            [first, ..] => Err(refused("ec2:CreateFlowLogs", interface, first, reply.request_id())),
        }
    }

    async fn delete(&self, flow_log: &str) -> Result<()> {
        let sent = self.ec2.delete_flow_logs().flow_log_ids(flow_log).send().await;
        let reply = sent.map_err(Error::aws("ec2:DeleteFlowLogs", flow_log))?;
        match reply.unsuccessful() {
            [] => Ok(()),
            [first, ..] => Err(refused("ec2:DeleteFlowLogs", flow_log, first, reply.request_id())),
        }
    }
}

/// Where a case's flow logs are delivered in the bucket: a flow log with this destination is the case's own.
fn prefix(target: &Target) -> String {
    format!("/flow-logs/{}/{}/{}/", target.account_id, target.region, target.case_id)
}

/// A reply of success can still name resources for which nothing was done.
fn refused(action: &'static str, resource: &str, item: &UnsuccessfulItem, request_id: Option<&str>) -> Error {
    let error = item.error();
    Error::Aws(Box::new(AwsError {
        action,
        resource: item.resource_id().unwrap_or(resource).to_owned(),
        kind: Kind::Refused,
        code: error.and_then(|e| e.code()).unwrap_or("no code").to_owned(),
        message: error.and_then(|e| e.message()).unwrap_or("no reason given").to_owned(),
        request_id: request_id.map(ToOwned::to_owned),
    }))
}

fn token(target: &Target, interface: &str) -> String {
    let run = target.execution.as_deref().and_then(|arn| arn.rsplit(':').next()).unwrap_or(&target.case_id);
    format!("{interface}-{run}").chars().filter(char::is_ascii_graphic).take(TOKEN_CHARACTERS).collect()
}

/// Set with the creation itself, so that a flow log of Cordon's is never without its case.
fn tags(target: &Target) -> TagSpecification {
    let tags = target.incident_tags().into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
    let instance = Tag::builder().key("InstanceId").value(&target.instance_id).build();
    TagSpecification::builder()
        .resource_type(ResourceType::VpcFlowLog)
        .set_tags(Some(tags.collect()))
        .tags(instance)
        .build()
}

/// What a flow log may be made for to show an interface's traffic: the interface itself, its subnet, its VPC.
fn observed_at(interface: &NetworkInterface) -> impl Iterator<Item = &str> {
    [interface.network_interface_id(), interface.subnet_id(), interface.vpc_id()].into_iter().flatten()
}

/// Whether it shows accepted and rejected traffic, and arrives. A filter on either half hides the answer that matters.
fn shows_all(log: &FlowLog) -> bool {
    log.flow_log_status() == Some("ACTIVE")
        && log.traffic_type() == Some(&TrafficType::All)
        && log.deliver_logs_status() != Some("FAILED")
}

fn destination(log: &FlowLog) -> &str {
    log.log_destination().or(log.log_group_name()).unwrap_or("unknown")
}

fn found(interfaces: &[NetworkInterface], logs: &[FlowLog]) -> Found<Coverage, BTreeSet<String>> {
    found_with(interfaces, logs, &BTreeSet::new())
}

/// What shows each interface's traffic, and those of Cordon's flow logs that don't.
fn found_with(
    interfaces: &[NetworkInterface],
    logs: &[FlowLog],
    ours: &BTreeSet<String>,
) -> Found<Coverage, BTreeSet<String>> {
    let is_ours = |log: &FlowLog| log.flow_log_id().is_some_and(|id| ours.contains(id));
    let mut state = State::new();
    for interface in interfaces {
        let Some(id) = interface.network_interface_id() else { continue };
        let of_it = logs.iter().filter(|log| {
            (shows_all(log) || is_ours(log)) && observed_at(interface).any(|id| log.resource_id() == Some(id))
        });
        let flow_logs: BTreeMap<String, String> =
            of_it.filter_map(|log| Some((log.flow_log_id()?.to_owned(), destination(log).to_owned()))).collect();
        state.insert(Key::new(id, FLOW_LOGS), Coverage { covered: !flow_logs.is_empty(), flow_logs });
    }
    Found { state, facts: ours.clone() }
}

/// Only the case itself has a flow log of an interface delivered below its own prefix. Its tags may be gone
/// (aws-behaviour#tags).
fn ours(target: &Target, logs: &[FlowLog]) -> BTreeSet<String> {
    let prefix = prefix(target);
    let ours = logs.iter().filter(|log| log.log_destination().is_some_and(|place| place.ends_with(&prefix)));
    ours.filter_map(|log| log.flow_log_id.clone()).collect()
}

impl Step for CreateFlowLogs {
    type Value = Coverage;
    /// The flow logs that this case has made; read at a release only.
    type Facts = BTreeSet<String>;
    const NAME: &'static str = "create-flow-logs";

    async fn read(&self, target: &Target) -> Result<Found<Coverage, BTreeSet<String>>> {
        let interfaces = instance::interfaces(&self.ec2, target).await?;
        if interfaces.is_empty() {
            return Err(Error::NotFound(format!("interfaces of {} not found", target.instance_id)));
        }
        let logs = self.flow_logs(target, &interfaces).await?;
        Ok(found(&interfaces, &logs))
    }

    /// Interfaces that AWS manages count too: flow logs can be made for them
    /// (<https://docs.aws.amazon.com/vpc/latest/userguide/flow-logs-basics.html>). EC2 itself says what it refuses.
    fn contained(&self, _: &Target, found: &Found<Coverage, BTreeSet<String>>, _: &Journaled) -> Goal<Coverage> {
        let covered = |coverage: &Coverage| Coverage { covered: true, ..coverage.clone() };
        Goal::new(found.state.iter().map(|(key, coverage)| (key.clone(), covered(coverage))).collect())
    }

    async fn write(
        &self,
        target: &Target,
        found: &Found<Coverage, BTreeSet<String>>,
        goal: &State<Coverage>,
    ) -> Writes {
        let mut writes = Writes::default();
        let wanted = |key: &Key, id: &str| goal.get(key).is_some_and(|coverage| coverage.flow_logs.contains_key(id));
        let there = found.state.iter().flat_map(|(key, coverage)| coverage.flow_logs.keys().map(move |id| (key, id)));
        let surplus: BTreeSet<&String> = there.filter(|(key, id)| !wanted(key, id)).map(|(_, id)| id).collect();
        for result in join_all(surplus.into_iter().map(|id| self.delete(id))).await {
            match result {
                // Somebody was faster; the read back tells.
                Err(error) if error.code() == Some("InvalidFlowLogId.NotFound") => {}
                result => _ = writes.note(result),
            }
        }
        let to_cover = |key: &Key| goal.get(key).is_some_and(|coverage| coverage.covered);
        let open = found.state.iter().filter(|(key, coverage)| !coverage.covered && to_cover(key));
        let open: Vec<&String> = open.map(|(key, _)| &key.resource).collect();
        if open.is_empty() {
            return writes;
        }
        let Some(bucket) = &self.bucket else {
            let missing = "the function's environment has no FLOW_LOG_BUCKET; template.yaml sets it";
            writes.failures.push(Error::Misconfigured(missing.to_owned()));
            return writes;
        };
        for result in join_all(open.into_iter().map(|interface| self.create(target, bucket, interface))).await {
            writes.note(result);
        }
        writes
    }
}

impl Reversible for CreateFlowLogs {
    /// The journal's interfaces, detached ones included: their flow logs still exist.
    async fn read_journaled(&self, target: &Target, first: &First) -> Result<Found<Coverage, BTreeSet<String>>> {
        let attached = instance::interfaces(&self.ec2, target).await?;
        let is_journaled = |id: &str| first.contains_key(&Key::new(id, FLOW_LOGS));
        let mut interfaces: Vec<NetworkInterface> =
            attached.into_iter().filter(|i| i.network_interface_id().is_some_and(is_journaled)).collect();
        for key in first.keys() {
            if !interfaces.iter().any(|i| i.network_interface_id() == Some(&key.resource)) {
                interfaces.push(NetworkInterface::builder().network_interface_id(&key.resource).build());
            }
        }
        let logs = self.flow_logs(target, &interfaces).await?;
        Ok(found_with(&interfaces, &logs, &ours(target, &logs)))
    }

    /// Without the case's own flow logs. What the owner has made since stays, and keeps covering the interface.
    fn released(&self, _: &Target, found: &Found<Coverage, BTreeSet<String>>, first: &First) -> Goal<Coverage> {
        let mut goal = Goal::new(found.state.clone());
        let (values, unreadable) = first_values::<Coverage>(first);
        goal.unsupported = unreadable;
        for (key, _) in values.iter().filter(|(_, before)| before.as_ref().is_none_or(|before| !before.covered)) {
            let Some(coverage) = goal.state.get_mut(key) else { continue };
            coverage.flow_logs.retain(|id, _| !found.facts.contains(id));
            coverage.covered = !coverage.flow_logs.is_empty();
        }
        goal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::create_flow_logs::CreateFlowLogsOutput;
    use aws_sdk_ec2::operation::describe_flow_logs::DescribeFlowLogsOutput;
    use aws_sdk_ec2::operation::describe_network_interfaces::DescribeNetworkInterfacesOutput;
    use aws_sdk_ec2::types::UnsuccessfulItemError;
    use aws_sdk_ec2::types::builders::FlowLogBuilder;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

    fn target() -> Target {
        Target::example()
    }

    fn step(rules: &[&Rule]) -> CreateFlowLogs {
        CreateFlowLogs { ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, rules), bucket: Some("flows".to_owned()) }
    }

    fn interface(id: &str) -> NetworkInterface {
        NetworkInterface::builder().network_interface_id(id).subnet_id("subnet-1").vpc_id("vpc-1").build()
    }

    fn flow_log(on: &str) -> FlowLogBuilder {
        let log = FlowLog::builder().flow_log_id(format!("fl-{on}")).resource_id(on).flow_log_status("ACTIVE");
        log.traffic_type(TrafficType::All).deliver_logs_status("SUCCESS").log_destination("arn:aws:s3:::theirs")
    }

    fn log(on: &str) -> FlowLog {
        flow_log(on).build()
    }

    fn coverage(logs: &[FlowLog]) -> Coverage {
        found(&[interface("eni-1")], logs).state[&Key::new("eni-1", FLOW_LOGS)].clone()
    }

    #[test]
    fn a_flow_log_of_the_interface_its_subnet_or_its_vpc_covers_it() {
        for on in ["eni-1", "subnet-1", "vpc-1"] {
            let flow_logs = [(format!("fl-{on}"), "arn:aws:s3:::theirs".to_owned())].into();
            assert_eq!(coverage(&[log(on)]), Coverage { covered: true, flow_logs });
        }
        assert_eq!(coverage(&[log("eni-2"), log("subnet-2"), log("vpc-2")]), Coverage::default());
    }

    #[test]
    fn a_flow_log_that_hides_accepted_traffic_or_never_arrives_covers_nothing() {
        let rejected = flow_log("vpc-1").traffic_type(TrafficType::Reject);
        let undelivered = flow_log("vpc-1").deliver_logs_status("FAILED");
        let inactive = flow_log("vpc-1").set_flow_log_status(None);
        let logs = [rejected, undelivered, inactive].map(FlowLogBuilder::build);
        assert_eq!(coverage(&logs), Coverage::default());
    }

    #[test]
    fn covered_interfaces_are_a_fixed_point_and_an_uncovered_one_is_planned() {
        let found = found(&[interface("eni-1")], &[log("vpc-1")]);
        assert_eq!(step(&[]).contained(&target(), &found, &Journaled::default()).state, found.state);
        let open = super::found(&[interface("eni-1")], &[]);
        assert_ne!(step(&[]).contained(&target(), &open, &Journaled::default()).state, open.state);
    }

    #[test]
    fn an_interface_that_aws_manages_gets_a_flow_log_too() {
        let managed = NetworkInterface::builder().network_interface_id("eni-1").requester_managed(true).build();
        assert_eq!(found(&[managed], &[]).state.len(), 1);
    }

    #[tokio::test]
    async fn only_an_uncovered_interface_gets_a_flow_log_below_the_cases_prefix() {
        let created = mock!(Client::create_flow_logs)
            .match_requests(|r| {
                let tags = r.tag_specifications()[0].tags();
                r.resource_ids() == ["eni-2"]
                    && r.resource_type() == Some(&FlowLogsResourceType::NetworkInterface)
                    && r.traffic_type() == Some(&TrafficType::All)
                    && r.max_aggregation_interval() == Some(60)
                    && r.log_destination() == Some("arn:aws:s3:::flows/flow-logs/123456789012/eu-west-1/c-1/")
                    && r.client_token() == Some("eni-2-c-1")
                    && r.log_format().is_some_and(|f| f.contains("${action} ") && f.contains("${pkt-dstaddr}"))
                    && tags.iter().any(|t| t.key() == Some("CordonCase") && t.value() == Some("c-1"))
            })
            .then_output(|| CreateFlowLogsOutput::builder().flow_log_ids("fl-2").build());
        let found = found(
            &[interface("eni-1"), NetworkInterface::builder().network_interface_id("eni-2").build()],
            &[log("subnet-1")],
        );
        let step = step(&[&created]);
        let goal = step.contained(&target(), &found, &Journaled::default()).state;
        assert!(step.write(&target(), &found, &goal).await.failures.is_empty());
        assert_eq!(created.num_calls(), 1);
    }

    #[tokio::test]
    async fn an_interface_that_the_reply_names_as_unsuccessful_is_a_failure() {
        let created = mock!(Client::create_flow_logs).then_output(|| {
            let error = UnsuccessfulItemError::builder().code("FlowLogsLimitExceeded").message("too many").build();
            let item = UnsuccessfulItem::builder().resource_id("eni-1").error(error).build();
            CreateFlowLogsOutput::builder().unsuccessful(item).build()
        });
        let found = found(&[interface("eni-1")], &[]);
        let step = step(&[&created]);
        let writes =
            step.write(&target(), &found, &step.contained(&target(), &found, &Journaled::default()).state).await;
        let text = writes.failures[0].to_string();
        assert!(text.starts_with("ec2:CreateFlowLogs on eni-1: FlowLogsLimitExceeded: too many"), "{text}");
        assert_eq!(writes.failures[0].code(), Some("FlowLogsLimitExceeded"));
    }

    #[tokio::test]
    async fn without_a_bucket_nothing_is_created_and_the_setting_is_named() {
        let step = CreateFlowLogs { bucket: None, ..step(&[]) };
        let found = found(&[interface("eni-1")], &[]);
        let writes =
            step.write(&target(), &found, &step.contained(&target(), &found, &Journaled::default()).state).await;
        assert!(writes.failures[0].to_string().contains("FLOW_LOG_BUCKET"));
    }

    fn uncovered(interfaces: &[&str]) -> First {
        interfaces.iter().map(|id| (Key::new(*id, FLOW_LOGS), serde_json::json!({ "Covered": false }))).collect()
    }

    fn our_log(on: &str) -> FlowLog {
        let ours = "arn:aws:s3:::flows/flow-logs/123456789012/eu-west-1/c-1/";
        // Delivery failed, but it is Cordon's.
        flow_log(on).flow_log_id(format!("fl-ours-{on}")).log_destination(ours).deliver_logs_status("FAILED").build()
    }

    #[tokio::test]
    async fn a_release_deletes_this_cases_flow_logs_and_leaves_all_others() {
        let interfaces = mock!(Client::describe_network_interfaces)
            .then_output(|| DescribeNetworkInterfacesOutput::builder().network_interfaces(interface("eni-1")).build());
        let logs = mock!(Client::describe_flow_logs)
            .match_requests(|r| r.filter()[0].values() == ["eni-1", "eni-detached", "subnet-1", "vpc-1"])
            .then_output(|| {
                let other_case =
                    flow_log("eni-1").log_destination("arn:aws:s3:::flows/flow-logs/123456789012/eu-west-1/c-11/");
                DescribeFlowLogsOutput::builder()
                    .set_flow_logs(Some(vec![
                        our_log("eni-1"),
                        our_log("eni-detached"),
                        log("vpc-1"),
                        other_case.build(),
                    ]))
                    .build()
            });
        let deleted = mock!(Client::delete_flow_logs)
            .match_requests(|r| matches!(r.flow_log_ids(), [id] if id.starts_with("fl-ours-")))
            .then_output(|| aws_sdk_ec2::operation::delete_flow_logs::DeleteFlowLogsOutput::builder().build());
        let (step, first) = (step(&[&interfaces, &logs, &deleted]), uncovered(&["eni-1", "eni-detached"]));
        let found = step.read_journaled(&target(), &first).await.expect("read");
        let goal = step.released(&target(), &found, &first);
        let left: Vec<&String> = goal.state[&Key::new("eni-1", FLOW_LOGS)].flow_logs.keys().collect();
        assert_eq!(left, ["fl-eni-1", "fl-vpc-1"]);
        assert_eq!(goal.state[&Key::new("eni-detached", FLOW_LOGS)], Coverage::default());
        assert!(step.write(&target(), &found, &goal.state).await.failures.is_empty());
        assert_eq!(deleted.num_calls(), 2);
        let again = Found { state: goal.state.clone(), facts: BTreeSet::new() };
        assert_eq!(step.released(&target(), &again, &first), goal);
    }

    #[tokio::test]
    async fn the_flow_logs_of_all_three_places_are_read_in_one_call() {
        let interfaces = mock!(Client::describe_network_interfaces)
            .then_output(|| DescribeNetworkInterfacesOutput::builder().network_interfaces(interface("eni-1")).build());
        let logs = mock!(Client::describe_flow_logs)
            .match_requests(|r| r.filter()[0].values() == ["eni-1", "subnet-1", "vpc-1"])
            .then_output(|| DescribeFlowLogsOutput::builder().flow_logs(log("vpc-1")).build());
        let found = step(&[&interfaces, &logs]).read(&target()).await.expect("read");
        assert!(found.state[&Key::new("eni-1", FLOW_LOGS)].covered);
    }

    #[tokio::test]
    async fn an_instance_without_interfaces_is_an_error_and_no_success() {
        let none = mock!(Client::describe_network_interfaces)
            .then_output(|| DescribeNetworkInterfacesOutput::builder().build());
        assert_eq!(step(&[&none]).read(&target()).await.expect_err("none").name(), "NotFound");
    }

    #[test]
    fn a_token_is_the_runs_and_the_interfaces_and_fits() {
        let execution = format!("arn:aws:states:eu-west-1:123456789012:execution:cordon:{}", "x".repeat(80));
        let target = Target { execution: Some(execution), ..target() };
        let token = token(&target, "eni-0123456789abcdef0");
        assert!(token.starts_with("eni-0123456789abcdef0-xxx") && token.len() == TOKEN_CHARACTERS, "{token}");
    }
}
