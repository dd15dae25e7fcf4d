//! The verdict on one release, from what the steps said and what AWS shows. Pure.

use std::collections::BTreeMap;

use containment::{Change, Outcome, Result, Status};
use verdict::{InstanceReport, NOT_ASKED_FOR, StepName, Verdict, read_back, residual_risks, when};

/// How AWS shows a step.
pub(crate) type Check = (StepName, Result<Outcome>);

/// A report, and what keeps the case open: the steps that AWS does not show as they were, asked for or not.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) report: InstanceReport,
    pub(crate) left: Vec<String>,
}

/// Completes a report with the verdict, from what AWS shows now.
pub(crate) fn verified(mut report: InstanceReport, asked: &[String], ran: &[Outcome], checks: Vec<Check>) -> Verified {
    // The last answer of a step counts: the workflow asks again until it has settled.
    let said: BTreeMap<&str, &Outcome> = ran.iter().map(|o| (o.step.as_str(), o)).collect();
    let (mut left, mut restored) = (Vec::new(), false);
    for (step, shown) in checks {
        let outcome = if asked.iter().any(|name| *name == step) {
            let row = read_back(step, said.get(step.name()).copied(), shown);
            restored |= row.shown_good && row.outcome.status != Status::NotApplicable;
            // What the step has changed; what is read back now shows no changes any more.
            Outcome { changes: changes(ran, step), ..row.outcome }
        } else {
            let (outcome, is_left) = not_asked(step, shown);
            // The Auto Scaling group has a replacement by now, so the instance need not go back
            // (aws-behaviour#attaching).
            if is_left && !step.is_on_request() {
                left.push(step.name().to_owned());
            }
            outcome
        };
        report.steps.push(outcome);
    }
    for step in &mut report.steps {
        step.when = when(ran, &step.step);
    }
    report.residual_risk = residual_risks(ran);
    let open = || report.steps.iter().filter(|o| !o.status.is_good());
    let verdict = match (open().next().is_none(), left.is_empty()) {
        (true, true) => Verdict::Released,
        (true, false) => Verdict::PartiallyReleased,
        (false, _) if restored => Verdict::PartiallyReleased,
        (false, _) => Verdict::NotReleased,
    };
    left.extend(open().map(|o| o.step.clone()));
    report.open = open().map(Outcome::open_line).collect();
    report.verdict = verdict.into();
    Verified { report, left }
}

/// What a step has changed, however often it was asked: from what was there first to what was there last.
fn changes(ran: &[Outcome], step: StepName) -> Vec<Change> {
    let mut all: Vec<Change> = Vec::new();
    for change in ran.iter().filter(|o| o.is(step)).flat_map(|o| &o.changes) {
        match all.iter_mut().find(|c| (&c.resource, &c.attribute) == (&change.resource, &change.attribute)) {
            Some(known) => known.after = change.after.clone(),
            None => all.push(change.clone()),
        }
    }
    all
}

/// A step that nobody asked to release: its row, and whether something of it is left to release.
fn not_asked(step: StepName, shown: Result<Outcome>) -> (Outcome, bool) {
    let (reason, is_left) = match shown {
        Ok(shown) if shown.status.is_good() => ("nothing is left to restore".to_owned(), false),
        Ok(shown) => (shown.reason.unwrap_or_else(|| "it is still as containment left it".to_owned()), true),
        Err(error) => (format!("it could not be read: {error}"), true),
    };
    let advice = match is_left && step.is_on_request() {
        true => {
            "; the group may have launched a replacement: to attach the instance anyway, start the release with \
             \"AttachAutoScaling\": true while the case is open, or attach it by hand"
        }
        false => "",
    };
    let reason = format!("{NOT_ASKED_FOR}: {reason}{advice}");
    (Outcome::new(step.name(), Status::NotApplicable, reason), is_left)
}

/// Whether the case is to be closed, and what to say about it; or why it stays open.
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
        (false, true) => Ok(format!("the case is closed, as requested, although this is not released: {names}")),
        (false, false) => Err(format!(
            "the case stays open because this is not released: {names}; release it again, or, if it was restored by \
             hand, release with \"CloseCase\": true"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StepName::{DetachAutoscaling as AUTO_SCALING, IsolateNetwork as NETWORK, TagResources as TAGS};
    use containment::Error;
    use serde_json::json;

    fn outcome(step: StepName, status: Status) -> Outcome {
        Outcome::new(step.name(), status, format!("{step} said so"))
    }

    fn shown(step: StepName, status: Status) -> Check {
        (step, Ok(outcome(step, status)))
    }

    fn of(asked: &[StepName], ran: &[Outcome], checks: Vec<Check>) -> Verified {
        let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
        verified(InstanceReport::default(), &asked, ran, checks)
    }

    fn verdict(verified: &Verified) -> Verdict {
        verified.report.verdict.known().expect("a verdict")
    }

    #[test]
    fn released_needs_every_step_read_back_as_it_was() {
        let ran = [outcome(NETWORK, Status::Done), outcome(TAGS, Status::NotApplicable)];
        let all = of(&[NETWORK, TAGS], &ran, vec![shown(NETWORK, Status::Done), shown(TAGS, Status::NotApplicable)]);
        assert_eq!((verdict(&all), all.report.open.len(), all.left.len()), (Verdict::Released, 0, 0));
    }

    #[test]
    fn a_step_that_said_done_and_is_not_shown_so_is_not_released() {
        let lying = of(&[NETWORK], &[outcome(NETWORK, Status::Done)], vec![shown(NETWORK, Status::Failed)]);
        assert_eq!((verdict(&lying), lying.report.steps[0].status), (Verdict::NotReleased, Status::Failed));
    }

    #[test]
    fn what_cannot_be_restored_is_open_and_the_rest_is_still_released() {
        let ran = [outcome(NETWORK, Status::Unsupported), outcome(TAGS, Status::Done)];
        let checks = vec![shown(NETWORK, Status::Unsupported), shown(TAGS, Status::Done)];
        let partly = of(&[NETWORK, TAGS], &ran, checks);
        assert_eq!(
            (verdict(&partly), partly.left.as_slice()),
            (Verdict::PartiallyReleased, &[NETWORK.to_string()][..])
        );
        let open = partly.report.open;
        assert!(open.len() == 1 && open[0].starts_with("isolate-network Unsupported"), "{open:?}");
    }

    #[test]
    fn a_step_that_never_ran_or_cannot_be_read_is_not_released() {
        let silent = of(&[NETWORK], &[], vec![shown(NETWORK, Status::Done)]).report;
        assert!(silent.open[0].contains("the step did not run"));
        let unread = (NETWORK, Err(Error::NotFound("no interfaces".into())));
        let unread = of(&[NETWORK], &[outcome(NETWORK, Status::Done)], vec![unread]);
        assert_eq!(verdict(&unread), Verdict::NotReleased);
        assert!(unread.report.open[0].contains("could not be read back: no interfaces"));
    }

    #[test]
    fn a_subset_is_partly_released_with_nothing_open_and_the_case_stays_open() {
        let checks = vec![shown(NETWORK, Status::Done), shown(TAGS, Status::Failed)];
        let subset = of(&[NETWORK], &[outcome(NETWORK, Status::Done)], checks);
        assert_eq!((verdict(&subset), subset.report.open.len()), (Verdict::PartiallyReleased, 0));
        assert_eq!(subset.report.steps[1].status, Status::NotApplicable);
        assert!(subset.report.steps[1].reason.as_ref().expect("a reason").starts_with("not asked for: tag-resources"));
        let why = closing(&subset.left, false).expect_err("stays open");
        assert!(why.contains("stays open") && why.contains("not released: tag-resources;"), "{why}");
    }

    #[test]
    fn a_subset_closes_the_case_if_the_rest_is_already_as_it_was() {
        let checks = vec![shown(NETWORK, Status::Done), shown(TAGS, Status::Done)];
        let rest = of(&[TAGS], &[outcome(TAGS, Status::Done)], checks);
        assert_eq!((verdict(&rest), rest.left.len()), (Verdict::Released, 0));
        assert!(closing(&rest.left, false).is_ok());
    }

    #[test]
    fn an_instance_outside_its_group_is_released_unless_the_group_was_requested() {
        let checks = || vec![shown(NETWORK, Status::Done), shown(AUTO_SCALING, Status::Failed)];
        let ran = [outcome(NETWORK, Status::Done), outcome(AUTO_SCALING, Status::Failed)];
        let unasked = of(&[NETWORK], &ran[..1], checks());
        assert_eq!((verdict(&unasked), unasked.left.len()), (Verdict::Released, 0));
        assert!(unasked.report.steps[1].reason.as_ref().expect("a reason").contains("\"AttachAutoScaling\": true"));
        let asked = of(&[NETWORK, AUTO_SCALING], &ran, checks());
        assert_eq!((verdict(&asked), asked.report.open.len()), (Verdict::PartiallyReleased, 1));
    }

    #[test]
    fn a_case_with_something_left_is_closed_only_on_request_and_names_what_is_left() {
        let left = ["isolate-network".to_owned(), "isolate-network".to_owned()];
        assert!(closing(&left, true).expect("closed").ends_with("not released: isolate-network"));
        assert!(closing(&left, false).expect_err("open").contains("\"CloseCase\": true"));
    }

    #[test]
    fn a_case_that_could_not_be_closed_is_open_work() {
        let mut report = InstanceReport { verdict: Verdict::Released.into(), ..InstanceReport::default() };
        report.add(Outcome::new(StepName::CloseCase.name(), Status::Failed, "taken over".to_owned()));
        assert!(report.verdict == Verdict::PartiallyReleased, "{report:?}");
        assert_eq!(report.open, ["close-case Failed: taken over"]);
    }

    #[test]
    fn a_step_shows_all_its_changes_however_often_it_was_asked() {
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
        use verdict::Workflow::Release;
        let planned = |status| InstanceReport::default().planned(Release, vec![outcome(NETWORK, status)]).verdict;
        assert!(planned(Status::Planned) == Verdict::Planned && planned(Status::Failed) == Verdict::NotReleased);
    }
}
