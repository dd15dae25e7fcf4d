//! Whole reports: what became of each instance, and whether the execution may succeed.

use serde_json::json;

use super::*;

fn verified(id: &str, verdict: &str) -> Value {
    let step = json!({ "Step": "isolate-network", "Status": "Done", "Changes": [], "ResidualRisk": [] });
    json!({ "InstanceId": id, "Region": "eu-west-1", "Verdict": verdict, "Open": [], "Steps": [step] })
}

fn of(event: Value) -> ExecutionReport {
    super::report(serde_json::from_value(event).expect("an event"))
}

/// The verdict, and whether the execution may succeed.
fn ended(report: &ExecutionReport) -> (&str, bool) {
    (report.verdict.as_str(), report.succeeded)
}

fn report(dry_run: bool, instances: Vec<Value>) -> ExecutionReport {
    of(json!({ "DryRun": dry_run, "Instances": instances }))
}

#[test]
fn all_contained_succeeds_and_one_that_is_not_makes_the_whole_fail() {
    assert!(report(false, vec![verified("i-1", "Contained"), verified("i-2", "Contained")]).succeeded);
    let mixed = report(false, vec![verified("i-1", "Contained"), verified("i-2", "PartiallyContained")]);
    assert_eq!(ended(&mixed), ("PartiallyContained", false));
}

#[test]
fn a_failure_before_the_verdict_has_a_row_with_its_step_and_reason() {
    let cause = json!({ "errorType": "NotFound", "errorMessage": "there is no instance i-2" }).to_string();
    let failed = json!({
        "Target": { "InstanceId": "i-2", "Region": "eu-west-1" },
        "Failure": { "Step": "describe-instance", "Error": "NotFound", "Cause": cause },
    });
    let report = report(false, vec![verified("i-1", "Contained"), failed]);
    assert_eq!(ended(&report), ("NotContained", false));
    assert!(report.table.contains("i-2 in eu-west-1: NotContained"));
    assert!(report.table.contains("describe-instance    Failed         NotFound: there is no instance i-2"));
    assert_eq!(report.instances[1].open[0], "describe-instance Failed: NotFound: there is no instance i-2");
}

#[test]
fn an_instance_with_unsealed_evidence_is_partly_contained_and_says_why() {
    let mut contained = verified("i-1", "Contained");
    contained["Unsealed"] = json!({ "Step": "seal-evidence", "Error": "AccessDenied", "Cause": "kms:Sign: denied" });
    let report = report(false, vec![contained]);
    assert_eq!(ended(&report), ("PartiallyContained", false));
    assert!(report.table.contains("seal-evidence        Failed         AccessDenied: kms:Sign: denied"));
    assert!(json!(report)["Instances"][0].get("Unsealed").is_none());
}

#[test]
fn a_dry_run_succeeds_when_all_is_planned_and_never_otherwise() {
    assert!(report(true, vec![verified("i-1", "Planned")]).succeeded);
    assert!(!report(true, vec![verified("i-1", "NotContained")]).succeeded);
    assert!(!report(false, vec![verified("i-1", "Planned")]).succeeded);
}

#[test]
fn no_instance_and_an_unknown_verdict_are_no_success() {
    assert!(!report(false, vec![]).succeeded);
    assert!(!report(false, vec![verified("i-1", "Contained"), verified("i-2", "Fine")]).succeeded);
}

fn left_out(status: &str) -> Value {
    json!({ "InstanceId": "i-9", "AccountId": "123456789012", "Region": "eu-west-1", "Status": status, "Reason": "because" })
}

#[test]
fn only_an_instance_left_out_by_failure_fails_the_execution() {
    let with =
        |status: &str, instances: Vec<Value>| of(json!({ "LeftOut": [left_out(status)], "Instances": instances }));
    let nothing = with("NotApplicable", vec![]);
    assert_eq!(ended(&nothing), ("NothingDone", true));
    assert!(nothing.table.contains("i-9 in eu-west-1: because"));
    let contained = with("NotApplicable", vec![verified("i-1", "Contained")]);
    assert_eq!(ended(&contained), ("Contained", true));
    let failed = with("Failed", vec![verified("i-1", "Contained")]);
    assert_eq!(ended(&failed), ("NotContained", false));
}

#[test]
fn a_refusal_is_a_good_end_and_says_that_nothing_is_contained() {
    let refused = report(false, vec![verified("i-1", "Contained"), verified("i-2", "NotApproved")]);
    assert_eq!(ended(&refused), ("NotApproved", true));
}

#[test]
fn only_a_samples_made_up_instance_may_be_missing() {
    let failed = json!({
        "Target": { "InstanceId": "i-99999999", "Region": "eu-west-1" },
        "Failure": { "Step": "describe-instance", "Error": "NotFound", "Cause": "there is none" },
    });
    let sampled = |sample: bool| of(json!({ "DryRun": true, "Sample": sample, "Instances": [failed] }));
    assert_eq!(ended(&sampled(true)), ("NothingDone", true));
    assert_eq!(ended(&sampled(false)), ("NotContained", false));
}

#[test]
fn a_failed_start_notification_stands_above_everything_else() {
    let told = json!({ "Step": "notify", "Error": "AccessDenied", "Cause": "sns:Publish: denied" });
    let report = of(json!({ "Told": told, "Instances": [verified("i-1", "Contained")] }));
    assert!(report.table.starts_with("start notification failed: AccessDenied: sns:Publish: denied"));
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
fn a_huge_table_fits_an_executions_cause() {
    let step = json!({ "Step": "s", "Status": "Failed", "Reason": "壊".repeat(900) });
    let instance = json!({ "InstanceId": "i-1", "Verdict": "NotContained", "Steps": vec![step; 60] });
    assert!(report(false, vec![instance]).table.chars().count() < 32_768);
}

fn released(verdict: &str, open: Value) -> ExecutionReport {
    let mut instance = verified("i-1", verdict);
    instance["Open"] = open;
    of(json!({ "Workflow": "Release", "Instances": [instance] }))
}

#[test]
fn a_release_succeeds_when_all_that_was_asked_for_is_released_and_only_then() {
    let whole = released("Released", json!([]));
    assert_eq!(ended(&whole), ("Released", true));
    let subset = released("PartiallyReleased", json!([]));
    assert_eq!(ended(&subset), ("PartiallyReleased", true));
    assert!(!released("PartiallyReleased", json!(["isolate-network Unsupported: gone"])).succeeded);
    assert!(!released("NotReleased", json!(["isolate-network Failed: denied"])).succeeded);
    let confused = released("Contained", json!([]));
    assert_eq!(ended(&confused), ("NotReleased", false));
}

#[test]
fn nothing_to_release_is_a_good_end_and_a_held_case_is_not() {
    let with = |status: &str| of(json!({ "Workflow": "Release", "LeftOut": [left_out(status)], "Instances": [] }));
    assert_eq!(ended(&with("NotApplicable")), ("NothingToRelease", true));
    assert_eq!(ended(&with("Failed")), ("NotReleased", false));
    assert!(with("Failed").table.contains("i-9 in eu-west-1: NotReleased: because"));
}

#[test]
fn a_release_that_failed_early_or_is_unsealed_says_so_in_its_own_words() {
    let failed = json!({
        "Target": { "InstanceId": "i-2", "Region": "eu-west-1" },
        "Failure": { "Step": "verify-release", "Error": "States.Timeout", "Cause": "" },
    });
    let report = of(json!({ "Workflow": "Release", "Instances": [failed] }));
    assert!(report.verdict == Verdict::NotReleased && report.table.starts_with("i-2 in eu-west-1: NotReleased"));
    let mut unsealed = verified("i-1", "Released");
    unsealed["Unsealed"] = json!({ "Step": "seal-evidence", "Error": "AccessDenied", "Cause": "denied" });
    let report = of(json!({ "Workflow": "Release", "Instances": [unsealed] }));
    assert_eq!(ended(&report), ("PartiallyReleased", false));
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

/// What build 2800eab answered, on the local stack.
fn recorded(report: &str) -> Value {
    serde_json::from_str(report).expect("JSON")
}

#[test]
fn a_recorded_containment_is_reported_as_it_was() {
    let recorded = recorded(include_str!("../../../crates/verdict/tests/recorded/containment.json"));
    let report = of(json!({ "Instances": recorded["Instances"], "LeftOut": [], "Told": null, "Fleet": null }));
    assert_eq!(json!(report), recorded);
}

#[test]
fn a_recorded_release_is_reported_as_it_was() {
    let recorded = recorded(include_str!("../../../crates/verdict/tests/recorded/release.json"));
    let report = of(json!({ "Workflow": "Release", "Instances": recorded["Instances"], "LeftOut": [] }));
    assert_eq!(json!(report), recorded);
}

#[test]
fn an_instance_of_another_shape_costs_no_other_and_is_not_contained() {
    let odd = json!({ "InstanceId": "i-2", "Verdict": "Contained", "Steps": 7 });
    for odd in [odd, json!(7), json!(null), json!("Contained")] {
        let report = report(false, vec![verified("i-1", "Contained"), odd]);
        assert_eq!(ended(&report), ("NotContained", false));
        assert!(report.instances[0].verdict == Verdict::Contained, "{report:?}");
    }
}
