//! A fleet: more instances than one execution takes. Its input is cut into batches, each with an execution of its own.

use containment::{Error, Result, Target};
use request::{Execution, refuse};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::candidates::Request;
use crate::{Plan, Settings};

/// The largest number of instances that a fleet may have: their ids travel through states of 256 KiB
/// (aws-behaviour#state-size), 22 bytes each.
pub(crate) const FLEET_AT_MOST: usize = 10_000;

const BATCHES_AT_MOST: usize = 1_000;

/// A fleet, as the workflow contains it: batch by batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Fleet {
    /// Names the fleet's folder in the evidence bucket, and its batches' executions.
    pub id: String,
    /// The account of all its instances.
    pub account_id: String,
    /// The Region of all its instances.
    pub region: String,
    /// How many instances it has.
    pub instances: usize,
    /// Their ids, batch by batch, in the order of the input. The workflow numbers the batches from 0.
    pub batches: Vec<Vec<String>>,
}

/// A batch of a fleet. The fleet's execution adds this to the input of each execution that it starts; nobody types it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Batch {
    /// The fleet's id.
    pub id: String,
    /// Which of its batches this is, from 0.
    pub number: usize,
    /// The ARN of the fleet's execution, which tells people about all batches at once.
    pub execution: String,
    /// From when on EC2 has room for what does not isolate: ISO 8601 in UTC.
    pub settle_at: String,
}

/// The plan for a fleet. It has neither targets nor cases: each batch makes those for its instances.
pub(crate) fn plan(request: Request, execution: &Execution, settings: &Settings) -> Plan {
    let ids: Vec<String> = request.candidates.iter().map(|w| w.target.instance_id.clone()).collect();
    let first = request.candidates.first().map(|w| &w.target);
    let text = |of: fn(&Target) -> &String| first.map(of).cloned().unwrap_or_default();
    let dry_run = first.is_some_and(|target| target.dry_run);
    // A Map's result has 256 KiB, and all batches must run at once.
    let per_batch = settings.instances_per_batch.max(ids.len().div_ceil(BATCHES_AT_MOST));
    let fleet = Fleet {
        id: execution.fleet_id(),
        account_id: text(|t| &t.account_id),
        region: text(|t| &t.region),
        instances: ids.len(),
        batches: ids.chunks(per_batch).map(<[String]>::to_vec).collect(),
    };
    Plan {
        dry_run,
        sample: false,
        quiet: dry_run,
        trigger: request.trigger,
        targets: Vec::new(),
        left_out: request.left_out,
        fleet: Some(fleet),
        batch: None,
    }
}

/// Reads the input's field `Batch`, which must be one that an execution of this state machine has made.
pub(crate) fn batch(value: &Value, execution: &Execution) -> Result<Batch> {
    let accepted = "nothing: only a fleet's execution passes it to its batches";
    let Ok(batch) = serde_json::from_value::<Batch>(value.clone()) else { return refuse("Batch", value, accepted) };
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let (own, its) = (machine(&execution.id), machine(&batch.execution));
    if own != its || batch.execution == execution.id || !plain(&batch.id) || !(1..=80).contains(&batch.id.len()) {
        return refuse("Batch", value, accepted);
    }
    Ok(batch)
}

/// Refuses a batch whose fleet's execution is not running: nobody would be notified of its result.
pub(crate) async fn check(sfn: &aws_sdk_sfn::Client, batch: &Batch) -> Result<()> {
    let reply = sfn.describe_execution().execution_arn(&batch.execution).send().await;
    let reply = reply.map_err(Error::aws("states:DescribeExecution", &batch.execution))?;
    match reply.status {
        aws_sdk_sfn::types::ExecutionStatus::Running => Ok(()),
        status => refuse(
            "Batch.Execution",
            &batch.execution.as_str().into(),
            &format!("an execution that is running; this one is {status}"),
        ),
    }
}

/// An execution's ARN without the execution's name.
fn machine(execution: &str) -> &str {
    execution.match_indices(':').nth(6).map_or(execution, |(end, _)| &execution[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{execution, settings};
    use serde_json::json;

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("i-{n:017x}")).collect()
    }

    fn planned(input: Value) -> Plan {
        let event = request::Event { input, execution: execution() };
        let (request, execution) = crate::request(event, &settings()).expect("accepted");
        assert!(request.is_fleet);
        plan(request, &execution, &settings())
    }

    #[test]
    fn a_fleet_is_cut_into_batches_that_have_every_instance_once_and_in_order() {
        let mut named = ids(41);
        named.extend(ids(41));
        let plan = planned(json!({ "InstanceIds": named, "Region": "eu-west-1", "DryRun": true }));
        let fleet = plan.fleet.expect("a fleet");
        assert_eq!(fleet.batches.concat(), ids(41));
        assert_eq!(fleet.batches.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 10, 10, 1]);
        assert_eq!((fleet.id.as_str(), fleet.instances), ("20261121T030007123Z-run-1", 41));
        assert!(plan.dry_run && plan.quiet && plan.targets.is_empty());
    }

    #[test]
    fn forty_instances_are_one_execution_and_no_fleet() {
        let input = json!({ "InstanceIds": ids(40), "Region": "eu-west-1" });
        let (request, _) =
            crate::request(request::Event { input, execution: execution() }, &settings()).expect("accepted");
        assert!(!request.is_fleet && request.candidates.len() == 40);
    }

    #[test]
    fn the_plan_of_the_largest_fleet_fits_the_256_kib_of_a_state() {
        let plan = planned(json!({ "InstanceIds": ids(FLEET_AT_MOST), "Region": "ap-northeast-1" }));
        let bytes = serde_json::to_string(&plan).expect("JSON").len();
        assert!(bytes < 240_000, "{bytes} bytes");
    }

    #[test]
    fn a_batch_is_accepted_from_an_execution_of_the_same_state_machine_only() {
        let of = |execution: &str| json!({ "Id": "20261121T030007123Z-run-0", "Number": 3, "Execution": execution, "SettleAt": "2026-11-21T03:00:07Z" });
        let fleet = execution().id.replace("run-1", "run-0");
        assert_eq!(batch(&of(&fleet), &execution()).expect("accepted").number, 3);
        for other in [execution().id, fleet.replace("cordon-contain", "another"), "run-0".to_owned()] {
            assert_eq!(batch(&of(&other), &execution()).expect_err("refused").name(), "InvalidInput");
        }
        let mut hostile = of(&fleet);
        hostile["Id"] = json!("../cases");
        batch(&hostile, &execution()).expect_err("a path is no id");
    }

    #[test]
    fn a_fleet_id_is_valid_in_names_whatever_the_execution_is_called() {
        let name = "夜の'対応/".repeat(20) + &"x".repeat(80);
        let execution = Execution { id: execution().id.replace("run-1", &name), ..execution() };
        let id = execution.fleet_id();
        assert!(id.len() <= 70 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{id}");
    }
}
