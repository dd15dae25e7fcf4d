//! From what the steps said and what AWS shows to the rows of a report. Pure.

use std::fmt::Display;

use crate::{Outcome, Status, StepName, When};

/// What the reason of a step begins with that a release was not asked to undo.
pub const NOT_ASKED_FOR: &str = "not asked for";

/// What becomes of a step in the report.
#[derive(Debug)]
pub struct Row {
    /// Its outcome in the report.
    pub outcome: Outcome,
    /// Whether AWS shows it as it should be, whatever the step said of itself.
    pub shown_good: bool,
}

/// One step's row, from what it said of itself (none if it did not run) and what AWS shows now.
///
/// A step that failed stays failed even where AWS shows its goal: somebody should know. A step that said done and is not
/// shown so is not done.
pub fn read_back<E: Display>(step: StepName, said: Option<&Outcome>, shown: Result<Outcome, E>) -> Row {
    let said_failed = said.is_none_or(|o| o.status == Status::Failed);
    let said_reason = match said {
        Some(outcome) => outcome.reason.clone().unwrap_or_default(),
        None => "the step did not run".to_owned(),
    };
    let shown = match shown {
        Ok(shown) => shown,
        Err(error) => {
            let reason = match said_failed {
                true => format!("{said_reason}; and it could not be read back: {error}"),
                false => format!("it could not be read back: {error}"),
            };
            let changes = said.map(|o| o.changes.clone()).unwrap_or_default();
            let outcome = Outcome { changes, ..Outcome::new(step.name(), Status::Failed, reason) };
            return Row { outcome, shown_good: false };
        }
    };
    let shown_good = shown.status.is_good();
    let outcome = match (said_failed, shown_good) {
        (true, true) => {
            let reason = format!("{said_reason}; AWS now shows it as it should be");
            Outcome { status: Status::Failed, reason: Some(reason), ..shown }
        }
        (true, false) => {
            let reason = [Some(said_reason), shown.reason.clone()].into_iter().flatten().collect::<Vec<_>>().join("; ");
            Outcome { status: Status::Failed, reason: Some(reason), ..shown }
        }
        // What the step itself had to say (a fallback, a set that was refused) is worth more than "as it should be".
        (false, true) => Outcome { reason: said.and_then(|o| o.reason.clone()), ..shown },
        (false, false) => shown,
    };
    Row { outcome, shown_good }
}

/// From when the step was first entered to when it was last left: the workflow may have asked it again.
pub fn when(ran: &[Outcome], step: &str) -> When {
    let times = || ran.iter().filter(|o| o.step == step).map(|o| &o.when);
    When { began: times().filter_map(|w| w.began.clone()).min(), ended: times().filter_map(|w| w.ended.clone()).max() }
}

/// What an attacker can still do, each risk once, in the order in which the steps name them.
pub fn residual_risks<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for risk in outcomes.into_iter().flat_map(|outcome| &outcome.residual_risk) {
        if !all.contains(risk) {
            all.push(risk.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: StepName = StepName::TagResources;

    fn outcome(status: Status, reason: &str) -> Outcome {
        Outcome::new(STEP.name(), status, reason.to_owned())
    }

    fn row(said: Option<Status>, shown: Result<Status, &str>) -> (Status, String, bool) {
        let said = said.map(|status| outcome(status, "said"));
        let Row { outcome, shown_good } = read_back(STEP, said.as_ref(), shown.map(|status| outcome(status, "shown")));
        (outcome.status, outcome.reason.unwrap_or_default(), shown_good)
    }

    #[test]
    fn a_row_is_done_only_where_both_the_step_and_aws_say_so() {
        use Status::{Done, Failed, NotApplicable, Unsupported};
        assert_eq!(row(Some(Done), Ok(Done)), (Done, "said".to_owned(), true));
        assert_eq!(row(Some(Done), Ok(NotApplicable)), (NotApplicable, "said".to_owned(), true));
        assert_eq!(row(Some(Done), Ok(Failed)), (Failed, "shown".to_owned(), false));
        assert_eq!(row(Some(Unsupported), Ok(Unsupported)), (Unsupported, "shown".to_owned(), false));
        assert_eq!(row(Some(Failed), Ok(Done)), (Failed, "said; AWS now shows it as it should be".to_owned(), true));
        assert_eq!(row(Some(Failed), Ok(Failed)), (Failed, "said; shown".to_owned(), false));
        assert_eq!(row(None, Ok(Failed)), (Failed, "the step did not run; shown".to_owned(), false));
        assert_eq!(row(Some(Done), Err("denied")), (Failed, "it could not be read back: denied".to_owned(), false));
        let unread = "the step did not run; and it could not be read back: denied".to_owned();
        assert_eq!(row(None, Err("denied")), (Failed, unread, false));
    }

    #[test]
    fn a_step_that_was_asked_again_began_when_it_was_first_entered() {
        let at = |began: &str, ended: &str| Outcome {
            when: When { began: Some(began.into()), ended: Some(ended.into()) },
            ..outcome(Status::Done, "")
        };
        let ran = [at("2", "3"), at("4", "5")];
        assert_eq!(when(&ran, STEP.name()), When { began: Some("2".into()), ended: Some("5".into()) });
        assert_eq!(when(&ran, "isolate-network"), When::default());
    }
}
