use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
use aws_sdk_dynamodb::operation::put_item::PutItemOutput;
use aws_sdk_dynamodb::operation::query::QueryOutput;
use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_sdk_sfn::operation::describe_execution::DescribeExecutionOutput;
use aws_sdk_sfn::operation::start_execution::{StartExecutionError, StartExecutionOutput};
use aws_sdk_sfn::types::ExecutionStatus;
use aws_sdk_sfn::types::error::ExecutionAlreadyExists;
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use aws_smithy_types::error::ErrorMetadata;
use cases::Case;
use runtime::Caller;

use super::*;

const KEY: &str = "123456789012/eu-west-1/i-0123456789abcdef0";
/// Another instance, with the same address.
const TWIN: &str = "123456789012/eu-west-1/i-0cccccccccccccccc";
const MACHINE: &str = "arn:aws:states:eu-west-1:999999999999:stateMachine:cordon-contain";
const HOLDER: &str = "arn:aws:states:eu-west-1:999999999999:execution:cordon-contain:run-1";
const MINE: &str =
    "arn:aws:states:eu-west-1:999999999999:execution:cordon-contain:drift-i-0123456789abcdef0-event-0001";
/// 2026-11-21T03:12:45Z, when the call was made.
const AT: i64 = 1_795_230_765;

type Item = HashMap<String, AttributeValue>;

/// The case in the table; without attributes, there is no item.
fn case(fields: &[(&str, &str)]) -> Item {
    let value = |v: &str| match v.parse::<i64>() {
        Ok(_) => AttributeValue::N(v.to_owned()),
        Err(_) => AttributeValue::S(v.to_owned()),
    };
    fields.iter().map(|(name, v)| ((*name).to_owned(), value(v))).collect()
}

fn monitored(more: &[(&str, &str)]) -> Item {
    let open = [
        ("CaseId", "c-1"),
        ("Status", "Open"),
        ("Execution", HOLDER),
        ("HeldSince", "7"),
        ("WatchedSince", "8"),
        ("VerifiedAt", "9"),
    ];
    let mut item = case(&open);
    item.extend(case(more));
    item
}

/// The world of a test.
struct World {
    case: Item,
    /// The call is in the case already.
    known: bool,
    /// The holder and the last repair are still running.
    running: bool,
    /// The repairs of this hour are used up.
    used_up: bool,
}

struct Seen {
    answer: Answer,
    told: Vec<Value>,
    started: usize,
    stored: usize,
    added: usize,
    noted: usize,
}

impl World {
    fn new(case: Item) -> World {
        World { case, known: false, running: false, used_up: false }
    }

    async fn meets(self, event: &Value) -> Seen {
        let World { case, known, running, used_up } = self;
        let record = |r: &aws_sdk_dynamodb::operation::get_item::GetItemInput| {
            r.key().expect("a key")["Record"].as_s().expect("a text").clone()
        };
        let read = mock!(aws_sdk_dynamodb::Client::get_item).then_compute_output(move |r| {
            let item = match record(r).as_str() {
                "case"
                    if [KEY, TWIN]
                        .map(|key| AttributeValue::S(key.into()))
                        .contains(&r.key().expect("a key")["Instance"]) =>
                {
                    Some(case.clone())
                }
                other if known && other.starts_with("drift#") => Some(monitored(&[])),
                _ => None,
            };
            GetItemOutput::builder().set_item(item.filter(|item| !item.is_empty())).build()
        });
        let found = mock!(aws_sdk_dynamodb::Client::query).then_compute_output(|r| {
            let asked = r.expression_attribute_values().expect("values")[":resource"].as_s().expect("a text");
            let of = |key: &str| Item::from([("Record".to_owned(), AttributeValue::S(format!("resource-of#{key}")))]);
            let items = match asked.rsplit('/').next() {
                Some("eni-1a") => Some(vec![of(KEY)]),
                Some("10.0.0.5" | "sg-0a") => Some(vec![of(KEY), of(TWIN)]),
                _ => None,
            };
            QueryOutput::builder().set_items(items).build()
        });
        let added = mock!(aws_sdk_dynamodb::Client::put_item).then_output(|| PutItemOutput::builder().build());
        let repairs = mock!(aws_sdk_dynamodb::Client::update_item).match_requests(move |r| {
            used_up && r.key().expect("a key")["Record"].as_s().expect("a text").starts_with("repairs#")
        });
        let repairs = repairs.then_error(|| {
            let meta = ErrorMetadata::builder().code("ConditionalCheckFailedException").build();
            UpdateItemError::ConditionalCheckFailedException(
                ConditionalCheckFailedException::builder().meta(meta).build(),
            )
        });
        let noted = mock!(aws_sdk_dynamodb::Client::update_item)
            .match_requests(|r| {
                let mut names = r.expression_attribute_names().expect("names").values();
                names.any(|name| matches!(name.as_str(), "ToldToWaitFor" | "CalledIn"))
            })
            .then_output(|| UpdateItemOutput::builder().build());
        let updated = mock!(aws_sdk_dynamodb::Client::update_item).then_output(|| UpdateItemOutput::builder().build());
        let stored =
            mock!(aws_sdk_s3::Client::put_object).then_output(|| PutObjectOutput::builder().version_id("v").build());
        let described = mock!(aws_sdk_sfn::Client::describe_execution).then_compute_output(move |r| {
            let status = if running { ExecutionStatus::Running } else { ExecutionStatus::Succeeded };
            let reply = DescribeExecutionOutput::builder().execution_arn(r.execution_arn().expect("an ARN"));
            let reply = reply.state_machine_arn(MACHINE).status(status).start_date(DateTime::from_secs(7));
            reply.build().expect("complete")
        });
        let started = mock!(aws_sdk_sfn::Client::start_execution)
            .match_requests(|r| {
                let input: Value = serde_json::from_str(r.input().expect("an input")).expect("JSON");
                let instance = input["InstanceIds"][0].as_str().expect("an instance");
                r.name() == Some(&format!("drift-{instance}-event-0001"))
                    && r.state_machine_arn() == Some(MACHINE)
                    && [KEY, TWIN].iter().any(|key| key.ends_with(instance))
                    && input["Drift"]["Caller"] == "arn:aws:iam::123456789012:user/eve"
            })
            .then_output(|| {
                let reply = StartExecutionOutput::builder().execution_arn(MINE).start_date(DateTime::from_secs(7));
                reply.build().expect("complete")
            });
        let dynamodb: [&Rule; 6] = [&read, &found, &added, &repairs, &noted, &updated];
        let told = Arc::new(Mutex::new(Vec::new()));
        let detection = DriftDetection {
            cases: CaseTable::new(mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, dynamodb), "cases"),
            bucket: Bucket::new(mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&stored]), "evidence", Caller::default()),
            sfn: mock_client!(aws_sdk_sfn, RuleMode::MatchAny, [&described, &started]),
            ..detection(Arc::clone(&told))
        };
        let batch = json!({ "Records": [{ "messageId": "m-1", "body": event.to_string() }] });
        let answer = detection.all(serde_json::from_value(batch).expect("a batch"), AT + 60).await;
        let told = told.lock().expect("lock").clone();
        let (started, stored, added, noted) =
            (started.num_calls(), stored.num_calls(), added.num_calls(), noted.num_calls());
        Seen { answer, told, started, stored, added, noted }
    }
}

fn detection(told: Arc<Mutex<Vec<Value>>>) -> DriftDetection<'static> {
    DriftDetection {
        cases: CaseTable::new(mock_client!(aws_sdk_dynamodb, []), "cases"),
        bucket: Bucket::new(mock_client!(aws_sdk_s3, []), "evidence", Caller::default()),
        sfn: mock_client!(aws_sdk_sfn, []),
        machine: MACHINE.into(),
        own: Own {
            account: "999999999999".into(),
            stack: "cordon".into(),
            member_role: "cordon/cordon-member".into(),
            forensic_role: None,
        },
        repairs_per_hour: 4,
        tell: Box::new(move |message| {
            told.lock().expect("lock").push(serde_json::to_value(message).expect("JSON"));
            async { Ok(()) }.boxed()
        }),
    }
}

fn event(name: &str, parameters: Value) -> Value {
    json!({
        "detail-type": "AWS API Call via CloudTrail", "account": "123456789012", "region": "eu-west-1",
        "detail": {
            "eventName": name, "eventTime": "2026-11-21T03:12:45Z", "eventID": "event-0001",
            "userIdentity": { "type": "IAMUser", "arn": "arn:aws:iam::123456789012:user/eve", "accessKeyId": "AKIAEVE" },
            "requestParameters": parameters,
        },
    })
}

fn regrouped() -> Value {
    event("ModifyNetworkInterfaceAttribute", json!({ "networkInterfaceId": "eni-1a" }))
}

fn again() -> Answer {
    Answer { batch_item_failures: vec![Failure { item_identifier: "m-1".into() }] }
}

#[tokio::test]
async fn a_strangers_change_is_recorded_and_the_instance_is_contained_again() {
    let seen = World::new(monitored(&[])).meets(&regrouped()).await;
    assert_eq!((seen.started, seen.stored, seen.added), (1, 1, 1));
    assert_eq!(seen.answer, Answer::default(), "the message does not come again");
    assert!(seen.told.is_empty(), "the execution announces it");
}

#[tokio::test]
async fn an_instance_that_no_open_case_contained_is_ignored() {
    for case in [
        case(&[]),
        monitored(&[("Status", "Released")]),
        case(&[("CaseId", "c-1"), ("Status", "Open"), ("Execution", HOLDER)]),
        monitored(&[("WatchedSince", "1795230771")]),
    ] {
        let seen = World::new(case).meets(&regrouped()).await;
        assert_eq!((seen.started, seen.stored, seen.added, seen.told.len()), (0, 0, 0, 0));
        assert_eq!(seen.answer, Answer::default());
    }
    let other = event("ModifyNetworkInterfaceAttribute", json!({ "networkInterfaceId": "eni-2b" }));
    let other_instance =
        event("StopInstances", json!({ "instancesSet": { "items": [{ "instanceId": "i-0bbbbbbbbbbbbbbbb" }] } }));
    for event in [other, other_instance] {
        assert_eq!(World::new(monitored(&[])).meets(&event).await.started, 0);
    }
}

#[tokio::test]
async fn a_change_that_a_later_verification_has_seen_is_recorded_and_not_repaired() {
    let good = [("VerifiedAt", "1795230770"), ("Verdict", "Contained")];
    let seen = World::new(monitored(&good)).meets(&regrouped()).await;
    assert_eq!((seen.started, seen.added), (0, 1));
    assert_eq!(seen.answer, Answer::default());
    let too_soon = World::new(monitored(&[("VerifiedAt", "1795230769"), good[1]])).meets(&regrouped()).await;
    assert_eq!(too_soon.started, 1, "AWS may not have shown the change yet");
    let open = [good[0], ("Verdict", "NotContained")];
    let found_open = World::new(monitored(&open)).meets(&regrouped()).await;
    assert_eq!(found_open.started, 1, "the verification found it open, and nobody has repaired it");
    let repaired = World::new(monitored(&[open[0], open[1], ("HeldSince", "1795230770")])).meets(&regrouped()).await;
    assert_eq!(repaired.started, 0, "a whole containment has begun since");
}

#[tokio::test]
async fn a_call_that_is_delivered_twice_is_in_the_case_once() {
    let seen =
        World { known: true, ..World::new(monitored(&[("VerifiedAt", "1795230770"), ("Verdict", "Contained")])) }
            .meets(&regrouped())
            .await;
    assert_eq!((seen.started, seen.stored, seen.added), (0, 0, 0));
}

#[tokio::test]
async fn while_an_execution_holds_the_case_people_are_told_once_and_the_call_waits() {
    let held = |case: Item| World { running: true, ..World::new(case) };
    let seen = held(monitored(&[])).meets(&regrouped()).await;
    assert_eq!((seen.started, seen.added, seen.noted), (0, 1, 1));
    assert_eq!(seen.answer, again());
    assert_eq!((&seen.told[0]["Kind"], &seen.told[0]["Execution"]["Id"]), (&json!("DriftFound"), &json!(HOLDER)));
    assert_eq!(seen.told[0]["Trigger"]["Drift"]["AccessKeyId"], "AKIAEVE");
    assert!(held(monitored(&[("ToldToWaitFor", HOLDER)])).meets(&regrouped()).await.told.is_empty());
}

#[tokio::test]
async fn of_a_burst_only_the_first_call_starts_a_repair() {
    let repair = MINE.replace("event-0001", "event-0000");
    let mut seen = monitored(&[("RepairSince", "1795230800")]);
    seen.insert("Repair".into(), AttributeValue::S(repair));
    // Its execution does not show yet, or runs.
    let seen = World { running: true, ..World::new(seen) }.meets(&regrouped()).await;
    assert_eq!((seen.started, seen.answer), (0, again()));
}

#[tokio::test]
async fn a_repair_that_was_claimed_and_not_started_is_started_by_the_next_try() {
    let mut claimed = monitored(&[("RepairSince", "1795230800")]);
    claimed.insert("Repair".into(), AttributeValue::S(MINE.into()));
    let seen = World { running: true, used_up: true, known: true, case: claimed }.meets(&regrouped()).await;
    assert_eq!((seen.started, seen.answer), (1, Answer::default()));
}

#[tokio::test]
async fn beyond_the_limit_nothing_starts_and_a_person_is_called_once_an_hour() {
    let used_up = |case: Item| World { used_up: true, ..World::new(case) };
    let seen = used_up(monitored(&[])).meets(&regrouped()).await;
    assert_eq!((seen.started, seen.added, seen.noted), (0, 1, 1));
    assert_eq!((&seen.told[0]["Kind"], &seen.told[0]["RepairsPerHour"]), (&json!("DriftNotRepaired"), &json!(4)));
    assert_eq!(seen.answer, again(), "it is repaired in the next hour");
    let called = used_up(monitored(&[("CalledIn", "2026-11-21T03")])).meets(&regrouped()).await;
    assert!(called.told.is_empty());
}

#[tokio::test]
async fn every_instance_that_shares_the_changed_resource_is_contained_again() {
    let registered =
        event("RegisterTargets", json!({ "targetGroupArn": "arn:tg", "targets": [{ "id": "10.0.0.5", "port": 80 }] }));
    assert_eq!(World::new(monitored(&[])).meets(&registered).await.started, 2);
    let opened = event("AuthorizeSecurityGroupIngress", json!({ "groupId": "sg-0a" }));
    assert_eq!(World::new(monitored(&[])).meets(&opened).await.started, 2);
    let seen = World { used_up: true, ..World::new(monitored(&[])) }.meets(&opened).await;
    assert_eq!((seen.started, seen.told.len()), (0, 2), "each instance has its own limit");
}

#[tokio::test]
async fn an_execution_that_already_has_the_name_counts_as_started() {
    let exists = mock!(aws_sdk_sfn::Client::start_execution).then_error(|| {
        let meta = ErrorMetadata::builder().code("ExecutionAlreadyExists").build();
        StartExecutionError::ExecutionAlreadyExists(ExecutionAlreadyExists::builder().meta(meta).build())
    });
    let detection = DriftDetection { sfn: mock_client!(aws_sdk_sfn, [&exists]), ..detection(Arc::default()) };
    let target = target(KEY, &Monitored { case: Case { id: "c-1".into(), ..Case::default() }, ..Monitored::default() })
        .expect("a target");
    detection.start("drift-1", &target, &Drift::default()).await.expect("started before");
}

#[tokio::test]
async fn a_message_that_is_not_an_event_comes_again_until_it_is_a_dead_letter() {
    let batch = json!({ "Records": [{ "messageId": "m-1", "body": "not JSON" }] });
    let answer = detection(Arc::default()).all(serde_json::from_value(batch).expect("a batch"), AT).await;
    assert_eq!(answer, again());
}
