//! What `verify-containment` found: all of it from the evidence, or else what its answer has of it.

use custody::Step;
use evidence::Pointer;
use serde::Deserialize;
use serde_json::Value;

/// The name that the verifier's record begins with.
const VERIFIER: &str = "verify-containment-";

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
pub(crate) fn pointer(report: &Value) -> Option<Pointer> {
    let pointers = report["Evidence"].as_array()?.iter().rev();
    let mut pointers = pointers.filter_map(|pointer| Pointer::deserialize(pointer).ok());
    pointers.find(|pointer| pointer.key.rsplit('/').next().is_some_and(|name| name.starts_with(VERIFIER)))
}

/// The whole record. The report's changes and texts may have been cut; what came to it after it was stored has not.
pub(crate) fn full(report: &Value, stored: Option<&[u8]>, trouble: &mut Vec<String>) -> Record {
    let whole = stored.and_then(|body| serde_json::from_slice::<Value>(body).ok()).filter(Value::is_object);
    if whole.is_none() {
        trouble.push("the full record of verify-containment could not be read: changes are those of its answer".into());
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
        assert_eq!(pointer(&report()).expect("a pointer").version_id.as_deref(), Some("new"));
        assert_eq!(pointer(&json!({})), None);
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
        let record = full(&report(), Some(whole.to_string().as_bytes()), &mut trouble);
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
            let record = full(&report(), stored, &mut trouble);
            assert_eq!((record.open.len(), record.steps.len(), trouble.len()), (2, 2, 1));
        }
    }

    #[test]
    fn a_step_of_another_shape_is_said_and_stops_nothing() {
        let mut trouble = Vec::new();
        let report = json!({ "Steps": [{ "Step": "odd", "Changes": 1 }, { "Step": "good", "Status": "Done" }] });
        let record = full(&report, Some(b"{}"), &mut trouble);
        assert_eq!(record.steps.len(), 1);
        assert!(trouble[0].contains("odd"), "{trouble:?}");
    }
}
