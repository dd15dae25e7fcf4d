"""What the local stack mends in ministack, each against the behaviour that AWS documents."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from botocore.exceptions import ClientError

from support.stack import Execution, LocalStack, last_output_of, state_times

ROLE = "arn:aws:iam::123456789012:role/anything"


@pytest.fixture(scope="module")
def bare_stack() -> Iterator[LocalStack]:
    """Both emulators, with nothing deployed."""
    with LocalStack() as stack:
        yield stack


def run(stack: LocalStack, states: dict[str, Any], document: Any) -> Execution:
    """One execution of a JSONata state machine that begins with its first state."""
    definition = json.dumps({"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states})
    name = f"m{time.time_ns()}"
    machine = stack.client("stepfunctions").create_state_machine(name=name, roleArn=ROLE, definition=definition)
    return stack.run(document, 20, machine["stateMachineArn"])


def branch(name: str, state: dict[str, Any], **more: dict[str, Any]) -> dict[str, Any]:
    return {"StartAt": name, "States": {name: state, **more}}


def test_a_parallel_has_arguments_output_and_assign(bare_stack: LocalStack) -> None:
    echo = branch("Echo", {"Type": "Pass", "End": True})
    ended = run(bare_stack, {
        "Both": {"Type": "Parallel", "Branches": [echo, echo], "Arguments": {"id": "{% $states.input.InstanceId %}"},
                 "Assign": {"first": "{% $states.result[0].id %}"}, "Output": "{% {'count': $count($states.result)} %}", "Next": "Show"},
        "Show": {"Type": "Pass", "Output": "{% {'count': $states.input.count, 'first': $first} %}", "End": True},
    }, {"InstanceId": "i-1", "other": 1})  # fmt: skip
    assert ended.output == {"count": 2, "first": "i-1"}


def test_the_branches_of_a_parallel_have_variables_of_their_own(bare_stack: LocalStack) -> None:
    def slow(value: str) -> dict[str, Any]:
        wait = {"Type": "Wait", "Seconds": 1, "Next": "Show"}
        show = {"Type": "Pass", "Output": "{% $mine %}", "End": True}
        return branch("Set", {"Type": "Pass", "Assign": {"mine": value}, "Next": "Wait"}, Wait=wait, Show=show)

    ended = run(bare_stack, {"Both": {"Type": "Parallel", "Branches": [slow("a"), slow("b")], "End": True}}, {})
    assert ended.output == ["a", "b"]


def test_a_succeed_state_has_an_output(bare_stack: LocalStack) -> None:
    ended = run(bare_stack, {"Done": {"Type": "Succeed", "Output": "{% {'id': $states.input.id} %}"}}, {"id": 1, "other": 2})
    assert ended.output == {"id": 1}


def test_the_history_tells_when_each_state_of_each_iteration_was_entered_and_left(bare_stack: LocalStack) -> None:
    cut = branch("Cut", {"Type": "Wait", "Seconds": 1, "End": True})
    keep = branch("Keep", {"Type": "Pass", "End": True})
    item = {"ProcessorConfig": {"Mode": "INLINE"}, **branch("Both", {"Type": "Parallel", "Branches": [cut, keep], "End": True})}
    ended = run(bare_stack, {
        "Each": {"Type": "Map", "Items": "{% $states.input.InstanceIds %}", "ItemProcessor": item, "Next": "Report"},
        "Report": {"Type": "Pass", "Output": {"Verdict": "Contained"}, "End": True},
    }, {"InstanceIds": ["i-1", "i-2"]})  # fmt: skip
    visits = {(visit["State"], visit["Iteration"]): visit["Seconds"] for visit in state_times(ended.history)}
    assert sorted(visits, key=str) == sorted(
        [("Each", None), ("Report", None), *((name, index) for index in (0, 1) for name in ("Both", "Cut", "Keep"))], key=str
    )
    assert visits["Cut", 0] >= 1 > visits["Keep", 1]
    assert last_output_of("Report", ended.history) == {"Verdict": "Contained"}
    assert len({event["id"] for event in ended.history}) == len(ended.history)


def test_a_failed_execution_still_gives_the_document_of_its_report(bare_stack: LocalStack) -> None:
    ended = run(bare_stack, {
        "Report": {"Type": "Pass", "Output": {"Verdict": "NotContained", "Instances": [{"InstanceId": "i-1"}]}, "Next": "Fail"},
        "Fail": {"Type": "Fail", "Error": "NotContained", "Cause": "{% 'verdict: ' & $states.input.Verdict %}"},
    }, {})  # fmt: skip
    assert (ended.status, ended.error, ended.cause) == ("FAILED", "NotContained", "verdict: NotContained")
    assert ended.instance("i-1") == {"InstanceId": "i-1"}


def test_object_lock_of_a_template_is_in_force(bare_stack: LocalStack) -> None:
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": {"Ref": "Days"}}}
    lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    bucket = {"BucketName": "evidence", "ObjectLockEnabled": True, "VersioningConfiguration": {"Status": "Enabled"}}
    properties = {**bucket, "ObjectLockConfiguration": lock}
    template = {"Parameters": {"Days": {"Type": "Number", "Default": 9}}, "Resources": {"B": {"Type": "AWS::S3::Bucket", "Properties": properties}}}
    cloudformation, s3 = bare_stack.client("cloudformation"), bare_stack.client("s3")
    cloudformation.create_stack(StackName="lock", TemplateBody=json.dumps(template))
    cloudformation.get_waiter("stack_create_complete").wait(StackName="lock", WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    configured = s3.get_object_lock_configuration(Bucket="evidence")["ObjectLockConfiguration"]
    assert configured["Rule"]["DefaultRetention"] == {"Mode": "GOVERNANCE", "Days": 9}
    s3.put_object(Bucket="evidence", Key="one", Body=b"x", ChecksumAlgorithm="SHA256")
    assert s3.get_object_retention(Bucket="evidence", Key="one")["Retention"]["Mode"] == "GOVERNANCE"


def test_calls_to_ministack_are_recorded_by_service_action_and_error(bare_stack: LocalStack) -> None:
    since = time.time()
    bare_stack.client("dynamodb").list_tables()
    bare_stack.client("s3").list_buckets()
    with pytest.raises(ClientError):
        bare_stack.client("stepfunctions").describe_execution(executionArn="arn:aws:states:ap-northeast-1:123456789012:execution:a:b")
    recorded = [(call["Service"], call["Action"], call["Error"]) for call in bare_stack.calls(since, ours=True)]
    assert recorded == [("dynamodb", "ListTables", None), ("s3", "ListAllMyBuckets", None),
                        ("stepfunctions", "DescribeExecution", "ExecutionDoesNotExist")]  # fmt: skip


@pytest.mark.parametrize(("service", "action", "method"), [("dynamodb", "ListTables", "list_tables"), ("s3", "ListAllMyBuckets", "list_buckets")])
def test_a_fault_is_answered_in_the_shape_of_its_protocol(bare_stack: LocalStack, service: str, action: str, method: str) -> None:
    bare_stack.inject({"Service": service, "Action": action, "Code": "SlowDown", "Status": 503, "Times": 1})
    with pytest.raises(ClientError, match="SlowDown"):
        getattr(bare_stack.client(service), method)()
    getattr(bare_stack.client(service), method)()


def test_a_finding_can_be_played_although_its_source_is_aws(bare_stack: LocalStack) -> None:
    entry = {"Source": "aws.guardduty", "DetailType": "GuardDuty Finding", "Detail": "{}"}
    assert bare_stack.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0


def test_no_process_outlives_the_one_that_started_the_stack() -> None:
    script = "from support.stack import LocalStack; s = LocalStack().start(); print(s.moto.port, s.ministack.port, flush=True); input()"
    starter = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    ports = starter.stdout.readline().split()
    assert [listens(port) for port in ports] == [True, True]
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    deadline = time.monotonic() + 5
    while any(listens(port) for port in ports) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [listens(port) for port in ports] == [False, False]


def listens(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0
