"""Step Functions: tasks, and those that wait for an answer."""

from __future__ import annotations

import json
import threading
from contextvars import ContextVar
from typing import Any, Callable

from ministack.services import stepfunctions as states

from emulator.patches import patch

Execution = dict[str, Any]
Context = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]

_running: ContextVar[tuple[Execution, Context]] = ContextVar("running")  # the execution and context of this thread's task
_waiting_for: ContextVar[str | None] = ContextVar("waiting_for", default=None)  # the token of this thread's task
_execution_of: dict[str, Execution] = {}  # by token, for every token ever given out
_answering = threading.Lock()


@patch("step-functions/latest/dg/state-task.html")
def timeout_as_expression() -> None:
    """The `TimeoutSeconds` of a JSONata task may be an expression.

    ministack takes its text for the number.
    """
    upstream = states._execute_task

    def execute_task(state: dict[str, Any], raw: Any, execution: Execution, context: Context) -> Any:
        if "TimeoutSeconds" in state and states._state_query_language(state, context) == "JSONata":
            state = {**state, "TimeoutSeconds": states._jsonata_state_field(state, "TimeoutSeconds", "number", raw, context)}
        return upstream(state, raw, execution, context)

    states._execute_task = execute_task


@patch("step-functions/latest/apireference/API_SendTaskSuccess.html", "step-functions/latest/dg/connect-to-resource.html")
def tokens() -> None:
    """A task token belongs to one attempt of a task, and takes one answer while that task waits: later ones are `TaskTimedOut`,
    a token that never existed is `InvalidToken`, an output that is not JSON `InvalidOutput`.

    ministack answers `TaskDoesNotExist`, or accepts the answer, even after the execution was stopped.
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
            context["Task"] = {"Token": states.new_uuid()}  # a retry has a token of its own
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
    """Why the token does not take the answer, or None. ministack handles the tokens of activities itself."""
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


@patch("step-functions/latest/dg/connect-to-resource.html")
def error_before_the_wait() -> None:
    """If the function fails that receives the token, its task fails at once with the function's error.

    ministack drops the error and waits for an answer that nobody will give.
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
