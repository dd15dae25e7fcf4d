//! The message about an execution that ended badly, announced by a rule outside the workflow.

use finding::Source;
use serde_json::{Value, json};
use verdict::Verdict;

use crate::contained::FALSE_ALARM;
use crate::event::BadEnd;
use crate::execution::{Execution, Instance};
use crate::message::{Kind, Message, Next, these, these_ids};
use crate::quoted::{Text, clean, clean_lines, cut};
use crate::sections::{SHOWN_AT_MOST, first_of, trigger, why};

/// A cause has at most 32,768 characters; the record for machines has no more of it than this.
const CAUSE_AT_MOST: usize = 20_000;

/// A message names at most this many instances.
const NAMED_AT_MOST: usize = 50;

/// Makes the message: how the execution ended, how its instances stand, and what to do.
pub(crate) fn broken(end: &BadEnd) -> Message {
    let execution = Execution::new(&end.execution, None);
    let input = Input::read(&end.input, &execution);
    let kind = kind(end);
    let reason = reason(kind, end);
    let release = execution.is_release();
    let reported = matches!(kind, Kind::Ended(_)) || reason == Reason::NotTold;
    let rows = if reported { rows(end) } else { Vec::new() };
    let instances = known(&rows, input.instances);
    let good = |i: &&Instance| matches!(verdict_of(i, &rows), Some(Verdict::Contained | Verdict::Released));
    let bad: Vec<Instance> = instances.iter().filter(|i| !good(i)).cloned().collect();
    let worst = worst_of(&bad, &rows);
    let headline = match release {
        false => headline(kind, reason, &worst),
        true => headline_of_a_release(kind, reason, &worst),
    };
    let mut message = Message::new(kind, execution, headline, subject(kind, reason, &worst, release));
    message.say_first("Why it was started", why(&input.trigger));
    message.say_first("What went wrong", what_went_wrong(end));
    message.say_first("Instances", first_of(instances.iter().map(|i| line(i, &rows)).collect(), "instances"));
    message.next.push(advice(kind, reason));
    for instance in bad.iter().filter(|i| i.is_named()).take(SHOWN_AT_MOST) {
        let text = "It is safe to run again: completed work is kept, and only missing work is done.";
        match release {
            false => message.contain_by_hand(instance, Text::ours(text)),
            true => message.release(instance, Text::ours(text)),
        }
    }
    if matches!(kind, Kind::Ended(Verdict::PartiallyContained | Verdict::NotContained)) {
        for instance in instances.iter().filter(|i| i.is_named()).take(SHOWN_AT_MOST) {
            message.release(instance, Text::ours(FALSE_ALARM));
        }
    }
    let cause = end.cause.as_deref().unwrap_or_default();
    message.table = clean_lines(cause, 250, 300);
    message.set("Trigger", trigger(&input.trigger));
    message.set("Instances", instances.iter().map(|i| data(i, &rows)).collect::<Vec<_>>());
    message.set("Status", clean(&end.status, 20));
    message.set("Error", end.error.as_deref().map(|error| clean(error, 256)));
    message
        .set("Cause", end.cause.as_deref().map(|cause| cut(&clean_lines(cause, 1_000, 300).join("\n"), CAUSE_AT_MOST)));
    message.set("CauseUnread", end.unread.as_deref().map(|why| clean(why, 512)));
    message.instances = instances;
    message
}

fn kind(end: &BadEnd) -> Kind {
    match (end.status.as_str(), end.error.as_deref()) {
        ("TIMED_OUT", _) => Kind::ExecutionTimedOut,
        ("ABORTED", _) => Kind::ExecutionAborted,
        (_, Some(error)) => {
            Verdict::from_name(error).filter(|v| is_bad_end(*v)).map_or(Kind::ExecutionFailed, Kind::Ended)
        }
        _ => Kind::ExecutionFailed,
    }
}

/// Whether an execution ends FAILED with this verdict as its error, and the table as its cause.
fn is_bad_end(verdict: Verdict) -> bool {
    use Verdict::{NotContained, NotReleased, PartiallyContained, PartiallyReleased};
    matches!(verdict, PartiallyContained | NotContained | PartiallyReleased | NotReleased)
}

/// Why an execution failed, if its error says so.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reason {
    /// Its input was rejected before anything was touched.
    InputRejected,
    /// The execution did its work, but its message could not be sent.
    NotTold,
    /// Anything else.
    Other,
}

fn reason(kind: Kind, end: &BadEnd) -> Reason {
    match (kind, end.error.as_deref()) {
        (Kind::ExecutionFailed, Some("InvalidInput")) => Reason::InputRejected,
        (Kind::ExecutionFailed, Some("NotTold")) => Reason::NotTold,
        _ => Reason::Other,
    }
}

fn headline(kind: Kind, reason: Reason, bad: &[Instance]) -> String {
    let who = if bad.is_empty() { "its instances".to_owned() } else { these(bad) };
    match kind {
        Kind::Ended(Verdict::PartiallyContained) => format!("Containment is not complete: something is open on {who}."),
        Kind::Ended(Verdict::NotContained) => {
            format!("NOT contained: {who}. The execution ended, and Cordon could not confirm that the network is cut.")
        }
        Kind::ExecutionTimedOut => {
            format!("Cordon's execution timed out: treat {who} as not contained until you have checked.")
        }
        Kind::ExecutionAborted => {
            format!("Somebody stopped Cordon's execution: treat {who} as not contained until you have checked.")
        }
        _ if reason == Reason::NotTold => {
            "Cordon has finished successfully but could not send its own message about it; the table has the result."
                .to_owned()
        }
        _ if reason == Reason::InputRejected => {
            "Cordon rejected the input of an execution, so that execution has contained nothing.".to_owned()
        }
        _ => format!("Cordon's execution failed: treat {who} as not contained until you have checked."),
    }
}

fn headline_of_a_release(kind: Kind, reason: Reason, bad: &[Instance]) -> String {
    let who = if bad.is_empty() { "its instances".to_owned() } else { these(bad) };
    let until = format!("treat {who} as neither contained nor released until you have checked.");
    match kind {
        Kind::Ended(Verdict::PartiallyReleased) => {
            format!("Release is not complete: something on {who} is not restored.")
        }
        Kind::Ended(Verdict::NotReleased) => {
            format!("NOT released: {who}. Cordon could not confirm that anything was restored.")
        }
        Kind::ExecutionTimedOut => format!("Cordon's release timed out: {until}"),
        Kind::ExecutionAborted => format!("Somebody stopped Cordon's release: {until}"),
        _ if reason == Reason::NotTold => headline(kind, reason, bad),
        _ if reason == Reason::InputRejected => {
            "Cordon rejected the input of a release, so that execution has released nothing.".to_owned()
        }
        _ => format!("Cordon's release failed: {until}"),
    }
}

fn subject(kind: Kind, reason: Reason, bad: &[Instance], release: bool) -> String {
    let who = if bad.is_empty() { "unknown instances".to_owned() } else { these_ids(bad) };
    match kind {
        Kind::Ended(Verdict::PartiallyContained) => format!("only partly contained: {who}"),
        Kind::Ended(Verdict::NotContained) => format!("NOT contained: {who}"),
        Kind::Ended(Verdict::PartiallyReleased) => format!("only partly released: {who}"),
        Kind::Ended(Verdict::NotReleased) => format!("NOT released: {who}"),
        Kind::ExecutionTimedOut => format!("execution timed out for {who}"),
        Kind::ExecutionAborted => format!("execution aborted for {who}"),
        _ if reason == Reason::NotTold => "finished successfully, but its message was not sent".to_owned(),
        _ if reason == Reason::InputRejected => {
            if release { "input rejected, nothing released" } else { "input rejected, nothing contained" }.to_owned()
        }
        _ => format!("execution FAILED for {who}"),
    }
}

fn what_went_wrong(end: &BadEnd) -> Vec<Text> {
    let error = match &end.error {
        Some(error) => Text::ours("Error: ").quoting(error),
        None => Text::ours("The execution gave no error."),
    };
    let cause = match (&end.cause, &end.unread) {
        (Some(_), _) => Text::ours("The cause is at the end of this message, line by line."),
        (None, Some(why)) => Text::ours("The cause could not be read: ").quoting(why),
        (None, None) => Text::ours("It gave no cause."),
    };
    vec![error, cause]
}

fn advice(kind: Kind, reason: Reason) -> Next {
    let text = match kind {
        Kind::Ended(_) => "Read the open items in the table, then run it again or finish by hand.",
        Kind::ExecutionAborted | Kind::ExecutionTimedOut => {
            "Some steps may be half done: check the execution's page, then run it again."
        }
        _ if reason == Reason::NotTold => "Check the topic: the cause has SNS's reply. Nothing has to be run again.",
        _ if reason == Reason::InputRejected => "Read the cause, correct the input and start it again.",
        _ => "Find the state that failed on the execution's page, then run it again.",
    };
    Next { label: "Check".to_owned(), text: Text::ours(text), command: None }
}

/// The input of the execution.
struct Input {
    trigger: Value,
    instances: Vec<Instance>,
}

impl Input {
    fn read(input: &Value, execution: &Execution) -> Input {
        let text = |name: &str| input[name].as_str().unwrap_or_default();
        if let Some(ids) = input["InstanceIds"].as_array() {
            // A fleet's table names the instances that need attention; any other fifty would help nobody.
            let ids = if ids.len() > NAMED_AT_MOST { &[] } else { ids.as_slice() };
            let home = execution.account().unwrap_or_default();
            let account = if input.get("AccountId").is_some() { text("AccountId") } else { home };
            let ids = ids.iter().filter_map(Value::as_str);
            let instances = ids.map(|id| Instance::new(id, account, text("Region"))).collect();
            let trigger = match &input["Drift"] {
                Value::Null => json!({ "Source": "Hand" }),
                drift => json!({ "Source": "Drift", "Drift": drift }),
            };
            return Input { trigger, instances };
        }
        match finding::read(input) {
            Ok(alert) => Input::of(&alert),
            Err(_) => Input { trigger: Value::Null, instances: Vec::new() },
        }
    }

    fn of(alert: &finding::Alert) -> Input {
        let source = match alert.source {
            Source::GuardDuty => "GuardDuty",
            Source::SecurityHubCustomAction => "SecurityHubCustomAction",
            Source::SecurityHub => "SecurityHub",
        };
        let named = alert.findings.iter().flat_map(|finding| &finding.instances);
        let mut instances: Vec<Instance> = Vec::new();
        for instance in
            named.map(|named| Instance::new(&named.instance_id, &named.account_id, &named.region)).take(NAMED_AT_MOST)
        {
            if !instances.contains(&instance) {
                instances.push(instance);
            }
        }
        Input { trigger: json!({ "Source": source, "Findings": alert.findings }), instances }
    }
}

/// The report's line about one instance: `i-… in REGION: VERDICT`.
struct Row {
    id: String,
    region: String,
    verdict: Verdict,
}

/// The table's instances. If several lines name one instance, the worst counts: reasons in the table may quote an
/// attacker's text.
fn rows(end: &BadEnd) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for row in end.cause.as_deref().unwrap_or_default().lines().filter_map(row) {
        match rows.iter_mut().find(|known| known.id == row.id) {
            Some(known) if row.verdict < known.verdict => *known = row,
            Some(_) => {}
            None => rows.push(row),
        }
    }
    rows.truncate(NAMED_AT_MOST);
    rows
}

fn row(line: &str) -> Option<Row> {
    let (id, rest) = line.split_once(" in ")?;
    let (region, verdict) = rest.split_once(": ")?;
    // The reason for leaving an instance out follows the verdict.
    let verdict = verdict.split_once(": ").map_or(verdict, |(verdict, _)| verdict);
    let checked = Instance::new(id, "", region);
    let verdict = Verdict::from_name(verdict)?;
    Some(Row { id: checked.id?, region: checked.region?, verdict })
}

/// The instances with the worst verdict; an unknown verdict counts as the worst.
fn worst_of(bad: &[Instance], rows: &[Row]) -> Vec<Instance> {
    let verdict = |instance: &Instance| verdict_of(instance, rows).unwrap_or(Verdict::NotContained);
    let worst = bad.iter().map(verdict).min();
    bad.iter().filter(|instance| Some(verdict(instance)) == worst).cloned().collect()
}

fn verdict_of(instance: &Instance, rows: &[Row]) -> Option<Verdict> {
    rows.iter().find(|row| instance.id.as_ref() == Some(&row.id)).map(|row| row.verdict)
}

/// The instances of the execution's input, and those that only its table names.
fn known(rows: &[Row], asked: Vec<Instance>) -> Vec<Instance> {
    let mut known = asked;
    for row in rows {
        if !known.iter().any(|instance| instance.id.as_ref() == Some(&row.id)) {
            known.push(Instance::new(&row.id, "", &row.region));
        }
    }
    known
}

fn line(instance: &Instance, rows: &[Row]) -> Text {
    let verdict = verdict_of(instance, rows).map_or("its state is unknown", Verdict::name);
    instance.place().and(format!(": {verdict}"))
}

fn data(instance: &Instance, rows: &[Row]) -> Value {
    let mut data = instance.to_json();
    if let Some(verdict) = verdict_of(instance, rows) {
        data["Verdict"] = json!(verdict);
    }
    data
}
