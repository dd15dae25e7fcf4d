//! The execution that holds a case: whether it is still running.

use aws_sdk_sfn::types::ExecutionStatus;
use cases::now;
use containment::{Error, Result};

/// A new execution may take a moment to show: DescribeExecution is eventually consistent.
const MAY_NOT_SHOW_YET: i64 = 300;

/// The state of the execution that holds a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// It is running, or may be, because a new one may not show yet.
    Running,
    /// It was stopped or timed out at this time (seconds since 1970). Its functions run on for a while.
    Stopped(i64),
    /// It has ended by itself, or there is no execution of this name.
    Ended,
}

/// The state of the execution that has held a case since this time (seconds since 1970), as Step Functions says.
pub async fn holder(sfn: &aws_sdk_sfn::Client, execution: &str, since: i64) -> Result<Holder> {
    let sent = sfn.describe_execution().execution_arn(execution).send().await;
    match sent.map_err(Error::aws("states:DescribeExecution", execution)) {
        Ok(reply) => Ok(match reply.status {
            ExecutionStatus::Running | ExecutionStatus::PendingRedrive => Holder::Running,
            ExecutionStatus::Aborted | ExecutionStatus::TimedOut => {
                Holder::Stopped(reply.stop_date.map_or(0, |stopped| stopped.secs()))
            }
            _ => Holder::Ended,
        }),
        Err(error) if error.code() == Some("ExecutionDoesNotExist") => {
            Ok(if now().saturating_sub(since) < MAY_NOT_SHOW_YET { Holder::Running } else { Holder::Ended })
        }
        // A function that was run by hand left a name that is not an execution's.
        Err(error) if error.code() == Some("InvalidArn") => Ok(Holder::Ended),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_sfn::operation::describe_execution::{DescribeExecutionError, DescribeExecutionOutput};
    use aws_sdk_sfn::types::error::ExecutionDoesNotExist;
    use aws_smithy_mocks::{mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;

    const OTHER: &str = "arn:aws:states:ap-northeast-1:123456789012:execution:cordon-contain:other";

    async fn holding(answer: std::result::Result<ExecutionStatus, &'static str>, held_since: i64) -> Holder {
        let rule = match answer {
            Ok(status) => mock!(aws_sdk_sfn::Client::describe_execution).then_output(move || {
                let reply = DescribeExecutionOutput::builder().execution_arn(OTHER).state_machine_arn("m");
                let started = aws_sdk_sfn::primitives::DateTime::from_secs(7);
                let stopped = aws_sdk_sfn::primitives::DateTime::from_secs(9);
                reply.status(status.clone()).start_date(started).stop_date(stopped).build().expect("complete")
            }),
            Err(code) => mock!(aws_sdk_sfn::Client::describe_execution).then_error(move || {
                let meta = ErrorMetadata::builder().code(code).build();
                DescribeExecutionError::ExecutionDoesNotExist(ExecutionDoesNotExist::builder().meta(meta).build())
            }),
        };
        let sfn = mock_client!(aws_sdk_sfn, [&rule]);
        holder(&sfn, OTHER, held_since).await.expect("an answer")
    }

    #[tokio::test]
    async fn a_case_is_held_while_its_execution_runs_or_may_not_show_yet() {
        assert_eq!(holding(Ok(ExecutionStatus::Running), 7).await, Holder::Running);
        for over in [ExecutionStatus::Succeeded, ExecutionStatus::Failed] {
            assert_eq!(holding(Ok(over), 7).await, Holder::Ended);
        }
        for stopped in [ExecutionStatus::Aborted, ExecutionStatus::TimedOut] {
            assert_eq!(holding(Ok(stopped), 7).await, Holder::Stopped(9));
        }
        assert_eq!(holding(Err("ExecutionDoesNotExist"), now()).await, Holder::Running);
        assert_eq!(holding(Err("ExecutionDoesNotExist"), now() - 600).await, Holder::Ended);
        assert_eq!(
            holding(Err("InvalidArn"), now()).await,
            Holder::Ended,
            "a function that is run by hand holds no case"
        );
    }
}
