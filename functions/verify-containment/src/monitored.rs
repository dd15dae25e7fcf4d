//! What belongs to a contained instance, so that a call that names it leads drift detection to the case. Pure.

use std::collections::BTreeSet;

use containment::{Forensic, Target};
use isolate_network::Facts;
use serde_json::Value;
use verdict::StepName;

use crate::verified::Check;

/// The prefixes of these resources' ids. Volumes, snapshots, interfaces and flow logs belong to the instance alone;
/// Cordon's security group belongs to every contained instance of its VPC.
const IDS: [&str; 5] = ["eni-", "vol-", "snap-", "sg-", "fl-"];

/// Their keys: `ACCOUNT/REGION/ID`, `ACCOUNT/REGION/ADDRESS` and, because IAM is global, `ACCOUNT/iam/ROLE/POLICY`.
pub(crate) fn resources(
    target: &Target,
    forensic: Option<&Forensic>,
    network: &Facts,
    checks: &[Check],
) -> BTreeSet<String> {
    let here = format!("{}/{}", target.account_id, target.region);
    let there = forensic.map(|forensic| format!("{}/{}", forensic.account_id, forensic.region_for(target)));
    let mut found: BTreeSet<String> = network.interfaces.keys().map(|id| format!("{here}/{id}")).collect();
    found.extend(network.interfaces.values().flat_map(|i| &i.addresses).map(|address| format!("{here}/{address}")));
    found.extend(network.isolation.values().map(|group| format!("{here}/{}", group.id)));
    let outcomes = checks.iter().filter_map(|(step, shown)| Some((*step, shown.as_ref().ok()?)));
    for (step, change) in outcomes.flat_map(|(step, outcome)| outcome.changes.iter().map(move |c| (step, c))) {
        match (step, &there) {
            (StepName::RevokeCredentials, _) => {
                found.insert(format!("{}/iam/{}/{}", target.account_id, change.resource, change.attribute));
            }
            // The interfaces were read above; groups other than Cordon's are not monitored.
            (StepName::IsolateNetwork, _) => {}
            (StepName::CopySnapshots | StepName::LockSnapshots, Some(there)) => {
                let resource = (step == StepName::LockSnapshots).then_some(change.resource.as_str());
                found.extend(ids(&change.after).into_iter().chain(resource).map(|id| format!("{there}/{id}")));
            }
            _ => {
                let named = ids(&change.after).into_iter().chain([change.resource.as_str()]);
                found.extend(named.filter(|id| is_id(id)).map(|id| format!("{here}/{id}")));
            }
        }
    }
    found
}

fn is_id(text: &str) -> bool {
    IDS.iter()
        .any(|prefix| text.strip_prefix(prefix).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphanumeric())))
}

/// The ids among a value's texts and field names.
fn ids(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => Some(text.as_str()).filter(|text| is_id(text)).into_iter().collect(),
        Value::Array(all) => all.iter().flat_map(ids).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, v)| Some(name.as_str()).filter(|n| is_id(n)).into_iter().chain(ids(v)))
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containment::{Change, Outcome, Status};
    use network::{Group, Interface};
    use serde_json::json;

    fn check(step: StepName, changes: &[(&str, &str, Value)]) -> Check {
        let changes = changes.iter().map(|(resource, attribute, after)| Change {
            resource: (*resource).to_owned(),
            attribute: (*attribute).to_owned(),
            before: Value::Null,
            after: after.clone(),
        });
        (step, Ok(Outcome { changes: changes.collect(), ..Outcome::new(step.name(), Status::Done, None) }))
    }

    #[test]
    fn what_is_the_instances_alone_leads_to_its_case_and_what_others_share_does_not() {
        let interface =
            Interface { addresses: ["10.0.0.4".parse().expect("an address")].into(), ..Interface::default() };
        let group = Group { id: "sg-isolation".into(), rules: BTreeSet::new() };
        let network = Facts {
            interfaces: [("eni-1".to_owned(), interface)].into(),
            isolation: [("vpc-1".to_owned(), group)].into(),
            ..Facts::default()
        };
        let checks = [
            check(StepName::IsolateNetwork, &[("eni-1", "Groups", json!(["sg-web"]))]),
            check(
                StepName::CreateSnapshots,
                &[("vol-1", "Snapshot", json!({ "SnapshotId": "snap-1", "State": "completed" }))],
            ),
            check(
                StepName::CreateFlowLogs,
                &[("eni-1", "FlowLogs", json!({ "FlowLogs": { "fl-1": "arn:aws:s3:::b" } }))],
            ),
            check(StepName::RevokeCredentials, &[("web", "cordon-deny-i-0123456789abcdef0", json!({}))]),
            check(StepName::CopySnapshots, &[("snap-1", "ForensicCopy", json!({ "SnapshotId": "snap-9" }))]),
            check(StepName::LockSnapshots, &[("snap-9", "Lock", json!("governance"))]),
            check(StepName::TagResources, &[("i-0123456789abcdef0", "Tags", json!({ "Owner": "vol-of-ours, eni-2" }))]),
        ];
        let found = resources(&Target::example(), Some(&Forensic::example()), &network, &checks);
        let wanted = [
            "123456789012/eu-west-1/10.0.0.4",
            "123456789012/eu-west-1/eni-1",
            "123456789012/eu-west-1/fl-1",
            "123456789012/eu-west-1/sg-isolation",
            "123456789012/eu-west-1/snap-1",
            "123456789012/eu-west-1/vol-1",
            "123456789012/iam/web/cordon-deny-i-0123456789abcdef0",
            "888888888888/eu-central-1/snap-9",
        ];
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
    }
}
