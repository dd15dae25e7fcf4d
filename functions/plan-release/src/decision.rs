//! Which instances have something to release, and which execution holds their cases: only one at a time, be it a
//! containment or a release.

use cases::{Case, CaseTable, now};
use containment::{Error, Journal, Key, Result, Status, Target, command};
use futures::future::{join_all, try_join_all};
use request::{Execution, Holder, LeftOut, holder};

use crate::Plan;
use crate::input::ReleaseRequest;

/// The functions of a stopped execution run on, and those that change an instance do so for at most this many seconds.
/// If one of them contained something after its release, it would stay contained and nobody would know.
const RUN_ON: i64 = 120;

/// The case table, and Step Functions to ask whether an execution is still running.
pub(crate) struct ReleasePlanner {
    pub(crate) cases: CaseTable,
    pub(crate) sfn: aws_sdk_sfn::Client,
}

/// The decision about an instance.
#[derive(Debug, PartialEq)]
enum ReleaseDecision {
    /// Take over the open case, and release.
    Release(Case),
    /// This execution already holds it: an earlier try of this function took it.
    Mine(Case),
    /// Leave it out, with the reason.
    Leave(Status, String),
}

impl ReleasePlanner {
    /// Makes the plan. Takes over the cases; a dry run writes nothing.
    pub(crate) async fn plan(&self, request: ReleaseRequest, execution: &Execution) -> Result<Plan> {
        let ReleaseRequest { dry_run, close_case, targets, .. } = request;
        let seen = join_all(targets.iter().map(|target| self.look(target, execution))).await;
        let (mut planned, mut taken, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
        for (target, decide) in targets.into_iter().zip(seen) {
            match decide {
                Ok(ReleaseDecision::Release(case)) => {
                    planned.push(Target { case_id: case.id.clone(), ..target.clone() });
                    taken.push((target, case));
                }
                Ok(ReleaseDecision::Mine(case)) => planned.push(Target { case_id: case.id, ..target }),
                Ok(ReleaseDecision::Leave(status, reason)) => left_out.push(LeftOut::instance(&target, status, reason)),
                Err(error) if error.is_transient() => return Err(error),
                // A failure to read one instance's case must not keep the others from being released.
                Err(error) => left_out.push(LeftOut::instance(&target, Status::Failed, error.to_string())),
            }
        }
        if !dry_run {
            try_join_all(taken.iter().map(|(target, case)| self.take(target, case, execution))).await?;
        }
        let targets = try_join_all(planned.into_iter().map(|target| self.with_first_profile(target))).await?;
        Ok(Plan { dry_run, close_case, targets, left_out })
    }

    /// Adds the profile that the case found first, from the journal of `describe-instance`: if several were detached,
    /// only that one comes back.
    async fn with_first_profile(&self, target: Target) -> Result<Target> {
        let first = self.cases.read(&target, "describe-instance").await?.first;
        let profile = first.get(&Key::new(&target.instance_id, "InstanceProfileArn"));
        let instance_profile_arn = profile.map(|arn| arn.as_str().unwrap_or_default().to_owned());
        Ok(Target { instance_profile_arn, ..target })
    }

    async fn look(&self, target: &Target, execution: &Execution) -> Result<ReleaseDecision> {
        let case = self.cases.last_case(target).await?;
        let holder = match &case {
            Some(case) if case.released.is_none() && case.execution != execution.id => {
                holder(&self.sfn, &case.execution, case.held_since).await?
            }
            _ => Holder::Ended,
        };
        Ok(decide(target, case, holder, execution, now()))
    }

    /// Takes the case, on condition that no other execution has taken it since. Otherwise [`Error::Conflict`]: the
    /// workflow tries again and finds the holder, which may be this execution if its first answer was lost.
    async fn take(&self, target: &Target, seen: &Case, execution: &Execution) -> Result<()> {
        let new = Case { execution: execution.id.clone(), held_since: now(), ..Case::default() };
        match self.cases.take_over(target, seen, &new).await? {
            true => Ok(()),
            false => {
                Err(Error::Conflict(format!("another execution has just taken the case of {}", target.instance_id)))
            }
        }
    }
}

/// Decides about an instance from what the case table and Step Functions say. Pure.
fn decide(target: &Target, case: Option<Case>, holder: Holder, execution: &Execution, now: i64) -> ReleaseDecision {
    let Some(case) = case else {
        return ReleaseDecision::Leave(
            Status::NotApplicable,
            "it was never contained: the case table has no case for it, and nothing was changed".to_owned(),
        );
    };
    if let (Some(released), Some(verdict)) = (&case.released, case.verdict.as_deref().filter(|v| *v != "Released")) {
        let reason = format!(
            "its case {} was closed on request, at {} by execution {}, with the verdict {verdict}: finish by hand what that \
             execution lists as not released; this one has changed nothing",
            case.id, released.at, released.execution
        );
        return ReleaseDecision::Leave(Status::Failed, reason);
    }
    if let Some(released) = &case.released {
        let reason = format!(
            "it was already released, at {} by execution {}: its case {} is closed, and nothing was changed",
            released.at, released.execution, case.id
        );
        return ReleaseDecision::Leave(Status::NotApplicable, reason);
    }
    if case.execution == execution.id {
        return ReleaseDecision::Mine(case);
    }
    if let Holder::Stopped(at) = holder
        && now < at.saturating_add(RUN_ON)
    {
        let reason = format!(
            "execution {} was stopped {} seconds ago, and one of its functions may still be running: this execution has \
             changed nothing; try again in {} seconds",
            case.execution,
            now.saturating_sub(at),
            at.saturating_add(RUN_ON).saturating_sub(now)
        );
        return ReleaseDecision::Leave(Status::Failed, reason);
    }
    if holder == Holder::Running {
        let doing = match case.approval.as_deref() {
            Some("Pending") => "has asked for approval and is waiting for the answer",
            _ => "holds its case",
        };
        let reason = format!(
            "execution {} {doing}, and this one has changed nothing: release the instance when that execution has ended, or {} \
             minutes after you stop it with {}",
            case.execution,
            RUN_ON / 60,
            stop(target, &case.execution)
        );
        return ReleaseDecision::Leave(Status::Failed, reason);
    }
    ReleaseDecision::Release(case)
}

/// The command that stops an execution, in its own Region.
fn stop(target: &Target, execution: &str) -> String {
    let region = execution.split(':').nth(3).unwrap_or(&target.region).to_owned();
    let there = Target { region, ..target.clone() };
    command(&there, "stepfunctions stop-execution", &[("--execution-arn", &[execution])])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
    use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
    use aws_sdk_dynamodb::types::AttributeValue;
    use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;
    use aws_sdk_sfn::operation::describe_execution::DescribeExecutionOutput;
    use aws_sdk_sfn::types::ExecutionStatus;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;
    use cases::Released;

    const CONTAINED: &str = "arn:aws:states:ap-northeast-1:123456789012:execution:cordon-contain:run-1";

    pub(crate) fn execution() -> Execution {
        Execution {
            id: "arn:aws:states:ap-northeast-1:123456789012:execution:cordon-contain-release:run-2".into(),
            start_time: "2026-11-21T03:00:07.123Z".into(),
        }
    }

    fn case() -> Case {
        Case { id: "c-0".into(), execution: CONTAINED.into(), held_since: 7, ..Case::default() }
    }

    fn left(decide: ReleaseDecision) -> (Status, String) {
        match decide {
            ReleaseDecision::Leave(status, reason) => (status, reason),
            other => panic!("nothing is left out: {other:?}"),
        }
    }

    #[test]
    fn an_open_case_without_a_running_holder_is_released() {
        assert_eq!(
            decide(&Target::example(), Some(case()), Holder::Ended, &execution(), 1_000),
            ReleaseDecision::Release(case())
        );
        let mine = Case { execution: execution().id, ..case() };
        assert_eq!(
            decide(&Target::example(), Some(mine.clone()), Holder::Ended, &execution(), 1_000),
            ReleaseDecision::Mine(mine)
        );
    }

    #[test]
    fn an_instance_that_was_never_contained_has_nothing_to_release() {
        let (status, reason) = left(decide(&Target::example(), None, Holder::Ended, &execution(), 1_000));
        assert_eq!(status, Status::NotApplicable);
        assert!(reason.contains("never contained") && reason.contains("nothing was changed"), "{reason}");
    }

    #[test]
    fn an_earlier_release_is_named_with_its_time_and_execution() {
        let released = Released { at: "2026-11-21T02:00:00Z".into(), execution: "arn:release".into() };
        // Even if it was this one: a try of this function after the whole release changes nothing.
        for holder in [CONTAINED.to_owned(), execution().id] {
            let case = Case { released: Some(released.clone()), execution: holder, ..case() };
            let (status, reason) = left(decide(&Target::example(), Some(case), Holder::Ended, &execution(), 1_000));
            assert_eq!(status, Status::NotApplicable);
            assert!(reason.contains("2026-11-21T02:00:00Z") && reason.contains("arn:release"), "{reason}");
        }
    }

    #[test]
    fn a_case_that_was_closed_with_something_left_is_a_failure() {
        let released = Released { at: "2026-11-21T02:00:00Z".into(), execution: "arn:release".into() };
        let case = Case { released: Some(released), verdict: Some("PartiallyReleased".into()), ..case() };
        let (status, reason) = left(decide(&Target::example(), Some(case), Holder::Ended, &execution(), 1_000));
        assert_eq!(status, Status::Failed);
        assert!(reason.contains("PartiallyReleased") && reason.contains("by hand"), "{reason}");
    }

    #[test]
    fn a_running_containment_is_named_and_not_disturbed() {
        let (status, reason) = left(decide(&Target::example(), Some(case()), Holder::Running, &execution(), 1_000));
        assert!(
            status == Status::Failed && reason.contains(CONTAINED) && reason.contains("holds its case"),
            "{reason}"
        );
        let stop = format!("`aws stepfunctions stop-execution --region ap-northeast-1 --execution-arn {CONTAINED}`");
        assert!(reason.contains(&stop), "{reason}");
        let asked = Case { approval: Some("Pending".into()), ..case() };
        assert!(
            left(decide(&Target::example(), Some(asked), Holder::Running, &execution(), 1_000))
                .1
                .contains("has asked for approval")
        );
    }

    #[test]
    fn functions_of_an_execution_that_was_just_stopped_may_still_be_running() {
        let stopped = |at| decide(&Target::example(), Some(case()), Holder::Stopped(at), &execution(), 1_000);
        let (status, reason) = left(stopped(970));
        assert!(
            status == Status::Failed && reason.contains("30 seconds ago") && reason.contains("in 90 seconds"),
            "{reason}"
        );
        assert_eq!(stopped(800), ReleaseDecision::Release(case()));
    }

    fn request(dry_run: bool) -> ReleaseRequest {
        let target = Target { dry_run, ..Target::example() };
        ReleaseRequest { region: target.region.clone(), dry_run, close_case: false, targets: vec![target] }
    }

    /// A planner whose table has one case, held by an execution that has ended or is running.
    fn planner(status: ExecutionStatus, writes: &Rule) -> ReleasePlanner {
        let get = mock!(aws_sdk_dynamodb::Client::get_item).then_output(|| {
            let item = [("CaseId", "c-0"), ("Execution", CONTAINED), ("Status", "Open")];
            let item = item.map(|(name, value)| (name.to_owned(), AttributeValue::S(value.to_owned())));
            GetItemOutput::builder().set_item(Some(item.into())).build()
        });
        let described = mock!(aws_sdk_sfn::Client::describe_execution).then_output(move || {
            let reply = DescribeExecutionOutput::builder().execution_arn(CONTAINED).state_machine_arn("m");
            let started = aws_sdk_sfn::primitives::DateTime::from_secs(7);
            reply.status(status.clone()).start_date(started).build().expect("complete")
        });
        let table = mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [&get, writes]);
        ReleasePlanner { cases: CaseTable::new(table, "cases"), sfn: mock_client!(aws_sdk_sfn, [&described]) }
    }

    fn taken() -> Rule {
        mock!(aws_sdk_dynamodb::Client::update_item)
            .match_requests(|r| {
                let values = r.expression_attribute_values().expect("values");
                let has = |text: String| values.values().any(|value| *value == AttributeValue::S(text.clone()));
                r.condition_expression().is_some() && has(CONTAINED.into()) && has(execution().id)
            })
            .then_output(|| UpdateItemOutput::builder().build())
    }

    #[tokio::test]
    async fn the_case_is_taken_over_from_the_holder_that_was_read() {
        let rule = taken();
        let plan = planner(ExecutionStatus::Succeeded, &rule).plan(request(false), &execution()).await.expect("a plan");
        assert_eq!((plan.targets[0].case_id.as_str(), rule.num_calls()), ("c-0", 1));
    }

    #[tokio::test]
    async fn a_dry_run_takes_no_case() {
        let rule = taken();
        let plan = planner(ExecutionStatus::Failed, &rule).plan(request(true), &execution()).await.expect("a plan");
        assert_eq!((plan.targets.len(), plan.dry_run, rule.num_calls()), (1, true, 0));
    }

    #[tokio::test]
    async fn a_case_that_a_running_execution_holds_is_left_to_it() {
        let rule = taken();
        let plan = planner(ExecutionStatus::Running, &rule).plan(request(false), &execution()).await.expect("a plan");
        assert_eq!((plan.targets.len(), plan.left_out[0].status, rule.num_calls()), (0, Status::Failed, 0));
    }

    #[tokio::test]
    async fn losing_the_race_for_a_case_is_a_conflict() {
        let refused = mock!(aws_sdk_dynamodb::Client::update_item).then_error(|| {
            let meta = ErrorMetadata::builder().code("ConditionalCheckFailedException").build();
            let refused = ConditionalCheckFailedException::builder().meta(meta).build();
            UpdateItemError::ConditionalCheckFailedException(refused)
        });
        let error = planner(ExecutionStatus::Succeeded, &refused).plan(request(false), &execution()).await;
        assert_eq!(error.expect_err("taken").name(), "Conflict");
    }
}
