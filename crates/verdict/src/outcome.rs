//! What a step found, did and left: the same shape for all.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::StepName;

/// How a step ended. Every word comes from reading AWS back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// AWS was read and is as it should be.
    Done,
    /// AWS has accepted the change and is still applying it; the workflow waits and asks again.
    InProgress,
    /// The instance has nothing for this step to act on.
    NotApplicable,
    /// AWS does not offer this for the instance; the reason says why.
    Unsupported,
    /// A dry run: what would change.
    Planned,
    /// AWS was read and is not as it should be, or could not be read.
    Failed,
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 6] =
        [Status::Done, Status::InProgress, Status::NotApplicable, Status::Unsupported, Status::Planned, Status::Failed];

    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Done => "Done",
            Status::InProgress => "InProgress",
            Status::NotApplicable => "NotApplicable",
            Status::Unsupported => "Unsupported",
            Status::Planned => "Planned",
            Status::Failed => "Failed",
        }
    }

    /// The status by its word.
    pub fn from_name(name: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether nothing is left to do.
    pub const fn is_good(self) -> bool {
        matches!(self, Status::Done | Status::NotApplicable)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl AsRef<str> for Status {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

/// One attribute of one resource, before containment began and now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    /// An AWS id or name.
    pub resource: String,
    /// Which attribute of it.
    pub attribute: String,
    /// The journaled first value; null where there was none.
    pub before: Value,
    /// The value read back (in a dry run: the value to come); null where there is none.
    pub after: Value,
}

/// A step's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Outcome {
    /// The step's name; [`StepName`] has those that a report can have, and failures of the workflow itself add a few.
    pub step: String,
    /// How it ended.
    pub status: Status,
    /// What is different from when the case was opened. A re-run shows the same changes and says in `reason`
    /// that it made none.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// What an attacker can still do even though the step is done.
    #[serde(default)]
    pub residual_risk: Vec<String>,
    /// One or more sentences for whoever reads the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the workflow entered and left the step's state, in UTC; the step itself cannot know.
    #[serde(flatten)]
    pub when: When,
}

/// When a step ran, by Step Functions' clock: ISO 8601 in UTC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct When {
    /// When the workflow first entered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<String>,
    /// When the workflow last left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// What the state machine has of a step: its outcome, or the error that Catch caught.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reported {
    /// The step answered.
    Outcome(Outcome),
    /// The step failed, timed out or never started.
    #[serde(rename_all = "PascalCase")]
    Failure {
        /// The step's name.
        step: String,
        /// The error's name, as Retry and Catch see it.
        error: String,
        /// What Lambda made of the error: `{"errorType": …, "errorMessage": …}`, or plain text.
        #[serde(default)]
        cause: String,
        /// When.
        #[serde(flatten)]
        when: When,
    },
}

impl From<Reported> for Outcome {
    /// A failure's outcome: the one that the step itself put into its error, or else the error in words.
    fn from(reported: Reported) -> Outcome {
        let (step, error, cause, when) = match reported {
            Reported::Outcome(outcome) => return outcome,
            Reported::Failure { step, error, cause, when } => (step, error, cause, when),
        };
        let message = match serde_json::from_str::<Value>(&cause) {
            Ok(cause) => cause["errorMessage"].as_str().map(ToOwned::to_owned).unwrap_or_else(|| cause.to_string()),
            Err(_) => cause,
        };
        let outcome = serde_json::from_str(&message).unwrap_or_else(|_| {
            let reason = if message.is_empty() { error } else { format!("{error}: {message}") };
            Outcome::new(&step, Status::Failed, reason)
        });
        Outcome { when, ..outcome }
    }
}

impl Outcome {
    /// Whether it is this step's.
    pub fn is(&self, step: StepName) -> bool {
        self.step == step
    }

    /// The line that a report has under `Open` for a step that is not as it should be.
    pub fn open_line(&self) -> String {
        format!("{} {}: {}", self.step, self.status, self.reason.as_deref().unwrap_or("no reason given"))
    }

    /// An outcome without changes.
    pub fn new(step: &str, status: Status, reason: impl Into<Option<String>>) -> Self {
        Outcome {
            step: step.to_owned(),
            status,
            changes: Vec::new(),
            residual_risk: Vec::new(),
            reason: reason.into(),
            when: When::default(),
        }
    }

    /// The outcome with at most this many changes. The journal and the verifier's evidence have all of them; between
    /// functions they travel through states of 256 KiB that all steps of an instance share (aws-behaviour#state-size).
    pub fn shortened(mut self, changes: usize) -> Self {
        let more = self.changes.len().saturating_sub(changes);
        self.changes.truncate(changes);
        if more > 0 {
            let reason = self.reason.take().map_or_else(String::new, |reason| format!("{reason}; "));
            self.reason = Some(format!("{reason}{more} more changes are in the evidence"));
        }
        self.reason = self.reason.take().map(|reason| match reason.char_indices().nth(1_000) {
            Some((end, _)) => format!("{}…", &reason[..end]),
            None => reason,
        });
        self
    }

    /// The outcome as JSON text: an error's message carries it through Lambda.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{} {}: {error}", self.step, self.status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn failure(error: &str, cause: &str) -> Outcome {
        let reported = json!({ "Step": "isolate-network", "Error": error, "Cause": cause });
        serde_json::from_value::<Reported>(reported).expect("a failure").into()
    }

    #[test]
    fn every_status_goes_by_its_own_name() {
        for (place, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!((status as usize, json!(status)), (place, json!(status.name())));
        }
    }

    #[test]
    fn a_caught_error_becomes_a_failed_outcome_in_the_functions_own_words() {
        let cause = json!({ "errorType": "AccessDenied", "errorMessage": "ec2:CreateTags on i-1: denied" }).to_string();
        let outcome = failure("AccessDenied", &cause);
        assert_eq!((outcome.status, outcome.step.as_str()), (Status::Failed, "isolate-network"));
        assert_eq!(outcome.reason.expect("a reason"), "AccessDenied: ec2:CreateTags on i-1: denied");
    }

    #[test]
    fn an_outcome_inside_an_error_keeps_its_changes() {
        let changed =
            Change { resource: "eni-1".into(), attribute: "Groups".into(), before: json!(1), after: json!(2) };
        let outcome = Outcome { changes: vec![changed], ..Outcome::new("isolate-network", Status::Failed, None) };
        let cause = json!({ "errorType": "NotContained", "errorMessage": outcome.to_json() }).to_string();
        assert_eq!(failure("NotContained", &cause), outcome);
    }

    #[test]
    fn a_failed_step_has_the_times_at_which_the_workflow_entered_and_left_it() {
        let cause =
            json!({ "errorType": "NotContained", "errorMessage": Outcome::new("s", Status::Failed, None).to_json() });
        let reported =
            json!({ "Step": "s", "Error": "NotContained", "Cause": cause.to_string(), "Began": "a", "Ended": "b" });
        let outcome: Outcome = serde_json::from_value::<Reported>(reported).expect("a failure").into();
        assert_eq!(outcome.when, When { began: Some("a".into()), ended: Some("b".into()) });
    }

    #[test]
    fn a_timeout_and_an_empty_cause_still_give_a_reason() {
        assert_eq!(failure("States.Timeout", "").reason.as_deref(), Some("States.Timeout"));
        assert_eq!(
            failure("Sandbox.Timedout", "RequestId: 1 timed out").reason.as_deref(),
            Some("Sandbox.Timedout: RequestId: 1 timed out")
        );
    }
}
