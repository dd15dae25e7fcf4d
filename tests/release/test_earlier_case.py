"""A case that an earlier version has opened is released by this one."""

from __future__ import annotations

import json
from typing import Any

from support.account import account_snapshot, without_groups
from support.containment import journal
from support.release import contain, release
from support.stack import ACCOUNT, PROJECT, LocalStack
from support.victim import Victim, build_victims, differences, groups_by_interface

RECORDED = PROJECT / "tests" / "recorded" / "case-of-0.1.0.json"
NUMBERS = {"HeldSince", "WatchedSince", "VerifiedAt"}


def filled_in(victim: Victim, groups: dict[str, list[str]], today: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    """The records of 0.1.0 about this victim. What AWS has named only since is taken from today's records."""
    association = next(name.split("|")[0] for name in today["detach-profile"] if name.endswith("|InstanceProfile"))
    profile = json.loads(today["describe-instance"][f"{victim.instance}|InstanceProfileArn"])
    names = {
        "instance": victim.instance, "address": victim.private_ip, "role": victim.role, "profile": profile, "association": association,
        "scaling group": victim.auto_scaling_group, "classic": victim.classic_load_balancer,
        "instance targets": victim.instance_target_group, "ip targets": victim.ip_target_group,
        "case": today["case"]["CaseId"], "execution": today["case"]["Execution"],
        **{f"volume {device}": volume for device, volume in victim.volumes.items()},
        **{f"interface {n}": interface for n, interface in enumerate(victim.interfaces)},
        **{f"vpc {n}": vpc for n, vpc in enumerate(victim.vpcs)},
        **{f"group {n}": groups[interface][0] for n, interface in enumerate(victim.interfaces)},
    }  # fmt: skip
    text = RECORDED.read_text(encoding="utf-8")
    for name, value in names.items():
        text = text.replace(f"<{name}>", value)
    assert "<" not in text, "every placeholder has a value"
    return json.loads(text)


def test_a_case_that_version_0_1_0_has_opened_is_released(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    before, groups = account_snapshot(stack), groups_by_interface(stack, victim)
    contain(stack, victim)
    records = journal(stack, victim)
    today = {name.split("#")[-1]: one for name, one in records.items()}
    for name, attributes in filled_in(victim, groups, today).items():
        record = next(record for record in records if record.split("#")[-1] == name)
        item = {key: {"N" if key in NUMBERS else "S": value} for key, value in attributes.items()}
        key = {"Instance": {"S": f"{ACCOUNT}/{stack.region}/{victim.instance}"}, "Record": {"S": record}}
        stack.client("dynamodb").put_item(TableName=stack.outputs["CaseTableName"], Item={**key, **item})
    released = release(stack, victim)
    assert released.status == "SUCCEEDED", released.cause
    assert released.instance(victim.instance)["Verdict"] == "Released"
    assert differences(without_groups(before), without_groups(account_snapshot(stack))) == []
