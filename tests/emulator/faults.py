"""Faults: a test writes a file, and the calls that it names meet an error, a delay or a broken connection.

The file holds a JSON list. Each entry, with its defaults:

    {"Service": "ec2", "Action": "CreateSnapshots", "Code": "RequestLimitExceeded",
     "Status": 503, "Message": "...", "Times": null, "Resource": null,
     "Executed": false, "DelaySeconds": 0, "Function": null, "Event": null,
     "After": 0, "Seconds": null, "Breaks": null}

Which calls:

- `Service` is boto3's name for the client, `Action` the API's name for the call, or IAM's name for S3's; either may be `*`.
- `Resource` is any text in the request, an instance id for one.
- `Function` is the name of a function of Cordon, `Event` any text in the event of its invocation (see invocations.py). So a
  fault can meet one victim's calls only, whatever else runs.
- The first `After` matching calls pass. `Times` is how many meet the fault then (null: all), `Seconds` how long it lasts from the
  first one.

What happens to them:

- `Code`, `Status` and `Message` are the error. Without a `Code` the call is only delayed: 0.2 s for every call gives the emulator
  a latency like AWS's, so that parallel calls overlap.
- `Executed` lets the call take effect and loses only its answer, as a connection does that breaks at the wrong moment.
  `DelaySeconds` then delays the answer.
- `Breaks` is `connection`, which closes the connection without an answer, or `process`, which also kills the calling function.

An entry that stays in the file when the file changes goes on counting.
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
    Message: str = "Answered by the fault file."
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
        """Kills the caller if the fault says so; returns whether the connection closes without an answer."""
        if self.Breaks == "process" and invocation is not None:
            try:
                os.kill(invocation.Pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return self.Breaks is not None

    def answer(self, service: str) -> tuple[int, str, bytes]:
        """Status, content type and body, as the service's protocol shapes errors."""
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
    """How many calls matched a fault, and when the first one met it."""

    calls: int = 0
    first: float = 0.0


class FaultFile:
    """The file is read at each call, so that a test can change the faults without a restart."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None  # which file it was that was read last
        self._faults: dict[str, Fault] = {}
        self._uses: dict[str, Use] = {}

    def find(self, service: str, action: str, request: str, invocation: Invocation | None = None) -> Fault | None:
        """The first fault that matches and is not used up; to find it is to use it once."""
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
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return
        if (found.st_ino, found.st_mtime_ns) == self._seen:
            return
        self._seen, text = (found.st_ino, found.st_mtime_ns), self._path.read_text(encoding="utf-8")
        entries = {json.dumps(entry): entry for entry in json.loads(text or "[]")}
        self._faults = {name: Fault(**entry) for name, entry in entries.items()}
        self._uses = {name: self._uses.get(name, Use()) for name in entries}
