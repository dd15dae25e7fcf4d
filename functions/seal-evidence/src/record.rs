//! What `verify-containment` or `verify-release` found: all of it from the evidence, or else what its answer has of it.

use containment::Target;
use custody::{Release, Step};
use evidence::Pointer;
use serde::Deserialize;
use serde_json::Value;

/// The name of the function that has verified a containment, or a release.
pub(crate) fn verifier(target: &Target) -> &'static str {
    if target.release.is_some() { "verify-release" } else { CONTAINMENT }
}

const CONTAINMENT: &str = "verify-containment";

/// The row of a release's report that is about the case itself.
const CLOSE: &str = "close-case";

/// Whether a piece of evidence is the record of a verified containment.
pub(crate) fn is_containment(name: &str) -> bool {
    is_of(name, CONTAINMENT)
}

/// A piece of evidence has its function's name, and then the time.
fn is_of(name: &str, function: &str) -> bool {
    name.strip_prefix(function).is_some_and(|time| time.starts_with('-'))
}

/// How the instance stands, for the manifest.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) verdict: String,
    pub(crate) open: Vec<String>,
    pub(crate) residual_risk: Vec<String>,
    pub(crate) steps: Vec<Step>,
    pub(crate) facts: Value,
}

/// Where the report says that its whole lies.
pub(crate) fn pointer(report: &Value, verifier: &str) -> Option<Pointer> {
    let pointers = report["Evidence"].as_array()?.iter().rev();
    let mut pointers = pointers.filter_map(|pointer| Pointer::deserialize(pointer).ok());
    pointers.find(|pointer| pointer.key.rsplit('/').next().is_some_and(|name| is_of(name, verifier)))
}

/// The whole record. The report's changes and texts may have been cut; what came to it after it was stored has not.
pub(crate) fn full(report: &Value, stored: Option<&[u8]>, verifier: &str, trouble: &mut Vec<String>) -> Record {
    let whole = stored.and_then(|body| serde_json::from_slice::<Value>(body).ok()).filter(Value::is_object);
    if whole.is_none() {
        trouble.push(format!("the full record of {verifier} could not be read: changes are those of its answer"));
    }
    let whole = whole.as_ref().unwrap_or(report);
    let mut open = texts(&whole["Open"]);
    open.extend(texts(&report["Open"]).into_iter().skip(open.len()));
    let mut steps = Vec::new();
    let listed = |of: &Value| of["Steps"].as_array().cloned().unwrap_or_default();
    for step in listed(whole).into_iter().chain(listed(report)) {
        match Step::deserialize(&step) {
            Ok(step) if steps.iter().any(|known: &Step| known.step == step.step) => {}
            Ok(step) => steps.push(step),
            Err(error) => trouble.push(format!("step {} could not be taken into the manifest: {error}", step["Step"])),
        }
    }
    Record {
        verdict: report["Verdict"].as_str().unwrap_or_default().to_owned(),
        open,
        residual_risk: texts(&whole["ResidualRisk"]),
        steps,
        facts: whole["Facts"].clone(),
    }
}

/// Makes the record of a release one of the whole case: the steps and facts are those of the containment that was verified
/// last, where there was one, and the release is told beside them. What is open is what the release has left.
pub(crate) fn with_containment(record: Record, contained: Option<&[u8]>, execution: &str) -> (Record, Release) {
    let contained = contained.and_then(|body| serde_json::from_slice::<Value>(body).ok()).unwrap_or_default();
    let steps = contained["Steps"].as_array().into_iter().flatten().filter_map(|step| Step::deserialize(step).ok());
    let case_closed = record.steps.iter().any(|step| step.step == CLOSE && step.status == "Done");
    let release = Release { execution: execution.to_owned(), case_closed, steps: record.steps };
    (Record { steps: steps.collect(), facts: contained["Facts"].clone(), ..record }, release)
}

/// The facts of `describe-instance` with those that `collect-facts` has stored; what the first has said stays.
pub(crate) fn with_collected(mut facts: Value, stored: Option<&[u8]>) -> Value {
    let stored = stored.and_then(|body| serde_json::from_slice::<Value>(body).ok());
    let Some(Value::Object(collected)) = stored.and_then(|stored| stored.get("Facts").cloned()) else { return facts };
    match facts.as_object_mut() {
        Some(facts) => collected.into_iter().for_each(|(name, value)| _ = facts.entry(name).or_insert(value)),
        None => facts = Value::Object(collected),
    }
    facts
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> Value {
        json!({
            "Verdict": "PartiallyContained",
            "Open": ["tag-resources Failed: cu…", "verify-containment: its record could not be noted"],
            "ResidualRisk": ["DN…"],
            "Steps": [{ "Step": "isolate-network", "Status": "Done", "Reason": "cu…" }, { "Step": "later", "Status": "Done" }],
            "Facts": { "InstanceType": "m5.large" },
            "Evidence": [
                { "Bucket": "b", "Key": "cases/1/r/c/verify-containment-1.json", "VersionId": "old" },
                { "Bucket": "b", "Key": "cases/1/r/c/verify-containment-2.json", "VersionId": "new" },
                { "Bucket": "b", "Key": "cases/1/r/c/report.html" },
            ],
        })
    }

    #[test]
    fn collected_facts_stand_beside_those_of_the_description_and_replace_none() {
        let stored = json!({ "Facts": { "InstanceType": "forged", "Image": { "Public": true } } }).to_string();
        let facts = with_collected(json!({ "InstanceType": "m5.large" }), Some(stored.as_bytes()));
        assert_eq!(facts, json!({ "InstanceType": "m5.large", "Image": { "Public": true } }));
        assert_eq!(with_collected(Value::Null, Some(stored.as_bytes()))["Image"]["Public"], true);
        for nothing in [None, Some(&b"no json"[..]), Some(&b"[]"[..]), Some(&b"{}"[..])] {
            assert_eq!(with_collected(json!({ "A": 1 }), nothing), json!({ "A": 1 }));
        }
    }

    #[test]
    fn the_record_that_counts_is_the_last_one_that_the_report_points_to() {
        assert_eq!(pointer(&report(), CONTAINMENT).expect("a pointer").version_id.as_deref(), Some("new"));
        assert_eq!(pointer(&json!({}), CONTAINMENT), None);
    }

    #[test]
    fn what_the_answer_has_cut_comes_from_the_evidence_and_what_came_later_from_the_answer() {
        let changed = json!({ "Resource": "eni-1", "Attribute": "Groups", "Before": ["sg-web"], "After": ["sg-i"] });
        let whole = json!({
            "Verdict": "Contained", "Open": ["tag-resources Failed: cut off no more"], "ResidualRisk": ["DNS"],
            "Steps": [{ "Step": "isolate-network", "Status": "Done", "ResidualRisk": [], "Changes": [changed] }],
            "Facts": { "InstanceType": "m5.large", "KeyName": "web" },
        });
        let mut trouble = Vec::new();
        let record = full(&report(), Some(whole.to_string().as_bytes()), CONTAINMENT, &mut trouble);
        assert_eq!(trouble, [""; 0]);
        assert_eq!(record.verdict, "PartiallyContained");
        assert_eq!(
            record.open,
            ["tag-resources Failed: cut off no more", "verify-containment: its record could not be noted"]
        );
        assert_eq!((record.steps.len(), record.steps[0].changes.len()), (2, 1));
        assert_eq!((record.residual_risk, record.facts["KeyName"].as_str()), (vec!["DNS".to_owned()], Some("web")));
    }

    #[test]
    fn without_the_record_the_answer_stands_for_it_and_that_is_said() {
        for stored in [None, Some(&b"no JSON"[..]), Some(&b"[]"[..])] {
            let mut trouble = Vec::new();
            let record = full(&report(), stored, CONTAINMENT, &mut trouble);
            assert_eq!((record.open.len(), record.steps.len(), trouble.len()), (2, 2, 1));
        }
    }

    #[test]
    fn a_step_of_another_shape_is_said_and_stops_nothing() {
        let mut trouble = Vec::new();
        let report = json!({ "Steps": [{ "Step": "odd", "Changes": 1 }, { "Step": "good", "Status": "Done" }] });
        let record = full(&report, Some(b"{}"), CONTAINMENT, &mut trouble);
        assert_eq!(record.steps.len(), 1);
        assert!(trouble[0].contains("odd"), "{trouble:?}");
    }

    #[test]
    fn a_release_is_told_beside_the_containment_that_it_undoes_and_what_is_open_is_what_it_has_left() {
        let report = json!({
            "Verdict": "PartiallyReleased", "Open": ["isolate-network Unsupported: the group is gone"], "ResidualRisk": [],
            "Steps": [{ "Step": "isolate-network", "Status": "Unsupported" }, { "Step": "close-case", "Status": "NotApplicable" }],
        });
        let record = || full(&report, Some(report.to_string().as_bytes()), "verify-release", &mut Vec::new());
        let contained = json!({
            "Open": [], "ResidualRisk": ["DNS"], "Facts": { "InstanceType": "m5.large" },
            "Steps": [{ "Step": "isolate-network", "Status": "Done" }],
        });
        let (case, release) = with_containment(record(), Some(contained.to_string().as_bytes()), "arn:release");
        assert_eq!(
            (case.verdict.as_str(), case.open.len(), case.steps[0].status.as_str()),
            ("PartiallyReleased", 1, "Done")
        );
        assert_eq!(case.facts["InstanceType"], "m5.large");
        assert_eq!((release.execution.as_str(), release.case_closed, release.steps.len()), ("arn:release", false, 2));
        let (without, _) = with_containment(record(), None, "arn:release");
        assert_eq!((without.steps.len(), without.facts), (0, Value::Null));
    }

    #[test]
    fn a_case_counts_as_closed_only_where_its_row_says_done() {
        for (status, closed) in [("Done", true), ("NotApplicable", false), ("Failed", false)] {
            let steps = vec![Step { step: CLOSE.into(), status: status.into(), ..Step::default() }];
            let (_, release) = with_containment(Record { steps, ..Record::default() }, None, "");
            assert_eq!(release.case_closed, closed);
        }
    }

    #[test]
    fn records_are_told_apart_by_the_function_that_wrote_them() {
        assert!(is_containment("verify-containment-20261121T030007123Z.json"));
        assert!(!is_containment("verify-release-20261121T030007123Z.json"));
        assert_eq!(verifier(&Target::example()), "verify-containment");
        assert_eq!(verifier(&Target { release: Some(vec![]), ..Target::example() }), "verify-release");
    }
}
