//! The report of one instance.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{Outcome, Status, Verdict, Word, Workflow, residual_risks};

/// Where an object lies in the evidence bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pointer {
    /// The bucket.
    pub bucket: String,
    /// The key, below the case's prefix.
    pub key: String,
    /// The object's version: a later object of the same key does not replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
}

/// How one instance stands: what a verifier answers, and one entry of the execution's output.
///
/// It reads what other versions of Cordon have written: fields that this one does not know are ignored, missing ones are
/// empty, an unknown verdict is kept, and a step of another shape costs no other step. See [`InstanceReport::read`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InstanceReport {
    /// The instance.
    pub instance_id: String,
    /// Its account.
    pub account_id: String,
    /// Its Region.
    pub region: String,
    /// The case; absent where a fleet's batch left no report of the instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub case_id: Option<String>,
    /// How it stands.
    pub verdict: Word<Verdict>,
    /// What is not as it should be.
    pub open: Vec<String>,
    /// What an attacker can still do.
    pub residual_risk: Vec<String>,
    /// The steps, in the order in which a reader wants them.
    #[serde(deserialize_with = "steps")]
    pub steps: Vec<Outcome>,
    /// What an investigator asks for first, as far as it could be read: an object, or null.
    pub facts: Value,
    /// Where the rest is stored.
    pub evidence: Vec<Pointer>,
    /// Of a fleet: the number of the instance's batch, whose object has every step with its changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Of a fleet: the execution of the batch, where it left a report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<String>,
}

impl InstanceReport {
    /// Reads a report. One of another shape is a report that says so, with what can be read of the instance and a verdict
    /// that nobody knows: it is not lost, and it reassures nobody.
    pub fn read(value: Value) -> InstanceReport {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let (instance_id, account_id, region) = (text("InstanceId"), text("AccountId"), text("Region"));
        let case_id = value["CaseId"].as_str().map(ToOwned::to_owned);
        let read = match value {
            Value::Object(_) => serde_json::from_value(value),
            _ => Err(serde::de::Error::custom("it is not an object")),
        };
        read.unwrap_or_else(|error| InstanceReport {
            instance_id,
            account_id,
            region,
            case_id,
            open: vec![format!("this version of Cordon cannot read the report of the instance: {error}")],
            ..InstanceReport::default()
        })
    }

    /// The outcome of a step.
    pub fn step(&self, name: &str) -> Option<&Outcome> {
        self.steps.iter().find(|outcome| outcome.step == name)
    }

    /// A dry run's report: the plans as they are.
    #[must_use]
    pub fn planned(mut self, workflow: Workflow, ran: Vec<Outcome>) -> Self {
        self.open = ran.iter().filter(|o| o.status == Status::Failed).map(Outcome::open_line).collect();
        let verdict = if self.open.is_empty() { Verdict::Planned } else { workflow.worst() };
        self.verdict = verdict.into();
        self.residual_risk = residual_risks(&ran);
        self.steps = ran;
        self
    }

    /// Something turned out to be open after the verdict was found, so that the verdict is no longer a whole one.
    pub fn leave_open(&mut self, line: String) {
        self.open.push(line);
        self.verdict = std::mem::take(&mut self.verdict).incomplete();
    }

    /// Adds a step that ran after the verdict was found; one that failed is open.
    pub fn add(&mut self, outcome: Outcome) {
        if outcome.status == Status::Failed {
            self.leave_open(outcome.open_line());
        }
        self.steps.push(outcome);
    }

    /// The report in at most this many bytes of JSON, if that is possible; the evidence has all of it.
    #[must_use]
    pub fn shortened(mut self, bytes: usize) -> Self {
        let too_long = |report: &InstanceReport| serde_json::to_string(report).map_or(0, |text| text.len()) > bytes;
        for (changes, characters) in [(8, 400), (2, 200), (0, 100), (0, 40)] {
            if !too_long(&self) {
                return self;
            }
            for step in &mut self.steps {
                // The instance lists each risk once; a second copy in each step is the first thing to go.
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

fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn steps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Outcome>, D::Error> {
    let read = |value: Value| {
        let name = value["Step"].as_str().unwrap_or("unknown").to_owned();
        serde_json::from_value(value).unwrap_or_else(|error| {
            Outcome::new(&name, Status::Failed, format!("this version of Cordon cannot read the outcome: {error}"))
        })
    };
    Ok(Vec::<Value>::deserialize(deserializer)?.into_iter().map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Change;
    use serde_json::json;

    fn outcome(step: &str, status: Status) -> Outcome {
        Outcome::new(step, status, format!("{step} said so"))
    }

    #[test]
    fn a_dry_run_is_planned_or_bad_and_never_done() {
        let planned = |workflow, status| {
            let report = InstanceReport::default().planned(workflow, vec![outcome("isolate-network", status)]);
            report.verdict.known().expect("a verdict")
        };
        assert_eq!(planned(Workflow::Contain, Status::Planned), Verdict::Planned);
        assert_eq!(planned(Workflow::Contain, Status::Failed), Verdict::NotContained);
        assert_eq!(planned(Workflow::Release, Status::Failed), Verdict::NotReleased);
    }

    #[test]
    fn a_step_added_after_the_verdict_makes_it_a_partial_one_only_if_it_failed() {
        for (status, verdict, open) in [
            (Status::Done, Verdict::Contained, &[][..]),
            (Status::NotApplicable, Verdict::Contained, &[]),
            (Status::Failed, Verdict::PartiallyContained, &["seal-evidence Failed: seal-evidence said so"]),
        ] {
            let mut report = InstanceReport { verdict: Verdict::Contained.into(), ..InstanceReport::default() };
            report.add(outcome("seal-evidence", status));
            assert!(report.verdict == verdict && report.open == open && report.steps.len() == 1, "{report:?}");
        }
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
        let report = InstanceReport::default().planned(Workflow::Contain, steps).shortened(4_000);
        let bytes = serde_json::to_string(&report).expect("JSON").len();
        assert!(bytes <= 4_000, "{bytes} bytes");
        assert!(report.verdict == Verdict::NotContained && report.steps.len() == 13 && report.open.len() == 13);
    }

    #[test]
    fn a_short_report_is_left_alone() {
        let ran = vec![outcome("isolate-network", Status::Planned)];
        let whole = InstanceReport::default().planned(Workflow::Contain, ran);
        assert_eq!(whole.clone().shortened(200_000), whole);
    }

    #[test]
    fn what_another_version_added_or_left_out_costs_nothing_else() {
        let report = InstanceReport::read(json!({
            "InstanceId": "i-1", "Verdict": "ContainedTwice", "Mood": "good", "Open": ["one"],
            "Steps": [
                { "Step": "isolate-network", "Status": "Done", "Mood": "good" },
                { "Step": "dig-moat", "Status": "Flooded" },
                7,
            ],
        }));
        assert_eq!((report.verdict.as_str(), report.verdict.known(), report.open.len()), ("ContainedTwice", None, 1));
        let steps: Vec<(&str, Status)> = report.steps.iter().map(|o| (o.step.as_str(), o.status)).collect();
        use Status::{Done, Failed};
        assert_eq!(steps, [("isolate-network", Done), ("dig-moat", Failed), ("unknown", Failed)]);
        assert!(report.steps[1].reason.as_deref().expect("a reason").contains("unknown variant `Flooded`"));
    }

    #[test]
    fn a_report_of_another_shape_is_named_and_reassures_nobody() {
        let report = InstanceReport::read(json!({ "InstanceId": "i-1", "Verdict": "Contained", "Open": "nothing" }));
        assert_eq!((report.instance_id.as_str(), report.verdict.known(), report.open.len()), ("i-1", None, 1));
        assert!(report.open[0].contains("cannot read"), "{:?}", report.open);
        for odd in [json!("Contained"), json!([]), Value::Null] {
            let report = InstanceReport::read(odd);
            assert_eq!((report.verdict.known(), report.open.len()), (None, 1));
        }
    }
}
