//! Takes the instance out of its Auto Scaling group.
//!
//! It must go first: a group that sees an isolated instance fail its health check terminates it, and termination
//! protection does not stop that (aws-behaviour#health-checks).

mod registered;
mod release;

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_autoscaling::Client;
use containment::{
    AutoScaling, Error, First, Found, Goal, Journaled, Key, OnDrift, Result, Reversible, State, Step, Target, Writes,
};
use serde::{Deserialize, Serialize};

pub use registered::{handle, registrations};
pub use release::Capacity;

/// The step. Reads `DescribeAutoScalingInstances`; changes membership by `DetachInstances`. A release reads the group as
/// well, and changes membership by `AttachInstances`, `SetInstanceProtection` and `EnterStandby`.
#[derive(Debug, Clone)]
pub struct DetachAutoscaling {
    autoscaling: Client,
}

/// The instance's membership in its group: what a release needs to know beside the group's name
/// (aws-behaviour#lost-on-detach).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Membership {
    /// `InService`, `Standby`, `Detaching`, …
    pub lifecycle_state: String,
    /// Lost by the detach.
    pub protected_from_scale_in: bool,
}

const MEMBERSHIP: &str = "Membership";

/// How often a group that is busy with another activity is tried: isolation must not wait longer
/// (aws-behaviour#detaching).
const TRIES: usize = 4;
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

impl DetachAutoscaling {
    /// The step in the configuration's Region.
    pub fn new(aws: &SdkConfig) -> Self {
        DetachAutoscaling { autoscaling: Client::new(aws) }
    }

    /// The step with the caller's own client, which may record the replies.
    pub fn with_client(autoscaling: Client) -> Self {
        DetachAutoscaling { autoscaling }
    }

    async fn detach(&self, target: &Target, group: &str, decrement: bool) -> Result<()> {
        let call = self.autoscaling.detach_instances().auto_scaling_group_name(group).instance_ids(&target.instance_id);
        let sent = call.should_decrement_desired_capacity(decrement).send().await;
        sent.map(|_| ()).map_err(Error::aws("autoscaling:DetachInstances", group))
    }
}

/// What stays true when the instance has left (aws-behaviour#replacement).
fn replacement(group: &str) -> String {
    format!(
        "{group} launches a replacement from the same launch template and image: it has the same way in for the \
         attacker"
    )
}

/// What a refusal means; AWS has one error code for most and tells them apart in words (aws-behaviour#detach-refusals).
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    NotAMember,
    NotInService,
    MinSize,
    Busy,
    Other,
}

fn refusal(error: &Error) -> Refusal {
    let text = error.to_string();
    match error.code() {
        Some("ResourceContention" | "ScalingActivityInProgress") => Refusal::Busy,
        Some("ValidationError") if text.contains("is not part of Auto Scaling group") => Refusal::NotAMember,
        Some("ValidationError") if text.contains("is not in InService or Standby") => Refusal::NotInService,
        Some("ValidationError") if text.contains("min-size") => Refusal::MinSize,
        _ => Refusal::Other,
    }
}

impl Step for DetachAutoscaling {
    /// Absent when the instance is in no group.
    type Value = Membership;
    /// The groups that a release needs, by name, as far as they still exist.
    type Facts = BTreeMap<String, Capacity>;
    const NAME: &'static str = "detach-autoscaling";

    async fn read(&self, target: &Target) -> Result<Found<Membership, Self::Facts>> {
        let reply = self.autoscaling.describe_auto_scaling_instances().instance_ids(&target.instance_id).send().await;
        let reply = reply.map_err(Error::aws("autoscaling:DescribeAutoScalingInstances", &target.instance_id))?;
        let member = |i: &aws_sdk_autoscaling::types::AutoScalingInstanceDetails| {
            let key = Key::new(i.auto_scaling_group_name()?, MEMBERSHIP);
            let lifecycle_state = i.lifecycle_state().unwrap_or("unknown").to_owned();
            let protected_from_scale_in = i.protected_from_scale_in().unwrap_or(false);
            Some((key, Membership { lifecycle_state, protected_from_scale_in }))
        };
        let state: State<Membership> = reply.auto_scaling_instances().iter().filter_map(member).collect();
        // A group lists an instance for a while after it has terminated it.
        let state = state
            .into_iter()
            .filter(|(_, member)| !matches!(member.lifecycle_state.as_str(), "Terminated" | "Detached"));
        Ok(Found { state: state.collect(), facts: BTreeMap::new() })
    }

    fn contained(&self, target: &Target, found: &Found<Membership, Self::Facts>, _: &Journaled) -> Goal<Membership> {
        let mut goal = Goal::new(State::new());
        if found.state.is_empty() {
            goal.not_applicable = Some("the instance is in no Auto Scaling group".to_owned());
        }
        for (key, member) in &found.state {
            let (group, lifecycle) = (&key.resource, &member.lifecycle_state);
            if lifecycle.starts_with("Terminating") {
                goal.residual_risk.push(format!(
                    "{group} is terminating the instance ({lifecycle}): it can no longer be detached, and what is in \
                     no snapshot will be lost; extend a termination lifecycle hook, if there is one, with \
                     `aws autoscaling record-lifecycle-action-heartbeat`"
                ));
            } else if lifecycle.starts_with("Warmed") {
                goal.residual_risk.push(format!("the instance is in the warm pool of {group} ({lifecycle})"));
            } else {
                goal.residual_risk.push(format!(
                    "{group} may terminate the instance while it is a member: an isolated instance fails its health \
                     check"
                ));
            }
            if target.auto_scaling == AutoScaling::Replace {
                goal.residual_risk.push(replacement(group));
            }
        }
        goal
    }

    fn accepted(&self, member: &Membership) -> bool {
        member.lifecycle_state == "Detaching"
    }

    async fn write(&self, target: &Target, found: &Found<Membership, Self::Facts>, _: &State<Membership>) -> Writes {
        let mut writes = Writes::default();
        for (key, member) in found.state.iter().filter(|(_, member)| !self.accepted(member)) {
            let group = &key.resource;
            // Standby has lowered the capacity already: another decrement would terminate another instance.
            let mut decrement = target.auto_scaling == AutoScaling::Decrement && member.lifecycle_state != "Standby";
            for attempt in 1..=TRIES {
                let Err(error) = self.detach(target, group, decrement).await else {
                    if !decrement {
                        writes.residual_risk.push(replacement(group));
                    }
                    break;
                };
                match refusal(&error) {
                    // Gone, or leaving (the answer to an earlier try was lost), or not there yet: the read back tells.
                    Refusal::NotAMember | Refusal::NotInService => break,
                    Refusal::MinSize if decrement => {
                        decrement = false;
                        writes.residual_risk.push(format!(
                            "{group} is at its minimum size: its capacity could not be decremented, so it launches a replacement"
                        ));
                    }
                    Refusal::Busy if attempt < TRIES => tokio::time::sleep(BETWEEN_TRIES).await,
                    _ => {
                        writes.failures.push(error);
                        break;
                    }
                }
            }
        }
        writes
    }
}

impl Reversible for DetachAutoscaling {
    const ON_DRIFT: OnDrift = OnDrift::Discard;

    async fn read_journaled(&self, target: &Target, first: &First) -> Result<Found<Membership, Self::Facts>> {
        let (found, groups) = futures::join!(self.read(target), release::groups(&self.autoscaling, first));
        Ok(Found { facts: groups?, ..found? })
    }

    fn released(&self, target: &Target, found: &Found<Membership, Self::Facts>, first: &First) -> Goal<Membership> {
        release::released(target, found, first)
    }

    fn returning(&self, member: &Membership, wanted: Option<&Membership>) -> bool {
        release::is_returning(member, wanted)
    }

    async fn restore(
        &self,
        target: &Target,
        found: &Found<Membership, Self::Facts>,
        goal: &State<Membership>,
    ) -> Writes {
        release::restore(&self.autoscaling, target, found, goal).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_autoscaling::operation::describe_auto_scaling_instances::DescribeAutoScalingInstancesOutput;
    use aws_sdk_autoscaling::operation::detach_instances::{DetachInstancesError, DetachInstancesOutput};
    use aws_sdk_autoscaling::types::AutoScalingInstanceDetails;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use serde_json::json;

    fn target(auto_scaling: &str) -> Target {
        Target::parse(json!({
            "AccountId": "123456789012", "Region": "eu-west-1", "InstanceId": "i-0123456789abcdef0", "CaseId": "c-1",
            "AutoScaling": auto_scaling,
        }))
        .expect("a good event")
    }

    fn step(rules: &[&Rule]) -> DetachAutoscaling {
        DetachAutoscaling { autoscaling: mock_client!(aws_sdk_autoscaling, RuleMode::Sequential, rules) }
    }

    fn member(lifecycle: &str) -> Found<Membership, BTreeMap<String, Capacity>> {
        let member = Membership { lifecycle_state: lifecycle.to_owned(), protected_from_scale_in: false };
        Found { state: [(Key::new("web", MEMBERSHIP), member)].into(), facts: BTreeMap::new() }
    }

    fn refused(message: &'static str) -> Rule {
        mock!(Client::detach_instances).then_error(move || {
            let meta = aws_sdk_autoscaling::error::ErrorMetadata::builder().code("ValidationError").message(message);
            DetachInstancesError::generic(meta.build())
        })
    }

    fn detached(decrement: bool) -> Rule {
        mock!(Client::detach_instances)
            .match_requests(move |r| r.should_decrement_desired_capacity() == Some(decrement))
            .then_output(|| DetachInstancesOutput::builder().build())
    }

    #[tokio::test]
    async fn the_membership_is_read_from_the_instance_and_not_from_a_tag() {
        let rule = mock!(Client::describe_auto_scaling_instances).then_output(|| {
            let details = AutoScalingInstanceDetails::builder()
                .instance_id("i-0123456789abcdef0")
                .auto_scaling_group_name("web")
                .availability_zone("eu-west-1a")
                .lifecycle_state("InService")
                .health_status("HEALTHY")
                .protected_from_scale_in(false);
            DescribeAutoScalingInstancesOutput::builder().auto_scaling_instances(details.build()).build()
        });
        assert_eq!(step(&[&rule]).read(&target("Replace")).await.expect("read"), member("InService"));
    }

    #[test]
    fn a_member_ends_as_no_member_and_no_member_needs_nothing() {
        let step = step(&[]);
        assert!(step.contained(&target("Replace"), &member("InService"), &Journaled::default()).state.is_empty());
        let none = Found { state: State::new(), facts: BTreeMap::new() };
        assert!(step.contained(&target("Replace"), &none, &Journaled::default()).not_applicable.is_some());
    }

    #[test]
    fn detaching_counts_as_accepted_and_terminating_does_not() {
        let step = step(&[]);
        assert!(member("Detaching").state.values().all(|m| step.accepted(m)));
        assert!(!member("Terminating:Wait").state.values().any(|m| step.accepted(m)));
        let goal = step.contained(&target("Replace"), &member("Terminating:Wait"), &Journaled::default());
        assert!(goal.residual_risk[0].contains("can no longer be detached"));
    }

    #[tokio::test]
    async fn capacity_is_decremented_only_when_asked_for() {
        for (mode, decrement) in [("Replace", false), ("Decrement", true)] {
            let rule = detached(decrement);
            let writes = step(&[&rule]).write(&target(mode), &member("InService"), &State::new()).await;
            assert!(writes.failures.is_empty(), "{mode}");
            assert_eq!(writes.residual_risk.is_empty(), decrement, "a replacement has the same way in");
        }
    }

    #[tokio::test]
    async fn an_instance_in_standby_is_detached_without_a_second_decrement() {
        let writes = step(&[&detached(false)]).write(&target("Decrement"), &member("Standby"), &State::new()).await;
        assert!(writes.failures.is_empty());
    }

    #[tokio::test]
    async fn at_minimum_size_the_group_replaces_the_instance_rather_than_keep_it() {
        let min_size = refused(
            "AutoScalingGroup web has min-size=1, max-size=50, and desired-size=1. To detach 1 instance, please update \
             the AutoScalingGroup sizes appropriately.",
        );
        let writes =
            step(&[&min_size, &detached(false)]).write(&target("Decrement"), &member("InService"), &State::new()).await;
        assert!(writes.failures.is_empty());
        assert!(writes.residual_risk[0].contains("launches a replacement"));
    }

    #[tokio::test]
    async fn an_instance_that_left_in_the_meantime_is_no_failure() {
        let gone = refused("The instance i-0123456789abcdef0 is not part of Auto Scaling group web.");
        let writes = step(&[&gone]).write(&target("Replace"), &member("InService"), &State::new()).await;
        assert!(writes.failures.is_empty());
    }

    #[tokio::test]
    async fn a_refusal_because_of_the_lifecycle_state_is_judged_by_the_read_back() {
        let refused = refused("The instance i-0123456789abcdef0 is not in InService or Standby.");
        let writes = step(&[&refused]).write(&target("Replace"), &member("InService"), &State::new()).await;
        assert!(writes.failures.is_empty(), "it may be detaching already, and the answer was lost");
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_group_is_asked_again() {
        let busy = mock!(Client::detach_instances).then_error(|| {
            let meta = aws_sdk_autoscaling::error::ErrorMetadata::builder().code("ScalingActivityInProgress").build();
            DetachInstancesError::generic(meta)
        });
        let writes =
            step(&[&busy, &detached(false)]).write(&target("Replace"), &member("InService"), &State::new()).await;
        assert!(writes.failures.is_empty());
    }
}
