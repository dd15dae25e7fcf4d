//! Where Cordon is deployed: the account and Region of its state machines, from the ordinary settings of the AWS CLI.

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_smithy_types::error::display::DisplayErrorContext;
use clap::Args;
use containment::{Error, Result};
use serde_json::Value;

/// Where Cordon is deployed, and the credentials to get there.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where Cordon is deployed")]
pub struct Where {
    /// A profile of the AWS CLI's configuration [default: AWS_PROFILE].
    #[arg(long)]
    pub profile: Option<String>,
    /// The Region that Cordon is deployed in [default: AWS_REGION, or the profile's].
    #[arg(long)]
    pub region: Option<String>,
    /// The name or the ARN of the state machine that contains.
    #[arg(long, env = "CORDON_STATE_MACHINE", value_name = "NAME|ARN", default_value = "cordon-contain")]
    pub state_machine: String,
}

/// Clients for the place.
#[derive(Debug)]
pub struct Home {
    config: SdkConfig,
    /// For executions.
    pub sfn: aws_sdk_sfn::Client,
    /// Its Region.
    pub region: String,
    named: String,
}

/// A part of an ARN: 1 partition, 2 service, 3 Region, 4 account, 5 kind, 6 name, and 7 an execution's own name.
pub fn part_of_arn(arn: &str, part: usize) -> Option<&str> {
    arn.strip_prefix("arn:").and_then(|_| arn.split(':').nth(part)).filter(|part| !part.is_empty())
}

impl Home {
    /// Finds Region and credentials. `arn` is what the command is about, if known: an ARN names its Region.
    ///
    /// Errors: `InvalidInput` without a Region, `Misconfigured` without credentials.
    pub async fn find(place: &Where, arn: Option<&str>) -> Result<Self> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(profile) = &place.profile {
            loader = loader.profile_name(profile);
        }
        let of_arn =
            [arn, Some(place.state_machine.as_str())].into_iter().flatten().find_map(|arn| part_of_arn(arn, 3));
        if let Some(region) = of_arn.or(place.region.as_deref()) {
            loader = loader.region(Region::new(region.to_owned()));
        }
        let config = loader.load().await;
        let Some(region) = config.region().map(ToString::to_string) else {
            let accepted = "the Region that Cordon is deployed in, by --region, AWS_REGION or the profile";
            return Err(Error::InvalidInput(format!("no Region is given; accepted: {accepted}")));
        };
        check_credentials(&config).await?;
        let sfn = aws_sdk_sfn::Client::new(&config);
        Ok(Home { sfn, region, named: place.state_machine.clone(), config })
    }

    /// The ARN of the state machine that contains. If only its name is known, STS gives the account.
    pub async fn contain_machine(&self) -> Result<String> {
        if self.named.starts_with("arn:") {
            return Ok(self.named.clone());
        }
        let sts = aws_sdk_sts::Client::new(&self.config);
        let reply = sts.get_caller_identity().send().await.map_err(Error::aws("sts:GetCallerIdentity", "itself"))?;
        let arn = reply.arn().unwrap_or_default();
        match (part_of_arn(arn, 1), part_of_arn(arn, 4)) {
            (Some(partition), Some(account)) => {
                Ok(format!("arn:{partition}:states:{}:{account}:stateMachine:{}", self.region, self.named))
            }
            _ => Err(Error::Misconfigured(format!("STS returned no identity: {arn:?}"))),
        }
    }

    /// The case table: the one in the state machine's definition, which writes answers into it.
    pub async fn case_table(&self, machine: &str) -> Result<String> {
        let sent = self.sfn.describe_state_machine().state_machine_arn(machine).send().await;
        let reply = sent
            .map_err(Error::aws("states:DescribeStateMachine", machine))
            .map_err(|error| where_to_look(error, machine))?;
        table_in(reply.definition()).ok_or_else(|| {
            Error::Misconfigured(format!("the definition of {machine} names no case table; name it with --case-table"))
        })
    }

    /// A client for it.
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.config)
    }
}

/// The suffix of the release state machine's name; the rest is the containment's.
pub const RELEASE: &str = "-release";

/// The state machine that releases what the other one contained.
pub fn release_machine(contain_machine: &str) -> String {
    format!("{contain_machine}{RELEASE}")
}

/// Checks credentials first: without them, each call would fail with a list of every place that was searched.
async fn check_credentials(config: &SdkConfig) -> Result<()> {
    let advice = "choose a profile with --profile or AWS_PROFILE, or sign in; \
         for credentials that only the AWS CLI can read: eval \"$(aws configure export-credentials --format env)\"";
    let Some(provider) = config.credentials_provider() else {
        return Err(Error::Misconfigured(format!("there are no AWS credentials: {advice}")));
    };
    match provider.provide_credentials().await {
        Ok(_) => Ok(()),
        Err(error) => {
            let said = DisplayErrorContext(&error).to_string();
            // A dump of all causes follows the last one.
            let said = said.split(" (").next().unwrap_or_default();
            Err(Error::Misconfigured(format!("there are no AWS credentials: {said}; {advice}")))
        }
    }
}

/// A state machine that does not exist is usually somewhere else.
pub fn where_to_look(error: Error, machine: &str) -> Error {
    if error.code() != Some("StateMachineDoesNotExist") {
        return error;
    }
    let [region, account, name] = [3, 4, 6].map(|part| part_of_arn(machine, part).unwrap_or("?"));
    error.with_advice(&format!(
        "is Cordon deployed as {name} in {region} of account {account}? Choose its Region with --region, its account with \
         --profile, its name with --state-machine or CORDON_STATE_MACHINE"
    ))
}

fn table_in(definition: &str) -> Option<String> {
    let definition: Value = serde_json::from_str(definition).ok()?;
    let mut open = vec![&definition];
    while let Some(value) = open.pop() {
        let is_write = value["Resource"].as_str().is_some_and(|resource| resource.contains(":dynamodb:"));
        if let Some(table) = value["Arguments"]["TableName"].as_str().filter(|_| is_write) {
            return Some(table.to_owned());
        }
        match value {
            Value::Array(list) => open.extend(list),
            Value::Object(members) => open.extend(members.values()),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_sfn::Client;
    use aws_sdk_sfn::operation::start_execution::StartExecutionError;
    use aws_smithy_mocks::{mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;

    #[test]
    fn the_case_table_is_the_one_that_the_workflow_writes_answers_into() {
        let definition = include_str!("../../../statemachine/contain.asl.json");
        assert_eq!(table_in(definition).as_deref(), Some("${CaseTable}"), "as in the template");
        assert_eq!(table_in("{}"), None);
        assert_eq!(table_in("no JSON"), None);
    }

    #[test]
    fn an_arns_parts_are_found_and_a_name_has_none() {
        let arn = "arn:aws-cn:states:cn-north-1:123456789012:execution:cordon-contain:x";
        let parts = [1, 3, 4, 6, 7].map(|part| part_of_arn(arn, part));
        assert_eq!(
            parts,
            [Some("aws-cn"), Some("cn-north-1"), Some("123456789012"), Some("cordon-contain"), Some("x")]
        );
        assert_eq!(part_of_arn("cordon-contain", 3), None);
        assert_eq!(part_of_arn("arn:aws:s3:::bucket", 3), None);
    }

    #[tokio::test]
    async fn a_missing_state_machine_comes_with_advice_and_other_errors_stay_as_they_are() {
        let machine = "arn:aws:states:eu-west-1:123456789012:stateMachine:cordon-contian";
        for (code, advised) in [("StateMachineDoesNotExist", true), ("AccessDeniedException", false)] {
            let rule = mock!(Client::start_execution).then_error(move || {
                StartExecutionError::generic(ErrorMetadata::builder().code(code).message("no").build())
            });
            let sent = mock_client!(aws_sdk_sfn, [&rule]).start_execution().state_machine_arn(machine).send().await;
            let error = sent.map_err(Error::aws("states:StartExecution", machine)).expect_err("fails");
            let text = where_to_look(error, machine).to_string();
            assert!(text.starts_with("states:StartExecution on arn:aws:states:"), "{text}");
            assert_eq!(text.contains("cordon-contian in eu-west-1 of account 123456789012? "), advised, "{text}");
        }
    }
}
