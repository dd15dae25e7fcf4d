//! From what the steps said and what AWS shows to one verdict per instance. Pure.

use std::collections::BTreeMap;

use containment::{Change, Outcome, Result, Status};
use plan_release::AUTO_SCALING;
use verify_containment::{Report, Verdict, line, row, when};

/// The report's row about the case itself.
pub(crate) const CLOSE: &str = "close-case";

/// A report, and what keeps the case from being closed beside what is open in it: steps that were not asked for, and
/// that AWS does not show as they were.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) report: Report,
    pub(crate) left: Vec<String>,
}

fn is_good(status: Status) -> bool {
    matches!(status, Status::Done | Status::NotApplicable)
}

/// A dry run's report: the plans as they are.
pub(crate) fn planned(mut report: Report, ran: Vec<Outcome>) -> Report {
    report.open = ran.iter().filter(|o| o.status == Status::Failed).map(line).collect();
    report.verdict = if report.open.is_empty() { Verdict::Planned } else { Verdict::NotReleased };
    report.residual_risk = risks(&ran);
    report.steps = ran;
    report
}

/// The verdict, from what AWS shows now. As with a containment, a step that failed stays failed even where AWS shows its
/// goal, and one that said done and is not shown so is not done.
pub(crate) fn verified(
    mut report: Report,
    asked: &[String],
    ran: &[Outcome],
    checks: Vec<(&'static str, Result<Outcome>)>,
) -> Verified {
    // The last answer of a step counts: the workflow asks again until it has settled.
    let said: BTreeMap<&str, &Outcome> = ran.iter().map(|o| (o.step.as_str(), o)).collect();
    let (mut left, mut restored) = (Vec::new(), false);
    for (step, shown) in checks {
        let outcome = if asked.iter().any(|name| name == step) {
            let said = said.get(step).copied();
            let row = row(step, said, shown);
            restored |= row.shown_good && row.outcome.status != Status::NotApplicable;
            // Before the release and after it: what the reading alone shows has no changes.
            Outcome { changes: changes(ran, step), ..row.outcome }
        } else {
            let (outcome, is_left) = not_asked(step, shown);
            // The group has a replacement by now: whether the instance goes back is no question of the case (trap E8).
            if is_left && step != AUTO_SCALING {
                left.push(step.to_owned());
            }
            outcome
        };
        report.steps.push(outcome);
    }
    for step in &mut report.steps {
        step.when = when(ran, &step.step);
    }
    report.residual_risk = risks(ran);
    report.open = report.steps.iter().filter(|o| !is_good(o.status)).map(line).collect();
    let good = report.open.is_empty();
    report.verdict = match (good, left.is_empty()) {
        (true, true) => Verdict::Released,
        (true, false) => Verdict::PartiallyReleased,
        (false, _) if restored => Verdict::PartiallyReleased,
        (false, _) => Verdict::NotReleased,
    };
    Verified { report, left }
}

/// What a step has changed, however often it was asked: what was there first, and what was there last.
fn changes(ran: &[Outcome], step: &str) -> Vec<Change> {
    let mut all: Vec<Change> = Vec::new();
    for change in ran.iter().filter(|o| o.step == step).flat_map(|o| &o.changes) {
        match all.iter_mut().find(|c| (&c.resource, &c.attribute) == (&change.resource, &change.attribute)) {
            Some(known) => known.after = change.after.clone(),
            None => all.push(change.clone()),
        }
    }
    all
}

/// A step that nobody asked to release: its row, and whether something of it is left to release.
fn not_asked(step: &str, shown: Result<Outcome>) -> (Outcome, bool) {
    let (reason, is_left) = match shown {
        Ok(shown) if is_good(shown.status) => ("nothing is left to restore".to_owned(), false),
        Ok(shown) => (shown.reason.unwrap_or_else(|| "it is still as the containment has left it".to_owned()), true),
        Err(error) => (format!("it could not be read: {error}"), true),
    };
    let advice = match step {
        AUTO_SCALING if is_left => {
            "; the group may have a replacement by now: to attach the instance all the same, start the release with \
             \"AttachAutoScaling\": true while the case is open, or attach it by hand"
        }
        _ => "",
    };
    (Outcome::new(step, Status::NotApplicable, format!("not asked for: {reason}{advice}")), is_left)
}

/// Whether the case is to be closed, with what is said about it; or why it stays open.
pub(crate) fn closing(left: &[String], close_case: bool) -> std::result::Result<String, String> {
    let mut names: Vec<&str> = Vec::new();
    for name in left {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let names = names.join(", ");
    match (names.is_empty(), close_case) {
        (true, _) => Ok("the case is closed: a later containment opens a new one".to_owned()),
        (false, true) => Ok(format!("the case is closed, as asked, although this is not released: {names}")),
        (false, false) => Err(format!(
            "the case stays open, since this is not released: {names}; release it again, or, when that was done by \
             hand, with \"CloseCase\": true"
        )),
    }
}

/// Puts the row about the case into the report. A case that should be closed and is not is open work.
pub(crate) fn conclude(report: &mut Report, outcome: Outcome) {
    if outcome.status == Status::Failed {
        report.open.push(line(&outcome));
        if report.verdict == Verdict::Released {
            report.verdict = Verdict::PartiallyReleased;
        }
    }
    report.steps.push(outcome);
}

fn risks(ran: &[Outcome]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for risk in ran.iter().flat_map(|outcome| &outcome.residual_risk) {
        if !all.contains(risk) {
            all.push(risk.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use containment::{Error, Target};
    use serde_json::json;

    const NETWORK: &str = "isolate-network";
    const TAGS: &str = "tag-resources";

    fn report() -> Report {
        Report::new(&Target::example(), json!({}), None)
    }

    fn outcome(step: &str, status: Status) -> Outcome {
        Outcome::new(step, status, format!("{step} said so"))
    }

    fn shown(step: &'static str, status: Status) -> (&'static str, Result<Outcome>) {
        (step, Ok(outcome(step, status)))
    }

    fn of(asked: &[&str], ran: &[Outcome], checks: Vec<(&'static str, Result<Outcome>)>) -> Verified {
        let asked: Vec<String> = asked.iter().map(|step| (*step).to_owned()).collect();
        verified(report(), &asked, ran, checks)
    }

    #[test]
    fn released_needs_every_step_read_back_as_it_was() {
        let ran = [outcome(NETWORK, Status::Done), outcome(TAGS, Status::NotApplicable)];
        let all = of(&[NETWORK, TAGS], &ran, vec![shown(NETWORK, Status::Done), shown(TAGS, Status::NotApplicable)]);
        assert_eq!((all.report.verdict, all.report.open.len(), all.left.len()), (Verdict::Released, 0, 0));
    }

    #[test]
    fn a_step_that_said_done_and_is_not_shown_so_is_open_and_nothing_else_is_as_it_was() {
        let lying = of(&[NETWORK], &[outcome(NETWORK, Status::Done)], vec![shown(NETWORK, Status::Failed)]);
        assert_eq!((lying.report.verdict, lying.report.steps[0].status), (Verdict::NotReleased, Status::Failed));
    }

    #[test]
    fn what_cannot_be_restored_is_open_and_leaves_the_rest_released() {
        let ran = [outcome(NETWORK, Status::Unsupported), outcome(TAGS, Status::Done)];
        let checks = vec![shown(NETWORK, Status::Unsupported), shown(TAGS, Status::Done)];
        let partly = of(&[NETWORK, TAGS], &ran, checks).report;
        assert_eq!((partly.verdict, partly.open.len()), (Verdict::PartiallyReleased, 1));
        assert!(partly.open[0].starts_with("isolate-network Unsupported"), "{:?}", partly.open);
    }

    #[test]
    fn a_step_that_never_ran_or_cannot_be_read_is_not_released() {
        let silent = of(&[NETWORK], &[], vec![shown(NETWORK, Status::Done)]).report;
        assert!(silent.open[0].contains("the step did not run"));
        let unread = (NETWORK, Err(Error::NotFound("no interfaces".into())));
        let unread = of(&[NETWORK], &[outcome(NETWORK, Status::Done)], vec![unread]).report;
        assert_eq!(unread.verdict, Verdict::NotReleased);
        assert!(unread.open[0].contains("could not be read back: no interfaces"));
    }

    #[test]
    fn a_subset_is_partly_released_with_nothing_open_and_the_case_stays_open_and_says_so() {
        let checks = vec![shown(NETWORK, Status::Done), shown(TAGS, Status::Failed)];
        let subset = of(&[NETWORK], &[outcome(NETWORK, Status::Done)], checks);
        assert_eq!((subset.report.verdict, subset.report.open.len()), (Verdict::PartiallyReleased, 0));
        assert_eq!(subset.report.steps[1].status, Status::NotApplicable);
        assert!(subset.report.steps[1].reason.as_ref().expect("a reason").starts_with("not asked for: tag-resources"));
        let why = closing(&subset.left, false).expect_err("stays open");
        assert!(why.contains("stays open") && why.contains("not released: tag-resources;"), "{why}");
    }

    #[test]
    fn the_rest_of_a_subset_that_is_as_it_was_already_lets_the_case_be_closed() {
        let checks = vec![shown(NETWORK, Status::Done), shown(TAGS, Status::Done)];
        let rest = of(&[TAGS], &[outcome(TAGS, Status::Done)], checks);
        assert_eq!((rest.report.verdict, rest.left.len()), (Verdict::Released, 0));
        assert!(closing(&rest.left, false).is_ok());
    }

    #[test]
    fn an_instance_outside_of_its_group_is_released_unless_somebody_asked_for_the_group() {
        let checks = || vec![shown(NETWORK, Status::Done), shown(AUTO_SCALING, Status::Failed)];
        let ran = [outcome(NETWORK, Status::Done), outcome(AUTO_SCALING, Status::Failed)];
        let unasked = of(&[NETWORK], &ran[..1], checks());
        assert_eq!((unasked.report.verdict, unasked.left.len()), (Verdict::Released, 0));
        assert!(unasked.report.steps[1].reason.as_ref().expect("a reason").contains("\"AttachAutoScaling\": true"));
        let asked = of(&[NETWORK, AUTO_SCALING], &ran, checks());
        assert_eq!((asked.report.verdict, asked.report.open.len()), (Verdict::PartiallyReleased, 1));
    }

    #[test]
    fn a_case_is_closed_with_something_left_only_where_a_person_says_so_and_what_is_left_is_named() {
        let left = ["isolate-network".to_owned(), "isolate-network".to_owned()];
        assert!(closing(&left, true).expect("closed").ends_with("not released: isolate-network"));
        assert!(closing(&left, false).expect_err("open").contains("\"CloseCase\": true"));
    }

    #[test]
    fn a_case_that_could_not_be_closed_is_open_work() {
        let mut report = report();
        report.verdict = Verdict::Released;
        conclude(&mut report, Outcome::new(CLOSE, Status::Failed, "taken over".to_owned()));
        assert_eq!(
            (report.verdict, report.open),
            (Verdict::PartiallyReleased, vec!["close-case Failed: taken over".into()])
        );
    }

    #[test]
    fn the_changes_are_those_that_the_step_made_however_often_it_was_asked() {
        let change = |before: i32, after: i32| {
            let (resource, attribute) = ("web".into(), "Target".into());
            vec![Change { resource, attribute, before: json!(before), after: json!(after) }]
        };
        let answer = |status, changes| Outcome { changes, ..outcome(NETWORK, status) };
        let ran = [
            answer(Status::InProgress, change(1, 2)),
            answer(Status::InProgress, change(2, 3)),
            answer(Status::Done, Vec::new()),
        ];
        let report = of(&[NETWORK], &ran, vec![shown(NETWORK, Status::Done)]).report;
        assert_eq!(report.steps[0].changes, change(1, 3));
    }

    #[test]
    fn a_dry_run_never_says_released() {
        assert_eq!(planned(report(), vec![outcome(NETWORK, Status::Planned)]).verdict, Verdict::Planned);
        assert_eq!(planned(report(), vec![outcome(NETWORK, Status::Failed)]).verdict, Verdict::NotReleased);
    }
}
