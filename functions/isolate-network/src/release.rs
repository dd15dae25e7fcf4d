//! The way back: the groups that each interface had.

use std::collections::BTreeSet;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, SecurityGroup};
use containment::{Error, First, Goal, Key, Result, State, Target, Writes, command, first_values};
use futures::future::{join_all, try_join_all};

use crate::{GROUPS, IsolateNetwork, Network};

/// A filter takes 200 values.
const IDS_A_CALL: usize = 200;

/// The interfaces' first groups. The rules of Cordon's own groups are journaled as well, and are never restored.
fn first_groups(first: &First) -> First {
    first.iter().filter(|(key, _)| key.attribute == GROUPS).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Which of the groups to be restored there still are. Asked for by a filter, since an id that does not exist fails a call
/// that names it.
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
/// Two kinds are left as they are, and named with the command. An interface that somebody has put on other groups since:
/// that was a decision, and this would undo it. And one of whose groups one was deleted: what is left of them is a
/// configuration that never was, in which a service comes up and does not reach what it needs; it stays isolated until a
/// person has said what takes the deleted one's place.
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
                "{id} is not attached to the instance any more, so its groups are left; if it still exists, and on Cordon's \
                 group, {}",
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
                "{id} has been put on {} since, and is left so; the groups it had before come back with {}",
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
                "{id} stays isolated: of the groups it had, {} does not exist any more, and {left} alone would be another \
                 configuration than it had. Make a group in its place (here: NEW-GROUP), then {}",
                list(&gone),
                by_hand(target, id, &there.into_iter().chain(["NEW-GROUP".to_owned()]).collect())
            ));
            continue;
        }
        let added: BTreeSet<String> =
            now.difference(&cordons).filter(|group| !groups.contains(*group)).cloned().collect();
        if !added.is_empty() {
            goal.residual_risk.push(format!(
                "{id} was on {} as well, which somebody had added to Cordon's group and which it had not before",
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
    /// One call for each interface, without the conversion group: nothing has to be cut, and nobody else let in.
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
