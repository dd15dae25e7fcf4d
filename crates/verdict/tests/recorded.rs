//! What build 2800eab wrote, on the local stack, reads into these types and is written as it was.

use serde_json::{Value, json};
use verdict::{ExecutionReport, InstanceReport, Status, Verdict};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn an_executions_output_is_read_and_written_as_it_was() {
    for recorded in [include_str!("recorded/containment.json"), include_str!("recorded/release.json")] {
        let report: ExecutionReport = serde_json::from_str(recorded).expect("a report");
        assert!(report.succeeded && report.instances.iter().all(|i| i.verdict.known().is_some()));
        assert_eq!(json!(report), json_of(recorded));
    }
}

#[test]
fn a_verifiers_record_is_read_and_written_as_it_was() {
    let recorded = json_of(include_str!("recorded/verify-containment.json"));
    let report = InstanceReport::read(recorded.clone());
    assert!(report.verdict == Verdict::Contained && report.steps.iter().all(|step| step.status.is_good()));
    assert_eq!(json!(report), recorded);
}

#[test]
fn the_reports_in_the_events_and_in_a_recorded_history_are_read() {
    let events = json_of(include_str!("../../../events/report.json"));
    let sealed = json_of(include_str!("../../../events/seal-evidence.json"));
    for report in [&events["Instances"][0], &sealed["Report"]] {
        let read = InstanceReport::read(report.clone());
        assert!(read.verdict == Verdict::Contained && read.steps[0].status == Status::Done);
        assert_eq!(&json!(read), report);
    }
    let history = json_of(include_str!("../../cordon/src/recorded/containment-of-two.json"));
    let exited = history["events"].as_array().expect("events").iter().map(|event| &event["stateExitedEventDetails"]);
    let mut output = exited.filter(|exited| exited["name"] == "Report").filter_map(|exited| exited["output"].as_str());
    let report: ExecutionReport = serde_json::from_str(output.next_back().expect("a report")).expect("JSON");
    assert!(report.verdict == Verdict::Contained && report.instances.len() == 2);
}
