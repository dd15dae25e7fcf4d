//! One table for the whole execution: a row per instance and step. Reads and changes nothing in AWS.

use containment::{Error, Outcome, Reported, Result, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What the state machine hands over: what became of each instance.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Event {
    /// Whether it was a dry run.
    #[serde(default)]
    pub dry_run: bool,
    /// For each instance its verified report, or the failure that came before one.
    pub instances: Vec<Value>,
}

/// The execution's result.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// The worst of the instances' verdicts.
    pub verdict: &'static str,
    /// Whether the execution may succeed: every step of every instance is done, or has nothing to do.
    pub succeeded: bool,
    /// The instances' reports.
    pub instances: Vec<Value>,
    /// The same as text, for the cause of a failed execution.
    pub table: String,
}

/// A failed execution's cause has at most 32,768 characters.
const TABLE_AT_MOST: usize = 30_000;

/// From worst to best.
const VERDICTS: [&str; 4] = ["NotContained", "PartiallyContained", "Contained", "Planned"];

/// The function: all instances in, the table out.
pub fn handle(event: Value) -> Result<Report> {
    let event: Event =
        serde_json::from_value(event).map_err(|error| Error::InvalidInput(format!("the event of report: {error}")))?;
    let instances: Vec<Value> = event.instances.into_iter().map(instance).collect();
    let of = |i: &Value| i["Verdict"].as_str().unwrap_or_default().to_owned();
    let worst = VERDICTS.into_iter().find(|verdict| instances.iter().any(|i| of(i) == *verdict));
    // No instance at all is no success, and neither is a verdict that nobody knows.
    let verdict =
        worst.filter(|_| instances.iter().all(|i| VERDICTS.contains(&of(i).as_str()))).unwrap_or("NotContained");
    let wanted = if event.dry_run { "Planned" } else { "Contained" };
    Ok(Report { verdict, succeeded: verdict == wanted, table: table(&instances), instances })
}

/// A report as it is; a failure that came before one as a report whose verdict is that nothing is known to be contained.
fn instance(reported: Value) -> Value {
    if reported["Verdict"].is_string() {
        return reported;
    }
    let target = &reported["Target"];
    let outcomes = reported["Outcomes"].as_array().cloned().unwrap_or_default();
    let outcomes = outcomes.into_iter().flat_map(|branch| branch.as_array().cloned().unwrap_or_else(|| vec![branch]));
    let failure = reported.get("Failure").cloned().into_iter();
    let mut steps: Vec<Outcome> = outcomes
        .chain(failure)
        .filter_map(|outcome| serde_json::from_value::<Reported>(outcome).ok().map(Outcome::from))
        .collect();
    for step in &mut steps {
        step.residual_risk.truncate(1);
        step.changes.truncate(2);
    }
    let open: Vec<String> = steps
        .iter()
        .filter(|step| step.status == Status::Failed)
        .map(|step| format!("{} Failed: {}", step.step, step.reason.as_deref().unwrap_or("no reason given")))
        .collect();
    json!({
        "InstanceId": target["InstanceId"], "AccountId": target["AccountId"], "Region": target["Region"],
        "CaseId": target["CaseId"], "Verdict": "NotContained", "Open": open, "ResidualRisk": [],
        "Steps": steps, "Facts": reported["Facts"], "Evidence": [],
    })
}

fn table(instances: &[Value]) -> String {
    let mut rows = Vec::new();
    for instance in instances {
        let text = |name: &str| instance[name].as_str().unwrap_or("unknown").to_owned();
        rows.push(format!("{} in {}: {}", text("InstanceId"), text("Region"), text("Verdict")));
        for step in instance["Steps"].as_array().into_iter().flatten() {
            let (name, status) = (step["Step"].as_str().unwrap_or("?"), step["Status"].as_str().unwrap_or("?"));
            let reason = step["Reason"].as_str().unwrap_or_default();
            let reason = if matches!(status, "Done" | "NotApplicable") { "" } else { reason };
            rows.push(format!("  {name:<20} {status:<14} {reason}").trim_end().to_owned());
        }
        // Whatever is open and belongs to no step.
        let steps = instance["Steps"].as_array().map_or(&[][..], Vec::as_slice);
        let of_a_step =
            |line: &str| steps.iter().any(|s| s["Step"].as_str().is_some_and(|name| line.starts_with(name)));
        let open = instance["Open"].as_array().into_iter().flatten().filter_map(Value::as_str);
        rows.extend(open.filter(|line| !of_a_step(line)).map(|line| format!("  {line}")));
    }
    let table = rows.join("\n");
    match table.char_indices().nth(TABLE_AT_MOST) {
        Some((end, _)) => format!("{}\n… the rest is in the output of the state Report", &table[..end]),
        None => table,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(id: &str, verdict: &str) -> Value {
        let step = json!({ "Step": "isolate-network", "Status": "Done", "Changes": [], "ResidualRisk": [] });
        json!({ "InstanceId": id, "Region": "eu-west-1", "Verdict": verdict, "Open": [], "Steps": [step] })
    }

    fn report(dry_run: bool, instances: Vec<Value>) -> Report {
        handle(json!({ "DryRun": dry_run, "Instances": instances })).expect("a report")
    }

    #[test]
    fn all_contained_succeeds_and_one_that_is_not_makes_the_whole_fail() {
        assert!(report(false, vec![verified("i-1", "Contained"), verified("i-2", "Contained")]).succeeded);
        let mixed = report(false, vec![verified("i-1", "Contained"), verified("i-2", "PartiallyContained")]);
        assert_eq!((mixed.verdict, mixed.succeeded), ("PartiallyContained", false));
    }

    #[test]
    fn a_failure_before_the_verdict_is_a_row_that_names_the_step_and_the_reason() {
        let cause = json!({ "errorType": "NotFound", "errorMessage": "there is no instance i-2" }).to_string();
        let failed = json!({
            "Target": { "InstanceId": "i-2", "Region": "eu-west-1" },
            "Failure": { "Step": "describe-instance", "Error": "NotFound", "Cause": cause },
        });
        let report = report(false, vec![verified("i-1", "Contained"), failed]);
        assert_eq!((report.verdict, report.succeeded), ("NotContained", false));
        assert!(report.table.contains("i-2 in eu-west-1: NotContained"));
        assert!(report.table.contains("describe-instance    Failed         NotFound: there is no instance i-2"));
        assert_eq!(report.instances[1]["Open"][0], "describe-instance Failed: NotFound: there is no instance i-2");
    }

    #[test]
    fn a_dry_run_succeeds_when_all_is_planned_and_never_otherwise() {
        assert!(report(true, vec![verified("i-1", "Planned")]).succeeded);
        assert!(!report(true, vec![verified("i-1", "NotContained")]).succeeded);
        assert!(!report(false, vec![verified("i-1", "Planned")]).succeeded);
    }

    #[test]
    fn nothing_at_all_and_an_unknown_verdict_are_no_success() {
        assert!(!report(false, vec![]).succeeded);
        assert!(!report(false, vec![verified("i-1", "Contained"), verified("i-2", "Fine")]).succeeded);
    }

    #[test]
    fn a_huge_table_stays_below_what_a_cause_may_have() {
        let step = json!({ "Step": "s", "Status": "Failed", "Reason": "壊".repeat(900) });
        let instance = json!({ "InstanceId": "i-1", "Verdict": "NotContained", "Steps": vec![step; 60] });
        assert!(report(false, vec![instance]).table.chars().count() < 32_768);
    }
}
