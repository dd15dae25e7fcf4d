"""Step Functions: tasks that wait for an answer, and writes on a condition."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from support.listener import Listener
from support.machine import create_machine
from support.refusal import refusal
from support.stack import LocalStack

proves = pytest.mark.proves

States = dict[str, Any]
END = {"Type": "Pass", "End": True}


def ask(listener: Listener, timeout: Any = 10, payload: States | None = None, **more: Any) -> States:
    """Asks the listener, and ends with the answer or the error."""
    payload = {"Token": "{% $states.context.Task.Token %}", "For": "{% $states.input %}", **(payload or {})}
    names = ("States.Timeout", "Refused", "States.TaskFailed")
    caught = [{"ErrorEquals": [name], "Output": {"Caught": name, "By": "{% $states.errorOutput %}"}, "Next": "After"} for name in names]
    task = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken", "TimeoutSeconds": timeout, "Catch": caught,
            "Arguments": {"FunctionName": listener.arn, "Payload": payload}, "Output": "{% $states.result %}", "Next": "After"}  # fmt: skip
    return {"Ask": {**task, **more}, "After": END}


def token_of(listener: Listener, count: int = 1) -> str:
    return listener.wait(count)[count - 1]["Token"]


@proves("ministack.step_functions.tasks.timeout_as_expression")
@pytest.mark.parametrize("timeout", [2, "{% $states.input.Minutes * 2 %}"])
def test_a_task_without_an_answer_times_out_after_its_full_seconds(hurried_stack: LocalStack, listener: Listener, timeout: Any) -> None:
    ended = hurried_stack.run({"Minutes": 1}, 20, create_machine(hurried_stack, ask(listener, timeout)))
    assert ended.output["Caught"] == ended.output["By"]["Error"] == "States.Timeout"
    assert 2 <= ended.seconds < 4


def test_the_output_of_the_answer_is_the_tasks_result(hurried_stack: LocalStack, listener: Listener) -> None:
    execution = hurried_stack.begin({}, create_machine(hurried_stack, ask(listener)))
    hurried_stack.client("stepfunctions").send_task_success(taskToken=token_of(listener), output='{"Approver": "soc"}')
    assert hurried_stack.wait(execution, 20).output == {"Approver": "soc"}


def test_a_failure_is_caught_by_the_error_that_it_names(hurried_stack: LocalStack, listener: Listener) -> None:
    execution = hurried_stack.begin({}, create_machine(hurried_stack, ask(listener)))
    hurried_stack.client("stepfunctions").send_task_failure(taskToken=token_of(listener), error="Refused", cause="not ours")
    assert hurried_stack.wait(execution, 20).output == {"Caught": "Refused", "By": {"Error": "Refused", "Cause": "not ours"}}


def test_while_a_branch_waits_for_its_own_answer_the_others_go_on(hurried_stack: LocalStack, listener: Listener) -> None:
    asking = {"StartAt": "Ask", "States": ask(listener)}
    going_on = {"StartAt": "GoOn", "States": {"GoOn": END}}
    both = {"StartAt": "Both", "States": {"Both": {"Type": "Parallel", "Branches": [asking, going_on], "End": True}}}
    each = {"Type": "Map", "Items": "{% $states.input %}", "ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, **both}, "End": True}
    arn = create_machine(hurried_stack, {"Each": each})
    executions = [hurried_stack.begin([f"i-{run}1", f"i-{run}2"], arn) for run in "ab"]
    asked = {event["For"]: event["Token"] for event in listener.wait(4)}
    assert sorted(asked) == ["i-a1", "i-a2", "i-b1", "i-b2"] and len(set(asked.values())) == 4
    for execution in executions:
        left = [event for event in hurried_stack.history(execution) if event.get("stateExitedEventDetails", {}).get("name") == "GoOn"]
        assert len(left) == 2
    for instance, token in asked.items():
        hurried_stack.client("stepfunctions").send_task_success(taskToken=token, output=json.dumps(f"answer to {instance}"))
    outputs = [hurried_stack.wait(execution, 20).output for execution in executions]
    assert outputs == [[[f"answer to i-{run}{number}", f"i-{run}{number}"] for number in (1, 2)] for run in "ab"]


@proves("ministack.step_functions.tasks.tokens")
def test_a_token_takes_one_answer_and_only_while_its_task_waits(hurried_stack: LocalStack, listener: Listener) -> None:
    client = hurried_stack.client("stepfunctions")
    execution = hurried_stack.begin({}, create_machine(hurried_stack, ask(listener)))
    token = token_of(listener)
    assert refusal(client.send_task_success, taskToken=token, output="no JSON")[0] == "InvalidOutput"
    client.send_task_success(taskToken=token, output="1")
    assert refusal(client.send_task_success, taskToken=token, output="2")[0] == "TaskTimedOut"
    assert hurried_stack.wait(execution, 20).output == 1
    assert refusal(client.send_task_failure, taskToken=token, error="Refused")[0] == "TaskTimedOut"
    assert refusal(client.send_task_success, taskToken="made-up", output="1")[0] == "InvalidToken"


@proves("ministack.step_functions.tasks.tokens")
def test_an_expired_token_takes_no_answer_and_a_retry_has_a_new_one(hurried_stack: LocalStack, listener: Listener) -> None:
    again = [{"ErrorEquals": ["States.Timeout"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    client = hurried_stack.client("stepfunctions")
    execution = hurried_stack.begin({}, create_machine(hurried_stack, ask(listener, 2, Retry=again)))
    second, first = token_of(listener, 2), token_of(listener, 1)
    assert first != second and refusal(client.send_task_success, taskToken=first, output="1")[0] == "TaskTimedOut"
    client.send_task_success(taskToken=second, output="2")
    assert hurried_stack.wait(execution, 20).output == 2


@proves("ministack.step_functions.tasks.tokens", "ministack.step_functions.executions.end")
def test_a_stopped_execution_takes_no_answer_and_stays_aborted(hurried_stack: LocalStack, listener: Listener) -> None:
    client = hurried_stack.client("stepfunctions")
    execution = hurried_stack.begin({}, create_machine(hurried_stack, ask(listener, 2, Catch=[])))
    token = token_of(listener)
    client.stop_execution(executionArn=execution, error="Drill", cause="enough")
    assert refusal(client.send_task_success, taskToken=token, output="1")[0] == "TaskTimedOut"
    time.sleep(2.5)  # until the task in it has timed out
    ended = hurried_stack.wait(execution, 20)
    assert (ended.status, ended.error, ended.cause) == ("ABORTED", "Drill", "enough")


@proves("ministack.step_functions.tasks.error_before_the_wait")
def test_if_the_function_that_gets_the_token_fails_so_does_the_task(hurried_stack: LocalStack, listener: Listener) -> None:
    ended = hurried_stack.run({}, 20, create_machine(hurried_stack, ask(listener, payload={"Fail": True})))
    assert ended.output["Caught"] == "States.TaskFailed" and "as the event asks" in ended.output["By"]["Cause"]
    assert ended.seconds < 5


def test_a_write_whose_condition_fails_is_caught_by_the_integrations_name(hurried_stack: LocalStack) -> None:
    hurried_stack.client("dynamodb").create_table(
        TableName="cases", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "Instance", "KeyType": "HASH"}, {"AttributeName": "Record", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("Instance", "Record")],
    )  # fmt: skip
    update = {"TableName": "cases", "Key": {"Instance": {"S": "{% $states.input.Instance %}"}, "Record": {"S": "lease"}},
              "UpdateExpression": "SET Run = :run", "ConditionExpression": "attribute_not_exists(Run) OR Run = :run",
              "ExpressionAttributeValues": {":run": {"S": "{% $states.context.Execution.Name %}"}}}  # fmt: skip
    taken = {"ErrorEquals": ["DynamoDB.ConditionalCheckFailedException"], "Output": "taken", "Next": "After"}
    task = {"Type": "Task", "Resource": "arn:aws:states:::dynamodb:updateItem", "Arguments": update, "Catch": [taken], "Output": "ours",
            "Next": "After"}  # fmt: skip
    arn = create_machine(hurried_stack, {"Take": task, "After": END})
    first = hurried_stack.run({"Instance": "i-1"}, 20, arn)
    assert [first.output, hurried_stack.run({"Instance": "i-1"}, 20, arn).output] == ["ours", "taken"]
    kept = hurried_stack.client("dynamodb").get_item(TableName="cases", Key={"Instance": {"S": "i-1"}, "Record": {"S": "lease"}})["Item"]
    assert kept["Run"]["S"] == first.arn.rsplit(":", 1)[1]
