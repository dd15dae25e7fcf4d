"""Auto Scaling: instances that leave and join a group."""

from __future__ import annotations

import time

import pytest
from botocore.exceptions import ClientError

from support.refusal import refusal
from support.stack import LocalStack
from support.victim import Victim, build_victims, registered_ports, scaling_of, scaling_sizes, targets_of

proves = pytest.mark.proves

def detach(stack: LocalStack, group: str, instance: str, *, decrement: bool = True) -> tuple[str, str] | None:
    """None, or the refusal."""
    call = stack.client("autoscaling").detach_instances
    try:
        call(AutoScalingGroupName=group, InstanceIds=[instance], ShouldDecrementDesiredCapacity=decrement)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["Error"]["Message"]
    return None


@proves("moto.autoscaling.detach")
def test_detaching_a_non_member_is_refused_in_the_words_of_aws(moto: LocalStack, bare: Victim) -> None:
    victim = build_victims(moto)[0]
    refused = detach(moto, victim.auto_scaling_group, bare.instance)
    assert refused == ("ValidationError", f"The instance {bare.instance} is not part of Auto Scaling group {victim.auto_scaling_group}.")


@proves("moto.autoscaling.detach")
def test_detaching_below_the_minimum_size_is_refused_in_the_words_of_aws(moto: LocalStack) -> None:
    victim = build_victims(moto)[0]
    name = victim.auto_scaling_group
    moto.client("autoscaling").update_auto_scaling_group(AutoScalingGroupName=name, MinSize=1)
    sizes = f"AutoScalingGroup {name} has min-size=1, max-size=3, and desired-size=1."
    expected = f"{sizes} To detach 1 instance, please update the AutoScalingGroup sizes appropriately."
    assert detach(moto, name, victim.instance, decrement=True) == ("ValidationError", expected)


@proves("moto.autoscaling.detach")
def test_a_detached_instance_leaves_the_groups_targets_and_may_return(moto: LocalStack) -> None:
    victim, scaling = build_victims(moto)[0], moto.client("autoscaling")
    name = victim.auto_scaling_group
    assert detach(moto, name, victim.instance, decrement=True) is None
    assert scaling_of(moto, victim) is None
    assert scaling_sizes(moto, name) == {"MinSize": 0, "DesiredCapacity": 0, "MaxSize": 3, "Members": []}
    assert registered_ports(moto, victim) == [8080]
    scaling.attach_instances(AutoScalingGroupName=name, InstanceIds=[victim.instance])
    assert scaling_of(moto, victim)["LifecycleState"] == "InService"
    assert registered_ports(moto, victim) == [80, 8080]


def test_a_group_that_keeps_its_capacity_replaces_a_detached_instance(moto: LocalStack) -> None:
    victim = build_victims(moto)[0]
    assert detach(moto, victim.auto_scaling_group, victim.instance, decrement=False) is None
    after = scaling_sizes(moto, victim.auto_scaling_group)
    assert after["DesiredCapacity"] == 1 and len(after["Members"]) == 1 and victim.instance not in after["Members"]


@proves("moto.autoscaling.detach", "moto.autoscaling.registration")
def test_a_detaching_instance_is_not_registered_again(slow_moto: LocalStack, slow_seconds: float) -> None:
    victim, other = build_victims(slow_moto, 2)
    name = victim.auto_scaling_group
    assert detach(slow_moto, name, victim.instance, decrement=True) is None
    assert scaling_of(slow_moto, victim)["LifecycleState"] == "Detaching"
    assert detach(slow_moto, name, victim.instance, decrement=True)[1].endswith("is not in InService or Standby.")
    assert detach(slow_moto, name, other.instance, decrement=True) is None
    assert not [line for line in targets_of(slow_moto, victim) if ":80 healthy" in line and "-instance" in line]
    time.sleep(slow_seconds)
    assert scaling_of(slow_moto, victim) is None


@proves("moto.autoscaling.attach")
def test_attaching_a_member_or_beyond_the_maximum_is_refused(moto: LocalStack, bare: Victim) -> None:
    victim, scaling = build_victims(moto)[0], moto.client("autoscaling")
    name = victim.auto_scaling_group
    member = refusal(scaling.attach_instances, AutoScalingGroupName=name, InstanceIds=[victim.instance])
    assert member[1] == f"The instance {victim.instance} is already part of AutoScalingGroup:{name}"
    scaling.update_auto_scaling_group(AutoScalingGroupName=name, MaxSize=1)
    full = refusal(scaling.attach_instances, AutoScalingGroupName=name, InstanceIds=[bare.instance])
    assert full[0] == "ValidationError" and "max-size=1" in full[1]
