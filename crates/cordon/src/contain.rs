//! `cordon contain`: starts a containment.

use clap::{Args, ValueEnum};
use containment::Result;
use serde_json::{Map, Value, json};

use crate::home::{Home, Where};
use crate::run::{Instances, Waiting, start};

/// Contains EC2 instances: starts an execution and follows it to its end.
///
/// It asks for no confirmation: a start by hand is a decision. If you are not sure, use --dry-run first: it prints the whole
/// plan and changes nothing.
///
/// Exit code: 0 if every instance is contained (in a dry run: planned), 1 if something is not as it should be, 2 if the
/// command was used wrongly or its input rejected, and nothing was touched, 3 if AWS is unreachable, 130 after Ctrl-C.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    instances: Instances,
    /// Becomes the tag Owner.
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// What the Auto Scaling group does when it loses the instance: launch another one, or decrement its capacity.
    #[arg(long, value_enum)]
    auto_scaling: Option<AutoScaling>,
    /// Also deny every session of the role that was issued before now. This affects everybody who uses the role.
    #[arg(long)]
    revoke_all_sessions: bool,
    /// Capture what only the running host can tell, through Systems Manager.
    #[arg(long)]
    capture_volatile: bool,
    /// Which comes first, the isolation or the capture.
    #[arg(long, value_enum, requires = "capture_volatile")]
    capture_mode: Option<CaptureMode>,
    /// Also capture an image of the host's memory.
    #[arg(long, requires = "capture_volatile")]
    capture_memory: bool,
    /// List the SHA-256 of every block of the snapshots. This takes some minutes for each 50 GiB.
    #[arg(long)]
    hash_snapshots: bool,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AutoScaling {
    Replace,
    Decrement,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CaptureMode {
    IsolateFirst,
    CaptureFirst,
}

/// Starts it; answers the exit code.
pub async fn run(arguments: &Arguments) -> Result<u8> {
    let home = Home::find(&arguments.place, None).await?;
    let input = arguments.input(arguments.instances.input(&home.region, std::io::stdin())?);
    let machine = home.contain_machine().await?;
    start(&home, &arguments.place, &machine, input, &arguments.waiting).await
}

impl Arguments {
    fn input(&self, mut input: Map<String, Value>) -> Map<String, Value> {
        if let Some(owner) = &self.owner {
            input.insert("Owner".to_owned(), json!(owner));
        }
        if let Some(choice) = self.auto_scaling {
            input.insert("AutoScaling".to_owned(), json!(format!("{choice:?}")));
        }
        if let Some(mode) = self.capture_mode {
            input.insert("CaptureMode".to_owned(), json!(format!("{mode:?}")));
        }
        for (field, asked) in [
            ("RevokeAllSessions", self.revoke_all_sessions),
            ("CaptureVolatile", self.capture_volatile),
            ("CaptureMemory", self.capture_memory),
            ("HashSnapshots", self.hash_snapshots),
        ] {
            if asked {
                input.insert(field.to_owned(), json!(true));
            }
        }
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::collections::BTreeSet;

    #[derive(Parser)]
    struct Contain {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn input(line: &str) -> Value {
        let arguments = Contain::try_parse_from(line.split_whitespace()).expect("a good command").arguments;
        let input = arguments.instances.input("eu-west-1", std::io::empty()).expect("good ids");
        Value::Object(arguments.input(input))
    }

    #[test]
    fn every_option_is_a_field_of_the_input_by_its_schema() {
        let all = "contain i-0123abcd --account 123456789012 --instance-region us-east-1 --ticket INC-7 --owner me --dry-run \
                   --auto-scaling decrement --revoke-all-sessions --capture-volatile --capture-mode capture-first \
                   --capture-memory --hash-snapshots";
        let expected = json!({
            "InstanceIds": ["i-0123abcd"], "Region": "us-east-1", "AccountId": "123456789012", "IncidentTicket": "INC-7",
            "Owner": "me", "DryRun": true, "AutoScaling": "Decrement", "RevokeAllSessions": true, "CaptureVolatile": true,
            "CaptureMode": "CaptureFirst", "CaptureMemory": true, "HashSnapshots": true,
        });
        assert_eq!(input(all), expected);
        let schema: Value = serde_json::from_str(include_str!("../../../events/input.schema.json")).expect("JSON");
        let names =
            |object: &Value| object.as_object().expect("an object").keys().cloned().collect::<BTreeSet<String>>();
        assert_eq!(names(&schema["properties"]), names(&expected), "a field has no option, or an option no field");
    }

    #[test]
    fn options_not_given_are_left_to_the_workflows_defaults() {
        assert_eq!(input("contain i-0123abcd"), json!({ "InstanceIds": ["i-0123abcd"], "Region": "eu-west-1" }));
    }

    #[test]
    fn the_options_of_a_capture_are_rejected_without_a_capture() {
        for option in ["--capture-memory", "--capture-mode isolate-first"] {
            let line = format!("contain i-0123abcd {option}");
            assert!(Contain::try_parse_from(line.split_whitespace()).is_err(), "{option}");
        }
    }
}
