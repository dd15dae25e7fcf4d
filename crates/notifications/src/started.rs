//! The messages before an instance is isolated: the start, and the request for approval.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::{Value, json};

use crate::event::{Question, Started};
use crate::execution::{Execution, Instance, checked_token};
use crate::message::{Kind, Message, NO_COMMAND, Next, these, these_ids};
use crate::quoted::{Text, clean};
use crate::sections::{facts, first_of, left_out, left_out_data, list, read_left_out, trigger, why};

/// The start of a containment. None if nothing starts: the message about the end says why.
pub(crate) fn started(start: &Started) -> Option<Message> {
    let targets = list(&start.targets);
    let fleet = start.fleet["Instances"].as_u64();
    if start.quiet == true || (start.targets.is_array() && targets.is_empty() && fleet.is_none()) {
        return None;
    }
    let execution = Execution::read(&start.execution);
    let instances: Vec<Instance> = targets.iter().map(Instance::read).collect();
    let dry = !targets.is_empty() && targets.iter().all(|target| target["DryRun"] == true);
    let (headline, subject) = match fleet {
        Some(count) => {
            let place = Instance::read(&start.fleet).surroundings();
            (
                format!("Cordon has started to contain a fleet of {count} instances{place}, in batches."),
                format!("containment started for {count} instances"),
            )
        }
        None => beginning(targets, &instances, dry),
    };
    let mut message = Message::new(Kind::ContainmentStarted, execution, headline, subject);
    message.say_first("Why", why(&start.trigger));
    message.say_first("Instances", first_of(targets.iter().map(target_line).collect(), "instances"));
    let left = read_left_out(&start.left_out);
    message.say_first("Left out", left_out(&left));
    message.next.push(Next {
        label: "Wait".to_owned(),
        text: Text::ours("Cordon will announce the end; the execution's page shows each step as it happens."),
        command: None,
    });
    message.set("Trigger", trigger(&start.trigger));
    message.set("Instances", targets.iter().map(target_data).collect::<Vec<_>>());
    message.set("LeftOut", left_out_data(&left));
    message.instances = instances;
    Some(message)
}

fn beginning(targets: &[Value], instances: &[Instance], dry: bool) -> (String, String) {
    let asked = targets.iter().filter(|target| target["Approval"].is_string()).count();
    let (who, ids) = match instances {
        [] => ("instances that the event does not name".to_owned(), "unnamed instances".to_owned()),
        named => (these(named), these_ids(named)),
    };
    let headline = match asked {
        _ if dry => format!("Cordon has started a dry run for {who}: it makes a plan and changes nothing."),
        0 => format!("Cordon has started to contain {who}."),
        all if all == instances.len() => {
            format!("Cordon has started to respond to {who} and will ask a person before isolating.")
        }
        some => format!("Cordon has started to contain {who}; it will ask a person before isolating {some} of them."),
    };
    let subject = if dry { format!("dry run started for {ids}") } else { format!("containment started for {ids}") };
    (headline, subject)
}

fn target_line(target: &Value) -> Text {
    let place = Instance::read(target).place();
    match target["Approval"].as_str() {
        Some(reason) => place.and(": a person is asked first, because ").quoting(reason),
        None => place,
    }
}

pub(crate) fn target_data(target: &Value) -> Value {
    let mut data = Instance::read(target).to_json();
    if let Some(case) = target["CaseId"].as_str() {
        data["CaseId"] = json!(clean(case, 100));
    }
    if let Some(reason) = target["Approval"].as_str() {
        data["Approval"] = json!(clean(reason, 512));
    }
    data
}

/// The request for approval: a person has to answer before the instance is isolated.
pub(crate) fn asked(question: &Question, now: &DateTime) -> Message {
    let execution = Execution::read(&question.execution);
    let instance = Instance::read(&question.target);
    let minutes = question.timeout_seconds.as_u64().map(|seconds| seconds.div_ceil(60));
    let who = format!("{}{}", instance.name(), instance.surroundings());
    let headline = format!("Your answer is needed: may Cordon isolate {who}?");
    let subject = format!("your approval is needed for {}", instance.name());
    let mut message = Message::new(Kind::ApprovalRequested, execution, headline, subject);
    message.token = question.token.as_str().and_then(checked_token).map(ToOwned::to_owned);
    message.say_first("Why", why(&question.trigger));
    let ask = match question.target["Approval"].as_str() {
        Some(reason) => Text::ours("Cordon does not decide this alone: ").quoting(reason),
        None => Text::ours("Cordon does not decide this alone; the event does not say why."),
    };
    let silence = if_nobody_answers(question.on_approval_timeout.as_str(), minutes);
    message.say_first("Why you are asked", vec![ask, Text::ours("The instance: ").then(instance.place())]);
    message.say_first("If nobody answers", vec![Text::ours(&silence)]);
    message.say_first("Meanwhile", vec![Text::ours(GOING_ON), Text::ours(WAITING)]);
    answers(&mut message, &instance);
    message.say_later("About the instance", facts(&question.facts));
    message.set("Trigger", trigger(&question.trigger));
    message.set("Instances", vec![target_data(&question.target)]);
    let approval = approval_data(question, &message, &instance, now);
    message.set("Approval", approval);
    message.instances = vec![instance];
    message
}

const GOING_ON: &str = "Steps that do not disturb the workload go on: Cordon reads the facts, tags the resources, \
                        protects the instance from termination, keeps its volumes and requests snapshots. The report \
                        at the end has their results.";

const WAITING: &str = "These wait for your answer: network isolation, detaching from Auto Scaling, deregistering from \
                       load balancers, and revoking credentials.";

fn if_nobody_answers(then: Option<&str>, minutes: Option<u64>) -> String {
    let when = match minutes {
        Some(minutes) => format!("within {minutes} minutes of this message"),
        None => "in time (the event does not say how long that is)".to_owned(),
    };
    match then {
        Some("Contain") => format!("If nobody answers {when}, Cordon isolates the instance anyway."),
        Some("DoNotContain") => {
            format!("If nobody answers {when}, Cordon does not isolate the instance and leaves it on the network.")
        }
        _ => format!("If nobody answers {when}, the stack's settings decide; the event does not say which way."),
    }
}

fn answers(message: &mut Message, instance: &Instance) {
    let token = message.token.clone().unwrap_or_default();
    let (approve, refuse) = (message.execution.approve(&token), message.execution.refuse(&token));
    let answer = |label: &str, text: &str, command: Option<String>| {
        let text = Text::ours(text).and(if command.is_some() { "" } else { NO_COMMAND });
        Next { label: label.to_owned(), text, command }
    };
    message.next.push(answer("Approve", "Cordon isolates the instance at once.", approve));
    let refused = "Cordon leaves the instance on the network. Replace 'why' with your reason, without an apostrophe.";
    message.next.push(answer("Refuse", refused, refuse));
    message.contain_by_hand(instance, Text::ours("Starting its containment by hand is also an approval."));
    let rights = "The token alone grants nothing. On the state machine, approving takes the IAM permission \
                  states:SendTaskSuccess, refusing states:SendTaskFailure, and starting by hand states:StartExecution.";
    message.next.push(Next { label: "Permissions".to_owned(), text: Text::ours(rights), command: None });
}

fn approval_data(question: &Question, message: &Message, instance: &Instance, now: &DateTime) -> Value {
    let token = message.token.clone();
    let seconds = question.timeout_seconds.as_u64();
    let deadline = seconds.and_then(|seconds| {
        let at = now.secs().checked_add(i64::try_from(seconds).ok()?)?;
        DateTime::from_secs(at).fmt(Format::DateTime).ok()
    });
    let texts = [
        ("Reason", question.target["Approval"].as_str().map(|reason| clean(reason, 512))),
        ("Deadline", deadline),
        ("OnApprovalTimeout", question.on_approval_timeout.as_str().map(|then| clean(then, 40))),
        ("Approve", token.as_deref().and_then(|token| message.execution.approve(token))),
        ("Refuse", token.as_deref().and_then(|token| message.execution.refuse(token))),
        ("ContainByHand", message.execution.contain(instance)),
        ("Token", token.clone()),
    ];
    let mut data: Value = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(text?)))).collect();
    if let Some(seconds) = seconds {
        data["TimeoutSeconds"] = json!(seconds);
    }
    data
}
