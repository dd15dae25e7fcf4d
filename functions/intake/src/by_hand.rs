//! What a responder types into the Step Functions console: the one form in which nothing is forgiven.
//!
//! The fields that a containment and a release have in common are read here for both.

use std::collections::BTreeSet;

use containment::{AutoScaling, Capture, Error, Result, Target, check_account, check_instance_id, check_region};
use serde_json::{Map, Value};

use crate::request::{Request, Source, Trigger, Wanted};
use crate::{Execution, INSTANCES_AT_MOST, MemberAccounts, Settings, refuse};

/// A tag's value has at most so many characters.
const TAG_VALUE_AT_MOST: usize = 256;

/// Captures and hash lists are asked about again and again, and an execution's history has 25,000 events (trap H4); and
/// no instance may wait connected for a place in the second Map, which takes 40.
pub(crate) const LONG_AT_MOST: usize = 10;

const ACCEPTED: &str = "InstanceIds, Region, AccountId, IncidentTicket, Owner, DryRun, AutoScaling, RevokeAllSessions, \
     CaptureVolatile, CaptureMemory, CaptureMode, HashSnapshots";

/// Reads the input; the error names the field, the value and what is accepted.
pub(crate) fn read(input: &Value, execution: &Execution, settings: &Settings) -> Result<Request> {
    let input = fields(input, ACCEPTED)?;
    let account_id = account(input, execution.account(), &settings.member_accounts)?;
    let region = region(input)?;
    let ids = instance_ids(input)?;
    let auto_scaling = auto_scaling(input)?;
    let dry_run = flag(input, "DryRun")?;
    let revoke_all_sessions = flag(input, "RevokeAllSessions")?;
    let hash_snapshots = flag(input, "HashSnapshots")?;
    let capture = capture(input)?;
    for (field, asked) in [("CaptureVolatile", capture.is_some()), ("HashSnapshots", hash_snapshots)] {
        if asked && ids.len() > LONG_AT_MOST {
            let accepted = format!(
                "true for at most {LONG_AT_MOST} instances in one execution, as it takes long; here are {}",
                ids.len()
            );
            return refuse(field, &true.into(), &accepted);
        }
    }
    let incident_ticket = tag_value(input, "IncidentTicket")?;
    let owner = tag_value(input, "Owner")?;
    let wanted = ids.into_iter().map(|id| {
        let target = Target {
            dry_run,
            incident_ticket: incident_ticket.clone(),
            owner: owner.clone(),
            auto_scaling,
            revoke_all_sessions,
            hash_snapshots,
            capture,
            ..execution.target(&account_id, &region, &id)
        };
        Wanted { target, findings: BTreeSet::new(), ask: Vec::new() }
    });
    let trigger = Trigger { source: Source::Hand, findings: Vec::new() };
    Ok(Request { trigger, wanted: wanted.collect(), left_out: Vec::new() })
}

/// The input's fields, all of which have to be among the accepted ones (a list of names with `, ` between them).
pub fn fields<'a>(input: &'a Value, accepted: &str) -> Result<&'a Map<String, Value>> {
    let Value::Object(input) = input else {
        return refuse(
            "the input",
            input,
            "an object such as {\"InstanceIds\":[\"i-…\"],\"Region\":\"ap-northeast-1\"}",
        );
    };
    let known: BTreeSet<&str> = accepted.split(", ").collect();
    match input.iter().find(|(field, _)| !known.contains(field.as_str())) {
        Some((field, value)) => refuse(field, value, &format!("only the fields {accepted}")),
        None => Ok(input),
    }
}

/// `AccountId`: Cordon's own account, which is the default, or a member account.
pub fn account(input: &Map<String, Value>, own: &str, members: &MemberAccounts) -> Result<String> {
    let Some(value) = input.get("AccountId") else { return Ok(own.to_owned()) };
    let Some(account) = value.as_str() else { return refuse("AccountId", value, "12 digits in quotes") };
    check_account("AccountId", account)?;
    if members.allow(account, own) {
        return Ok(account.to_owned());
    }
    refuse("AccountId", value, &members.accepted(own))
}

/// `Region`: what looks like a Region's name; whether it exists is for AWS to say.
pub fn region(input: &Map<String, Value>) -> Result<String> {
    let accepted = "a Region's name such as \"ap-northeast-1\"";
    let Some(value) = input.get("Region") else {
        return Err(Error::InvalidInput(format!("Region: missing; accepted: {accepted}")));
    };
    let Some(region) = value.as_str() else { return refuse("Region", value, accepted) };
    check_region("Region", region)?;
    Ok(region.to_owned())
}

/// `InstanceIds`: the distinct ones, in the order of the input.
pub fn instance_ids(input: &Map<String, Value>) -> Result<Vec<String>> {
    let accepted = format!("a list of 1 to {INSTANCES_AT_MOST} instance ids such as [\"i-0123456789abcdef0\"]");
    let Some(value) = input.get("InstanceIds") else {
        return Err(Error::InvalidInput(format!("InstanceIds: missing; accepted: {accepted}")));
    };
    let Some(ids) = value.as_array().filter(|ids| !ids.is_empty()) else {
        return refuse("InstanceIds", value, &accepted);
    };
    let mut distinct: Vec<String> = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let field = format!("InstanceIds[{n}]");
        let Some(id) = id.as_str() else { return refuse(&field, id, "an instance id such as \"i-0123456789abcdef0\"") };
        check_instance_id(&field, id)?;
        if !distinct.iter().any(|known| known == id) {
            distinct.push(id.to_owned());
        }
    }
    if distinct.len() > INSTANCES_AT_MOST {
        return Err(Error::InvalidInput(format!("InstanceIds: {} distinct ids; accepted: {accepted}", distinct.len())));
    }
    Ok(distinct)
}

fn auto_scaling(input: &Map<String, Value>) -> Result<AutoScaling> {
    match input.get("AutoScaling") {
        None => Ok(AutoScaling::default()),
        Some(value) => serde_json::from_value(value.clone()).or_else(|_| {
            refuse("AutoScaling", value, "\"Replace\" (the default: the group launches another) or \"Decrement\"")
        }),
    }
}

/// A memory image is a part of the capture, and a mode says when it comes: without a capture, neither means anything.
fn capture(input: &Map<String, Value>) -> Result<Option<Capture>> {
    let (volatile, memory) = (flag(input, "CaptureVolatile")?, flag(input, "CaptureMemory")?);
    if memory && !volatile {
        return refuse(
            "CaptureMemory",
            &true.into(),
            "true only beside \"CaptureVolatile\": true, which it is a part of",
        );
    }
    let mode = match input.get("CaptureMode") {
        None => Default::default(),
        Some(value) if !volatile => {
            return refuse("CaptureMode", value, "a mode only beside \"CaptureVolatile\": true, of which it says when");
        }
        Some(value) => serde_json::from_value(value.clone()).or_else(|_| {
            refuse(
                "CaptureMode",
                value,
                "\"IsolateFirst\" (the default: the VPC's endpoints stay open until it has ended) or \"CaptureFirst\"",
            )
        })?,
    };
    Ok(volatile.then_some(Capture { mode, memory }))
}

/// A field that is true or false; false where it is absent.
pub fn flag(input: &Map<String, Value>, field: &str) -> Result<bool> {
    match input.get(field) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => refuse(field, other, "true or false, without quotes"),
    }
}

/// A field that becomes a tag's value.
pub fn tag_value(input: &Map<String, Value>, field: &str) -> Result<Option<String>> {
    let Some(value) = input.get(field) else { return Ok(None) };
    let good = |text: &&str| {
        let length = text.chars().count();
        (1..=TAG_VALUE_AT_MOST).contains(&length) && !text.chars().any(char::is_control) && text.trim() == *text
    };
    match value.as_str().filter(good) {
        Some(text) => Ok(Some(text.to_owned())),
        None => refuse(
            field,
            value,
            "a text of 1 to 256 characters on one line, without spaces around it (it becomes a tag)",
        ),
    }
}
