//! The message about an execution that ended well: the common part of containments and releases.

use serde_json::{Value, json};
use verdict::{ExecutionReport, InstanceReport, Pointer, Verdict, Workflow};

use crate::event::Ending;
use crate::execution::{Execution, Instance};
use crate::message::{Kind, Message, Next, these_ids};
use crate::quoted::{Text, clean, clean_lines};
use crate::sections::{SHOWN_AT_MOST, first_of, left_out, left_out_data, texts, trigger, why};
use crate::{contained, released};

/// Instances with the same verdict.
pub(crate) type Group = (Verdict, Vec<Instance>);

/// Makes the message. None if there is nothing to announce, and none for an execution that will end FAILED: the rule
/// outside the workflow announces that.
pub(crate) fn ended(ending: &Ending, workflow: Workflow) -> Option<Message> {
    let report = &ending.report;
    if ending.quiet == true || !report.succeeded {
        return None;
    }
    let verdict = verdict(workflow, report);
    let groups = groups(workflow, &report.instances);
    let (headline, subject) = match workflow {
        Workflow::Contain => contained::headline(verdict, &groups, report),
        Workflow::Release => released::headline(verdict, &groups, report),
    };
    let execution = Execution::read(&ending.execution);
    let mut message = Message::new(Kind::Ended(verdict), execution, headline, subject);
    let instances = &report.instances;
    if workflow == Workflow::Contain {
        message.say_first("Why", why(&ending.trigger));
        message.set("Trigger", trigger(&ending.trigger));
    }
    message.say_first("Instances", first_of(instances.iter().map(|i| line(workflow, i)).collect(), "instances"));
    message.say_first("Left out", left_out(&report.left_out));
    message.say_first("Open", of_each(instances, |i| &i.open));
    let risks = match workflow {
        Workflow::Contain => "What an attacker can still do",
        Workflow::Release => "What to know",
    };
    message.say_first(risks, of_each(instances, |i| &i.residual_risk));
    match workflow {
        Workflow::Contain => contained::advise(&mut message, ending),
        Workflow::Release => released::advise(&mut message, ending),
    }
    message.say_later("Evidence", evidence(instances));
    message.table = clean_lines(&report.table, 200, 300);
    message.set("Instances", instances.iter().map(data).collect::<Vec<_>>());
    message.set("LeftOut", left_out_data(&report.left_out));
    message.instances = instances.iter().map(Instance::from).collect();
    Some(message)
}

/// The report's verdict, unless an instance has a worse one. A verdict about no instance says nothing of any.
fn verdict(workflow: Workflow, report: &ExecutionReport) -> Verdict {
    let own = workflow.read(&report.verdict);
    let worst = report.instances.iter().map(|instance| workflow.read(&instance.verdict)).min();
    own.min(worst.unwrap_or(if own == workflow.nothing() { own } else { workflow.worst() }))
}

/// The instances by verdict, the worst first.
fn groups(workflow: Workflow, instances: &[InstanceReport]) -> Vec<Group> {
    let of = |verdict: Verdict| {
        let of = instances.iter().filter(|instance| workflow.read(&instance.verdict) == verdict);
        (verdict, of.map(Instance::from).collect::<Vec<_>>())
    };
    Verdict::ALL.into_iter().map(of).filter(|(_, group)| !group.is_empty()).collect()
}

fn line(workflow: Workflow, report: &InstanceReport) -> Text {
    let place = Instance::from(report).place().and(": ");
    match (report.verdict.known().filter(|verdict| verdict.is_of(workflow)), report.verdict.as_str()) {
        (Some(known), _) => place.and(known.name()),
        (None, "") => place.and("no verdict"),
        (None, unknown) => place.and("an unknown verdict, ").quoting(unknown),
    }
}

/// The texts of one field, each once, with the instances to which it applies.
fn of_each(reports: &[InstanceReport], field: fn(&InstanceReport) -> &Vec<String>) -> Vec<Text> {
    let mut seen: Vec<(String, Vec<Instance>)> = Vec::new();
    for report in reports {
        for text in texts(field(report)) {
            match seen.iter_mut().find(|(known, _)| *known == text) {
                Some((_, instances)) => instances.push(Instance::from(report)),
                None => seen.push((text, vec![Instance::from(report)])),
            }
        }
    }
    let line = |(text, instances): (String, Vec<Instance>)| {
        let about = if reports.len() > 1 { format!("{}: ", these_ids(&instances)) } else { String::new() };
        Text::ours(about).quoting(&text)
    };
    first_of(seen.into_iter().map(line).collect(), "lines")
}

/// Offers the case's report, which says what was done, what is open and what to investigate, with all of its evidence.
pub(crate) fn offer_reports(message: &mut Message, reports: &[InstanceReport]) {
    let cases = reports.iter().filter_map(|report| {
        let pointers = report.evidence.iter().filter_map(bucket_and_key);
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

/// A piece of evidence's bucket and key, if they need no quoting.
pub(crate) fn bucket_and_key(pointer: &Pointer) -> Option<(&str, &str)> {
    let plain =
        |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    let (bucket, key) = (Some(pointer.bucket.as_str()).filter(plain)?, Some(pointer.key.as_str()).filter(plain)?);
    (key.len() <= 300).then_some((bucket, key))
}

fn evidence(reports: &[InstanceReport]) -> Vec<Text> {
    let pointers = reports.iter().flat_map(|report| &report.evidence).filter_map(bucket_and_key);
    first_of(pointers.map(|(bucket, key)| Text::ours(format!("s3://{bucket}/{key}"))).collect(), "objects")
}

fn data(report: &InstanceReport) -> Value {
    let mut data = Instance::from(report).to_json();
    let case = report.case_id.as_deref().unwrap_or_default();
    for (name, text) in [("CaseId", case), ("Verdict", report.verdict.as_str())] {
        if !text.is_empty() {
            data[name] = json!(clean(text, 100));
        }
    }
    for (name, lines) in [("Open", &report.open), ("ResidualRisk", &report.residual_risk)] {
        data[name] = json!(texts(lines));
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_risk_that_several_instances_share_is_named_once() {
        let with_risk = |id: &str| InstanceReport {
            instance_id: id.to_owned(),
            residual_risk: vec!["DNS is not filtered".to_owned()],
            ..InstanceReport::default()
        };
        let reports = [with_risk("i-0123456789abcdef0"), with_risk("i-0bbbbbbbbbbbbbbbb")];
        let lines: Vec<String> = of_each(&reports, |i| &i.residual_risk).iter().map(Text::plain).collect();
        assert_eq!(lines, ["i-0123456789abcdef0 and i-0bbbbbbbbbbbbbbbb: “DNS is not filtered”"]);
    }
}
