//! An attack sequence: several signals that GuardDuty joined into one finding, about a list of resources
//! (aws-behaviour#attack-sequences).

use std::collections::BTreeMap;

use crate::Named;
use crate::lookup::Node;
use crate::named::{Place, named};

const INSTANCE: &str = "EC2_INSTANCE";
const INSTANCE_PROFILE: &str = "IAM_INSTANCE_PROFILE";

/// The groups of compromised instances, and the fields with their `ec2InstanceUids`. GuardDuty's API model (2017-11-28)
/// says of these that the list has the compromised instances; of `EKS_CLUSTER` and `ECS_CLUSTER` it says that the field
/// of the same name has the cluster's worker nodes and container instances, whether compromised or not.
const SHARED_BY_COMPROMISED: [(&str, &str); 6] = [
    ("AUTOSCALING_AUTO_SCALING_GROUP", "autoscalingAutoScalingGroup"),
    ("CLOUDFORMATION_STACK", "cloudformationStack"),
    ("EC2_IMAGE", "ec2Image"),
    ("EC2_LAUNCH_TEMPLATE", "ec2LaunchTemplate"),
    ("EC2_VPC", "ec2Vpc"),
    (INSTANCE_PROFILE, "iamInstanceProfile"),
];

/// Whether the finding is an attack sequence.
pub(crate) fn is_sequence(detail: &Node) -> bool {
    let named_so = detail.get("type").text_or_empty().to_ascii_lowercase().starts_with("attacksequence:");
    named_so || detail.get("resource").each().iter().any(|resource| resource.get("resourceType").is("AttackSequence"))
}

/// The instances that the sequence says are compromised, with repetitions, in the order of the event.
pub(crate) fn instances(detail: &Node, finding: &Place) -> Vec<Named> {
    let resources = detail.at("service.detection.sequence.resources").each();
    let known = known_instances(&resources, finding);
    let instances = resources.iter().flat_map(|resource| match resource.get("resourceType").is(INSTANCE) {
        true => instance(resource, finding).into_iter().collect(),
        false => listed_instances(resource, finding, &known),
    });
    instances.collect()
}

/// The `EC2_INSTANCE` resources, by their `uid` and by their instance's id: other resources refer to them by either.
fn known_instances(resources: &[Node], finding: &Place) -> BTreeMap<String, Named> {
    let mut known = BTreeMap::new();
    for resource in resources.iter().filter(|resource| resource.get("resourceType").is(INSTANCE)) {
        let Some(named) = instance(resource, finding) else { continue };
        known.extend(resource.get("uid").text().map(|uid| (uid, named.clone())));
        known.entry(named.instance_id.clone()).or_insert(named);
    }
    known
}

/// Never by the resource's `name`: anyone who may tag the instance chooses it, and could choose another instance's id.
fn instance(resource: &Node, finding: &Place) -> Option<Named> {
    let place = place(resource).or(finding);
    let by_uid = named(&resource.get("uid"), &place);
    match by_uid {
        Some(named) if named.instance_id.starts_with("i-") => Some(named),
        opaque => named(&resource.at("data.ec2Instance.instanceId"), &place).or(opaque),
    }
}

fn listed_instances(resource: &Node, finding: &Place, known: &BTreeMap<String, Named>) -> Vec<Named> {
    let kind = resource.get("resourceType");
    let Some((name, data)) = SHARED_BY_COMPROMISED.iter().find(|(name, _)| kind.is(name)) else { return Vec::new() };
    let mut place = place(resource);
    if *name == INSTANCE_PROFILE {
        // Profiles are global, so their Region is not the instances'.
        place.region.clear();
    }
    let place = place.or(finding);
    let uids = resource.get("data").get(data).get("ec2InstanceUids").each();
    let named = uids.iter().filter_map(|uid| named(uid, &place).map(|named| (uid, named)));
    named.map(|(uid, named)| resolved(uid, named, known)).collect()
}

/// The list's own account and Region for the instance take precedence over those of the group.
fn resolved(uid: &Node, named: Named, known: &BTreeMap<String, Named>) -> Named {
    let by_uid = uid.text().and_then(|uid| known.get(&uid));
    match by_uid.or_else(|| known.get(&named.instance_id)) {
        Some(instance) => Named { field: named.field, ..instance.clone() },
        None => named,
    }
}

fn place(resource: &Node) -> Place {
    Place {
        account_id: resource.get("accountId").account().unwrap_or_default(),
        region: resource.get("region").text_or_empty(),
    }
}
