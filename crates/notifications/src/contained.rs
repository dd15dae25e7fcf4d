//! The message about a containment that ended well, and what to do about it.

use verdict::{ExecutionReport, Verdict};

use crate::ended::{Group, bucket_and_key, offer_reports};
use crate::event::Ending;
use crate::execution::Instance;
use crate::message::{Kind, Message, Next, these, these_ids};
use crate::quoted::Text;
use crate::sections::{SHOWN_AT_MOST, list};

/// The headline and the subject.
pub(crate) fn headline(verdict: Verdict, groups: &[Group], report: &ExecutionReport) -> (String, String) {
    if let Some(of_fleet) = of_fleet(report) {
        return of_fleet;
    }
    let mut sentences: Vec<String> = groups.iter().map(|(verdict, group)| sentence(*verdict, group)).collect();
    let named = |failed: bool| {
        let wanted = report.left_out.iter().filter(|left| !failed || left.has_failed()).map(Instance::from);
        wanted.filter(Instance::is_named).collect::<Vec<_>>()
    };
    if groups.is_empty() {
        sentences.push(match (verdict, named(false).as_slice()) {
            (Verdict::NothingDone, []) => "Cordon has done nothing: there was no instance to contain.".to_owned(),
            (Verdict::NothingDone, left) => format!("Cordon has done nothing about {}.", these(left)),
            _ => "Cordon's report names no instance: treat nothing as contained.".to_owned(),
        });
    } else if let [_, ..] = named(true).as_slice() {
        sentences.push(format!("Left out, and not contained by this execution: {}.", these(&named(true))));
    }
    let worst = groups.first().map(|(_, group)| group.clone()).unwrap_or_else(|| named(false));
    (sentences.join(" "), subject(verdict, &worst))
}

/// The report of a fleet shows only some of the instances, and counts them all.
fn of_fleet(report: &ExecutionReport) -> Option<(String, String)> {
    let counts = report.counts.as_ref()?;
    let instances = counts.instances;
    let known = Verdict::ALL.into_iter().filter_map(|verdict| Some((verdict, counts.verdicts.get(verdict.name())?)));
    let counts = known.map(|(verdict, count)| format!("{count} {verdict}")).collect::<Vec<_>>().join(", ");
    let whole = report.results.as_ref().and_then(bucket_and_key);
    let whole = whole.map(|(bucket, key)| format!(" The whole list: s3://{bucket}/{key}.")).unwrap_or_default();
    Some((
        format!("Cordon has finished with a fleet of {instances} instances: {counts}.{whole}"),
        format!("fleet of {instances} instances: {counts}"),
    ))
}

fn sentence(verdict: Verdict, instances: &[Instance]) -> String {
    let who = these(instances);
    match verdict {
        Verdict::Contained => {
            format!("Cordon has contained {who}: off the network, and every step reads back as done or not needed.")
        }
        Verdict::PartiallyContained => format!("Cordon has taken {who} off the network, but something else is open."),
        Verdict::NotApproved => format!("Not approved, so Cordon has not isolated {who}."),
        Verdict::Planned => format!("A dry run: Cordon has planned the containment of {who} and changed nothing."),
        Verdict::NothingDone => format!("Cordon has done nothing about {who}."),
        _ => format!("NOT contained, as far as Cordon knows: {who}."),
    }
}

fn subject(verdict: Verdict, instances: &[Instance]) -> String {
    let ids = these_ids(instances);
    match verdict {
        Verdict::Contained => format!("contained {ids}"),
        Verdict::PartiallyContained => format!("only partly contained: {ids}"),
        Verdict::NotApproved => format!("not approved, not isolated: {ids}"),
        Verdict::Planned => format!("dry run for {ids}"),
        Verdict::NothingDone if instances.is_empty() => "nothing was done".to_owned(),
        Verdict::NothingDone => format!("nothing was done about {ids}"),
        _ => format!("NOT contained: {ids}"),
    }
}

/// Adds the next steps.
pub(crate) fn advise(message: &mut Message, ending: &Ending) {
    let report = &ending.report;
    let advice = match message.kind {
        Kind::Ended(Verdict::Planned) => {
            Some(("Read the plan", "The execution's output has every change that would be made."))
        }
        Kind::Ended(Verdict::NothingDone) if report.left_out.is_empty() => Some(("Nothing", "Nobody has to act.")),
        _ => None,
    };
    message.next.extend(advice.map(|(label, text)| Next {
        label: label.to_owned(),
        text: Text::ours(text),
        command: None,
    }));
    offer_reports(message, &report.instances);
    let findings = list(&ending.trigger["Findings"]);
    let is_sample = !findings.is_empty() && findings.iter().all(|finding| finding["Sample"] == true);
    // A sample's instance does not exist.
    if !is_sample {
        offer_by_hand(message, report);
        offer_release(message, report);
    }
}

fn offer_by_hand(message: &mut Message, report: &ExecutionReport) {
    let uncontained = report.instances.iter().filter(|i| i.verdict != Verdict::Contained).map(Instance::from);
    let mut by_hand: Vec<Instance> = Vec::new();
    for instance in uncontained.chain(report.left_out.iter().map(Instance::from)).filter(Instance::is_named) {
        if !by_hand.contains(&instance) {
            by_hand.push(instance);
        }
    }
    for instance in by_hand.iter().take(SHOWN_AT_MOST) {
        message.contain_by_hand(instance, Text::ours("To contain it anyway, start its containment by hand."));
    }
}

/// Offers to release instances that were contained, or that were tagged and protected before a refusal.
fn offer_release(message: &mut Message, report: &ExecutionReport) {
    let is_changed = |verdict| matches!(verdict, Verdict::Contained | Verdict::NotApproved);
    let changed = report.instances.iter().filter(|i| i.verdict.known().is_some_and(is_changed));
    for instance in changed.map(Instance::from).filter(Instance::is_named).take(SHOWN_AT_MOST) {
        message.release(&instance, Text::ours(FALSE_ALARM));
    }
}

/// Why somebody would release an instance.
pub(crate) const FALSE_ALARM: &str =
    "If it was a false alarm: this restores exactly what Cordon changed, and reads it back.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ended::ended;
    use serde_json::{Value, json};
    use verdict::Workflow;

    const ID: &str = "i-0123456789abcdef0";

    fn instance(id: &str, verdict: &str) -> Value {
        json!({ "InstanceId": id, "AccountId": "444455556666", "Region": "eu-west-1", "Verdict": verdict })
    }

    fn message(report: Value) -> Message {
        let execution = json!({ "Id": "arn:aws:states:eu-west-1:111122223333:execution:cordon:run-1" });
        let report = serde_json::from_value(report).expect("a report");
        ended(&Ending { execution, report, ..Ending::default() }, Workflow::Contain).expect("a message")
    }

    #[test]
    fn the_headline_claims_containment_only_where_the_report_does() {
        let good =
            message(json!({ "Verdict": "Contained", "Succeeded": true, "Instances": [instance(ID, "Contained")] }));
        assert_eq!(good.kind, Kind::Ended(Verdict::Contained));
        assert!(good.headline.starts_with(&format!("Cordon has contained {ID} in eu-west-1 (account 444455556666)")));
        for verdict in ["", "Fine", "contained"] {
            let report = json!({ "Verdict": "Contained", "Succeeded": true, "Instances": [instance(ID, verdict)] });
            let odd = message(report);
            assert_eq!(odd.kind, Kind::Ended(Verdict::NotContained), "{verdict:?}");
            assert!(odd.headline.starts_with("NOT contained"), "{}", odd.headline);
        }
        let empty = message(json!({ "Verdict": "Contained", "Succeeded": true, "Instances": [] }));
        assert_eq!(empty.kind, Kind::Ended(Verdict::NotContained));
        assert!(empty.headline.contains("treat nothing as contained"));
    }

    #[test]
    fn each_verdict_has_its_own_sentence_the_worst_first() {
        let instances = [instance(ID, "Contained"), instance("i-0bbbbbbbbbbbbbbbb", "NotApproved")];
        let mixed = message(json!({ "Verdict": "NotApproved", "Succeeded": true, "Instances": instances }));
        assert_eq!(mixed.kind, Kind::Ended(Verdict::NotApproved));
        let (refused, contained) = (
            mixed.headline.find("Not approved, so Cordon has not isolated i-0b"),
            mixed.headline.find("has contained i-01"),
        );
        assert!(refused.expect("said") < contained.expect("said"), "{}", mixed.headline);
        assert_eq!(mixed.subject, "Cordon: not approved, not isolated: i-0bbbbbbbbbbbbbbbb");
        let commands: Vec<&String> = mixed.next.iter().filter_map(|next| next.command.as_ref()).collect();
        let of = |machine: &str, id: &str| {
            let of = |c: &&&String| c.contains(&format!("stateMachine:{machine} ")) && c.contains(id);
            commands.iter().filter(of).count()
        };
        // The refused instance can still be contained by hand, and both can be released.
        assert_eq!((of("cordon", "i-0bbbbbbbbbbbbbbbb"), of("cordon", ID)), (1, 0), "{commands:?}");
        assert_eq!((of("cordon-release", "i-0bbbbbbbbbbbbbbbb"), of("cordon-release", ID)), (1, 1), "{commands:?}");
    }

    #[test]
    fn the_headline_of_a_success_names_instances_left_out_by_a_failure() {
        let left =
            json!([{ "InstanceId": "i-0cccccccccccccccc", "Status": "Failed", "Reason": "an execution takes 50" }]);
        let report = json!({ "Verdict": "Contained", "Succeeded": true, "Instances": [instance(ID, "Contained")], "LeftOut": left });
        let message = message(report);
        assert!(message.headline.ends_with("Left out, and not contained by this execution: i-0cccccccccccccccc."));
        assert!(
            message
                .next
                .iter()
                .any(|n| n.label.ends_with("i-0cccccccccccccccc") && n.text.plain().contains("command is left out"))
        );
    }

    #[test]
    fn nothing_done_says_why_and_how_to_contain_it_anyway() {
        let mut left = instance(ID, "");
        left["Reason"] = json!("the response mode is NotifyOnly, so nothing was done");
        left["Status"] = json!("NotApplicable");
        let about_none =
            json!({ "Status": "NotApplicable", "Reason": "nothing was done about finding f-1: it is archived" });
        let report =
            json!({ "Verdict": "NothingDone", "Succeeded": true, "Instances": [], "LeftOut": [left, about_none] });
        let message = message(report);
        assert_eq!(message.kind, Kind::Ended(Verdict::NothingDone));
        assert_eq!(
            message.headline,
            format!("Cordon has done nothing about {ID} in eu-west-1 (account 444455556666).")
        );
        let why: Vec<String> =
            message.first.iter().find(|s| s.title == "Left out").expect("said").lines.iter().map(Text::plain).collect();
        assert_eq!(why[1], "“nothing was done about finding f-1: it is archived”");
        assert!(message.next[0].command.as_deref().expect("a command").contains("start-execution"));
        assert_eq!(message.next.len(), 1);
    }
}
