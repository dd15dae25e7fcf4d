//! The command line: it starts and follows executions, shows the state of cases, and checks their evidence without AWS.

mod contain;
mod follow;
mod home;
mod outcome;
mod progress;
mod release;
mod run;
mod status;
mod table;
mod text;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use containment::Error;

use crate::outcome::{GOOD, REJECTED, UNKNOWN};
use crate::text::harmless;

/// Contains compromised EC2 instances, and works with their cases.
#[derive(Debug, Parser)]
#[command(name = "cordon", bin_name = "cordon", version)]
struct Cordon {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Contain(Box<contain::Arguments>),
    Watch(watch::Arguments),
    Release(Box<release::Arguments>),
    Status(status::Arguments),
    Verify(verify::Arguments),
    Completion(Completion),
}

/// Prints what a shell needs to complete commands: source <(cordon completion bash)
#[derive(Debug, Args)]
struct Completion {
    shell: Shell,
}

fn main() -> ExitCode {
    let done = match Cordon::parse().command {
        Command::Contain(arguments) => with_aws(contain::run(&arguments)),
        Command::Watch(arguments) => with_aws(watch::run(&arguments)),
        Command::Release(arguments) => with_aws(release::run(&arguments)),
        Command::Status(arguments) => with_aws(status::run(&arguments)),
        Command::Verify(arguments) => verify::run(&arguments).map_err(Error::InvalidInput),
        Command::Completion(Completion { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cordon::command(), "cordon", &mut script);
            text::print(&String::from_utf8_lossy(&script));
            Ok(GOOD)
        }
    };
    ExitCode::from(done.unwrap_or_else(|error| {
        eprintln!("cordon: {}", harmless(&error.to_string()));
        match error {
            Error::InvalidInput(_) => REJECTED,
            _ => UNKNOWN,
        }
    }))
}

/// Runs a command that calls AWS.
fn with_aws(command: impl Future<Output = containment::Result<u8>>) -> containment::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Error::Misconfigured(format!("the runtime could not be started: {error}")))?;
    runtime.block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_fit_together() {
        Cordon::command().debug_assert();
    }
}
