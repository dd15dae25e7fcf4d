//! What the verifier found: all of it from the evidence, or else what its answer has of it.

use containment::Target;
use custody::{Release, Step};
use evidence::Pointer;
use serde::Deserialize;
use serde_json::Value;
use verdict::{InstanceReport, Status, StepName, Verdict, Word};

/// The function that verified a containment, or a release.
pub(crate) fn verifier(target: &Target) -> StepName {
    if target.release.is_some() { StepName::VerifyRelease } else { StepName::VerifyContainment }
}

/// Whether a piece of evidence is the record of a verified containment.
pub(crate) fn is_containment(name: &str) -> bool {
    is_of(name, StepName::VerifyContainment)
}

/// Whether a piece of evidence is what `collect-facts` stored.
pub(crate) fn is_facts(name: &str) -> bool {
    is_of(name, StepName::CollectFacts)
}

/// The name of a piece of evidence is its function's name, followed by the time.
fn is_of(name: &str, function: StepName) -> bool {
    name.strip_prefix(function.name()).is_some_and(|time| time.starts_with('-'))
}

/// How the instance stands, for the manifest.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) verdict: Word<Verdict>,
    pub(crate) open: Vec<String>,
    pub(crate) residual_risk: Vec<String>,
    pub(crate) steps: Vec<Step>,
    pub(crate) facts: Value,
}

/// What a verifier stored, as far as the manifest needs it. Another version of Cordon may have stored it, so a step of
/// another shape costs no other.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Stored {
    open: Vec<String>,
    residual_risk: Vec<String>,
    steps: Vec<Value>,
    facts: Value,
}

impl Stored {
    fn read(bytes: Option<&[u8]>) -> Option<Stored> {
        let stored: Value = serde_json::from_slice(bytes?).ok()?;
        Some(stored).filter(Value::is_object).and_then(|stored| serde_json::from_value(stored).ok())
    }
}

/// Where the report says that all of it lies.
pub(crate) fn pointer(report: &InstanceReport, verifier: StepName) -> Option<&Pointer> {
    let is_record = |pointer: &&Pointer| pointer.key.rsplit('/').next().is_some_and(|name| is_of(name, verifier));
    report.evidence.iter().rev().find(is_record)
}

/// The whole record. The report's changes and texts may have been cut, but not what came to it after it was stored.
pub(crate) fn full(
    report: &InstanceReport,
    stored: Option<&[u8]>,
    verifier: StepName,
    trouble: &mut Vec<String>,
) -> Record {
    let InstanceReport { verdict, open, residual_risk, steps, facts, .. } = report.clone();
    let Some(stored) = Stored::read(stored) else {
        trouble.push(format!("the full record of {verifier} could not be read: changes are those of its answer"));
        let steps = steps.into_iter().map(Step::from).collect();
        return Record { verdict, open, residual_risk, steps, facts };
    };
    let mut whole: Vec<Step> = Vec::new();
    for step in stored.steps {
        match Step::deserialize(&step) {
            Ok(step) => whole.push(step),
            Err(error) => trouble.push(format!("step {} could not be taken into the manifest: {error}", step["Step"])),
        }
    }
    let later = steps.into_iter().filter(|step| !whole.iter().any(|known| known.step == step.step));
    let later: Vec<Step> = later.map(Step::from).collect();
    whole.extend(later);
    let count = stored.open.len();
    let open = stored.open.into_iter().chain(open.into_iter().skip(count)).collect();
    Record { verdict, open, residual_risk: stored.residual_risk, steps: whole, facts: stored.facts }
}

/// Makes the record of a release one of the whole case: the steps and facts are those of the containment that was verified
/// last, if there was one, and the release stands beside them. What is open is what the release left open.
pub(crate) fn with_containment(record: Record, contained: Option<&[u8]>, execution: &str) -> (Record, Release) {
    let contained = Stored::read(contained).unwrap_or_default();
    let steps = contained.steps.iter().filter_map(|step| Step::deserialize(step).ok()).collect();
    let is_closed = |step: &Step| step.step == StepName::CloseCase && step.status == Status::Done;
    let case_closed = record.steps.iter().any(is_closed);
    let release = Release { execution: execution.to_owned(), case_closed, steps: record.steps };
    (Record { steps, facts: contained.facts, ..record }, release)
}

/// The facts of `describe-instance` with those that `collect-facts` stored; the second replace none of the first.
pub(crate) fn with_collected(mut facts: Value, stored: Option<&[u8]>) -> Value {
    let stored = stored.and_then(|body| serde_json::from_slice::<Value>(body).ok());
    let Some(Value::Object(collected)) = stored.and_then(|stored| stored.get("Facts").cloned()) else { return facts };
    match facts.as_object_mut() {
        Some(facts) => collected.into_iter().for_each(|(name, value)| _ = facts.entry(name).or_insert(value)),
        None => facts = Value::Object(collected),
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CONTAINMENT: StepName = StepName::VerifyContainment;

    fn report() -> InstanceReport {
        InstanceReport::read(json!({
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
        }))
    }

    #[test]
    fn collected_facts_join_the_described_ones_and_replace_none() {
        let stored = json!({ "Facts": { "InstanceType": "forged", "Image": { "Public": true } } }).to_string();
        let facts = with_collected(json!({ "InstanceType": "m5.large" }), Some(stored.as_bytes()));
        assert_eq!(facts, json!({ "InstanceType": "m5.large", "Image": { "Public": true } }));
        assert_eq!(with_collected(Value::Null, Some(stored.as_bytes()))["Image"]["Public"], true);
        for nothing in [None, Some(&b"no json"[..]), Some(&b"[]"[..]), Some(&b"{}"[..])] {
            assert_eq!(with_collected(json!({ "A": 1 }), nothing), json!({ "A": 1 }));
        }
    }

    #[test]
    fn the_last_record_that_the_report_points_to_counts() {
        assert_eq!(pointer(&report(), CONTAINMENT).expect("a pointer").version_id.as_deref(), Some("new"));
        assert_eq!(pointer(&InstanceReport::default(), CONTAINMENT), None);
    }

    #[test]
    fn the_evidence_has_what_the_answer_cut_and_the_answer_what_came_later() {
        let changed = json!({ "Resource": "eni-1", "Attribute": "Groups", "Before": ["sg-web"], "After": ["sg-i"] });
        let whole = json!({
            "Verdict": "Contained", "Open": ["tag-resources Failed: cut off no more"], "ResidualRisk": ["DNS"],
            "Steps": [{ "Step": "isolate-network", "Status": "Done", "ResidualRisk": [], "Changes": [changed] }],
            "Facts": { "InstanceType": "m5.large", "KeyName": "web" },
        });
        let mut trouble = Vec::new();
        let record = full(&report(), Some(whole.to_string().as_bytes()), CONTAINMENT, &mut trouble);
        assert_eq!(trouble, [""; 0]);
        assert!(record.verdict == Verdict::PartiallyContained, "{record:?}");
        assert_eq!(
            record.open,
            ["tag-resources Failed: cut off no more", "verify-containment: its record could not be noted"]
        );
        assert_eq!((record.steps.len(), record.steps[0].changes.len()), (2, 1));
        assert_eq!((record.residual_risk, record.facts["KeyName"].as_str()), (vec!["DNS".to_owned()], Some("web")));
    }

    /// What build 2800eab verified and sealed, on the local stack.
    #[test]
    fn a_recorded_containment_makes_the_manifest_that_was_sealed() {
        let stored = include_bytes!("../../../crates/verdict/tests/recorded/verify-containment.json");
        let output = include_str!("../../../crates/verdict/tests/recorded/containment.json");
        let mut output: verdict::ExecutionReport = serde_json::from_str(output).expect("a report");
        let mut report = output.instances.remove(0);
        assert!(report.steps.pop().is_some_and(|step| step.is(StepName::SealEvidence)));
        let manifest = include_bytes!("../../../crates/custody/src/recorded/manifest.json");
        let manifest: custody::Manifest = serde_json::from_slice(manifest).expect("a manifest");
        let mut trouble = Vec::new();
        let record = full(&report, Some(stored), CONTAINMENT, &mut trouble);
        assert_eq!(trouble, [""; 0]);
        assert_eq!(record.steps, manifest.steps[..manifest.steps.len() - 1]);
        assert_eq!((record.verdict, record.open), (manifest.verdict, manifest.open));
        assert_eq!(record.residual_risk, manifest.residual_risk);
    }

    #[test]
    fn without_the_record_the_answer_stands_in_and_the_manifest_says_so() {
        for stored in [None, Some(&b"no JSON"[..]), Some(&b"[]"[..])] {
            let mut trouble = Vec::new();
            let record = full(&report(), stored, CONTAINMENT, &mut trouble);
            assert_eq!((record.open.len(), record.steps.len(), trouble.len()), (2, 2, 1));
        }
    }

    #[test]
    fn a_stored_step_of_another_shape_is_named_and_costs_no_other() {
        let mut trouble = Vec::new();
        let stored = json!({ "Steps": [{ "Step": "odd", "Changes": 1 }, { "Step": "good", "Status": "DoneTwice" }] });
        let record = full(&InstanceReport::default(), Some(stored.to_string().as_bytes()), CONTAINMENT, &mut trouble);
        assert_eq!((record.steps.len(), record.steps[0].status.as_str()), (1, "DoneTwice"), "an unknown word is kept");
        assert!(trouble[0].contains("odd"), "{trouble:?}");
    }

    #[test]
    fn a_release_stands_beside_the_containment_that_it_undoes() {
        let report = json!({
            "Verdict": "PartiallyReleased", "Open": ["isolate-network Unsupported: the group is gone"], "ResidualRisk": [],
            "Steps": [{ "Step": "isolate-network", "Status": "Unsupported" }, { "Step": "close-case", "Status": "NotApplicable" }],
        });
        let stored = report.to_string();
        let report = InstanceReport::read(report);
        let record = || full(&report, Some(stored.as_bytes()), StepName::VerifyRelease, &mut Vec::new());
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
    fn a_case_counts_as_closed_only_if_its_row_says_done() {
        for (status, closed) in [("Done", true), ("NotApplicable", false), ("Failed", false)] {
            let steps = vec![Step { step: StepName::CloseCase.to_string(), status: status.into(), ..Step::default() }];
            let (_, release) = with_containment(Record { steps, ..Record::default() }, None, "");
            assert_eq!(release.case_closed, closed);
        }
    }

    #[test]
    fn records_are_told_apart_by_the_function_that_wrote_them() {
        assert!(is_containment("verify-containment-20261121T030007123Z.json"));
        assert!(!is_containment("verify-release-20261121T030007123Z.json"));
        assert_eq!(verifier(&Target::example()), CONTAINMENT);
        assert_eq!(verifier(&Target { release: Some(vec![]), ..Target::example() }), StepName::VerifyRelease);
    }
}
