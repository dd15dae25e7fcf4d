"""Step Functions: executions, how they end and how one waits for another."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from support.machine import create_machine, run_machine
from support.stack import Execution, LocalStack

proves = pytest.mark.proves

NESTED = "arn:aws:states:::states:startExecution.sync:2"


def described(stack: LocalStack, execution: Execution) -> dict[str, Any]:
    answer = stack.client("stepfunctions").describe_execution(executionArn=execution.arn)
    return {name: answer.get(name) for name in ("status", "error", "cause", "output")}


@proves("ministack.step_functions.executions.end")
def test_a_failed_execution_is_described_with_error_and_cause_and_no_output(bare_stack: LocalStack) -> None:
    failed = bare_stack.run({}, 20, create_machine(bare_stack, {"No": {"Type": "Fail", "Error": "NotContained", "Cause": "i-1"}}))
    assert described(bare_stack, failed) == {"status": "FAILED", "error": "NotContained", "cause": "i-1", "output": None}


def test_a_failed_execution_still_has_its_report(bare_stack: LocalStack) -> None:
    ended = run_machine(bare_stack, {
        "Report": {"Type": "Pass", "Output": {"Verdict": "NotContained", "Instances": [{"InstanceId": "i-1"}]}, "Next": "Fail"},
        "Fail": {"Type": "Fail", "Error": "NotContained", "Cause": "{% 'verdict: ' & $states.input.Verdict %}"},
    }, {})  # fmt: skip
    assert (ended.status, ended.error, ended.cause) == ("FAILED", "NotContained", "verdict: NotContained")
    assert ended.instance("i-1") == {"InstanceId": "i-1"}


@proves("ministack.step_functions.executions.timeout")
def test_an_execution_that_runs_too_long_times_out(bare_stack: LocalStack) -> None:
    slow = {"Wait": {"Type": "Wait", "Seconds": 40, "End": True}}
    ended = bare_stack.run({}, 20, create_machine(bare_stack, slow, TimeoutSeconds=1))
    assert described(bare_stack, ended) == {"status": "TIMED_OUT", "error": "States.Timeout", "cause": None, "output": None}
    assert ended.seconds < 3 and ended.history[-1]["type"] == "ExecutionTimedOut"


@proves("ministack.step_functions.executions.listed_by_machine")
def test_a_state_machine_that_does_not_exist_has_no_list_of_executions(bare_stack: LocalStack) -> None:
    one = create_machine(bare_stack, {"After": {"Type": "Pass", "End": True}})
    assert bare_stack.executions(one) == []
    with pytest.raises(ClientError) as refused:
        bare_stack.executions(f"{one}-not")
    assert refused.value.response["Error"]["Code"] == "StateMachineDoesNotExist"


# --- Nested executions


@proves("ministack.step_functions.executions.nested")
def test_the_cause_of_a_nested_execution_that_failed_is_its_description(bare_stack: LocalStack) -> None:
    inner = create_machine(bare_stack, {"Bad": {"Type": "Fail", "Error": "NotContained", "Cause": "i-1: NotContained"}})
    ended = run_machine(bare_stack, {"Batch": {"Type": "Task", "Resource": NESTED, "Arguments": {"StateMachineArn": inner, "Input": {}}, "End": True}}, {})
    cause = json.loads(ended.cause)
    assert (ended.error, cause["Status"], cause["Error"], cause["Cause"]) == ("States.TaskFailed", "FAILED", "NotContained", "i-1: NotContained")


@proves("ministack.step_functions.executions.nested")
def test_a_stopped_nested_execution_fails_its_task_with_its_status(bare_stack: LocalStack) -> None:
    inner = create_machine(bare_stack, {"Long": {"Type": "Wait", "Seconds": 60, "End": True}})
    task = {"Type": "Task", "Resource": NESTED, "Arguments": {"StateMachineArn": inner, "Name": "batch-0", "Input": {}}, "End": True}
    arn = bare_stack.begin({}, create_machine(bare_stack, {"Batch": task}))
    bare_stack.client("stepfunctions").stop_execution(executionArn=bare_stack.new_execution([], machine=inner))
    ended = bare_stack.wait(arn, 20)
    assert ended.error == "States.TaskFailed" and json.loads(ended.cause)["Status"] == "ABORTED"


def test_the_output_of_a_nested_execution_is_json(bare_stack: LocalStack) -> None:
    inner = create_machine(bare_stack, {"Good": {"Type": "Pass", "Output": {"Verdict": "Contained"}, "End": True}})
    ended = run_machine(bare_stack, {"Batch": {"Type": "Task", "Resource": NESTED, "Arguments": {"StateMachineArn": inner, "Input": {}}, "End": True}}, {})
    assert (ended.output["Status"], ended.output["Output"]) == ("SUCCEEDED", {"Verdict": "Contained"})
