//! The report of an execution: its output, and what messages and the command line tell of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{InstanceReport, Pointer, Status, Verdict, Word};

/// The execution's output; of one that ended FAILED, the output of its state Report.
///
/// It reads what other versions of Cordon have written, as [`InstanceReport`] does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecutionReport {
    /// The worst of the instances' verdicts, and of what was left out.
    pub verdict: Word<Verdict>,
    /// Whether the execution may succeed: every step of every instance is done, or has nothing to do.
    pub succeeded: bool,
    /// The instances' reports.
    #[serde(deserialize_with = "instances")]
    pub instances: Vec<InstanceReport>,
    /// What nothing was done about.
    #[serde(deserialize_with = "left_out")]
    pub left_out: Vec<LeftOut>,
    /// The same as text, for the cause of a failed execution.
    pub table: String,
    /// Of a fleet: how many of its instances have each verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// Of a fleet and of its batches: where the whole result lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<Pointer>,
}

/// How many instances a fleet has, and how many have each verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Counts {
    /// All of them.
    pub instances: usize,
    /// By verdict, whatever the word is.
    pub verdicts: BTreeMap<String, usize>,
}

/// An instance, or a finding, that nothing was done about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    #[serde(default)]
    pub status: Word<Status>,
    /// One sentence.
    #[serde(default)]
    pub reason: String,
}

impl ExecutionReport {
    /// The outcome of one instance.
    pub fn instance(&self, id: &str) -> Option<&InstanceReport> {
        self.instances.iter().find(|instance| instance.instance_id == id)
    }
}

impl LeftOut {
    /// Reads an entry. One of another shape says so.
    pub fn read(value: Value) -> LeftOut {
        serde_json::from_value(value).unwrap_or_else(|error| LeftOut {
            reason: format!("this version of Cordon cannot read what was left out: {error}"),
            ..LeftOut::default()
        })
    }

    /// Whether something should have been done.
    pub fn has_failed(&self) -> bool {
        self.status == Status::Failed
    }
}

fn instances<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<InstanceReport>, D::Error> {
    Ok(Vec::<Value>::deserialize(deserializer)?.into_iter().map(InstanceReport::read).collect())
}

fn left_out<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<LeftOut>, D::Error> {
    Ok(Vec::<Value>::deserialize(deserializer)?.into_iter().map(LeftOut::read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_entry_of_another_shape_costs_no_other() {
        let report: ExecutionReport = serde_json::from_value(json!({
            "Verdict": "Contained", "Succeeded": true, "Mood": "good",
            "Instances": [{ "InstanceId": "i-1", "Verdict": "Contained" }, { "InstanceId": "i-2", "Steps": 7 }, 7],
            "LeftOut": [{ "Status": "Failed", "Reason": "guarded" }, { "Status": "Postponed", "Mood": 1 }, 7],
        }))
        .expect("a report");
        let verdicts: Vec<Option<Verdict>> = report.instances.iter().map(|i| i.verdict.known()).collect();
        assert_eq!(verdicts, [Some(Verdict::Contained), None, None]);
        let failed: Vec<bool> = report.left_out.iter().map(LeftOut::has_failed).collect();
        assert_eq!((failed, report.left_out[1].status.as_str()), (vec![true, false, false], "Postponed"));
        assert!(report.left_out[2].reason.contains("cannot read"));
        assert!(report.instance("i-2").is_some_and(|i| i.open[0].contains("cannot read")));
    }
}
