"""EventBridge: patterns, targets, and events of Step Functions."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from support.cloudformation import deploy_template
from support.listener import ROLE, Listener
from support.machine import create_machine
from support.stack import LocalStack

proves = pytest.mark.proves

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
    ({"detail": {"findings": {"Id": ["a"], "Label": ["HIGH"]}}}, False),  # both of the same finding
]
TO_BOX = {"DeadLetterConfig": {"Arn": {"Fn::GetAtt": ["Box", "Arn"]}}, "RetryPolicy": {"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 300}}


@pytest.fixture(scope="module")
def machine(bare_stack: LocalStack) -> str:
    """A state machine that ends as its input says."""
    choice = {"Type": "Choice", "Choices": [{"Condition": "{% $exists($states.input.Fail) %}", "Next": "Fail"},
                                            {"Condition": "{% $exists($states.input.Wait) %}", "Next": "Wait"}], "Default": "Done"}  # fmt: skip
    states = {"End": choice, "Fail": {"Type": "Fail", "Error": "NotContained", "Cause": "i-1"}, "Done": {"Type": "Succeed"},
              "Wait": {"Type": "Wait", "Seconds": 3, "End": True}}  # fmt: skip
    return create_machine(bare_stack, states)


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


def finding(stack: LocalStack, type_: str, **detail: Any) -> str:
    return stack.put_event({**FINDING, "detail": {**FINDING["detail"], "type": type_, **detail}})


# --- Patterns


@pytest.mark.parametrize(("pattern", "matches"), PATTERNS, ids=[json.dumps(pattern)[:60] for pattern, _ in PATTERNS])
def test_an_event_is_matched_as_aws_matches_it(bare_stack: LocalStack, pattern: dict[str, Any], matches: bool) -> None:
    tested = bare_stack.client("events").test_event_pattern(EventPattern=json.dumps(pattern), Event=json.dumps(FINDING))
    assert tested["Result"] is matches


def test_an_event_reaches_the_targets_of_the_rules_that_match_it_only(bare_stack: LocalStack) -> None:
    """The same patterns as rules of a template, each with a queue of its own."""
    listening: dict[str, dict[str, Any]] = {}
    for number, (pattern, _) in enumerate(PATTERNS):
        box = json.loads(json.dumps(letter_box()).replace('"Box', f'"Box{number}').replace('"Rule"', f'"Rule{number}"'))
        listening |= {**box, f"Rule{number}": rule(pattern, {"Fn::GetAtt": [f"Box{number}", "Arn"]})}  # type: ignore[arg-type]
    made = deploy_template(bare_stack, listening)
    bare_stack.put_event(FINDING)
    received = [bool(bare_stack.messages(made[f"Box{number}"])) for number in range(len(PATTERNS))]
    assert received == [matches for _, matches in PATTERNS]


@proves("ministack.eventbridge.rules_in_templates")
def test_a_rule_with_an_invalid_pattern_is_not_created(bare_stack: LocalStack, machine: str) -> None:
    with pytest.raises(AssertionError, match="Event pattern is not valid"):
        deploy_template(bare_stack, {"Rule": rule({"source": "aws.guardduty"}, machine, RoleArn=ROLE)})


@proves("ministack.eventbridge.rules_in_templates")
def test_a_rule_needs_a_role_to_start_a_state_machine(bare_stack: LocalStack, machine: str) -> None:
    with pytest.raises(AssertionError, match="RoleArn is required"):
        deploy_template(bare_stack, {"Rule": rule({"source": ["aws.guardduty"]}, machine)})


@proves("ministack.eventbridge.bus_policies_in_templates")
def test_a_statement_of_a_template_is_in_the_policy_of_its_bus(bare_stack: LocalStack) -> None:
    statement = {"Effect": "Allow", "Principal": {"AWS": "210987654321"}, "Action": "events:PutEvents", "Resource": "*"}
    deploy_template(bare_stack, {"Policy": {"Type": "AWS::Events::EventBusPolicy", "Properties": {"StatementId": "Member", "Statement": statement}}})
    policy = json.loads(bare_stack.client("events").describe_event_bus(Name="default")["Policy"])
    assert policy["Statement"] == [{"Sid": "Member", **statement}]


@proves("ministack.eventbridge.events_of_aws")
def test_a_test_can_play_a_finding_of_guardduty(bare_stack: LocalStack) -> None:
    entry = {"Source": "aws.guardduty", "DetailType": "GuardDuty Finding", "Detail": "{}"}
    assert bare_stack.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0


# --- Targets


def test_a_rule_of_a_template_starts_an_execution_with_the_event(bare_stack: LocalStack, machine: str) -> None:
    deploy_template(bare_stack, {"Rule": rule({"detail": {"type": ["Started:EC2/One"]}}, machine, RoleArn=ROLE, **TO_BOX), **letter_box()})
    known = bare_stack.executions(machine)
    id_ = finding(bare_stack, "Started:EC2/One")
    ended = bare_stack.wait(bare_stack.new_execution(known, machine=machine), 20)
    assert (ended.output["id"], ended.output["detail"]["type"]) == (id_, "Started:EC2/One")


@proves("ministack.eventbridge.undelivered_events")
def test_an_event_for_a_deleted_state_machine_is_in_the_dead_letter_queue(bare_stack: LocalStack) -> None:
    gone = create_machine(bare_stack, {"Done": {"Type": "Succeed"}})
    made = deploy_template(bare_stack, {"Rule": rule({"detail": {"type": ["Lost:EC2/One"]}}, gone, RoleArn=ROLE, **TO_BOX), **letter_box()})
    bare_stack.client("stepfunctions").delete_state_machine(stateMachineArn=gone)
    id_ = finding(bare_stack, "Lost:EC2/One")
    letter = bare_stack.client("sqs").receive_message(QueueUrl=made["Box"], MessageAttributeNames=["All"])["Messages"][0]
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert json.loads(letter["Body"])["id"] == id_
    assert (attributes["TARGET_ARN"], attributes["ERROR_CODE"]) == (gone, "NO_RESOURCE") and made["Rule"] in attributes["RULE_ARN"]


def test_a_dead_letter_queue_that_does_not_let_eventbridge_in_stays_empty(bare_stack: LocalStack) -> None:
    gone = "arn:aws:states:ap-northeast-1:123456789012:stateMachine:gone"
    closed = letter_box(open_to="sns.amazonaws.com")
    made = deploy_template(bare_stack, {"Rule": rule({"detail": {"type": ["Lost:EC2/Two"]}}, gone, RoleArn=ROLE, **TO_BOX), **closed})
    finding(bare_stack, "Lost:EC2/Two")
    assert bare_stack.messages(made["Box"]) == []


@proves("ministack.eventbridge.undelivered_events")
def test_a_function_gets_an_event_only_if_eventbridge_may_invoke_it(bare_stack: LocalStack) -> None:
    allowed, forbidden = Listener(bare_stack), Listener(bare_stack)
    deploy_template(bare_stack, {"Rule": rule({"detail": {"type": ["Called:EC2/One"]}}, allowed.arn), "May": permission(allowed.arn)})
    made = deploy_template(bare_stack, {"Rule": rule({"detail": {"type": ["Called:EC2/One"]}}, forbidden.arn, **TO_BOX), **letter_box()})
    finding(bare_stack, "Called:EC2/One")
    assert [event["detail"]["type"] for event in allowed.wait()] == ["Called:EC2/One"]
    assert [event["detail"]["type"] for event in bare_stack.messages(made["Box"])] == ["Called:EC2/One"] and forbidden.events() == []


@proves("ministack.eventbridge.errors_of_functions")
def test_a_function_that_fails_is_tried_three_times_before_its_dead_letter(bare_stack: LocalStack) -> None:
    function, queue = Listener(bare_stack), bare_stack.client("sqs").create_queue(QueueName=f"failed-{time.time_ns()}")["QueueUrl"]
    destination = {"OnFailure": {"Destination": f"arn:aws:sqs:ap-northeast-1:123456789012:{queue.rsplit('/', 1)[1]}"}}
    bare_stack.client("lambda").put_function_event_invoke_config(FunctionName=function.name, Qualifier="$LATEST", DestinationConfig=destination)
    failing = {"Input": json.dumps({"Fail": 1})}
    deploy_template(bare_stack, {"Rule": rule({"detail": {"type": ["Failed:EC2/One"]}}, function.arn, **failing), "May": permission(function.arn)})
    finding(bare_stack, "Failed:EC2/One")
    (letter,) = bare_stack.messages(queue, 10)
    assert letter["requestPayload"] == {"Fail": 1} and letter["requestContext"]["condition"] == "RetriesExhausted"
    assert function.events() == [{"Fail": 1}] * 3


# --- Events of Step Functions


def test_each_change_of_an_executions_status_is_an_event(bare_stack: LocalStack, machine: str) -> None:
    listener = Listener(bare_stack)
    pattern = {"source": ["aws.states"], "detail-type": ["Step Functions Execution Status Change"], "detail": {"stateMachineArn": [machine]}}
    deploy_template(bare_stack, {"Rule": rule(pattern, listener.arn), "May": permission(listener.arn)})
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


def test_a_rule_gets_only_executions_that_ended_as_its_pattern_says(bare_stack: LocalStack, machine: str) -> None:
    listener = Listener(bare_stack)
    status = [{"anything-but": ["RUNNING", "SUCCEEDED"]}]
    pattern = {"source": ["aws.states"], "detail": {"stateMachineArn": [machine], "status": status}}
    deploy_template(bare_stack, {"Rule": rule(pattern, listener.arn), "May": permission(listener.arn)})
    bare_stack.run({}, 20, machine)
    failed = bare_stack.run({"Fail": 1}, 20, machine)
    assert [event["detail"]["executionArn"] for event in listener.wait()] == [failed.arn]


def test_an_execution_that_timed_out_is_an_event_too(bare_stack: LocalStack) -> None:
    listener = Listener(bare_stack)
    definition = json.dumps({"StartAt": "Wait", "TimeoutSeconds": 1, "States": {"Wait": {"Type": "Wait", "Seconds": 3, "End": True}}})
    slow = bare_stack.client("stepfunctions").create_state_machine(name="slow", roleArn=ROLE, definition=definition)["stateMachineArn"]
    pattern = {"source": ["aws.states"], "detail": {"stateMachineArn": [slow], "status": ["TIMED_OUT"]}}
    deploy_template(bare_stack, {"Rule": rule(pattern, listener.arn), "May": permission(listener.arn)})
    bare_stack.run({}, 20, slow)
    assert len(listener.wait()) == 1
