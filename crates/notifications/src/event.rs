//! The events behind messages, read tolerantly: a message must go out even if a field is missing.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use verdict::ExecutionReport;

/// The event from a state of the workflow.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(tag = "Kind")]
pub enum WorkflowMessage {
    /// A containment starts.
    ContainmentStarted(Started),
    /// Somebody has changed a contained instance while an execution holds its case.
    DriftFound(Started),
    /// The same, and this hour's limit on repairs is reached.
    DriftNotRepaired(Started),
    /// A person has to decide.
    ApprovalRequested(Question),
    /// A containment has ended well.
    ContainmentEnded(Ending),
    /// A release has ended well.
    ReleaseEnded(Ending),
}

/// An execution that has started, or a call that changed a contained instance.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Started {
    /// The execution: `Id` and `StartTime`.
    pub execution: Value,
    /// Why it was started, as `intake` says.
    pub trigger: Value,
    /// The instances, as targets.
    pub targets: Value,
    /// The fleet, with its number of instances, if there are too many for one execution.
    pub fleet: Value,
    /// The instances and findings that were left out, with the reasons.
    pub left_out: Value,
    /// Whether nothing is worth a notification.
    pub quiet: Value,
    /// The limit that was reached.
    pub repairs_per_hour: Value,
}

/// A question to a person.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Question {
    /// The execution: `Id` and `StartTime`.
    pub execution: Value,
    /// Why it was started, as `intake` says.
    pub trigger: Value,
    /// The instance.
    pub target: Value,
    /// The facts from `describe-instance`.
    pub facts: Value,
    /// The task token that the answer goes to.
    pub token: Value,
    /// How many seconds the workflow waits for the answer.
    pub timeout_seconds: Value,
    /// The outcome without an answer: `Contain` or `DoNotContain`.
    pub on_approval_timeout: Value,
}

/// An execution that has ended well.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ending {
    /// The execution: `Id` and `StartTime`.
    pub execution: Value,
    /// Why it was started, as `intake` says.
    pub trigger: Value,
    /// The answer of `report`.
    pub report: ExecutionReport,
    /// Whether nothing is worth a notification.
    pub quiet: Value,
}

/// An execution that ended badly, as EventBridge and then DescribeExecution describe it.
#[derive(Debug, Default, Clone)]
pub struct BadEnd {
    /// Its ARN.
    pub execution: String,
    /// `FAILED`, `TIMED_OUT` or `ABORTED`.
    pub status: String,
    /// The execution's input, if the event carries it.
    pub input: Value,
    /// The execution's error.
    pub error: Option<String>,
    /// The execution's cause.
    pub cause: Option<String>,
    /// Why the error and the cause are unknown.
    pub unread: Option<String>,
}
