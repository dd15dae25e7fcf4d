"""Somebody who is not Cordon: what CloudTrail records of a call, as EventBridge delivers it.

CloudTrail writes a request's fields in one of three ways, depending on the call; those here are as recorded events of
these calls have them.
"""

from __future__ import annotations

import time
import uuid
from datetime import datetime, timezone
from typing import Any

from .stack import ACCOUNT, REGION

KEY = "AKIAEXAMPLEEVE000000"
ADDRESS = "198.51.100.66"


def user(name: str = "eve", account: str = ACCOUNT) -> dict[str, Any]:
    return {"type": "IAMUser", "principalId": "AIDAEXAMPLE", "arn": f"arn:aws:iam::{account}:user/{name}", "accountId": account,
            "accessKeyId": KEY, "userName": name}  # fmt: skip


def session(role: str, name: str = "eve", account: str = ACCOUNT) -> dict[str, Any]:
    """A session of the role, which is given with its path."""
    issuer = {"type": "Role", "principalId": "AROAEXAMPLE", "arn": f"arn:aws:iam::{account}:role/{role}", "accountId": account,
              "userName": role.rsplit("/", 1)[-1]}  # fmt: skip
    return {"type": "AssumedRole", "principalId": f"AROAEXAMPLE:{name}", "arn": f"arn:aws:sts::{account}:assumed-role/{issuer['userName']}/{name}",
            "accountId": account, "accessKeyId": "ASIAEXAMPLEEVE000000", "sessionContext": {"sessionIssuer": issuer, "attributes": {}}}  # fmt: skip


def api_call(
    name: str, parameters: dict[str, Any] | None, *, source: str = "ec2", by: dict[str, Any] | None = None, account: str = ACCOUNT,
    region: str = REGION, ago: float = 0, answer: Any = None, **detail: Any,
) -> dict[str, Any]:  # fmt: skip
    """A successful call so many seconds ago; further fields replace those of its `detail`."""
    at = datetime.fromtimestamp(time.time() - ago, timezone.utc)
    told = {
        "eventVersion": "1.11", "userIdentity": by or user(account=account), "eventTime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "eventSource": f"{source}.amazonaws.com", "eventName": name, "awsRegion": region, "sourceIPAddress": ADDRESS,
        "userAgent": "aws-cli/2.31.0", "requestParameters": parameters, "responseElements": answer,
        "requestID": str(uuid.uuid4()), "eventID": str(uuid.uuid4()), "readOnly": False, "eventType": "AwsApiCall",
        "managementEvent": True, "recipientAccountId": account, "eventCategory": "Management", **detail,
    }  # fmt: skip
    return {"source": f"aws.{source}", "detail-type": "AWS API Call via CloudTrail", "account": account, "region": region, "detail": told}
