//! Tells people what Cordon does, what it asks and how it ended. Changes nothing of the instance.
//!
//! The workflow announces its starts, its questions and its good ends. A rule outside it announces every execution that
//! ends FAILED, TIMED_OUT or ABORTED: one voice for bad ends, which even a broken workflow cannot silence.

mod event;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use aws_config::timeout::TimeoutConfig;
use aws_sdk_sfn::primitives::DateTime;
use containment::{Error, Result};
use notifications::{Answer, BadEnd, Publisher};
use runtime::Aws;
use serde_json::Value;

use event::Event;

/// The function: an event in, at most one message out.
pub async fn handle(aws: &Aws, event: &Value) -> Result<Answer> {
    let notifier = Notifier {
        publisher: Publisher::new(aws_sdk_sns::Client::new(aws.home()), aws.required("TOPIC_ARN")?),
        sfn: aws_sdk_sfn::Client::new(aws.home()),
    };
    notifier.tell(event, DateTime::from(SystemTime::now())).await
}

/// Where messages go, and where to ask why an execution ended.
struct Notifier {
    publisher: Publisher,
    sfn: aws_sdk_sfn::Client,
}

impl Notifier {
    async fn tell(&self, event: &Value, now: DateTime) -> Result<Answer> {
        let message = match event::read(event)? {
            Event::Workflow(message) => notifications::message(&message, &now),
            Event::BadEnd(end) => {
                let end = self.explained(end).await;
                // The fleet's execution announces all its batches at once.
                (!end.input["Batch"].is_object()).then(|| notifications::bad_end(&end))
            }
            Event::NothingBad => None,
        };
        match message {
            Some(message) => self.publisher.publish(&message, &now).await,
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
}
