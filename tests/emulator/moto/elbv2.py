"""Elastic Load Balancing: target groups."""

from __future__ import annotations

import time
from typing import Any

from moto.elbv2.models import ELBv2Backend, FakeHealthStatus, FakeTargetGroup

from emulator.patches import patch
from emulator.settings import seconds

Target = tuple[str, int]
NOT_REGISTERED = ("unused", "Target.NotRegistered", "Target is not registered to the target group")
DRAINING = ("draining", "Target.DeregistrationInProgress", "Target deregistration is in progress")


def key(group: FakeTargetGroup, target: dict[str, Any]) -> Target:
    return target["Id"], int(target.get("Port") or group.port)


@patch("elasticloadbalancing/latest/APIReference/API_DeregisterTargets.html")
def ports() -> None:
    """A target is an id and a port: one instance may be registered on several ports, and leaves only the port that is named.

    moto keeps one port per instance. Without a port, the call means the group's own; for a target that is not registered,
    it succeeds and does nothing.
    """
    upstream_register = FakeTargetGroup.register

    def register(self: Any, targets: list[dict[str, Any]]) -> None:
        kept = dict(self.targets)
        upstream_register(self, targets)  # checks that the instances run
        self.targets = kept | {key(self, target): {"Id": target["Id"], "Port": key(self, target)[1]} for target in targets}
        for target in targets:
            self.deregistered_targets.pop(key(self, target), None)

    def leave(self: Any, gone: Target) -> None:
        if target := self.targets.pop(gone, None):
            self.deregistered_targets[gone] = {**target, "Left": time.time()}

    def deregister(self: Any, targets: list[dict[str, Any]]) -> None:
        for target in targets:
            leave(self, key(self, target))

    def deregister_terminated_instances(self: Any, instance_ids: list[str]) -> None:
        for gone in [registered for registered in self.targets if registered[0] in instance_ids]:
            leave(self, gone)

    FakeTargetGroup.register = register
    FakeTargetGroup.deregister = deregister
    FakeTargetGroup.deregister_terminated_instances = deregister_terminated_instances


@patch("elasticloadbalancing/latest/APIReference/API_TargetHealth.html", upstream=("getmoto/moto#7692", "getmoto/moto#7773"))
def health() -> None:
    """`DescribeTargetHealth` shows each target with its port: `draining` for a while after it was deregistered, then `unused`
    to those who ask for it by name.

    moto, since 5.0.10, shows a deregistered target as `unused` at once, and knows no ports (see `ports`).
    """
    upstream = ELBv2Backend.describe_target_health

    def status(group: FakeTargetGroup, target: Target, backend: Any) -> FakeHealthStatus:
        left = group.deregistered_targets.get(target, {}).get("Left", 0.0)
        if target not in group.targets:
            why = DRAINING if time.time() - left < seconds("MOTO_DRAIN_SECONDS") else NOT_REGISTERED
            return FakeHealthStatus(*target, group.health_check_port, *why)
        instance = backend.get_instance_by_id(target[0])
        if instance and instance.state == "stopped":
            return FakeHealthStatus(*target, group.health_check_port, "unused", "Target.InvalidState", "Target is in the stopped state")
        return FakeHealthStatus(*target, group.health_check_port, "healthy")

    def describe_target_health(self: Any, target_group_arn: str, targets: list[dict[str, Any]]) -> list[FakeHealthStatus]:
        group = self.target_groups.get(target_group_arn)
        if group is None:
            return upstream(self, target_group_arn, targets)
        asked = [key(group, target) for target in targets]
        known = [status(group, target, self.ec2_backend) for target in asked or [*group.targets, *group.deregistered_targets]]
        return known if asked else [one for one in known if one.reason != "Target.NotRegistered"]

    ELBv2Backend.describe_target_health = describe_target_health
