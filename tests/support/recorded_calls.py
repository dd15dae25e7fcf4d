"""The calls that functions have made on the stacks of this session, as their roles' actions."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import Iterator

from emulator.call_record import Call, read_calls

from .forensic import FORENSIC
from .stack import ACCOUNT, OURSELVES, run_folders
from .template import functions
# A service's name in the call record, and in IAM.
NAMES = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing", "stepfunctions": "states"}
# What AWS lets everybody call, and no policy can deny; and what needs the permissions of its items, see actions_of.
FREE = {"sts:GetCallerIdentity", "dynamodb:TransactWriteItems"}


def function_of(caller: str) -> str | None:
    """A function's name is the state machine's with its own behind it, whichever deployment it belongs to."""
    named = [name for name in functions() if caller.endswith(f"-{name}")]
    return max(named, key=len, default=None)


@cache
def calls() -> list[tuple[str, Call]]:
    """Each call that a function has made on any stack of this session, with the function."""
    records = [path for folder in run_folders() for path in (folder / "moto.calls", folder / "ministack.calls")]
    recorded = (call for path in records for call in read_calls(path) if call["Caller"] not in (None, OURSELVES))
    return [(name, call) for call in recorded if (name := function_of(call["Caller"]))]


def actions_of(call: Call) -> Iterator[str]:
    """What IAM is asked when the call is made: its own action, and what its tags need."""
    service = NAMES.get(call["Service"], call["Service"])
    yield f"{service}:{call['Action']}"
    if call["Action"] == "TransactWriteItems":
        yield "dynamodb:PutItem"
    if service == "sts" and any(name.startswith("Tags.") for name in call["Parameters"]):
        yield "sts:TagSession"
    if service == "ec2" and any(name.startswith("TagSpecification.") for name in call["Parameters"]):
        yield "ec2:CreateTags"


def made(at: str) -> dict[str, set[str]]:
    """By function: what was called at home, in the forensic account, or in one of the others."""
    where = {ACCOUNT: "home", FORENSIC: "forensic"}
    found: dict[str, set[str]] = defaultdict(set)
    for name, call in calls():
        if where.get(call["Account"], "member") == at:
            found[name].update(actions_of(call))
    return found


def step_name(call: Call) -> str:
    """The function that made the call, without the state machine's name."""
    return (call["Caller"] or "").removeprefix("cordon-drill-")


def session_tags(call: Call) -> dict[str, str]:
    given = call["Parameters"]
    return {given[f"Tags.member.{n}.Key"]: given[f"Tags.member.{n}.Value"] for n in range(1, 9) if f"Tags.member.{n}.Key" in given}
