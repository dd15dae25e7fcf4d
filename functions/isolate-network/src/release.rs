//! The way back: the groups that each interface had.

use std::collections::BTreeSet;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, SecurityGroup};
use containment::{Error, First, Goal, Key, Result, State, Target, Writes, command, first_values};
use futures::future::{join_all, try_join_all};

use crate::{GROUPS, IsolateNetwork, Network};

/// A filter takes 200 values.
const IDS_A_CALL: usize = 200;

/// The interfaces' first groups. The rules of Cordon's own groups are in the journal too, and are never restored.
fn first_groups(first: &First) -> First {
    first.iter().filter(|(key, _)| key.attribute == GROUPS).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Which of the groups to be restored still exist. Read by a filter, since a call that names an id that does not exist
/// fails.
pub(crate) async fn existing(ec2: &Client, first: &First) -> Result<BTreeSet<String>> {
    let (values, _) = first_values::<BTreeSet<String>>(&first_groups(first));
    let ids: BTreeSet<String> = values.into_iter().filter_map(|(_, groups)| groups).flatten().collect();
    let ids: Vec<String> = ids.into_iter().collect();
    let pages = ids.chunks(IDS_A_CALL).map(|ids| async move {
        let of_them = Filter::builder().name("group-id").set_values(Some(ids.to_vec())).build();
        let pages = ec2.describe_security_groups().filters(of_them).into_paginator().items().send();
        let found: Result<Vec<SecurityGroup>> =
            pages.try_collect().await.map_err(Error::aws("ec2:DescribeSecurityGroups", ids.join(", ")));
        found
    });
    let found = try_join_all(pages).await?;
    Ok(found.into_iter().flatten().filter_map(|group| group.group_id).collect())
}

/// Each interface that is on a group of Cordon's goes back to the groups it had.
///
/// Two kinds stay as they are, and are named with the command. An interface that somebody has put on other groups
/// since: that was a decision, and this would undo it. And an interface that has lost one of its groups: the rest would
/// be a configuration that never existed, in which a service starts and cannot reach what it needs, so it stays
/// isolated until a person has named a replacement.
pub(crate) fn released(target: &Target, found: &Network, first: &First) -> Goal<BTreeSet<String>> {
    let mut goal = Goal::new(found.state.clone());
    let (values, unreadable) = first_values::<BTreeSet<String>>(&first_groups(first));
    goal.unsupported = unreadable;
    if values.is_empty() {
        goal.not_applicable = Some("this case changed no interface's groups".to_owned());
    }
    for (key, groups) in values {
        let Some(groups) = groups.filter(|groups| !groups.is_empty()) else { continue };
        let id = &key.resource;
        let Some(now) = found.state.get(&key) else {
            goal.unsupported.push(format!(
                "{id} is no longer attached to the instance, so its groups are left alone; if it still exists and is \
                 on Cordon's group: {}",
                by_hand(target, id, &groups)
            ));
            continue;
        };
        if *now == groups {
            continue;
        }
        let cordons = cordons(found, id);
        if now.is_disjoint(&cordons) {
            goal.unsupported.push(format!(
                "somebody has put {id} on {} since, and it stays there; its first groups come back with {}",
                list(now),
                by_hand(target, id, &groups)
            ));
            continue;
        }
        let (there, gone): (BTreeSet<String>, BTreeSet<String>) =
            groups.iter().cloned().partition(|group| found.facts.journaled.contains(group));
        if !gone.is_empty() {
            let left = if there.is_empty() { "none of its groups".to_owned() } else { list(&there) };
            goal.unsupported.push(format!(
                "{id} stays isolated: of its first groups {} no longer exists, and {left} alone would be a \
                 configuration that it never had. Create a replacement (here: NEW-GROUP), then {}",
                list(&gone),
                by_hand(target, id, &there.into_iter().chain(["NEW-GROUP".to_owned()]).collect())
            ));
            continue;
        }
        let added: BTreeSet<String> =
            now.difference(&cordons).filter(|group| !groups.contains(*group)).cloned().collect();
        if !added.is_empty() {
            goal.residual_risk.push(format!(
                "somebody had added {} to {id} beside Cordon's group; it is removed, since it was not among the first \
                 groups",
                list(&added)
            ));
        }
        goal.state.insert(key, groups);
    }
    goal
}

fn cordons(found: &Network, interface: &str) -> BTreeSet<String> {
    let facts = &found.facts;
    let vpc = facts.interfaces.get(interface).map(|interface| &interface.vpc);
    let of_vpc = [&facts.isolation, &facts.conversion, &facts.capture].into_iter().filter_map(|all| all.get(vpc?));
    of_vpc.map(|group| group.id.clone()).collect()
}

fn list(groups: &BTreeSet<String>) -> String {
    groups.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn by_hand(target: &Target, interface: &str, groups: &BTreeSet<String>) -> String {
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let options: [(&str, &[&str]); 2] = [("--network-interface-id", &[interface]), ("--groups", &groups)];
    command(target, "ec2 modify-network-interface-attribute", &options)
}

impl IsolateNetwork {
    /// One call for each interface, without the conversion group: there is nothing to cut, and nobody else is let in.
    pub(crate) async fn set_back(&self, found: &Network, goal: &State<BTreeSet<String>>) -> Writes {
        let changed: Vec<(&Key, &BTreeSet<String>)> = goal
            .iter()
            .filter(|(key, groups)| key.attribute == GROUPS && found.state.get(key) != Some(groups))
            .collect();
        let calls = changed.into_iter().map(|(key, groups)| self.set_groups(&key.resource, groups.iter().cloned()));
        let mut writes = Writes::default();
        for result in join_all(calls).await {
            writes.note(result);
        }
        writes
    }
}
