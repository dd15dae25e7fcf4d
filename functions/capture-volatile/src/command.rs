//! Systems Manager's side: whether the host can be reached, the command, and how it stands.

use std::collections::HashMap;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::primitives::{DateTime, DateTimeFormat};
use aws_sdk_ssm::types::{CommandFilter, CommandFilterKey, InstanceInformationStringFilter, PingStatus, PlatformType};
use containment::{Error, Result, Target};
use serde::{Deserialize, Serialize};

/// The command of one part of the capture.
#[derive(Debug, Clone)]
pub struct Commands {
    ssm: Client,
}

/// What the host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Platform {
    Linux,
    Windows,
}

/// Whether Systems Manager reaches the host, and what it is; or why not, which is an answer and no error
/// (aws-behaviour#agent-status).
pub(crate) type Reach = std::result::Result<Platform, String>;

/// A command as Systems Manager shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    /// Systems Manager's detailed status.
    pub(crate) details: String,
    /// The script's standard output, cut at 24,000 characters (aws-behaviour#command-output).
    pub(crate) output: String,
}

/// What came of sending a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Its id.
    Command(String),
    /// Systems Manager lacks the document, or the host.
    Refused(String),
}

impl Commands {
    /// In the configuration's account and Region.
    pub fn new(config: &SdkConfig) -> Self {
        Commands { ssm: Client::new(config) }
    }

    #[cfg(test)]
    pub(crate) fn faked(ssm: Client) -> Self {
        Commands { ssm }
    }

    /// Whether the host is managed and its agent has been seen in the last minutes.
    pub(crate) async fn reach(&self, target: &Target) -> Result<Reach> {
        let id = &target.instance_id;
        let one = InstanceInformationStringFilter::builder().key("InstanceIds").values(id).build();
        let one = one.map_err(|error| Error::Misconfigured(format!("a filter for {id}: {error}")))?;
        let reply = self.ssm.describe_instance_information().filters(one).send().await;
        let reply = reply.map_err(Error::aws("ssm:DescribeInstanceInformation", id))?;
        let Some(host) = reply.instance_information_list().iter().find(|host| host.instance_id() == Some(id)) else {
            return Ok(Err(
                "the host is not managed by Systems Manager: no agent has registered it in this account and \
                           Region, so nothing can be run on it"
                    .to_owned(),
            ));
        };
        match (host.ping_status(), host.platform_type()) {
            (Some(PingStatus::Online), Some(PlatformType::Linux)) => Ok(Ok(Platform::Linux)),
            (Some(PingStatus::Online), Some(PlatformType::Windows)) => Ok(Ok(Platform::Windows)),
            (Some(PingStatus::Online), other) => {
                let other = other.map_or("unknown", PlatformType::as_str);
                Ok(Err(format!("there is no capture for the host's platform: {other}")))
            }
            (ping, _) => {
                let ping = ping.map_or("unknown", PingStatus::as_str);
                let last = host.last_ping_date_time().and_then(|at| at.fmt(DateTimeFormat::DateTime).ok());
                let last = last.map_or_else(String::new, |at| format!(", last seen at {at}"));
                Ok(Err(format!("the host's agent is offline: Systems Manager says {ping}{last}")))
            }
        }
    }

    /// Sends a document to the host.
    ///
    /// `SendCommand` has no client token, so the SDK does not retry it: after a lost answer the command is found by its
    /// comment. `delivery` is the seconds within which the agent must have taken it.
    pub(crate) async fn send(
        &self,
        target: &Target,
        document: &str,
        comment: &str,
        parameters: HashMap<String, Vec<String>>,
        delivery: i64,
    ) -> Result<Sent> {
        let once = aws_sdk_ssm::config::Builder::new().retry_config(RetryConfig::disabled());
        let call = self.ssm.send_command().instance_ids(&target.instance_id).document_name(document).comment(comment);
        let delivery = i32::try_from(delivery.max(30)).unwrap_or(i32::MAX);
        let call = call.set_parameters(Some(parameters)).timeout_seconds(delivery);
        let reply = call.customize().config_override(once).send().await;
        let reply =
            match reply.map_err(Error::aws("ssm:SendCommand", format!("{} to {}", document, target.instance_id))) {
                Ok(reply) => reply,
                Err(error) if error.code() == Some("InvalidDocument") => {
                    return Ok(Sent::Refused(format!(
                        "account {} has no document {document} in {}: deploy capture-documents.yaml there",
                        target.account_id, target.region
                    )));
                }
                Err(error) if matches!(error.code(), Some("InvalidInstanceId" | "UnsupportedPlatformType")) => {
                    return Ok(Sent::Refused(format!("Systems Manager takes no command for the host: {error}")));
                }
                Err(error) => return Err(error),
            };
        let id = reply.command.and_then(|command| command.command_id);
        id.map(Sent::Command).ok_or_else(|| Error::Conflict("Systems Manager gave the command no id".to_owned()))
    }

    /// The command with this comment that was sent to the host since a moment, if there is one.
    pub(crate) async fn find(&self, target: &Target, comment: &str, since: i64) -> Result<Option<String>> {
        let since = DateTime::from_secs(since - 60).fmt(DateTimeFormat::DateTime).unwrap_or_default();
        let filter = CommandFilter::builder().key(CommandFilterKey::InvokedAfter).value(since).build();
        let filter = filter.map_err(|error| Error::Misconfigured(format!("a filter of commands: {error}")))?;
        let pages = self.ssm.list_commands().instance_id(&target.instance_id).filters(filter).into_paginator().items();
        let all: Vec<_> =
            pages.send().try_collect().await.map_err(Error::aws("ssm:ListCommands", &target.instance_id))?;
        Ok(all.into_iter().find(|command| command.comment() == Some(comment)).and_then(|command| command.command_id))
    }

    /// How a command stands. Right after it was sent there is none yet, which is no error
    /// (aws-behaviour#command-status).
    pub(crate) async fn invocation(&self, target: &Target, command: &str) -> Result<Option<Invocation>> {
        let call = self.ssm.get_command_invocation().command_id(command).instance_id(&target.instance_id);
        match call.send().await.map_err(Error::aws("ssm:GetCommandInvocation", command)) {
            Ok(reply) => Ok(Some(Invocation {
                details: reply.status_details.unwrap_or_default(),
                output: reply.standard_output_content.unwrap_or_default(),
            })),
            Err(error) if error.code() == Some("InvocationDoesNotExist") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for a command to be ended. Only the host knows whether it is.
    pub(crate) async fn cancel(&self, target: &Target, command: &str) -> Result<()> {
        let call = self.ssm.cancel_command().command_id(command).instance_ids(&target.instance_id);
        call.send().await.map(|_| ()).map_err(Error::aws("ssm:CancelCommand", command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ssm::error::ErrorMetadata;
    use aws_sdk_ssm::operation::describe_instance_information::DescribeInstanceInformationOutput;
    use aws_sdk_ssm::operation::get_command_invocation::GetCommandInvocationError;
    use aws_sdk_ssm::operation::list_commands::ListCommandsOutput;
    use aws_sdk_ssm::operation::send_command::SendCommandError;
    use aws_sdk_ssm::types::{Command, InstanceInformation};
    use aws_smithy_mocks::{mock, mock_client};

    async fn reach_of(hosts: Vec<InstanceInformation>) -> Reach {
        let rule = mock!(Client::describe_instance_information)
            .match_requests(|r| r.filters()[0].values() == ["i-0123456789abcdef0"])
            .then_output(move || {
                DescribeInstanceInformationOutput::builder().set_instance_information_list(Some(hosts.clone())).build()
            });
        let commands = Commands::faked(mock_client!(aws_sdk_ssm, [&rule]));
        commands.reach(&Target::example()).await.expect("asked")
    }

    fn host(ping: PingStatus, platform: PlatformType) -> InstanceInformation {
        InstanceInformation::builder()
            .instance_id("i-0123456789abcdef0")
            .ping_status(ping)
            .platform_type(platform)
            .last_ping_date_time(DateTime::from_secs(1_800_000_000))
            .build()
    }

    #[tokio::test]
    async fn only_an_online_host_is_reached_and_for_any_other_the_reason_is_given() {
        assert_eq!(reach_of(vec![host(PingStatus::Online, PlatformType::Windows)]).await, Ok(Platform::Windows));
        let text = |reach: Reach| reach.expect_err("not reached");
        assert!(text(reach_of(vec![]).await).contains("not managed"));
        let lost = text(reach_of(vec![host(PingStatus::ConnectionLost, PlatformType::Linux)]).await);
        assert!(lost.contains("ConnectionLost, last seen at 2027-01-15T08:00:00Z"), "{lost}");
        assert!(text(reach_of(vec![host(PingStatus::Online, PlatformType::Macos)]).await).contains("MacOS"));
    }

    #[tokio::test]
    async fn a_missing_document_is_an_answer_that_names_it() {
        let rule = mock!(Client::send_command)
            .then_error(|| SendCommandError::generic(ErrorMetadata::builder().code("InvalidDocument").build()));
        let commands = Commands::faked(mock_client!(aws_sdk_ssm, [&rule]));
        let sent = commands.send(&Target::example(), "cordon-capture-linux", "c", HashMap::new(), 60).await;
        let Sent::Refused(why) = sent.expect("an answer") else { panic!("sent") };
        assert!(
            why.contains("cordon-capture-linux") && why.contains("123456789012") && why.contains("eu-west-1"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn a_command_whose_answer_was_lost_is_found_by_its_comment_and_a_strangers_is_not() {
        let rule = mock!(Client::list_commands)
            .match_requests(|r| {
                r.instance_id() == Some("i-0123456789abcdef0") && r.filters()[0].value() == "2027-01-15T07:59:00Z"
            })
            .then_output(|| {
                let command = |id: &str, comment: &str| Command::builder().command_id(id).comment(comment).build();
                ListCommandsOutput::builder().commands(command("1", "patching")).commands(command("2", "ours")).build()
            });
        let commands = Commands::faked(mock_client!(aws_sdk_ssm, [&rule]));
        let found = commands.find(&Target::example(), "ours", 1_800_000_000).await.expect("listed");
        assert_eq!(found.as_deref(), Some("2"));
    }

    #[tokio::test]
    async fn an_invocation_that_is_not_there_yet_is_no_error() {
        let rule = mock!(Client::get_command_invocation).then_error(|| {
            GetCommandInvocationError::generic(ErrorMetadata::builder().code("InvocationDoesNotExist").build())
        });
        let commands = Commands::faked(mock_client!(aws_sdk_ssm, [&rule]));
        assert_eq!(commands.invocation(&Target::example(), "c").await.expect("no error"), None);
    }
}
