"""What the functions have called in all tests before, beside what their roles allow, both ways: the local stack enforces no permissions.

These run last (see support/session.py). What nobody has called says something only where every test has run.
"""

from __future__ import annotations

import os
import re

import pytest

from emulator.call_record import Call, read_calls
from support import forensic_role, member_role
from support.home_role import UNNAMED, acts_on_a_target, allowed
from support.iam import listed, steps_of
from support.member_role import elsewhere
from support.recorded_calls import FREE, NAMES, calls, function_of, made
from support.session import left_out, wait_for_other_workers
from support.stack import ACCOUNT, LocalStack, run_folders
from support.template import functions, kebab, template
from support.victim import build_victims


# Allowances that no call on the local stack can show, and why. One that has been seen, or that no role has, must go.
BY_KMS = "AWS asks for it when S3, SNS or EC2 uses the key for the caller; the emulators use none"
BY_DELIVERY = "EC2 asks for it when it makes a flow log to S3; moto makes no delivery"
BY_LAMBDA = "Lambda asks for it when it takes messages from the queue for the function"
ON_PASSING = "EC2 asks for it when a profile is associated; moto passes no role"
SEEN_OF_KMS = {"kms:Sign", "kms:Verify"}
NEVER_SEEN: dict[tuple[str, str], str] = {
    **{(name, action): BY_KMS for name in functions() for action in allowed(name) if action.startswith("kms:") and action not in SEEN_OF_KMS},
    **{(name, action): BY_KMS for name in functions() for action in forensic_role.allowed(name) if action.startswith("kms:")},
    ("create-flow-logs", "logs:CreateLogDelivery"): BY_DELIVERY,
    ("create-flow-logs", "logs:DeleteLogDelivery"): BY_DELIVERY,
    ("detach-profile", "iam:PassRole"): ON_PASSING,
    **{("watch-drift", f"sqs:{action}"): BY_LAMBDA for action in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")},
}
# Work that is owed: no test has these made there yet. One that has been seen must go.
NO_TEST_YET: dict[str, dict[str, set[str]]] = {
    at: {
        "create-snapshots": {"ec2:CreateSnapshot"},
        "describe-instance": {"ec2:DescribeVpcEndpoints", "ec2:DescribeRouteTables"},  # of an interface with an open window
        "prepare-fleet": {"ec2:RevokeSecurityGroupIngress", "ec2:AuthorizeSecurityGroupEgress"},  # of a group that somebody else made
    }
    for at in ("home", "member")
}
# The workflow's own role: what its record does not show.
NEVER_SEEN_OF_THE_WORKFLOW = {
    "logs": "Step Functions asks for log delivery when the state machine is made; ministack does not",
    "states": "Step Functions starts a fleet's batches, looks at them and stops them; ministack does so within itself",
    "events": "Step Functions makes a rule of its own to wait for an execution; ministack does not",
    "dynamodb": "ministack writes the answer to a question within itself, past the door where calls are recorded",
}


def allowed_in_a_member_account(name: str) -> set[str]:
    statements = [s for s in member_role.statements() if s["Effect"] == "Allow" and name in steps_of(s)]
    return {action for s in statements for action in listed(s["Action"])}


ROLES = {"home": allowed, "member": allowed_in_a_member_account, "forensic": forensic_role.allowed}


@pytest.fixture(scope="module", autouse=True)
def everything_on_record() -> None:
    wait_for_other_workers()
    calls.cache_clear()


@pytest.fixture
def whole_session() -> None:
    """In CI, a session that left tests out is an error: nothing would ever look at what is never used."""
    if left_out:
        text = f"only where all tests run; this session leaves out {len(left_out)}: {', '.join(left_out[:3])}…"
        pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)


# What a plain containment makes no call for: it is asked for, or configured, in other tests.
ON_REQUEST = {
    "capture-volatile", "hash-snapshots", "share-snapshots", "copy-snapshots", "lock-snapshots", "plan-release", "verify-release", "watch-drift",
    "prepare-fleet", "report",
}  # fmt: skip


def test_a_containment_is_among_the_calls_also_where_these_tests_run_alone(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    stack.run({"InstanceIds": [victim.instance], "Region": stack.region})
    calls.cache_clear()
    assert {name for name in made("home") if name not in ON_REQUEST} == set(functions()) - ON_REQUEST


@pytest.mark.parametrize("at", sorted(ROLES))
def test_no_function_has_made_a_call_that_its_role_does_not_allow(at: str) -> None:
    more = {name: actions - ROLES[at](name) - FREE for name, actions in made(at).items()}
    assert {name: actions for name, actions in more.items() if actions} == {}


@pytest.mark.parametrize("at", sorted(ROLES))
@pytest.mark.usefixtures("whole_session")
def test_every_allowance_of_every_role_has_been_used(at: str) -> None:
    """In a member account a step is allowed what it is at home; that an instance was there or here is all the difference."""
    used = made(at)
    if at == "member":
        used = {name: actions | elsewhere(name, made("home")[name]) for name, actions in used.items()}
    never = {name: ROLES[at](name) - used.get(name, set()) - {action for owner, action in NEVER_SEEN if owner == name} for name in functions()}
    assert {name: actions for name, actions in never.items() if actions} == NO_TEST_YET.get(at, {})


@pytest.mark.usefixtures("whole_session")
def test_every_exception_is_an_allowance_that_has_never_been_seen() -> None:
    seen = {(name, action) for at in ROLES for name, actions in made(at).items() for action in actions}
    has = {(name, action) for of_role in ROLES.values() for name in functions() for action in of_role(name)}
    assert sorted(pair for pair in NEVER_SEEN if pair in seen or pair not in has) == []
    assert {action for name in UNNAMED for action in UNNAMED[name]} >= {action for _, action in NEVER_SEEN} - kms_actions() - {"iam:PassRole"}


def kms_actions() -> set[str]:
    return {action for name in functions() for action in allowed(name) | forensic_role.allowed(name) if action.startswith("kms:")}


@pytest.mark.usefixtures("whole_session")
def test_every_function_that_the_workflow_may_invoke_has_been_invoked() -> None:
    machines = [template()["Resources"][name]["Properties"]["Policies"][0]["Statement"] for name in ("Contain", "Release")]
    invoking, others = [statements[0] for statements in machines], [s for statements in machines for s in statements[1:]]
    invoked = {function_of(one["Function"]) for folder in run_folders() for one in read_calls(folder / "invocations")}
    assert {kebab(arn.removeprefix("!GetAtt ").removesuffix(".Arn")) for invoke in invoking for arn in invoke["Resource"]} <= invoked
    assert {action.split(":")[0] for s in others for action in listed(s["Action"])} == set(NEVER_SEEN_OF_THE_WORKFLOW)


@pytest.mark.parametrize(
    "seen",
    [
        {("intake", "states:DescribeExecution"), ("notify", "sns:Publish")},
        {("watch-drift", "states:StartExecution"), ("watch-drift", "sns:Publish"), ("verify-containment", "dynamodb:TransactWriteItems")},
    ],
    ids=["of a response", "of a repair"],
)
@pytest.mark.usefixtures("whole_session")
def test_what_makes_the_difference_is_among_the_calls(seen: set[tuple[str, str]]) -> None:
    assert seen <= {(name, f"{NAMES.get(call['Service'], call['Service'])}:{call['Action']}") for name, call in calls()}


# --- Sessions in other accounts -----------------------------------------------------------------------------------


def abroad() -> list[tuple[str, Call]]:
    return [(name, call) for name, call in calls() if call["Account"] != ACCOUNT and acts_on_a_target(name)]


def test_every_call_in_another_account_is_made_in_a_session_of_the_step_that_makes_it() -> None:
    strangers = [(name, call["Session"], call["Action"]) for name, call in abroad() if (call["Session"] or "").split("@")[0] != name]
    assert strangers == []


def test_a_session_is_used_for_its_own_instance_and_for_no_other() -> None:
    """Where a request names an instance; a target group may name its other members, and those are only read."""
    others = []
    for name, call in abroad():
        named = {value for key, value in call["Parameters"].items() if re.fullmatch(r"(InstanceIds?|Instances)(\.\w+)*", key) and value.startswith("i-")}
        others += [(name, call["Action"], id_) for id_ in named if not (call["Session"] or "").endswith(f"@{id_}")]
    assert others == []


def test_a_session_has_the_tags_of_its_name() -> None:
    for name, call in calls():
        if call["Action"] == "AssumeRole" and call["Service"] == "sts":
            given = call["Parameters"]
            tags = {given[f"Tags.member.{n}.Key"]: given[f"Tags.member.{n}.Value"] for n in range(1, 9) if f"Tags.member.{n}.Key" in given}
            assert tags["CordonStep"] == name and given["RoleSessionName"] == f"{name}@{tags['CordonInstance']}"
