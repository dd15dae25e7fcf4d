"""What the local stack mends in ministack's Distributed Map and nested executions, each against what AWS documents."""

from __future__ import annotations

import json
import time
from typing import Any, Iterator

import pytest

from support.stack import Execution, LocalStack

ROLE = "arn:aws:iam::123456789012:role/anything"
NESTED = "arn:aws:states:::states:startExecution.sync:2"


@pytest.fixture(scope="module")
def bare_stack() -> Iterator[LocalStack]:
    with LocalStack() as stack:
        yield stack


def machine(stack: LocalStack, states: dict[str, Any], **more: Any) -> str:
    """A JSONata state machine that begins with its first state."""
    definition = json.dumps({"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **more})
    return stack.client("stepfunctions").create_state_machine(name=f"m{time.time_ns()}", roleArn=ROLE, definition=definition)["stateMachineArn"]


def run(stack: LocalStack, states: dict[str, Any], document: Any) -> Execution:
    return stack.run(document, 20, machine(stack, states))


def each(child: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A Distributed Map over the input's Batches."""
    processor = {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, "StartAt": next(iter(child)), "States": child}
    return {"Type": "Map", "Items": "{% $states.input.Batches %}", "ItemProcessor": processor, "End": True, **more}


def test_a_distributed_map_selects_its_items_in_jsonata_and_a_list_of_one_list_stays_one_item(bare_stack: LocalStack) -> None:
    selector = {"Number": "{% $states.context.Map.Item.Index %}", "Ids": "{% $states.context.Map.Item.Value %}", "Of": "{% $states.input.Id %}"}
    echo = {"Echo": {"Type": "Pass", "End": True}}
    for batches in ([["a"]], [["a", "b"], ["c"]]):
        ended = run(bare_stack, {"Each": each(echo, ItemSelector=selector, Output="{% {'Ends': [$states.result]} %}")}, {"Id": "f", "Batches": batches})
        assert ended.output == {"Ends": [{"Number": number, "Ids": ids, "Of": "f"} for number, ids in enumerate(batches)]}


def test_a_child_of_a_distributed_map_is_an_execution_of_its_own_without_its_parents_variables(bare_stack: LocalStack) -> None:
    show = {"Show": {"Type": "Pass", "Output": "{% {'Id': $states.context.Execution.Id, 'Mine': $exists($mine)} %}", "End": True}}
    states = {"Set": {"Type": "Pass", "Assign": {"mine": 1}, "Next": "Each"}, "Each": each(show, Label="Batches")}
    ended = run(bare_stack, states, {"Batches": [1, 2]})
    ids = [one["Id"] for one in ended.output]
    assert len(set(ids)) == 2 and ended.arn not in ids and all("/Batches:" in id_ for id_ in ids)
    assert [one["Mine"] for one in ended.output] == [False, False]


def test_a_tolerated_failure_of_a_child_stops_no_other(bare_stack: LocalStack) -> None:
    child = {
        "Which?": {"Type": "Choice", "Choices": [{"Condition": "{% $states.input = 1 %}", "Next": "Bad"}], "Default": "Good"},
        "Bad": {"Type": "Fail", "Error": "Bad"},
        "Good": {"Type": "Pass", "End": True},
    }
    assert run(bare_stack, {"Each": each(child, ToleratedFailurePercentage=100)}, {"Batches": [1, 2]}).status == "SUCCEEDED"
    assert run(bare_stack, {"Each": each(child)}, {"Batches": [1, 2]}).error == "States.ExceedToleratedFailureThreshold"


def test_the_cause_of_a_nested_execution_that_failed_is_its_description(bare_stack: LocalStack) -> None:
    inner = machine(bare_stack, {"Bad": {"Type": "Fail", "Error": "NotContained", "Cause": "i-1: NotContained"}})
    ended = run(bare_stack, {"Batch": {"Type": "Task", "Resource": NESTED, "Arguments": {"StateMachineArn": inner, "Input": {}}, "End": True}}, {})
    cause = json.loads(ended.cause)
    assert (ended.error, cause["Status"], cause["Error"], cause["Cause"]) == ("States.TaskFailed", "FAILED", "NotContained", "i-1: NotContained")


def test_a_nested_execution_that_is_stopped_fails_its_task_with_its_status(bare_stack: LocalStack) -> None:
    inner = machine(bare_stack, {"Long": {"Type": "Wait", "Seconds": 60, "End": True}})
    task = {"Type": "Task", "Resource": NESTED, "Arguments": {"StateMachineArn": inner, "Name": "batch-0", "Input": {}}, "End": True}
    arn = bare_stack.begin({}, machine(bare_stack, {"Batch": task}))
    bare_stack.client("stepfunctions").stop_execution(executionArn=bare_stack.new_execution([], machine=inner))
    ended = bare_stack.wait(arn, 20)
    assert ended.error == "States.TaskFailed" and json.loads(ended.cause)["Status"] == "ABORTED"


def test_the_output_of_a_nested_execution_is_json(bare_stack: LocalStack) -> None:
    inner = machine(bare_stack, {"Good": {"Type": "Pass", "Output": {"Verdict": "Contained"}, "End": True}})
    ended = run(bare_stack, {"Batch": {"Type": "Task", "Resource": NESTED, "Arguments": {"StateMachineArn": inner, "Input": {}}, "End": True}}, {})
    assert (ended.output["Status"], ended.output["Output"]) == ("SUCCEEDED", {"Verdict": "Contained"})
