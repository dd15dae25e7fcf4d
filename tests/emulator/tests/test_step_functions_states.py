"""Step Functions: states, those within Map and Parallel, and their history."""

from __future__ import annotations

from typing import Any

import pytest

from support.machine import run_machine
from support.stack import LocalStack, last_output_of, state_times

proves = pytest.mark.proves

def branch(name: str, state: dict[str, Any], **more: dict[str, Any]) -> dict[str, Any]:
    return {"StartAt": name, "States": {name: state, **more}}


@proves("ministack.step_functions.states.parallel_in_jsonata")
def test_a_parallel_has_arguments_output_and_assign(bare_stack: LocalStack) -> None:
    echo = branch("Echo", {"Type": "Pass", "End": True})
    ended = run_machine(bare_stack, {
        "Both": {"Type": "Parallel", "Branches": [echo, echo], "Arguments": {"id": "{% $states.input.InstanceId %}"},
                 "Assign": {"first": "{% $states.result[0].id %}"}, "Output": "{% {'count': $count($states.result)} %}", "Next": "Show"},
        "Show": {"Type": "Pass", "Output": "{% {'count': $states.input.count, 'first': $first} %}", "End": True},
    }, {"InstanceId": "i-1", "other": 1})  # fmt: skip
    assert ended.output == {"count": 2, "first": "i-1"}


@proves("ministack.step_functions.states.variables_of_branches")
def test_the_branches_of_a_parallel_have_variables_of_their_own(bare_stack: LocalStack) -> None:
    def slow(value: str) -> dict[str, Any]:
        wait = {"Type": "Wait", "Seconds": 1, "Next": "Show"}
        show = {"Type": "Pass", "Output": "{% $mine %}", "End": True}
        return branch("Set", {"Type": "Pass", "Assign": {"mine": value}, "Next": "Wait"}, Wait=wait, Show=show)

    ended = run_machine(bare_stack, {"Both": {"Type": "Parallel", "Branches": [slow("a"), slow("b")], "End": True}}, {})
    assert ended.output == ["a", "b"]


@proves("ministack.step_functions.states.output_of_succeed")
def test_a_succeed_state_has_an_output(bare_stack: LocalStack) -> None:
    ended = run_machine(bare_stack, {"Done": {"Type": "Succeed", "Output": "{% {'id': $states.input.id} %}"}}, {"id": 1, "other": 2})
    assert ended.output == {"id": 1}


@proves("ministack.step_functions.states.history_order", "ministack.step_functions.states.history_of_nested_states")
def test_the_history_shows_when_each_state_of_each_iteration_was_entered(bare_stack: LocalStack) -> None:
    cut = branch("Cut", {"Type": "Wait", "Seconds": 1, "End": True})
    keep = branch("Keep", {"Type": "Pass", "End": True})
    item = {"ProcessorConfig": {"Mode": "INLINE"}, **branch("Both", {"Type": "Parallel", "Branches": [cut, keep], "End": True})}
    ended = run_machine(bare_stack, {
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


# --- Distributed Map


def each(child: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A Distributed Map over the input's Batches."""
    processor = {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, "StartAt": next(iter(child)), "States": child}
    return {"Type": "Map", "Items": "{% $states.input.Batches %}", "ItemProcessor": processor, "End": True, **more}


@proves("ministack.step_functions.states.distributed_map_in_jsonata")
def test_a_distributed_map_selects_its_items_in_jsonata(bare_stack: LocalStack) -> None:
    selector = {"Number": "{% $states.context.Map.Item.Index %}", "Ids": "{% $states.context.Map.Item.Value %}", "Of": "{% $states.input.Id %}"}
    echo = {"Echo": {"Type": "Pass", "End": True}}
    for batches in ([["a"]], [["a", "b"], ["c"]]):
        ended = run_machine(bare_stack, {"Each": each(echo, ItemSelector=selector, Output="{% {'Ends': [$states.result]} %}")}, {"Id": "f", "Batches": batches})
        assert ended.output == {"Ends": [{"Number": number, "Ids": ids, "Of": "f"} for number, ids in enumerate(batches)]}


@proves("ministack.step_functions.states.children_of_distributed_maps")
def test_a_child_of_a_distributed_map_is_an_execution_of_its_own(bare_stack: LocalStack) -> None:
    show = {"Show": {"Type": "Pass", "Output": "{% {'Id': $states.context.Execution.Id, 'Mine': $exists($mine)} %}", "End": True}}
    states = {"Set": {"Type": "Pass", "Assign": {"mine": 1}, "Next": "Each"}, "Each": each(show, Label="Batches")}
    ended = run_machine(bare_stack, states, {"Batches": [1, 2]})
    ids = [one["Id"] for one in ended.output]
    assert len(set(ids)) == 2 and ended.arn not in ids and all("/Batches:" in id_ for id_ in ids)
    assert [one["Mine"] for one in ended.output] == [False, False]


def test_a_tolerated_failure_of_a_child_stops_no_other(bare_stack: LocalStack) -> None:
    child = {
        "Which?": {"Type": "Choice", "Choices": [{"Condition": "{% $states.input = 1 %}", "Next": "Bad"}], "Default": "Good"},
        "Bad": {"Type": "Fail", "Error": "Bad"},
        "Good": {"Type": "Pass", "End": True},
    }
    assert run_machine(bare_stack, {"Each": each(child, ToleratedFailurePercentage=100)}, {"Batches": [1, 2]}).status == "SUCCEEDED"
    assert run_machine(bare_stack, {"Each": each(child)}, {"Batches": [1, 2]}).error == "States.ExceedToleratedFailureThreshold"
