//! The message about a containment that the workflow could bring to an end.

use serde_json::{Value, json};

use crate::event::Ending;
use crate::execution::{Execution, Instance};
use crate::message::{Kind, Message, Next, these, these_ids};
use crate::quoted::{Text, clean, clean_lines};
use crate::told::{SHOWN_AT_MOST, first_of, has_failed, left_out, left_out_data, list, texts, trigger, why};

/// How containment ended. None where nothing is worth telling, and none about an execution that will end FAILED: the
/// rule outside the workflow announces that, so that one voice tells of every bad end, and a broken workflow cannot
/// silence it.
pub(crate) fn ended(ending: &Ending) -> Option<Message> {
    let report = &ending.report;
    if ending.quiet == true || report["Succeeded"] == false {
        return None;
    }
    let reports = list(&report["Instances"]);
    let left = list(&report["LeftOut"]);
    let instances: Vec<Instance> = reports.iter().map(Instance::read).collect();
    let kind = kind(report, reports);
    let (headline, subject) = headline(kind, reports, left);
    let mut message = Message::new(kind, Execution::read(&ending.execution), headline, subject);
    message.say_first("Why", why(&ending.trigger));
    message.say_first("Instances", first_of(reports.iter().map(line).collect(), "instances"));
    message.say_first("Left out", left_out(left));
    message.say_first("Open", of_each(reports, "Open"));
    message.say_first("What an attacker could still do", of_each(reports, "ResidualRisk"));
    let findings = list(&ending.trigger["Findings"]);
    let sample = !findings.is_empty() && findings.iter().all(|finding| finding["Sample"] == true);
    advise(&mut message, left);
    offer_reports(&mut message, reports);
    // A sample's instance does not exist.
    if !sample {
        offer_by_hand(&mut message, reports, left);
        offer_release(&mut message, reports);
    }
    message.say_later("Evidence", evidence(reports));
    message.table = clean_lines(report["Table"].as_str().unwrap_or_default(), 200, 300);
    message.set("Trigger", trigger(&ending.trigger));
    message.set("Instances", reports.iter().map(data).collect::<Vec<_>>());
    message.set("LeftOut", left_out_data(left));
    message.instances = instances;
    Some(message)
}

/// Verdicts from worst to best, with the kind of message about them.
const VERDICTS: [(&str, Kind); 6] = [
    ("NotContained", Kind::NotContained),
    ("PartiallyContained", Kind::PartiallyContained),
    ("NotApproved", Kind::NotApproved),
    ("Contained", Kind::Contained),
    ("Planned", Kind::Planned),
    ("NothingDone", Kind::NothingDone),
];

/// A verdict's place among [`VERDICTS`]; one that nobody knows is as bad as the worst.
fn rank(verdict: &Value) -> usize {
    VERDICTS.iter().position(|(name, _)| verdict == name).unwrap_or_default()
}

/// The report's verdict, unless an instance has a worse one.
fn kind(report: &Value, reports: &[Value]) -> Kind {
    let own = rank(&report["Verdict"]);
    let worst = reports.iter().map(|r| rank(&r["Verdict"])).min();
    // A verdict about no instance at all says nothing of any.
    let worst = worst.unwrap_or(if VERDICTS[own].1 == Kind::NothingDone { own } else { 0 });
    VERDICTS[own.min(worst)].1
}

fn headline(kind: Kind, reports: &[Value], left: &[Value]) -> (String, String) {
    let of = |verdict: usize| {
        let of = reports.iter().filter(|report| rank(&report["Verdict"]) == verdict);
        of.map(Instance::read).collect::<Vec<_>>()
    };
    let groups = (0..VERDICTS.len()).map(|rank| (VERDICTS[rank].1, of(rank))).filter(|(_, group)| !group.is_empty());
    let groups: Vec<(Kind, Vec<Instance>)> = groups.collect();
    let mut sentences: Vec<String> = groups.iter().map(|(kind, group)| sentence(*kind, group)).collect();
    let named = |wanted: &dyn Fn(&Value) -> bool| {
        let wanted = left.iter().filter(|entry| wanted(entry)).map(Instance::read);
        wanted.filter(Instance::is_named).collect::<Vec<_>>()
    };
    if groups.is_empty() {
        sentences.push(match (kind, named(&|_| true).as_slice()) {
            (Kind::NothingDone, []) => "Cordon has done nothing: no instance was to be contained.".to_owned(),
            (Kind::NothingDone, left) => format!("Cordon has done nothing about {}.", these(left)),
            _ => "Cordon's report names no instance: take nothing as contained.".to_owned(),
        });
    } else if let [_, ..] = named(&has_failed).as_slice() {
        sentences.push(format!("Left out, and not contained by this: {}.", these(&named(&has_failed))));
    }
    let worst = groups.first().map(|(_, group)| group.clone()).unwrap_or_else(|| named(&|_| true));
    (sentences.join(" "), subject(kind, &worst))
}

fn sentence(kind: Kind, instances: &[Instance]) -> String {
    let who = these(instances);
    match kind {
        Kind::Contained => {
            format!("Cordon has contained {who}: off the network, and every step read back as done or not needed.")
        }
        Kind::PartiallyContained => format!("Cordon has taken {who} off the network, but something else is open."),
        Kind::NotApproved => format!("Not approved, so Cordon has not isolated {who}."),
        Kind::Planned => format!("A dry run: Cordon has planned the containment of {who}, and changed nothing."),
        Kind::NothingDone => format!("Cordon has done nothing about {who}."),
        _ => format!("NOT contained, as far as Cordon knows: {who}."),
    }
}

fn subject(kind: Kind, instances: &[Instance]) -> String {
    let ids = these_ids(instances);
    match kind {
        Kind::Contained => format!("contained {ids}"),
        Kind::PartiallyContained => format!("only partly contained: {ids}"),
        Kind::NotApproved => format!("not approved, not isolated: {ids}"),
        Kind::Planned => format!("dry run for {ids}"),
        Kind::NothingDone if instances.is_empty() => "nothing was done".to_owned(),
        Kind::NothingDone => format!("nothing was done about {ids}"),
        _ => format!("NOT contained: {ids}"),
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

/// The texts of one field, each once, with the instances it is about.
pub(crate) fn of_each(reports: &[Value], field: &str) -> Vec<Text> {
    let mut seen: Vec<(String, Vec<Instance>)> = Vec::new();
    for report in reports {
        for text in texts(&report[field]) {
            match seen.iter_mut().find(|(known, _)| *known == text) {
                Some((_, instances)) => instances.push(Instance::read(report)),
                None => seen.push((text, vec![Instance::read(report)])),
            }
        }
    }
    let line = |(text, instances): (String, Vec<Instance>)| {
        let about = if reports.len() > 1 { format!("{}: ", these_ids(&instances)) } else { String::new() };
        Text::ours(about).quoting(&text)
    };
    first_of(seen.into_iter().map(line).collect(), "lines")
}

fn advise(message: &mut Message, left: &[Value]) {
    let mut advise = |label: &str, text: &str| {
        message.next.push(Next { label: label.to_owned(), text: Text::ours(text), command: None });
    };
    match message.kind {
        Kind::Planned => advise("Read the plan", "The execution's output has every change that would be made."),
        Kind::NothingDone if left.is_empty() => advise("Nothing", "Nobody has to act."),
        _ => {}
    }
}

/// The page that says what was done, what is left open and what there is to investigate, with all of the case's evidence.
pub(crate) fn offer_reports(message: &mut Message, reports: &[Value]) {
    let cases = reports.iter().filter_map(|report| {
        let pointers = list(&report["Evidence"]).iter().filter_map(bucket_and_key);
        let (bucket, folder) =
            pointers.filter_map(|(bucket, key)| Some((bucket, key.strip_suffix("/report.html")?))).next()?;
        let name = folder.rsplit('/').next()?;
        Some(format!("aws s3 sync s3://{bucket}/{folder} {name}"))
    });
    for command in cases.take(SHOWN_AT_MOST) {
        let text =
            Text::ours("Download the case and open its report.html; `cordon verify` checks that nothing was altered.");
        message.next.push(Next { label: "Read the report".to_owned(), text, command: Some(command) });
    }
}

/// Where a piece of evidence lies, if it is a name that needs no quoting.
fn bucket_and_key(pointer: &Value) -> Option<(&str, &str)> {
    let plain =
        |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    let (bucket, key) = (pointer["Bucket"].as_str().filter(plain)?, pointer["Key"].as_str().filter(plain)?);
    (key.len() <= 300).then_some((bucket, key))
}

fn offer_by_hand(message: &mut Message, reports: &[Value], left: &[Value]) {
    let uncontained = reports.iter().filter(|report| report["Verdict"] != "Contained");
    let mut by_hand: Vec<Instance> = Vec::new();
    for instance in uncontained.chain(left).map(Instance::read).filter(Instance::is_named) {
        if !by_hand.contains(&instance) {
            by_hand.push(instance);
        }
    }
    for instance in by_hand.iter().take(SHOWN_AT_MOST) {
        message.contain_by_hand(instance, Text::ours("If it has to be contained all the same, start it by hand."));
    }
}

/// What was contained, or only tagged and protected while a person was asked, can be undone.
fn offer_release(message: &mut Message, reports: &[Value]) {
    let changed =
        reports.iter().filter(|report| report["Verdict"] == "Contained" || report["Verdict"] == "NotApproved");
    for instance in changed.map(Instance::read).filter(Instance::is_named).take(SHOWN_AT_MOST) {
        message.release(&instance, Text::ours(FALSE_ALARM));
    }
}

/// Why somebody would release an instance.
pub(crate) const FALSE_ALARM: &str =
    "If it was a false alarm: this restores exactly what was changed, and reads it back.";

pub(crate) fn evidence(reports: &[Value]) -> Vec<Text> {
    let pointers = reports.iter().flat_map(|report| list(&report["Evidence"])).filter_map(bucket_and_key);
    first_of(pointers.map(|(bucket, key)| Text::ours(format!("s3://{bucket}/{key}"))).collect(), "objects")
}

pub(crate) fn data(report: &Value) -> Value {
    let mut data = Instance::read(report).to_json();
    for name in ["CaseId", "Verdict"] {
        if let Some(text) = report[name].as_str() {
            data[name] = json!(clean(text, 100));
        }
    }
    for name in ["Open", "ResidualRisk"] {
        data[name] = json!(texts(&report[name]));
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "i-0123456789abcdef0";

    fn instance(id: &str, verdict: &str) -> Value {
        json!({ "InstanceId": id, "AccountId": "444455556666", "Region": "eu-west-1", "Verdict": verdict })
    }

    fn message(report: Value) -> Message {
        let execution = json!({ "Id": "arn:aws:states:eu-west-1:111122223333:execution:cordon:run-1" });
        ended(&Ending { execution, report, ..Ending::default() }).expect("a message")
    }

    #[test]
    fn the_headline_claims_containment_only_where_the_report_does() {
        let good =
            message(json!({ "Verdict": "Contained", "Succeeded": true, "Instances": [instance(ID, "Contained")] }));
        assert_eq!(good.kind, Kind::Contained);
        assert!(good.headline.starts_with(&format!("Cordon has contained {ID} in eu-west-1 (account 444455556666)")));
        for verdict in ["", "Fine", "contained"] {
            let report = json!({ "Verdict": "Contained", "Succeeded": true, "Instances": [instance(ID, verdict)] });
            let odd = message(report);
            assert_eq!(odd.kind, Kind::NotContained, "{verdict:?}");
            assert!(odd.headline.starts_with("NOT contained"), "{}", odd.headline);
        }
        let empty = message(json!({ "Verdict": "Contained", "Succeeded": true, "Instances": [] }));
        assert_eq!(empty.kind, Kind::NotContained);
        assert!(empty.headline.contains("take nothing as contained"));
    }

    #[test]
    fn each_group_of_instances_has_its_own_sentence_the_worst_first() {
        let instances = [instance(ID, "Contained"), instance("i-0bbbbbbbbbbbbbbbb", "NotApproved")];
        let mixed = message(json!({ "Verdict": "NotApproved", "Succeeded": true, "Instances": instances }));
        assert_eq!(mixed.kind, Kind::NotApproved);
        let (refused, contained) = (
            mixed.headline.find("Not approved, so Cordon has not isolated i-0b"),
            mixed.headline.find("has contained i-01"),
        );
        assert!(refused.expect("said") < contained.expect("said"), "{}", mixed.headline);
        assert_eq!(mixed.subject, "Cordon: not approved, not isolated: i-0bbbbbbbbbbbbbbbb");
        let commands: Vec<&String> = mixed.next.iter().filter_map(|next| next.command.as_ref()).collect();
        assert!(commands.len() == 1 && commands[0].contains("i-0bbbbbbbbbbbbbbbb"), "{commands:?}");
    }

    #[test]
    fn what_was_left_out_by_failure_is_in_the_headline_of_a_success() {
        let left =
            json!([{ "InstanceId": "i-0cccccccccccccccc", "Status": "Failed", "Reason": "an execution takes 50" }]);
        let report = json!({ "Verdict": "Contained", "Succeeded": true, "Instances": [instance(ID, "Contained")], "LeftOut": left });
        let message = message(report);
        assert!(message.headline.ends_with("Left out, and not contained by this: i-0cccccccccccccccc."));
        assert!(
            message
                .next
                .iter()
                .any(|n| n.label.ends_with("i-0cccccccccccccccc") && n.text.plain().contains("command is left out"))
        );
    }

    #[test]
    fn nothing_done_says_why_and_how_to_contain_it_all_the_same() {
        let mut left = instance(ID, "");
        left["Reason"] = json!("the response mode is NotifyOnly, so nothing was done");
        left["Status"] = json!("NotApplicable");
        let about_none =
            json!({ "Status": "NotApplicable", "Reason": "nothing was done about finding f-1: it is archived" });
        let report =
            json!({ "Verdict": "NothingDone", "Succeeded": true, "Instances": [], "LeftOut": [left, about_none] });
        let message = message(report);
        assert_eq!(message.kind, Kind::NothingDone);
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

    #[test]
    fn a_risk_that_several_instances_share_is_said_once() {
        let with_risk = |id: &str| {
            let mut report = instance(id, "Contained");
            report["ResidualRisk"] = json!(["DNS is not filtered"]);
            report
        };
        let reports = [with_risk(ID), with_risk("i-0bbbbbbbbbbbbbbbb")];
        let lines: Vec<String> = of_each(&reports, "ResidualRisk").iter().map(Text::plain).collect();
        assert_eq!(lines, [format!("{ID} and i-0bbbbbbbbbbbbbbbb: “DNS is not filtered”")]);
    }
}
