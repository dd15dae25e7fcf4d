"""The door in front of moto: every call passes it, before and after moto."""

from __future__ import annotations

import io
import socket
import threading
import time
import traceback
from typing import Any, Callable, Iterable
from urllib.parse import parse_qsl

from moto.iam import models as iam

from emulator.call_record import BROKEN, CallRecord, caller, error_code, signed_by
from emulator.faults import Fault, FaultFile
from emulator.invocations import Invocations
from emulator.moto.ebs import action_in
from emulator.moto.sts import session_of


class Door:
    """A WSGI application that records each call, and answers some calls with an error instead of moto."""

    def __init__(self, moto: Any, record: CallRecord, faults: FaultFile, invocations: Invocations) -> None:
        self._moto, self._record, self._faults, self._invocations = moto, record, faults, invocations
        # moto walks through its dictionaries while other threads put things into them.
        self._turn = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "HTTP_AUTHORIZATION" not in environ:
            return self._moto(environ, start_response)  # moto's own pages and health checks
        started, request = time.time(), take_body(environ)
        invocation = self._invocations.of(environ.get("HTTP_X_AMZN_TRACE_ID"))
        call = {**describe_call(environ, request), "Trace": invocation.Trace if invocation else None}
        fault = self._faults.find(call["Service"], call["Action"], request, invocation)
        status, headers, body = self._answer(environ, call["Service"], fault)
        broken = fault is not None and fault.break_it(invocation)
        code = BROKEN if broken else error_code(int(status.split()[0]), body)
        self._record.append({**call, "Error": code, "Injected": fault is not None, "Start": started, "End": time.time()})
        if broken:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("as the fault file says")
        start_response(status, headers)
        return [body]

    def _answer(self, environ: dict[str, Any], service: str, fault: Fault | None) -> tuple[str, Any, bytes]:
        if fault and not fault.Executed:
            time.sleep(fault.DelaySeconds)
        answer = "503 Fault", [], b""
        if fault is None or fault.Executed or not (fault.Code or fault.Breaks):
            try:
                with self._turn:
                    answer = collect(self._moto, environ)
            except Exception as gap:
                fault = not_played(gap)
        if fault and fault.Executed:
            time.sleep(fault.DelaySeconds)
        if fault is None or fault.Code is None:
            return answer
        status, content_type, body = fault.answer(service)
        return f"{status} Fault", [("Content-Type", content_type), ("Content-Length", str(len(body)))], body


def not_played(gap: Exception) -> Fault:
    """What moto cannot do fails at once, with a code that no SDK retries; moto's own answer is a bare 500."""
    traceback.print_exc()
    return Fault("*", "*", Code="NotPlayedByLocalStack", Message=f"{type(gap).__name__}: {gap}")


def take_body(environ: dict[str, Any]) -> str:
    """The request's body; moto can still read it."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return body.decode("utf-8", "replace")


def describe_call(environ: dict[str, Any], request: str) -> dict[str, Any]:
    """Who called what, by the signature's scope and the request itself."""
    key, region, scope = signed_by(environ["HTTP_AUTHORIZATION"])
    parameters = dict(parse_qsl(request)) if not request.startswith("{") else {}
    action = parameters.pop("Action", "") or environ.get("HTTP_X_AMZ_TARGET", "").rsplit(".", 1)[-1] or action_in(environ["PATH_INFO"])
    version = parameters.pop("Version", "")
    agent = {"user-agent": environ.get("HTTP_USER_AGENT", ""), "x-amz-user-agent": environ.get("HTTP_X_AMZ_USER_AGENT", "")}
    return {
        "Service": client_name(scope, version),
        "Action": action,
        "Account": iam.get_account_id_from(key),
        "Region": region,
        "Caller": caller(agent),
        "Session": session_of(key),
        "UserAgent": agent["user-agent"],
        "Parameters": {name: value[:200] for name, value in parameters.items()},
    }


def client_name(scope: str, version: str) -> str:
    """boto3's name for the service: both generations of load balancer sign for the same one."""
    if scope == "elasticloadbalancing":
        return "elb" if version == "2012-06-01" else "elbv2"
    return scope


def collect(application: Any, environ: dict[str, Any]) -> tuple[str, Any, bytes]:
    """One whole answer of a WSGI application."""
    head: list[Any] = []
    body = application(environ, lambda status, headers, _=None: head.extend((status, headers)))
    try:
        return head[0] if head else "200 OK", head[1] if head else [], b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()
