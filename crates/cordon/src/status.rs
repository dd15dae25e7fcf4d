//! `cordon status`: the state of instances' cases, or which executions there are.

use std::io;

use aws_sdk_sfn::types::{ExecutionListItem, ExecutionStatus};
use aws_smithy_types::DateTime;
use cases::{Case, CaseTable, Guardrail, Monitored};
use clap::Args;
use containment::{Error, Result, Target};
use serde_json::{Value, json};
use verdict::Verdict;

use crate::follow::{describe, look_back};
use crate::home::{Home, Where, part_of_arn, release_machine, where_to_look};
use crate::outcome::{Ended, GOOD, NOT_GOOD, time};
use crate::progress::instance_in;
use crate::run::ids;
use crate::table::Screen;
use crate::text::{Output, harmless, print, print_json};

/// More running executions than this are counted, not listed.
const RUNNING_AT_MOST: usize = 20;

/// Shows the state of instances' cases; without instances, which executions run and how the latest ended. Changes nothing.
///
/// Exit code: 0 if every instance is contained or released and nothing is open (without instances: always), 1 if something
/// is open or under way, or an instance has no case, 2 if the command was used wrongly, 3 if AWS is unreachable.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Instance ids; - reads them from standard input, separated by spaces or lines.
    #[arg(value_name = "INSTANCE")]
    instances: Vec<String>,
    /// The instances' account [default: Cordon's own].
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// The instances' Region, if it is not the one that Cordon is deployed in.
    #[arg(long, value_name = "REGION")]
    instance_region: Option<String>,
    /// The case table [default: the one that the state machine's definition names].
    #[arg(long, env = "CORDON_CASE_TABLE", value_name = "TABLE")]
    case_table: Option<String>,
    /// Text for people, or JSON for programs.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    place: Where,
}

/// Looks up and prints; answers the exit code.
pub async fn run(arguments: &Arguments) -> Result<u8> {
    let home = Home::find(&arguments.place, None).await?;
    if arguments.instances.is_empty() {
        return executions(&home, arguments.output).await;
    }
    let region = arguments.instance_region.as_deref().unwrap_or(&home.region);
    containment::check_region("--instance-region", region)?;
    if let Some(account) = &arguments.account {
        containment::check_account("--account", account)?;
    }
    let ids = ids(&arguments.instances, io::stdin())?;
    let machine = home.contain_machine().await?;
    let account = arguments.account.as_deref().or(part_of_arn(&machine, 4)).unwrap_or_default();
    let table = match &arguments.case_table {
        Some(table) => table.clone(),
        None => home.case_table(&machine).await?,
    };
    let lookup = Lookup { home: &home, client: home.dynamodb(), table };
    let mut statuses = Vec::new();
    for id in ids {
        let place = json!({ "AccountId": account, "Region": region, "InstanceId": id, "CaseId": "" });
        statuses.push(lookup.status(Target::parse(place)?).await?);
    }
    match arguments.output {
        Output::Table => {
            let screen = Screen::of_stdout();
            print(&statuses.iter().map(|status| status.in_words(screen)).collect::<Vec<_>>().join("\n"));
        }
        Output::Json => {
            print_json(&json!({ "Instances": statuses.iter().map(InstanceStatus::document).collect::<Vec<_>>() }));
        }
    }
    Ok(if statuses.iter().all(InstanceStatus::is_good) { GOOD } else { NOT_GOOD })
}

struct Lookup<'a> {
    home: &'a Home,
    client: aws_sdk_dynamodb::Client,
    table: String,
}

/// How an instance stands.
#[derive(Debug)]
struct InstanceStatus {
    target: Target,
    guardrail: Option<Guardrail>,
    case: Option<Case>,
    /// The case as drift detection has it; none before the instance was contained, and after its release.
    monitored: Option<Monitored>,
    holder: Holder,
}

/// The execution that holds the case.
#[derive(Debug)]
enum Holder {
    /// There is no case, and so no holder.
    None,
    Running,
    Ended(Box<Ended>),
    /// Step Functions forgets an execution after 90 days.
    Forgotten,
}

impl Lookup<'_> {
    async fn status(&self, target: Target) -> Result<InstanceStatus> {
        let cases = CaseTable::new(self.client.clone(), &self.table);
        let key = target.key();
        let (guardrail, case, monitored) =
            futures::try_join!(cases.guardrail(&target), cases.last_case(&target), cases.monitored(&key))?;
        let holder = match &case {
            None => Holder::None,
            Some(case) => self.holder(&case.execution).await?,
        };
        Ok(InstanceStatus { target, guardrail, case, monitored, holder })
    }

    async fn holder(&self, execution: &str) -> Result<Holder> {
        match look_back(&self.home.sfn, execution).await {
            Ok(None) => Ok(Holder::Running),
            Ok(Some(ended)) => Ok(Holder::Ended(Box::new(ended))),
            Err(error) if matches!(error.code(), Some("ExecutionDoesNotExist" | "InvalidArn")) => Ok(Holder::Forgotten),
            Err(error) => Err(error),
        }
    }
}

impl InstanceStatus {
    fn verdict(&self) -> Option<&str> {
        self.case.as_ref().and_then(|case| case.verdict.as_deref())
    }

    /// What is open, by the report of the execution that holds the case; none if it has not reported on the instance.
    fn open(&self) -> Option<Vec<&str>> {
        let Holder::Ended(ended) = &self.holder else { return None };
        let report = ended.instance(&self.target.instance_id)?;
        Some(report.open.iter().map(String::as_str).collect())
    }

    /// When a verification last read AWS back, if one has.
    fn read_back(&self) -> Option<String> {
        let monitored = self.monitored.as_ref().filter(|monitored| monitored.verified_at > 0)?;
        Some(time(&DateTime::from_secs(monitored.verified_at)))
    }

    /// The clock hour in which Cordon called a person, because somebody undoes the containment more often than Cordon may
    /// repair it, unless a verification has read it back since.
    fn unrepaired(&self) -> Option<&str> {
        let monitored = self.monitored.as_ref()?;
        let called_in = monitored.called_in.as_deref()?;
        (called_in >= time(&DateTime::from_secs(monitored.verified_at)).get(..13)?).then_some(called_in)
    }

    /// Whether the instance is contained, or released, and nothing is open.
    fn is_good(&self) -> bool {
        let Some(case) = &self.case else { return false };
        let settled = case.released.is_some() || self.verdict() == Some(Verdict::Contained.name());
        // Of an execution that Step Functions has forgotten, only the verdict is left.
        let open = match self.holder {
            Holder::Forgotten => false,
            _ => self.open().is_none_or(|open| !open.is_empty()),
        };
        settled && !open && self.unrepaired().is_none() && !matches!(self.holder, Holder::Running)
    }

    fn in_words(&self, screen: Screen) -> String {
        let Target { account_id, region, instance_id, .. } = &self.target;
        let mut text = format!("{instance_id} in {region} of account {account_id}\n");
        let mut say = |name: &str, what: &str| text += &format!("  {name:<11} {what}\n");
        if let Some(Guardrail { rule, reason }) = &self.guardrail {
            say("Guardrail", &harmless(&format!("{rule}: {reason}")));
        }
        let Some(case) = &self.case else {
            say("Case", "none: Cordon has not contained it");
            return text;
        };
        let status = match &case.released {
            None => screen.colored("Open"),
            Some(released) => format!("{} at {}", screen.colored("Released"), harmless(&released.at)),
        };
        say("Case", &format!("{}, {status}", harmless(&case.id)));
        say("Verdict", &case.verdict.as_deref().map_or("none yet".to_owned(), |v| screen.colored(&harmless(v))));
        if let Some(read_back) = self.read_back() {
            say("", &format!("as AWS was read back at {read_back}"));
        }
        if let Some(hour) = self.unrepaired() {
            say(
                "Undone",
                "somebody undoes it more often than Cordon may repair it: AWS may show something else by now",
            );
            say("", &format!("Cordon called a person in the hour {} (UTC)", harmless(hour)));
        }
        let held = time(&DateTime::from_secs(case.held_since));
        let how = match &self.holder {
            Holder::Running => screen.colored("RUNNING"),
            Holder::Ended(ended) => {
                let at = ended.stopped.as_ref().map(|at| format!(" at {}", time(at))).unwrap_or_default();
                format!("{}{at}", screen.colored(&harmless(&ended.status)))
            }
            Holder::Forgotten | Holder::None => "Step Functions does not know it, or no longer".to_owned(),
        };
        say("Execution", &format!("{}, has held it since {held}", harmless(&case.execution)));
        say("", &how);
        if let Some(approval) = &case.approval {
            say("Approval", &harmless(approval));
        }
        for (n, finding) in case.findings.iter().enumerate() {
            say(if n == 0 { "Findings" } else { "" }, &harmless(finding));
        }
        match (&self.holder, self.open()) {
            (Holder::Running, _) => say("Still open", "unknown: the execution is running"),
            (_, None) => say("Still open", "unknown: the execution left no report on this instance"),
            (_, Some(open)) if open.is_empty() => say("Still open", "nothing"),
            (_, Some(open)) => {
                for (n, line) in open.into_iter().enumerate() {
                    say(if n == 0 { "Still open" } else { "" }, &screen.two_lines(&harmless(line)));
                }
            }
        }
        text
    }

    fn document(&self) -> Value {
        let (status, stopped) = match &self.holder {
            Holder::Running => (Some("RUNNING"), None),
            Holder::Ended(ended) => (Some(ended.status.as_str()), ended.stopped.as_ref().map(time)),
            Holder::None | Holder::Forgotten => (None, None),
        };
        let case = self.case.as_ref().map(|case| {
            json!({
                "CaseId": case.id, "Status": if case.released.is_some() { "Released" } else { "Open" },
                "ReleasedAt": case.released.as_ref().map(|released| &released.at), "Verdict": case.verdict,
                "Approval": case.approval, "Findings": case.findings, "ExecutionArn": case.execution,
                "ExecutionStatus": status, "HeldSince": time(&DateTime::from_secs(case.held_since)), "StopDate": stopped,
            })
        });
        let guardrail = self.guardrail.as_ref().map(|g| json!({ "Rule": g.rule, "Reason": g.reason }));
        json!({
            "InstanceId": self.target.instance_id, "AccountId": self.target.account_id, "Region": self.target.region,
            "Case": case, "Open": self.open(), "Guardrail": guardrail, "ReadBackAt": self.read_back(),
            "UnrepairedSince": self.unrepaired(),
        })
    }
}

/// The running executions of both state machines, and the latest of each that has ended.
async fn executions(home: &Home, output: Output) -> Result<u8> {
    let contain = home.contain_machine().await?;
    let (mut shown, mut more) = (Vec::new(), 0);
    for machine in [contain.clone(), release_machine(&contain)] {
        let ask = || home.sfn.list_executions().state_machine_arn(&machine).max_results(100);
        let sent = ask().status_filter(ExecutionStatus::Running).send().await;
        let running = match sent.map_err(Error::aws("states:ListExecutions", &machine)) {
            Ok(reply) => reply.executions,
            // Without a release state machine there was no release.
            Err(error) if machine != contain && error.code() == Some("StateMachineDoesNotExist") => continue,
            Err(error) => return Err(where_to_look(error, &machine)),
        };
        let latest = ask().send().await.map_err(Error::aws("states:ListExecutions", &machine))?.executions;
        let ended = latest.into_iter().find(|execution| execution.stop_date.is_some());
        more += running.len().saturating_sub(RUNNING_AT_MOST);
        shown.extend(running.into_iter().take(RUNNING_AT_MOST).chain(ended));
    }
    let mut rows = Vec::new();
    for execution in &shown {
        let input = describe(&home.sfn, &execution.execution_arn).await?.input.unwrap_or_default();
        rows.push((execution, about(&input)));
    }
    match output {
        Output::Table => print(&listed(&rows, more, Screen::of_stdout())),
        Output::Json => {
            let documents = rows.iter().map(|(execution, instances)| {
                json!({
                    "ExecutionArn": execution.execution_arn, "Status": execution.status.as_str(),
                    "StartDate": time(&execution.start_date), "StopDate": execution.stop_date.as_ref().map(time),
                    "InstanceIds": instances,
                })
            });
            print_json(&json!({ "Executions": documents.collect::<Vec<_>>(), "More": more }));
        }
    }
    Ok(GOOD)
}

/// The instances that an input names: a person's, or a finding's.
fn about(input: &str) -> Vec<String> {
    let input: Value = serde_json::from_str(input).unwrap_or_default();
    match input["InstanceIds"].as_array() {
        Some(ids) => ids.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        None => {
            let of_finding = input["detail"]["resource"]["instanceDetails"]["instanceId"].as_str();
            of_finding.or_else(|| instance_in(&input)).map(ToOwned::to_owned).into_iter().collect()
        }
    }
}

fn listed(rows: &[(&ExecutionListItem, Vec<String>)], more: usize, screen: Screen) -> String {
    if rows.is_empty() {
        return "  no execution in the last 90 days\n".to_owned();
    }
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|(execution, instances)| {
            let ended = execution.stop_date.as_ref().map_or_else(|| "-".to_owned(), time);
            let first: Vec<String> = instances.iter().take(3).map(|id| harmless(id)).collect();
            let others = instances.len().saturating_sub(first.len());
            let others = if others > 0 { format!(" and {others} more") } else { String::new() };
            let instances = format!("{}{others}", first.join(", "));
            let status = harmless(execution.status.as_str());
            vec![status, time(&execution.start_date), ended, instances, harmless(&execution.execution_arn)]
        })
        .collect();
    // ARNs are there to be copied, so none is cut: the terminal breaks the line.
    let table = Screen { width: usize::from(u16::MAX), ..screen }
        .table(&["STATUS", "STARTED", "ENDED", "INSTANCES", "EXECUTION"], &rows);
    let more = if more > 0 { format!("  and {more} or more running\n") } else { String::new() };
    format!("{table}\n{more}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cases::Released;

    const PLAIN: Screen = Screen { width: 120, colorful: false };

    fn status(released: bool, verdict: Option<&str>, holder: Holder) -> InstanceStatus {
        let place =
            json!({ "AccountId": "123456789012", "Region": "eu-west-1", "InstanceId": "i-0123abcd", "CaseId": "" });
        let case = Case {
            id: "i-0123abcd-20261121T030000Z".into(),
            execution: "arn:execution".into(),
            held_since: 1_800_000_000,
            verdict: verdict.map(ToOwned::to_owned),
            findings: ["f-1".to_owned(), "f-2".to_owned()].into(),
            released: released.then(|| Released { at: "2026-11-21T04:00:00Z".into(), execution: "arn:release".into() }),
            ..Case::default()
        };
        let target = Target::parse(place).expect("a target");
        InstanceStatus { target, guardrail: None, case: Some(case), monitored: None, holder }
    }

    fn ended(open: &[&str]) -> Holder {
        let output = json!({ "Instances": [{ "InstanceId": "i-0123abcd", "Open": open }] });
        Holder::Ended(Box::new(Ended {
            arn: "arn:execution".into(),
            status: "SUCCEEDED".into(),
            started: None,
            stopped: Some(DateTime::from_secs(1_800_000_060)),
            error: None,
            cause: None,
            output: Some(output.into()),
        }))
    }

    #[test]
    fn an_instance_is_good_only_if_it_is_contained_or_released_and_nothing_is_open() {
        assert!(status(false, Some("Contained"), ended(&[])).is_good());
        assert!(status(true, Some("Released"), ended(&[])).is_good());
        assert!(status(false, Some("Contained"), Holder::Forgotten).is_good(), "the verdict is all that is left");
        assert!(!status(false, Some("PartiallyContained"), ended(&[])).is_good());
        assert!(!status(false, Some("Contained"), ended(&["copy-snapshots InProgress"])).is_good());
        assert!(!status(false, Some("Contained"), Holder::Running).is_good());
        assert!(!status(false, None, ended(&[])).is_good());
        let without_case = InstanceStatus { case: None, ..status(false, None, Holder::None) };
        assert!(!without_case.is_good());
        let mut unreported = status(false, Some("Contained"), ended(&[]));
        unreported.target.instance_id = "i-0123abce".into();
        assert!(!unreported.is_good(), "what the execution has not reported is unknown");
    }

    #[test]
    fn a_case_is_shown_with_its_holder_since_when_and_what_is_open() {
        let text = status(false, Some("PartiallyContained"), ended(&["detach-profile Failed: denied"])).in_words(PLAIN);
        let expected = "i-0123abcd in eu-west-1 of account 123456789012
  Case        i-0123abcd-20261121T030000Z, Open
  Verdict     PartiallyContained
  Execution   arn:execution, has held it since 2027-01-15T08:00:00Z
              SUCCEEDED at 2027-01-15T08:01:00Z
  Findings    f-1
              f-2
  Still open  detach-profile Failed: denied
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_case_undone_faster_than_it_is_repaired_is_not_good_until_read_back() {
        let undone = |called_in: &str| {
            let monitored =
                Monitored { verified_at: 1_800_000_000, called_in: Some(called_in.into()), ..Monitored::default() };
            InstanceStatus { monitored: Some(monitored), ..status(false, Some("Contained"), ended(&[])) }
        };
        let undone_now = undone("2027-01-15T08");
        assert!(!undone_now.is_good() && undone_now.document()["UnrepairedSince"] == "2027-01-15T08");
        let text = undone_now.in_words(PLAIN);
        assert!(
            text.contains("              as AWS was read back at 2027-01-15T08:00:00Z\n  Undone      somebody"),
            "{text}"
        );
        assert!(undone("2027-01-15T07").is_good(), "read back since");
    }

    #[test]
    fn a_released_case_says_since_when() {
        let released = status(true, Some("Released"), ended(&[]));
        let text = released.in_words(PLAIN);
        assert!(
            text.contains("  Case        i-0123abcd-20261121T030000Z, Released at 2026-11-21T04:00:00Z\n"),
            "{text}"
        );
        assert_eq!(released.document()["Case"]["Status"], "Released");
    }

    #[test]
    fn an_instance_without_a_case_says_so_and_names_its_guardrail() {
        let guardrail = Guardrail { rule: "Protected".into(), reason: "pay\u{202e}ments".into() };
        let none = InstanceStatus { case: None, guardrail: Some(guardrail), ..status(false, None, Holder::None) };
        let text = none.in_words(PLAIN);
        assert!(text.contains(r"  Guardrail   Protected: pay\u{202e}ments"), "{text}");
        assert!(text.contains("  Case        none: Cordon has not contained it\n"), "{text}");
        assert_eq!(none.document()["Case"], Value::Null);
    }

    #[test]
    fn an_execution_is_about_the_instances_of_its_input_or_of_its_finding() {
        assert_eq!(about(r#"{"InstanceIds":["i-1","i-2"],"Region":"eu-west-1"}"#), ["i-1", "i-2"]);
        let finding = json!({"detail": {"resource": {"instanceDetails": {"instanceId": "i-3"}}}});
        assert_eq!(about(&finding.to_string()), ["i-3"]);
        assert_eq!(about("no JSON"), Vec::<String>::new());
    }

    #[test]
    fn executions_are_listed_with_their_first_instances_and_a_count_of_the_others() {
        let arn = format!("arn:{}", "x".repeat(200));
        let execution = ExecutionListItem::builder().execution_arn(&arn).state_machine_arn("arn:m").name("x");
        let execution = execution.status(ExecutionStatus::Running).start_date(DateTime::from_secs(0)).build();
        let ids = (1..=5).map(|n| format!("i-{n}")).collect();
        let text = listed(&[(&execution.expect("complete"), ids)], 2, PLAIN);
        let row = format!("RUNNING  1970-01-01T00:00:00Z  -      i-1, i-2, i-3 and 2 more  {arn}\n");
        assert!(text.contains(&row), "{text}");
        assert!(text.ends_with("  and 2 or more running\n"), "{text}");
    }
}
