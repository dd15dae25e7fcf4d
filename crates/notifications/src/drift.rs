//! The messages about drift: somebody other than Cordon changed a contained instance.

use serde_json::{Value, json};

use crate::event::Started;
use crate::execution::{Execution, Instance};
use crate::message::{Kind, Message, Next, these, these_ids};
use crate::quoted::{Text, clean};
use crate::sections::{first_of, left_out, left_out_data, list, read_left_out, trigger};
use crate::started::target_data;

/// Whether drift started the execution.
pub(crate) fn is_drift(trigger: &Value) -> bool {
    trigger["Source"] == "Drift"
}

/// Cordon is containing the instance again. None if nothing starts, because another execution holds the case.
pub(crate) fn repairing(start: &Started) -> Option<Message> {
    if start.quiet == true || list(&start.targets).is_empty() {
        return None;
    }
    let mut message = message(Kind::DriftFound, start, |who| {
        format!("Somebody other than Cordon has changed {who}, which is contained; Cordon is containing it again.")
    });
    message.next.push(wait("Cordon will announce the end; the execution's page shows each step as it happens."));
    let left = read_left_out(&start.left_out);
    message.say_first("Left out", left_out(&left));
    message.set("LeftOut", left_out_data(&left));
    Some(message)
}

/// Cordon will contain the instance again once the execution that holds its case has ended.
pub(crate) fn waiting(start: &Started) -> Message {
    let mut message = message(Kind::DriftFound, start, |who| {
        format!("Somebody other than Cordon has changed {who} while a Cordon execution holds its case.")
    });
    message.next.push(wait(
        "When that execution has ended, Cordon contains the instance again if the change came after the execution read \
         it. That can take as long as a snapshot: if it is urgent, undo the change by hand.",
    ));
    message
}

/// Cordon does not contain the instance again in this hour, and a person has to act.
pub(crate) fn not_repaired(start: &Started) -> Message {
    let mut message = message(Kind::DriftNotRepaired, start, |who| {
        format!(
            "A PERSON IS NEEDED: {who} is changed again and again, and Cordon will not contain it again in this hour."
        )
    });
    let limit = start.repairs_per_hour.as_u64();
    let limit = limit.map_or("its limit".to_owned(), |n| format!("RepairsPerHour, {n}, in this clock hour"));
    message.say_first("Why Cordon has stopped", vec![Text::ours(format!(
        "It has reached {limit}. It resumes in the next hour if the change is not repaired by then; treat the instance as \
         not contained until you have checked."
    ))]);
    let stop = "Revoke the caller's permissions: disable the access key, deny the role's sessions, or use a service \
                control policy to deny everybody except Cordon these calls on the instance and its resources. The \
                owner of the instance's account cannot undo a service control policy.";
    message.next.push(Next { label: "Stop the caller".to_owned(), text: Text::ours(stop), command: None });
    let other = "If the caller is one of your own tools (Auto Scaling, infrastructure as code, AWS Config), make it leave \
                 the instance alone.";
    message.next.push(Next { label: "Or stop the tool".to_owned(), text: Text::ours(other), command: None });
    for instance in message.instances.clone() {
        message.contain_by_hand(&instance, Text::ours("No limit applies to a start by hand."));
    }
    message
}

fn message(kind: Kind, start: &Started, headline: impl Fn(&str) -> String) -> Message {
    let targets = list(&start.targets);
    let instances: Vec<Instance> = targets.iter().map(Instance::read).collect();
    let (who, ids) = match instances.as_slice() {
        [] => ("an instance that the event does not name".to_owned(), "an unnamed instance".to_owned()),
        named => (these(named), these_ids(named)),
    };
    let subject = match kind {
        Kind::DriftNotRepaired => format!("A PERSON IS NEEDED: {ids} is changed again and again"),
        _ => format!("somebody has changed {ids}, which is contained"),
    };
    let drift = &start.trigger["Drift"];
    let mut message = Message::new(kind, Execution::read(&start.execution), headline(&who), subject);
    message.say_first("Who did what", said(drift));
    message.say_first("What a repair cannot undo", lost(drift["EventName"].as_str()));
    message.say_first("Instances", first_of(instances.iter().map(Instance::place).collect(), "instances"));
    message.next.extend(unshare(drift, &instances));
    message.set("Trigger", trigger(&start.trigger));
    message.set("Instances", targets.iter().map(target_data).collect::<Vec<_>>());
    message.instances = instances;
    message
}

fn wait(text: &str) -> Next {
    Next { label: "Wait".to_owned(), text: Text::ours(text), command: None }
}

/// The call and the caller, as CloudTrail recorded them; the caller chose some of the texts.
pub(crate) fn said(drift: &Value) -> Vec<Text> {
    let quoted = |text: Text, name: &str| match drift[name].as_str().filter(|text| !text.is_empty()) {
        Some(said) => text.quoting(said),
        None => text.and("unknown"),
    };
    let what = quoted(Text::ours("Somebody other than Cordon called "), "EventName");
    let what = quoted(quoted(what.and(" on "), "Resource").and(" at "), "EventTime");
    let lines = [
        ("Caller: ", "Caller"),
        ("Access key: ", "AccessKeyId"),
        ("From: ", "SourceIpAddress"),
        ("With: ", "UserAgent"),
        ("Parameters: ", "Parameters"),
        ("CloudTrail's event: ", "EventId"),
    ];
    std::iter::once(what).chain(lines.into_iter().map(|(label, name)| quoted(Text::ours(label), name))).collect()
}

/// The same for machines.
pub(crate) fn data(drift: &Value) -> Value {
    const FIELDS: [&str; 9] = [
        "EventId",
        "EventName",
        "EventTime",
        "Caller",
        "AccessKeyId",
        "SourceIpAddress",
        "UserAgent",
        "Resource",
        "Parameters",
    ];
    let text = |name: &&str| Some(((*name).to_owned(), json!(clean(drift[*name].as_str()?, 400))));
    FIELDS.iter().filter_map(text).collect()
}

/// The losses that a repair cannot undo.
fn lost(event: Option<&str>) -> Vec<Text> {
    let text = match event.unwrap_or_default() {
        "DeleteSnapshot" => {
            "A deleted snapshot does not come back. Cordon takes a new one of each volume that has none left, which shows \
             the volume as it is now. A copy in the forensic account is not affected."
        }
        "ModifySnapshotAttribute" => {
            "Copies that were made while the snapshot was shared remain: assume that everybody it was shared with knows \
             its content. Cordon removes a share only from encrypted snapshots, and only where a forensic account is \
             configured."
        }
        "TerminateInstances" => {
            "A terminated instance does not come back; its volumes, interfaces and snapshots may remain."
        }
        "StopInstances" | "RebootInstances" => {
            "The instance's memory is lost, and so are its instance store volumes if it was stopped. Cordon does not \
             start it."
        }
        "StartInstances" => "Cordon does not stop it; its start-up programs may already have run.",
        "DetachVolume" => "Cordon does not attach the volume again; somebody may change its content elsewhere.",
        "DeleteVolume" => "A deleted volume does not come back; its snapshots remain.",
        "StartSession" => "Cordon ends the session if it is still open, but cannot undo what was done in it.",
        "UnlockSnapshot" | "LockSnapshot" => "While its lock was off or shorter, the snapshot could be deleted.",
        "AttachInstances" => "The group may terminate the instance before it is detached.",
        _ => return Vec::new(),
    };
    vec![Text::ours(text)]
}

/// How to remove a share that Cordon may leave; the id is checked, because it becomes part of a command.
fn unshare(drift: &Value, instances: &[Instance]) -> Option<Next> {
    let (Some(snapshot), [instance]) = (drift["Resource"].as_str(), instances) else { return None };
    let digits = snapshot.strip_prefix("snap-")?;
    let good = matches!(digits.len(), 8 | 17) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let region = instance.region.as_deref()?;
    (good && drift["EventName"] == "ModifySnapshotAttribute").then(|| Next {
        label: "Remove the share".to_owned(),
        text: Text::ours("In the account of the snapshot. It also removes the share with a forensic account."),
        command: Some(format!(
            "aws ec2 reset-snapshot-attribute --region {region} --snapshot-id {snapshot} --attribute createVolumePermission"
        )),
    })
}
