//! Errors by the name that the state machine matches on.

use std::fmt;

use aws_runtime::retries::classifiers::{THROTTLING_ERRORS, TRANSIENT_ERRORS};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::request_id::RequestId;

use crate::Outcome;

/// A result whose error has a stable name.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a function. A variant exists because a workflow or a person acts on it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The function does not accept the event; nothing was touched. Never retried.
    #[error("{0}")]
    InvalidInput(String),
    /// The function's own environment lacks something that `template.yaml` sets.
    #[error("{0}")]
    Misconfigured(String),
    /// The instance, or something that it must have, does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The instance can't be contained this way; the text says what else to do.
    #[error("{0}")]
    Unsupported(String),
    /// Another execution did the same at the same time; another try resolves it.
    #[error("{0}")]
    Conflict(String),
    /// A call to AWS failed.
    #[error("{0}")]
    Aws(Box<AwsError>),
    /// A step read back that it is not contained. Carries the whole outcome, so that no change made is lost.
    #[error("{}", .0.to_json())]
    NotContained(Box<Outcome>),
    /// A step read back that a change of the containment is not undone. Carries the whole outcome, like
    /// [`NotContained`](Error::NotContained).
    #[error("{}", .0.to_json())]
    NotReleased(Box<Outcome>),
}

/// Why a call to AWS failed, as far as the workflow cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Too many requests; worth another try.
    Throttled,
    /// No answer, a time-out or a 5xx; worth another try.
    Unavailable,
    /// The role lacks a permission; another try changes nothing.
    AccessDenied,
    /// AWS refuses the call, and will refuse it again.
    Refused,
}

/// A failed call, its resource, and the service's answer.
#[derive(Debug)]
pub struct AwsError {
    /// The IAM action, such as `ec2:DescribeInstances`.
    pub action: &'static str,
    /// The resource that the call was about.
    pub resource: String,
    /// The kind of failure, which decides whether the workflow tries again.
    pub kind: Kind,
    /// The service's error code, or the reason why there is none.
    pub code: String,
    /// The service's own words.
    pub message: String,
    /// The request id, for a support case and for CloudTrail.
    pub request_id: Option<String>,
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.request_id.as_deref().unwrap_or("none");
        write!(f, "{} on {}: {}: {} (request id {id})", self.action, self.resource, self.code, self.message)
    }
}

impl Error {
    /// Names the IAM action and the resource of a failed call: `.map_err(Error::aws("ec2:CreateTags", id))`.
    ///
    /// `tests/test_template.py` reads these names and compares them with the function's role.
    pub fn aws<E>(action: &'static str, resource: impl fmt::Display) -> impl FnOnce(SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        move |error| Error::Aws(Box::new(describe(action, resource.to_string(), error)))
    }

    /// Adds a sentence of advice after the service's own words.
    pub fn with_advice(self, advice: &str) -> Self {
        match self {
            Error::Aws(mut error) => {
                error.message = format!("{}; {advice}", error.message);
                Error::Aws(error)
            }
            other => other,
        }
    }

    /// The `errorType` that the state machine's Retry and Catch name (aws-behaviour#lambda-error-names).
    pub fn name(&self) -> &'static str {
        match self {
            Error::InvalidInput(_) => "InvalidInput",
            Error::Misconfigured(_) => "Misconfigured",
            Error::NotFound(_) => "NotFound",
            Error::Unsupported(_) => "Unsupported",
            Error::Conflict(_) => "Conflict",
            Error::NotContained(_) => "NotContained",
            Error::NotReleased(_) => "NotReleased",
            Error::Aws(error) => match error.kind {
                Kind::Throttled => "Throttled",
                Kind::Unavailable => "Unavailable",
                Kind::AccessDenied => "AccessDenied",
                Kind::Refused => "Refused",
            },
        }
    }

    /// The service's error code, if a service gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Aws(error) => Some(&error.code),
            _ => None,
        }
    }

    /// Whether the same call may succeed in a moment.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Conflict(_))
            || matches!(self, Error::Aws(e) if matches!(e.kind, Kind::Throttled | Kind::Unavailable))
    }
}

/// Error codes for which AWS documents "try again in a moment" and which the SDK's own lists lack:
/// an Auto Scaling group that is busy (aws-behaviour#detaching), a volume with too many pending snapshots
/// (aws-behaviour#snapshot-quotas), a role that somebody else is changing.
const SETTLING: &[&str] = &[
    "ResourceContention",
    "ScalingActivityInProgress",
    "ConcurrentSnapshotLimitExceeded",
    "ConcurrentModification",
    "ConcurrentModificationException",
];

/// EC2's codes for a resource that was just made and does not show everywhere yet (aws-behaviour#eventual-consistency).
/// A step names only ids that it has made or has just read.
const UNSEEN: &[&str] = &["InvalidGroup.NotFound", "InvalidSnapshot.NotFound", "InvalidFlowLogId.NotFound"];

/// The access-denied codes of services that do not say `AccessDenied`: EC2, SNS, and SNS about the topic's key.
const DENIED: &[&str] = &["UnauthorizedOperation", "AuthFailure", "AuthorizationError", "KMSAccessDenied"];

fn describe<E>(action: &'static str, resource: String, error: SdkError<E, HttpResponse>) -> AwsError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = error.raw_response().map(|r| r.status().as_u16());
    let meta = match &error {
        SdkError::ServiceError(e) => Some(e.err().meta().clone()),
        _ => None,
    };
    let request_id =
        error.request_id().or_else(|| meta.as_ref().and_then(RequestId::request_id)).map(ToOwned::to_owned);
    let code = meta.as_ref().and_then(|m| m.code().map(ToOwned::to_owned));
    let kind = match code.as_deref() {
        Some(code) if THROTTLING_ERRORS.contains(&code) || SETTLING.contains(&code) => Kind::Throttled,
        Some(code) if TRANSIENT_ERRORS.contains(&code) || UNSEEN.contains(&code) => Kind::Unavailable,
        Some(code) if code.starts_with("AccessDenied") || DENIED.contains(&code) => Kind::AccessDenied,
        Some(_) if status.is_some_and(|s| s < 500) => Kind::Refused,
        _ if matches!(error, SdkError::ConstructionFailure(_)) => Kind::Refused,
        _ => Kind::Unavailable,
    };
    let message = meta.as_ref().and_then(|m| m.message().map(ToOwned::to_owned));
    AwsError {
        action,
        resource,
        kind,
        code: code.unwrap_or_else(|| status.map_or("no answer".to_owned(), |s| format!("HTTP {s}"))),
        message: message.unwrap_or_else(|| first_characters(&DisplayErrorContext(&error).to_string(), 300)),
        request_id,
    }
}

/// If the service said nothing, the SDK's own description can be pages long.
fn first_characters(text: &str, count: usize) -> String {
    text.char_indices().nth(count).map_or_else(|| text.to_owned(), |(end, _)| format!("{}…", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::operation::get_item::GetItemError;
    use aws_sdk_dynamodb::types::error::ResourceNotFoundException;
    use aws_smithy_mocks::{mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;

    async fn error_of(code: &'static str) -> Error {
        let rule = mock!(Client::get_item)
            .then_error(move || GetItemError::generic(ErrorMetadata::builder().code(code).message("said so").build()));
        let client = mock_client!(aws_sdk_dynamodb, [&rule]);
        let sent = client.get_item().table_name("cases").send().await;
        sent.map_err(Error::aws("dynamodb:GetItem", "cases")).expect_err("the rule fails the call")
    }

    #[tokio::test]
    async fn a_failed_call_names_the_action_the_resource_and_the_services_code() {
        let error = error_of("ValidationException").await;
        assert_eq!(error.to_string(), "dynamodb:GetItem on cases: ValidationException: said so (request id none)");
    }

    #[tokio::test]
    async fn denied_access_throttling_and_refusals_are_told_apart() {
        assert_eq!(error_of("AccessDeniedException").await.name(), "AccessDenied");
        for code in DENIED {
            assert_eq!(error_of(code).await.name(), "AccessDenied");
        }
        assert_eq!(error_of("ScalingActivityInProgress").await.name(), "Throttled");
        assert!(error_of("InvalidSnapshot.NotFound").await.is_transient(), "it may just have been made");
        assert!(!error_of("InvalidInstanceID.NotFound").await.is_transient(), "the instance was there before us");
    }

    #[tokio::test]
    async fn modelled_errors_of_a_service_keep_their_code() {
        let rule = mock!(Client::get_item).then_error(|| {
            let meta = ErrorMetadata::builder().code("ResourceNotFoundException").message("no table").build();
            GetItemError::ResourceNotFoundException(ResourceNotFoundException::builder().meta(meta).build())
        });
        let client = mock_client!(aws_sdk_dynamodb, [&rule]);
        let error = client.get_item().table_name("t").send().await.map_err(Error::aws("dynamodb:GetItem", "t"));
        assert_eq!(error.expect_err("fails").code(), Some("ResourceNotFoundException"));
    }
}
