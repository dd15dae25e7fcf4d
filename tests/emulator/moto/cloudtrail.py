"""CloudTrail: the event history.

A test puts the events into the file MOTO_CLOUDTRAIL_EVENTS (support/trail.py does), one line of JSON each: the event as
LookupEvents returns it, with the account and the Region of its history.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

from moto.cloudtrail.responses import CloudTrailResponse
from moto.core.exceptions import JsonRESTError

from emulator.patches import patch

REQUESTS_A_SECOND = 2
HISTORY_SECONDS = 90 * 24 * 3600
PAGE = 50

_lock = threading.Lock()
_recent: dict[tuple[str, str], deque[float]] = defaultdict(deque)


@patch("awscloudtrail/latest/APIReference/API_LookupEvents.html", upstream=("getmoto/moto:IMPLEMENTATION_COVERAGE.md",))
def lookup_events() -> None:
    """`LookupEvents` returns the management events of the last 90 days, newest first, by at most one attribute, 50 to a page,
    and takes two requests a second.

    moto records no events, and does not have the call.
    """

    def answer(self: Any) -> str:
        account, region = self.current_account, self.region
        throttle(account, region)
        attributes, now = self._get_param("LookupAttributes") or [], time.time()
        start, end = self._get_param("StartTime") or 0, self._get_param("EndTime") or now
        size = int(self._get_param("MaxResults") or PAGE)
        if len(attributes) > 1:
            raise JsonRESTError("InvalidLookupAttributesException", "Only one lookup attribute can be specified")
        if start > end:
            raise JsonRESTError("InvalidTimeRangeException", "The start time is after the end time")
        if not 1 <= size <= PAGE:
            raise JsonRESTError("InvalidMaxResultsException", f"MaxResults must be between 1 and {PAGE}")
        question = hashlib.sha256(json.dumps([attributes, start, end], default=str).encode()).hexdigest()[:16]
        first = offset(self._get_param("NextToken"), question)
        since = max(start, now - HISTORY_SECONDS)
        found = [one for one in events() if (one["Account"], one["Region"]) == (account, region) and since <= one["EventTime"] <= end]
        found = [one for one in found if all(matches(one, attribute) for attribute in attributes)]
        found.sort(key=lambda one: -one["EventTime"])
        shown = [{key: value for key, value in one.items() if key not in ("Account", "Region")} for one in found[first : first + size]]
        more = {"NextToken": f"{question}.{first + size}"} if first + size < len(found) else {}
        return json.dumps({"Events": shown, **more})

    CloudTrailResponse.lookup_events = answer


def throttle(account: str, region: str) -> None:
    with _lock:
        recent, now = _recent[account, region], time.monotonic()
        while recent and now - recent[0] >= 1:
            recent.popleft()
        if len(recent) >= REQUESTS_A_SECOND:
            raise JsonRESTError("ThrottlingException", "Rate exceeded")
        recent.append(now)


def offset(token: str | None, question: str) -> int:
    """Where the page begins; a token belongs to the parameters that it was given for."""
    if not token:
        return 0
    asked, _, position = token.partition(".")
    if asked != question or not position.isdigit():
        raise JsonRESTError("InvalidNextTokenException", "The token is not valid for these parameters")
    return int(position)


def events() -> list[dict[str, Any]]:
    path = Path(os.environ.get("MOTO_CLOUDTRAIL_EVENTS", "/nonexistent"))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def matches(event: dict[str, Any], attribute: dict[str, str]) -> bool:
    key, wanted = attribute["AttributeKey"], attribute["AttributeValue"]
    if key in ("ResourceName", "ResourceType"):
        return any(resource.get(key) == wanted for resource in event["Resources"])
    if key in ("EventId", "EventName", "ReadOnly", "Username", "EventSource", "AccessKeyId"):
        return event.get(key) == wanted
    raise JsonRESTError("InvalidLookupAttributesException", f"{key} is not an attribute")
