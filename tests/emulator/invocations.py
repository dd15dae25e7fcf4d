"""Which invocation of which function made a call: one line of JSON per invocation, found by the trace id in the call's header.

Lambda gives each invocation a trace id, and the SDKs send it with every call of that invocation. So a fault can be meant for
one victim of many, even in calls that do not name the victim, and the calling process is known.
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
        """To be called before the function gets its event, so that all its calls are known."""
        if self._path is None:
            return
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(invocation)) + "\n")

    def of(self, header: str | None) -> Invocation | None:
        """The invocation that a header `X-Amzn-Trace-Id` belongs to; None for a caller that is not one of our functions."""
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
