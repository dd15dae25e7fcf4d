//! Keeps the instance from being terminated or stopped, by the API and from within.

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    AttributeBooleanValue, AttributeValue, DeviceType, InstanceAttributeName, InstanceLifecycleType,
};
use containment::{
    Error, First, Found, Goal, Journaled, Key, OnDrift, Result, Reversible, State, Step, Target, Writes, restored,
};

/// The step. Reads three attributes and the instance's kind; changes them by `ModifyInstanceAttribute`, one a call
/// (aws-behaviour#modify-instance-attribute).
#[derive(Debug, Clone)]
pub struct ProtectInstance {
    ec2: Client,
}

/// What decides which protections EC2 offers (aws-behaviour#termination-protection, #stop-protection).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    spot: bool,
    instance_store_root: bool,
}

const TERMINATION: &str = "DisableApiTermination";
const STOP: &str = "DisableApiStop";
const SHUTDOWN: &str = "InstanceInitiatedShutdownBehavior";

impl ProtectInstance {
    /// The step in the configuration's Region.
    pub fn new(aws: &SdkConfig) -> Self {
        ProtectInstance { ec2: Client::new(aws) }
    }

    async fn attribute(&self, target: &Target, name: InstanceAttributeName) -> Result<Option<String>> {
        let reply =
            self.ec2.describe_instance_attribute().instance_id(&target.instance_id).attribute(name.clone()).send();
        let reply = reply.await.map_err(Error::aws("ec2:DescribeInstanceAttribute", &target.instance_id))?;
        let flag = |value: Option<&AttributeBooleanValue>| value.and_then(|v| v.value()).map(|on| on.to_string());
        Ok(match name {
            InstanceAttributeName::DisableApiTermination => flag(reply.disable_api_termination()),
            InstanceAttributeName::DisableApiStop => flag(reply.disable_api_stop()),
            _ => reply.instance_initiated_shutdown_behavior().and_then(|v| v.value()).map(ToOwned::to_owned),
        })
    }

    async fn facts(&self, target: &Target) -> Result<Facts> {
        let reply =
            self.ec2.describe_instances().instance_ids(&target.instance_id).include_managed_resources(true).send();
        let reply = reply.await.map_err(Error::aws("ec2:DescribeInstances", &target.instance_id))?;
        let instance = reply.reservations().iter().flat_map(|r| r.instances()).next();
        let instance = instance.ok_or_else(|| Error::NotFound(format!("instance {} not found", target.instance_id)))?;
        Ok(Facts {
            spot: instance.instance_lifecycle() == Some(&InstanceLifecycleType::Spot),
            instance_store_root: instance.root_device_type() == Some(&DeviceType::InstanceStore),
        })
    }
}

impl Step for ProtectInstance {
    type Value = String;
    type Facts = Facts;
    const NAME: &'static str = "protect-instance";

    async fn read(&self, target: &Target) -> Result<Found<String, Facts>> {
        let (facts, termination, stop, shutdown) = futures::try_join!(
            self.facts(target),
            self.attribute(target, InstanceAttributeName::DisableApiTermination),
            self.attribute(target, InstanceAttributeName::DisableApiStop),
            self.attribute(target, InstanceAttributeName::InstanceInitiatedShutdownBehavior),
        )?;
        let read = [(TERMINATION, termination, "false"), (STOP, stop, "false"), (SHUTDOWN, shutdown, "stop")];
        let state = read.into_iter().map(|(name, value, default)| {
            (Key::new(&target.instance_id, name), value.unwrap_or_else(|| default.to_owned()))
        });
        Ok(Found { state: state.collect(), facts })
    }

    fn contained(&self, _: &Target, found: &Found<String, Facts>, _: &Journaled) -> Goal<String> {
        let mut goal = Goal::new(found.state.clone());
        for (key, value) in &mut goal.state {
            let (wanted, refused) = match key.attribute.as_str() {
                TERMINATION => ("true", found.facts.spot.then_some("a Spot instance takes no termination protection: an interruption can end it")),
                STOP if found.facts.spot => ("true", Some("a Spot instance takes no stop protection")),
                STOP => ("true", found.facts.instance_store_root.then_some("an instance with an instance-store root takes no stop protection: it can't be stopped, only terminated")),
                _ => ("stop", found.facts.instance_store_root.then_some("an instance with an instance-store root can't stop: a shutdown from within terminates it")),
            };
            match refused {
                Some(why) if value != wanted => goal.unsupported.push(why.to_owned()),
                _ => wanted.clone_into(value),
            }
        }
        goal
    }

    async fn write(&self, target: &Target, found: &Found<String, Facts>, goal: &State<String>) -> Writes {
        let changes = goal.iter().filter(|(key, value)| found.state.get(key) != Some(value));
        let calls = changes.map(|(key, value)| async move {
            let call = self.ec2.modify_instance_attribute().instance_id(&target.instance_id);
            let flag = || AttributeBooleanValue::builder().value(value == "true").build();
            let call = match key.attribute.as_str() {
                TERMINATION => call.disable_api_termination(flag()),
                STOP => call.disable_api_stop(flag()),
                _ => call.instance_initiated_shutdown_behavior(AttributeValue::builder().value(value).build()),
            };
            let on = format!("{} of {}", key.attribute, target.instance_id);
            call.send().await.map_err(Error::aws("ec2:ModifyInstanceAttribute", on))
        });
        let mut writes = Writes::default();
        for result in futures::future::join_all(calls).await {
            writes.note(result);
        }
        writes
    }
}

impl Reversible for ProtectInstance {
    const ON_DRIFT: OnDrift = OnDrift::RestoreBaseline;

    /// Each attribute has two values: one that is not as containment left it is as it was before.
    fn released(&self, _: &Target, found: &Found<String, Facts>, first: &First) -> Goal<String> {
        restored(&found.state, first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::modify_instance_attribute::ModifyInstanceAttributeOutput;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    fn target() -> Target {
        Target::example()
    }

    fn found(spot: bool, instance_store_root: bool) -> Found<String, Facts> {
        let values = [(TERMINATION, "false"), (STOP, "false"), (SHUTDOWN, "terminate")];
        let state = values.map(|(name, value)| (Key::new("i-0123456789abcdef0", name), value.to_owned()));
        Found { state: state.into(), facts: Facts { spot, instance_store_root } }
    }

    fn values(goal: &Goal<String>) -> Vec<&str> {
        goal.state.values().map(String::as_str).collect()
    }

    #[test]
    fn an_ordinary_instance_gets_all_three_and_stays_so() {
        let step = ProtectInstance { ec2: mock_client!(aws_sdk_ec2, []) };
        let goal = step.contained(&target(), &found(false, false), &Journaled::default());
        assert_eq!(values(&goal), ["true", "true", "stop"]);
        let again = Found { state: goal.state.clone(), facts: found(false, false).facts };
        assert_eq!(step.contained(&target(), &again, &Journaled::default()), goal);
    }

    #[test]
    fn a_spot_instance_takes_neither_protection_and_stops_instead_of_terminating() {
        let step = ProtectInstance { ec2: mock_client!(aws_sdk_ec2, []) };
        let goal = step.contained(&target(), &found(true, false), &Journaled::default());
        assert_eq!(values(&goal), ["false", "false", "stop"]);
        assert_eq!(goal.unsupported.len(), 2);
    }

    #[test]
    fn an_instance_store_root_takes_termination_protection_only() {
        let step = ProtectInstance { ec2: mock_client!(aws_sdk_ec2, []) };
        let goal = step.contained(&target(), &found(false, true), &Journaled::default());
        assert_eq!(values(&goal), ["false", "true", "terminate"]);
        assert_eq!(goal.unsupported.len(), 2);
    }

    #[test]
    fn a_release_restores_first_values_and_no_defaults() {
        let step = ProtectInstance { ec2: mock_client!(aws_sdk_ec2, []) };
        let before = found(false, false);
        let contained =
            Found { state: step.contained(&target(), &before, &Journaled::default()).state, facts: before.facts };
        let first = before.state.iter().filter(|(key, _)| key.attribute != STOP);
        let first: First = first.map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        let goal = step.released(&target(), &contained, &first);
        assert_eq!(values(&goal), ["true", "false", "terminate"], "what is not in the journal is left alone");
        let again = Found { state: goal.state.clone(), facts: before.facts };
        assert_eq!(step.released(&target(), &again, &first), goal);
    }

    #[tokio::test]
    async fn each_attribute_goes_in_a_call_of_its_own() {
        let rule = mock!(Client::modify_instance_attribute)
            .match_requests(|r| {
                let set = [r.disable_api_termination().is_some(), r.disable_api_stop().is_some()];
                let count = set.iter().filter(|s| **s).count()
                    + usize::from(r.instance_initiated_shutdown_behavior().is_some());
                count == 1
            })
            .then_output(|| ModifyInstanceAttributeOutput::builder().build());
        let step = ProtectInstance { ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&rule]) };
        let goal = step.contained(&target(), &found(false, false), &Journaled::default());
        let writes = step.write(&target(), &found(false, false), &goal.state).await;
        assert!(writes.failures.is_empty());
        assert_eq!(rule.num_calls(), 3);
    }
}
