//! Reads an API call as CloudTrail records it, and finds the resources that it names. Pure.
//!
//! Every text in it may be the attacker's. A resource is read only from the fields that identify what the call changes:
//! an instance's id in a tag's value or in a description names nothing.

use aws_sdk_sfn::primitives::{DateTime, DateTimeFormat};
use cases::Drift;
use containment::{check_account, check_instance_id, check_region};
use serde_json::Value;

/// The calls that can undo a containment, with the fields that name what they change. CloudTrail writes a request's fields
/// in one of three ways (`networkInterfaceId`, `instancesSet.items[].instanceId`,
/// `AssociateIamInstanceProfileRequest.InstanceId`): only the field's name counts, at any depth and in any case.
const CALLS: [(&str, &[&str]); 27] = [
    ("AssociateIamInstanceProfile", &["instanceId"]),
    ("AttachInstances", &["instanceIds"]),
    ("AttachNetworkInterface", &["instanceId", "networkInterfaceId"]),
    ("AuthorizeSecurityGroupEgress", GROUP),
    ("AuthorizeSecurityGroupIngress", GROUP),
    ("CreateTags", &["resourceId"]),
    ("DeleteFlowLogs", &["flowLogId"]),
    ("DeleteRolePolicy", POLICY),
    ("DeleteSnapshot", &["snapshotId"]),
    ("DeleteTags", &["resourceId"]),
    ("DeleteVolume", &["volumeId"]),
    ("DetachVolume", &["volumeId", "instanceId"]),
    ("LockSnapshot", &["snapshotId"]),
    ("ModifyInstanceAttribute", &["instanceId"]),
    ("ModifyNetworkInterfaceAttribute", &["networkInterfaceId"]),
    ("ModifySecurityGroupRules", GROUP),
    ("ModifySnapshotAttribute", &["snapshotId"]),
    ("PutRolePolicy", POLICY),
    ("RebootInstances", &["instanceId"]),
    ("RegisterInstancesWithLoadBalancer", &["instanceId"]),
    ("RegisterTargets", &["id"]),
    ("ReplaceIamInstanceProfileAssociation", &["instanceId"]),
    ("StartInstances", &["instanceId"]),
    ("StartSession", &["target"]),
    ("StopInstances", &["instanceId"]),
    ("TerminateInstances", &["instanceId"]),
    ("UnlockSnapshot", &["snapshotId"]),
];

/// A group's rules name other groups, as peers: its own id is at the top, or in the answer if the request has its name.
const GROUP: &[&str] = &["groupId"];

/// An inline policy is a role's.
const POLICY: &[&str] = &["roleName", "policyName"];

/// A call that may concern a case.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Call {
    /// The call, for the case and for messages.
    pub(crate) drift: Drift,
    /// When it was made, in seconds since 1970.
    pub(crate) at: Option<i64>,
    /// The resources that it names: keys as the case table has them, at most [`NAMED_AT_MOST`].
    pub(crate) named: Vec<Named>,
    /// The whole event.
    pub(crate) event: Value,
}

/// A resource that the call names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// The key in the case table: `ACCOUNT/REGION/i-…`, `ACCOUNT/REGION/eni-…`, `ACCOUNT/iam/ROLE/POLICY`.
    pub(crate) key: String,
    /// Whether that is an instance itself.
    pub(crate) instance: bool,
    /// The id, or the policy's name.
    pub(crate) id: String,
}

/// A call can name a thousand resources; each costs a read.
const NAMED_AT_MOST: usize = 1_000;

/// Cordon's own identity, so that its calls are no drift.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// Cordon's account.
    pub(crate) account: String,
    /// The name of its stack, with which its functions' roles begin.
    pub(crate) stack: String,
    /// Path and name of the role in member accounts: `cordon/cordon-member`.
    pub(crate) member_role: String,
    /// The same in the forensic account.
    pub(crate) forensic_role: Option<String>,
}

impl Own {
    /// Whether the session was issued by a role of Cordon's: one of its stack's in its own account, or the member or
    /// forensic role in the account where the call was made. The issuer's ARN is STS's word, and a role's path and name
    /// are compared whole: somebody else's role `cordon` does not count.
    fn made(&self, account: &str, detail: &Value) -> bool {
        let issuer = &detail["userIdentity"]["sessionContext"]["sessionIssuer"];
        let Some(arn) = issuer["arn"].as_str().filter(|_| issuer["type"] == "Role") else { return false };
        let mut parts = arn.splitn(6, ':');
        let (Some("arn"), Some(partition), Some("iam"), Some(""), Some(of), Some(role)) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let Some(role) = role.strip_prefix("role/").filter(|_| partition.starts_with("aws")) else { return false };
        let function = role.strip_prefix("cordon/").and_then(|r| r.strip_prefix(&self.stack)?.strip_prefix('-'));
        // CloudFormation names a function's role STACK-FUNCTIONRole-RANDOM, which may have no further path.
        let ours = function.is_some_and(|rest| !rest.contains('/') && rest.contains("Role-"));
        let theirs = role == self.member_role || self.forensic_role.as_deref() == Some(role);
        (of == self.account && ours) || (of == account && theirs)
    }
}

/// Reads an event as EventBridge delivers it. None if the call cannot undo a containment, was refused, was Cordon's
/// own, or names nothing that could belong to a case.
pub(crate) fn read(event: &Value, own: &Own) -> Option<Call> {
    let detail = &event["detail"];
    if event["detail-type"] != "AWS API Call via CloudTrail" || !detail["errorCode"].is_null() {
        return None;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = detail["eventName"].as_str()?;
    let (_, fields) = CALLS.iter().find(|(known, _)| *known == name)?;
    // EventBridge vouches for the account and the Region in the envelope.
    let (account, region) = (event["account"].as_str()?, event["region"].as_str()?);
    if check_account("account", account).is_err() || check_region("region", region).is_err() {
        return None;
    }
    if own.made(account, detail) {
        return None;
    }
    let named = named(account, region, fields, detail);
    let identity = &detail["userIdentity"];
    let caller = ["arn", "invokedBy", "principalId", "type"].iter().find_map(|name| identity[name].as_str());
    let drift = Drift {
        event_id: event_id(event),
        event_name: name.to_owned(),
        event_time: text(&detail["eventTime"]),
        caller: caller.unwrap_or_default().to_owned(),
        access_key_id: text(&identity["accessKeyId"]),
        source_ip_address: text(&detail["sourceIPAddress"]),
        user_agent: text(&detail["userAgent"]),
        resource: String::new(),
        parameters: detail["requestParameters"].to_string(),
    };
    let at = detail["eventTime"].as_str().and_then(|at| DateTime::from_str(at, DateTimeFormat::DateTime).ok());
    (!named.is_empty()).then(|| Call {
        drift: drift.shortened(),
        at: at.map(|at| at.secs()),
        named,
        event: event.clone(),
    })
}

/// CloudTrail's id of the event, which identifies repetitions. It becomes part of an execution's name: an unsuitable id
/// is replaced by its hash.
fn event_id(event: &Value) -> String {
    let plain = |id: &&str| (8..=40).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match event["detail"]["eventID"].as_str().filter(plain) {
        Some(id) => id.to_owned(),
        None => custody::hex(&custody::digest(event["detail"].to_string().as_bytes()))[..40].to_owned(),
    }
}

fn named(account: &str, region: &str, fields: &[&str], detail: &Value) -> Vec<Named> {
    let (request, answer) = (inner(&detail["requestParameters"]), &detail["responseElements"]);
    let mut found: Vec<Named> = Vec::new();
    if fields == POLICY {
        if let (Some(role), Some(policy)) = (get(request, "roleName"), get(request, "policyName")) {
            found.push(Named {
                key: format!("{account}/iam/{role}/{policy}"),
                instance: false,
                id: format!("{policy} of {role}"),
            });
        }
        return found;
    }
    let mut ids = Vec::new();
    if fields == GROUP {
        ids.extend(get(request, "groupId"));
        for rule in answer["securityGroupRuleSet"]["items"].as_array().into_iter().flatten() {
            ids.extend(get(rule, "groupId"));
        }
    } else {
        for field in fields {
            collect(request, field, &mut ids);
            // An association is replaced by its own id, and only the answer says whose it is.
            if *field == "instanceId" {
                collect(&answer["iamInstanceProfileAssociation"], field, &mut ids);
                collect(&answer["ReplaceIamInstanceProfileAssociationResponse"], field, &mut ids);
            }
        }
    }
    for id in ids.into_iter().filter(|id| is_plain(id)).take(NAMED_AT_MOST) {
        let instance = check_instance_id("instance", id).is_ok();
        let one = Named { key: format!("{account}/{region}/{id}"), instance, id: id.to_owned() };
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

/// Whether the text can be part of a key: a resource's id, or an address.
fn is_plain(id: &str) -> bool {
    (4..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b))
}

/// Some requests are wrapped in an object of their own name.
fn inner(request: &Value) -> &Value {
    let Some(fields) = request.as_object().filter(|fields| fields.len() == 1) else { return request };
    fields.iter().find(|(name, value)| name.ends_with("Request") && value.is_object()).map_or(request, |(_, v)| v)
}

/// A text by its field's name, whose first letter may be in either case.
fn get<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?.1.as_str()
}

/// All texts that a field of this name has, at any depth. An XML list of one is an object `{"tag":1,"content":…}`.
fn collect<'a>(value: &'a Value, name: &str, into: &mut Vec<&'a str>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| collect(one, name, into)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match key.eq_ignore_ascii_case(name) {
                    true => texts(value, into),
                    false => collect(value, name, into),
                }
            }
        }
        _ => {}
    }
}

fn texts<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => into.push(text),
        Value::Array(all) => all.iter().for_each(|one| texts(one, into)),
        Value::Object(fields) => fields.get("content").into_iter().for_each(|content| texts(content, into)),
        _ => {}
    }
}

#[cfg(test)]
#[path = "call_tests.rs"]
mod tests;
