"""A containment that leaves its Auto Scaling group as it was, and the release of one."""

from __future__ import annotations

from typing import Any

from .stack import ACCOUNT, Execution, LocalStack
from .victim import Victim


def contain(stack: LocalStack, *victims: Victim, account: str = ACCOUNT) -> Execution:
    """Without a replacement: an Auto Scaling group that launches one makes the account another one for good."""
    document = {"InstanceIds": [victim.instance for victim in victims], "Region": stack.region, "AccountId": account}
    execution = stack.run({**document, "AutoScaling": "Decrement"}, wait=240)
    assert execution.status == "SUCCEEDED", execution.cause
    return execution


def release(stack: LocalStack, *victims: Victim, **options: Any) -> Execution:
    document = {"InstanceIds": [victim.instance for victim in victims], "Region": stack.region, **options}
    return stack.run(document, wait=240, machine=stack.outputs["ReleaseStateMachineArn"])
