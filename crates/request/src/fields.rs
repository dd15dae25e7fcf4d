//! The fields that the inputs of a containment and of a release share.

use std::collections::BTreeSet;

use containment::{Error, Result, check_account, check_instance_id, check_region};
use serde_json::{Map, Value};

use crate::{MemberAccounts, refuse};

/// The most characters that a tag's value may have.
const TAG_VALUE_AT_MOST: usize = 256;

/// The input's fields. Each must be one of the accepted ones (a list of names, separated by `, `) or one that only
/// Cordon's own executions add.
pub fn fields<'a>(input: &'a Value, accepted: &str, own: &[&str]) -> Result<&'a Map<String, Value>> {
    let Value::Object(input) = input else {
        return refuse(
            "the input",
            input,
            "an object such as {\"InstanceIds\":[\"i-…\"],\"Region\":\"ap-northeast-1\"}",
        );
    };
    let known: BTreeSet<&str> = accepted.split(", ").collect();
    let strange = |field: &str| !known.contains(field) && !own.contains(&field);
    match input.iter().find(|(field, _)| strange(field)) {
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

/// `Region`: a text that looks like a Region's name; only AWS can say whether it exists.
pub fn region(input: &Map<String, Value>) -> Result<String> {
    let accepted = "a Region's name such as \"ap-northeast-1\"";
    let Some(value) = input.get("Region") else {
        return Err(Error::InvalidInput(format!("Region: missing; accepted: {accepted}")));
    };
    let Some(region) = value.as_str() else { return refuse("Region", value, accepted) };
    check_region("Region", region)?;
    Ok(region.to_owned())
}

/// `InstanceIds`: distinct, in the order of the input, and at most this many.
pub fn instance_ids(input: &Map<String, Value>, at_most: usize) -> Result<Vec<String>> {
    let accepted = format!("a list of 1 to {at_most} instance ids such as [\"i-0123456789abcdef0\"]");
    let Some(value) = input.get("InstanceIds") else {
        return Err(Error::InvalidInput(format!("InstanceIds: missing; accepted: {accepted}")));
    };
    let Some(ids) = value.as_array().filter(|ids| !ids.is_empty()) else {
        return refuse("InstanceIds", value, &accepted);
    };
    let (mut distinct, mut known) = (Vec::new(), BTreeSet::new());
    for (n, id) in ids.iter().enumerate() {
        let field = format!("InstanceIds[{n}]");
        let Some(id) = id.as_str() else { return refuse(&field, id, "an instance id such as \"i-0123456789abcdef0\"") };
        check_instance_id(&field, id)?;
        if known.insert(id) {
            distinct.push(id.to_owned());
        }
    }
    if distinct.len() > at_most {
        return Err(Error::InvalidInput(format!("InstanceIds: {} distinct ids; accepted: {accepted}", distinct.len())));
    }
    Ok(distinct)
}

/// A field that is true or false; false if it is absent.
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
            "1 to 256 characters on one line, without leading or trailing spaces (it becomes a tag)",
        ),
    }
}
