"""Faults that break connections and processes, and those that are meant for one invocation among many."""

from __future__ import annotations

import json
import time
from typing import Any, Iterator

import pytest
from botocore.exceptions import ConnectionClosedError

from emulator.call_record import BROKEN
from support.refusal import refusal
from support.stack import ACCOUNT, LocalStack
from support.victim import Victim, attribute_of, bare_instance

PROTECT = "cordon-drill-protect-instance"


@pytest.fixture(autouse=True)
def fair_weather(stack: LocalStack) -> Iterator[None]:
    yield
    stack.inject()


def protect(stack: LocalStack, victim: Victim) -> dict[str, Any]:
    """The function's answer, or the error that it ends with."""
    event = {"AccountId": ACCOUNT, "Region": stack.region, "InstanceId": victim.instance, "CaseId": f"{victim.instance}-20261121T030007Z"}
    answer = stack.client("lambda").invoke(FunctionName=PROTECT, Payload=json.dumps(event))
    return json.loads(answer["Payload"].read())


def protected(stack: LocalStack, victim: Victim) -> bool:
    return attribute_of(stack, victim.instance, "disableApiTermination")


@pytest.mark.parametrize(("service", "action", "method"), [
    ("ec2", "DescribeVpcs", "describe_vpcs"), ("dynamodb", "ListTables", "list_tables"), ("s3", "ListAllMyBuckets", "list_buckets")])  # fmt: skip
def test_a_broken_connection_gives_no_answer_and_the_next_call_one(stack: LocalStack, service: str, action: str, method: str) -> None:
    stack.inject({"Service": service, "Action": action, "Breaks": "connection", "Times": 1})
    since, call = time.time(), getattr(stack.client(service), method)
    with pytest.raises(ConnectionClosedError):
        call()
    call()
    assert [one["Error"] for one in stack.calls(since, ours=True) if one["Action"] == action] == [BROKEN, None]


def test_a_broken_connection_gives_a_head_no_answer_either(stack: LocalStack) -> None:
    """A body that is announced and does not come is nothing that such a request would wait for."""
    bucket, s3 = stack.outputs["EvidenceBucketName"], stack.client("s3")
    stack.inject({"Service": "s3", "Action": "ListBucket", "Breaks": "connection", "Times": 1})
    with pytest.raises(ConnectionClosedError):
        s3.head_bucket(Bucket=bucket)
    s3.head_bucket(Bucket=bucket)


def test_a_fault_lets_the_first_calls_through_and_lasts_as_long_as_it_says(stack: LocalStack) -> None:
    ec2 = stack.client("ec2")
    stack.inject({"Service": "ec2", "Action": "DescribeVpcs", "Code": "RequestLimitExceeded", "Status": 503, "After": 1, "Seconds": 1})
    ec2.describe_vpcs()
    assert refusal(ec2.describe_vpcs)[0] == refusal(ec2.describe_vpcs)[0] == "RequestLimitExceeded"
    time.sleep(1.1)
    ec2.describe_vpcs()


def test_an_entry_that_stays_goes_on_counting_when_another_comes(stack: LocalStack) -> None:
    ec2 = stack.client("ec2")
    once = {"Service": "ec2", "Action": "DescribeVpcs", "Code": "RequestLimitExceeded", "Status": 503, "Times": 1}
    stack.inject(once)
    assert refusal(ec2.describe_vpcs)[0] == "RequestLimitExceeded"
    stack.inject({"Service": "ec2", "Action": "DescribeSubnets", "Code": "Throttling"}, once)
    ec2.describe_vpcs()


def test_a_fault_meets_the_calls_of_one_function_about_one_victim_alone(stack: LocalStack) -> None:
    """Also those that do not name the victim, as calls to the case table do not in so many words."""
    victim, other = bare_instance(stack), bare_instance(stack)
    stack.inject({"Service": "*", "Action": "*", "Code": "AccessDeniedException", "Function": "protect-instance", "Event": victim.instance})
    assert protect(stack, victim)["errorType"] == "AccessDenied" and not protected(stack, victim)
    assert protect(stack, other)["Status"] == "Done" and protected(stack, other)
    stack.client("ec2").describe_vpcs()


@pytest.mark.parametrize("executed", [False, True])
def test_a_killed_function_ends_before_its_call_has_an_effect_or_after(stack: LocalStack, executed: bool) -> None:
    victim, other = bare_instance(stack), bare_instance(stack)
    stack.inject({"Service": "ec2", "Action": "ModifyInstanceAttribute", "Breaks": "process", "Event": victim.instance, "Times": 1, "Executed": executed})
    assert protect(stack, victim)["errorType"] == "Runtime.ExitError"
    changed = [attribute_of(stack, victim.instance, name) for name in ("disableApiTermination", "disableApiStop")]
    # It makes two such calls side by side: the other one may have come through.
    assert changed.count(True) >= 1 if executed else changed.count(True) <= 1
    assert protect(stack, other)["Status"] == "Done"
    assert protect(stack, victim)["Status"] == "Done" and protected(stack, victim)
