//! Tells people what Cordon does, what it asks and how it ended. Changes nothing of the instance.
//!
//! One message to one topic, in a form for each protocol: `email` for a tired person, `https` for Amazon Q Developer in
//! chat applications (so any other HTTPS subscriber gets that form too), `sms` in one line, and JSON
//! (`docs/notification.schema.json`) for everything else.
//!
//! The workflow announces its starts, its questions and its good ends. A rule outside it announces every execution that
//! ends FAILED, TIMED_OUT or ABORTED: one voice for bad ends, which even a broken workflow cannot silence.

mod broken;
mod chat;
mod contained;
mod drift;
mod email;
mod ended;
mod event;
mod execution;
mod message;
mod quoted;
mod record;
mod released;
mod sections;
mod started;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use aws_config::timeout::TimeoutConfig;
use aws_sdk_sfn::primitives::DateTime;
use aws_sdk_sns::types::MessageAttributeValue;
use containment::{Error, Result};
use runtime::Aws;
use serde::Serialize;
use serde_json::{Value, json};
use verdict::Workflow;

use event::{BadEnd, Event, WorkflowMessage};
pub use message::Kind;
use message::Message;

/// What became of an event.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    /// Whether a message was published.
    pub sent: bool,
    /// Which kind of message.
    pub kind: Option<Kind>,
    /// Its id in SNS.
    pub message_id: Option<String>,
}

/// The function: an event in, at most one message out.
pub async fn handle(aws: &Aws, event: &Value) -> Result<Answer> {
    let notifier = Notifier {
        sns: aws_sdk_sns::Client::new(aws.home()),
        sfn: aws_sdk_sfn::Client::new(aws.home()),
        topic: aws.required("TOPIC_ARN")?,
    };
    notifier.tell(event, DateTime::from(SystemTime::now())).await
}

/// Where messages go, and where to ask why an execution ended.
struct Notifier {
    sns: aws_sdk_sns::Client,
    sfn: aws_sdk_sfn::Client,
    topic: String,
}

impl Notifier {
    async fn tell(&self, event: &Value, now: DateTime) -> Result<Answer> {
        let message = match event::read(event)? {
            Event::Workflow(message) => match *message {
                WorkflowMessage::ContainmentStarted(start) if drift::is_drift(&start.trigger) => {
                    drift::repairing(&start)
                }
                WorkflowMessage::ContainmentStarted(start) => started::started(&start),
                WorkflowMessage::DriftFound(start) => Some(drift::waiting(&start)),
                WorkflowMessage::DriftNotRepaired(start) => Some(drift::not_repaired(&start)),
                WorkflowMessage::ApprovalRequested(question) => Some(started::asked(&question, &now)),
                WorkflowMessage::ContainmentEnded(ending) => ended::ended(&ending, Workflow::Contain),
                WorkflowMessage::ReleaseEnded(ending) => ended::ended(&ending, Workflow::Release),
            },
            Event::BadEnd(end) => {
                let end = self.explained(end).await;
                // The fleet's execution announces all its batches at once.
                (!end.input["Batch"].is_object()).then(|| broken::broken(&end))
            }
            Event::NothingBad => None,
        };
        match message {
            Some(message) => self.publish(&message, &now).await,
            None => Ok(Answer { sent: false, kind: None, message_id: None }),
        }
    }

    /// With the error and the cause, which events need not carry. The message goes out even if they cannot be read.
    async fn explained(&self, mut end: BadEnd) -> BadEnd {
        if end.error.is_some() && end.cause.is_some() {
            return end;
        }
        let soon = TimeoutConfig::builder().operation_timeout(Duration::from_secs(10)).build();
        let call = self.sfn.describe_execution().execution_arn(&end.execution).customize();
        let call = call.config_override(aws_sdk_sfn::config::Builder::new().timeout_config(soon));
        match call.send().await.map_err(Error::aws("states:DescribeExecution", &end.execution)) {
            Ok(reply) => {
                end.error = end.error.or(reply.error);
                end.cause = end.cause.or(reply.cause);
                if end.input.is_null() {
                    end.input = reply.input.and_then(|input| serde_json::from_str(&input).ok()).unwrap_or_default();
                }
            }
            Err(error) => end.unread = Some(error.to_string()),
        }
        end
    }

    async fn publish(&self, message: &Message, now: &DateTime) -> Result<Answer> {
        let forms = json!({
            "default": record::record(message, now).to_string(),
            "email": email::email(message),
            "https": chat::chat(message).to_string(),
            "sms": email::sms(message),
        });
        let kind = MessageAttributeValue::builder().data_type("String").string_value(message.kind.name());
        let kind = kind.build().expect("a data type is given");
        let call = self.sns.publish().topic_arn(&self.topic).subject(email::subject(message));
        let call = call.message_structure("json").message(forms.to_string()).message_attributes("Kind", kind);
        let reply = call.send().await.map_err(Error::aws("sns:Publish", &self.topic))?;
        Ok(Answer { sent: true, kind: Some(message.kind), message_id: reply.message_id })
    }
}
