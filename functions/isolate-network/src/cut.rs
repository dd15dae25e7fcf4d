//! The way to isolation: Cordon's groups, the conversion group, then the group on which each interface is to end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ec2::types::NetworkInterface;
use containment::{Error, Key, Result, State, Target, Writes};
use futures::future::join_all;
use network::automatically_tracked;

use crate::groups::{self, Ready};
use crate::standing::{End, Standing, is_settled};
use crate::{Facts, GROUPS, IsolateNetwork, Network, risks};

/// How long the conversion group stays, so that it has reached the hosts before it is replaced
/// (aws-behaviour#group-propagation). Meanwhile it lets everybody in; that is why it comes right before isolation and
/// never stays.
pub(crate) const CONVERSION_STAYS: Duration = Duration::from_secs(5);

/// The routes only inform; the step does not wait for them for long.
const ROUTES_WITHIN: Duration = Duration::from_secs(20);

impl IsolateNetwork {
    /// Tries everything, whatever fails.
    pub(crate) async fn cut(&self, target: &Target, found: &Network, goal: &State<BTreeSet<String>>) -> Writes {
        let mut writes = Writes { residual_risk: risks::of_drifted_groups(found, goal), ..Writes::default() };
        let facts = &found.facts;
        let ready = groups::ensure(&self.ec2, target, facts, goal, &mut writes).await;

        // Without a next group, the conversion group would only open the instance to everybody.
        let has_end = |id: &String| {
            let vpc = &facts.interfaces[id].vpc;
            let has_window = End::of(target, found, id) == End::Window && ready.capture.contains_key(vpc);
            has_window || ready.isolation.contains_key(vpc)
        };
        let open = facts.interfaces.iter().filter(|(id, i)| i.managed_by.is_none() && !is_settled(target, found, id));
        let open: Vec<&String> = open.map(|(id, _)| id).filter(|id| has_end(id)).collect();
        let to_convert: Vec<&String> =
            open.iter().filter(|id| Standing::of(found, id) == Standing::Open).copied().collect();
        self.convert(&to_convert, facts, &ready.conversion, &mut writes).await;
        if open.is_empty() {
            return writes;
        }
        if open.iter().any(|id| matches!(Standing::of(found, id), Standing::Open | Standing::Converted)) {
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
        writes.residual_risk.extend(open.iter().filter_map(|id| risks::after_window(target, found, id)));
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

    pub(crate) async fn set_groups(&self, interface: &str, groups: impl IntoIterator<Item = String>) -> Result<()> {
        let call = self.ec2.modify_network_interface_attribute().network_interface_id(interface);
        let sent = call.set_groups(Some(groups.into_iter().collect())).send().await;
        sent.map(|_| ()).map_err(Error::aws("ec2:ModifyNetworkInterfaceAttribute", interface))
    }

    /// The first half: everything allowed, so that nothing is tracked. A failure does not prevent the second half.
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
                    "{id} could not be put on the conversion group, so open connections may go on: {error}"
                ));
            }
        }
    }

    /// The second half: the capture group where a window is to stay open, or else, or if that is refused, isolation.
    /// Answers what the reader must know of it.
    async fn settle(&self, target: &Target, interface: &str, found: &Network, ready: &Ready) -> Result<Option<String>> {
        let vpc = &found.facts.interfaces[interface].vpc;
        let mut refused = None;
        if let Some(group) = ready.capture.get(vpc).filter(|_| End::of(target, found, interface) == End::Window) {
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
        if Standing::of(found, interface) == Standing::Open
            && self.is_still_open(target, found, ready, interface).await?
        {
            self.set_groups(interface, before).await?;
        }
        Err(error)
    }

    /// Tries again before it gives up. The caller then takes the interface off the conversion group, since its first
    /// groups let less through than one that lets everybody in.
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
    async fn is_still_open(&self, target: &Target, found: &Network, ready: &Ready, interface: &str) -> Result<bool> {
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
