//! The message about a release that the workflow could bring to an end.

use serde_json::Value;

use crate::ended::{data, evidence, of_each, offer_reports};
use crate::event::Ending;
use crate::execution::{Execution, Instance};
use crate::message::{Kind, Message, these, these_ids};
use crate::quoted::{Text, clean_lines};
use crate::told::{SHOWN_AT_MOST, first_of, left_out, left_out_data, list};

/// How the release ended. None where nothing is worth telling, and none about an execution that will end FAILED: the rule
/// outside the workflow announces that.
pub(crate) fn released(ending: &Ending) -> Option<Message> {
    let report = &ending.report;
    if ending.quiet == true || report["Succeeded"] == false {
        return None;
    }
    let (reports, left) = (list(&report["Instances"]), list(&report["LeftOut"]));
    let instances: Vec<Instance> = reports.iter().map(Instance::read).collect();
    let kind = kind(report, reports);
    let (headline, subject) = headline(kind, reports, left);
    let mut message = Message::new(kind, Execution::read(&ending.execution), headline, subject);
    message.say_first("Instances", first_of(reports.iter().map(line).collect(), "instances"));
    message.say_first("Left out", left_out(left));
    message.say_first("Open", of_each(reports, "Open"));
    message.say_first("What to know", of_each(reports, "ResidualRisk"));
    offer_reports(&mut message, reports);
    for report in reports.iter().take(SHOWN_AT_MOST) {
        let instance = Instance::read(report);
        if report["Verdict"] != "Released" {
            message.release(&instance, Text::ours("Its case is still open: this releases what is left."));
        }
        message.contain_by_hand(&instance, Text::ours("If it has to be contained again, start it by hand."));
    }
    message.say_later("Evidence", evidence(reports));
    message.table = clean_lines(report["Table"].as_str().unwrap_or_default(), 200, 300);
    message.set("Instances", reports.iter().map(data).collect::<Vec<_>>());
    message.set("LeftOut", left_out_data(left));
    message.instances = instances;
    Some(message)
}

/// Verdicts from worst to best, with the kind of message about them.
const VERDICTS: [(&str, Kind); 4] = [
    ("NotReleased", Kind::NotReleased),
    ("PartiallyReleased", Kind::PartiallyReleased),
    ("Released", Kind::Released),
    ("NothingToRelease", Kind::NothingToRelease),
];

/// A verdict's place among [`VERDICTS`]; one that nobody knows is as bad as the worst.
fn rank(verdict: &Value) -> usize {
    VERDICTS.iter().position(|(name, _)| verdict == name).unwrap_or_default()
}

/// The report's verdict, unless an instance has a worse one.
fn kind(report: &Value, reports: &[Value]) -> Kind {
    let worst = reports.iter().map(|report| rank(&report["Verdict"])).chain([rank(&report["Verdict"])]).min();
    VERDICTS[worst.unwrap_or_default()].1
}

fn headline(kind: Kind, reports: &[Value], left: &[Value]) -> (String, String) {
    let of = |verdict: usize| {
        let of = reports.iter().filter(|report| rank(&report["Verdict"]) == verdict);
        of.map(Instance::read).collect::<Vec<_>>()
    };
    let groups = (0..VERDICTS.len()).map(|rank| (VERDICTS[rank].1, of(rank))).filter(|(_, group)| !group.is_empty());
    let groups: Vec<(Kind, Vec<Instance>)> = groups.collect();
    let others: Vec<Instance> = left.iter().map(Instance::read).filter(Instance::is_named).collect();
    let mut sentences: Vec<String> = groups.iter().map(|(kind, group)| sentence(*kind, group)).collect();
    match (sentences.is_empty(), others.as_slice()) {
        (true, []) => sentences.push("Cordon's report names no instance: take nothing as released.".to_owned()),
        (_, []) => {}
        (_, others) => sentences.push(sentence(Kind::NothingToRelease, others)),
    }
    let worst = groups.first().map_or(others.as_slice(), |(_, group)| group);
    let ids = these_ids(worst);
    let subject = match kind {
        Kind::Released => format!("released {ids}"),
        Kind::PartiallyReleased => format!("released in part, as asked: {ids}"),
        Kind::NothingToRelease => format!("nothing to release: {ids}"),
        _ => format!("NOT released: {ids}"),
    };
    (sentences.join(" "), subject)
}

fn sentence(kind: Kind, instances: &[Instance]) -> String {
    let who = these(instances);
    match kind {
        Kind::Released => {
            format!("Cordon has released {who}: what the case had changed reads back as it was before the containment.")
        }
        Kind::PartiallyReleased => {
            format!("Cordon has released what was asked for of {who}, and the rest stays as containment left it.")
        }
        Kind::NothingToRelease => format!("There was nothing to release for {who}, and nothing was changed."),
        _ => format!("NOT released, as far as Cordon knows: {who}."),
    }
}

fn line(report: &Value) -> Text {
    let place = Instance::read(report).place().and(": ");
    match report["Verdict"].as_str() {
        Some(known) if VERDICTS.iter().any(|(name, _)| *name == known) => place.and(known),
        Some(unknown) => place.and("a verdict that is not known, ").quoting(unknown),
        None => place.and("no verdict"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "i-0123456789abcdef0";

    fn instance(verdict: &str) -> Value {
        json!({ "InstanceId": ID, "AccountId": "444455556666", "Region": "eu-west-1", "Verdict": verdict, "Open": [] })
    }

    fn told(report: Value) -> Option<Message> {
        let execution = json!({ "Id": "arn:aws:states:eu-west-1:111122223333:execution:cordon-release:run-1" });
        released(&Ending { execution, report, ..Ending::default() })
    }

    fn of(verdict: &str) -> Message {
        let report = json!({ "Verdict": verdict, "Succeeded": true, "Instances": [instance(verdict)], "LeftOut": [] });
        told(report).expect("a message")
    }

    #[test]
    fn a_release_is_told_with_the_command_that_contains_it_again() {
        let message = of("Released");
        assert_eq!((message.kind, message.subject.as_str()), (Kind::Released, &*format!("Cordon: released {ID}")));
        assert!(message.headline.starts_with(&format!("Cordon has released {ID} in eu-west-1 (account 444455556666)")));
        let commands: Vec<&str> = message.next.iter().filter_map(|next| next.command.as_deref()).collect();
        assert!(commands.len() == 1 && commands[0].contains("stateMachine:cordon --input"), "{commands:?}");
    }

    #[test]
    fn a_part_is_told_as_a_part_with_the_command_that_releases_the_rest() {
        let message = of("PartiallyReleased");
        assert_eq!(message.kind, Kind::PartiallyReleased);
        assert!(message.headline.contains("what was asked for") && !message.headline.contains("has released i-"));
        assert!(message.next[0].command.as_deref().expect("a command").contains("stateMachine:cordon-release --input"));
    }

    #[test]
    fn what_nobody_knows_is_told_as_not_released() {
        for verdict in ["", "Contained", "released"] {
            let report = json!({ "Verdict": "Released", "Succeeded": true, "Instances": [instance(verdict)] });
            let odd = told(report).expect("a message");
            assert!(odd.kind == Kind::NotReleased && odd.headline.starts_with("NOT released"), "{}", odd.headline);
        }
        let empty = told(json!({ "Verdict": "Released", "Succeeded": true, "Instances": [] })).expect("a message");
        assert!(empty.headline.contains("take nothing as released"));
    }

    #[test]
    fn nothing_to_release_says_why_and_offers_nothing_to_do() {
        let mut left = instance("");
        left["Reason"] = json!("it was never contained");
        left["Status"] = json!("NotApplicable");
        let report = json!({ "Verdict": "NothingToRelease", "Succeeded": true, "Instances": [], "LeftOut": [left] });
        let message = told(report).expect("a message");
        assert_eq!((message.kind, message.next.len()), (Kind::NothingToRelease, 0));
        assert!(message.headline.starts_with(&format!("There was nothing to release for {ID}")));
        assert!(message.first.iter().any(|s| s.lines.iter().any(|l| l.plain().contains("“it was never contained”"))));
    }

    #[test]
    fn a_dry_run_and_a_bad_end_are_not_told_here() {
        assert!(
            told(json!({ "Verdict": "NotReleased", "Succeeded": false, "Instances": [instance("NotReleased")] }))
                .is_none()
        );
        let quiet = Ending { quiet: json!(true), report: json!({ "Succeeded": true }), ..Ending::default() };
        assert!(released(&quiet).is_none());
    }
}
