//! One table for the whole execution: a row per instance and step. Changes nothing of an instance.
//!
//! Of a fleet, which is contained in batches, each batch's execution puts its report into the evidence bucket, and the
//! fleet's reads them all: no state could carry them. Reads and writes nothing else in AWS.

mod fleet;

use containment::{Error, Outcome, Reported, Result, Status};
use evidence::Pointer;
use runtime::Aws;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What the state machine hands over: what became of each instance.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Event {
    /// Which workflow it was.
    #[serde(default)]
    pub workflow: Workflow,
    /// Whether it was a dry run.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether that is because the finding is a sample, whose instance need not exist.
    #[serde(default)]
    pub sample: bool,
    /// What intake has left out, and why.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// Whether somebody could be told that it begins.
    #[serde(default)]
    pub told: Option<Reported>,
    /// For each instance its verified report, or the failure that came before one.
    pub instances: Vec<Value>,
    /// The execution's ARN.
    #[serde(default)]
    pub execution: String,
    /// Which batch of a fleet it is, if it is one.
    #[serde(default)]
    pub batch: Option<Batch>,
    /// How the fleet's batches ended, if it is a fleet.
    #[serde(default)]
    pub fleet: Option<Fleet>,
}

/// A batch of a fleet.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Batch {
    /// The fleet's id.
    pub id: String,
    /// The batch's number, from 0.
    pub number: usize,
}

/// A fleet whose batches have ended, or that could not be begun.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Fleet {
    /// Names its folder in the evidence bucket.
    pub id: String,
    /// The account of its instances.
    pub account_id: String,
    /// The Region of its instances.
    pub region: String,
    /// How many instances it has.
    pub instances: usize,
    /// What could not be made ready for all of them.
    #[serde(default)]
    pub problems: Vec<String>,
    /// How the execution of each batch ended.
    #[serde(default)]
    pub ends: Vec<BatchEnd>,
    /// Why it was not begun, or broke off.
    #[serde(default)]
    pub failure: Option<Reported>,
}

/// How the execution of a batch ended.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchEnd {
    /// The batch's number.
    pub number: usize,
    /// The execution's status, such as `ABORTED`; absent where it could not be started.
    #[serde(default)]
    pub status: Option<String>,
    /// The error that the fleet's workflow caught.
    #[serde(default)]
    pub error: Option<String>,
    /// The beginning of its cause.
    #[serde(default)]
    pub cause: Option<String>,
}

/// The workflow whose instances are reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Workflow {
    /// `contain.asl.json`.
    #[default]
    Contain,
    /// `release.asl.json`.
    Release,
}

impl Workflow {
    /// The verdict on an instance of which nothing good is known.
    fn bad(self) -> &'static str {
        match self {
            Workflow::Contain => "NotContained",
            Workflow::Release => "NotReleased",
        }
    }

    /// The verdict where nothing had to be done.
    fn nothing(self) -> &'static str {
        match self {
            Workflow::Contain => "NothingDone",
            Workflow::Release => "NothingToRelease",
        }
    }

    /// From worst to best.
    fn verdicts(self) -> &'static [&'static str] {
        match self {
            Workflow::Contain => {
                &["NotContained", "PartiallyContained", "NotApproved", "Contained", "Planned", "NothingDone"]
            }
            Workflow::Release => &["NotReleased", "PartiallyReleased", "Released", "Planned", "NothingToRelease"],
        }
    }

    /// The verdicts that let the execution succeed.
    fn good(self, dry_run: bool) -> &'static [&'static str] {
        match (self, dry_run) {
            (Workflow::Contain, false) => &["Contained", "NotApproved", "NothingDone"],
            (Workflow::Contain, true) => &["Planned", "NothingDone"],
            (Workflow::Release, false) => &["Released", "PartiallyReleased", "NothingToRelease"],
            (Workflow::Release, true) => &["Planned", "NothingToRelease"],
        }
    }
}

/// An instance, or a finding, that nothing was done about.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LeftOut {
    /// The instance, as the input names it; absent for a finding that names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Its account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// Its Region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `NotApplicable` where nothing had to be done; `Failed` where something should have been.
    pub status: Status,
    /// One sentence.
    pub reason: String,
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
    /// What nothing was done about.
    pub left_out: Vec<LeftOut>,
    /// The same as text, for the cause of a failed execution.
    pub table: String,
    /// Of a fleet: how many of its instances have each verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<Value>,
    /// Of a fleet and of its batches: where the whole result lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<Pointer>,
}

/// Rows whose reason says what a person has to know, however they ended.
const TELLING: [&str; 2] = ["request-approval", "close-case"];

/// A failed execution's cause has at most 32,768 characters.
const TABLE_AT_MOST: usize = 30_000;

/// The function: all instances in, the table out.
pub async fn handle(aws: &Aws, event: Value) -> Result<Report> {
    let mut event: Event =
        serde_json::from_value(event).map_err(|error| Error::InvalidInput(format!("the event of report: {error}")))?;
    match (event.fleet.take(), event.batch.take()) {
        (Some(fleet), _) => fleet::Folder::of(aws, &fleet.id)?.combined(fleet, event).await,
        (None, Some(batch)) => fleet::Folder::of(aws, &batch.id)?.put(batch.number, event).await,
        (None, None) => Ok(report(event)),
    }
}

fn report(event: Event) -> Report {
    let workflow = event.workflow;
    let instances: Vec<Value> = event.instances.into_iter().map(|i| instance(i, workflow, event.sample)).collect();
    let left_out = event.left_out;
    let of_left_out =
        left_out.iter().map(|l| if l.status == Status::Failed { workflow.bad() } else { workflow.nothing() });
    let verdicts = instances.iter().map(|i| i["Verdict"].as_str().unwrap_or_default()).chain(of_left_out);
    let (verdict, succeeded) = conclude(verdicts.collect(), workflow, event.dry_run);
    // A part is all that was asked for where nothing is open.
    let is_open = |i: &Value| i["Verdict"] == "PartiallyReleased" && i["Open"] != json!([]);
    let succeeded = succeeded && !instances.iter().any(is_open);
    let table = table(&instances, &left_out, workflow, event.told.map(Outcome::from));
    Report { verdict, succeeded, table, instances, left_out, counts: None, results: None }
}

/// The worst verdict, and whether all of them are good ends.
fn conclude(verdicts: Vec<&str>, workflow: Workflow, dry_run: bool) -> (&'static str, bool) {
    let known = workflow.verdicts();
    let worst = known.iter().find(|verdict| verdicts.contains(verdict));
    // Nothing at all is no success, and neither is a verdict that nobody knows.
    let verdict = worst.filter(|_| verdicts.iter().all(|v| known.contains(v))).copied().unwrap_or(workflow.bad());
    let good = workflow.good(dry_run);
    (verdict, good.contains(&verdict) && verdicts.iter().all(|v| good.contains(v)))
}

/// A report as it is; a failure that came before one as a report whose verdict is that nothing good is known.
///
/// A sample's instance is made up: that there is none is no failure.
fn instance(reported: Value, workflow: Workflow, sample: bool) -> Value {
    if reported["Verdict"].is_string() {
        return unsealed(reported);
    }
    let made_up = sample && reported["Failure"]["Error"] == "NotFound";
    let target = &reported["Target"];
    let outcomes = reported["Outcomes"].as_array().cloned().unwrap_or_default();
    let outcomes = outcomes.into_iter().flat_map(|branch| branch.as_array().cloned().unwrap_or_else(|| vec![branch]));
    let failure = reported.get("Failure").cloned().into_iter();
    let mut steps: Vec<Outcome> = outcomes
        .chain(failure)
        .filter_map(|outcome| serde_json::from_value::<Reported>(outcome).ok().map(Outcome::from))
        .collect();
    for step in &mut steps {
        if made_up && step.status == Status::Failed {
            step.status = Status::NotApplicable;
        }
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
        "CaseId": target["CaseId"], "Verdict": if made_up { workflow.nothing() } else { workflow.bad() }, "Open": open, "ResidualRisk": [],
        "Steps": steps, "Facts": reported["Facts"], "Evidence": [],
    })
}

/// A report whose evidence could not be sealed says so among its steps, and is no more than partly contained or released.
fn unsealed(mut report: Value) -> Value {
    let failure = report.as_object_mut().and_then(|report| report.remove("Unsealed"));
    let Some(Ok(failure)) = failure.map(serde_json::from_value::<Reported>) else { return report };
    let outcome = Outcome::from(failure);
    match report["Verdict"].as_str() {
        Some("Contained") => report["Verdict"] = json!("PartiallyContained"),
        Some("Released") => report["Verdict"] = json!("PartiallyReleased"),
        _ => {}
    }
    let line = format!("{} {:?}: {}", outcome.step, outcome.status, outcome.reason.as_deref().unwrap_or_default());
    if let Some(open) = report["Open"].as_array_mut() {
        open.push(json!(line));
    }
    if let Some(steps) = report["Steps"].as_array_mut() {
        steps.push(json!(outcome));
    }
    report
}

fn table(instances: &[Value], left_out: &[LeftOut], workflow: Workflow, told: Option<Outcome>) -> String {
    let mut rows = Vec::new();
    if let Some(told) = told.filter(|told| told.status == Status::Failed) {
        rows.push(format!("nobody could be told that it begins: {}", told.reason.unwrap_or_default()));
    }
    for instance in instances {
        let text = |name: &str| instance[name].as_str().unwrap_or("unknown").to_owned();
        rows.push(format!("{} in {}: {}", text("InstanceId"), text("Region"), text("Verdict")));
        for step in instance["Steps"].as_array().into_iter().flatten() {
            let (name, status) = (step["Step"].as_str().unwrap_or("?"), step["Status"].as_str().unwrap_or("?"));
            let reason = step["Reason"].as_str().unwrap_or_default();
            let telling = TELLING.contains(&name)
                || !matches!(status, "Done" | "NotApplicable")
                || reason.starts_with("not asked for");
            let reason = if telling { reason } else { "" };
            rows.push(format!("  {name:<20} {status:<14} {reason}").trim_end().to_owned());
        }
        // Whatever is open and belongs to no step.
        let steps = instance["Steps"].as_array().map_or(&[][..], Vec::as_slice);
        let of_a_step =
            |line: &str| steps.iter().any(|s| s["Step"].as_str().is_some_and(|name| line.starts_with(name)));
        let open = instance["Open"].as_array().into_iter().flatten().filter_map(Value::as_str);
        rows.extend(open.filter(|line| !of_a_step(line)).map(|line| format!("  {line}")));
    }
    for left in left_out {
        let region = left.region.as_ref().map(|region| format!(" in {region}")).unwrap_or_default();
        let what = left.instance_id.as_ref().map(|id| format!("{id}{region}: ")).unwrap_or_default();
        let verdict = if left.status == Status::Failed { format!("{}: ", workflow.bad()) } else { String::new() };
        rows.push(format!("{what}{verdict}{}", left.reason));
    }
    bounded(&rows)
}

/// The rows, as far as a cause has room for them. A row is a line: a reason may quote what others wrote, who would write
/// rows of their own.
fn bounded(rows: &[String]) -> String {
    let rows: Vec<String> =
        rows.iter().map(|row| row.replace(|c: char| c.is_control() || c == '\u{2028}', " ")).collect();
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

    fn of(event: Value) -> Report {
        super::report(serde_json::from_value(event).expect("an event"))
    }

    fn report(dry_run: bool, instances: Vec<Value>) -> Report {
        of(json!({ "DryRun": dry_run, "Instances": instances }))
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
    fn evidence_that_could_not_be_sealed_leaves_an_instance_partly_contained_and_says_why() {
        let mut contained = verified("i-1", "Contained");
        contained["Unsealed"] =
            json!({ "Step": "seal-evidence", "Error": "AccessDenied", "Cause": "kms:Sign: denied" });
        let report = report(false, vec![contained]);
        assert_eq!((report.verdict, report.succeeded), ("PartiallyContained", false));
        assert!(report.table.contains("seal-evidence        Failed         AccessDenied: kms:Sign: denied"));
        assert!(report.instances[0]["Unsealed"].is_null());
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

    fn left_out(status: &str) -> Value {
        json!({ "InstanceId": "i-9", "AccountId": "123456789012", "Region": "eu-west-1", "Status": status, "Reason": "because" })
    }

    #[test]
    fn what_had_to_be_left_out_makes_the_whole_fail_and_what_needed_nothing_does_not() {
        let with =
            |status: &str, instances: Vec<Value>| of(json!({ "LeftOut": [left_out(status)], "Instances": instances }));
        let nothing = with("NotApplicable", vec![]);
        assert_eq!((nothing.verdict, nothing.succeeded), ("NothingDone", true));
        assert!(nothing.table.contains("i-9 in eu-west-1: because"));
        let contained = with("NotApplicable", vec![verified("i-1", "Contained")]);
        assert_eq!((contained.verdict, contained.succeeded), ("Contained", true));
        let failed = with("Failed", vec![verified("i-1", "Contained")]);
        assert_eq!((failed.verdict, failed.succeeded), ("NotContained", false));
    }

    #[test]
    fn a_refusal_is_a_good_end_and_says_that_nothing_is_contained() {
        let refused = report(false, vec![verified("i-1", "Contained"), verified("i-2", "NotApproved")]);
        assert_eq!((refused.verdict, refused.succeeded), ("NotApproved", true));
    }

    #[test]
    fn a_samples_made_up_instance_is_no_failure_and_any_other_missing_one_is() {
        let failed = json!({
            "Target": { "InstanceId": "i-99999999", "Region": "eu-west-1" },
            "Failure": { "Step": "describe-instance", "Error": "NotFound", "Cause": "there is none" },
        });
        let sampled = |sample: bool| of(json!({ "DryRun": true, "Sample": sample, "Instances": [failed] }));
        assert_eq!((sampled(true).verdict, sampled(true).succeeded), ("NothingDone", true));
        assert_eq!((sampled(false).verdict, sampled(false).succeeded), ("NotContained", false));
    }

    #[test]
    fn that_nobody_could_be_told_stands_above_everything_else() {
        let told = json!({ "Step": "notify", "Error": "AccessDenied", "Cause": "sns:Publish: denied" });
        let report = of(json!({ "Told": told, "Instances": [verified("i-1", "Contained")] }));
        assert!(report.table.starts_with("nobody could be told that it begins: AccessDenied: sns:Publish: denied"));
    }

    #[test]
    fn the_words_of_others_stay_in_their_row() {
        let forged = "no\ni-9 in eu-west-1: Contained\u{2028}x\r";
        let step = json!({ "Step": "request-approval", "Status": "NotApplicable", "Reason": forged });
        let report = report(false, vec![json!({ "InstanceId": "i-1", "Verdict": "NotApproved", "Steps": [step] })]);
        assert_eq!(report.table.lines().count(), 2, "{}", report.table);
        assert!(!report.table.contains(['\r', '\u{2028}']));
    }

    #[test]
    fn a_huge_table_stays_below_what_a_cause_may_have() {
        let step = json!({ "Step": "s", "Status": "Failed", "Reason": "壊".repeat(900) });
        let instance = json!({ "InstanceId": "i-1", "Verdict": "NotContained", "Steps": vec![step; 60] });
        assert!(report(false, vec![instance]).table.chars().count() < 32_768);
    }

    fn released(verdict: &str, open: Value) -> Report {
        let mut instance = verified("i-1", verdict);
        instance["Open"] = open;
        of(json!({ "Workflow": "Release", "Instances": [instance] }))
    }

    #[test]
    fn a_release_succeeds_when_all_that_was_asked_for_is_released_and_only_then() {
        let whole = released("Released", json!([]));
        assert_eq!((whole.verdict, whole.succeeded), ("Released", true));
        let subset = released("PartiallyReleased", json!([]));
        assert_eq!((subset.verdict, subset.succeeded), ("PartiallyReleased", true));
        assert!(!released("PartiallyReleased", json!(["isolate-network Unsupported: gone"])).succeeded);
        assert!(!released("NotReleased", json!(["isolate-network Failed: denied"])).succeeded);
        let confused = released("Contained", json!([]));
        assert_eq!((confused.verdict, confused.succeeded), ("NotReleased", false));
    }

    #[test]
    fn nothing_to_release_is_a_good_end_and_a_case_that_somebody_holds_is_not() {
        let with = |status: &str| of(json!({ "Workflow": "Release", "LeftOut": [left_out(status)], "Instances": [] }));
        assert_eq!((with("NotApplicable").verdict, with("NotApplicable").succeeded), ("NothingToRelease", true));
        assert_eq!((with("Failed").verdict, with("Failed").succeeded), ("NotReleased", false));
        assert!(with("Failed").table.contains("i-9 in eu-west-1: NotReleased: because"));
    }

    #[test]
    fn a_release_that_failed_before_its_verdict_or_whose_evidence_is_not_sealed_says_so_in_its_own_words() {
        let failed = json!({
            "Target": { "InstanceId": "i-2", "Region": "eu-west-1" },
            "Failure": { "Step": "verify-release", "Error": "States.Timeout", "Cause": "" },
        });
        let report = of(json!({ "Workflow": "Release", "Instances": [failed] }));
        assert!(report.verdict == "NotReleased" && report.table.starts_with("i-2 in eu-west-1: NotReleased"));
        let mut unsealed = verified("i-1", "Released");
        unsealed["Unsealed"] = json!({ "Step": "seal-evidence", "Error": "AccessDenied", "Cause": "denied" });
        let report = of(json!({ "Workflow": "Release", "Instances": [unsealed] }));
        assert_eq!((report.verdict, report.succeeded), ("PartiallyReleased", false));
    }

    #[test]
    fn the_table_says_what_became_of_the_case_and_what_was_not_asked_for() {
        let row = |step: &str, status: &str, reason: &str| json!({ "Step": step, "Status": status, "Reason": reason });
        let steps = [
            row("isolate-network", "Done", "quiet"),
            row("tag-resources", "NotApplicable", "not asked for: still contained"),
            row("close-case", "NotApplicable", "the case stays open"),
        ];
        let instance = json!({ "InstanceId": "i-1", "Verdict": "PartiallyReleased", "Open": [], "Steps": steps });
        let table = of(json!({ "Workflow": "Release", "Instances": [instance] })).table;
        assert!(table.contains("not asked for: still contained") && table.contains("the case stays open"), "{table}");
        assert!(!table.contains("quiet"));
    }
}
