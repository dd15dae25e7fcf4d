"""The door in front of ministack: every call from outside passes it, before and after ministack."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import ministack.app as gateway
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.http_stream import ASGIHTTPState
from ministack.core.iam_actions import extract_iam_action
from ministack.core.responses import get_account_id
from ministack.core.router import detect_service, extract_region

from emulator.call_record import BROKEN, CallRecord, caller, error_code
from emulator.faults import FaultFile
from emulator.invocations import Invocations
from emulator.patches import instrument


class ConnectionBroken(Exception):
    """The caller gets no answer."""


@instrument
def door() -> None:
    """Every call from outside is recorded, and a fault may answer it or break its connection.

    `_dispatch_service_request` is the one place where every request already has its body and its service. Calls within
    ministack, from Step Functions to Lambda for one, do not pass it; the execution's history has those.
    """
    record, faults = CallRecord(os.environ.get("MINISTACK_CALL_RECORD")), FaultFile(os.environ.get("MINISTACK_FAULTS"))
    invocations = Invocations(os.environ.get("MINISTACK_INVOCATIONS"))
    upstream, upstream_app = gateway._dispatch_service_request, gateway.app

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await upstream_app(scope, receive, send)
        except ConnectionBroken:
            # `send` is a method of hypercorn's stream, which closes the connection when it ends without an answer. Part of an
            # answer would not do: to a HEAD request it is a whole one.
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
