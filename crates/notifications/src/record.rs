//! The message for machines: queues, functions, streams. `docs/notification.schema.json` documents it.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::{Value, json};

use crate::message::Message;

/// All media share the 262,144 bytes of a message; a reader of JSON gets most of them.
const RECORD_AT_MOST: usize = 120_000;

/// The record, in at most [`RECORD_AT_MOST`] bytes: fields that only repeat the execution's output are dropped first.
pub(crate) fn record(message: &Message, time: &DateTime) -> Value {
    let mut record = json!({
        "Version": "1",
        "Kind": message.kind,
        "Time": time.fmt(Format::DateTime).unwrap_or_default(),
        "Headline": message.headline,
        "Execution": execution(message),
    });
    for (name, value) in &message.data {
        record[name] = value.clone();
    }
    if let Some(console) = message.execution.console() {
        record["Console"] = json!(console);
    }
    for field in ["ResidualRisk", "Open"] {
        if fits(&record) {
            return record;
        }
        shorten(&mut record, field);
    }
    for name in ["Cause", "LeftOut", "Instances", "Trigger"] {
        if fits(&record) {
            break;
        }
        record.as_object_mut().map(|record| record.remove(name));
        record["Shortened"] = json!(true);
    }
    record
}

fn execution(message: &Message) -> Value {
    let mut execution = json!({ "Id": message.execution.id });
    if let Some(arn) = message.execution.state_machine_arn() {
        execution["StateMachineArn"] = json!(arn);
    }
    if let Some(start) = &message.execution.start_time {
        execution["StartTime"] = json!(start);
    }
    execution
}

/// Measured as it will travel: as JSON inside JSON.
fn fits(record: &Value) -> bool {
    Value::String(record.to_string()).to_string().len() <= RECORD_AT_MOST
}

fn shorten(record: &mut Value, field: &str) {
    for instance in record["Instances"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        instance.remove(field);
    }
    record["Shortened"] = json!(true);
}
