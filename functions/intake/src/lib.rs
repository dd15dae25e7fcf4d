//! Makes the execution's input into targets, one per distinct instance, or refuses it before anything is touched.

use std::collections::BTreeSet;

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::Filter;
use containment::{AutoScaling, Error, Result, Target, check_instance_id, check_region};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What the state machine hands over: the execution's input as it came, and the execution.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Event {
    /// The execution's input.
    pub input: Value,
    /// Which execution it is.
    pub execution: Execution,
}

/// The execution's own data, from the Step Functions context object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Execution {
    /// The execution's ARN, which has Cordon's account and Region.
    pub id: String,
    /// When it was started: `2026-11-21T03:00:00.000Z`.
    pub start_time: String,
}

/// What intake makes of it.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Plan {
    /// Whether the execution is to change nothing.
    pub dry_run: bool,
    /// One target for each distinct instance, in the order of the input.
    pub targets: Vec<Target>,
}

/// The largest number of instances in one execution: their outcomes travel through states of 256 KiB (trap H3),
/// and their events share one history of 25,000 (H4).
pub const INSTANCES_AT_MOST: usize = 50;

/// A tag's value has at most so many characters.
const TAG_VALUE_AT_MOST: usize = 256;

const ACCEPTED: &str = "InstanceIds, Region, IncidentTicket, Owner, DryRun, AutoScaling, RevokeAllSessions";

/// Makes the plan. Pure; whether the Region exists is [`check_region_exists`]'s question.
pub fn plan(event: Value) -> Result<Plan> {
    let event: Event = serde_json::from_value(event)
        .map_err(|error| Error::InvalidInput(format!("the event of intake is not {{Input, Execution}}: {error}")))?;
    let Value::Object(input) = event.input else {
        return refuse(
            "the input",
            &event.input,
            "an object such as {\"InstanceIds\":[\"i-…\"],\"Region\":\"ap-northeast-1\"}",
        );
    };
    let known: BTreeSet<&str> = ACCEPTED.split(", ").collect();
    if let Some((field, value)) = input.iter().find(|(field, _)| !known.contains(field.as_str())) {
        return refuse(field, value, &format!("only the fields {ACCEPTED}"));
    }
    let account = event.execution.id.split(':').nth(4).filter(|a| a.len() == 12).ok_or_else(|| {
        Error::InvalidInput(format!("Execution.Id: {:?} is not an execution's ARN", event.execution.id))
    })?;
    let started = stamp(&event.execution.start_time)?;
    let region = region(&input)?;
    let ids = instance_ids(&input)?;
    let auto_scaling = auto_scaling(&input)?;
    let dry_run = flag(&input, "DryRun")?;
    let revoke_all_sessions = flag(&input, "RevokeAllSessions")?;
    let incident_ticket = tag_value(&input, "IncidentTicket")?;
    let owner = tag_value(&input, "Owner")?;
    let targets = ids.into_iter().map(|instance_id| Target {
        account_id: account.to_owned(),
        region: region.clone(),
        case_id: format!("{instance_id}-{started}"),
        instance_id,
        execution: Some(event.execution.id.clone()),
        dry_run,
        incident_ticket: incident_ticket.clone(),
        owner: owner.clone(),
        auto_scaling,
        revoke_all_sessions,
        instance_profile_arn: None,
        unjournaled: Default::default(),
    });
    Ok(Plan { dry_run, targets: targets.collect() })
}

/// Asks EC2 whether the account has the Region. Cordon's own Region needs no question: Cordon runs there.
pub async fn check_region_exists(home: &SdkConfig, region: &str) -> Result<()> {
    if home.region().is_some_and(|own| own.as_ref() == region) {
        return Ok(());
    }
    exists(&Client::new(home), region).await
}

async fn exists(ec2: &Client, region: &str) -> Result<()> {
    let named = Filter::builder().name("region-name").values(region).build();
    let reply = ec2.describe_regions().all_regions(true).filters(named).send().await;
    let reply = reply.map_err(Error::aws("ec2:DescribeRegions", region))?;
    match reply.regions().iter().find(|r| r.region_name() == Some(region)) {
        None => refuse("Region", &region.into(), "a Region that EC2 has, such as \"ap-northeast-1\""),
        Some(found) if found.opt_in_status() == Some("not-opted-in") => {
            refuse("Region", &region.into(), "a Region that is enabled in the account; this one is not")
        }
        Some(_) => Ok(()),
    }
}

fn refuse<T>(field: &str, value: &Value, accepted: &str) -> Result<T> {
    let mut shown = value.to_string();
    if shown.chars().count() > 120 {
        shown = shown.chars().take(120).chain("…".chars()).collect();
    }
    Err(Error::InvalidInput(format!("{field}: {shown} is not accepted; accepted: {accepted}")))
}

fn stamp(start_time: &str) -> Result<String> {
    let digits: String = start_time.chars().filter(char::is_ascii_digit).take(14).collect();
    if digits.len() < 14 {
        return Err(Error::InvalidInput(format!(
            "Execution.StartTime: {start_time:?} is not a time such as 2026-11-21T03:00:00.000Z"
        )));
    }
    Ok(format!("{}T{}Z", &digits[..8], &digits[8..]))
}

fn region(input: &Map<String, Value>) -> Result<String> {
    let accepted = "a Region's name such as \"ap-northeast-1\"";
    let Some(value) = input.get("Region") else {
        return Err(Error::InvalidInput(format!("Region: missing; accepted: {accepted}")));
    };
    let Some(region) = value.as_str() else { return refuse("Region", value, accepted) };
    check_region("Region", region)?;
    Ok(region.to_owned())
}

fn instance_ids(input: &Map<String, Value>) -> Result<Vec<String>> {
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

fn flag(input: &Map<String, Value>, field: &str) -> Result<bool> {
    match input.get(field) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => refuse(field, other, "true or false, without quotes"),
    }
}

fn tag_value(input: &Map<String, Value>, field: &str) -> Result<Option<String>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::describe_regions::DescribeRegionsOutput;
    use aws_sdk_ec2::types::Region;
    use aws_smithy_mocks::{mock, mock_client};
    use serde_json::json;

    const ID: &str = "i-0123456789abcdef0";

    fn planned(input: Value) -> Result<Plan> {
        plan(json!({
            "Input": input,
            "Execution": {
                "Id": "arn:aws:states:ap-northeast-1:123456789012:execution:cordon-contain:run-1",
                "StartTime": "2026-11-21T03:00:07.123Z",
            },
        }))
    }

    #[track_caller]
    fn refused(input: Value, field: &str, accepted: &str) {
        let error = planned(input).expect_err("refused");
        assert_eq!(error.name(), "InvalidInput");
        let text = error.to_string();
        assert!(text.starts_with(field) && text.contains(accepted), "{text}");
        assert!(!text.contains('\n'), "one sentence: {text}");
    }

    #[test]
    fn what_a_responder_types_becomes_one_target_with_a_case_of_its_own() {
        let plan = planned(json!({ "InstanceIds": [ID], "Region": "ap-northeast-1" })).expect("planned");
        let target = &plan.targets[0];
        assert_eq!((target.account_id.as_str(), target.instance_id.as_str()), ("123456789012", ID));
        assert_eq!(target.case_id, "i-0123456789abcdef0-20261121T030007Z");
        assert!(!plan.dry_run && !target.revoke_all_sessions && target.auto_scaling == AutoScaling::Replace);
    }

    #[test]
    fn every_option_reaches_the_target() {
        let plan = planned(json!({
            "InstanceIds": [ID], "Region": "ap-northeast-1", "IncidentTicket": "INC-7", "Owner": "当番", "DryRun": true,
            "AutoScaling": "Decrement", "RevokeAllSessions": true,
        }))
        .expect("planned");
        let target = &plan.targets[0];
        assert!(plan.dry_run && target.dry_run && target.revoke_all_sessions);
        assert_eq!((target.owner.as_deref(), target.auto_scaling), (Some("当番"), AutoScaling::Decrement));
    }

    #[test]
    fn duplicates_collapse_and_the_order_stays() {
        let ids = ["i-0bbbbbbbbbbbbbbbb", ID, "i-0bbbbbbbbbbbbbbbb"];
        let plan = planned(json!({ "InstanceIds": ids, "Region": "eu-west-1" })).expect("planned");
        let ids: Vec<&str> = plan.targets.iter().map(|t| t.instance_id.as_str()).collect();
        assert_eq!(ids, ["i-0bbbbbbbbbbbbbbbb", ID]);
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for input in [json!([ID]), json!("i-1"), json!(null), json!(7)] {
            refused(input, "the input", "an object such as");
        }
    }

    #[test]
    fn missing_empty_and_malformed_ids_are_refused_by_their_place() {
        refused(json!({ "Region": "eu-west-1" }), "InstanceIds: missing", "a list of 1 to 50");
        refused(json!({ "InstanceIds": [], "Region": "eu-west-1" }), "InstanceIds", "a list of 1 to 50");
        refused(json!({ "InstanceIds": ID, "Region": "eu-west-1" }), "InstanceIds", "a list of 1 to 50");
        refused(json!({ "InstanceIds": [ID, "i-XYZ"], "Region": "eu-west-1" }), "InstanceIds[1]", "hexadecimal");
        refused(json!({ "InstanceIds": [ID, 7], "Region": "eu-west-1" }), "InstanceIds[1]", "instance id");
    }

    #[test]
    fn more_ids_than_the_limit_are_refused_but_repeated_ones_do_not_count() {
        let ids: Vec<String> = (0..51).map(|n| format!("i-{n:017x}")).collect();
        refused(json!({ "InstanceIds": ids, "Region": "eu-west-1" }), "InstanceIds", "1 to 50");
        assert!(planned(json!({ "InstanceIds": vec![ID; 51], "Region": "eu-west-1" })).is_ok());
    }

    #[test]
    fn a_region_that_is_missing_or_none_is_refused() {
        refused(json!({ "InstanceIds": [ID] }), "Region: missing", "ap-northeast-1");
        refused(json!({ "InstanceIds": [ID], "Region": "Tokyo" }), "Region", "ap-northeast-1");
        refused(json!({ "InstanceIds": [ID], "Region": ["eu-west-1"] }), "Region", "ap-northeast-1");
    }

    #[test]
    fn unknown_fields_and_wrong_options_are_refused_by_name() {
        refused(json!({ "InstanceIds": [ID], "Region": "eu-west-1", "Dryrun": true }), "Dryrun", "only the fields");
        refused(json!({ "InstanceIds": [ID], "Region": "eu-west-1", "DryRun": "true" }), "DryRun", "true or false");
        refused(
            json!({ "InstanceIds": [ID], "Region": "eu-west-1", "AutoScaling": "Keep" }),
            "AutoScaling",
            "Decrement",
        );
        refused(json!({ "InstanceIds": [ID], "Region": "eu-west-1", "Owner": "a\nb" }), "Owner", "on one line");
        refused(
            json!({ "InstanceIds": [ID], "Region": "eu-west-1", "IncidentTicket": "" }),
            "IncidentTicket",
            "1 to 256",
        );
    }

    #[test]
    fn a_huge_value_is_not_thrown_back_whole() {
        let error =
            planned(json!({ "InstanceIds": [ID], "Region": "x".repeat(10_000), "Owner": 1 })).expect_err("refused");
        assert!(planned(json!(["x".repeat(10_000)])).expect_err("refused").to_string().len() < 400);
        assert!(!error.to_string().is_empty());
    }

    #[tokio::test]
    async fn a_region_that_ec2_does_not_know_or_the_account_has_not_enabled_is_refused() {
        let rule = mock!(Client::describe_regions)
            .match_requests(|r| r.all_regions() == Some(true))
            .then_compute_output(|r| {
                let status = |name: &str| if name == "me-south-1" { "not-opted-in" } else { "opt-in-not-required" };
                let known = r.filters()[0].values().iter().filter(|name| *name != "xx-nowhere-9");
                let regions = known.map(|name| Region::builder().region_name(name).opt_in_status(status(name)).build());
                DescribeRegionsOutput::builder().set_regions(Some(regions.collect())).build()
            });
        let ec2 = mock_client!(aws_sdk_ec2, aws_smithy_mocks::RuleMode::MatchAny, [&rule]);
        assert!(exists(&ec2, "eu-west-1").await.is_ok());
        assert!(exists(&ec2, "xx-nowhere-9").await.expect_err("unknown").to_string().contains("a Region that EC2 has"));
        assert!(exists(&ec2, "me-south-1").await.expect_err("off").to_string().contains("enabled in the account"));
    }
}
