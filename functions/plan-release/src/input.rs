//! The input of a release, read as strictly as that of a containment.

use containment::{Result, Target};
use request::{Execution, MemberAccounts, account, fields, flag, instance_ids, refuse, region, tag_value};
use serde_json::{Map, Value};
use verdict::StepName;

/// The outcomes of all instances travel through states of 256 KiB (aws-behaviour#state-size), and their events share
/// one history of 25,000 (aws-behaviour#execution-history).
const INSTANCES_AT_MOST: usize = 50;

const ACCEPTED: &str = "InstanceIds, Region, AccountId, IncidentTicket, DryRun, Steps, AttachAutoScaling, CloseCase";

/// The release that an input requests.
#[derive(Debug, PartialEq)]
pub(crate) struct ReleaseRequest {
    pub(crate) region: String,
    pub(crate) dry_run: bool,
    pub(crate) close_case: bool,
    /// Each has the case id that a containment would give it; the instance's own case is not known here.
    pub(crate) targets: Vec<Target>,
}

impl ReleaseRequest {
    /// Reads the input; the error names the field, the value and what is accepted. Pure.
    pub(crate) fn read(input: &Value, execution: &Execution, members: &MemberAccounts) -> Result<Self> {
        let input = fields(input, ACCEPTED, &[])?;
        let account_id = account(input, execution.account(), members)?;
        let region = region(input)?;
        let ids = instance_ids(input, INSTANCES_AT_MOST)?;
        let dry_run = flag(input, "DryRun")?;
        let steps = steps(input)?;
        let incident_ticket = tag_value(input, "IncidentTicket")?;
        let close_case = flag(input, "CloseCase")?;
        let targets = ids.into_iter().map(|id| Target {
            dry_run,
            incident_ticket: incident_ticket.clone(),
            release: Some(steps.clone()),
            ..execution.target(&account_id, &region, &id)
        });
        Ok(ReleaseRequest { dry_run, close_case, targets: targets.collect(), region })
    }
}

/// `Steps` and `AttachAutoScaling`: the steps to release, each once, in the order of the workflow.
fn steps(input: &Map<String, Value>) -> Result<Vec<String>> {
    let attach = flag(input, "AttachAutoScaling")?;
    let known = StepName::released();
    let names: Vec<&str> = known.iter().map(|step| step.name()).collect();
    let accepted = format!("a list of one or more of {}", names.join(", "));
    let chosen: Vec<StepName> = match input.get("Steps") {
        None => known.iter().copied().filter(|step| !step.is_on_request()).collect(),
        Some(value) => {
            let named = value.as_array().filter(|named| !named.is_empty());
            let Some(named) = named else { return refuse("Steps", value, &accepted) };
            for (n, name) in named.iter().enumerate() {
                if !names.iter().any(|step| name == step) {
                    return refuse(&format!("Steps[{n}]"), name, &accepted);
                }
            }
            known.iter().copied().filter(|step| named.iter().any(|name| name == step.name())).collect()
        }
    };
    if let Some(on_request) = chosen.iter().find(|step| step.is_on_request())
        && input.get("AttachAutoScaling") == Some(&Value::Bool(false))
    {
        return refuse("AttachAutoScaling", &false.into(), &format!("true, or nothing, where Steps has {on_request}"));
    }
    let asked = |step: &StepName| chosen.contains(step) || (attach && step.is_on_request());
    Ok(known.into_iter().filter(asked).map(|step| step.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::tests::execution;
    use serde_json::json;

    const ID: &str = "i-0123456789abcdef0";
    const MEMBER: &str = "210987654321";
    const AUTO_SCALING: &str = StepName::DetachAutoscaling.name();

    fn read(more: Value) -> Result<ReleaseRequest> {
        let mut input = json!({ "InstanceIds": [ID], "Region": "ap-northeast-1" });
        input.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        ReleaseRequest::read(&input, &execution(), &[MEMBER.to_owned()].into_iter().collect())
    }

    fn released(more: Value) -> Vec<String> {
        read(more).expect("read").targets[0].release.clone().expect("a release")
    }

    #[track_caller]
    fn refused(more: Value, field: &str, accepted: &str) {
        let error = read(more).expect_err("refused");
        assert_eq!(error.name(), "InvalidInput");
        let text = error.to_string();
        assert!(text.starts_with(field) && text.contains(accepted) && !text.contains('\n'), "{text}");
    }

    #[test]
    fn by_default_everything_but_auto_scaling_is_released() {
        let all = StepName::released().len();
        assert_eq!(released(json!({})).len(), all - 1);
        for input in [json!({}), json!({ "AttachAutoScaling": false })] {
            assert!(!released(input).contains(&AUTO_SCALING.to_owned()));
        }
        let attached = released(json!({ "AttachAutoScaling": true }));
        assert_eq!(attached.last().map(String::as_str), Some(AUTO_SCALING), "last of all");
        assert_eq!(attached.len(), all);
    }

    #[test]
    fn a_subset_is_released_in_the_order_of_the_workflow_and_each_step_once() {
        let chosen = json!({ "Steps": ["tag-resources", "isolate-network", "tag-resources"] });
        assert_eq!(released(chosen), ["isolate-network", "tag-resources"]);
        assert_eq!(released(json!({ "Steps": [AUTO_SCALING] })), [AUTO_SCALING]);
        let both = json!({ "Steps": ["isolate-network"], "AttachAutoScaling": true });
        assert_eq!(released(both), ["isolate-network", AUTO_SCALING]);
    }

    #[test]
    fn every_option_reaches_the_target() {
        let more = json!({ "AccountId": MEMBER, "IncidentTicket": "INC-7", "DryRun": true, "CloseCase": true });
        let request = read(more).expect("read");
        let target = &request.targets[0];
        assert_eq!((target.account_id.as_str(), target.incident_ticket.as_deref()), (MEMBER, Some("INC-7")));
        assert!(target.dry_run && request.dry_run && request.close_case);
        assert_eq!(target.execution.as_deref(), Some(execution().id.as_str()));
    }

    #[test]
    fn unknown_and_contradictory_steps_are_refused_in_one_sentence() {
        refused(json!({ "Steps": [] }), "Steps: [] is not accepted", "isolate-network");
        refused(json!({ "Steps": "isolate-network" }), "Steps", "a list of one or more");
        refused(json!({ "Steps": ["isolate-network", "create-snapshots"] }), "Steps[1]: \"create-snapshots\"", "tag-");
        refused(json!({ "Steps": [7] }), "Steps[0]: 7", "a list");
        let both = json!({ "Steps": [AUTO_SCALING], "AttachAutoScaling": false });
        refused(both, "AttachAutoScaling: false", "where Steps has detach-autoscaling");
    }

    #[test]
    fn shared_fields_are_checked_and_a_containments_own_fields_are_refused() {
        refused(json!({ "InstanceIds": ["banana"] }), "InstanceIds[0]", "8 or 17");
        refused(json!({ "InstanceIds": [] }), "InstanceIds", "1 to 50");
        refused(json!({ "Region": "tokyo" }), "Region", "such as");
        refused(json!({ "AccountId": "999999999999" }), "AccountId", MEMBER);
        refused(json!({ "DryRun": "yes" }), "DryRun", "true or false");
        refused(json!({ "AttachAutoScaling": 1 }), "AttachAutoScaling", "true or false");
        refused(json!({ "IncidentTicket": "" }), "IncidentTicket", "1 to 256");
        refused(json!({ "RevokeAllSessions": true }), "RevokeAllSessions", "only the fields InstanceIds");
    }
}
