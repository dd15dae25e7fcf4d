"""Auto Scaling: instances that leave and join a group."""

from __future__ import annotations

import time
from typing import Any

from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import ASG_NAME_TAG, AutoScalingBackend, DetachInstanceActivity, FakeAutoScalingGroup
from moto.autoscaling.responses import AutoScalingResponse

from emulator.patches import patch
from emulator.settings import seconds


@patch(
    "autoscaling/ec2/userguide/ec2-auto-scaling-detach-attach-instances.html", "autoscaling/ec2/APIReference/API_DetachInstances.html"
)
def detach() -> None:
    """`DetachInstances` refuses an instance that is not in service and a group at its minimum; a detached instance is
    `Detaching` for a while, and leaves the group's target groups.

    moto detaches everything at once, and leaves the target groups as they are. All refusals have the same code, so the
    messages are AWS's own, and callers tell them apart by their text.
    """

    def detach_instances(self: Any, group_name: str, instance_ids: list[str], should_decrement: bool) -> list[Any]:
        group = group_named(self, group_name)
        refuse_detach(group, instance_ids, should_decrement)
        leaving = [state for state in group.instance_states if state.instance_id in instance_ids]
        for state in leaving:
            state.lifecycle_state, state.detached_at = "Detaching", time.time()
            leave_target_groups(self, group, state.instance_id)
        activities = [DetachInstanceActivity(state.instance) for state in leaving]
        finish_detaching(self)
        group.set_desired_capacity(group.desired_capacity - (len(leaving) if should_decrement else 0))
        return activities

    AutoScalingBackend.detach_instances = detach_instances
    upstream = AutoScalingResponse.autoscaling_backend.fget
    AutoScalingResponse.autoscaling_backend = property(lambda self: finish_detaching(upstream(self)))


# The messages are AWS's, as quoted in reproio/ecs_deploy#56 and #84 and in spacelift-io/terraform-aws-spacelift-workerpool-on-ec2#85.
def refuse_detach(group: FakeAutoScalingGroup, instance_ids: list[str], should_decrement: bool) -> None:
    members = {state.instance_id: state.lifecycle_state for state in group.instance_states}
    for instance_id in instance_ids:
        if instance_id not in members:
            raise ValidationError(f"The instance {instance_id} is not part of Auto Scaling group {group.name}.")
        if members[instance_id] not in ("InService", "Standby"):
            raise ValidationError(f"The instance {instance_id} is not in InService or Standby.")
    if should_decrement and group.desired_capacity - len(instance_ids) < group.min_size:
        raise wrong_sizes(group, "detach", len(instance_ids))


def wrong_sizes(group: FakeAutoScalingGroup, verb: str, count: int) -> ValidationError:
    sizes = f"min-size={group.min_size}, max-size={group.max_size}, and desired-size={group.desired_capacity}"
    what = f"{count} instance{'s' if count > 1 else ''}"
    return ValidationError(f"AutoScalingGroup {group.name} has {sizes}. To {verb} {what}, please update the AutoScalingGroup sizes appropriately.")


def group_named(backend: AutoScalingBackend, name: str) -> FakeAutoScalingGroup:
    if name not in backend.autoscaling_groups:
        raise ValidationError(f"AutoScalingGroup name not found - AutoScalingGroup {name} not found")
    return backend.autoscaling_groups[name]


def leave_target_groups(backend: AutoScalingBackend, group: FakeAutoScalingGroup, instance_id: str) -> None:
    for arn in group.target_group_arns:
        target_group = backend.elbv2_backend.target_groups.get(arn)
        if target_group:
            target_group.deregister([{"Id": instance_id, "Port": target_group.port}])


def finish_detaching(backend: AutoScalingBackend) -> AutoScalingBackend:
    """Removes the instances whose time in `Detaching` is over."""
    for group in backend.autoscaling_groups.values():
        over = [state for state in group.instance_states if detaching_is_over(state)]
        group.instance_states = [state for state in group.instance_states if state not in over]
        for state in over:
            del state.instance.autoscaling_group  # or a later attach to another group would keep this one
            backend.ec2_backend.delete_tags([state.instance_id], {ASG_NAME_TAG: group.name})
    return backend


def detaching_is_over(state: Any) -> bool:
    since = getattr(state, "detached_at", None)
    return since is not None and time.time() - since >= seconds("MOTO_DETACH_SECONDS")


@patch("autoscaling/ec2/userguide/attach-load-balancer-asg.html")
def registration() -> None:
    """A group registers an instance with its target groups once, when the instance joins.

    moto registers all members again at each change of the capacity, even one that is `Detaching`.
    """

    def update_attached_target_groups(self: Any, group_name: str) -> None:
        group = self.autoscaling_groups[group_name]
        for state in group.active_instances():
            done = state.__dict__.setdefault("registered_with", set())
            for arn in set(group.target_group_arns) - done:
                self.elbv2_backend.register_targets(arn, [{"Id": state.instance_id}])
                done.add(arn)

    AutoScalingBackend.update_attached_target_groups = update_attached_target_groups


@patch("autoscaling/ec2/APIReference/API_AttachInstances.html")
def attach() -> None:
    """`AttachInstances` raises the desired capacity by the number of instances, and fails at the maximum and for a member.

    moto attaches every instance.
    """
    upstream = AutoScalingBackend.attach_instances

    def attach_instances(self: Any, group_name: str, instance_ids: list[str]) -> None:
        group = group_named(self, group_name)
        for member in self.describe_auto_scaling_instances(instance_ids):
            raise ValidationError(f"The instance {member.instance_id} is already part of AutoScalingGroup:{member.auto_scaling_group_name}")
        desired = group.desired_capacity + len(instance_ids)
        if desired > group.max_size:
            raise wrong_sizes(group, "attach", len(instance_ids))
        upstream(self, group_name, instance_ids)
        group.desired_capacity = desired

    AutoScalingBackend.attach_instances = attach_instances
