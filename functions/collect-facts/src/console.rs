//! What the machine shows on its console: the output of its serial port, and a picture of its screen.
//!
//! Both are read from outside and change nothing. The screen is not woken up: that would be a key press on the host.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::primitives::DateTimeFormat;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use containment::{AwsError, Error, Kind, Result, Target};

/// EC2 keeps 64 KB of output, and a screenshot has some hundred; nothing that is longer is kept whole.
const BYTES_AT_MOST: usize = 4 << 20;

/// What EC2 shows, or why it shows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Bytes to keep as evidence, and when EC2 last updated them, where it says so.
    Bytes { bytes: Vec<u8>, at: Option<String> },
    /// What AWS says about why there is nothing.
    Nothing(String),
}

/// The console's output, the latest where the instance's type supports that, else as of its last start or stop.
///
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html>
pub(crate) async fn output(ec2: &Client, target: &Target) -> Result<Seen> {
    let call = ec2.get_console_output().instance_id(&target.instance_id);
    let latest = call.clone().latest(true).send().await;
    let latest = latest.map_err(Error::aws("ec2:GetConsoleOutput", &target.instance_id));
    let reply = match latest {
        Err(error) if is_refused(&error) => {
            call.send().await.map_err(Error::aws("ec2:GetConsoleOutput", &target.instance_id))
        }
        other => other,
    };
    let reply = match reply {
        Err(error) if is_refused(&error) => return Ok(Seen::Nothing(format!("EC2 gives none: {error}"))),
        other => other?,
    };
    let at = reply.timestamp().and_then(|at| at.fmt(DateTimeFormat::DateTime).ok());
    Ok(seen(reply.output(), at))
}

/// A picture of the screen, JPEG. Not every type has one, and no stopped instance: then AWS's words are the fact.
pub(crate) async fn screenshot(ec2: &Client, target: &Target) -> Result<Seen> {
    let sent = ec2.get_console_screenshot().instance_id(&target.instance_id).send().await;
    let reply = match sent.map_err(Error::aws("ec2:GetConsoleScreenshot", &target.instance_id)) {
        Err(error) if is_refused(&error) => return Ok(Seen::Nothing(format!("EC2 gives none: {error}"))),
        other => other?,
    };
    Ok(match seen(reply.image_data(), None) {
        Seen::Bytes { bytes, .. } if !bytes.starts_with(&[0xff, 0xd8, 0xff]) => {
            Seen::Nothing("what EC2 gave is no JPEG; its reply is in the evidence".to_owned())
        }
        seen => seen,
    })
}

/// AWS does not offer it here: no failure of the collection.
fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Aws(error) if matches!(&**error, AwsError { kind: Kind::Refused, .. }))
}

/// What EC2 answered in base64; of something long, the first bytes.
fn seen(base64: Option<&str>, at: Option<String>) -> Seen {
    let base64: String = base64.unwrap_or_default().chars().filter(|c| !c.is_ascii_whitespace()).collect();
    match BASE64_STANDARD.decode(base64) {
        Ok(bytes) if bytes.is_empty() => Seen::Nothing("EC2 has none of this instance".to_owned()),
        Ok(mut bytes) => {
            bytes.truncate(BYTES_AT_MOST);
            Seen::Bytes { bytes, at }
        }
        Err(error) => Seen::Nothing(format!("what EC2 gave is not base64 ({error}); its reply is in the evidence")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::error::ErrorMetadata;
    use aws_sdk_ec2::operation::get_console_output::{GetConsoleOutputError, GetConsoleOutputOutput};
    use aws_sdk_ec2::operation::get_console_screenshot::{GetConsoleScreenshotError, GetConsoleScreenshotOutput};
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

    fn target() -> Target {
        Target::example()
    }

    fn refused(code: &'static str) -> Rule {
        mock!(Client::get_console_screenshot)
            .then_error(move || GetConsoleScreenshotError::generic(ErrorMetadata::builder().code(code).build()))
    }

    #[tokio::test]
    async fn an_older_type_gives_the_output_of_its_last_start() {
        let latest = mock!(Client::get_console_output).match_requests(|r| r.latest() == Some(true)).then_error(|| {
            GetConsoleOutputError::generic(ErrorMetadata::builder().code("UnsupportedOperation").build())
        });
        let last = mock!(Client::get_console_output)
            .match_requests(|r| r.latest().is_none())
            .then_output(|| GetConsoleOutputOutput::builder().output("Ym9v\ndGVk").build());
        let ec2 = mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&latest, &last]);
        let seen = output(&ec2, &target()).await.expect("seen");
        assert_eq!(seen, Seen::Bytes { bytes: b"booted".to_vec(), at: None });
    }

    #[tokio::test]
    async fn missing_output_is_a_fact() {
        let none = mock!(Client::get_console_output).then_output(|| GetConsoleOutputOutput::builder().build());
        let seen = output(&mock_client!(aws_sdk_ec2, [&none]), &target()).await.expect("seen");
        assert!(matches!(seen, Seen::Nothing(why) if why.contains("has none")));
    }

    #[tokio::test]
    async fn a_screenshot_is_kept_as_it_came_and_the_screen_is_not_woken_up() {
        let picture = mock!(Client::get_console_screenshot)
            .match_requests(|r| r.wake_up().is_none())
            .then_output(|| GetConsoleScreenshotOutput::builder().image_data("/9j/4AAQ").build());
        let seen = screenshot(&mock_client!(aws_sdk_ec2, [&picture]), &target()).await.expect("seen");
        assert!(matches!(seen, Seen::Bytes { bytes, .. } if bytes == [0xff, 0xd8, 0xff, 0xe0, 0, 0x10]));
    }

    #[tokio::test]
    async fn a_type_without_screenshots_is_a_fact_and_a_denied_call_is_an_error() {
        let none = mock_client!(aws_sdk_ec2, [&refused("UnsupportedOperation")]);
        let seen = screenshot(&none, &target()).await.expect("a fact");
        assert!(matches!(seen, Seen::Nothing(why) if why.contains("UnsupportedOperation")));
        let denied = mock_client!(aws_sdk_ec2, [&refused("UnauthorizedOperation")]);
        assert_eq!(screenshot(&denied, &target()).await.expect_err("denied").name(), "AccessDenied");
    }

    #[tokio::test]
    async fn only_a_picture_is_kept_as_one() {
        let page = mock!(Client::get_console_screenshot)
            .then_output(|| GetConsoleScreenshotOutput::builder().image_data("PGh0bWw+").build());
        let seen = screenshot(&mock_client!(aws_sdk_ec2, [&page]), &target()).await.expect("seen");
        assert!(matches!(seen, Seen::Nothing(why) if why.contains("no JPEG")));
    }
}
