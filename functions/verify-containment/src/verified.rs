//! The verdict on one containment, from what the steps said and what AWS shows. Pure.

use std::collections::BTreeMap;

use containment::Result;
use verdict::{InstanceReport, Outcome, Status, StepName, Verdict, read_back, residual_risks, when};

/// How AWS shows a step.
pub(crate) type Check = (StepName, Result<Outcome>);

/// Completes a report with the verdict, from what AWS shows now.
///
/// `paths` are the connections that group changes cannot cut.
pub(crate) fn verified(
    mut report: InstanceReport,
    capture_asked: bool,
    ran: &[Outcome],
    checks: Vec<Check>,
    paths: Vec<String>,
) -> InstanceReport {
    // The last answer of a step counts: the workflow asks again until it has settled.
    let said: BTreeMap<&str, &Outcome> = ran.iter().map(|o| (o.step.as_str(), o)).collect();
    let said_of = |step: StepName| said.get(step.name()).copied();
    let declined = said_of(StepName::RequestApproval).filter(|o| o.status == Status::NotApplicable);
    let mut isolated = false;
    let checked: Vec<&str> = checks.iter().map(|(step, _)| step.name()).collect();
    for (step, shown) in checks {
        let said = said_of(step);
        let (outcome, shown_good) = match declined.filter(|_| step.disturbs() && said.is_none()) {
            Some(answer) => {
                // Whoever took over the case may have done it by now.
                let done = shown.ok().filter(|shown| shown.status == Status::Done);
                let shown_good = done.is_some();
                let not_done = || Outcome::new(step.name(), Status::NotApplicable, answer.reason.clone());
                (done.unwrap_or_else(not_done), shown_good)
            }
            None => {
                let row = read_back(step, said, shown);
                (row.outcome, row.shown_good)
            }
        };
        isolated |= step == StepName::IsolateNetwork && shown_good;
        report.steps.push(outcome);
    }
    // A capture that was requested and never began has said nothing of itself.
    if capture_asked && said_of(StepName::CaptureVolatile).is_none() {
        let (status, reason) = match declined {
            Some(answer) => (Status::NotApplicable, answer.reason.clone()),
            None => (Status::Failed, Some("the step did not run".to_owned())),
        };
        report.steps.push(Outcome::new(StepName::CaptureVolatile.name(), status, reason));
    }
    // Steps that change nothing have nothing to read back.
    report.steps.extend(said.values().filter(|o| !checked.contains(&o.step.as_str())).map(|o| (*o).clone()));
    report.residual_risk = residual_risks(report.steps.iter().chain(ran));
    for path in paths {
        if !report.residual_risk.contains(&path) {
            report.residual_risk.push(path);
        }
    }
    for step in &mut report.steps {
        step.when = when(ran, &step.step);
    }
    report.open = report.steps.iter().filter(|o| !o.status.is_good()).map(Outcome::open_line).collect();
    let verdict = match (isolated, report.open.is_empty()) {
        (true, true) => Verdict::Contained,
        (true, false) => Verdict::PartiallyContained,
        (false, true) if declined.is_some() => Verdict::NotApproved,
        (false, _) => Verdict::NotContained,
    };
    report.verdict = verdict.into();
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use StepName::{
        CaptureVolatile, DetachAutoscaling, DetachProfile, IsolateNetwork, ProtectInstance, RequestApproval,
        TagResources,
    };
    use containment::Error;

    fn outcome(step: StepName, status: Status) -> Outcome {
        Outcome::new(step.name(), status, format!("{step} said so"))
    }

    fn shown(step: StepName, status: Status) -> Check {
        (step, Ok(outcome(step, status)))
    }

    fn of(ran: &[Outcome], checks: Vec<Check>) -> InstanceReport {
        verified(InstanceReport::default(), false, ran, checks, Vec::new())
    }

    #[test]
    fn contained_needs_every_step_read_back_as_done_or_not_applicable() {
        let ran = [outcome(IsolateNetwork, Status::Done), outcome(DetachProfile, Status::NotApplicable)];
        let checks = vec![shown(IsolateNetwork, Status::Done), shown(DetachProfile, Status::NotApplicable)];
        let report = of(&ran, checks);
        assert!(report.verdict == Verdict::Contained && report.open.is_empty(), "{report:?}");
    }

    #[test]
    fn a_step_that_said_done_and_is_not_shown_so_is_open() {
        let report = of(&[outcome(IsolateNetwork, Status::Done)], vec![shown(IsolateNetwork, Status::Failed)]);
        assert!(report.verdict == Verdict::NotContained && report.steps[0].status == Status::Failed, "{report:?}");
    }

    #[test]
    fn what_cannot_be_read_back_is_not_contained() {
        let unread = (IsolateNetwork, Err(Error::NotFound("no interfaces".into())));
        let report = of(&[outcome(IsolateNetwork, Status::Done)], vec![unread]);
        assert!(report.verdict == Verdict::NotContained, "{report:?}");
        assert!(report.open[0].contains("could not be read back: no interfaces"));
    }

    #[test]
    fn another_open_step_leaves_an_isolated_instance_partly_contained() {
        let ran = [outcome(IsolateNetwork, Status::Done), outcome(TagResources, Status::Failed)];
        let report = of(&ran, vec![shown(IsolateNetwork, Status::Done), shown(TagResources, Status::Failed)]);
        assert!(report.verdict == Verdict::PartiallyContained, "{report:?}");
    }

    #[test]
    fn a_step_that_failed_stays_failed_even_where_aws_shows_its_goal() {
        let ran = [outcome(IsolateNetwork, Status::Done), outcome(TagResources, Status::Failed)];
        let report = of(&ran, vec![shown(IsolateNetwork, Status::Done), shown(TagResources, Status::Done)]);
        assert!(report.verdict == Verdict::PartiallyContained, "{report:?}");
        assert!(report.open[0].contains("AWS now shows it as it should be"));
    }

    #[test]
    fn a_step_that_never_ran_is_named() {
        let report = of(&[], vec![shown(IsolateNetwork, Status::Done)]);
        assert!(report.open[0].contains("the step did not run"));
        assert!(report.verdict == Verdict::PartiallyContained, "{report:?}");
    }

    #[test]
    fn what_was_settling_and_has_settled_is_done() {
        let ran = [outcome(IsolateNetwork, Status::Done), outcome(DetachAutoscaling, Status::InProgress)];
        let report = of(&ran, vec![shown(IsolateNetwork, Status::Done), shown(DetachAutoscaling, Status::Done)]);
        assert!(report.verdict == Verdict::Contained, "{report:?}");
    }

    #[test]
    fn an_unsupported_protection_is_an_answer_and_still_open() {
        let ran = [outcome(IsolateNetwork, Status::Done), outcome(ProtectInstance, Status::Unsupported)];
        let report = of(&ran, vec![shown(IsolateNetwork, Status::Done), shown(ProtectInstance, Status::Unsupported)]);
        assert!(report.verdict == Verdict::PartiallyContained, "{report:?}");
    }

    #[test]
    fn after_a_refusal_disturbing_steps_stay_undone_and_the_rest_is_verified() {
        let ran = [outcome(TagResources, Status::Done), outcome(RequestApproval, Status::NotApplicable)];
        let refused = of(&ran, vec![shown(IsolateNetwork, Status::Failed), shown(TagResources, Status::Done)]);
        assert!(refused.verdict == Verdict::NotApproved && refused.open.is_empty(), "{refused:?}");
        assert_eq!(refused.steps[0].reason.as_deref(), Some("request-approval said so"));
        let taken_over = of(&ran, vec![shown(IsolateNetwork, Status::Done), shown(TagResources, Status::Done)]);
        assert!(taken_over.verdict == Verdict::Contained, "by whoever took over the case");
        let failed = of(&ran, vec![shown(IsolateNetwork, Status::Failed), shown(TagResources, Status::Failed)]);
        assert!(failed.verdict == Verdict::NotContained, "{failed:?}");
    }

    #[test]
    fn a_question_that_nobody_answered_is_open() {
        let report = of(&[outcome(RequestApproval, Status::Failed)], vec![shown(IsolateNetwork, Status::Failed)]);
        assert!(report.verdict == Verdict::NotContained, "{report:?}");
        assert!(report.open.iter().any(|line| line.starts_with("request-approval Failed")));
    }

    #[test]
    fn a_capture_that_was_requested_and_never_began_has_a_row_that_says_why() {
        let asked = |ran: &[Outcome], checks| verified(InstanceReport::default(), true, ran, checks, Vec::new());
        let row = |report: &InstanceReport| report.step(CaptureVolatile.name()).map(|s| s.status);
        let refused = asked(&[outcome(RequestApproval, Status::NotApplicable)], Vec::new());
        assert_eq!(row(&refused), Some(Status::NotApplicable));
        let lost = asked(&[], vec![shown(IsolateNetwork, Status::Done)]);
        assert!(row(&lost) == Some(Status::Failed) && lost.verdict == Verdict::PartiallyContained, "{lost:?}");
        let ran = asked(&[outcome(CaptureVolatile, Status::Done)], Vec::new());
        assert_eq!(row(&ran), Some(Status::Done));
        assert_eq!(row(&of(&[], Vec::new())), None);
    }

    #[test]
    fn each_residual_risk_is_named_once_and_uncut_paths_come_last() {
        let risky = |risk: &str| Outcome { residual_risk: vec![risk.into()], ..outcome(IsolateNetwork, Status::Done) };
        let checks = vec![(IsolateNetwork, Ok(risky("DNS")))];
        let paths = vec!["a NAT gateway".to_owned(), "DNS".to_owned()];
        let report = verified(InstanceReport::default(), false, &[risky("DNS"), risky("IMDS")], checks, paths);
        assert_eq!(report.residual_risk, ["DNS", "IMDS", "a NAT gateway"]);
    }
}
