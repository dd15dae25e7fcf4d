//! `cordon watch`: follows an execution, or shows how one ended.

use clap::Args;
use containment::{Error, Result};

use crate::home::{Home, Where, part_of_arn, release_machine, where_to_look};
use crate::run::to_its_end;
use crate::text::Output;

/// Follows a running execution to its end, or shows one that has ended. Changes nothing.
///
/// Exit code: 0 if everything is as it should be, 1 if something is not, 2 if the command was used wrongly, 3 if AWS is
/// unreachable, 130 after Ctrl-C.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The execution's ARN, or the word last for the latest execution of either state machine.
    #[arg(value_name = "EXECUTION-ARN|last")]
    execution: String,
    /// Progress and tables for people, or one JSON document at the end for programs, with the progress on standard error.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    place: Where,
}

/// Follows it; answers the exit code.
pub async fn run(arguments: &Arguments) -> Result<u8> {
    let named = arguments.execution.as_str();
    let is_arn = part_of_arn(named, 5) == Some("execution") && part_of_arn(named, 7).is_some();
    if !is_arn && named != "last" {
        return Err(Error::InvalidInput(format!(
            "EXECUTION-ARN: {named:?} is not the ARN of an execution; accepted: one such as \
             \"arn:aws:states:ap-northeast-1:123456789012:execution:cordon-contain:…\", or \"last\""
        )));
    }
    let home = Home::find(&arguments.place, is_arn.then_some(named)).await?;
    let arn = if is_arn { named.to_owned() } else { last(&home).await? };
    to_its_end(&home, &arguments.place, &arn, false, arguments.output).await
}

async fn last(home: &Home) -> Result<String> {
    let contain = home.contain_machine().await?;
    let mut newest = None;
    for machine in [contain.clone(), release_machine(&contain)] {
        let sent = home.sfn.list_executions().state_machine_arn(&machine).max_results(1).send().await;
        let listed = match sent.map_err(Error::aws("states:ListExecutions", &machine)) {
            Ok(listed) => listed.executions,
            // Without a release state machine there was no release.
            Err(error) if machine != contain && error.code() == Some("StateMachineDoesNotExist") => continue,
            Err(error) => return Err(where_to_look(error, &machine)),
        };
        // Newest first, as the API documents it.
        newest = newest
            .into_iter()
            .chain(listed)
            .max_by(|a, b| a.start_date.as_secs_f64().total_cmp(&b.start_date.as_secs_f64()));
    }
    let none = || Error::NotFound(format!("{contain} has had no execution in the last 90 days"));
    newest.map(|execution| execution.execution_arn).ok_or_else(none)
}
