"""The simulation of EC2's token buckets keeps to the buckets; how fast a fleet is, is for `make bench` to say."""

from __future__ import annotations

import random

import pytest

from tools.bench_tokens import Bucket, at_best, bucket_of, product, simulate, trace_of

GROUPS, INSTANCES = "ec2:ModifyNetworkInterfaceAttribute", "ec2:DescribeInstances"
TRACE = {
    "describe-instance": [(0.0, [INSTANCES, "dynamodb:GetItem"])],
    "isolate-network": [(0.0, ["ec2:DescribeNetworkInterfaces"]), (0.0, [GROUPS]), (5.0, [GROUPS]), (0.0, ["ec2:DescribeNetworkInterfaces"])],
    "preserve-volumes": [(0.0, [GROUPS])],
}


def test_a_bucket_never_grants_more_than_it_holds_and_is_refilled_with() -> None:
    bucket, rng, now = Bucket(50, 5), random.Random(7), 0.0
    asked = granted = 0
    for _ in range(5_000):
        now += rng.choice((0.0, 0.01, 0.5))
        asked += 1
        granted += bucket.take(now)
        assert granted <= 50 + 5 * now + 1e-6
    assert (bucket.granted, bucket.granted + bucket.refused) == (granted, asked)


def test_a_bucket_that_is_full_holds_no_more_however_long_nobody_asks() -> None:
    bucket = Bucket(50, 5)
    assert sum(bucket.take(1_000.0) for _ in range(80)) == 50


def test_the_buckets_are_those_that_aws_documents() -> None:
    assert bucket_of(GROUPS) == (50, 5) and bucket_of(INSTANCES) == (100, 20)
    assert bucket_of("dynamodb:GetItem") is None and bucket_of("iam:PutRolePolicy") is None


@pytest.mark.parametrize("instances", [1, 30, 100])
def test_no_simulated_call_is_granted_twice_or_forgotten(instances: int) -> None:
    outcome = simulate(TRACE, instances)
    assert not outcome.lost and len(outcome.isolated) == instances
    assert outcome.buckets[GROUPS].granted == 3 * instances
    for bucket in outcome.buckets.values():
        assert bucket.granted <= bucket.capacity + bucket.rate * outcome.ended


def test_the_same_seed_gives_the_same_fleet() -> None:
    one, other = simulate(TRACE, 100, seed=3), simulate(TRACE, 100, seed=3)
    assert (one.isolated, one.refused) == (other.isolated, other.refused)


@pytest.mark.parametrize("instances", [1, 60, 100, 400])
def test_nothing_is_isolated_sooner_than_the_buckets_allow(instances: int) -> None:
    best, _ = at_best(TRACE, instances)
    assert simulate(TRACE, instances).all_isolated >= best - 1e-6


def test_calls_that_are_never_granted_are_lost_and_said_to_be() -> None:
    """Far more calls at once than any number of tries can get through."""
    greedy = {**TRACE, "describe-network": [(0.0, [GROUPS] * 400)]}
    outcome = simulate(greedy, 30)
    assert outcome.lost["describe-network"] > 0


def test_the_numbers_of_the_simulation_are_the_products_own() -> None:
    settings = product()
    assert settings.sdk_attempts == 8 and settings.state_retries["isolate-network"] == 3 and settings.state_retries["detach-autoscaling"] == 1
    every, after, settle = settings.paced(100)
    assert (round(every, 2), round(after, 1), round(settle, 1)) == (3.0, 34.0, 22.0), "as prepare-fleet's own test has it"


def test_a_trace_keeps_the_order_the_parallelism_and_the_pauses_of_the_record() -> None:
    def call(action: str, start: float, end: float) -> dict[str, object]:
        return {"Service": "ec2", "Action": action, "Start": start, "End": end, "Caller": "isolate-network"}

    calls = [call("DescribeInstances", 0.0, 0.4), call("ModifyNetworkInterfaceAttribute", 0.5, 0.9), call("ModifyNetworkInterfaceAttribute", 5.9, 6.3)]
    trace = trace_of(calls, lambda one: one["Caller"], lambda of_function: [[one] for one in of_function], 0.4)
    assert trace == {"isolate-network": [(0.0, [INSTANCES]), (0.0, [GROUPS]), (5.0, [GROUPS])]}
