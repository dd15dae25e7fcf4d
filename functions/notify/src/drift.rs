//! The messages about a contained instance that somebody other than Cordon has changed.

use serde_json::{Value, json};

use crate::event::Story;
use crate::execution::{Execution, Instance};
use crate::message::{Kind, Message, Next, these, these_ids};
use crate::quoted::{Text, clean};
use crate::started::target_data;
use crate::told::{first_of, left_out, left_out_data, list, trigger};

/// Whether an execution was started for that reason.
pub(crate) fn is_drift(trigger: &Value) -> bool {
    trigger["Source"] == "Drift"
}

/// That the instance is being contained again. None where nothing begins: somebody is at it already.
pub(crate) fn repairing(story: &Story) -> Option<Message> {
    if story.quiet == true || list(&story.targets).is_empty() {
        return None;
    }
    let mut message = message(Kind::DriftFound, story, |who| {
        format!("Somebody other than Cordon has changed {who}, which is contained; Cordon is containing it again.")
    });
    message.next.push(wait("Cordon announces how it ends; the execution's page shows each step as it happens."));
    message.say_first("Left out", left_out(list(&story.left_out)));
    message.set("LeftOut", left_out_data(list(&story.left_out)));
    Some(message)
}

/// That the instance will be contained again when the execution that is at it has ended.
pub(crate) fn waiting(story: &Story) -> Message {
    let mut message = message(Kind::DriftFound, story, |who| {
        format!("Somebody other than Cordon has changed {who} while an execution of Cordon's is at it.")
    });
    message.next.push(wait(
        "When that execution has ended, Cordon contains the instance again if the change came after it had looked. \
         That can take as long as a snapshot: if it is urgent, undo the change by hand.",
    ));
    message
}

/// That the instance is not contained again in this hour, and that a person has to do something about it.
pub(crate) fn not_repaired(story: &Story) -> Message {
    let mut message = message(Kind::DriftNotRepaired, story, |who| {
        format!(
            "A PERSON IS NEEDED: {who} is changed again and again, and Cordon does not contain it again in this hour."
        )
    });
    let limit = story.repairs_per_hour.as_u64();
    let limit = limit.map_or("its limit".to_owned(), |n| format!("RepairsPerHour, {n}, in this clock hour"));
    message.say_first("Why Cordon has stopped", vec![Text::ours(format!(
        "It has reached {limit}. It goes on in the next one, if the change is not repaired by then; take the instance as \
         not contained until you have checked."
    ))]);
    let stop = "Take the caller's rights away: disable the access key, deny the role's sessions, or deny these calls on \
                the instance and its resources to everybody but Cordon with a service control policy. The owner of the \
                instance's account cannot undo that one.";
    message.next.push(Next { label: "Stop the caller".to_owned(), text: Text::ours(stop), command: None });
    let other = "If the caller is one of your own tools (Auto Scaling, infrastructure as code, Config), tell it to leave \
                 the instance alone.";
    message.next.push(Next { label: "Or the other side".to_owned(), text: Text::ours(other), command: None });
    for instance in message.instances.clone() {
        message.contain_by_hand(&instance, Text::ours("This is not limited."));
    }
    message
}

fn message(kind: Kind, story: &Story, headline: impl Fn(&str) -> String) -> Message {
    let targets = list(&story.targets);
    let instances: Vec<Instance> = targets.iter().map(Instance::read).collect();
    let (who, ids) = match instances.as_slice() {
        [] => ("an instance that the event does not name".to_owned(), "an unnamed instance".to_owned()),
        named => (these(named), these_ids(named)),
    };
    let subject = match kind {
        Kind::DriftNotRepaired => format!("A PERSON IS NEEDED: {ids} is changed again and again"),
        _ => format!("somebody has changed {ids}, which is contained"),
    };
    let drift = &story.trigger["Drift"];
    let mut message = Message::new(kind, Execution::read(&story.execution), headline(&who), subject);
    message.say_first("Who did what", said(drift));
    message.say_first("What no repair brings back", lost(drift["EventName"].as_str()));
    message.say_first("Instances", first_of(instances.iter().map(Instance::place).collect(), "instances"));
    message.next.extend(unshare(drift, &instances));
    message.set("Trigger", trigger(&story.trigger));
    message.set("Instances", targets.iter().map(target_data).collect::<Vec<_>>());
    message.instances = instances;
    message
}

fn wait(text: &str) -> Next {
    Next { label: "Wait".to_owned(), text: Text::ours(text), command: None }
}

/// Who did what, from where, with what: all of it as CloudTrail has it, and so the caller's own words at places.
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

/// What containing it again does not undo.
fn lost(event: Option<&str>) -> Vec<Text> {
    let text = match event.unwrap_or_default() {
        "DeleteSnapshot" => {
            "A deleted snapshot does not come back. Cordon takes a new one of each volume that has none left, which shows \
             the volume as it is now. A copy in the forensic account is not touched by this."
        }
        "ModifySnapshotAttribute" => {
            "What was copied while the snapshot was shared stays copied: take its content as known to whoever it was \
             shared with. Cordon takes a share away only from encrypted snapshots and where a forensic account is \
             configured."
        }
        "TerminateInstances" => {
            "A terminated instance does not come back; its volumes, interfaces and snapshots may remain."
        }
        "StopInstances" | "RebootInstances" => {
            "What was in the instance's memory is gone, and so are its instance store volumes if it was stopped. Cordon \
             does not start it."
        }
        "StartInstances" => "Cordon does not stop it; what runs at the start has run.",
        "DetachVolume" => "Cordon does not attach the volume again; what it holds may be changed elsewhere.",
        "DeleteVolume" => "A deleted volume does not come back; its snapshots remain.",
        "StartSession" => "What was done in the session is done; Cordon ends it if it is still open.",
        "UnlockSnapshot" | "LockSnapshot" => "While its lock was off or shorter, the snapshot could be deleted.",
        "AttachInstances" => "The group may terminate the instance before it is detached.",
        _ => return Vec::new(),
    };
    vec![Text::ours(text)]
}

/// How to take a share away that Cordon may leave; the id is checked, because it becomes part of a command.
fn unshare(drift: &Value, instances: &[Instance]) -> Option<Next> {
    let (Some(snapshot), [instance]) = (drift["Resource"].as_str(), instances) else { return None };
    let digits = snapshot.strip_prefix("snap-")?;
    let good = matches!(digits.len(), 8 | 17) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let region = instance.region.as_deref()?;
    (good && drift["EventName"] == "ModifySnapshotAttribute").then(|| Next {
        label: "Take the share away".to_owned(),
        text: Text::ours("In the account of the snapshot. It takes away the share with a forensic account as well."),
        command: Some(format!(
            "aws ec2 reset-snapshot-attribute --region {region} --snapshot-id {snapshot} --attribute createVolumePermission"
        )),
    })
}
