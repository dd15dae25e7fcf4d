"""Faults and records that concern one function, or one of its invocations."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from support.stack import ACCOUNT, PACKAGES, LocalStack
from support.victim import Victim, attribute_of, bare_instance

proves = pytest.mark.proves

PROTECT = "cordon-drill-protect-instance"


@pytest.fixture(autouse=True)
def no_faults_left(stack: LocalStack) -> Iterator[None]:
    yield
    stack.inject()


def protect(stack: LocalStack, victim: Victim) -> dict[str, Any]:
    """The function's answer, or the error that it ends with."""
    event = {"AccountId": ACCOUNT, "Region": stack.region, "InstanceId": victim.instance, "CaseId": f"{victim.instance}-20261121T030007Z"}
    answer = stack.client("lambda").invoke(FunctionName=PROTECT, Payload=json.dumps(event))
    return json.loads(answer["Payload"].read())


def protected(stack: LocalStack, victim: Victim) -> bool:
    return attribute_of(stack, victim.instance, "disableApiTermination")


@proves("ministack.lambda_functions.names_of_callers")
def test_the_record_names_the_function_that_calls(stack: LocalStack) -> None:
    since = time.time()
    protect(stack, bare_instance(stack))
    assert {call["Caller"] for call in stack.calls(since) if call["Action"] == "ModifyInstanceAttribute"} == {PROTECT}


@proves("ministack.lambda_functions.shared_code")
def test_a_function_runs_from_where_the_code_of_all_stacks_is(stack: LocalStack) -> None:
    protect(stack, bare_instance(stack))
    newest = json.loads(stack.invocations.read_text(encoding="utf-8").splitlines()[-1])
    assert Path("/proc", str(newest["Pid"]), "exe").readlink().is_relative_to((PACKAGES / "code").resolve())


@proves("ministack.lambda_functions.noted_invocations")
def test_a_fault_meets_one_functions_calls_for_one_victim_only(stack: LocalStack) -> None:
    """Calls that do not name the victim, such as those to the case table, are among them."""
    victim, other = bare_instance(stack), bare_instance(stack)
    stack.inject({"Service": "*", "Action": "*", "Code": "AccessDeniedException", "Function": "protect-instance", "Event": victim.instance})
    assert protect(stack, victim)["errorType"] == "AccessDenied" and not protected(stack, victim)
    assert protect(stack, other)["Status"] == "Done" and protected(stack, other)
    stack.client("ec2").describe_vpcs()


@proves("ministack.lambda_functions.noted_invocations")
@pytest.mark.parametrize("executed", [False, True])
def test_a_killed_function_ends_before_or_after_its_call_takes_effect(stack: LocalStack, executed: bool) -> None:
    victim, other = bare_instance(stack), bare_instance(stack)
    stack.inject({"Service": "ec2", "Action": "ModifyInstanceAttribute", "Breaks": "process", "Event": victim.instance, "Times": 1, "Executed": executed})
    assert protect(stack, victim)["errorType"] == "Runtime.ExitError"
    changed = [attribute_of(stack, victim.instance, name) for name in ("disableApiTermination", "disableApiStop")]
    # The function makes two such calls in parallel, and the other one may have succeeded.
    assert changed.count(True) >= 1 if executed else changed.count(True) <= 1
    assert protect(stack, other)["Status"] == "Done"
    assert protect(stack, victim)["Status"] == "Done" and protected(stack, victim)
