//! Takes the instance out of every load balancer: target groups by the exact target, classic load balancers by instance.
//!
//! Does not wait for draining: the network is cut already (aws-behaviour#draining).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use aws_config::SdkConfig;
use aws_sdk_ec2::types::NetworkInterface;
use aws_sdk_elasticloadbalancing as classic;
use aws_sdk_elasticloadbalancingv2 as v2;
use containment::{
    Error, First, Found, Goal, Journaled, Key, OnDrift, Result, Reversible, State, Step, Target, Writes, command,
    first_values,
};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use registrations::{CLASSIC, DEREGISTER_TARGETS, DRAINING, REGISTERED, Registration, target_key};
use v2::types::{TargetDescription, TargetGroup, TargetHealthDescription, TargetHealthStateEnum, TargetTypeEnum};

/// The step. Reads target groups, their targets and classic load balancers; deregisters exactly what is registered, and
/// registers exactly that again.
#[derive(Debug, Clone)]
pub struct DeregisterTargets {
    ec2: aws_sdk_ec2::Client,
    elb: classic::Client,
    elbv2: v2::Client,
    /// Where the first read found the instance registered. Later reads look nowhere else: the step itself registers it
    /// nowhere, and the API is throttled per account and Region.
    registered_in: OnceLock<Places>,
}

/// Where to look for registrations.
#[derive(Debug, Clone)]
struct Places {
    facts: Facts,
    any_classic: bool,
}

/// What the instance can be registered by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    addresses: BTreeSet<String>,
    /// Type and default port of each target group that was searched, by ARN.
    groups: BTreeMap<String, (TargetTypeEnum, Option<i32>)>,
    /// Target groups by address in other VPCs, which were not searched.
    elsewhere: usize,
    /// All classic load balancers; read at a release only.
    load_balancers: BTreeSet<String>,
}

/// Requests under way at once: the API is throttled per account and Region (aws-behaviour#api-throttling).
const AT_ONCE: usize = 10;

impl DeregisterTargets {
    /// The step in the configuration's Region.
    pub fn new(aws: &SdkConfig) -> Self {
        DeregisterTargets {
            ec2: aws_sdk_ec2::Client::new(aws),
            elb: classic::Client::new(aws),
            elbv2: v2::Client::new(aws),
            registered_in: OnceLock::new(),
        }
    }

    async fn read_everywhere(&self, target: &Target) -> Result<Found<Registration, Facts>> {
        let (interfaces, groups, classic) = futures::try_join!(
            instance::interfaces(&self.ec2, target),
            self.target_groups(),
            self.classic_load_balancers(target)
        )?;
        let vpcs: BTreeSet<String> = interfaces.iter().filter_map(|i| i.vpc_id().map(ToOwned::to_owned)).collect();
        let (groups, elsewhere) = candidates(&groups, &vpcs);
        let facts = Facts { addresses: addresses(&interfaces), groups, elsewhere, ..Facts::default() };
        self.registrations(target, facts, classic).await
    }

    async fn read_again(&self, target: &Target, places: &Places) -> Result<Found<Registration, Facts>> {
        let none = BTreeMap::new();
        let classic = if places.any_classic { self.classic_load_balancers(target).await? } else { none };
        self.registrations(target, places.facts.clone(), classic).await
    }

    async fn target_groups(&self) -> Result<Vec<TargetGroup>> {
        let pages = self.elbv2.describe_target_groups().into_paginator().items().send();
        pages.try_collect().await.map_err(Error::aws("elasticloadbalancing:DescribeTargetGroups", "all target groups"))
    }

    /// The names of all classic load balancers, and whether they have the instance.
    async fn classic_load_balancers(&self, target: &Target) -> Result<BTreeMap<String, bool>> {
        let pages = self.elb.describe_load_balancers().into_paginator().items().send();
        let found: Vec<_> = pages
            .try_collect()
            .await
            .map_err(Error::aws("elasticloadbalancing:DescribeLoadBalancers", "all classic load balancers"))?;
        let has = |lb: &classic::types::LoadBalancerDescription| {
            lb.instances().iter().any(|i| i.instance_id() == Some(&target.instance_id))
        };
        Ok(found.iter().filter_map(|lb| Some((lb.load_balancer_name()?.to_owned(), has(lb)))).collect())
    }

    async fn health(&self, group: &str) -> Result<Vec<TargetHealthDescription>> {
        let sent = self.elbv2.describe_target_health().target_group_arn(group).send().await;
        match sent.map_err(Error::aws("elasticloadbalancing:DescribeTargetHealth", group)) {
            Ok(reply) => Ok(reply.target_health_descriptions.unwrap_or_default()),
            // Somebody deleted the group since it was listed: nothing is registered in it.
            Err(error) if matches!(error.code(), Some("TargetGroupNotFound" | "TargetGroupNotFoundException")) => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    async fn registrations(
        &self,
        target: &Target,
        facts: Facts,
        classic: BTreeMap<String, bool>,
    ) -> Result<Found<Registration, Facts>> {
        let groups: Vec<String> = facts.groups.keys().cloned().collect();
        let health: Vec<(String, Vec<TargetHealthDescription>)> = stream::iter(groups)
            .map(|arn| async move {
                let health = self.health(&arn).await?;
                Ok::<_, Error>((arn, health))
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let mut state = State::new();
        for (arn, targets) in &health {
            let (kind, default_port) = &facts.groups[arn];
            for (description, registration) in targets.iter().filter_map(|t| Some((t.target()?, registration(t)?))) {
                let ours = match kind {
                    TargetTypeEnum::Instance => description.id() == Some(&target.instance_id),
                    _ => description.id().is_some_and(|id| facts.addresses.contains(id)),
                };
                if ours {
                    state.insert(target_key(arn, &registration.id, registration.port, *default_port), registration);
                }
            }
        }
        for (name, _) in classic.into_iter().filter(|(_, has)| *has) {
            state.insert(Key::new(name, CLASSIC), Registration::of(&target.instance_id));
        }
        Ok(Found { state, facts })
    }

    async fn deregister(&self, target: &Target, key: &Key, registration: &Registration) -> Result<()> {
        if key.attribute == CLASSIC {
            let instance = classic::types::Instance::builder().instance_id(&target.instance_id).build();
            let call = self.elb.deregister_instances_from_load_balancer().load_balancer_name(&key.resource);
            let sent = call.instances(instance).send().await;
            return sent
                .map(|_| ())
                .map_err(Error::aws("elasticloadbalancing:DeregisterInstancesFromLoadBalancer", &key.resource));
        }
        let call = self.elbv2.deregister_targets().target_group_arn(&key.resource).targets(description(registration));
        let sent = call.send().await;
        sent.map(|_| ()).map_err(Error::aws("elasticloadbalancing:DeregisterTargets", &key.resource))
    }

    async fn register(&self, target: &Target, key: &Key, registration: &Registration) -> Result<()> {
        if key.attribute == CLASSIC {
            let instance = classic::types::Instance::builder().instance_id(&target.instance_id).build();
            let call = self.elb.register_instances_with_load_balancer().load_balancer_name(&key.resource);
            let sent = call.instances(instance).send().await;
            return sent
                .map(|_| ())
                .map_err(Error::aws("elasticloadbalancing:RegisterInstancesWithLoadBalancer", &key.resource));
        }
        let call = self.elbv2.register_targets().target_group_arn(&key.resource).targets(description(registration));
        let sent = call.send().await;
        sent.map(|_| ()).map_err(Error::aws("elasticloadbalancing:RegisterTargets", &key.resource))
    }
}

fn description(registration: &Registration) -> TargetDescription {
    TargetDescription::builder()
        .id(&registration.id)
        .set_port(registration.port)
        .set_availability_zone(registration.availability_zone.clone())
        .set_quic_server_id(registration.quic_server_id.clone())
        .build()
}

/// Why a registration can't be restored, if so, with the command for when it can.
fn obstacle(target: &Target, facts: &Facts, key: &Key, registration: &Registration) -> Option<String> {
    let (resource, id) = (&key.resource, &registration.id);
    if key.attribute == CLASSIC {
        let options: [(&str, &[&str]); 2] =
            [("--load-balancer-name", &[resource]), ("--instances", &[&target.instance_id])];
        let by_hand = command(target, "elb register-instances-with-load-balancer", &options);
        return (!facts.load_balancers.contains(resource)).then(|| {
            format!("the classic load balancer {resource:?} no longer exists; once there is one again: {by_hand}")
        });
    }
    let mut tuple = format!("Id={id}");
    let parts = [
        ("Port", registration.port.map(|port| port.to_string())),
        ("AvailabilityZone", registration.availability_zone.clone()),
        ("QuicServerId", registration.quic_server_id.clone()),
    ];
    for (name, value) in parts.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        tuple.push_str(&format!(",{name}={value}"));
    }
    let options: [(&str, &[&str]); 2] = [("--target-group-arn", &[resource]), ("--targets", &[&tuple])];
    let by_hand = command(target, "elbv2 register-targets", &options);
    match facts.groups.get(resource) {
        None => Some(format!("the target group {resource} no longer exists; once there is one again: {by_hand}")),
        // Another host may have the address by now, and would get the traffic.
        Some((TargetTypeEnum::Ip, _)) if !facts.addresses.contains(id) => Some(format!(
            "{id}, which was registered in {resource}, is no longer an address of the instance; to register it all \
             the same: {by_hand}"
        )),
        Some(_) => None,
    }
}

/// The target groups in which the instance can be: by instance id in its own VPCs, by address in its own VPCs.
///
/// An `ip` group of another VPC can hold the address too: of this instance, or of another host that has the same one in
/// a third VPC. Deregistering that host would be an outage, so such a group is reported and not touched.
fn candidates(
    groups: &[TargetGroup],
    vpcs: &BTreeSet<String>,
) -> (BTreeMap<String, (TargetTypeEnum, Option<i32>)>, usize) {
    let in_vpcs = |group: &&TargetGroup| group.vpc_id().is_some_and(|vpc| vpcs.contains(vpc));
    let of_kind =
        |group: &&TargetGroup| matches!(group.target_type(), Some(TargetTypeEnum::Instance | TargetTypeEnum::Ip));
    let here = groups.iter().filter(of_kind).filter(in_vpcs);
    let candidates =
        here.filter_map(|g| Some((g.target_group_arn()?.to_owned(), (g.target_type()?.clone(), g.port()))));
    let elsewhere = groups.iter().filter(|g| g.target_type() == Some(&TargetTypeEnum::Ip) && !in_vpcs(g)).count();
    (candidates.collect(), elsewhere)
}

fn registration(target: &TargetHealthDescription) -> Option<Registration> {
    let description = target.target()?;
    let state = match target.target_health()?.state()? {
        TargetHealthStateEnum::Draining => DRAINING,
        TargetHealthStateEnum::Unused
            if target.target_health()?.reason() == Some(&v2::types::TargetHealthReasonEnum::NotRegistered) =>
        {
            return None;
        }
        _ => REGISTERED,
    };
    Some(Registration {
        id: description.id()?.to_owned(),
        port: description.port(),
        availability_zone: description.availability_zone().map(ToOwned::to_owned),
        quic_server_id: description.quic_server_id().map(ToOwned::to_owned),
        state: state.to_owned(),
    })
}

fn addresses(interfaces: &[NetworkInterface]) -> BTreeSet<String> {
    let v4 = interfaces.iter().flat_map(|i| i.private_ip_addresses()).filter_map(|a| a.private_ip_address());
    let v6 = interfaces.iter().flat_map(|i| i.ipv6_addresses()).filter_map(|a| a.ipv6_address());
    v4.chain(v6).map(ToOwned::to_owned).collect()
}

impl Step for DeregisterTargets {
    type Value = Registration;
    type Facts = Facts;
    const NAME: &'static str = DEREGISTER_TARGETS;

    async fn read(&self, target: &Target) -> Result<Found<Registration, Facts>> {
        if let Some(places) = self.registered_in.get() {
            return self.read_again(target, places).await;
        }
        let found = self.read_everywhere(target).await?;
        let mut facts = found.facts.clone();
        facts.groups.retain(|arn, _| found.state.keys().any(|key| &key.resource == arn));
        let any_classic = found.state.keys().any(|key| key.attribute == CLASSIC);
        self.registered_in.get_or_init(|| Places { facts, any_classic });
        Ok(found)
    }

    fn contained(&self, _: &Target, found: &Found<Registration, Facts>, _: &Journaled) -> Goal<Registration> {
        let mut goal = Goal::new(State::new());
        if found.facts.elsewhere > 0 {
            goal.residual_risk.push(format!(
                "{} target groups of type `ip` in other VPCs were not searched: an address there may be this instance's, \
                 through peering, or a stranger's",
                found.facts.elsewhere
            ));
        }
        if found.state.is_empty() {
            goal.not_applicable = Some("the instance is in no target group and no classic load balancer".to_owned());
        }
        goal
    }

    fn accepted(&self, registration: &Registration) -> bool {
        registration.state == DRAINING
    }

    async fn write(&self, target: &Target, found: &Found<Registration, Facts>, goal: &State<Registration>) -> Writes {
        let registered = |state: &State<Registration>, key: &Key| state.get(key).is_some_and(|r| r.state == REGISTERED);
        let open = found
            .state
            .iter()
            .filter(|(key, registration)| registration.state == REGISTERED && !goal.contains_key(*key));
        let out = open.map(|(key, registration)| self.deregister(target, key, registration).boxed());
        let missing = goal.iter().filter(|(key, _)| registered(goal, key) && !registered(&found.state, key));
        let back = missing.map(|(key, registration)| self.register(target, key, registration).boxed());
        let calls: Vec<_> = out.chain(back).collect();
        let results: Vec<Result<()>> = stream::iter(calls).buffer_unordered(AT_ONCE).collect().await;
        let mut writes = Writes::default();
        for result in results {
            writes.note(result);
        }
        writes
    }
}

impl Reversible for DeregisterTargets {
    const ON_DRIFT: OnDrift = OnDrift::Discard;

    /// Only the groups and load balancers that the journal names, as far as they still exist.
    async fn read_journaled(&self, target: &Target, first: &First) -> Result<Found<Registration, Facts>> {
        let (of_classic, of_groups): (Vec<&Key>, Vec<&Key>) = first.keys().partition(|key| key.attribute == CLASSIC);
        let groups = async { if of_groups.is_empty() { Ok(Vec::new()) } else { self.target_groups().await } };
        let classic = async {
            if of_classic.is_empty() { Ok(BTreeMap::new()) } else { self.classic_load_balancers(target).await }
        };
        let (interfaces, groups, mut classic) =
            futures::try_join!(instance::interfaces(&self.ec2, target), groups, classic)?;
        let load_balancers = classic.keys().cloned().collect();
        classic.retain(|name, _| of_classic.iter().any(|key| key.resource == *name));
        let groups = groups
            .iter()
            .filter(|group| group.target_group_arn().is_some_and(|arn| of_groups.iter().any(|key| key.resource == arn)))
            .filter_map(|g| Some((g.target_group_arn()?.to_owned(), (g.target_type()?.clone(), g.port()))));
        let facts = Facts { addresses: addresses(&interfaces), groups: groups.collect(), elsewhere: 0, load_balancers };
        let mut found = self.registrations(target, facts, classic).await?;
        found.state.retain(|key, _| first.contains_key(key));
        Ok(found)
    }

    /// A target that was draining when the case was opened was leaving, and stays out. Its health does not matter: it
    /// is registered as soon as the load balancer has begun to check it.
    fn released(&self, target: &Target, found: &Found<Registration, Facts>, first: &First) -> Goal<Registration> {
        let mut goal = Goal::new(found.state.clone());
        let (values, unreadable) = first_values::<Registration>(first);
        goal.unsupported = unreadable;
        for (key, registration) in values {
            let Some(registration) = registration.filter(|registration| registration.state == REGISTERED) else {
                continue;
            };
            if found.state.get(&key).is_some_and(|now| now.state == REGISTERED) {
                continue;
            }
            match obstacle(target, &found.facts, &key, &registration) {
                Some(why) => goal.unsupported.push(why),
                None => _ = goal.state.insert(key, registration),
            }
        }
        goal
    }
}

#[cfg(test)]
mod tests;
