"""The record of calls: one line of JSON for each call that reaches an emulator.

Tests read it to prove that a dry run changed nothing, benches to count calls and to see which call waited for which.
"""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any, Mapping

Call = dict[str, Any]

BROKEN = "ConnectionBroken"  # the recorded error of a call that got no answer

_CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]*)/([^/]+)/aws4_request")
_APPLICATION = re.compile(r"\bapp/([^\s]+)")
_ERROR_CODES = (
    re.compile(r"<Code>([^<]+)</Code>"),
    re.compile(r'"(?:__type|code|Code)"\s*:\s*"(?:[^"#]*#)?([^"]+)"'),
)
_READING = ("Describe", "Get", "List", "Head", "Lookup", "Query", "Scan", "BatchGet", "Search", "Simulate", "Assume")


class CallRecord:
    """A file that all threads of one emulator append to; without a path, nothing is recorded."""

    def __init__(self, path: str | None) -> None:
        self._record = Path(path).open("ab", buffering=0) if path else None
        self._lock = threading.Lock()

    def append(self, call: Call) -> None:
        if self._record is not None:
            line = json.dumps(call, default=str) + "\n"
            with self._lock:
                self._record.write(line.encode())


class Reader:
    """A record that grows while it is read: each line is parsed once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._read = 0
        self._calls: list[Call] = []

    def calls(self) -> list[Call]:
        """Every complete line so far: the last one may still be on its way to the disk."""
        with self._lock:
            if self.path.exists():
                with self.path.open("rb") as record:
                    record.seek(self._read)
                    whole, end, _ = record.read().rpartition(b"\n")
                self._read += len(whole) + len(end)
                self._calls += [json.loads(line) for line in whole.splitlines()]
            return list(self._calls)


def read_calls(path: Path) -> list[Call]:
    return Reader(path).calls()


def is_change(call: Call) -> bool:
    """Whether the call asked for a change and was not refused."""
    return call["Error"] is None and not str(call["Action"]).startswith(_READING)


def signed_by(authorization: str) -> tuple[str, str, str]:
    """The access key, Region and service that a Signature Version 4 header names."""
    found = _CREDENTIAL.search(authorization)
    return (found[1], found[2], found[3]) if found else ("", "", "")


def caller(headers: Mapping[str, str]) -> str | None:
    """The application id in the user agent, which is the function's name if a function calls."""
    agent = f"{headers.get('user-agent', '')} {headers.get('x-amz-user-agent', '')}"
    found = _APPLICATION.search(agent)
    return found[1] if found else None


def error_code(status: int, body: bytes) -> str | None:
    """The AWS error code of an answer in any of the protocols, or None if the answer is not an error."""
    if status < 400:
        return None
    text = body[:4000].decode("utf-8", "replace")
    found = next((match[1] for pattern in _ERROR_CODES if (match := pattern.search(text))), None)
    return found or f"Http{status}"
