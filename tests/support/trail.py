"""Events in CloudTrail's history, as a test wants them to have happened."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from .stack import ACCOUNT, LocalStack


def put_event(
    stack: LocalStack, name: str, *, ago: float = 60, by: str = "user/eve", session: str | None = None, about: list[str] | None = None,
    account: str = ACCOUNT, region: str | None = None, service: str = "ec2.amazonaws.com", read_only: bool = False, **record: Any,
) -> None:  # fmt: skip
    """Something that somebody did so many seconds ago, to these resources; `session` makes it a role's, by its session's name.

    Further fields replace those of the record, which is all that the caller has said of itself and its call.
    """
    identity = f"sts::{account}:assumed-role/{by}/{session}" if session else f"iam::{account}:{by}"
    told = {
        "eventVersion": "1.11", "eventName": name, "eventSource": service, "awsRegion": region or stack.region,
        "userIdentity": {"type": "AssumedRole" if session else "IAMUser", "arn": f"arn:aws:{identity}"},
        "sourceIPAddress": "198.51.100.7", "userAgent": "aws-cli/2.31", "requestParameters": None, **record,
    }  # fmt: skip
    event = {
        "Account": account, "Region": region or stack.region, "EventId": str(uuid.uuid4()), "EventName": name, "EventSource": service,
        "EventTime": int(time.time() - ago), "ReadOnly": str(read_only).lower(), "Username": session or by.rsplit("/", 1)[1],
        "Resources": [{"ResourceName": one} for one in about or []], "CloudTrailEvent": json.dumps(told),
    }  # fmt: skip
    with stack.cloudtrail_events.open("a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")
