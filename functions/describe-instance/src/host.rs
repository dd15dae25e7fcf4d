//! Whether the host answers Systems Manager, which a capture needs.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::{InstanceInformation, InstanceInformationStringFilter, PingStatus};
use containment::{CaptureMode, Error, Result, Target};
use evidence::Recorder;
use serde_json::{Map, Value, json};

/// Isolation waits for this answer; without it the instance is isolated, and only the capture is dropped.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// The agent's own words are the host's, or the attacker's: no more of them than this.
const CHARACTERS_AT_MOST: usize = 40;

/// What Systems Manager says of the host; all absent where it does not manage it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Host {
    ping_status: Option<String>,
    platform_type: Option<String>,
    agent_version: Option<String>,
}

impl From<&InstanceInformation> for Host {
    fn from(information: &InstanceInformation) -> Self {
        let cut = |text: &str| text.chars().take(CHARACTERS_AT_MOST).collect();
        Host {
            ping_status: information.ping_status().map(|status| cut(status.as_str())),
            platform_type: information.platform_type().map(|platform| cut(platform.as_str())),
            agent_version: information.agent_version().map(cut),
        }
    }
}

impl Host {
    pub(crate) fn facts(&self) -> Map<String, Value> {
        let facts = [
            ("PingStatus", &self.ping_status),
            ("PlatformType", &self.platform_type),
            ("AgentVersion", &self.agent_version),
        ];
        facts.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
    }

    /// A row of the list means only that an agent registered once; `Online` means that it is there now
    /// (aws-behaviour#agent-status).
    fn is_online(&self) -> bool {
        self.ping_status.as_deref() == Some(PingStatus::Online.as_str())
    }
}

pub(crate) fn client(aws: &SdkConfig, recorder: &Recorder) -> Client {
    let timeouts = aws.timeout_config().map_or_else(TimeoutConfig::builder, TimeoutConfig::to_builder);
    let timeouts = timeouts.operation_timeout(ANSWERED_WITHIN).build();
    let config = aws_sdk_ssm::config::Builder::from(aws).timeout_config(timeouts).interceptor(recorder.clone());
    Client::from_conf(config.build())
}

/// What Systems Manager says of the host. No call unless a capture was requested.
pub(crate) async fn host(ssm: &Client, target: &Target) -> Result<Option<Host>> {
    if target.capture.is_none() {
        return Ok(None);
    }
    let filter = InstanceInformationStringFilter::builder().key("InstanceIds").values(&target.instance_id).build();
    let filter =
        filter.map_err(|error| Error::Misconfigured(format!("the filter of DescribeInstanceInformation: {error}")))?;
    let sent = ssm.describe_instance_information().filters(filter).send().await;
    let reply = sent.map_err(Error::aws("ssm:DescribeInstanceInformation", &target.instance_id))?;
    let is_ours = |i: &&InstanceInformation| i.instance_id() == Some(&target.instance_id);
    Ok(Some(reply.instance_information_list().iter().find(is_ours).map(Host::from).unwrap_or_default()))
}

/// Whether isolation is to leave a way open for the capture, and what the reader must know if not for want of an agent.
///
/// Endpoints of a VPC lead only to their own Region (aws-behaviour#vpc-endpoints), and captures go to the evidence
/// bucket.
pub(crate) fn window(target: &Target, host: Option<&Host>, evidence_region: Option<&str>) -> (bool, Option<String>) {
    let wanted = target.capture.is_some_and(|capture| capture.mode == CaptureMode::IsolateFirst);
    if !wanted || !host.is_some_and(Host::is_online) {
        return (false, None);
    }
    match evidence_region {
        Some(home) if home != target.region => {
            let why = format!(
                "a capture after isolation is impossible: the evidence bucket is in {home}, and the endpoints of a VPC in {} \
                 lead nowhere else; the host would have to be captured first (CaptureMode CaptureFirst)",
                target.region
            );
            (false, Some(why))
        }
        _ => (true, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ssm::operation::describe_instance_information::{
        DescribeInstanceInformationError, DescribeInstanceInformationOutput,
    };
    use aws_sdk_ssm::types::PlatformType;
    use aws_smithy_mocks::{Rule, mock, mock_client};
    use containment::Capture;

    fn asked(mode: CaptureMode) -> Target {
        Target { capture: Some(Capture { mode, memory: false }), ..Target::example() }
    }

    fn answers(status: PingStatus) -> Rule {
        mock!(Client::describe_instance_information)
            .match_requests(|r| {
                let filter = &r.filters()[0];
                filter.key() == "InstanceIds" && filter.values() == ["i-0123456789abcdef0"]
            })
            .then_output(move || {
                let information = InstanceInformation::builder()
                    .instance_id("i-0123456789abcdef0")
                    .ping_status(status.clone())
                    .platform_type(PlatformType::Linux)
                    .agent_version("3.3.2299.0".repeat(100))
                    .build();
                DescribeInstanceInformationOutput::builder().instance_information_list(information).build()
            })
    }

    async fn seen(rule: &Rule, target: &Target) -> Option<Host> {
        host(&mock_client!(aws_sdk_ssm, [rule]), target).await.expect("answered")
    }

    #[tokio::test]
    async fn where_no_capture_is_asked_for_nobody_is_asked_about_the_host() {
        let rule = answers(PingStatus::Online);
        assert_eq!((seen(&rule, &Target::example()).await, rule.num_calls()), (None, 0));
    }

    #[tokio::test]
    async fn a_host_that_is_online_gets_a_window_and_one_that_was_there_once_does_not() {
        let target = asked(CaptureMode::IsolateFirst);
        for (status, open) in
            [(PingStatus::Online, true), (PingStatus::ConnectionLost, false), (PingStatus::Inactive, false)]
        {
            let host = seen(&answers(status), &target).await;
            assert_eq!(window(&target, host.as_ref(), Some("eu-west-1")), (open, None));
        }
        assert_eq!(window(&target, None, Some("eu-west-1")), (false, None), "the answer could not be had");
    }

    #[tokio::test]
    async fn who_is_captured_first_needs_no_window() {
        let target = asked(CaptureMode::CaptureFirst);
        let host = seen(&answers(PingStatus::Online), &target).await;
        assert_eq!(window(&target, host.as_ref(), Some("eu-west-1")), (false, None));
    }

    #[tokio::test]
    async fn a_bucket_in_another_region_cannot_be_reached_through_the_window_and_the_sentence_says_so() {
        let target = asked(CaptureMode::IsolateFirst);
        let host = seen(&answers(PingStatus::Online), &target).await;
        let (open, why) = window(&target, host.as_ref(), Some("ap-northeast-1"));
        assert!(!open && why.expect("a sentence").contains("the evidence bucket is in ap-northeast-1"));
    }

    #[tokio::test]
    async fn the_facts_say_how_the_host_stands_and_no_more_than_is_needed() {
        let facts = seen(&answers(PingStatus::Online), &asked(CaptureMode::IsolateFirst)).await.expect("asked").facts();
        assert_eq!((&facts["PingStatus"], &facts["PlatformType"]), (&json!("Online"), &json!("Linux")));
        assert_eq!(facts["AgentVersion"].as_str().expect("a text").len(), CHARACTERS_AT_MOST);
    }

    #[tokio::test]
    async fn a_host_that_systems_manager_does_not_manage_has_no_status() {
        let rule = mock!(Client::describe_instance_information)
            .then_output(|| DescribeInstanceInformationOutput::builder().build());
        let facts = seen(&rule, &asked(CaptureMode::IsolateFirst)).await.expect("asked").facts();
        assert_eq!(facts["PingStatus"], Value::Null);
    }

    #[tokio::test]
    async fn a_call_that_fails_is_named() {
        let rule = mock!(Client::describe_instance_information).then_error(|| {
            let meta = aws_sdk_ssm::error::ErrorMetadata::builder().code("AccessDeniedException").build();
            DescribeInstanceInformationError::generic(meta)
        });
        let ssm = mock_client!(aws_sdk_ssm, [&rule]);
        let error = host(&ssm, &asked(CaptureMode::IsolateFirst)).await.expect_err("denied");
        assert!(error.to_string().starts_with("ssm:DescribeInstanceInformation on i-0123456789abcdef0: AccessDenied"));
    }
}
