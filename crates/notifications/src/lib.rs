//! Notifications: the messages, their form in each medium, and the topic.
//!
//! One message to one topic, in a form for each protocol: `email` for a tired person, `https` for Amazon Q Developer in
//! chat applications (so any other HTTPS subscriber gets that form too), `sms` in one line, and JSON
//! (`docs/notification.schema.json`) for everything else.

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

use aws_sdk_sns::types::MessageAttributeValue;
use aws_smithy_types::DateTime;
use containment::{Error, Result};
use serde::Serialize;
use serde_json::json;
use verdict::Workflow;

pub use event::{BadEnd, Ending, Question, Started, WorkflowMessage};
pub use message::{Kind, Message};

/// The result of publishing.
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

/// The message about an event of the workflow; none if there is nothing to announce. Pure.
pub fn message(event: &WorkflowMessage, now: &DateTime) -> Option<Message> {
    match event {
        WorkflowMessage::ContainmentStarted(start) if drift::is_drift(&start.trigger) => drift::repairing(start),
        WorkflowMessage::ContainmentStarted(start) => started::started(start),
        WorkflowMessage::DriftFound(start) => Some(drift::waiting(start)),
        WorkflowMessage::DriftNotRepaired(start) => Some(drift::not_repaired(start)),
        WorkflowMessage::ApprovalRequested(question) => Some(started::asked(question, now)),
        WorkflowMessage::ContainmentEnded(ending) => ended::ended(ending, Workflow::Contain),
        WorkflowMessage::ReleaseEnded(ending) => ended::ended(ending, Workflow::Release),
    }
}

/// The message about an execution that has ended badly. Pure.
pub fn bad_end(end: &BadEnd) -> Message {
    broken::broken(end)
}

/// Publishes messages to one topic.
#[derive(Debug, Clone)]
pub struct Publisher {
    sns: aws_sdk_sns::Client,
    topic: String,
}

impl Publisher {
    /// To the topic with this ARN.
    pub fn new(sns: aws_sdk_sns::Client, topic: impl Into<String>) -> Self {
        Publisher { sns, topic: topic.into() }
    }

    /// Publishes a message, with this time in it. Calls `sns:Publish`.
    pub async fn publish(&self, message: &Message, now: &DateTime) -> Result<Answer> {
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
