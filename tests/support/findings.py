"""Findings as their services put them on the bus, made from the event that people try Cordon with."""

from __future__ import annotations

import json
import uuid
from typing import Any

from .stack import ACCOUNT, PROJECT, REGION

EXAMPLE = PROJECT / "events" / "contain-finding.json"


def guardduty_finding(instance: str, *, account: str = ACCOUNT, region: str = REGION, **detail: Any) -> dict[str, Any]:
    """A new finding about the instance; further fields replace those of its `detail`."""
    event = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    id_ = uuid.uuid4().hex
    arn = f"arn:aws:guardduty:{region}:{account}:detector/12abc34d567e8fa901bc2d34e56789f0/finding/{id_}"
    event["detail"]["resource"]["instanceDetails"]["instanceId"] = instance
    event["detail"] |= {"accountId": account, "region": region, "id": id_, "arn": arn, "title": f"{instance} queries a domain of attackers.", **detail}
    return event


def attack_sequence(*instances: tuple[str, str, str]) -> dict[str, Any]:
    """A finding that joins several instances, each given as account, Region and id."""
    resources = [
        {"uid": f"arn:aws:ec2:{region}:{account}:instance/{instance}", "accountId": account, "region": region, "resourceType": "EC2_INSTANCE"}
        for account, region, instance in instances
    ]
    sequence = {"uid": "sequence", "description": "Several instances were compromised.", "resources": resources}
    return guardduty_finding(
        instances[0][2], type="AttackSequence:EC2/CompromisedInstanceGroup", severity=9, title="Several instances were compromised.",
        resource={"resourceType": "AttackSequence"}, service={"archived": False, "detection": {"sequence": sequence}},
    )  # fmt: skip
