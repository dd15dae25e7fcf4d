//! What a step says it found, did and left: the same shape for all.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a step ended. Every word comes from reading AWS back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// AWS was read and is as it should be.
    Done,
    /// AWS has accepted the change and is at it; the workflow waits and asks again.
    InProgress,
    /// The instance has nothing that this step is about.
    NotApplicable,
    /// AWS does not offer this for the instance; the reason says why.
    Unsupported,
    /// A dry run: what would change.
    Planned,
    /// AWS was read and is not as it should be, or could not be read.
    Failed,
}

/// One attribute of one resource, before containment began and now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The step's name, which is its folder's, its crate's and its function's.
    pub step: String,
    /// How it ended.
    pub status: Status,
    /// What is different from when the case was opened. A re-run shows the same changes and says in `reason`
    /// that it made none.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// What an attacker could still do although the step is done.
    #[serde(default)]
    pub residual_risk: Vec<String>,
    /// One or more sentences for the person who reads the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the workflow entered and left the step's state, in UTC; the step itself does not know.
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

    /// The outcome with so many changes at most. All of them are in the journal, and in the verifier's evidence; between
    /// functions they travel through states of 256 KiB that all steps of an instance share (trap H3).
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

    /// The outcome as JSON text, as errors and logs carry it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{} {:?}: {error}", self.step, self.status))
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
    fn when_the_workflow_entered_and_left_a_step_comes_from_the_workflow_even_if_the_step_failed() {
        let cause =
            json!({ "errorType": "NotContained", "errorMessage": Outcome::new("s", Status::Failed, None).to_json() });
        let reported =
            json!({ "Step": "s", "Error": "NotContained", "Cause": cause.to_string(), "Began": "a", "Ended": "b" });
        let outcome: Outcome = serde_json::from_value::<Reported>(reported).expect("a failure").into();
        assert_eq!(outcome.when, When { began: Some("a".into()), ended: Some("b".into()) });
    }

    #[test]
    fn a_time_out_and_an_empty_cause_have_words_too() {
        assert_eq!(failure("States.Timeout", "").reason.as_deref(), Some("States.Timeout"));
        assert_eq!(
            failure("Sandbox.Timedout", "RequestId: 1 timed out").reason.as_deref(),
            Some("Sandbox.Timedout: RequestId: 1 timed out")
        );
    }
}
