"""Step Functions: states, those within Map and Parallel, and their history."""

from __future__ import annotations

import copy
import json
import threading
from contextvars import ContextVar
from typing import Any

from ministack.services import stepfunctions as states

from emulator.patches import patch

Execution = dict[str, Any]
Context = dict[str, Any]

_history_lock = threading.Lock()
_previous_event: ContextVar[int] = ContextVar("previous_event", default=0)


@patch("step-functions/latest/apireference/API_HistoryEvent.html")
def history_order() -> None:
    """In an execution's history, event ids are unique, and `previousEventId` leads to the event before it in the same branch.

    ministack gives parallel branches the same ids, and links every event to the last one of all branches. It runs branches in
    threads whose contexts begin as copies of their parent's, so a context variable is each branch's own memory.
    """

    def add_event(execution: Execution, kind: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
        with _history_lock:
            number = len(execution["events"]) + 1
            before = _previous_event.get() if number > 1 else 0
            event = {"id": number, "previousEventId": before, "type": kind, "timestamp": states.now_iso(), **(details or {})}
            execution["events"].append(event)
        _previous_event.set(number)
        return event

    states._add_event = add_event


@patch("step-functions/latest/apireference/API_GetExecutionHistory.html")
def history_of_nested_states() -> None:
    """States within a Map or Parallel are entered and exited in the history like all others.

    ministack leaves them out.
    """

    def run(machine: dict[str, Any], start: str | None, data: Any, execution: Execution, context: Context) -> Any:
        note_iteration(execution, context)
        name, value = start, copy.deepcopy(data)
        while name and execution["status"] == "RUNNING":
            state = machine[name]
            kind = state["Type"]
            context["State"] = {"Name": name, "EnteredTime": states.now_iso(), "RetryCount": 0}
            entered = {"name": name, "input": json.dumps(value)}
            states._add_event(execution, f"{kind}StateEntered", {"stateEnteredEventDetails": entered})
            if kind == "Fail":
                raise states._ExecutionError(*states._fail_state_error(state, value, context))
            following = None
            if kind == "Succeed":
                value = states._apply_output_path(state, states._apply_input_path(state, value, context), context)
            elif kind in ("Task", "Parallel", "Map"):
                value, following = getattr(states, f"_execute_{kind.lower()}")(state, value, execution, context)
            else:
                value, following = getattr(states, f"_execute_{kind.lower()}")(state, value, context)
            exited = {"name": name, "output": json.dumps(value)}
            states._add_event(execution, f"{kind}StateExited", {"stateExitedEventDetails": exited})
            name = following
        return value

    def note_iteration(execution: Execution, context: Context) -> None:
        item = context.get("Map")
        if item and not item.get("Noted"):
            item["Noted"] = True
            details = {"name": context["State"]["Name"], "index": item["Item"]["Index"]}
            states._add_event(execution, "MapIterationStarted", {"mapIterationStartedEventDetails": details})

    states._run_sub_machine = run


# --- Map and Parallel ------------------------------------------------------------------------------------------------


@patch("step-functions/latest/dg/workflow-variables.html", upstream=("ministackorg/ministack#645",))
def variables_of_branches() -> None:
    """Each branch of a Parallel, and each iteration of a Map, has variables of its own.

    In ministack, branches overwrite each other's.
    """
    upstream = states._run_sub_machine

    def run(machine: Any, start: Any, data: Any, execution: Any, context: Context) -> Any:
        return upstream(machine, start, data, execution, copy.deepcopy(context))

    states._run_sub_machine = run


@patch("step-functions/latest/dg/state-map-distributed.html", "step-functions/latest/dg/workflow-variables.html")
def children_of_distributed_maps() -> None:
    """Each child of a Distributed Map is an execution of its own: its context has its own id and input, and it does not see the
    variables of the states around the Map.

    ministack passes the parent's context on.
    """
    upstream_child = states._run_sub_machine

    def child(inner: Any, start: str, given: Any, execution: Execution, context: Context) -> Any:
        if "mapRunArn" in execution:
            of_child = {"Id": execution["executionArn"], "Name": execution["name"], "StartTime": execution["startDate"], "Input": given}
            context = {**context, "Execution": {**context.get("Execution", {}), **of_child}, "variables": {}}
        return upstream_child(inner, start, given, execution, context)

    states._run_sub_machine = child


@patch("step-functions/latest/dg/state-map-distributed.html", "step-functions/latest/dg/transforming-data.html")
def distributed_map_in_jsonata() -> None:
    """A Distributed Map takes `Items`, `ItemSelector`, `MaxConcurrency` and `Output` in JSONata, as an inline Map does.

    ministack takes the fields of JSONPath only.
    """
    upstream_map = states._run_distributed_map

    def distributed(state: dict[str, Any], raw: Any, effective: Any, iterator: Any, execution: Execution, context: Context) -> Any:
        if states._state_query_language(state, context) != "JSONata":
            return upstream_map(state, raw, effective, iterator, execution, context)
        items = states._jsonata_state_field(state, "Items", "array", raw, context)
        inputs = [selected(state, raw, context, index, item) for index, item in enumerate(items)]
        plain = {name: value for name, value in state.items() if name not in ("Items", "ItemSelector", "Output", "Assign")}
        if "MaxConcurrency" in state:
            plain["MaxConcurrency"] = states._jsonata_state_field(state, "MaxConcurrency", "number", raw, context)
        # Without an ItemsPath, ministack takes the items from the effective input.
        result, following = upstream_map(plain, inputs, inputs, iterator, execution, context)
        output = states._apply_jsonata_output(state, raw, context, result=result, default=result)
        states._apply_state_assign(state, raw, context, result=result)
        return output, following

    states._run_distributed_map = distributed


def selected(state: dict[str, Any], raw: Any, context: Context, index: int, item: Any) -> Any:
    """The input of an item: what ItemSelector makes of it."""
    if "ItemSelector" not in state:
        return item
    of_item = {**context, "Map": {"Item": {"Index": index, "Value": item}}}
    return states._apply_jsonata_template(state["ItemSelector"], raw, of_item)


@patch("step-functions/latest/dg/state-parallel.html", upstream=("ministackorg/ministack#636",))
def parallel_in_jsonata() -> None:
    """A JSONata Parallel has `Arguments`, `Output` and `Assign`.

    ministack ignores all three.
    """
    upstream = states._run_parallel_branches

    def branches(state: dict[str, Any], raw: Any, execution: Execution, context: Context) -> Any:
        if states._state_query_language(state, context) != "JSONata":
            return upstream(state, raw, execution, context)
        given = states._apply_jsonata_arguments(state, raw, context)
        bare = {"Branches": state["Branches"], **{key: state[key] for key in ("Next", "End") if key in state}}
        results, following = upstream(bare, given, execution, context)
        output = states._apply_jsonata_output(state, raw, context, result=results, default=results)
        states._apply_state_assign(state, raw, context, result=results)
        return output, following

    states._run_parallel_branches = branches


@patch("step-functions/latest/dg/state-succeed.html", upstream=("ministackorg/ministack#636",))
def output_of_succeed() -> None:
    """A JSONata Succeed state has an `Output`.

    ministack reads its `OutputPath` only.
    """
    upstream = states._apply_output_path

    def output(state: dict[str, Any], data: Any, context: Context | None = None) -> Any:
        jsonata = states._state_query_language(state, context) == "JSONata"
        if state.get("Type") == "Succeed" and jsonata:
            return states._apply_jsonata_output(state, data, context, default=data)
        return upstream(state, data, context)

    states._apply_output_path = output
