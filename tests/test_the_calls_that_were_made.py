"""What the functions have called in all tests before, beside what their roles allow: the local stack enforces no permissions."""

from __future__ import annotations

from local_stack.stack import LocalStack
from local_stack.victim import build_victims
from test_template import FORENSIC, allowed, functions

# A service's name in the call record, and in IAM.
NAMES = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing", "stepfunctions": "states"}

# What AWS lets everybody call, and no policy can deny; and what needs the permissions of its items and none of its own.
FREE = {"sts:GetCallerIdentity", "dynamodb:TransactWriteItems"}


def function_of(caller: str) -> str | None:
    """A function's name is the state machine's with its own behind it, whichever deployment it belongs to."""
    named = [name for name in functions() if caller.endswith(f"-{name}")]
    return max(named, key=len, default=None)


def test_no_function_has_made_a_call_that_its_role_does_not_allow(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    stack.run({"InstanceIds": [victim.instance], "Region": stack.region})
    made: dict[str, set[str]] = {}
    for call in stack.calls():
        if name := function_of(call["Caller"] or ""):
            made.setdefault(name, set()).add(f"{NAMES.get(call['Service'], call['Service'])}:{call['Action']}")
    assert set(made) >= set(functions()) - {"report"}
    # With the forensic account's role as well, where there was one.
    more = {name: actions - allowed(name) - FORENSIC.get(name, set()) - FREE for name, actions in made.items()}
    assert {name: actions for name, actions in more.items() if actions} == {}
