//! The sections that several kinds of message share: the trigger, what was left out, facts; and the same for machines.

use serde_json::{Value, json};
use verdict::LeftOut;

use crate::execution::Instance;
use crate::quoted::{Text, clean, cut};

/// The most findings, instances or reasons that a person is shown.
pub(crate) const SHOWN_AT_MOST: usize = 10;

/// How many entries of a list a machine gets.
const LISTED_AT_MOST: usize = 60;

/// A list that may be missing.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The first lines, and how many more there are.
pub(crate) fn first_of(lines: Vec<Text>, what: &str) -> Vec<Text> {
    let more = lines.len().saturating_sub(SHOWN_AT_MOST);
    let mut shown: Vec<Text> = lines.into_iter().take(SHOWN_AT_MOST).collect();
    if more > 0 {
        shown.push(Text::ours(format!("… and {more} more {what}, in the execution's output")));
    }
    shown
}

/// Why Cordon acts, in words.
pub(crate) fn why(trigger: &Value) -> Vec<Text> {
    let findings = list(&trigger["Findings"]);
    let who = match trigger["Source"].as_str() {
        Some("Hand") if findings.is_empty() => return vec![Text::ours("Somebody started it by hand.")],
        Some("Hand") => "Somebody started it by hand, about: ",
        Some("Drift") => return crate::drift::said(&trigger["Drift"]),
        Some("GuardDuty") => "GuardDuty says: ",
        Some("SecurityHubCustomAction") => "Somebody chose this finding in Security Hub: ",
        Some("SecurityHub") => "Security Hub says: ",
        _ if findings.is_empty() => return vec![Text::ours("The trigger is unknown.")],
        _ => "A finding says: ",
    };
    first_of(findings.iter().map(|finding| Text::ours(who).then(said(finding))).collect(), "findings")
}

fn said(finding: &Value) -> Text {
    let mut text = match finding["Title"].as_str().filter(|title| !title.is_empty()) {
        Some(title) => Text::default().quoting(title),
        None => Text::ours("a finding without a title"),
    };
    if let Some(of) = finding["FindingType"].as_str().filter(|of| !of.is_empty()) {
        text = text.and(", type ").quoting(of);
    }
    text = match &finding["Severity"] {
        Value::Number(severity) => text.and(format!(", severity {}", severity.as_f64().unwrap_or_default())),
        Value::String(severity) => text.and(", severity ").quoting(severity),
        _ => text.and(", without a severity"),
    };
    if let Some(id) = finding["Id"].as_str().filter(|id| !id.is_empty()) {
        text = text.and(", finding ").arn(id);
    }
    if finding["Sample"] == true {
        text = text.and(". It is a sample that the service generated for a test");
    }
    text
}

/// The trigger for machines.
pub(crate) fn trigger(trigger: &Value) -> Value {
    if trigger.is_null() {
        return Value::Null;
    }
    let findings = list(&trigger["Findings"]).iter().take(20);
    let fields = |finding: &Value| {
        let texts = ["Id", "FindingType", "Title"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), json!(clean(finding[name].as_str()?, 512)))));
        let severity = Some(&finding["Severity"]).filter(|severity| severity.is_number());
        let severity = severity.map(|severity| ("Severity".to_owned(), severity.clone()));
        let sample = finding["Sample"].as_bool().map(|sample| ("Sample".to_owned(), json!(sample)));
        Value::Object(texts.chain(severity).chain(sample).collect())
    };
    let mut told = json!({
        "Source": clean(trigger["Source"].as_str().unwrap_or("Unknown"), 40),
        "Findings": findings.map(fields).collect::<Vec<_>>(),
    });
    if trigger["Drift"].is_object() {
        told["Drift"] = crate::drift::data(&trigger["Drift"]);
    }
    told
}

/// Reads the list of what an event left out.
pub(crate) fn read_left_out(entries: &Value) -> Vec<LeftOut> {
    list(entries).iter().cloned().map(LeftOut::read).collect()
}

/// The instances and findings left out, in words.
pub(crate) fn left_out(entries: &[LeftOut]) -> Vec<Text> {
    let lines = entries.iter().map(|left| {
        let instance = Instance::from(left);
        let text = if instance.is_named() { instance.place().and(": ") } else { Text::default() };
        let text = if left.has_failed() { text.and("could not be handled: ") } else { text };
        match left.reason.as_str() {
            "" => text.and("the event does not say why"),
            reason => text.quoting(reason),
        }
    });
    first_of(lines.collect(), "that were left out")
}

/// The same for machines.
pub(crate) fn left_out_data(entries: &[LeftOut]) -> Vec<Value> {
    let entry = |left: &LeftOut| {
        let mut data = Instance::from(left).to_json();
        for (name, text) in [("Status", left.status.as_str()), ("Reason", left.reason.as_str())] {
            if !text.is_empty() {
                data[name] = json!(clean(text, 512));
            }
        }
        data
    };
    entries.iter().take(LISTED_AT_MOST).map(entry).collect()
}

/// Texts for machines, cut to a fixed length.
pub(crate) fn texts(texts: &[String]) -> Vec<String> {
    texts.iter().take(20).map(|text| clean(text, 300)).collect()
}

/// The facts about the instance that a decision needs.
pub(crate) fn facts(facts: &Value) -> Vec<Text> {
    const SHOWN: [(&str, &str); 9] = [
        ("InstanceType", "Type"),
        ("State", "State"),
        ("Platform", "Platform"),
        ("LaunchTime", "Launched"),
        ("PrivateIpAddresses", "Private addresses"),
        ("PublicIpAddress", "Public address"),
        ("AutoScalingGroups", "Auto Scaling groups"),
        ("InstanceProfileArn", "Instance profile"),
        ("Tags", "Tags"),
    ];
    let line = |(name, label): (&str, &str)| {
        let (label, value) = (Text::ours(format!("{label}: ")), shown(&facts[name]));
        match name {
            _ if value.is_empty() => None,
            "InstanceType" if is_instance_type(&value) => Some(label.and(value)),
            _ => Some(label.quoting(&value)),
        }
    };
    SHOWN.into_iter().filter_map(line).collect()
}

/// `m7g.large`, which is no address although it looks like one.
fn is_instance_type(text: &str) -> bool {
    text.len() <= 30 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(name, value)| format!("{name} = {}", cut(&shown(value), 80)));
            pairs.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
