"""Step Functions: tasks that wait for an answer, and how executions end, as AWS documents both.

Each `mend_…` replaces one behaviour of ministack 1.5.33 and has a test in tests/emulator/tests/test_approval.py.
SFN_WAIT_SCALE shortens Wait states and the pauses between retries; it leaves every TimeoutSeconds as it is.
"""

from __future__ import annotations

import contextvars
import json
import threading
import time
from contextvars import ContextVar
from typing import Any, Callable

from ministack.services import stepfunctions as states

Execution = dict[str, Any]
Context = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]

_running: ContextVar[tuple[Execution, Context]] = ContextVar("running")  # the execution and context of this thread's task
_waiting_for: ContextVar[str | None] = ContextVar("waiting_for", default=None)  # the token of this thread's task
_execution_of: dict[str, Execution] = {}  # by token, for every token ever given out
_answering = threading.Lock()


def mend_timeout_in_jsonata() -> None:
    """AWS: TimeoutSeconds of a JSONata task may be an expression that gives a number; ministack compares its text."""
    upstream = states._execute_task

    def execute_task(state: dict[str, Any], raw: Any, execution: Execution, context: Context) -> Any:
        if "TimeoutSeconds" in state and states._state_query_language(state, context) == "JSONata":
            state = {**state, "TimeoutSeconds": states._jsonata_state_field(state, "TimeoutSeconds", "number", raw, context)}
        return upstream(state, raw, execution, context)

    states._execute_task = execute_task


def mend_task_tokens() -> None:
    """AWS: a token belongs to one attempt of one task and takes one answer, while that task waits.

    Afterwards the answer is TaskTimedOut ("the task token has either expired or the task associated with the token
    has already been closed"), also when the execution was stopped; InvalidToken for a token that never was one;
    InvalidOutput for an output that is no JSON. ministack says TaskDoesNotExist, or takes the answer.
    """
    upstream_task, upstream_wait = states._execute_task, states._invoke_with_callback

    def execute_task(state: dict[str, Any], raw: Any, execution: Execution, context: Context) -> Any:
        _running.set((execution, context))
        return upstream_task(state, raw, execution, context)

    def wait(resource: str, given: Any, token: str, state: dict[str, Any]) -> Any:
        execution, context = _running.get()
        _execution_of[token] = execution
        try:
            return upstream_wait(resource, given, token, state)
        except states._ExecutionError:
            context["Task"] = {"Token": states.new_uuid()}  # a retry asks anew
            raise

    def once(upstream: Callable[[dict[str, Any]], Answer]) -> Callable[[dict[str, Any]], Answer]:
        def answer(request: dict[str, Any]) -> Answer:
            with _answering:
                return refusal(request) or upstream(request)

        return answer

    states._execute_task, states._invoke_with_callback = execute_task, wait
    for name in ("_send_task_success", "_send_task_failure", "_send_task_heartbeat"):
        setattr(states, name, once(getattr(states, name)))


def refusal(request: dict[str, Any]) -> Answer | None:
    """Why the token takes no answer, or not this one. Tokens of activities are ministack's own affair."""
    token = request.get("taskToken", "")
    waiting = states._task_tokens.get(token)
    if token not in _execution_of:
        return None if waiting else states.error_response_json("InvalidToken", "Invalid Token: 'Invalid token'", 400)
    if waiting is None or waiting["event"].is_set() or _execution_of[token]["status"] != "RUNNING":
        return states.error_response_json("TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'", 400)
    try:
        json.loads(request.get("output", "null"))
    except json.JSONDecodeError as error:
        return states.error_response_json("InvalidOutput", f"Invalid Output: '{error}'", 400)
    return None


def mend_failed_call_before_the_wait() -> None:
    """AWS: a task whose function fails when it is handed the token fails at once, with the function's error.

    ministack drops the error and waits for an answer that nobody can give.
    """
    upstream_wait, upstream_call = states._invoke_with_callback, states._call_lambda

    def wait(resource: str, given: Any, token: str, state: dict[str, Any]) -> Any:
        before = _waiting_for.set(token if "lambda" in resource else None)
        try:
            return upstream_wait(resource, given, token, state)
        finally:
            _waiting_for.reset(before)

    def call(function: str, event: Any) -> Any:
        try:
            return upstream_call(function, event)
        except states._ExecutionError as error:
            waiting = states._task_tokens.get(_waiting_for.get() or "")
            if waiting and not waiting["event"].is_set():
                waiting["error"] = {"Error": error.error, "Cause": error.cause}
                waiting["event"].set()
            raise

    states._invoke_with_callback, states._call_lambda = wait, call


def mend_end_of_executions() -> None:
    """AWS: an execution ends once, and only one that succeeded has an output.

    In ministack a task that is still busy makes a stopped execution FAILED, and a failed one shows its error as output.
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


def mend_timeout_of_executions() -> None:
    """AWS: TimeoutSeconds of the state machine ends the execution as TIMED_OUT, with States.Timeout; ministack ignores it.

    The event of it has no error and no cause, as ministack leaves both out of all events but those of FAILED.
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


def mend_distributed_map_in_jsonata() -> None:
    """AWS: a Distributed Map takes Items, ItemSelector, MaxConcurrency and Output in JSONata as an inline one does.

    ministack knows the fields of JSONPath only.
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
        # Upstream takes its items from the effective input, where there is no ItemsPath.
        result, following = upstream_map(plain, inputs, inputs, iterator, execution, context)
        output = states._apply_jsonata_output(state, raw, context, result=result, default=result)
        states._apply_state_assign(state, raw, context, result=result)
        return output, following

    states._run_distributed_map = distributed


def mend_children_of_distributed_maps() -> None:
    """AWS: each child workflow is an execution of its own: the context has its id and input, and the variables of the
    states around the Map are not there. ministack hands on the parent's context.

    For when the running of nested states has been mended, which replaces ministack's.
    """
    upstream_child = states._run_sub_machine

    def child(inner: Any, start: str, given: Any, execution: Execution, context: Context) -> Any:
        if "mapRunArn" in execution:
            of_child = {"Id": execution["executionArn"], "Name": execution["name"], "StartTime": execution["startDate"], "Input": given}
            context = {**context, "Execution": {**context.get("Execution", {}), **of_child}, "variables": {}}
        return upstream_child(inner, start, given, execution, context)

    states._run_sub_machine = child


def selected(state: dict[str, Any], raw: Any, context: Context, index: int, item: Any) -> Any:
    """What ItemSelector makes of an item."""
    if "ItemSelector" not in state:
        return item
    of_item = {**context, "Map": {"Item": {"Index": index, "Value": item}}}
    return states._apply_jsonata_template(state["ItemSelector"], raw, of_item)


def mend_waiting_for_an_execution() -> None:
    """AWS: a task that waits for an execution starts it as StartExecution does, and its end is an event like any other's.

    The task fails with States.TaskFailed however the execution ended; the cause is what DescribeExecution says of it, as
    JSON: its Status, its Error and its Cause. ministack runs it as an express one and hands on its error.
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


def mend_executions_of_no_machine() -> None:
    """AWS: ListExecutions of a state machine that does not exist is StateMachineDoesNotExist; ministack lists none."""
    upstream = states._list_executions

    def list_executions(request: dict[str, Any]) -> Answer:
        arn = request.get("stateMachineArn")
        # The executions of a Distributed Map's items have a machine "NAME/LABEL".
        if arn and arn not in states._state_machines and "/" not in arn:
            return states.error_response_json("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'", 400)
        return upstream(request)

    states._list_executions = list_executions


MENDS = (
    mend_timeout_in_jsonata, mend_task_tokens, mend_failed_call_before_the_wait, mend_end_of_executions, mend_timeout_of_executions,
    mend_distributed_map_in_jsonata, mend_waiting_for_an_execution, mend_executions_of_no_machine,
)  # fmt: skip
