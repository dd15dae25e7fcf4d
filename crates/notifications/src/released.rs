//! The message about a release that ended well, and what to do about it.

use verdict::{ExecutionReport, Verdict};

use crate::ended::{Group, offer_reports};
use crate::event::Ending;
use crate::execution::Instance;
use crate::message::{Message, these, these_ids};
use crate::quoted::Text;
use crate::sections::SHOWN_AT_MOST;

/// The headline and the subject.
pub(crate) fn headline(verdict: Verdict, groups: &[Group], report: &ExecutionReport) -> (String, String) {
    let others: Vec<Instance> = report.left_out.iter().map(Instance::from).filter(Instance::is_named).collect();
    let mut sentences: Vec<String> = groups.iter().map(|(verdict, group)| sentence(*verdict, group)).collect();
    match (sentences.is_empty(), others.as_slice()) {
        (true, []) => sentences.push("Cordon's report names no instance: treat nothing as released.".to_owned()),
        (_, []) => {}
        (_, others) => sentences.push(sentence(Verdict::NothingToRelease, others)),
    }
    let ids = these_ids(groups.first().map_or(others.as_slice(), |(_, group)| group));
    let subject = match verdict {
        Verdict::Released => format!("released {ids}"),
        Verdict::PartiallyReleased => format!("released in part, as requested: {ids}"),
        Verdict::Planned => format!("dry run for {ids}"),
        Verdict::NothingToRelease => format!("nothing to release: {ids}"),
        _ => format!("NOT released: {ids}"),
    };
    (sentences.join(" "), subject)
}

fn sentence(verdict: Verdict, instances: &[Instance]) -> String {
    let who = these(instances);
    match verdict {
        Verdict::Released => {
            format!(
                "Cordon has released {who}: everything that the case changed reads back as it was before the containment."
            )
        }
        Verdict::PartiallyReleased => {
            format!("Cordon has released part of {who}, as requested; the rest stays contained.")
        }
        Verdict::Planned => format!("A dry run: Cordon has planned the release of {who} and changed nothing."),
        Verdict::NothingToRelease => format!("There was nothing to release for {who}, and nothing was changed."),
        _ => format!("NOT released, as far as Cordon knows: {who}."),
    }
}

/// Adds the next steps.
pub(crate) fn advise(message: &mut Message, ending: &Ending) {
    let reports = &ending.report.instances;
    offer_reports(message, reports);
    for report in reports.iter().take(SHOWN_AT_MOST) {
        let instance = Instance::from(report);
        if report.verdict != Verdict::Released {
            message.release(&instance, Text::ours("Its case is still open: this releases what is left."));
        }
        message.contain_by_hand(&instance, Text::ours("To contain it again, start its containment by hand."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ended::ended;
    use crate::message::Kind;
    use serde_json::{Value, json};
    use verdict::Workflow;

    const ID: &str = "i-0123456789abcdef0";

    fn instance(verdict: &str) -> Value {
        json!({ "InstanceId": ID, "AccountId": "444455556666", "Region": "eu-west-1", "Verdict": verdict, "Open": [] })
    }

    fn told(report: Value) -> Option<Message> {
        let execution = json!({ "Id": "arn:aws:states:eu-west-1:111122223333:execution:cordon-release:run-1" });
        let report = serde_json::from_value(report).expect("a report");
        ended(&Ending { execution, report, ..Ending::default() }, Workflow::Release)
    }

    fn of(verdict: &str) -> Message {
        let report = json!({ "Verdict": verdict, "Succeeded": true, "Instances": [instance(verdict)], "LeftOut": [] });
        told(report).expect("a message")
    }

    #[test]
    fn a_release_comes_with_the_command_that_contains_it_again() {
        let message = of("Released");
        assert_eq!(
            (message.kind, message.subject.as_str()),
            (Kind::Ended(Verdict::Released), &*format!("Cordon: released {ID}"))
        );
        assert!(message.headline.starts_with(&format!("Cordon has released {ID} in eu-west-1 (account 444455556666)")));
        let commands: Vec<&str> = message.next.iter().filter_map(|next| next.command.as_deref()).collect();
        assert!(commands.len() == 1 && commands[0].contains("stateMachine:cordon --input"), "{commands:?}");
    }

    #[test]
    fn a_partial_release_comes_with_the_command_that_releases_the_rest() {
        let message = of("PartiallyReleased");
        assert_eq!(message.kind, Kind::Ended(Verdict::PartiallyReleased));
        assert!(message.headline.contains("released part of") && !message.headline.contains("has released i-"));
        assert!(message.next[0].command.as_deref().expect("a command").contains("stateMachine:cordon-release --input"));
    }

    #[test]
    fn an_unknown_verdict_is_announced_as_not_released() {
        for verdict in ["", "Contained", "released"] {
            let report = json!({ "Verdict": "Released", "Succeeded": true, "Instances": [instance(verdict)] });
            let odd = told(report).expect("a message");
            assert!(
                odd.kind == Kind::Ended(Verdict::NotReleased) && odd.headline.starts_with("NOT released"),
                "{}",
                odd.headline
            );
        }
        let empty = told(json!({ "Verdict": "Released", "Succeeded": true, "Instances": [] })).expect("a message");
        assert!(empty.headline.contains("treat nothing as released"));
    }

    #[test]
    fn nothing_to_release_says_why_and_offers_nothing_to_do() {
        let mut left = instance("");
        left["Reason"] = json!("it was never contained");
        left["Status"] = json!("NotApplicable");
        let report = json!({ "Verdict": "NothingToRelease", "Succeeded": true, "Instances": [], "LeftOut": [left] });
        let message = told(report).expect("a message");
        assert_eq!((message.kind, message.next.len()), (Kind::Ended(Verdict::NothingToRelease), 0));
        assert!(message.headline.starts_with(&format!("There was nothing to release for {ID}")));
        assert!(message.first.iter().any(|s| s.lines.iter().any(|l| l.plain().contains("“it was never contained”"))));
    }

    #[test]
    fn a_dry_run_and_a_bad_end_are_not_announced_here() {
        assert!(
            told(json!({ "Verdict": "NotReleased", "Succeeded": false, "Instances": [instance("NotReleased")] }))
                .is_none()
        );
        let report = ExecutionReport { succeeded: true, ..ExecutionReport::default() };
        let quiet = Ending { quiet: json!(true), report, ..Ending::default() };
        assert!(ended(&quiet, Workflow::Release).is_none());
    }
}
