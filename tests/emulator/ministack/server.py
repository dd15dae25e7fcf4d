"""ministack, with each API call recorded, and what Cordon's template needs and ministack ignores mended.

Configured by ministack's own environment variables, by MINISTACK_CALL_RECORD (the file to append one line of
JSON per call to), by MINISTACK_FAULTS (the faults to inject, see faults.py), by MINISTACK_INVOCATIONS (see invocations.py)
and by MINISTACK_DELIVERIES (see sns.py, one of five files with the mends of one service each). Calls that ministack makes within
itself (Step Functions to Lambda) do not pass the door where calls are recorded; the execution's history has those.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import threading
import time
from contextvars import ContextVar
from typing import Any

import ministack.app as gateway
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.http_stream import ASGIHTTPState
from ministack.core.iam_actions import extract_iam_action
from ministack.core.responses import get_account_id
from ministack.core.router import detect_service, extract_region
from ministack.services import eventbridge, lambda_svc, s3
from ministack.services import stepfunctions as states
from ministack.services.cloudformation import provisioners

from emulator.call_record import BROKEN, CallRecord, caller, error_code
from emulator.faults import FaultFile
from emulator.invocations import Invocations
from emulator.leash import end_with_starter
from emulator.ministack import eventbridge as eventbridge_mends
from emulator.ministack import sns, ssm, step_functions
from emulator.ministack.lambda_functions import note_invocations


class ConnectionBroken(Exception):
    """The caller gets no answer."""


def put_a_door(record: CallRecord, faults: FaultFile, invocations: Invocations) -> None:
    """`_dispatch_service_request` is the one place where every request already has its body and its service."""
    upstream, upstream_app = gateway._dispatch_service_request, gateway.app

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await upstream_app(scope, receive, send)
        except ConnectionBroken:
            # `send` is a method of hypercorn's stream, which closes the connection when it ends without an answer. One that
            # is begun and not ended would be a whole one to a HEAD.
            stream = send.__self__
            stream.state, stream.closed = ASGIHTTPState.CLOSED, True
            await stream.send(StreamClosed(stream_id=stream.stream_id))

    async def dispatch(method: str, path: str, headers: dict[str, str], body: bytes, query: Any, request_id: str) -> Any:
        started, call = time.time(), describe_call(method, path, headers, body, query)
        invocation = invocations.of(headers.get("x-amzn-trace-id"))
        call["Trace"] = invocation.Trace if invocation else None
        fault = faults.find(call["Service"], call["Action"], f"{path} {body.decode('utf-8', 'replace')}", invocation)
        if fault and not fault.Executed:
            await asyncio.sleep(fault.DelaySeconds)
        if fault is None or fault.Executed or not (fault.Code or fault.Breaks):
            status, answer_headers, answer = await upstream(method, path, headers, body, query, request_id)
        if fault and fault.Executed:
            await asyncio.sleep(fault.DelaySeconds)
        broken = fault is not None and fault.break_it(invocation)
        if fault and fault.Code:
            status, content_type, answer = fault.answer(call["Service"])
            answer_headers = {"Content-Type": content_type}
        code = BROKEN if broken else error_code(status, answer if isinstance(answer, bytes) else b"")
        record.append({**call, "Error": code, "Injected": fault is not None, "Start": started, "End": time.time()})
        if broken:
            raise ConnectionBroken
        return status, answer_headers, answer

    gateway._dispatch_service_request, gateway.app = dispatch, app


def describe_call(method: str, path: str, headers: dict[str, str], body: bytes, query: Any) -> dict[str, Any]:
    """Who called what; an action has the name that IAM gives it."""
    routing = gateway._routing_params(method, path, headers, body, query)
    service = detect_service(method, path, headers, routing)
    action = extract_iam_action(service, method, path, headers, body, routing) or f"{service}:{method}"
    return {
        "Service": "stepfunctions" if service == "states" else service,
        "Action": action.split(":", 1)[1],
        "Account": get_account_id(),
        "Region": extract_region(headers),
        "Caller": caller(headers),
        "UserAgent": headers.get("user-agent", ""),
        "Parameters": {"Path": path},
    }


def mend_names_of_callers() -> None:
    """Each function's SDK calls carry the function's name, by the SDKs' own setting for an application id."""
    upstream = lambda_svc._provided_worker_env

    def environment(config: dict[str, Any], *args: Any) -> dict[str, str]:
        variables = upstream(config, *args)
        variables.setdefault("AWS_SDK_UA_APP_ID", config.get("FunctionName", "")[:50])
        return variables

    lambda_svc._provided_worker_env = environment


def mend_object_lock_in_templates() -> None:
    """CloudFormation: a bucket's ObjectLockConfiguration is in force once the bucket is there."""
    upstream = provisioners._s3_apply_configurations

    def apply(name: str, properties: dict[str, Any], *args: Any) -> None:
        upstream(name, properties, *args)
        lock = properties.get("ObjectLockConfiguration") or {}
        if lock or str(properties.get("ObjectLockEnabled")).lower() == "true":
            retention = dict((lock.get("Rule") or {}).get("DefaultRetention") or {})
            whole = {unit: int(length) if unit in ("Days", "Years") else length for unit, length in retention.items()}
            s3._bucket_object_lock[name] = {"enabled": True, "default_retention": whole or None}

    provisioners._s3_apply_configurations = apply


def open_door_for_findings() -> None:
    """AWS refuses PutEvents from `aws.*`, and so does ministack; a test must be able to play GuardDuty."""
    eventbridge._put_events.__defaults__ = (True,)


# --- Step Functions ----------------------------------------------------------------------------------------------

_history_lock = threading.Lock()
_previous_event: ContextVar[int] = ContextVar("previous_event", default=0)


def mend_order_of_history() -> None:
    """AWS: event ids are unique, and previousEventId leads from each event to the one before it in its branch.

    ministack runs branches in threads whose contexts begin as copies of their parent's, so a context variable
    is each branch's own memory of its last event.
    """

    def add_event(execution: dict[str, Any], kind: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
        with _history_lock:
            number = len(execution["events"]) + 1
            before = _previous_event.get() if number > 1 else 0
            event = {"id": number, "previousEventId": before, "type": kind, "timestamp": states.now_iso(), **(details or {})}
            execution["events"].append(event)
        _previous_event.set(number)
        return event

    states._add_event = add_event


def mend_nested_states() -> None:
    """AWS: states inside Map and Parallel enter and leave in the history as all others do; ministack is silent on them."""
    with_execution = {"Task": states._execute_task, "Parallel": states._execute_parallel, "Map": states._execute_map}
    alone = {"Pass": states._execute_pass, "Choice": states._execute_choice, "Wait": states._execute_wait}

    def run(machine: dict[str, Any], start: str | None, data: Any, execution: dict[str, Any], context: dict[str, Any]) -> Any:
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
            left, following = name, None
            if kind == "Succeed":
                value = states._apply_output_path(state, states._apply_input_path(state, value, context), context)
            elif kind in alone:
                value, following = alone[kind](state, value, context)
            else:
                value, following = with_execution[kind](state, value, execution, context)
            exited = {"name": left, "output": json.dumps(value)}
            states._add_event(execution, f"{kind}StateExited", {"stateExitedEventDetails": exited})
            name = following
        return value

    def note_iteration(execution: dict[str, Any], context: dict[str, Any]) -> None:
        item = context.get("Map")
        if item and not item.get("Noted"):
            item["Noted"] = True
            details = {"name": context["State"]["Name"], "index": item["Item"]["Index"]}
            states._add_event(execution, "MapIterationStarted", {"mapIterationStartedEventDetails": details})

    states._run_sub_machine = run


def mend_parallel_in_jsonata() -> None:
    """AWS: a JSONata Parallel has Arguments, Output and Assign, and each branch has variables of its own.

    ministack passes the input on as it is, ignores all three, and lets branches overwrite each other's variables.
    """
    upstream = states._run_parallel_branches
    upstream_run = states._run_sub_machine

    def own_context(machine: Any, start: Any, data: Any, execution: Any, context: dict[str, Any]) -> Any:
        return upstream_run(machine, start, data, execution, copy.deepcopy(context))

    def branches(state: dict[str, Any], raw: Any, execution: dict[str, Any], context: dict[str, Any]) -> Any:
        if states._state_query_language(state, context) != "JSONata":
            return upstream(state, raw, execution, context)
        given = states._apply_jsonata_arguments(state, raw, context)
        bare = {"Branches": state["Branches"], **{key: state[key] for key in ("Next", "End") if key in state}}
        results, following = upstream(bare, given, execution, context)
        output = states._apply_jsonata_output(state, raw, context, result=results, default=results)
        states._apply_state_assign(state, raw, context, result=results)
        return output, following

    states._run_sub_machine = own_context
    states._run_parallel_branches = branches


def mend_output_of_succeed() -> None:
    """AWS: a JSONata Succeed state has an Output; ministack asks it only for an OutputPath."""
    upstream = states._apply_output_path

    def output(state: dict[str, Any], data: Any, context: dict[str, Any] | None = None) -> Any:
        jsonata = states._state_query_language(state, context) == "JSONata"
        if state.get("Type") == "Succeed" and jsonata:
            return states._apply_jsonata_output(state, data, context, default=data)
        return upstream(state, data, context)

    states._apply_output_path = output


def main() -> None:
    end_with_starter()
    invocations = Invocations(os.environ.get("MINISTACK_INVOCATIONS"))
    put_a_door(CallRecord(os.environ.get("MINISTACK_CALL_RECORD")), FaultFile(os.environ.get("MINISTACK_FAULTS")), invocations)
    note_invocations(invocations)
    mend_names_of_callers()
    mend_object_lock_in_templates()
    open_door_for_findings()
    for mend in (*step_functions.MENDS, *eventbridge_mends.MENDS, *sns.MENDS, *ssm.MENDS):
        mend()
    mend_order_of_history()
    mend_nested_states()
    step_functions.mend_children_of_distributed_maps()
    mend_parallel_in_jsonata()
    mend_output_of_succeed()
    gateway.main()


if __name__ == "__main__":
    main()
