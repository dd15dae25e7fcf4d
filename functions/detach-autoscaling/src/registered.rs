//! What the Auto Scaling group has registered for the instance: the detach deregisters that too, before
//! `deregister-targets` has read it (aws-behaviour#lost-on-detach). So that a release restores it, it is journaled for that
//! step before the detach.

use aws_sdk_autoscaling::Client;
use containment::{Error, First, Journal, Outcome, Result, State, Step, Target, converge_from, start};
use registrations::{DEREGISTER_TARGETS, registered_by_group};
use runtime::{Aws, answer, run_release};
use serde_json::{Value, json};

use crate::{DetachAutoscaling, Membership};

/// What the instance's groups have registered for it, as the journal of `deregister-targets` keeps it.
pub async fn registrations(autoscaling: &Client, target: &Target, members: &State<Membership>) -> Result<First> {
    let mut registrations = First::new();
    // In any other state the group has not registered the instance yet, or has deregistered it.
    for (key, _) in members.iter().filter(|(_, member)| member.lifecycle_state == "InService") {
        let sent = autoscaling.describe_auto_scaling_groups().auto_scaling_group_names(&key.resource).send().await;
        let reply = sent.map_err(Error::aws("autoscaling:DescribeAutoScalingGroups", &key.resource))?;
        for group in reply.auto_scaling_groups() {
            let registered = registered_by_group(target, group.target_group_arns(), group.load_balancer_names());
            registrations.extend(registered.into_iter().map(|(key, value)| (key, json!(value))));
        }
    }
    Ok(registrations)
}

/// The function: a target in, with the registrations that `describe-instance` has read; an outcome out.
pub async fn handle(aws: &Aws, event: Value) -> Result<Outcome> {
    let (target, registrations) = parse(event)?;
    let step = DetachAutoscaling::new(&aws.of(&target, DetachAutoscaling::NAME).await?);
    let outcome = match &target.release {
        // Boxed, because the type of a whole step's future is too deep for the compiler's default limit.
        None => Box::pin(step.contain(&target, &aws.case_table()?, registrations)).await,
        Some(_) => run_release(aws, &step, &target).await,
    };
    answer(&target, outcome)
}

/// Absent where `describe-instance` could not read them.
fn parse(mut event: Value) -> Result<(Target, Option<First>)> {
    let registrations = event.as_object_mut().and_then(|event| event.remove("Registrations")).unwrap_or_default();
    let registrations = serde_json::from_value(registrations)
        .map_err(|error| Error::InvalidInput(format!("Registrations: {error}")))?;
    Ok((Target::parse(event)?, registrations))
}

impl DetachAutoscaling {
    /// Runs the step. Registrations that are known are journaled beside the first read, which costs no round trip on the way
    /// to isolation.
    async fn contain(&self, target: &Target, journal: &impl Journal, registrations: Option<First>) -> Result<Outcome> {
        if target.dry_run {
            return converge_from(self, target, journal, start(self, target, journal).await?).await;
        }
        let known = registrations.clone().unwrap_or_default();
        let (mut start, ()) =
            futures::try_join!(start(self, target, journal), journal_registrations(target, journal, known))?;
        if registrations.is_none() {
            match self::registrations(&self.autoscaling, target, &start.found.state).await {
                Ok(read) => journal_registrations(target, journal, read).await?,
                // What can't be read must be said, and is no reason to leave the instance in its group.
                Err(error) => start.residual_risk.push(format!(
                    "what the Auto Scaling group had registered is not in the journal, so that a release can't restore it: \
                     {error}"
                )),
            }
        }
        converge_from(self, target, journal, start).await
    }
}

/// Journals what `deregister-targets` has to restore. What that step did not find on its first run was registered since, and
/// is nothing to restore.
async fn journal_registrations(target: &Target, journal: &impl Journal, mut first: First) -> Result<()> {
    let step = DEREGISTER_TARGETS;
    if first.is_empty() || journal.keep_ahead(target, step, &first.clone().into()).await? {
        return Ok(());
    }
    let baseline = journal.read(target, step).await?.baseline.unwrap_or_default();
    first.iter_mut().filter(|(key, _)| !baseline.contains_key(key)).for_each(|(_, value)| *value = Value::Null);
    journal.keep(target, step, &first.into()).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_autoscaling::error::ErrorMetadata;
    use aws_sdk_autoscaling::operation::describe_auto_scaling_groups::{
        DescribeAutoScalingGroupsError, DescribeAutoScalingGroupsOutput,
    };
    use aws_sdk_autoscaling::operation::describe_auto_scaling_instances::DescribeAutoScalingInstancesOutput;
    use aws_sdk_autoscaling::operation::detach_instances::{DetachInstancesError, DetachInstancesOutput};
    use aws_sdk_autoscaling::types::{AutoScalingGroup, AutoScalingInstanceDetails};
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use containment::{Journaled, Key, MemoryJournal, Status};
    use std::sync::{Arc, Mutex};

    const REGISTERED: &str = "Target i-0123456789abcdef0";

    fn target() -> Target {
        Target::example()
    }

    fn step(rules: &[&Rule]) -> DetachAutoscaling {
        DetachAutoscaling { autoscaling: mock_client!(aws_sdk_autoscaling, RuleMode::MatchAny, rules) }
    }

    /// In service until it has been detached.
    fn member(detached: &Arc<Mutex<bool>>) -> Rule {
        let detached = Arc::clone(detached);
        mock!(Client::describe_auto_scaling_instances).then_compute_output(move |_| {
            let member = AutoScalingInstanceDetails::builder()
                .instance_id("i-0123456789abcdef0")
                .auto_scaling_group_name("web")
                .availability_zone("eu-west-1a")
                .lifecycle_state("InService")
                .health_status("HEALTHY")
                .protected_from_scale_in(false)
                .build();
            let members = if *detached.lock().expect("lock") { Vec::new() } else { vec![member] };
            DescribeAutoScalingInstancesOutput::builder().set_auto_scaling_instances(Some(members)).build()
        })
    }

    fn detaches(detached: &Arc<Mutex<bool>>) -> Rule {
        let detached = Arc::clone(detached);
        mock!(Client::detach_instances).then_compute_output(move |_| {
            *detached.lock().expect("lock") = true;
            DetachInstancesOutput::builder().build()
        })
    }

    fn refused() -> Rule {
        mock!(Client::detach_instances)
            .then_error(|| DetachInstancesError::generic(ErrorMetadata::builder().code("AccessDenied").build()))
    }

    fn group_with_a_target_group() -> Rule {
        mock!(Client::describe_auto_scaling_groups).then_output(|| {
            let group = AutoScalingGroup::builder().target_group_arns("arn:tg").build();
            DescribeAutoScalingGroupsOutput::builder().auto_scaling_groups(group).build()
        })
    }

    fn registered(group: &str) -> First {
        [(Key::new(group, REGISTERED), json!({ "Id": "i-0123456789abcdef0", "State": "registered" }))].into()
    }

    async fn journaled(journal: &MemoryJournal) -> First {
        journal.read(&target(), DEREGISTER_TARGETS).await.expect("journal").first
    }

    #[tokio::test]
    async fn registrations_that_were_read_before_are_journaled_before_anything_is_written() {
        let not_yet = Arc::default();
        let (member, groups, refused, journal) =
            (member(&not_yet), group_with_a_target_group(), refused(), MemoryJournal::default());
        let step = step(&[&member, &groups, &refused]);
        step.contain(&target(), &journal, Some(registered("arn:known"))).await.expect_err("refused");
        assert_eq!(journaled(&journal).await, registered("arn:known"));
        assert_eq!((groups.num_calls(), refused.num_calls()), (0, 1), "they are not read again");
    }

    #[tokio::test]
    async fn registrations_that_nobody_has_read_are_read_and_journaled_before_anything_is_written() {
        let not_yet = Arc::default();
        let (member, groups, refused, journal) =
            (member(&not_yet), group_with_a_target_group(), refused(), MemoryJournal::default());
        step(&[&member, &groups, &refused]).contain(&target(), &journal, None).await.expect_err("refused");
        assert_eq!(journaled(&journal).await, registered("arn:tg"));
    }

    #[tokio::test]
    async fn what_deregister_targets_did_not_find_on_its_first_run_is_nothing_that_it_has_to_restore() {
        let detached = Arc::default();
        let (member, detaches) = (member(&detached), detaches(&detached));
        let baseline = Journaled { first: First::new(), baseline: Some(registered("arn:first")) };
        let journal = MemoryJournal::of(DEREGISTER_TARGETS, baseline);
        let both = registered("arn:first").into_iter().chain(registered("arn:since")).collect();
        step(&[&member, &detaches]).contain(&target(), &journal, Some(both)).await.expect("detached");
        let mut wanted = registered("arn:first");
        wanted.insert(Key::new("arn:since", REGISTERED), Value::Null);
        assert_eq!(journaled(&journal).await, wanted);
    }

    #[tokio::test]
    async fn registrations_that_cannot_be_read_are_named_and_the_instance_is_detached() {
        let detached = Arc::default();
        let (member, detaches, journal) = (member(&detached), detaches(&detached), MemoryJournal::default());
        let throttled = mock!(Client::describe_auto_scaling_groups).then_error(|| {
            DescribeAutoScalingGroupsError::generic(ErrorMetadata::builder().code("AccessDenied").message("no").build())
        });
        let outcome =
            step(&[&member, &throttled, &detaches]).contain(&target(), &journal, None).await.expect("detached");
        assert_eq!(outcome.status, Status::Done);
        let said = outcome.residual_risk.last().expect("a sentence");
        assert!(said.contains("a release can't restore it: autoscaling:DescribeAutoScalingGroups on web"), "{said}");
    }

    #[tokio::test]
    async fn a_dry_run_neither_reads_registrations_nor_journals_them() {
        let not_yet = Arc::default();
        let (member, groups, journal) = (member(&not_yet), group_with_a_target_group(), MemoryJournal::default());
        let target = Target { dry_run: true, ..target() };
        let step = step(&[&member, &groups]);
        step.contain(&target, &journal, None).await.expect("planned");
        step.contain(&target, &journal, Some(registered("arn:known"))).await.expect("planned");
        assert_eq!((journaled(&journal).await, groups.num_calls()), (First::new(), 0));
    }

    #[test]
    fn the_event_is_a_target_with_registrations_or_without() {
        let event = |registrations: Value| {
            let mut event = serde_json::to_value(target()).expect("JSON");
            event["Registrations"] = registrations;
            parse(event)
        };
        assert_eq!(event(json!(registered("arn:tg"))).expect("good"), (target(), Some(registered("arn:tg"))));
        assert_eq!(event(Value::Null).expect("good"), (target(), None));
        assert!(event(json!({ "arn:tg": "no key" })).expect_err("refused").to_string().contains("Registrations"));
    }
}
