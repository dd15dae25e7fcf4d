"""Session Manager: sessions.

A test opens a session as a user does, by `start_session(Target=…)`; nothing runs on a host.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.ec2 import ec2_backends
from moto.ssm.models import SimpleSystemManagerBackend
from moto.ssm.responses import SimpleSystemManagerResponse
from moto.sts import sts_backends
from moto.utilities.utils import get_partition

from emulator.patches import patch
from emulator.settings import seconds

PAGE = 200  # the greatest MaxResults of DescribeSessions
COVERAGE = ("getmoto/moto:IMPLEMENTATION_COVERAGE.md",)
ACTIVE = {"Connected", "Connecting", "Disconnected", "Terminating"}


@dataclass
class Session:
    """A session, as DescribeSessions shows it."""

    session_id: str
    target: str
    owner: str
    reason: str | None
    document: str
    started: float = field(default_factory=time.time)
    ending: float | None = None

    @property
    def status(self) -> str:
        if self.ending is None:
            return "Connected"
        return "Terminating" if time.time() - self.ending < seconds("MOTO_SESSION_ENDS_SECONDS") else "Terminated"

    def shown(self) -> dict[str, Any]:
        shown = {"SessionId": self.session_id, "Target": self.target, "Status": self.status, "StartDate": self.started,
                 "DocumentName": self.document, "Owner": self.owner, "Reason": self.reason}  # fmt: skip
        ended = {"EndDate": self.ending} if self.status == "Terminated" else {}
        return {name: value for name, value in {**shown, **ended}.items() if value is not None}

    def matches(self, key: str, value: str) -> bool:
        of = {"Target": self.target, "Owner": self.owner, "SessionId": self.session_id, "Status": self.status}
        if key not in of:
            raise JsonRESTError("InvalidFilterKey", "The specified key isn't valid.")
        return of[key] == value


def sessions(backend: SimpleSystemManagerBackend) -> dict[str, Session]:
    return backend.__dict__.setdefault("sessions", {})


@patch("systems-manager/latest/APIReference/API_StartSession.html", upstream=COVERAGE)
def start() -> None:
    """`StartSession` opens a session to a running instance in the caller's name, which begins the session's id.

    moto does not have the call.
    """

    def start_session(self: Any) -> ActionResult:
        target = self._get_param("Target")
        instances = ec2_backends[self.current_account][self.region].all_instances()
        if not any(instance.id == target and instance.state == "running" for instance in instances):
            raise JsonRESTError("TargetNotConnected", f"{target} is not connected.")
        partition = get_partition(self.region)
        _, owner, _ = sts_backends[self.current_account][partition].get_caller_identity(self.access_key, self.region)
        name = re.sub(r"[^A-Za-z0-9_+=,.@-]", "", owner.rsplit("/", 1)[-1])
        session = Session(f"{name[:60]}-{secrets.token_hex(9)}", target, owner, self._get_param("Reason"),
                          self._get_param("DocumentName", "SSM-SessionManagerRunShell"))  # fmt: skip
        sessions(self.ssm_backend)[session.session_id] = session
        stream = f"wss://ssmmessages.{self.region}.amazonaws.com/v1/data-channel/{session.session_id}"
        return ActionResult({"SessionId": session.session_id, "TokenValue": secrets.token_hex(32), "StreamUrl": stream})

    SimpleSystemManagerResponse.start_session = start_session


@patch("systems-manager/latest/APIReference/API_DescribeSessions.html", upstream=COVERAGE)
def describe() -> None:
    """`DescribeSessions` lists either the active or the ended sessions that match all filters, in pages.

    moto does not have the call.
    """

    def describe_sessions(self: Any) -> ActionResult:
        active = self._get_param("State") == "Active"
        filters = [(one["key"], one["value"]) for one in self._get_param("Filters", [])]
        found = [one for one in sessions(self.ssm_backend).values() if (one.status in ACTIVE) == active]
        found = [one for one in found if all(one.matches(*pair) for pair in filters)]
        start, size = int(self._get_param("NextToken") or 0), int(self._get_param("MaxResults") or PAGE)
        page = {"Sessions": [one.shown() for one in found[start : start + size]]}
        return ActionResult({**page, **({"NextToken": str(start + size)} if start + size < len(found) else {})})

    SimpleSystemManagerResponse.describe_sessions = describe_sessions


@patch("systems-manager/latest/APIReference/API_TerminateSession.html", upstream=COVERAGE)
def terminate() -> None:
    """`TerminateSession` ends a session for good; to end it again is no error.

    moto does not have the call.
    """

    def terminate_session(self: Any) -> ActionResult:
        session_id = self._get_param("SessionId")
        session = sessions(self.ssm_backend).get(session_id)
        if session and session.ending is None:
            session.ending = time.time()
        return ActionResult({"SessionId": session_id})

    SimpleSystemManagerResponse.terminate_session = terminate_session
