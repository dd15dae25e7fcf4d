"""Events on their way to functions and state machines, and messages to people, each against the behaviour that AWS documents."""

from __future__ import annotations

import json
import time
from typing import Any, Callable, Iterator

import pytest
from botocore.exceptions import ClientError

from support.listener import ROLE, Listener
from support.stack import LocalStack

KEY = "arn:aws:kms:ap-northeast-1:123456789012:key/2f2d3a1c-0000-4000-8000-000000000001"
FINDING: dict[str, Any] = {
    "version": "0", "id": "1", "account": "123456789012", "region": "ap-northeast-1", "time": "2026-11-21T00:00:00Z",
    "source": "aws.guardduty", "detail-type": "GuardDuty Finding", "resources": ["arn:aws:securityhub:::action/custom/CordonContain"],
    "detail": {
        "severity": 8.5, "type": "AttackSequence:EC2/CompromisedInstanceGroup",
        "resource": {"instanceDetails": {"instanceId": "i-1"}, "tags": [], "none": None},
        "findings": [{"Id": "a", "Label": "LOW"}, {"Id": "b", "Label": "HIGH"}],
    },
}  # fmt: skip
INSTANCE = {"detail": {"resource": {"instanceDetails": {"instanceId": [{"exists": True}]}}}}
PATTERNS: list[tuple[dict[str, Any], bool]] = [
    ({"source": ["aws.guardduty"], "detail-type": ["GuardDuty Finding"]}, True),
    ({"detail": {"severity": [{"numeric": [">=", 4]}]}}, True),
    ({"detail": {"severity": [{"numeric": [">=", 8.6]}]}}, False),
    ({"detail": {"severity": [{"numeric": [">", 4, "<=", 8.5]}]}}, True),
    ({"detail": {"severity": ["8.5"]}}, False),
    (INSTANCE, True),
    ({"detail": {"resource": {"instanceDetails": [{"exists": True}]}}}, False),  # only leaves exist
    ({"detail": {"resource": {"none": [{"exists": True}]}}}, True),
    ({"detail": {"resource": {"bucket": [{"exists": False}]}}}, True),
    ({"detail": {"type": [{"prefix": "AttackSequence:"}]}}, True),
    ({"detail": {"type": [{"prefix": "Backdoor:"}]}}, False),
    ({"resources": [{"suffix": ":action/custom/CordonContain"}]}, True),
    ({"resources": [{"suffix": ":action/custom/Other"}]}, False),
    ({"detail": {"type": [{"wildcard": "*:EC2/*Instance*"}]}}, True),
    ({"detail": {"type": [{"wildcard": "*:S3/*"}]}}, False),
    ({"detail": {"type": [{"anything-but": {"prefix": "Policy:"}}]}}, True),
    ({"detail": {"type": [{"anything-but": ["AttackSequence:EC2/CompromisedInstanceGroup"]}]}}, False),
    ({"$or": [{"source": ["aws.securityhub"]}, {"detail": {"severity": [{"numeric": [">=", 7]}]}}]}, True),
    ({"$or": [{"source": ["aws.securityhub"]}, {"detail": {"severity": [{"numeric": ["<", 7]}]}}]}, False),
    ({"detail": {"$or": [{"severity": [{"numeric": [">=", 9]}]}, {"type": [{"prefix": "AttackSequence:"}]}]}}, True),
    ({"detail": {"findings": {"Label": ["HIGH"]}}}, True),
    ({"detail": {"findings": {"Id": ["a"], "Label": ["HIGH"]}}}, False),  # of one and the same finding
]


@pytest.fixture(scope="module")
def bare_stack() -> Iterator[LocalStack]:
    """Both emulators, with nothing deployed."""
    with LocalStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def machine(bare_stack: LocalStack) -> str:
    """A state machine that ends as its input says."""
    choice = {"Type": "Choice", "Choices": [{"Condition": "{% $exists($states.input.Fail) %}", "Next": "Fail"},
                                            {"Condition": "{% $exists($states.input.Wait) %}", "Next": "Wait"}], "Default": "Done"}  # fmt: skip
    states = {"End": choice, "Fail": {"Type": "Fail", "Error": "NotContained", "Cause": "i-1"}, "Done": {"Type": "Succeed"},
              "Wait": {"Type": "Wait", "Seconds": 3, "End": True}}  # fmt: skip
    return new_machine(bare_stack, states)


def new_machine(stack: LocalStack, states: dict[str, Any]) -> str:
    definition = json.dumps({"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states})
    return stack.client("stepfunctions").create_state_machine(name=f"m{time.time_ns()}", roleArn=ROLE, definition=definition)["stateMachineArn"]


def deploy(stack: LocalStack, resources: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The physical ids of the resources; a stack that is not created is an error with its reason."""
    name, client = f"s{time.time_ns()}", stack.client("cloudformation")
    client.create_stack(StackName=name, TemplateBody=json.dumps({"Resources": resources}))
    while (status := client.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]).endswith("IN_PROGRESS"):
        time.sleep(0.1)
    if status != "CREATE_COMPLETE":
        events = client.describe_stack_events(StackName=name)["StackEvents"]
        raise AssertionError([event.get("ResourceStatusReason") for event in events])
    return {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in client.describe_stack_resources(StackName=name)["StackResources"]}


def rule(pattern: dict[str, Any], target: str, **more: Any) -> dict[str, Any]:
    return {"Type": "AWS::Events::Rule", "Properties": {"EventPattern": pattern, "Targets": [{"Id": "one", "Arn": target, **more}]}}


def permission(function: str, rule_name: str = "Rule") -> dict[str, Any]:
    source = {"Fn::GetAtt": [rule_name, "Arn"]}
    return {"Type": "AWS::Lambda::Permission", "Properties": {
        "FunctionName": function, "Action": "lambda:InvokeFunction", "Principal": "events.amazonaws.com", "SourceArn": source}}  # fmt: skip


def letter_box(*, open_to: str | None = "events.amazonaws.com") -> dict[str, dict[str, Any]]:
    """A dead-letter queue, and the policy that lets EventBridge write to it."""
    box: dict[str, dict[str, Any]] = {"Box": {"Type": "AWS::SQS::Queue", "Properties": {}}}
    if open_to:
        statement = {"Effect": "Allow", "Principal": {"Service": open_to}, "Action": "sqs:SendMessage", "Resource": {"Fn::GetAtt": ["Box", "Arn"]},
                     "Condition": {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": ["Rule", "Arn"]}}}}  # fmt: skip
        properties = {"Queues": [{"Ref": "Box"}], "PolicyDocument": {"Version": "2012-10-17", "Statement": [statement]}}
        box["BoxPolicy"] = {"Type": "AWS::SQS::QueuePolicy", "Properties": properties}
    return box


TO_BOX = {"DeadLetterConfig": {"Arn": {"Fn::GetAtt": ["Box", "Arn"]}}, "RetryPolicy": {"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 300}}


def finding(stack: LocalStack, type_: str, **detail: Any) -> str:
    return stack.put_event({**FINDING, "detail": {**FINDING["detail"], "type": type_, **detail}})


# --- Patterns


@pytest.mark.parametrize(("pattern", "matches"), PATTERNS, ids=[json.dumps(pattern)[:60] for pattern, _ in PATTERNS])
def test_an_event_is_matched_as_aws_matches_it(bare_stack: LocalStack, pattern: dict[str, Any], matches: bool) -> None:
    tested = bare_stack.client("events").test_event_pattern(EventPattern=json.dumps(pattern), Event=json.dumps(FINDING))
    assert tested["Result"] is matches


def test_an_event_reaches_the_targets_of_all_rules_that_match_it_and_of_no_other(bare_stack: LocalStack) -> None:
    """The same patterns as rules of a template, each with a queue of its own."""
    listening: dict[str, dict[str, Any]] = {}
    for number, (pattern, _) in enumerate(PATTERNS):
        box = json.loads(json.dumps(letter_box()).replace('"Box', f'"Box{number}').replace('"Rule"', f'"Rule{number}"'))
        listening |= {**box, f"Rule{number}": rule(pattern, {"Fn::GetAtt": [f"Box{number}", "Arn"]})}  # type: ignore[arg-type]
    made = deploy(bare_stack, listening)
    bare_stack.put_event(FINDING)
    received = [bool(bare_stack.messages(made[f"Box{number}"])) for number in range(len(PATTERNS))]
    assert received == [matches for _, matches in PATTERNS]


def test_a_rule_whose_pattern_is_none_is_not_created(bare_stack: LocalStack, machine: str) -> None:
    with pytest.raises(AssertionError, match="Event pattern is not valid"):
        deploy(bare_stack, {"Rule": rule({"source": "aws.guardduty"}, machine, RoleArn=ROLE)})


def test_a_rule_needs_a_role_to_start_a_state_machine(bare_stack: LocalStack, machine: str) -> None:
    with pytest.raises(AssertionError, match="RoleArn is required"):
        deploy(bare_stack, {"Rule": rule({"source": ["aws.guardduty"]}, machine)})


# --- Targets


def test_a_rule_of_a_template_starts_an_execution_with_the_event(bare_stack: LocalStack, machine: str) -> None:
    deploy(bare_stack, {"Rule": rule({"detail": {"type": ["Started:EC2/One"]}}, machine, RoleArn=ROLE, **TO_BOX), **letter_box()})
    known = bare_stack.executions(machine)
    id_ = finding(bare_stack, "Started:EC2/One")
    ended = bare_stack.wait(bare_stack.new_execution(known, machine=machine), 20)
    assert (ended.output["id"], ended.output["detail"]["type"]) == (id_, "Started:EC2/One")


def test_an_event_whose_state_machine_is_gone_lies_in_the_dead_letter_queue(bare_stack: LocalStack) -> None:
    gone = new_machine(bare_stack, {"Done": {"Type": "Succeed"}})
    made = deploy(bare_stack, {"Rule": rule({"detail": {"type": ["Lost:EC2/One"]}}, gone, RoleArn=ROLE, **TO_BOX), **letter_box()})
    bare_stack.client("stepfunctions").delete_state_machine(stateMachineArn=gone)
    id_ = finding(bare_stack, "Lost:EC2/One")
    letter = bare_stack.client("sqs").receive_message(QueueUrl=made["Box"], MessageAttributeNames=["All"])["Messages"][0]
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert json.loads(letter["Body"])["id"] == id_
    assert (attributes["TARGET_ARN"], attributes["ERROR_CODE"]) == (gone, "NO_RESOURCE") and made["Rule"] in attributes["RULE_ARN"]


def test_a_dead_letter_queue_that_does_not_let_eventbridge_in_stays_empty(bare_stack: LocalStack) -> None:
    gone = "arn:aws:states:ap-northeast-1:123456789012:stateMachine:gone"
    closed = letter_box(open_to="sns.amazonaws.com")
    made = deploy(bare_stack, {"Rule": rule({"detail": {"type": ["Lost:EC2/Two"]}}, gone, RoleArn=ROLE, **TO_BOX), **closed})
    finding(bare_stack, "Lost:EC2/Two")
    assert bare_stack.messages(made["Box"]) == []


def test_a_function_gets_the_event_only_with_the_permission_that_eventbridge_needs(bare_stack: LocalStack) -> None:
    allowed, forbidden = Listener(bare_stack), Listener(bare_stack)
    deploy(bare_stack, {"Rule": rule({"detail": {"type": ["Called:EC2/One"]}}, allowed.arn), "May": permission(allowed.arn)})
    made = deploy(bare_stack, {"Rule": rule({"detail": {"type": ["Called:EC2/One"]}}, forbidden.arn, **TO_BOX), **letter_box()})
    finding(bare_stack, "Called:EC2/One")
    assert [event["detail"]["type"] for event in allowed.wait()] == ["Called:EC2/One"]
    assert [event["detail"]["type"] for event in bare_stack.messages(made["Box"])] == ["Called:EC2/One"] and forbidden.events() == []


def test_an_event_that_a_function_fails_with_is_tried_three_times_and_then_the_functions_dead_letter(bare_stack: LocalStack) -> None:
    function, queue = Listener(bare_stack), bare_stack.client("sqs").create_queue(QueueName=f"failed-{time.time_ns()}")["QueueUrl"]
    destination = {"OnFailure": {"Destination": f"arn:aws:sqs:ap-northeast-1:123456789012:{queue.rsplit('/', 1)[1]}"}}
    bare_stack.client("lambda").put_function_event_invoke_config(FunctionName=function.name, Qualifier="$LATEST", DestinationConfig=destination)
    failing = {"Input": json.dumps({"Fail": 1})}
    deploy(bare_stack, {"Rule": rule({"detail": {"type": ["Failed:EC2/One"]}}, function.arn, **failing), "May": permission(function.arn)})
    finding(bare_stack, "Failed:EC2/One")
    (letter,) = bare_stack.messages(queue, 10)
    assert letter["requestPayload"] == {"Fail": 1} and letter["requestContext"]["condition"] == "RetriesExhausted"
    assert function.events() == [{"Fail": 1}] * 3


# --- Events of Step Functions


def test_each_change_of_an_executions_status_is_an_event(bare_stack: LocalStack, machine: str) -> None:
    listener = Listener(bare_stack)
    pattern = {"source": ["aws.states"], "detail-type": ["Step Functions Execution Status Change"], "detail": {"stateMachineArn": [machine]}}
    deploy(bare_stack, {"Rule": rule(pattern, listener.arn), "May": permission(listener.arn)})
    done, failed = bare_stack.run({"i": 1}, 20, machine), bare_stack.run({"Fail": 1}, 20, machine)
    stopped = bare_stack.begin({"Wait": 1}, machine)
    bare_stack.client("stepfunctions").stop_execution(executionArn=stopped)
    seen = {(event["detail"]["executionArn"], event["detail"]["status"]): event for event in listener.wait(6)}
    assert sorted(seen) == sorted([(arn, status) for arn, last in ((done.arn, "SUCCEEDED"), (failed.arn, "FAILED"), (stopped, "ABORTED"))
                                   for status in ("RUNNING", last)])  # fmt: skip
    event = seen[failed.arn, "FAILED"]
    detail = event["detail"]
    assert event["resources"] == [failed.arn] and detail["name"] == failed.arn.rsplit(":", 1)[1]
    assert (detail["error"], detail["cause"], detail["output"]) == ("NotContained", "i-1", None)
    assert json.loads(detail["input"]) == {"Fail": 1} and detail["inputDetails"] == {"included": True}
    assert isinstance(detail["startDate"], int) and detail["startDate"] <= detail["stopDate"]  # in milliseconds
    assert abs(time.time() * 1000 - detail["stopDate"]) < 60000
    success = seen[done.arn, "SUCCEEDED"]["detail"]
    assert json.loads(success["output"]) == {"i": 1} and success["outputDetails"] == {"included": True} and success["error"] is None
    assert seen[done.arn, "RUNNING"]["detail"]["stopDate"] is None


def test_a_rule_hears_only_of_executions_that_ended_as_its_pattern_says(bare_stack: LocalStack, machine: str) -> None:
    listener = Listener(bare_stack)
    status = [{"anything-but": ["RUNNING", "SUCCEEDED"]}]
    pattern = {"source": ["aws.states"], "detail": {"stateMachineArn": [machine], "status": status}}
    deploy(bare_stack, {"Rule": rule(pattern, listener.arn), "May": permission(listener.arn)})
    bare_stack.run({}, 20, machine)
    failed = bare_stack.run({"Fail": 1}, 20, machine)
    assert [event["detail"]["executionArn"] for event in listener.wait()] == [failed.arn]


def test_an_execution_that_timed_out_is_an_event_too(bare_stack: LocalStack) -> None:
    listener = Listener(bare_stack)
    definition = json.dumps({"StartAt": "Wait", "TimeoutSeconds": 1, "States": {"Wait": {"Type": "Wait", "Seconds": 3, "End": True}}})
    slow = bare_stack.client("stepfunctions").create_state_machine(name="slow", roleArn=ROLE, definition=definition)["stateMachineArn"]
    pattern = {"source": ["aws.states"], "detail": {"stateMachineArn": [slow], "status": ["TIMED_OUT"]}}
    deploy(bare_stack, {"Rule": rule(pattern, listener.arn), "May": permission(listener.arn)})
    bare_stack.run({}, 20, slow)
    assert len(listener.wait()) == 1


# --- Messages


TEXTS = {"default": "for all", "sqs": "for queues", "email": "for people\nin lines", "https": '{"for": "machines"}'}


@pytest.fixture(scope="module")
def topic(bare_stack: LocalStack) -> str:
    """A topic as a template makes it, with an e-mail address and a web endpoint that never confirm."""
    def subscription(protocol: str, endpoint: str) -> dict[str, Any]:
        return {"Type": "AWS::SNS::Subscription", "Properties": {"TopicArn": {"Ref": "Topic"}, "Protocol": protocol, "Endpoint": endpoint}}

    statement = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sns:Publish", "Resource": {"Ref": "Topic"}}
    made = deploy(bare_stack, {
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"KmsMasterKeyId": KEY}},
        "Policy": {"Type": "AWS::SNS::TopicPolicy", "Properties": {
            "Topics": [{"Ref": "Topic"}], "PolicyDocument": {"Version": "2012-10-17", "Statement": [statement]}}},
        "Mail": subscription("email", "soc@example.com"), "Web": subscription("https", "https://pager.example.com/hook"),
    })  # fmt: skip
    return made["Topic"]


def publish(stack: LocalStack, topic: str, message: Any, **more: Any) -> None:
    structure = {} if isinstance(message, str) else {"MessageStructure": "json"}
    stack.client("sns").publish(TopicArn=topic, Message=message if isinstance(message, str) else json.dumps(message), **structure, **more)


def test_a_topic_of_a_template_has_its_key_and_its_policy(bare_stack: LocalStack, topic: str) -> None:
    attributes = bare_stack.client("sns").get_topic_attributes(TopicArn=topic)["Attributes"]
    assert attributes["KmsMasterKeyId"] == KEY
    assert json.loads(attributes["Policy"])["Statement"][0]["Principal"] == {"Service": "events.amazonaws.com"}


def test_everyone_gets_the_text_of_their_protocol_or_else_the_default(bare_stack: LocalStack, topic: str) -> None:
    queue = bare_stack.subscribe(topic)
    publish(bare_stack, topic, TEXTS, Subject="Contained: i-1")
    publish(bare_stack, topic, {"default": "for all"})
    received = bare_stack.messages(queue, 5)
    assert [(one["Message"], one.get("Subject")) for one in received] == [("for queues", "Contained: i-1"), ("for all", None)]
    assert [one["Message"] for one in bare_stack.deliveries(topic, "email")] == [TEXTS["email"], "for all"]
    assert bare_stack.deliveries(topic, "https")[0] == {
        "TopicArn": topic, "Protocol": "https", "Endpoint": "https://pager.example.com/hook", "Subject": "Contained: i-1", "Message": TEXTS["https"]}  # fmt: skip


def test_a_raw_subscription_gets_the_text_alone(bare_stack: LocalStack, topic: str) -> None:
    queue = bare_stack.subscribe(topic)
    sns = bare_stack.client("sns")
    own = next(one for one in sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"] if one["Endpoint"].endswith(queue.rsplit("/", 1)[1]))
    sns.set_subscription_attributes(SubscriptionArn=own["SubscriptionArn"], AttributeName="RawMessageDelivery", AttributeValue="true")
    publish(bare_stack, topic, {"default": "for all", "sqs": '{"InstanceId": "i-1"}'}, Subject="Contained: i-1")
    assert bare_stack.messages(queue, 5) == [{"InstanceId": "i-1"}]


@pytest.mark.parametrize(
    ("message", "subject"),
    [("text", "two\nlines"), ("text", "a tab\t"), ("text", "x" * 100), ({"sqs": "no default"}, "fine"), ({"default": 1}, "fine"), ("", "fine")],
)
def test_a_message_that_aws_would_refuse_is_refused(bare_stack: LocalStack, topic: str, message: Any, subject: str) -> None:
    assert refusal(lambda: publish(bare_stack, topic, message, Subject=subject)) == "InvalidParameter"


def test_a_subject_may_be_any_text_of_99_characters(bare_stack: LocalStack, topic: str) -> None:
    publish(bare_stack, topic, "text", Subject="封じ込め" + "x" * 95)
    assert bare_stack.deliveries(topic, "email")[-1]["Subject"].startswith("封じ込め")


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as refused:
        call()
    return refused.value.response["Error"]["Code"]
