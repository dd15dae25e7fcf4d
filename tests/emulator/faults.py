"""AWS errors on demand: a test writes a file, and the calls that it names are answered with that error.

The file holds a JSON list. Each entry, with its defaults:

    {"Service": "ec2", "Action": "CreateSnapshots", "Code": "RequestLimitExceeded",
     "Status": 503, "Message": "...", "Times": null, "Resource": null,
     "Executed": false, "DelaySeconds": 0, "Function": null, "Event": null,
     "After": 0, "Seconds": null, "Breaks": null}

`Service` is the name that boto3 gives the client, and of S3 the actions have the names that IAM gives them; both may be `*`. `Times` null is for ever. `Resource` is any text in the
request, an instance id for one. `Executed` lets the call have its effect and loses only the answer, as a
connection that breaks at the wrong moment does; it is the answer that is then delayed. An entry without a `Code` only
delays: every call by 0.2 s, say, which gives the emulator a latency like AWS's, so that calls in parallel are seen to
overlap.

`Function` is the name of a function of Cordon, and `Event` any text in the event that it was invoked with (see
invocations.py), so that a fault meets one victim's calls alone, whatever else runs. The first `After` calls that match
are let through. `Seconds` is how long the weather lasts from the first call that it meets. `Breaks` is `connection`,
which closes it without an answer, or `process`, which kills the function that calls as well.
An entry that stays in the file when its text changes goes on counting.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

from emulator.invocations import Invocation

QUERY_PROTOCOL = ("autoscaling", "elb", "elbv2", "iam", "sts", "sns", "cloudformation")


@dataclass(frozen=True)
class Fault:
    Service: str
    Action: str
    Code: str | None = None
    Status: int = 400
    Message: str = "Answered by the fault file of the local stack."
    Times: int | None = None
    Resource: str | None = None
    Executed: bool = False
    DelaySeconds: float = 0.0
    Function: str | None = None
    Event: str | None = None
    After: int = 0
    Seconds: float | None = None
    Breaks: str | None = None

    def matches(self, service: str, action: str, request: str, invocation: Invocation | None = None) -> bool:
        same_call = self.Service.lower() in ("*", service) and self.Action in ("*", action)
        return same_call and (self.Resource is None or self.Resource in request) and self._met_by(invocation)

    def _met_by(self, invocation: Invocation | None) -> bool:
        if self.Function is None and self.Event is None:
            return True
        named = invocation is not None and (self.Function is None or invocation.Function.endswith(f"-{self.Function}"))
        return named and (self.Event is None or self.Event in invocation.Event)

    def break_it(self, invocation: Invocation | None) -> bool:
        """Kills the caller, if that is asked for; whether the connection is to be closed without an answer."""
        if self.Breaks == "process" and invocation is not None:
            try:
                os.kill(invocation.Pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return self.Breaks is not None

    def answer(self, service: str) -> tuple[int, str, bytes]:
        """Status, content type and body, in the shape that the service's protocol gives errors."""
        error = f"<Code>{escape(self.Code or '')}</Code><Message>{escape(self.Message)}</Message>"
        if service == "ec2":
            return self._xml(f"<Response><Errors><Error>{error}</Error></Errors><RequestID>fault</RequestID></Response>")
        if service == "s3":
            return self._xml(f"<Error>{error}<RequestId>fault</RequestId></Error>")
        if service in QUERY_PROTOCOL:
            party = "Sender" if self.Status < 500 else "Receiver"
            return self._xml(f"<ErrorResponse><Error><Type>{party}</Type>{error}</Error><RequestId>fault</RequestId></ErrorResponse>")
        return self.Status, "application/x-amz-json-1.1", json.dumps({"__type": self.Code, "message": self.Message}).encode()

    def _xml(self, body: str) -> tuple[int, str, bytes]:
        return self.Status, "text/xml", body.encode()


@dataclass
class Use:
    """How often a fault has met a call, and when first."""

    calls: int = 0
    first: float = 0.0


class FaultFile:
    """The file is read at each call, so that a test changes the weather without a restart."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._lock = threading.Lock()
        self._text = ""
        self._faults: dict[str, Fault] = {}
        self._uses: dict[str, Use] = {}

    def find(self, service: str, action: str, request: str, invocation: Invocation | None = None) -> Fault | None:
        """The first fault that matches and is not used up; finding it uses it once."""
        if self._path is None:
            return None
        with self._lock:
            self._read()
            for entry, fault in self._faults.items():
                if fault.matches(service, action, request, invocation) and self._strikes(fault, self._uses[entry]):
                    return fault
        return None

    def _strikes(self, fault: Fault, use: Use) -> bool:
        met = use.calls - fault.After
        if met == 0:
            use.first = time.monotonic()
        over = fault.Seconds is not None and met > 0 and time.monotonic() - use.first > fault.Seconds
        if over or (fault.Times is not None and met >= fault.Times):
            return False
        use.calls += 1
        return met >= 0

    def _read(self) -> None:
        text = self._path.read_text(encoding="utf-8") if self._path and self._path.exists() else ""
        if text == self._text:
            return
        self._text = text
        entries = {json.dumps(entry): entry for entry in json.loads(text or "[]")}
        self._faults = {name: Fault(**entry) for name, entry in entries.items()}
        self._uses = {name: self._uses.get(name, Use()) for name in entries}
