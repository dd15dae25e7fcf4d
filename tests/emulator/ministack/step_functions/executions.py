"""Step Functions: executions, how they end and how one waits for another."""

from __future__ import annotations

import contextvars
import json
import threading
import time
from typing import Any

from ministack.services import stepfunctions as states

from emulator.patches import patch

Execution = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]


@patch("step-functions/latest/apireference/API_DescribeExecution.html")
def end() -> None:
    """An execution ends once, and only a successful one has an output.

    In ministack, a task that is still running turns a stopped execution into `FAILED`, and a failed one shows its error as output.
    """
    upstream_fail, upstream_describe = states._fail_execution, states._describe_execution

    def fail(execution: Execution, error: str, cause: str) -> None:
        if execution["status"] == "RUNNING":
            upstream_fail(execution, error, cause)

    def describe(request: dict[str, Any]) -> Answer:
        status, headers, body = upstream_describe(request)
        described = json.loads(body)
        if status == 200 and described["status"] != "SUCCEEDED":
            described = {name: value for name, value in described.items() if name not in ("output", "outputDetails")}
        return status, headers, json.dumps(described).encode()

    states._fail_execution, states._describe_execution = fail, describe


@patch("step-functions/latest/dg/statemachine-structure.html")
def timeout() -> None:
    """`TimeoutSeconds` of a state machine ends its execution as `TIMED_OUT`, with `States.Timeout`.

    ministack ignores it. Its event on EventBridge has no error and no cause, which ministack adds for `FAILED` only.
    """
    upstream = states._run_execution

    def run(arn: str) -> None:
        execution = states._executions.get(arn)
        seconds = time_limit(execution)
        if seconds is None:
            return upstream(arn)
        watch = threading.Timer(seconds, contextvars.copy_context().run, (time_out, execution))
        watch.daemon = True
        watch.start()
        try:
            upstream(arn)
        finally:
            watch.cancel()

    states._run_execution = run


def time_limit(execution: Execution) -> float | None:
    machine = states._state_machines.get(execution["stateMachineArn"]) or {}
    try:
        return json.loads(machine.get("definition", "{}")).get("TimeoutSeconds")
    except json.JSONDecodeError:
        return None


def time_out(execution: Execution) -> None:
    if execution["status"] != "RUNNING":
        return
    execution.update(error="States.Timeout", stopDate=states.now_iso(), status="TIMED_OUT")
    states._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {"error": "States.Timeout"}})
    states._emit_execution_status_event(execution)


@patch("step-functions/latest/dg/connect-stepfunctions.html")
def nested() -> None:
    """A task that waits for an execution starts it as `StartExecution` does, and fails with `States.TaskFailed` however that
    execution failed; the cause is its description as JSON.

    ministack runs it as an Express execution and passes its error on.
    """

    def wait_for(resource: str, given: Any) -> Any:
        status, _, body = states._start_execution(states._nested_start_execution_request(given))
        said = json.loads(body)
        if status >= 400:
            raise states._ExecutionError(f"StepFunctions.{said.get('__type', 'AWSStepFunctionsException')}", said.get("message", ""))
        arn = said["executionArn"]
        while states._executions[arn]["status"] == "RUNNING":
            time.sleep(0.05)
        described = json.loads(states._describe_execution({"executionArn": arn})[2])
        described = {name[:1].upper() + name[1:]: value for name, value in described.items()}
        if described["Status"] != "SUCCEEDED":
            raise states._ExecutionError("States.TaskFailed", json.dumps(described, separators=(",", ":")))
        if resource.endswith(".sync:2"):
            described["Output"] = json.loads(described["Output"])
        return described

    states._invoke_nested_start_execution_sync = wait_for


@patch("step-functions/latest/apireference/API_ListExecutions.html")
def listed_by_machine() -> None:
    """`ListExecutions` of a state machine that does not exist is `StateMachineDoesNotExist`.

    ministack returns an empty list.
    """
    upstream = states._list_executions

    def list_executions(request: dict[str, Any]) -> Answer:
        arn = request.get("stateMachineArn")
        # "NAME/LABEL" is the state machine of the executions of a Distributed Map.
        if arn and arn not in states._state_machines and "/" not in arn:
            return states.error_response_json("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'", 400)
        return upstream(request)

    states._list_executions = list_executions
