"""Elastic Load Balancing: target groups."""

from __future__ import annotations

import time

import pytest

from support.stack import LocalStack
from support.victim import build_victims, registered_ports, targets_of

proves = pytest.mark.proves

@proves("moto.elbv2.ports")
def test_a_target_on_two_ports_leaves_only_the_port_that_is_named(moto: LocalStack) -> None:
    victim, elb = build_victims(moto)[0], moto.client("elbv2")
    group = victim.instance_target_group
    assert registered_ports(moto, victim) == [80, 8080]
    elb.deregister_targets(TargetGroupArn=group, Targets=[{"Id": victim.instance, "Port": 8080}])
    assert registered_ports(moto, victim) == [80]
    elb.deregister_targets(TargetGroupArn=group, Targets=[{"Id": victim.instance}])
    assert registered_ports(moto, victim) == []


@proves("moto.elbv2.ports")
def test_deregistering_without_the_port_succeeds_and_changes_nothing(moto: LocalStack) -> None:
    victim, elb = build_victims(moto)[0], moto.client("elbv2")
    group = victim.instance_target_group
    elb.deregister_targets(TargetGroupArn=group, Targets=[{"Id": victim.instance, "Port": 80}])
    elb.deregister_targets(TargetGroupArn=group, Targets=[{"Id": victim.instance}])
    assert registered_ports(moto, victim) == [8080]


@proves("moto.elbv2.health")
def test_a_deregistered_target_drains_before_it_is_unused(slow_moto: LocalStack, slow_seconds: float) -> None:
    victim, elb = build_victims(slow_moto)[0], slow_moto.client("elbv2")
    target = {"Id": victim.instance, "Port": 8080}
    elb.deregister_targets(TargetGroupArn=victim.instance_target_group, Targets=[target])
    assert ":8080 draining" in " ".join(targets_of(slow_moto, victim))
    time.sleep(slow_seconds)
    assert ":8080" not in " ".join(targets_of(slow_moto, victim))
    asked = elb.describe_target_health(TargetGroupArn=victim.instance_target_group, Targets=[target])["TargetHealthDescriptions"][0]
    assert (asked["TargetHealth"]["State"], asked["TargetHealth"]["Reason"]) == ("unused", "Target.NotRegistered")
