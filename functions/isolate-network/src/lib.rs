//! Cuts the instance off the network: every interface ends on a security group without any rule.
//!
//! In two steps per interface, because established connections survive a change of groups (trap A1): a conversion group
//! that allows everything makes tracked flows untracked, then the isolation group cuts them.
//! Between the two there is only one way, forward: a run that is killed there is finished by the next.

mod groups;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::NetworkInterface;
use containment::{Error, Found, Goal, Key, Result, State, Step, Target, Writes};
use futures::future::join_all;

pub use groups::{CONVERSION, Group, ISOLATION};
pub use routes::automatically_tracked;

/// The step. Reads interfaces and Cordon's security groups; creates and repairs those groups, and sets interfaces' groups.
#[derive(Debug, Clone)]
pub struct IsolateNetwork {
    ec2: Client,
}

/// What there is to know of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Groups belong to a VPC, and an instance's interfaces may be in several (trap A7).
    pub vpc: String,
    /// For the routes.
    pub subnet: String,
    /// Who manages it, if not its owner: its groups can't be changed (trap A9).
    pub managed_by: Option<String>,
    /// `interface`, `trunk`, `efa`, …
    pub kind: String,
}

/// What the step needs to know beside the groups of each interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// By interface id.
    pub interfaces: BTreeMap<String, Interface>,
    /// Cordon's isolation group, by VPC.
    pub isolation: BTreeMap<String, Group>,
    /// Cordon's conversion group, by VPC.
    pub conversion: BTreeMap<String, Group>,
}

const GROUPS: &str = "Groups";
const RULES: &str = "Rules";

/// How long the conversion group stays, so that it has reached the hosts before it is replaced (trap A4).
/// It lets everybody in for so long; that is why it comes last before isolation and never stays.
const CONVERSION_STAYS: Duration = Duration::from_secs(5);

/// The routes only inform; the step does not wait for them for long.
const ROUTES_WITHIN: Duration = Duration::from_secs(20);

/// No AWS API shows the connections of an interface (trap A1).
const UNSEEN: &str = "whether connections that were open are cut cannot be read back from AWS: flow logs that go on showing \
     ACCEPT for the instance's interfaces mean that one is not";

/// No security group filters these (trap A5).
const UNFILTERED: &str = "no security group filters the VPC's DNS resolver, the instance metadata service, DHCP, the time \
     service or Windows activation: an attacker on the host can still tunnel through DNS names and read IMDS; \
     Route 53 Resolver DNS Firewall closes the first";

impl IsolateNetwork {
    /// The step in the configuration's Region.
    pub fn new(aws: &SdkConfig) -> Self {
        IsolateNetwork { ec2: Client::new(aws) }
    }

    /// The step with a client of the caller's, who may want to record its replies.
    pub fn with_client(ec2: Client) -> Self {
        IsolateNetwork { ec2 }
    }

    async fn set_groups(&self, interface: &str, groups: impl IntoIterator<Item = String>) -> Result<()> {
        let call = self.ec2.modify_network_interface_attribute().network_interface_id(interface);
        let sent = call.set_groups(Some(groups.into_iter().collect())).send().await;
        sent.map(|_| ()).map_err(Error::aws("ec2:ModifyNetworkInterfaceAttribute", interface))
    }

    /// The first half: everything allowed, so that nothing is tracked. Never keeps the second half from happening.
    async fn convert(
        &self,
        interfaces: &[&String],
        facts: &Facts,
        groups: &BTreeMap<String, String>,
        writes: &mut Writes,
    ) {
        let convertible = interfaces.iter().filter_map(|id| Some((*id, groups.get(&facts.interfaces[*id].vpc)?)));
        let calls = convertible.map(|(id, group)| async move { (id, self.set_groups(id, [group.clone()]).await) });
        for (id, result) in join_all(calls).await {
            if let Err(error) = result {
                writes.residual_risk.push(format!(
                    "{id} could not be put on the conversion group, so connections that were open may go on: {error}"
                ));
            }
        }
    }

    /// The second half. Tries again before it gives up, and then takes the interface off the conversion group:
    /// the groups it had let less through than one that lets in everybody.
    async fn isolate(
        &self,
        target: &Target,
        interface: &str,
        found: &Found<BTreeSet<String>, Facts>,
        isolation: &BTreeMap<String, String>,
    ) -> Result<()> {
        let group = &isolation[&found.facts.interfaces[interface].vpc];
        let mut result = self.set_groups(interface, [group.clone()]).await;
        for delay in [1, 2, 4].map(Duration::from_secs) {
            if result.is_ok() {
                break;
            }
            tokio::time::sleep(delay).await;
            result = self.set_groups(interface, [group.clone()]).await;
        }
        let Err(error) = result else { return Ok(()) };
        let before = found.state.get(&Key::new(interface, GROUPS)).cloned().unwrap_or_default();
        if needs_conversion(found, interface) && self.is_still_open(target, found, interface).await? {
            self.set_groups(interface, before).await?;
        }
        Err(error)
    }

    /// Another run may have isolated the interface in the meantime, and that must stay.
    async fn is_still_open(
        &self,
        target: &Target,
        found: &Found<BTreeSet<String>, Facts>,
        interface: &str,
    ) -> Result<bool> {
        let now = instance::interfaces(&self.ec2, target).await?;
        let now = now.iter().find(|i| i.network_interface_id() == Some(interface));
        let isolation = found.facts.isolation.get(&found.facts.interfaces[interface].vpc);
        let isolated =
            |i: &NetworkInterface| i.groups().iter().any(|g| g.group_id() == isolation.map(|g| g.id.as_str()));
        Ok(now.is_some_and(|i| !isolated(i)))
    }
}

impl Step for IsolateNetwork {
    /// For an interface its groups' ids, for one of Cordon's groups its rules in words.
    type Value = BTreeSet<String>;
    type Facts = Facts;
    const NAME: &'static str = "isolate-network";

    async fn read(&self, target: &Target) -> Result<Found<Self::Value, Facts>> {
        let (interfaces, groups) =
            futures::try_join!(instance::interfaces(&self.ec2, target), groups::find(&self.ec2, &target.account_id))?;
        if interfaces.is_empty() {
            return Err(Error::NotFound(format!("interfaces of {} not found", target.instance_id)));
        }
        let mut found = Found { state: State::new(), facts: Facts::default() };
        for interface in &interfaces {
            let Some(id) = interface.network_interface_id() else { continue };
            let groups = interface.groups().iter().filter_map(|g| g.group_id().map(ToOwned::to_owned)).collect();
            found.state.insert(Key::new(id, GROUPS), groups);
            found.facts.interfaces.insert(id.to_owned(), facts_of(interface));
        }
        let vpcs: BTreeSet<&String> = found.facts.interfaces.values().map(|i| &i.vpc).collect();
        for (name, vpc, group) in groups {
            if vpcs.contains(&vpc) {
                found.state.insert(rules_key(&vpc, name), group.rules.clone());
                let of_vpc = if name == ISOLATION { &mut found.facts.isolation } else { &mut found.facts.conversion };
                of_vpc.insert(vpc, group);
            }
        }
        Ok(found)
    }

    fn contained(&self, _: &Target, found: &Found<Self::Value, Facts>) -> Goal<Self::Value> {
        let mut goal = Goal::new(found.state.clone());
        goal.residual_risk.extend([UNSEEN.to_owned(), UNFILTERED.to_owned()]);
        for (id, interface) in &found.facts.interfaces {
            let key = Key::new(id, GROUPS);
            if let Some(manager) = &interface.managed_by {
                goal.unsupported.push(format!("{id} is managed by {manager}: its groups can't be changed by its user"));
                continue;
            }
            if interface.kind == "trunk" {
                goal.unsupported.push(format!(
                    "{id} is a trunk: the pods' branch interfaces behind it have security groups of their own and are not isolated"
                ));
            }
            let isolation = found.facts.isolation.get(&interface.vpc).map_or(ISOLATION, |group| &group.id);
            let isolated = BTreeSet::from([isolation.to_owned()]);
            if needs_conversion(found, id) {
                goal.state.insert(rules_key(&interface.vpc, CONVERSION), groups::everything());
            }
            goal.state.insert(key, isolated);
            goal.state.insert(rules_key(&interface.vpc, ISOLATION), BTreeSet::new());
        }
        goal
    }

    async fn write(&self, target: &Target, found: &Found<Self::Value, Facts>, goal: &State<Self::Value>) -> Writes {
        let mut writes = Writes::default();
        let facts = &found.facts;
        let open: Vec<&String> = facts
            .interfaces
            .iter()
            .filter(|(id, i)| i.managed_by.is_none() && !is_isolated(found, id))
            .map(|(id, _)| id)
            .collect();
        for (vpc, group) in facts.isolation.iter().filter(|(_, group)| !group.rules.is_empty()) {
            let rules = group.rules.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            writes.residual_risk.push(format!(
                "{ISOLATION} in {vpc} had rules when it was looked at, which are being taken out: {rules}; what was on it then was not isolated"
            ));
        }
        let (isolation, conversion) = groups::ensure(&self.ec2, target, facts, goal, &mut writes).await;

        // Without an isolation group to go on to, the conversion group would only open the instance to everybody.
        let open: Vec<&String> =
            open.into_iter().filter(|id| isolation.contains_key(&facts.interfaces[*id].vpc)).collect();
        let to_convert: Vec<&String> = open.iter().filter(|id| needs_conversion(found, id)).copied().collect();
        self.convert(&to_convert, facts, &conversion, &mut writes).await;
        if open.is_empty() {
            return writes;
        }
        tokio::time::sleep(CONVERSION_STAYS).await;
        // Which paths cannot be cut this way is read at the same time, so that isolation waits for nothing.
        let subnets = open.iter().map(|id| (id.as_str(), &facts.interfaces[*id]));
        let calls = join_all(open.iter().map(|id| self.isolate(target, id, found, &isolation)));
        let tracked = tokio::time::timeout(ROUTES_WITHIN, automatically_tracked(&self.ec2, subnets));
        let (results, tracked) = futures::join!(calls, tracked);
        for result in results {
            writes.note(result);
        }
        match tracked {
            Ok(Ok(risks)) => writes.residual_risk.extend(risks),
            Err(_) => writes.residual_risk.push(
                "which connections cannot be cut is unknown, since the routes could not be read in time".to_owned(),
            ),
            Ok(Err(error)) => writes.residual_risk.push(format!(
                "which connections cannot be cut is unknown, since the routes could not be read: {error}"
            )),
        }
        writes
    }
}

fn facts_of(interface: &NetworkInterface) -> Interface {
    let managed = interface.requester_managed().unwrap_or(false);
    let manager = interface.operator().and_then(|o| o.principal()).or(interface.requester_id()).unwrap_or("AWS");
    let operated = interface.operator().and_then(|o| o.managed()).unwrap_or(false);
    Interface {
        vpc: interface.vpc_id().unwrap_or_default().to_owned(),
        subnet: interface.subnet_id().unwrap_or_default().to_owned(),
        managed_by: (managed || operated).then(|| manager.to_owned()),
        kind: interface.interface_type().map_or("interface", |kind| kind.as_str()).to_owned(),
    }
}

/// Cordon's groups by VPC and name: an id would not do, since a dry run plans groups that have none yet.
fn rules_key(vpc: &str, name: &str) -> Key {
    Key::new(format!("{vpc} {name}"), RULES)
}

/// Whether the interface is on this group of Cordon's and nothing else, and the group's rules are what they should be.
fn is_on(found: &Found<BTreeSet<String>, Facts>, id: &str, group: Option<&Group>, rules: &BTreeSet<String>) -> bool {
    let groups = found.state.get(&Key::new(id, GROUPS));
    let only = |group: &Group| groups.is_some_and(|g| g.len() == 1 && g.contains(&group.id));
    group.is_some_and(|group| only(group) && &group.rules == rules)
}

/// Through rules that somebody gave the isolation group, new connections may have been opened, and they are tracked.
fn is_isolated(found: &Found<BTreeSet<String>, Facts>, id: &str) -> bool {
    is_on(found, id, found.facts.isolation.get(&found.facts.interfaces[id].vpc), &BTreeSet::new())
}

/// An earlier run was stopped half-way, or is at it.
fn is_converted(found: &Found<BTreeSet<String>, Facts>, id: &str) -> bool {
    is_on(found, id, found.facts.conversion.get(&found.facts.interfaces[id].vpc), &groups::everything())
}

fn needs_conversion(found: &Found<BTreeSet<String>, Facts>, id: &str) -> bool {
    !is_isolated(found, id) && !is_converted(found, id)
}

#[cfg(test)]
mod tests;
