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
}

impl Outcome {
    /// An outcome without changes.
    pub fn new(step: &str, status: Status, reason: impl Into<Option<String>>) -> Self {
        Outcome { step: step.to_owned(), status, changes: Vec::new(), residual_risk: Vec::new(), reason: reason.into() }
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{} {:?}: {error}", self.step, self.status))
    }
}
