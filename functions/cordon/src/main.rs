//! The command line, for people who have a case in front of them and perhaps no AWS at hand.

mod text;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cordon", bin_name = "cordon", version, about = "Works with the cases of contained EC2 instances.")]
struct Cordon {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(verify::Arguments),
}

/// The exit code of a wrong use, which is clap's own as well.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let done = match Cordon::parse().command {
        Command::Verify(arguments) => verify::run(&arguments),
    };
    done.unwrap_or_else(|wrong| {
        eprintln!("cordon: {wrong}");
        ExitCode::from(USAGE)
    })
}
