//! From what the steps said and what AWS shows to one verdict per instance. Pure.

use std::collections::BTreeMap;

use containment::{Error, Outcome, Result, Status, Target, When};
use evidence::Pointer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How the instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Every step reads back as done, or has nothing to do.
    Contained,
    /// The network is cut; something else is open.
    PartiallyContained,
    /// The network is not cut, or could not be read.
    NotContained,
    /// A person was asked and refused, or another execution has taken the case over: what disturbs was not done.
    NotApproved,
    /// A dry run.
    Planned,
    /// A release: all that the case has changed reads back as it was before, but for what stays on purpose.
    Released,
    /// A release: something is as it was before, and something is not, or was not asked for.
    PartiallyReleased,
    /// A release: nothing is known to be as it was before.
    NotReleased,
}

/// One instance's row of the execution's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// The instance.
    pub instance_id: String,
    /// Its account.
    pub account_id: String,
    /// Its Region.
    pub region: String,
    /// The case.
    pub case_id: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What is not as it should be.
    pub open: Vec<String>,
    /// What an attacker could still do.
    pub residual_risk: Vec<String>,
    /// The steps, in order.
    pub steps: Vec<Outcome>,
    /// What an investigator asks for first.
    #[serde(default)]
    pub facts: Value,
    /// Where the rest is stored.
    #[serde(default)]
    pub evidence: Vec<Pointer>,
    /// Whether a capture of the running host was asked for.
    #[serde(skip)]
    capture_asked: bool,
}

const ISOLATION: &str = "isolate-network";

const CAPTURE: &str = "capture-volatile";

/// The outcome that the workflow itself writes when a person was asked.
const APPROVAL: &str = "request-approval";

/// What waits for a person's answer.
const DISTURBING: [&str; 6] = [
    "detach-autoscaling",
    ISOLATION,
    "deregister-targets",
    "terminate-sessions",
    "revoke-credentials",
    "detach-profile",
];

impl Report {
    /// An empty report.
    pub fn new(target: &Target, facts: Value, evidence: Option<Pointer>) -> Self {
        Report {
            instance_id: target.instance_id.clone(),
            account_id: target.account_id.clone(),
            region: target.region.clone(),
            case_id: target.case_id.clone(),
            verdict: Verdict::NotContained,
            open: Vec::new(),
            residual_risk: Vec::new(),
            steps: Vec::new(),
            facts,
            evidence: evidence.into_iter().collect(),
            capture_asked: target.capture.is_some(),
        }
    }

    /// A dry run's report: the plans as they are.
    pub fn planned(mut self, ran: Vec<Outcome>) -> Self {
        self.open = ran.iter().filter(|o| o.status == Status::Failed).map(line).collect();
        self.verdict = if self.open.is_empty() { Verdict::Planned } else { Verdict::NotContained };
        for outcome in &ran {
            add(&mut self.residual_risk, &outcome.residual_risk);
        }
        self.steps = ran;
        self
    }

    /// The verdict, from what AWS shows now. A step that failed stays failed, even where AWS shows its goal: somebody
    /// should know. A step that said done and is not shown so is not done.
    pub fn verified(
        mut self,
        ran: &[Outcome],
        checks: Vec<(&'static str, Result<Outcome>)>,
        paths: Vec<String>,
    ) -> Self {
        // The last answer of a step counts: the workflow asks again until it has settled.
        let said: BTreeMap<&str, &Outcome> = ran.iter().map(|o| (o.step.as_str(), o)).collect();
        let declined = said.get(APPROVAL).filter(|o| o.status == Status::NotApplicable);
        let mut isolated = false;
        let checked: Vec<&str> = checks.iter().map(|(step, _)| *step).collect();
        for (step, shown) in checks {
            if let Some(answer) = declined.filter(|_| DISTURBING.contains(&step) && !said.contains_key(step)) {
                // Whoever has taken the case over may have done it by now.
                let outcome = match shown {
                    Ok(shown) if shown.status == Status::Done => shown,
                    _ => Outcome::new(step, Status::NotApplicable, answer.reason.clone()),
                };
                isolated |= step == ISOLATION && outcome.status == Status::Done;
                self.steps.push(outcome);
                continue;
            }
            let row = row(step, said.get(step).copied(), shown);
            isolated |= step == ISOLATION && row.shown_good;
            self.steps.push(row.outcome);
        }
        // A capture that was asked for and never begun has said nothing of itself.
        if self.capture_asked && !said.contains_key(CAPTURE) {
            self.steps.push(match declined {
                Some(answer) => Outcome::new(CAPTURE, Status::NotApplicable, answer.reason.clone()),
                None => Outcome::new(CAPTURE, Status::Failed, "the step did not run".to_owned()),
            });
        }
        // Steps that change nothing have nothing to read back.
        self.steps.extend(said.values().filter(|o| !checked.contains(&o.step.as_str())).map(|o| (*o).clone()));
        for outcome in self.steps.iter().chain(ran) {
            add(&mut self.residual_risk, &outcome.residual_risk);
        }
        add(&mut self.residual_risk, &paths);
        let good = |o: &&Outcome| matches!(o.status, Status::Done | Status::NotApplicable);
        for step in &mut self.steps {
            step.when = when(ran, &step.step);
        }
        self.open = self.steps.iter().filter(|o| !good(o)).map(line).collect();
        self.verdict = match (isolated, self.open.is_empty()) {
            (true, true) => Verdict::Contained,
            (true, false) => Verdict::PartiallyContained,
            (false, true) if declined.is_some() => Verdict::NotApproved,
            (false, _) => Verdict::NotContained,
        };
        self
    }

    /// A record that could not be stored, in the evidence or the case, makes a contained instance a partly contained one,
    /// and a released one a partly released one. Named by the function whose record it is.
    pub fn record_is_missing(&mut self, function: &str, error: &Error) {
        self.open.push(format!("{function}: its record could not be stored: {error}"));
        self.verdict = match self.verdict {
            Verdict::Contained => Verdict::PartiallyContained,
            Verdict::Released => Verdict::PartiallyReleased,
            other => other,
        };
    }

    /// The report in at most so many bytes of JSON, if that can be had; the whole of it is in the evidence.
    pub fn shortened(mut self, bytes: usize) -> Self {
        let too_long = |report: &Report| serde_json::to_string(report).map_or(0, |text| text.len()) > bytes;
        for (changes, characters) in [(8, 400), (2, 200), (0, 100), (0, 40)] {
            if !too_long(&self) {
                return self;
            }
            for step in &mut self.steps {
                // Risks are listed once for the instance; a second copy in each step is the first thing to go.
                step.residual_risk.clear();
                step.reason = step.reason.take().map(|reason| cut(&reason, characters));
                *step = step.clone().shortened(changes);
            }
            for text in self.residual_risk.iter_mut().chain(&mut self.open) {
                *text = cut(text, characters);
            }
            if let Some(facts) = self.facts.as_object_mut().filter(|_| changes == 0) {
                facts.retain(|name, _| {
                    matches!(name.as_str(), "InstanceType" | "ImageId" | "LaunchTime" | "PrivateIpAddresses")
                });
            }
        }
        self
    }
}

/// From when the step was first entered to when it was last left: it may have been asked again.
pub fn when(ran: &[Outcome], step: &str) -> When {
    let times = || ran.iter().filter(|o| o.step == step).map(|o| &o.when);
    When { began: times().filter_map(|w| w.began.clone()).min(), ended: times().filter_map(|w| w.ended.clone()).max() }
}

/// What becomes of a step in the report.
#[derive(Debug)]
pub struct Row {
    /// What the report has of it.
    pub outcome: Outcome,
    /// Whether AWS shows it as it should be, whatever the step said of itself.
    pub shown_good: bool,
}

/// One step's row, from what it said of itself (none if it did not run) and what AWS shows now.
pub fn row(step: &'static str, said: Option<&Outcome>, shown: Result<Outcome>) -> Row {
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
            let outcome = Outcome { changes, ..Outcome::new(step, Status::Failed, reason) };
            return Row { outcome, shown_good: false };
        }
    };
    let shown_good = matches!(shown.status, Status::Done | Status::NotApplicable);
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

/// What a step that is not as it should be has in `Open`.
pub fn line(outcome: &Outcome) -> String {
    format!("{} {:?}: {}", outcome.step, outcome.status, outcome.reason.as_deref().unwrap_or("no reason given"))
}

fn add(all: &mut Vec<String>, more: &[String]) {
    for risk in more {
        if !all.contains(risk) {
            all.push(risk.clone());
        }
    }
}

fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containment::Change;
    use serde_json::json;

    fn report() -> Report {
        let event =
            json!({ "AccountId": "123456789012", "Region": "eu-west-1", "InstanceId": "i-0123abcd", "CaseId": "c-1" });
        Report::new(&Target::parse(event).expect("a good event"), Value::Null, None)
    }

    fn outcome(step: &str, status: Status) -> Outcome {
        Outcome::new(step, status, format!("{step} said so"))
    }

    fn shown(step: &'static str, status: Status) -> (&'static str, Result<Outcome>) {
        (step, Ok(outcome(step, status)))
    }

    #[test]
    fn contained_needs_every_step_read_back_as_done_or_not_applicable() {
        let ran = [outcome(ISOLATION, Status::Done), outcome("detach-profile", Status::NotApplicable)];
        let checks = vec![shown(ISOLATION, Status::Done), shown("detach-profile", Status::NotApplicable)];
        let report = report().verified(&ran, checks, Vec::new());
        assert_eq!((report.verdict, report.open.len()), (Verdict::Contained, 0));
    }

    #[test]
    fn a_step_that_said_done_and_is_not_shown_so_is_open() {
        let ran = [outcome(ISOLATION, Status::Done)];
        let report = report().verified(&ran, vec![shown(ISOLATION, Status::Failed)], Vec::new());
        assert_eq!(report.verdict, Verdict::NotContained);
        assert_eq!(report.steps[0].status, Status::Failed);
    }

    #[test]
    fn what_cannot_be_read_back_is_not_contained() {
        let unread = (ISOLATION, Err(Error::NotFound("no interfaces".into())));
        let report = report().verified(&[outcome(ISOLATION, Status::Done)], vec![unread], Vec::new());
        assert_eq!(report.verdict, Verdict::NotContained);
        assert!(report.open[0].contains("could not be read back: no interfaces"));
    }

    #[test]
    fn another_open_step_leaves_an_isolated_instance_partly_contained() {
        let ran = [outcome(ISOLATION, Status::Done), outcome("tag-resources", Status::Failed)];
        let checks = vec![shown(ISOLATION, Status::Done), shown("tag-resources", Status::Failed)];
        assert_eq!(report().verified(&ran, checks, Vec::new()).verdict, Verdict::PartiallyContained);
    }

    #[test]
    fn a_step_that_failed_stays_failed_even_where_aws_shows_its_goal() {
        let ran = [outcome(ISOLATION, Status::Done), outcome("tag-resources", Status::Failed)];
        let checks = vec![shown(ISOLATION, Status::Done), shown("tag-resources", Status::Done)];
        let report = report().verified(&ran, checks, Vec::new());
        assert_eq!(report.verdict, Verdict::PartiallyContained);
        assert!(report.open[0].contains("AWS now shows it as it should be"));
    }

    #[test]
    fn a_step_that_never_ran_is_named() {
        let report = report().verified(&[], vec![shown(ISOLATION, Status::Done)], Vec::new());
        assert!(report.open[0].contains("the step did not run"));
        assert_eq!(report.verdict, Verdict::PartiallyContained);
    }

    #[test]
    fn what_was_settling_and_has_settled_is_done() {
        let ran = [outcome(ISOLATION, Status::Done), outcome("detach-autoscaling", Status::InProgress)];
        let checks = vec![shown(ISOLATION, Status::Done), shown("detach-autoscaling", Status::Done)];
        assert_eq!(report().verified(&ran, checks, Vec::new()).verdict, Verdict::Contained);
    }

    #[test]
    fn an_unsupported_protection_is_an_answer_and_still_open() {
        let ran = [outcome(ISOLATION, Status::Done), outcome("protect-instance", Status::Unsupported)];
        let checks = vec![shown(ISOLATION, Status::Done), shown("protect-instance", Status::Unsupported)];
        assert_eq!(report().verified(&ran, checks, Vec::new()).verdict, Verdict::PartiallyContained);
    }

    #[test]
    fn a_refusal_leaves_what_disturbs_undone_and_the_rest_is_verified() {
        let ran = [outcome("tag-resources", Status::Done), outcome(APPROVAL, Status::NotApplicable)];
        let checks = vec![shown(ISOLATION, Status::Failed), shown("tag-resources", Status::Done)];
        let refused = report().verified(&ran, checks, Vec::new());
        assert_eq!((refused.verdict, refused.open.len()), (Verdict::NotApproved, 0));
        assert_eq!(refused.steps[0].reason.as_deref(), Some("request-approval said so"));
        let checks = vec![shown(ISOLATION, Status::Done), shown("tag-resources", Status::Done)];
        let taken_over = report().verified(&ran, checks, Vec::new());
        assert_eq!(taken_over.verdict, Verdict::Contained, "by whoever took the case over");
        let checks = vec![shown(ISOLATION, Status::Failed), shown("tag-resources", Status::Failed)];
        assert_eq!(report().verified(&ran, checks, Vec::new()).verdict, Verdict::NotContained);
    }

    #[test]
    fn a_question_that_nobody_answered_is_open() {
        let ran = [outcome(APPROVAL, Status::Failed)];
        let report = report().verified(&ran, vec![shown(ISOLATION, Status::Failed)], Vec::new());
        assert_eq!(report.verdict, Verdict::NotContained);
        assert!(report.open.iter().any(|line| line.starts_with("request-approval Failed")));
    }

    #[test]
    fn a_capture_that_was_asked_for_and_never_begun_has_a_row_that_says_why() {
        let asked = || Report { capture_asked: true, ..report() };
        let refused = asked().verified(&[outcome(APPROVAL, Status::NotApplicable)], Vec::new(), Vec::new());
        let row = |report: &Report| report.steps.iter().find(|s| s.step == CAPTURE).map(|s| s.status);
        assert_eq!(row(&refused), Some(Status::NotApplicable));
        let lost = asked().verified(&[], vec![shown(ISOLATION, Status::Done)], Vec::new());
        assert_eq!((row(&lost), lost.verdict), (Some(Status::Failed), Verdict::PartiallyContained));
        let ran = asked().verified(&[outcome(CAPTURE, Status::Done)], Vec::new(), Vec::new());
        assert_eq!(row(&ran), Some(Status::Done));
        assert_eq!(row(&report().verified(&[], Vec::new(), Vec::new())), None);
    }

    #[test]
    fn a_dry_run_never_says_contained() {
        assert_eq!(report().planned(vec![outcome(ISOLATION, Status::Planned)]).verdict, Verdict::Planned);
        assert_eq!(report().planned(vec![outcome(ISOLATION, Status::Failed)]).verdict, Verdict::NotContained);
    }

    #[test]
    fn a_hundred_changes_a_step_fit_a_fiftieth_of_a_state_and_the_verdict_stays() {
        let changes: Vec<Change> = (0..100)
            .map(|n| Change {
                resource: format!("vol-{n:017}"),
                attribute: "Tags".into(),
                before: json!({}),
                after: json!({}),
            })
            .collect();
        let steps: Vec<Outcome> = (0..13)
            .map(|n| Outcome {
                changes: changes.clone(),
                residual_risk: vec!["a long risk ".repeat(30)],
                ..Outcome::new(&format!("a-rather-long-step-{n}"), Status::Failed, "word ".repeat(200))
            })
            .collect();
        let report = report().planned(steps).shortened(4_000);
        let bytes = serde_json::to_string(&report).expect("JSON").len();
        assert!(bytes <= 4_000, "{bytes} bytes");
        assert_eq!((report.verdict, report.steps.len(), report.open.len()), (Verdict::NotContained, 13, 13));
    }

    #[test]
    fn a_short_report_is_left_alone() {
        let whole = report().planned(vec![outcome(ISOLATION, Status::Planned)]);
        assert_eq!(whole.clone().shortened(200_000), whole);
    }
}
