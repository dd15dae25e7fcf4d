//! The way back into the group: last of all, and only on request, since the replacement is running
//! (aws-behaviour#attaching).

use std::collections::BTreeMap;

use aws_sdk_autoscaling::Client;
use containment::{Error, First, Found, Goal, Key, Result, State, Target, Writes, command, first_values};

use crate::{BETWEEN_TRIES, MEMBERSHIP, Membership, Refusal, TRIES, refusal};

/// How many instances a group may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// How many it wants.
    pub desired: i32,
    /// How many it may want.
    pub max: i32,
}

impl Capacity {
    fn is_full(self) -> bool {
        self.desired >= self.max
    }
}

type Memberships = Found<Membership, BTreeMap<String, Capacity>>;

const IN_SERVICE: &str = "InService";
const STANDBY: &str = "Standby";

/// The journal's groups, as far as they still exist: AWS leaves out a name that does not.
pub(crate) async fn groups(autoscaling: &Client, first: &First) -> Result<BTreeMap<String, Capacity>> {
    let names: Vec<String> = first.keys().map(|key| key.resource.clone()).collect();
    let on = names.join(", ");
    let pages = autoscaling.describe_auto_scaling_groups().set_auto_scaling_group_names(Some(names));
    let found: Vec<_> = pages
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .map_err(Error::aws("autoscaling:DescribeAutoScalingGroups", on))?;
    let capacity = |group: &aws_sdk_autoscaling::types::AutoScalingGroup| {
        let capacity = Capacity {
            desired: group.desired_capacity().unwrap_or_default(),
            max: group.max_size().unwrap_or_default(),
        };
        Some((group.auto_scaling_group_name()?.to_owned(), capacity))
    };
    Ok(found.iter().filter_map(capacity).collect())
}

/// A member as it was: in service or in standby, protected from scale-in or not.
///
/// If somebody has put the instance into another group since, it stays there. In the journal's own group its protection
/// is restored, and standby if it was in standby; a standby that somebody has ordered since is left alone.
pub(crate) fn released(target: &Target, found: &Memberships, first: &First) -> Goal<Membership> {
    let mut goal = Goal::new(found.state.clone());
    let (values, unreadable) = first_values::<Membership>(first);
    goal.unsupported = unreadable;
    for (key, before) in values {
        let Some(before) = before.filter(|_| key.attribute == MEMBERSHIP) else { continue };
        let group = &key.resource;
        let Some(lifecycle) = lasting(&before.lifecycle_state) else {
            if before.lifecycle_state.starts_with("Warmed") {
                goal.unsupported.push(format!(
                    "the instance was in the warm pool of {group:?} ({}), and no API puts an instance back into a \
                     warm pool",
                    before.lifecycle_state
                ));
            }
            continue;
        };
        let wanted = Membership { lifecycle_state: lifecycle.to_owned(), ..before };
        match found.state.get(&key) {
            Some(now) if now.lifecycle_state == STANDBY && lifecycle == IN_SERVICE => {
                goal.residual_risk
                    .push(format!("somebody has put the instance into standby in {group:?} since, and it stays there"));
                let lifecycle_state = STANDBY.to_owned();
                goal.state.insert(key, Membership { lifecycle_state, ..wanted });
            }
            Some(now) if now.lifecycle_state.starts_with("Terminating") => goal.unsupported.push(format!(
                "{group:?} is terminating the instance ({}): it is too late to keep it",
                now.lifecycle_state
            )),
            Some(_) => _ = goal.state.insert(key, wanted),
            None => match obstacle(target, found, group) {
                Some(why) => goal.unsupported.push(why),
                None => _ = goal.state.insert(key, wanted),
            },
        }
    }
    goal
}

/// The state in which a lifecycle state ends, unless it leads out of the group.
fn lasting(lifecycle: &str) -> Option<&'static str> {
    match lifecycle {
        "EnteringStandby" | STANDBY => Some(STANDBY),
        IN_SERVICE => Some(IN_SERVICE),
        pending if pending.starts_with("Pending") => Some(IN_SERVICE),
        _ => None,
    }
}

/// Why the instance can't go back into the group, if so.
fn obstacle(target: &Target, found: &Memberships, group: &str) -> Option<String> {
    let id = target.instance_id.as_str();
    let options: [(&str, &[&str]); 2] = [("--auto-scaling-group-name", &[group]), ("--instance-ids", &[id])];
    let attach = command(target, "autoscaling attach-instances", &options);
    if let Some(other) = found.state.keys().next() {
        return Some(format!(
            "the instance is in the Auto Scaling group {:?} now and stays there; it was in {group:?}, and goes back \
             once it is in no group with {attach}",
            other.resource
        ));
    }
    match found.facts.get(group) {
        None => Some(format!("the Auto Scaling group {group:?} no longer exists; once there is one again: {attach}")),
        Some(capacity) if capacity.is_full() => {
            let larger = (capacity.max.saturating_add(1)).to_string();
            let options: [(&str, &[&str]); 2] = [("--auto-scaling-group-name", &[group]), ("--max-size", &[&larger])];
            let raise = command(target, "autoscaling update-auto-scaling-group", &options);
            Some(format!(
                "the Auto Scaling group {group:?} is full ({} of {}), and an instance that is attached counts: raise \
                 its maximum with {raise}, or remove an instance, and then {attach}",
                capacity.desired, capacity.max
            ))
        }
        Some(_) => None,
    }
}

/// An instance that is still leaving can't be attached yet; one that is joining needs nothing more for now.
pub(crate) fn is_returning(member: &Membership, wanted: Option<&Membership>) -> bool {
    let now = member.lifecycle_state.as_str();
    wanted.is_some() && (now.starts_with("Pending") || matches!(now, "EnteringStandby" | "Detaching"))
}

/// Attaches what is missing; protects, and puts into standby, what has arrived. Each of these has to settle before the
/// next, so the workflow asks again in between.
pub(crate) async fn restore(
    autoscaling: &Client,
    target: &Target,
    found: &Memberships,
    goal: &State<Membership>,
) -> Writes {
    let mut writes = Writes::default();
    for (key, wanted) in goal.iter().filter(|(key, wanted)| found.state.get(*key) != Some(*wanted)) {
        let group = &key.resource;
        match found.state.get(key) {
            None => {
                if writes.note(attach(autoscaling, target, group).await).is_some() {
                    writes.residual_risk.push(one_more(found, group));
                    // Whatever else it was can be set when it has arrived.
                    writes.waiting |= wanted.protected_from_scale_in || wanted.lifecycle_state == STANDBY;
                }
            }
            Some(now) if is_returning(now, Some(wanted)) => {}
            Some(now) => _ = writes.note(settle(autoscaling, target, key, now, wanted).await),
        }
    }
    writes
}

fn one_more(found: &Memberships, group: &str) -> String {
    let desired = found.facts.get(group).map_or(0, |capacity| capacity.desired);
    format!(
        "attaching the instance has raised the desired capacity of {group:?} by one, from {desired}: a group that \
         launched a replacement for it now has one instance more than before"
    )
}

async fn attach(autoscaling: &Client, target: &Target, group: &str) -> Result<()> {
    for attempt in 1.. {
        let call = autoscaling.attach_instances().auto_scaling_group_name(group).instance_ids(&target.instance_id);
        let sent = call.send().await.map(|_| ()).map_err(Error::aws("autoscaling:AttachInstances", group));
        match sent {
            Err(error) if refusal(&error) == Refusal::Busy && attempt < TRIES => {
                tokio::time::sleep(BETWEEN_TRIES).await
            }
            Err(error) => {
                let id = target.instance_id.as_str();
                let options: [(&str, &[&str]); 2] =
                    [("--auto-scaling-group-name", &[group]), ("--instance-ids", &[id])];
                let by_hand = command(target, "autoscaling attach-instances", &options);
                let advice = format!("once the group has room and the instance is running: {by_hand}");
                return Err(error.with_advice(&advice));
            }
            Ok(()) => return Ok(()),
        }
    }
    unreachable!("the attempts never end")
}

async fn settle(autoscaling: &Client, target: &Target, key: &Key, now: &Membership, wanted: &Membership) -> Result<()> {
    let group = &key.resource;
    if now.protected_from_scale_in != wanted.protected_from_scale_in {
        let call = autoscaling.set_instance_protection().auto_scaling_group_name(group);
        let call = call.instance_ids(&target.instance_id).protected_from_scale_in(wanted.protected_from_scale_in);
        call.send().await.map_err(Error::aws("autoscaling:SetInstanceProtection", group))?;
    }
    if now.lifecycle_state == IN_SERVICE && wanted.lifecycle_state == STANDBY {
        // Attaching has raised the desired capacity, in which an instance in standby does not count.
        let call = autoscaling.enter_standby().auto_scaling_group_name(group).instance_ids(&target.instance_id);
        let sent = call.should_decrement_desired_capacity(true).send().await;
        sent.map_err(Error::aws("autoscaling:EnterStandby", group))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DetachAutoscaling;
    use aws_sdk_autoscaling::operation::attach_instances::{AttachInstancesError, AttachInstancesOutput};
    use aws_sdk_autoscaling::operation::enter_standby::EnterStandbyOutput;
    use aws_sdk_autoscaling::operation::set_instance_protection::SetInstanceProtectionOutput;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use containment::Reversible;
    use serde_json::json;

    fn target() -> Target {
        let event = json!({
            "AccountId": "123456789012", "Region": "eu-west-1", "InstanceId": "i-0123456789abcdef0", "CaseId": "c-1",
            "Release": ["detach-autoscaling"],
        });
        Target::parse(event).expect("a good event")
    }

    fn step(rules: &[&Rule]) -> DetachAutoscaling {
        DetachAutoscaling { autoscaling: mock_client!(aws_sdk_autoscaling, RuleMode::MatchAny, rules) }
    }

    fn member(lifecycle: &str, protected: bool) -> Membership {
        Membership { lifecycle_state: lifecycle.to_owned(), protected_from_scale_in: protected }
    }

    fn found(members: &[(&str, Membership)], groups: &[(&str, i32, i32)]) -> Memberships {
        let groups =
            groups.iter().map(|(name, desired, max)| ((*name).to_owned(), Capacity { desired: *desired, max: *max }));
        let state = members.iter().map(|(group, member)| (Key::new(*group, MEMBERSHIP), member.clone()));
        Found { state: state.collect(), facts: groups.collect() }
    }

    fn first(group: &str, member: Membership) -> First {
        [(Key::new(group, MEMBERSHIP), json!(member))].into()
    }

    #[tokio::test]
    async fn an_instance_goes_back_into_its_group_and_the_higher_capacity_is_named() {
        let attached = mock!(Client::attach_instances)
            .match_requests(|r| {
                r.auto_scaling_group_name() == Some("web") && r.instance_ids() == ["i-0123456789abcdef0"]
            })
            .then_output(|| AttachInstancesOutput::builder().build());
        let (step, first) = (step(&[&attached]), first("web", member("InService", false)));
        let out = found(&[], &[("web", 2, 4)]);
        let goal = step.released(&target(), &out, &first);
        let writes = step.restore(&target(), &out, &goal.state).await;
        assert!(writes.failures.is_empty() && writes.residual_risk[0].contains("by one, from 2"));
        assert_eq!(attached.num_calls(), 1);
        let back = found(&[("web", member("InService", false))], &[("web", 3, 4)]);
        assert_eq!(step.released(&target(), &back, &first), Goal::new(back.state.clone()));
    }

    #[tokio::test]
    async fn protection_and_standby_come_back_once_the_instance_is_in_service() {
        let protected = mock!(Client::set_instance_protection)
            .match_requests(|r| r.protected_from_scale_in() == Some(true))
            .then_output(|| SetInstanceProtectionOutput::builder().build());
        let standby = mock!(Client::enter_standby)
            .match_requests(|r| r.should_decrement_desired_capacity() == Some(true))
            .then_output(|| EnterStandbyOutput::builder().build());
        let attached = mock!(Client::attach_instances).then_output(|| AttachInstancesOutput::builder().build());
        let (step, first) = (step(&[&protected, &standby, &attached]), first("web", member("Standby", true)));
        let out = found(&[], &[("web", 2, 4)]);
        let goal = step.released(&target(), &out, &first);
        assert!(step.restore(&target(), &out, &goal.state).await.waiting, "so that the workflow asks again");
        let pending = found(&[("web", member("Pending", false))], &[("web", 3, 4)]);
        let goal = step.released(&target(), &pending, &first);
        assert!(pending.state.iter().all(|(key, value)| step.returning(value, goal.state.get(key))));
        assert!(step.restore(&target(), &pending, &goal.state).await.failures.is_empty());
        assert_eq!((protected.num_calls(), standby.num_calls()), (0, 0), "it has to arrive first");
        let arrived = found(&[("web", member("InService", false))], &[("web", 3, 4)]);
        let goal = step.released(&target(), &arrived, &first);
        assert!(step.restore(&target(), &arrived, &goal.state).await.failures.is_empty());
        assert_eq!((protected.num_calls(), standby.num_calls()), (1, 1));
    }

    #[test]
    fn an_instance_that_is_still_leaving_is_waited_for() {
        let leaving = found(&[("web", member("Detaching", false))], &[("web", 2, 4)]);
        let goal = step(&[]).released(&target(), &leaving, &first("web", member("InService", false)));
        assert!(leaving.state.iter().all(|(key, value)| step(&[]).returning(value, goal.state.get(key))));
    }

    #[test]
    fn a_full_group_a_deleted_group_and_another_group_are_named_with_the_command() {
        let first = first("web", member("InService", false));
        let full = step(&[]).released(&target(), &found(&[], &[("web", 4, 4)]), &first).unsupported;
        assert!(full[0].contains("is full (4 of 4)") && full[0].contains("--max-size 5`"), "{full:?}");
        let attach = "`aws autoscaling attach-instances --region eu-west-1 --auto-scaling-group-name web --instance-ids \
                      i-0123456789abcdef0`";
        assert!(full[0].contains(attach), "{full:?}");
        let gone = step(&[]).released(&target(), &found(&[], &[]), &first).unsupported;
        assert!(gone[0].contains("no longer exists") && gone[0].contains(attach), "{gone:?}");
        let other = found(&[("other", member("InService", false))], &[("web", 1, 4)]);
        let goal = step(&[]).released(&target(), &other, &first);
        assert_eq!(goal.state, other.state);
        assert!(goal.unsupported[0].contains("\"other\" now and stays there"), "{:?}", goal.unsupported);
    }

    #[test]
    fn a_standby_that_somebody_has_ordered_since_is_left_alone() {
        let standby = found(&[("web", member("Standby", false))], &[("web", 1, 4)]);
        let goal = step(&[]).released(&target(), &standby, &first("web", member("InService", false)));
        assert_eq!(goal.state, standby.state);
        assert!(goal.residual_risk[0].contains("standby"));
    }

    #[test]
    fn a_member_that_was_leaving_before_the_containment_is_not_brought_back() {
        for lifecycle in ["Detaching", "Terminating:Wait"] {
            let goal =
                step(&[]).released(&target(), &found(&[], &[("web", 1, 4)]), &first("web", member(lifecycle, false)));
            assert!(goal.state.is_empty() && goal.unsupported.is_empty(), "{lifecycle}");
        }
    }

    #[tokio::test]
    async fn a_refused_attachment_comes_with_the_command_to_finish_it() {
        let refused = mock!(Client::attach_instances).then_error(|| {
            let meta = aws_sdk_autoscaling::error::ErrorMetadata::builder().code("ValidationError");
            AttachInstancesError::generic(meta.message("Instance i-0123456789abcdef0 is not in correct state.").build())
        });
        let (step, out) = (step(&[&refused]), found(&[], &[("web", 2, 4)]));
        let goal = step.released(&target(), &out, &first("web", member("InService", false)));
        let writes = step.restore(&target(), &out, &goal.state).await;
        let said = writes.failures[0].to_string();
        assert!(
            said.contains("autoscaling:AttachInstances on web: ValidationError")
                && said.contains("`aws autoscaling attach-instances"),
            "{said}"
        );
    }
}
