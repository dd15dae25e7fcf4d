//! `cordon release`: starts the release of contained instances.

use std::io::{IsTerminal, Write};

use clap::Args;
use containment::{Error, Result};
use serde_json::{Map, Value, json};

use crate::home::{Home, Where, release_machine};
use crate::run::{Instances, Waiting, start};
use crate::text::harmless;

/// Releases contained EC2 instances: starts a release, which restores exactly what containment changed, and follows it to its end.
///
/// Afterwards a compromised instance is on the network again, with its credentials. Therefore it asks first, and --dry-run
/// prints what would be restored. Evidence and snapshots stay.
///
/// Exit code: 0 if every instance is released, or was never contained (in a dry run: planned), 1 if something is not as it
/// should be, 2 if the command was used wrongly or its input rejected, and nothing was touched, 3 if AWS is unreachable,
/// 130 after Ctrl-C.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    instances: Instances,
    /// Only these steps of the containment, such as isolate-network,deregister-targets [default: all but detach-autoscaling].
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    steps: Vec<String>,
    /// Also attach the instance to its Auto Scaling group again. A replacement is running by now.
    #[arg(long)]
    attach_auto_scaling: bool,
    /// Close the case although something can no longer be restored, or was restored by hand.
    #[arg(long)]
    close_case: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    place: Where,
}

/// Starts it; answers the exit code.
pub async fn run(arguments: &Arguments) -> Result<u8> {
    let home = Home::find(&arguments.place, None).await?;
    let input = arguments.input(arguments.instances.input(&home.region, std::io::stdin())?);
    if !arguments.yes && !arguments.instances.dry_run {
        confirm(&input)?;
    }
    let machine = release_machine(&home.contain_machine().await?);
    start(&home, &arguments.place, &machine, input, &arguments.waiting).await
}

impl Arguments {
    fn input(&self, mut input: Map<String, Value>) -> Map<String, Value> {
        if !self.steps.is_empty() {
            input.insert("Steps".to_owned(), json!(self.steps));
        }
        for (field, asked) in [("AttachAutoScaling", self.attach_auto_scaling), ("CloseCase", self.close_case)] {
            if asked {
                input.insert(field.to_owned(), json!(true));
            }
        }
        input
    }
}

/// Asks the person at the terminal. Without one, nobody has agreed.
fn confirm(input: &Map<String, Value>) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::InvalidInput(
            "there is no terminal to confirm the release; accepted: a terminal, --yes, or --dry-run".to_owned(),
        ));
    }
    let ids: Vec<&str> = input["InstanceIds"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let region = harmless(input["Region"].as_str().unwrap_or_default());
    eprint!("Release {} in {region}? It will be on the network again, with its credentials. [y/N] ", ids.join(", "));
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.map_err(|error| Error::InvalidInput(format!("the answer could not be read: {error}")))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::InvalidInput("not released: the answer was not yes, so nothing was touched".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::collections::BTreeSet;

    #[derive(Parser)]
    struct Release {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn input(line: &str) -> Value {
        let arguments = Release::try_parse_from(line.split_whitespace()).expect("a good command").arguments;
        let input = arguments.instances.input("eu-west-1", std::io::empty()).expect("good ids");
        Value::Object(arguments.input(input))
    }

    #[test]
    fn every_option_is_a_field_of_the_input_by_its_schema() {
        let all = "release i-0123abcd i-0123abce --account 123456789012 --instance-region us-east-1 --ticket INC-7 --dry-run \
                   --steps isolate-network,detach-profile --attach-auto-scaling --close-case";
        let expected = json!({
            "InstanceIds": ["i-0123abcd", "i-0123abce"], "Region": "us-east-1", "AccountId": "123456789012",
            "IncidentTicket": "INC-7", "DryRun": true, "Steps": ["isolate-network", "detach-profile"],
            "AttachAutoScaling": true, "CloseCase": true,
        });
        assert_eq!(input(all), expected);
        let schema: Value =
            serde_json::from_str(include_str!("../../../events/release-input.schema.json")).expect("JSON");
        let names =
            |object: &Value| object.as_object().expect("an object").keys().cloned().collect::<BTreeSet<String>>();
        assert_eq!(names(&schema["properties"]), names(&expected), "a field has no option, or an option no field");
        assert_eq!(input("release i-0123abcd"), json!({ "InstanceIds": ["i-0123abcd"], "Region": "eu-west-1" }));
    }
}
