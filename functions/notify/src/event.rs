//! What the function has to tell of, read tolerantly: a message has to go out even if a field is missing.

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use containment::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use verdict::ExecutionReport;

/// An event of the workflow, or of the rule outside it that follows all executions.
#[derive(Debug)]
pub(crate) enum Event {
    Workflow(Box<WorkflowMessage>),
    BadEnd(BadEnd),
    /// An execution that is running or has succeeded: the workflow itself announces what there is to announce.
    NothingBad,
}

/// What a state of the workflow passes.
#[derive(Debug, Deserialize)]
#[serde(tag = "Kind")]
pub(crate) enum WorkflowMessage {
    ContainmentStarted(Started),
    DriftFound(Started),
    DriftNotRepaired(Started),
    ApprovalRequested(Question),
    ContainmentEnded(Ending),
    ReleaseEnded(Ending),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Started {
    pub(crate) execution: Value,
    pub(crate) trigger: Value,
    pub(crate) targets: Value,
    /// How many instances there are in batches, where there are too many for one execution.
    pub(crate) fleet: Value,
    pub(crate) left_out: Value,
    pub(crate) quiet: Value,
    pub(crate) repairs_per_hour: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Question {
    pub(crate) execution: Value,
    pub(crate) trigger: Value,
    pub(crate) target: Value,
    pub(crate) facts: Value,
    pub(crate) token: Value,
    pub(crate) timeout_seconds: Value,
    pub(crate) on_approval_timeout: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Ending {
    pub(crate) execution: Value,
    pub(crate) trigger: Value,
    pub(crate) report: ExecutionReport,
    pub(crate) quiet: Value,
}

/// An execution that ended badly, as EventBridge and then DescribeExecution describe it.
#[derive(Debug, Default, Clone)]
pub(crate) struct BadEnd {
    pub(crate) execution: String,
    /// `FAILED`, `TIMED_OUT` or `ABORTED`.
    pub(crate) status: String,
    /// The execution's input, where the event carries it.
    pub(crate) input: Value,
    pub(crate) error: Option<String>,
    pub(crate) cause: Option<String>,
    /// Why the error and the cause are unknown.
    pub(crate) unread: Option<String>,
}

/// What EventBridge calls the event.
const STATUS_CHANGE: &str = "Step Functions Execution Status Change";

/// Reads an event. Errors: the function does not know it.
pub(crate) fn read(event: &Value) -> Result<Event> {
    let invalid = |error: String| Error::InvalidInput(format!("invalid notify event: {error}"));
    if event.get("detail-type").is_none() {
        return Ok(Event::Workflow(Box::new(
            WorkflowMessage::deserialize(event).map_err(|error| invalid(error.to_string()))?,
        )));
    }
    let event = EventBridgeEvent::<Value>::deserialize(event).map_err(|error| invalid(error.to_string()))?;
    if event.detail_type != STATUS_CHANGE {
        return Err(invalid(format!(
            "detail-type: {:?} is not accepted; accepted: {STATUS_CHANGE:?}",
            event.detail_type
        )));
    }
    let text = |name: &str| event.detail[name].as_str().filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    let status = text("status").unwrap_or_default();
    if !matches!(status.as_str(), "FAILED" | "TIMED_OUT" | "ABORTED") {
        return Ok(Event::NothingBad);
    }
    let input = text("input").and_then(|input| serde_json::from_str(&input).ok());
    Ok(Event::BadEnd(BadEnd {
        execution: text("executionArn").unwrap_or_default(),
        status,
        input: input.unwrap_or_default(),
        error: text("error"),
        cause: text("cause"),
        unread: None,
    }))
}
