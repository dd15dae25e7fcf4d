"""Which invocation of which function made a call: one line of JSON for each, found by the trace id in the call's header.

Lambda hands each invocation a trace id, and the SDKs send it with every call that they make in it. So a fault can be
meant for one victim of many, also in calls that do not name it, and the process that calls is known.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

_ROOT = re.compile(r"Root=([0-9a-fA-F-]+)")


@dataclass(frozen=True)
class Invocation:
    Trace: str
    Function: str
    Event: str
    Pid: int


class Invocations:
    """A file that ministack writes and both emulators read; it only grows."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._lock = threading.Lock()
        self._known: dict[str, Invocation] = {}
        self._read = 0

    def note(self, invocation: Invocation) -> None:
        """Before the function gets its event, so that every call of it is known."""
        if self._path is None:
            return
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(invocation)) + "\n")

    def of(self, header: str | None) -> Invocation | None:
        """The invocation that a header `X-Amzn-Trace-Id` belongs to; none of a caller that is no function of ours."""
        found = _ROOT.search(header or "")
        if self._path is None or not found:
            return None
        with self._lock:
            if found[1] not in self._known:
                self._catch_up()
            return self._known.get(found[1])

    def _catch_up(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            invocation = Invocation(**json.loads(line))
            self._known[invocation.Trace] = invocation
