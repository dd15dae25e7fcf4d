//! Cuts the instance off the network: every interface ends on a security group without any rule.
//!
//! In two steps per interface, because established connections survive a change of groups (trap A1): a conversion group
//! that allows everything makes tracked flows untracked, then the isolation group cuts them.
//! Between the two there is only one way, forward: a run that is killed there is finished by the next.
//!
//! Where a capture of the running host is to follow, an interface ends on a capture group first, which lets tcp/443 out
//! to the VPC's own endpoints of Systems Manager and S3 and nothing else; the same step without that wish closes it.

mod groups;
mod release;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::NetworkInterface;
use containment::{Error, First, Found, Goal, Journaled, Key, Result, Reversible, State, Step, Target, Writes};
use futures::future::join_all;
use network::{CAPTURE, CONVERSION, Group, ISOLATION, Interface, Window, automatically_tracked, everything};

use groups::Ready;
pub use watch::handle;

/// The step. Reads interfaces and Cordon's security groups; creates and repairs those groups, and sets interfaces' groups.
/// A release sets the interfaces' groups only: Cordon's own stay, since other cases may use them.
#[derive(Debug, Clone)]
pub struct IsolateNetwork {
    ec2: Client,
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
    /// Cordon's capture group, by VPC.
    pub capture: BTreeMap<String, Group>,
    /// What each interface can be left for a capture, by interface id. Empty where no capture window is wanted and none
    /// is open.
    pub windows: BTreeMap<String, Window>,
    /// Those of the groups to be restored that there still are; looked for at a release only.
    pub journaled: BTreeSet<String>,
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

    /// What EC2 shows of the interfaces and of Cordon's groups, and of the ways out that a window would use.
    async fn read_with(&self, target: &Target, windows: bool) -> Result<Found<BTreeSet<String>, Facts>> {
        let endpoints = async {
            match target.capture_window && windows {
                true => Some(network::endpoints(&self.ec2, target).await),
                false => None,
            }
        };
        let (interfaces, groups, endpoints) = futures::join!(
            instance::interfaces(&self.ec2, target),
            network::find(&self.ec2, &target.account_id),
            endpoints
        );
        let (interfaces, groups) = (interfaces?, groups?);
        if interfaces.is_empty() {
            return Err(Error::NotFound(format!("interfaces of {} not found", target.instance_id)));
        }
        let mut found = Found { state: State::new(), facts: Facts::default() };
        for interface in &interfaces {
            let Some(id) = interface.network_interface_id() else { continue };
            let groups = interface.groups().iter().filter_map(|g| g.group_id().map(ToOwned::to_owned)).collect();
            found.state.insert(Key::new(id, GROUPS), groups);
            found.facts.interfaces.insert(id.to_owned(), Interface::of(interface));
        }
        let vpcs: BTreeSet<&String> = found.facts.interfaces.values().map(|i| &i.vpc).collect();
        for (name, vpc, group) in groups {
            if vpcs.contains(&vpc) {
                found.state.insert(rules_key(&vpc, name), group.rules.clone());
                let of_vpc = match name {
                    ISOLATION => &mut found.facts.isolation,
                    CONVERSION => &mut found.facts.conversion,
                    _ => &mut found.facts.capture,
                };
                of_vpc.insert(vpc, group);
            }
        }
        let endpoints = match endpoints {
            // A window that is to be closed: whether it is no more than one decides how.
            None if windows && found.facts.interfaces.keys().any(|id| is_on_capture(&found, id)) => {
                Some(network::endpoints(&self.ec2, target).await)
            }
            endpoints => endpoints,
        };
        if let Some(endpoints) = endpoints {
            found.facts.windows =
                network::windows(&self.ec2, endpoints, &found.facts.interfaces, &found.facts.capture).await;
        }
        Ok(found)
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

    /// The second half: the capture group where a window is to stay open, or else, or if that is refused, isolation.
    /// Answers what the reader must know of it.
    async fn settle(
        &self,
        target: &Target,
        interface: &str,
        found: &Found<BTreeSet<String>, Facts>,
        ready: &Ready,
    ) -> Result<Option<String>> {
        let vpc = &found.facts.interfaces[interface].vpc;
        let mut refused = None;
        if let Some(group) = ready.capture.get(vpc).filter(|_| destination(target, found, interface) == CAPTURE) {
            match self.set_groups(interface, [group.clone()]).await {
                Ok(()) => return Ok(None),
                Err(error) => refused = Some(error),
            }
        }
        let isolated = match ready.isolation.get(vpc) {
            Some(group) => self.isolate(interface, group).await,
            None => refused.take().map_or(Ok(()), Err),
        };
        let Err(error) = isolated else {
            return Ok(refused.map(|error| {
                format!("{interface} was isolated at once, and a capture through it is impossible: {error}")
            }));
        };
        let before = found.state.get(&Key::new(interface, GROUPS)).cloned().unwrap_or_default();
        if needs_conversion(found, interface) && self.is_still_open(target, found, ready, interface).await? {
            self.set_groups(interface, before).await?;
        }
        Err(error)
    }

    /// Tries again before it gives up; the interface is then taken off the conversion group, since the groups it had let
    /// less through than one that lets in everybody.
    async fn isolate(&self, interface: &str, group: &str) -> Result<()> {
        let mut result = self.set_groups(interface, [group.to_owned()]).await;
        for delay in [1, 2, 4].map(Duration::from_secs) {
            if result.is_ok() {
                break;
            }
            tokio::time::sleep(delay).await;
            result = self.set_groups(interface, [group.to_owned()]).await;
        }
        result
    }

    /// Another run may have isolated the interface in the meantime, and that must stay.
    async fn is_still_open(
        &self,
        target: &Target,
        found: &Found<BTreeSet<String>, Facts>,
        ready: &Ready,
        interface: &str,
    ) -> Result<bool> {
        let now = instance::interfaces(&self.ec2, target).await?;
        let now = now.iter().find(|i| i.network_interface_id() == Some(interface));
        let vpc = &found.facts.interfaces[interface].vpc;
        let known = [found.facts.isolation.get(vpc), found.facts.capture.get(vpc)].into_iter().flatten().map(|g| &g.id);
        let made = [ready.isolation.get(vpc), ready.capture.get(vpc)].into_iter().flatten();
        let ends: BTreeSet<&str> = known.chain(made).map(String::as_str).collect();
        let is_at_end =
            |i: &NetworkInterface| i.groups().iter().any(|g| g.group_id().is_some_and(|g| ends.contains(g)));
        Ok(now.is_some_and(|i| !is_at_end(i)))
    }
}

impl Step for IsolateNetwork {
    /// For an interface its groups' ids, for one of Cordon's groups its rules in words.
    type Value = BTreeSet<String>;
    type Facts = Facts;
    const NAME: &'static str = "isolate-network";

    async fn read(&self, target: &Target) -> Result<Found<Self::Value, Facts>> {
        self.read_with(target, true).await
    }

    fn contained(&self, target: &Target, found: &Found<Self::Value, Facts>, _: &Journaled) -> Goal<Self::Value> {
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
            let vpc = &interface.vpc;
            let group = match destination(target, found, id) {
                CAPTURE => found.facts.capture.get(vpc).map_or(CAPTURE, |group| &group.id),
                _ => found.facts.isolation.get(vpc).map_or(ISOLATION, |group| &group.id),
            };
            goal.state.insert(key, BTreeSet::from([group.to_owned()]));
            goal.state.insert(rules_key(vpc, ISOLATION), BTreeSet::new());
            if needs_conversion(found, id) {
                goal.state.insert(rules_key(vpc, CONVERSION), everything());
            }
            let Some(window) = found.facts.windows.get(id).filter(|_| target.capture_window) else { continue };
            if destination(target, found, id) == CAPTURE {
                goal.state.insert(rules_key(vpc, CAPTURE), window.rules.clone());
            }
            goal.residual_risk.push(about_window(found, id, window));
        }
        goal
    }

    async fn write(&self, target: &Target, found: &Found<Self::Value, Facts>, goal: &State<Self::Value>) -> Writes {
        let mut writes = Writes { residual_risk: drifted(found, goal), ..Writes::default() };
        let facts = &found.facts;
        let ready = groups::ensure(&self.ec2, target, facts, goal, &mut writes).await;

        // Without a group to go on to, the conversion group would only open the instance to everybody.
        let has_end = |id: &String| {
            let vpc = &facts.interfaces[id].vpc;
            let captured = destination(target, found, id) == CAPTURE && ready.capture.contains_key(vpc);
            captured || ready.isolation.contains_key(vpc)
        };
        let open = facts.interfaces.iter().filter(|(id, i)| i.managed_by.is_none() && !is_settled(target, found, id));
        let open: Vec<&String> = open.map(|(id, _)| id).filter(|id| has_end(id)).collect();
        let to_convert: Vec<&String> = open.iter().filter(|id| needs_conversion(found, id)).copied().collect();
        self.convert(&to_convert, facts, &ready.conversion, &mut writes).await;
        if open.is_empty() {
            return writes;
        }
        if open.iter().any(|id| needs_conversion(found, id) || is_converted(found, id)) {
            tokio::time::sleep(CONVERSION_STAYS).await;
        }
        // Which paths cannot be cut this way is read at the same time, so that isolation waits for nothing.
        let subnets = open.iter().map(|id| (id.as_str(), &facts.interfaces[*id]));
        let calls = join_all(open.iter().map(|id| self.settle(target, id, found, &ready)));
        let tracked = tokio::time::timeout(ROUTES_WITHIN, automatically_tracked(&self.ec2, subnets));
        let (results, tracked) = futures::join!(calls, tracked);
        for result in results {
            let said = writes.note(result).flatten();
            writes.residual_risk.extend(said);
        }
        writes.residual_risk.extend(open.iter().filter_map(|id| after_window(target, found, id)));
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

impl Reversible for IsolateNetwork {
    async fn read_journaled(&self, target: &Target, first: &First) -> Result<Found<Self::Value, Facts>> {
        let (found, there) = futures::join!(self.read_with(target, false), release::existing(&self.ec2, first));
        let mut found = found?;
        found.facts.journaled = there?;
        Ok(found)
    }

    fn released(&self, target: &Target, found: &Found<Self::Value, Facts>, first: &First) -> Goal<Self::Value> {
        release::released(target, found, first)
    }

    async fn restore(&self, _: &Target, found: &Found<Self::Value, Facts>, goal: &State<Self::Value>) -> Writes {
        self.set_back(found, goal).await
    }
}

/// Cordon's groups by VPC and name: an id would not do, since a dry run plans groups that have none yet.
fn rules_key(vpc: &str, name: &str) -> Key {
    Key::new(format!("{vpc} {name}"), RULES)
}

/// Where an interface is to end. What is isolated stays so: the window is only ever on the way there, so that no run
/// that comes late or comes twice can open it again.
fn destination(target: &Target, found: &Found<BTreeSet<String>, Facts>, id: &str) -> &'static str {
    let window = found.facts.windows.get(id).filter(|window| window.obstacles.is_empty());
    if target.capture_window && window.is_some() && !is_isolated(found, id) { CAPTURE } else { ISOLATION }
}

/// Whether the interface is where it is to end, and the group's rules are what they should be.
fn is_settled(target: &Target, found: &Found<BTreeSet<String>, Facts>, id: &str) -> bool {
    let capture = found.facts.capture.get(&found.facts.interfaces[id].vpc);
    match found.facts.windows.get(id) {
        Some(window) if destination(target, found, id) == CAPTURE => is_on(found, id, capture, &window.rules),
        _ => is_isolated(found, id),
    }
}

/// Whether the interface is on this group of Cordon's and nothing else, and the group's rules are what they should be.
fn is_on(found: &Found<BTreeSet<String>, Facts>, id: &str, group: Option<&Group>, rules: &BTreeSet<String>) -> bool {
    group.is_some_and(|group| is_only_on(found, id, group) && &group.rules == rules)
}

fn is_only_on(found: &Found<BTreeSet<String>, Facts>, id: &str, group: &Group) -> bool {
    let groups = found.state.get(&Key::new(id, GROUPS));
    groups.is_some_and(|groups| groups.len() == 1 && groups.contains(&group.id))
}

/// Through rules that somebody gave the isolation group, new connections may have been opened, and they are tracked.
fn is_isolated(found: &Found<BTreeSet<String>, Facts>, id: &str) -> bool {
    is_on(found, id, found.facts.isolation.get(&found.facts.interfaces[id].vpc), &BTreeSet::new())
}

/// An earlier run was stopped half-way, or is at it.
fn is_converted(found: &Found<BTreeSet<String>, Facts>, id: &str) -> bool {
    is_on(found, id, found.facts.conversion.get(&found.facts.interfaces[id].vpc), &everything())
}

fn is_on_capture(found: &Found<BTreeSet<String>, Facts>, id: &str) -> bool {
    let group = found.facts.capture.get(&found.facts.interfaces[id].vpc);
    group.is_some_and(|group| is_only_on(found, id, group))
}

/// The rules of the capture group that the interface is on, if they let it go nowhere but to the VPC's endpoints. Through
/// any other, connections may have been opened that have to be cut like those of any other group.
fn window_of<'a>(found: &'a Found<BTreeSet<String>, Facts>, id: &str) -> Option<&'a BTreeSet<String>> {
    let group = found.facts.capture.get(&found.facts.interfaces[id].vpc).filter(|_| is_on_capture(found, id))?;
    found.facts.windows.get(id).is_some_and(|window| group.rules.is_subset(&window.rules)).then_some(&group.rules)
}

/// A window is closed without the conversion group: that would let everybody in for seconds, to cut connections to the
/// VPC's own endpoints, most of which it could not cut (trap A2).
fn needs_conversion(found: &Found<BTreeSet<String>, Facts>, id: &str) -> bool {
    !is_isolated(found, id) && !is_converted(found, id) && window_of(found, id).is_none()
}

/// What a window that is wanted leaves to an attacker, or why there is none.
fn about_window(found: &Found<BTreeSet<String>, Facts>, id: &str, window: &Window) -> String {
    if !window.obstacles.is_empty() {
        let why = window.obstacles.join("; ");
        return format!(
            "a capture through {id} is impossible after its isolation: {why}; the host would have to be captured first \
             (CaptureMode CaptureFirst)"
        );
    }
    if is_isolated(found, id) {
        return format!("{id} is isolated, so no window for a capture is opened on it");
    }
    format!(
        "until the capture is over, {id} may reach tcp/443 of the VPC's endpoints for Systems Manager and S3 ({}): whoever \
         is on the host can use them, also with credentials of his own for any account, unless the endpoints' policies \
         forbid it",
        peers(&window.rules)
    )
}

/// What closing a window may leave.
fn after_window(target: &Target, found: &Found<BTreeSet<String>, Facts>, id: &str) -> Option<String> {
    let rules = window_of(found, id).filter(|_| destination(target, found, id) == ISOLATION)?;
    Some(format!(
        "connections of {id} that were open through the capture window, to tcp/443 of {}, may go on until they end or idle \
         out, that of the host's agent to Systems Manager among them: those through interface endpoints are tracked \
         automatically",
        peers(rules)
    ))
}

fn peers(rules: &BTreeSet<String>) -> String {
    rules.iter().filter_map(|rule| rule.rsplit(' ').next()).collect::<Vec<_>>().join(", ")
}

/// What Cordon's groups let through that they should not have.
fn drifted(found: &Found<BTreeSet<String>, Facts>, goal: &State<BTreeSet<String>>) -> Vec<String> {
    let groups = [(ISOLATION, &found.facts.isolation), (CAPTURE, &found.facts.capture)];
    let groups =
        groups.into_iter().flat_map(|(name, groups)| groups.iter().map(move |(vpc, group)| (name, vpc, group)));
    let sentence = |(name, vpc, group): (&str, &String, &Group)| {
        let wanted = goal.get(&rules_key(vpc, name))?;
        let rules: Vec<&str> = group.rules.difference(wanted).map(String::as_str).collect();
        (!rules.is_empty()).then(|| {
            let rules = rules.join(", ");
            format!(
                "{name} in {vpc} had rules when it was looked at, which are being taken out: {rules}; what was on it then was not isolated"
            )
        })
    };
    groups.filter_map(sentence).collect()
}

#[cfg(test)]
mod tests;
