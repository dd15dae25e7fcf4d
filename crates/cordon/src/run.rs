//! Starts an execution, or follows one: what `contain`, `watch` and `release` share.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;
use clap::Args;
use containment::{Error, Result, check_instance_id};
use futures::future::{Either, select};
use serde_json::{Map, Value, json};
use signal_hook::consts::SIGINT;
use signal_hook::flag::{register, register_conditional_shutdown};

use crate::follow::{Items, Update, follow};
use crate::home::{Home, Where, part_of_arn, where_to_look};
use crate::outcome::{INTERRUPTED, time};
use crate::progress::{Line, News};
use crate::table::Screen;
use crate::text::{Output, harmless, print, print_json};

/// The instances that a command is about.
#[derive(Debug, Args)]
pub struct Instances {
    /// Instance ids; - reads them from standard input, separated by spaces or lines.
    #[arg(value_name = "INSTANCE", required = true)]
    pub instances: Vec<String>,
    /// The instances' account [default: Cordon's own].
    #[arg(long, value_name = "ACCOUNT")]
    pub account: Option<String>,
    /// The instances' Region, if it is not the one that Cordon is deployed in.
    #[arg(long, value_name = "REGION")]
    pub instance_region: Option<String>,
    /// Becomes the tag IncidentTicket.
    #[arg(long, value_name = "TICKET")]
    pub ticket: Option<String>,
    /// Only plan: print what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Whether to wait, and what to print.
#[derive(Debug, Args)]
pub struct Waiting {
    /// Only start the execution and print its ARN.
    #[arg(long)]
    pub no_wait: bool,
    /// Progress and tables for people, or one JSON document at the end for programs, with the progress on standard error.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

impl Instances {
    /// The fields of the input that both state machines have. Invalid values are rejected before any call to AWS.
    pub fn input(&self, home_region: &str, stdin: impl Read) -> Result<Map<String, Value>> {
        let region = self.instance_region.as_deref().unwrap_or(home_region);
        containment::check_region("--instance-region", region)?;
        let mut input = Map::new();
        input.insert("InstanceIds".to_owned(), json!(ids(&self.instances, stdin)?));
        input.insert("Region".to_owned(), json!(region));
        if let Some(account) = &self.account {
            containment::check_account("--account", account)?;
            input.insert("AccountId".to_owned(), json!(account));
        }
        if let Some(ticket) = &self.ticket {
            input.insert("IncidentTicket".to_owned(), json!(ticket));
        }
        if self.dry_run {
            input.insert("DryRun".to_owned(), json!(true));
        }
        Ok(input)
    }
}

/// The ids as given, with those from standard input in place of a `-`.
pub fn ids(given: &[String], mut stdin: impl Read) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for id in given {
        if id == "-" {
            let mut text = String::new();
            let read = stdin.read_to_string(&mut text);
            read.map_err(|error| Error::InvalidInput(format!("standard input could not be read: {error}")))?;
            ids.extend(text.split_whitespace().map(ToOwned::to_owned));
        } else {
            ids.push(id.clone());
        }
    }
    if ids.is_empty() {
        return Err(Error::InvalidInput("INSTANCE: standard input names none; accepted: at least one id".to_owned()));
    }
    ids.iter().try_for_each(|id| check_instance_id("INSTANCE", id))?;
    Ok(ids)
}

/// Starts an execution, follows it if asked to wait, and answers the exit code.
pub async fn start(
    home: &Home,
    place: &Where,
    machine: &str,
    input: Map<String, Value>,
    waiting: &Waiting,
) -> Result<u8> {
    let input = Value::Object(input).to_string();
    // With a name of our own, a request that the SDK repeats starts nothing twice.
    let ask = home.sfn.start_execution().state_machine_arn(machine).name(execution_name()).input(input);
    let sent = ask.send().await.map_err(Error::aws("states:StartExecution", machine));
    let arn = sent.map_err(|error| where_to_look(error, machine))?.execution_arn;
    if !waiting.no_wait {
        return to_its_end(home, place, &arn, true, waiting.output).await;
    }
    match waiting.output {
        Output::Table => print(&format!("{arn}\n")),
        Output::Json => print_json(&json!({ "ExecutionArn": arn })),
    }
    Ok(crate::outcome::GOOD)
}

/// `terminal-20261121T030000Z-` and 16 hexadecimal digits: the name says where the execution comes from.
fn execution_name() -> String {
    let stamp: String = time(&DateTime::from(SystemTime::now())).chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let stamp = stamp.split(['.', 'Z']).next().unwrap_or_default().to_owned();
    format!("terminal-{stamp}Z-{:016x}", RandomState::new().build_hasher().finish())
}

/// Follows an execution to its end, prints how it ended, and answers the exit code. `asked` says that it was started now.
pub async fn to_its_end(home: &Home, place: &Where, arn: &str, asked: bool, output: Output) -> Result<u8> {
    let screen = Screen::of_stdout();
    let tell = |text: &str| match output {
        Output::Table => print(text),
        // Nobody may be reading it, as with a closed pipe.
        Output::Json => drop(std::io::stderr().write_all(text.as_bytes())),
    };
    let advice = how_to_go_on(place, arn);
    tell(&format!("Execution {}\n  Ctrl-C stops following, not the execution.\n\n", harmless(arn)));
    let interrupted = interruption()?;
    let followed = pin!(follow(&home.sfn, arn, asked, |update| {
        tell(&match update {
            Update::State(line) => in_words(line, screen),
            Update::Items(items) => items_in_words(items),
            Update::Uncounted(error) => format!("  {}\n", harmless(&error.to_string())),
        });
    }));
    let ended = match select(followed, pin!(interrupted)).await {
        Either::Left((Ok(ended), _)) => ended,
        Either::Left((Err(error), _)) => {
            if !matches!(error.code(), Some("ExecutionDoesNotExist" | "InvalidArn")) {
                eprintln!("The execution could no longer be followed; it goes on.\n{advice}");
            }
            return Err(error);
        }
        Either::Right(_) => {
            eprintln!("\nNo longer followed; the execution goes on.\n{advice}");
            return Ok(INTERRUPTED);
        }
    };
    match output {
        Output::Table => print(&format!("\n{}", ended.in_words(screen))),
        Output::Json => print_json(&ended.document()),
    }
    Ok(ended.exit_code(asked))
}

/// Ends when somebody presses Ctrl-C. A second Ctrl-C ends the program at once.
fn interruption() -> Result<impl Future<Output = ()>> {
    let pressed = Arc::new(AtomicBool::new(false));
    let set = register_conditional_shutdown(SIGINT, i32::from(INTERRUPTED), Arc::clone(&pressed))
        .and_then(|_| register(SIGINT, Arc::clone(&pressed)));
    set.map_err(|error| Error::Misconfigured(format!("Ctrl-C cannot be handled: {error}")))?;
    Ok(async move {
        while !pressed.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

fn how_to_go_on(place: &Where, arn: &str) -> String {
    let profile = place.profile.as_ref().map(|profile| format!(" --profile {}", harmless(profile))).unwrap_or_default();
    let region = part_of_arn(arn, 3).map(|region| format!(" --region {}", harmless(region))).unwrap_or_default();
    let arn = harmless(arn);
    format!(
        "  follow it again:  cordon watch {arn}{profile}\n  \
           stop it:          aws stepfunctions stop-execution --execution-arn {arn}{profile}{region}"
    )
}

fn in_words(line: &Line, screen: Screen) -> String {
    let Line { at, instance, state, news } = line;
    let (instance, state) = (harmless(instance), harmless(state));
    let said = match news {
        News::Entered => format!("> {state}"),
        News::Left { seconds, status } => {
            let took = format!("{seconds:.2} s");
            format!("< {state:<24} {took:>7}  {}", screen.colored(&harmless(status)))
        }
        News::TryFailed { error, reason } => screen.two_lines(&harmless(&format!("! {state:<24} {error}: {reason}"))),
    };
    format!("  {at:6.2} s  {instance:<20} {said}").trim_end().to_owned() + "\n"
}

fn items_in_words(items: &Items) -> String {
    let Items { map, total, pending, running, succeeded, failed } = items;
    format!(
        "  {}: {total} items, {pending} waiting, {running} running, {succeeded} succeeded, {failed} failed\n",
        harmless(map)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Screen = Screen { width: 120, colorful: false };

    fn instances(given: &[&str]) -> Instances {
        Instances {
            instances: given.iter().map(|&id| id.to_owned()).collect(),
            account: None,
            instance_region: None,
            ticket: None,
            dry_run: false,
        }
    }

    #[test]
    fn ids_come_from_the_command_line_and_for_a_dash_from_standard_input() {
        let read = instances(&["i-0123abcd", "-"]).input("eu-west-1", "i-0123abce\n  i-0123abcf\n".as_bytes());
        let input = read.expect("good ids");
        assert_eq!(input["InstanceIds"], json!(["i-0123abcd", "i-0123abce", "i-0123abcf"]));
        assert_eq!(input["Region"], "eu-west-1");
        assert_eq!(input.len(), 2, "what was not given is not in the input: {input:?}");
    }

    #[test]
    fn an_invalid_id_account_or_region_is_rejected_by_name() {
        let rejected =
            |instances: Instances| instances.input("eu-west-1", "".as_bytes()).expect_err("refused").to_string();
        assert!(rejected(instances(&["web-1"])).starts_with("INSTANCE: \"web-1\""));
        assert!(rejected(instances(&["-"])).contains("standard input names none"));
        let account = Instances { account: Some("1234".into()), ..instances(&["i-0123abcd"]) };
        assert!(rejected(account).starts_with("--account: \"1234\""));
        let region = Instances { instance_region: Some("tokyo".into()), ..instances(&["i-0123abcd"]) };
        assert!(rejected(region).starts_with("--instance-region: \"tokyo\""));
    }

    #[test]
    fn names_of_executions_are_valid_and_never_the_same() {
        let (one, other) = (execution_name(), execution_name());
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        assert!(one.chars().all(good) && one.len() <= 80 && one.starts_with("terminal-20"), "{one}");
        assert_ne!(one, other);
    }

    #[test]
    fn a_line_of_progress_says_when_which_instance_and_what() {
        let line = |news: News| {
            in_words(&Line { at: 0.514, instance: "i-d0dc7dd58d14ae3d3".into(), state: "Isolate".into(), news }, PLAIN)
        };
        assert_eq!(line(News::Entered), "    0.51 s  i-d0dc7dd58d14ae3d3  > Isolate\n");
        let left = News::Left { seconds: 0.54, status: "Done".into() };
        assert_eq!(line(left), "    0.51 s  i-d0dc7dd58d14ae3d3  < Isolate                   0.54 s  Done\n");
        let failed = News::TryFailed { error: "Throttled".into(), reason: "\u{1b}[2Jslow\n".into() };
        let said = line(failed);
        assert!(
            said.ends_with(&format!("! Isolate                  Throttled: {}\n", r"\u{1b}[2Jslow\u{a}")),
            "{said}"
        );
    }

    #[test]
    fn after_ctrl_c_it_says_how_to_go_on_with_the_same_profile() {
        let place = Where { profile: Some("responder".into()), region: None, state_machine: "cordon-contain".into() };
        let said = how_to_go_on(&place, "arn:aws:states:eu-west-1:123456789012:execution:cordon-contain:x");
        assert!(said.contains(
            "cordon watch arn:aws:states:eu-west-1:123456789012:execution:cordon-contain:x --profile responder\n"
        ));
        assert!(said.ends_with("execution:cordon-contain:x --profile responder --region eu-west-1"), "{said}");
    }
}
