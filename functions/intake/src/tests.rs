use super::*;
use aws_smithy_mocks::{mock, mock_client};
use containment::{AutoScaling, Capture};
use serde_json::json;

const ID: &str = "i-0123456789abcdef0";

pub(crate) const OWN: &str = "123456789012";
pub(crate) const MEMBER: &str = "210987654321";

pub(crate) fn execution() -> Execution {
    Execution {
        id: "arn:aws:states:ap-northeast-1:123456789012:execution:cordon-contain:run-1".into(),
        start_time: "2026-11-21T03:00:07.123Z".into(),
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        response_mode: ResponseMode::Contain,
        minimum_severity: 7.0,
        instances_per_execution: 5,
        instances_per_hour: 10,
        member_accounts: [MEMBER.to_owned()].into_iter().collect(),
        capture_on_finding: None,
        fleet_above: 40,
        instances_per_batch: 10,
    }
}

fn planned(input: Value) -> Result<Request> {
    request(Event { input, execution: execution() }, &settings()).map(|(request, _)| request)
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
fn a_responders_input_becomes_one_target_with_a_case_of_its_own() {
    let plan = planned(json!({ "InstanceIds": [ID], "Region": "ap-northeast-1" })).expect("planned");
    let target = &plan.candidates[0].target;
    assert_eq!((target.account_id.as_str(), target.instance_id.as_str()), ("123456789012", ID));
    assert_eq!(target.case_id, "i-0123456789abcdef0-20261121T030007Z");
    assert!(!target.dry_run && !target.revoke_all_sessions && target.auto_scaling == AutoScaling::Replace);
}

#[test]
fn every_option_reaches_the_target() {
    let plan = planned(json!({
        "InstanceIds": [ID], "Region": "ap-northeast-1", "IncidentTicket": "INC-7", "Owner": "当番", "DryRun": true,
        "AutoScaling": "Decrement", "RevokeAllSessions": true, "CaptureVolatile": true, "CaptureMemory": true,
        "CaptureMode": "CaptureFirst", "HashSnapshots": true,
    }))
    .expect("planned");
    let target = &plan.candidates[0].target;
    assert!(target.dry_run && target.revoke_all_sessions && target.hash_snapshots);
    assert_eq!((target.owner.as_deref(), target.auto_scaling), (Some("当番"), AutoScaling::Decrement));
    assert_eq!(target.capture, Some(Capture { mode: CaptureMode::CaptureFirst, memory: true }));
}

#[test]
fn slow_options_are_accepted_for_few_instances_only() {
    let asked = |field: &str, count: usize| {
        let ids: Vec<String> = (0..count).map(|n| format!("i-{n:017x}")).collect();
        planned(json!({ "InstanceIds": ids, "Region": "eu-west-1", field: true }))
    };
    for field in ["CaptureVolatile", "HashSnapshots"] {
        assert!(asked(field, 10).is_ok());
        let refused = asked(field, 11).expect_err("refused").to_string();
        assert!(refused.starts_with(field) && refused.contains("at most 10 instances"), "{refused}");
    }
    assert!(asked("RevokeAllSessions", 50).is_ok());
}

#[test]
fn a_capture_runs_only_on_request_and_by_default_after_isolation() {
    let asked = |fields: Value| {
        let mut input = json!({ "InstanceIds": [ID], "Region": "eu-west-1" });
        input.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        planned(input).expect("planned").candidates[0].target.capture
    };
    assert_eq!(asked(json!({})), None);
    assert_eq!(asked(json!({ "CaptureVolatile": false, "CaptureMemory": false })), None);
    let capture = Capture { mode: CaptureMode::IsolateFirst, memory: false };
    assert_eq!(asked(json!({ "CaptureVolatile": true })), Some(capture));
    assert_eq!(asked(json!({ "CaptureVolatile": true, "CaptureMode": "IsolateFirst" })), Some(capture));
    assert_eq!(
        asked(json!({ "CaptureVolatile": true, "CaptureMemory": true })),
        Some(Capture { memory: true, ..capture })
    );
}

#[test]
fn a_memory_image_or_a_mode_without_a_capture_is_refused() {
    let refused = |fields: Value, field: &str, accepted: &str| {
        let mut input = json!({ "InstanceIds": [ID], "Region": "eu-west-1" });
        input.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        refused(input, field, accepted);
    };
    let beside = "only together with \"CaptureVolatile\": true";
    refused(json!({ "CaptureMemory": true }), "CaptureMemory: true is not accepted", beside);
    refused(json!({ "CaptureMemory": true, "CaptureVolatile": false }), "CaptureMemory", beside);
    refused(json!({ "CaptureMode": "IsolateFirst" }), "CaptureMode: \"IsolateFirst\" is not accepted", beside);
    refused(json!({ "CaptureVolatile": "yes" }), "CaptureVolatile", "true or false");
    refused(json!({ "CaptureVolatile": true, "CaptureMemory": 1 }), "CaptureMemory", "true or false");
    refused(json!({ "CaptureVolatile": true, "CaptureMode": "First" }), "CaptureMode", "\"CaptureFirst\"");
}

#[test]
fn duplicates_collapse_and_the_order_stays() {
    let ids = ["i-0bbbbbbbbbbbbbbbb", ID, "i-0bbbbbbbbbbbbbbbb"];
    let plan = planned(json!({ "InstanceIds": ids, "Region": "eu-west-1" })).expect("planned");
    let ids: Vec<&str> = plan.candidates.iter().map(|w| w.target.instance_id.as_str()).collect();
    assert_eq!(ids, ["i-0bbbbbbbbbbbbbbbb", ID]);
}

#[test]
fn an_input_that_is_not_an_object_is_refused() {
    for input in [json!([ID]), json!("i-1"), json!(null), json!(7)] {
        refused(input, "the input", "an object such as");
    }
}

#[test]
fn missing_empty_and_malformed_ids_are_refused_by_position() {
    refused(json!({ "Region": "eu-west-1" }), "InstanceIds: missing", "a list of 1 to 10000");
    refused(json!({ "InstanceIds": [], "Region": "eu-west-1" }), "InstanceIds", "a list of 1 to 10000");
    refused(json!({ "InstanceIds": ID, "Region": "eu-west-1" }), "InstanceIds", "a list of 1 to 10000");
    refused(json!({ "InstanceIds": [ID, "i-XYZ"], "Region": "eu-west-1" }), "InstanceIds[1]", "hexadecimal");
    refused(json!({ "InstanceIds": [ID, 7], "Region": "eu-west-1" }), "InstanceIds[1]", "instance id");
}

#[test]
fn too_many_ids_are_refused_and_repeated_ones_count_once() {
    let ids: Vec<String> = (0..10_001).map(|n| format!("i-{n:017x}")).collect();
    refused(json!({ "InstanceIds": ids, "Region": "eu-west-1" }), "InstanceIds", "1 to 10000");
    assert!(planned(json!({ "InstanceIds": vec![ID; 10_001], "Region": "eu-west-1" })).is_ok());
}

#[test]
fn a_missing_or_malformed_region_is_refused() {
    refused(json!({ "InstanceIds": [ID] }), "Region: missing", "ap-northeast-1");
    refused(json!({ "InstanceIds": [ID], "Region": "Tokyo" }), "Region", "ap-northeast-1");
    refused(json!({ "InstanceIds": [ID], "Region": ["eu-west-1"] }), "Region", "ap-northeast-1");
}

#[test]
fn unknown_fields_and_wrong_options_are_refused_by_name() {
    refused(json!({ "InstanceIds": [ID], "Region": "eu-west-1", "Dryrun": true }), "Dryrun", "only the fields");
    refused(json!({ "InstanceIds": [ID], "Region": "eu-west-1", "DryRun": "true" }), "DryRun", "true or false");
    refused(json!({ "InstanceIds": [ID], "Region": "eu-west-1", "AutoScaling": "Keep" }), "AutoScaling", "Decrement");
    refused(json!({ "InstanceIds": [ID], "Region": "eu-west-1", "Owner": "a\nb" }), "Owner", "on one line");
    refused(json!({ "InstanceIds": [ID], "Region": "eu-west-1", "IncidentTicket": "" }), "IncidentTicket", "1 to 256");
}

#[test]
fn a_refusal_cuts_a_huge_value_short() {
    let error = planned(json!({ "InstanceIds": [ID], "Region": "x".repeat(10_000), "Owner": 1 })).expect_err("refused");
    assert!(planned(json!(["x".repeat(10_000)])).expect_err("refused").to_string().len() < 400);
    assert!(!error.to_string().is_empty());
}

#[test]
fn an_account_is_accepted_if_it_is_cordons_own_or_a_member() {
    let of = |account: Value| planned(json!({ "InstanceIds": [ID], "Region": "eu-west-1", "AccountId": account }));
    for account in [OWN, MEMBER] {
        assert_eq!(of(account.into()).expect("accepted").candidates[0].target.account_id, account);
    }
    let with = |account: Value| json!({ "InstanceIds": [ID], "Region": "eu-west-1", "AccountId": account });
    refused(with("111111111111".into()), "AccountId: \"111111111111\"", "MemberAccounts: 210987654321");
    refused(with("12".into()), "AccountId", "12 digits");
    refused(with(210_987_654_321_u64.into()), "AccountId", "in quotes");
}

#[test]
fn a_persons_input_is_never_taken_for_an_event() {
    refused(json!({ "InstanceIds": [ID], "Region": "eu-west-1", "detail": {} }), "detail", "only the fields");
}

#[test]
fn an_invalid_start_time_or_execution_is_refused() {
    let wrong = |id: &str, start: &str| {
        let execution = Execution { id: id.into(), start_time: start.into() };
        let input = json!({ "InstanceIds": [ID], "Region": "eu-west-1" });
        request(Event { input, execution }, &settings()).expect_err("refused").to_string()
    };
    assert!(wrong("run-1", "2026-11-21T03:00:07.123Z").starts_with("Execution.Id"));
    assert!(wrong(&execution().id, "now").starts_with("Execution.StartTime"));
    assert!(wrong(&execution().id, "２０２６-11-21T03:00:07.123Z").starts_with("Execution.StartTime"));
}

fn drift(fields: Value) -> Value {
    let mut input = json!({ "InstanceIds": [ID], "Region": "eu-west-1", "AccountId": MEMBER,
        "Drift": { "EventId": "e-1", "EventName": "StopInstances", "Caller": "x".repeat(9_000) } });
    input.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    input
}

#[test]
fn a_start_for_drift_names_one_instance_and_the_call() {
    let request = planned(drift(json!({}))).expect("planned");
    assert_eq!((request.candidates.len(), request.trigger.source), (1, Source::Drift));
    let told = request.trigger.drift.expect("what was done");
    assert_eq!((told.event_name.as_str(), told.caller.len()), ("StopInstances", 400));
}

#[test]
fn a_start_for_drift_takes_its_options_from_the_case_only() {
    refused(drift(json!({ "RevokeAllSessions": true })), "RevokeAllSessions", "only together with InstanceIds");
    refused(drift(json!({ "DryRun": false })), "DryRun", "only together with InstanceIds");
    refused(
        drift(json!({ "InstanceIds": [ID, "i-0bbbbbbbbbbbbbbbb"] })),
        "InstanceIds",
        "one instance together with Drift",
    );
    refused(drift(json!({ "AccountId": "111111111111" })), "AccountId", "MemberAccounts");
    refused(drift(json!({ "Drift": { "EventId": "e-1" } })), "Drift", "EventName");
    refused(drift(json!({ "Drift": "yes" })), "Drift", "watch-drift");
}

async fn with_options(item: &'static [(&'static str, &'static str)]) -> Request {
    use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
    use aws_sdk_dynamodb::types::AttributeValue;
    let rule = mock!(aws_sdk_dynamodb::Client::get_item).then_output(move || {
        let value = |v: &str| match v.parse::<i64>() {
            Ok(_) => AttributeValue::N(v.to_owned()),
            Err(_) => AttributeValue::S(v.to_owned()),
        };
        let item = item.iter().map(|(name, v)| ((*name).to_owned(), value(v))).collect();
        GetItemOutput::builder().set_item(Some(item)).build()
    });
    let cases = cases::CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
    let request = planned(drift(json!({}))).expect("planned");
    crate::drift::with_options(&cases, request).await.expect("read")
}

#[tokio::test]
async fn drift_repairs_only_a_contained_instance_and_keeps_its_cases_options() {
    let request = with_options(&[
        ("CaseId", "c-1"),
        ("Status", "Open"),
        ("WatchedSince", "7"),
        ("Options", r#"{"IncidentTicket":"INC-7","AutoScaling":"Decrement","RevokeAllSessions":true}"#),
    ])
    .await;
    let target = &request.candidates[0].target;
    assert_eq!((target.incident_ticket.as_deref(), target.auto_scaling), (Some("INC-7"), AutoScaling::Decrement));
    assert!(target.revoke_all_sessions);
    for nobodys in [
        &[][..],
        &[("CaseId", "c-1"), ("Status", "Open")],
        &[("CaseId", "c-1"), ("Status", "Released"), ("WatchedSince", "7")],
    ] {
        let request = with_options(nobodys).await;
        assert!(request.candidates.is_empty() && request.left_out[0].quiet);
        assert!(request.left_out[0].reason.contains("no open case"));
    }
}
