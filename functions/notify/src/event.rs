//! What the function is called with: an event of the workflow, or one of EventBridge about an execution.

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use containment::{Error, Result};
use notifications::{BadEnd, WorkflowMessage};
use serde::Deserialize;
use serde_json::Value;

/// An event of the workflow, or of the rule outside it that follows all executions.
#[derive(Debug)]
pub(crate) enum Event {
    Workflow(Box<WorkflowMessage>),
    BadEnd(BadEnd),
    /// An execution that is running or has succeeded: the workflow itself announces what there is to announce.
    NothingBad,
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
