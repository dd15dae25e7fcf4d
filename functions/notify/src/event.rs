//! What the function is told about, read tolerantly: a message has to go out even where a field is missing.

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use containment::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

/// An event of the workflow, or of the rule that watches all executions from outside.
#[derive(Debug)]
pub(crate) enum Event {
    Told(Box<Told>),
    BadEnd(BadEnd),
    /// An execution that is running or has succeeded: the workflow itself tells what there is to tell.
    NothingBad,
}

/// What a state of the workflow hands over.
#[derive(Debug, Deserialize)]
#[serde(tag = "Kind")]
pub(crate) enum Told {
    ContainmentStarted(Story),
    ApprovalRequested(Question),
    ContainmentEnded(Ending),
    ReleaseEnded(Ending),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Story {
    pub(crate) execution: Value,
    pub(crate) trigger: Value,
    pub(crate) targets: Value,
    pub(crate) left_out: Value,
    pub(crate) quiet: Value,
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
    pub(crate) report: Value,
    pub(crate) quiet: Value,
}

/// An execution that ended badly, as EventBridge and then DescribeExecution tell it.
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

/// Reads an event. Errors: it is none that the function knows.
pub(crate) fn read(event: &Value) -> Result<Event> {
    let refused = |error: String| Error::InvalidInput(format!("the event of notify: {error}"));
    if event.get("detail-type").is_none() {
        return Ok(Event::Told(Box::new(Told::deserialize(event).map_err(|error| refused(error.to_string()))?)));
    }
    let event = EventBridgeEvent::<Value>::deserialize(event).map_err(|error| refused(error.to_string()))?;
    if event.detail_type != STATUS_CHANGE {
        return Err(refused(format!(
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
