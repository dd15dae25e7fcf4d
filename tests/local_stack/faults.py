"""AWS errors on demand: a test writes a file, and the calls that it names are answered with that error.

The file holds a JSON list. Each entry, with its defaults:

    {"Service": "ec2", "Action": "CreateSnapshots", "Code": "RequestLimitExceeded",
     "Status": 503, "Message": "...", "Times": null, "Resource": null,
     "Executed": false, "DelaySeconds": 0}

`Service` is the name that boto3 gives the client, and of S3 the actions have the names that IAM gives them; both may be `*`. `Times` null is for ever. `Resource` is any text in the
request, an instance id for one. `Executed` lets the call have its effect and loses only the answer, as a
connection that breaks at the wrong moment does. An entry without a `Code` only delays: every call by 0.2 s,
say, which gives the emulator a latency like AWS's, so that calls in parallel are seen to overlap.
Counting starts again whenever the file's text changes.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from html import escape
from pathlib import Path


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

    def matches(self, service: str, action: str, request: str) -> bool:
        same_call = self.Service.lower() in ("*", service) and self.Action in ("*", action)
        return same_call and (self.Resource is None or self.Resource in request)

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


class FaultFile:
    """The file is read at each call, so that a test changes the weather without a restart."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._lock = threading.Lock()
        self._text = ""
        self._faults: list[Fault] = []
        self._used: list[int] = []

    def find(self, service: str, action: str, request: str) -> Fault | None:
        """The first fault that matches and is not used up; finding it uses it once."""
        if self._path is None:
            return None
        with self._lock:
            self._read()
            for index, fault in enumerate(self._faults):
                spent = fault.Times is not None and self._used[index] >= fault.Times
                if not spent and fault.matches(service, action, request):
                    self._used[index] += 1
                    return fault
        return None

    def _read(self) -> None:
        text = self._path.read_text(encoding="utf-8") if self._path and self._path.exists() else ""
        if text == self._text:
            return
        self._text = text
        self._faults = [Fault(**entry) for entry in json.loads(text or "[]")]
        self._used = [0] * len(self._faults)
