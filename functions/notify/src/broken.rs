//! The message about an execution that ended badly, told by a rule outside the workflow.

use finding::Source;
use serde_json::{Value, json};

use crate::ended::FALSE_ALARM;
use crate::event::BadEnd;
use crate::execution::{Execution, Instance};
use crate::message::{Kind, Message, Next, these, these_ids};
use crate::quoted::{Text, clean, clean_lines, cut};
use crate::told::{SHOWN_AT_MOST, first_of, trigger, why};

/// A cause has at most 32,768 characters; machines get no more of it than this.
const CAUSE_AT_MOST: usize = 20_000;

/// How it ended, what is known of its instances, and what to do.
pub(crate) fn broken(end: &BadEnd) -> Message {
    let execution = Execution::new(&end.execution, None);
    let input = Input::read(&end.input, &execution);
    let kind = kind(end);
    let reason = reason(kind, end);
    let release = execution.is_release();
    let reported = is_verdict(kind) || reason == Reason::NotTold;
    let rows = if reported { rows(end) } else { Vec::new() };
    let instances = known(&rows, input.instances);
    let good = |i: &&Instance| matches!(verdict_of(i, &rows), Some("Contained" | "Released"));
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
        let text = "Running it again is safe: what is done stays as it is, and what was missed is done.";
        match release {
            false => message.contain_by_hand(instance, Text::ours(text)),
            true => message.release(instance, Text::ours(text)),
        }
    }
    if matches!(kind, Kind::PartiallyContained | Kind::NotContained) {
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
        (_, Some("PartiallyContained")) => Kind::PartiallyContained,
        (_, Some("NotContained")) => Kind::NotContained,
        (_, Some("PartiallyReleased")) => Kind::PartiallyReleased,
        (_, Some("NotReleased")) => Kind::NotReleased,
        _ => Kind::ExecutionFailed,
    }
}

/// Whether the workflow itself came to a verdict, with a table.
fn is_verdict(kind: Kind) -> bool {
    matches!(kind, Kind::PartiallyContained | Kind::NotContained | Kind::PartiallyReleased | Kind::NotReleased)
}

/// Why an execution failed, where its error says so.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reason {
    /// Its input was refused, before anything was touched.
    InputRefused,
    /// All was done, but the message about it could not be sent.
    NotTold,
    /// Anything else.
    Other,
}

fn reason(kind: Kind, end: &BadEnd) -> Reason {
    match (kind, end.error.as_deref()) {
        (Kind::ExecutionFailed, Some("InvalidInput")) => Reason::InputRefused,
        (Kind::ExecutionFailed, Some("NotTold")) => Reason::NotTold,
        _ => Reason::Other,
    }
}

fn headline(kind: Kind, reason: Reason, bad: &[Instance]) -> String {
    let who = if bad.is_empty() { "its instances".to_owned() } else { these(bad) };
    match kind {
        Kind::PartiallyContained => format!("Containment is not complete: something is open on {who}."),
        Kind::NotContained => {
            format!("NOT contained: {who}. The execution ended, and the network is not known to be cut.")
        }
        Kind::ExecutionTimedOut => {
            format!("Cordon's execution ran out of time: take {who} as not contained until you have checked.")
        }
        Kind::ExecutionAborted => {
            format!("Somebody stopped Cordon's execution: take {who} as not contained until you have checked.")
        }
        _ if reason == Reason::NotTold => {
            "Cordon has ended well, but its own message about it could not be sent; the table says how.".to_owned()
        }
        _ if reason == Reason::InputRefused => {
            "Cordon refused the input of an execution, so this execution has contained nothing.".to_owned()
        }
        _ => format!("Cordon's execution failed: take {who} as not contained until you have checked."),
    }
}

fn headline_of_a_release(kind: Kind, reason: Reason, bad: &[Instance]) -> String {
    let who = if bad.is_empty() { "its instances".to_owned() } else { these(bad) };
    let until = format!("take {who} neither as contained nor as released until you have checked.");
    match kind {
        Kind::PartiallyReleased => format!("Release is not complete: something of {who} is not as it was."),
        Kind::NotReleased => format!("NOT released: {who}. Nothing is known to be as it was before the containment."),
        Kind::ExecutionTimedOut => format!("Cordon's release ran out of time: {until}"),
        Kind::ExecutionAborted => format!("Somebody stopped Cordon's release: {until}"),
        _ if reason == Reason::NotTold => headline(kind, reason, bad),
        _ if reason == Reason::InputRefused => {
            "Cordon refused the input of a release, so this execution has released nothing.".to_owned()
        }
        _ => format!("Cordon's release failed: {until}"),
    }
}

fn subject(kind: Kind, reason: Reason, bad: &[Instance], release: bool) -> String {
    let who = if bad.is_empty() { "unknown instances".to_owned() } else { these_ids(bad) };
    match kind {
        Kind::PartiallyContained => format!("only partly contained: {who}"),
        Kind::NotContained => format!("NOT contained: {who}"),
        Kind::PartiallyReleased => format!("only partly released: {who}"),
        Kind::NotReleased => format!("NOT released: {who}"),
        Kind::ExecutionTimedOut => format!("execution timed out for {who}"),
        Kind::ExecutionAborted => format!("execution aborted for {who}"),
        _ if reason == Reason::NotTold => "ended well, but its message was not sent".to_owned(),
        _ if reason == Reason::InputRefused => {
            if release { "input refused, nothing released" } else { "input refused, nothing contained" }.to_owned()
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
        (Some(_), _) => Text::ours("Its cause stands at the end of this message, line by line."),
        (None, Some(why)) => Text::ours("Its cause could not be read: ").quoting(why),
        (None, None) => Text::ours("It gave no cause."),
    };
    vec![error, cause]
}

fn advice(kind: Kind, reason: Reason) -> Next {
    let text = match kind {
        _ if is_verdict(kind) => "Read what is open in the table, then run it again or do it by hand.",
        Kind::ExecutionAborted | Kind::ExecutionTimedOut => {
            "Steps that were under way may be half done: look at the execution's page, then run it again."
        }
        _ if reason == Reason::NotTold => {
            "Look at the topic: the cause says what SNS answered. Nothing has to be run again."
        }
        _ if reason == Reason::InputRefused => "Read the cause, correct the input and start it again.",
        _ => "Look at the execution's page for the state that failed, then run it again.",
    };
    Next { label: "Check".to_owned(), text: Text::ours(text), command: None }
}

/// What the execution was started with.
struct Input {
    trigger: Value,
    instances: Vec<Instance>,
}

impl Input {
    fn read(input: &Value, execution: &Execution) -> Input {
        let text = |name: &str| input[name].as_str().unwrap_or_default();
        if let Some(ids) = input["InstanceIds"].as_array() {
            let home = execution.account().unwrap_or_default();
            let account = if input.get("AccountId").is_some() { text("AccountId") } else { home };
            let ids = ids.iter().filter_map(Value::as_str).take(50);
            let instances = ids.map(|id| Instance::new(id, account, text("Region"))).collect();
            return Input { trigger: json!({ "Source": "Hand" }), instances };
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
        for instance in named.map(|named| Instance::new(&named.instance_id, &named.account_id, &named.region)).take(50)
        {
            if !instances.contains(&instance) {
                instances.push(instance);
            }
        }
        Input { trigger: json!({ "Source": source, "Findings": alert.findings }), instances }
    }
}

/// The report's words about one instance, from a line of its table: `i-… in REGION: VERDICT`.
struct Row {
    id: String,
    region: String,
    verdict: &'static str,
}

/// From worst to best.
const VERDICTS: [&str; 10] = [
    "NotContained",
    "NotReleased",
    "PartiallyContained",
    "PartiallyReleased",
    "NotApproved",
    "Planned",
    "Contained",
    "Released",
    "NothingDone",
    "NothingToRelease",
];

/// The table's instances. A line that says better of an instance than another one does not count: reasons in the table
/// may quote what an attacker wrote.
fn rows(end: &BadEnd) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for row in end.cause.as_deref().unwrap_or_default().lines().filter_map(row) {
        match rows.iter_mut().find(|known| known.id == row.id) {
            Some(known) if rank(row.verdict) < rank(known.verdict) => *known = row,
            Some(_) => {}
            None => rows.push(row),
        }
    }
    rows.truncate(50);
    rows
}

fn row(line: &str) -> Option<Row> {
    let (id, rest) = line.split_once(" in ")?;
    let (region, verdict) = rest.split_once(": ")?;
    // What was left out has its reason behind the verdict.
    let verdict = verdict.split_once(": ").map_or(verdict, |(verdict, _)| verdict);
    let checked = Instance::new(id, "", region);
    let verdict = VERDICTS.into_iter().find(|known| *known == verdict)?;
    Some(Row { id: checked.id?, region: checked.region?, verdict })
}

fn rank(verdict: &str) -> usize {
    VERDICTS.iter().position(|known| *known == verdict).unwrap_or_default()
}

/// Those with the worst verdict; nothing known is as bad.
fn worst_of(bad: &[Instance], rows: &[Row]) -> Vec<Instance> {
    let rank = |instance: &Instance| verdict_of(instance, rows).map_or(0, rank);
    let worst = bad.iter().map(rank).min();
    bad.iter().filter(|instance| Some(rank(instance)) == worst).cloned().collect()
}

fn verdict_of<'a>(instance: &Instance, rows: &'a [Row]) -> Option<&'a str> {
    rows.iter().find(|row| instance.id.as_ref() == Some(&row.id)).map(|row| row.verdict)
}

/// Those that the execution was started for, and those that only its table names.
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
    let verdict = verdict_of(instance, rows).unwrap_or("nothing is known of it");
    instance.place().and(format!(": {verdict}"))
}

fn data(instance: &Instance, rows: &[Row]) -> Value {
    let mut data = instance.to_json();
    if let Some(verdict) = verdict_of(instance, rows) {
        data["Verdict"] = json!(verdict);
    }
    data
}
