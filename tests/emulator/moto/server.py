"""moto's server, with the gaps mended that containment would fall into.

Each `mend_…` replaces one behaviour of moto 5.2.5 with the one that AWS documents, and has a test of that
name in tests/emulator/tests/test_ec2.py; those of other services and of single matters are in files of their own. In front of
moto stands a door that records calls and injects faults.

    PYTHONPATH=tests python -m emulator.moto.server -H 127.0.0.1 -p 5000

MOTO_CALL_RECORD               file to append one line of JSON per call to
MOTO_CLOUDTRAIL_EVENTS         file of events that LookupEvents answers from, see cloudtrail.py
MOTO_FAULTS                    file of faults to inject, see faults.py
MOTO_INVOCATIONS               file of the functions' invocations, see invocations.py
MOTO_SNAPSHOT_PENDING_SECONDS  how long a snapshot stays `pending` (0)
MOTO_DETACH_SECONDS            how long an instance stays `Detaching` (0)
MOTO_SSM_HOSTS                 file of the hosts that Systems Manager manages, see ssm.py
MOTO_DRAIN_SECONDS             how long a deregistered target stays `draining` (0)
"""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import socket
import sys
import time
import traceback
from typing import Any, Callable, Iterable
from urllib.parse import parse_qsl

from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import ASG_NAME_TAG, AutoScalingBackend, DetachInstanceActivity, FakeAutoScalingGroup
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.ec2 import ec2_backends
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_block_store import EBSBackend, Snapshot, VolumeAttachment
from moto.ec2.models.elastic_network_interfaces import NetworkInterface, NetworkInterfaceBackend
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.responses import EC2Response
from moto.ec2.utils import filter_dict_attribute_mapping
from moto.elbv2.models import ELBv2Backend, FakeHealthStatus, FakeTargetGroup
from moto.iam import models as iam
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

from emulator.call_record import BROKEN, CallRecord, caller, error_code, signed_by
from emulator.faults import Fault, FaultFile
from emulator.invocations import Invocations
from emulator.leash import end_with_starter
from emulator.moto.cloudtrail import MENDS as CLOUDTRAIL_MENDS
from emulator.moto.console import MENDS as CONSOLE_MENDS
from emulator.moto.ebs import MENDS as EBS_MENDS
from emulator.moto.ebs import action_in
from emulator.moto.flow_logs import MENDS as FLOW_LOG_MENDS
from emulator.moto.images import MENDS as IMAGE_MENDS
from emulator.moto.snapshots import MENDS as SNAPSHOT_MENDS
from emulator.moto.ssm import MENDS as SSM_MENDS
from emulator.moto.ssm_sessions import MENDS as SESSION_MENDS
from emulator.moto.sts import MENDS as STS_MENDS
from emulator.moto.sts import session_of
from emulator.moto.vpc_endpoints import MENDS as ENDPOINT_MENDS


def seconds(name: str) -> float:
    return float(os.environ.get(name, "0"))


# --- The door: every call passes here, before and after moto ---------------------------------------------------


class Door:
    """A WSGI application that records each call, and answers some with an error instead of moto."""

    def __init__(self, moto: Any, record: CallRecord, faults: FaultFile, invocations: Invocations) -> None:
        self._moto, self._record, self._faults, self._invocations = moto, record, faults, invocations

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "HTTP_AUTHORIZATION" not in environ:
            return self._moto(environ, start_response)  # moto's own pages and health checks
        started, request = time.time(), take_body(environ)
        invocation = self._invocations.of(environ.get("HTTP_X_AMZN_TRACE_ID"))
        call = {**describe_call(environ, request), "Trace": invocation.Trace if invocation else None}
        fault = self._faults.find(call["Service"], call["Action"], request, invocation)
        status, headers, body = self._answer(environ, call["Service"], fault)
        broken = fault is not None and fault.break_it(invocation)
        code = BROKEN if broken else error_code(int(status.split()[0]), body)
        self._record.append({**call, "Error": code, "Injected": fault is not None, "Start": started, "End": time.time()})
        if broken:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("as the fault file says")
        start_response(status, headers)
        return [body]

    def _answer(self, environ: dict[str, Any], service: str, fault: Fault | None) -> tuple[str, Any, bytes]:
        if fault and not fault.Executed:
            time.sleep(fault.DelaySeconds)
        answer = "503 Fault", [], b""
        if fault is None or fault.Executed or not (fault.Code or fault.Breaks):
            try:
                answer = collect(self._moto, environ)
            except Exception as gap:
                fault = not_played(gap)
        if fault and fault.Executed:
            time.sleep(fault.DelaySeconds)
        if fault is None or fault.Code is None:
            return answer
        status, content_type, body = fault.answer(service)
        return f"{status} Fault", [("Content-Type", content_type), ("Content-Length", str(len(body)))], body


def not_played(gap: Exception) -> Fault:
    """What moto cannot do is said so at once, with a code that no SDK retries; moto's own answer is a bare 500."""
    traceback.print_exc()
    return Fault("*", "*", Code="NotPlayedByLocalStack", Message=f"{type(gap).__name__}: {gap}")


def take_body(environ: dict[str, Any]) -> str:
    """The request's body, which stays readable for moto."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return body.decode("utf-8", "replace")


def describe_call(environ: dict[str, Any], request: str) -> dict[str, Any]:
    """Who called what, from the signature's scope and the request itself."""
    key, region, scope = signed_by(environ["HTTP_AUTHORIZATION"])
    parameters = dict(parse_qsl(request)) if not request.startswith("{") else {}
    action = parameters.pop("Action", "") or environ.get("HTTP_X_AMZ_TARGET", "").rsplit(".", 1)[-1] or action_in(environ["PATH_INFO"])
    version = parameters.pop("Version", "")
    agent = {"user-agent": environ.get("HTTP_USER_AGENT", ""), "x-amz-user-agent": environ.get("HTTP_X_AMZ_USER_AGENT", "")}
    return {
        "Service": client_name(scope, version),
        "Action": action,
        "Account": iam.get_account_id_from(key),
        "Region": region,
        "Caller": caller(agent),
        "Session": session_of(key),
        "UserAgent": agent["user-agent"],
        "Parameters": {name: value[:200] for name, value in parameters.items()},
    }


def client_name(scope: str, version: str) -> str:
    """boto3's name for the service: both generations of load balancer sign for the same one."""
    if scope == "elasticloadbalancing":
        return "elb" if version == "2012-06-01" else "elbv2"
    return scope


def collect(application: Any, environ: dict[str, Any]) -> tuple[str, Any, bytes]:
    """One whole answer of a WSGI application."""
    head: list[Any] = []
    body = application(environ, lambda status, headers, _=None: head.extend((status, headers)))
    try:
        return head[0] if head else "200 OK", head[1] if head else [], b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


# --- EC2: instances and their attributes -----------------------------------------------------------------------

INSTANCE_ID = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")


def mend_malformed_instance_ids() -> None:
    """AWS: `InvalidInstanceID.Malformed` for an id that cannot be one, apart from `InvalidInstanceID.NotFound`."""

    def guard(lookup: str, ids_of: Callable[[Any], list[str]]) -> None:
        upstream = getattr(InstanceBackend, lookup)

        def checked(self: Any, ids: Any, *args: Any, **kwargs: Any) -> Any:
            for instance_id in ids_of(ids):
                if not INSTANCE_ID.fullmatch(instance_id):
                    raise EC2ClientError("InvalidInstanceID.Malformed", f'Invalid id: "{instance_id}"')
            return upstream(self, ids, *args, **kwargs)

        setattr(InstanceBackend, lookup, checked)

    guard("get_instance", lambda one: [one])
    guard("get_multi_instances_by_id", list)
    guard("get_reservations_by_instance_ids", list)


def mend_filter_by_profile() -> None:
    """AWS: DescribeInstances filters by `iam-instance-profile.arn`; moto knows no such filter."""
    filter_dict_attribute_mapping["iam-instance-profile.arn"] = "iam_instance_profile.Arn"


def mend_modify_instance_attribute() -> None:
    """AWS: InstanceInitiatedShutdownBehavior is set and read back, and a call carries exactly one attribute.

    moto loses that attribute, and then takes the call for one that sets no security groups and clears them.
    The API reference of ModifyInstanceAttribute: "You can specify only one attribute at a time".
    """
    upstream = EC2Response.modify_instance_attribute
    attributes = (
        "BlockDeviceMappings", "DisableApiStop", "DisableApiTermination", "EbsOptimized", "EnaSupport", "Groups",
        "InstanceInitiatedShutdownBehavior", "InstanceType", "Kernel", "Ramdisk", "SourceDestCheck", "SriovNetSupport", "UserData",
    )  # fmt: skip

    def modify_instance_attribute(self: Any) -> Any:
        given = [name for name in attributes if self._get_param(name) is not None]
        if len(given) > 1:
            raise EC2ClientError("InvalidParameterCombination", "Fields for multiple attribute types specified")
        behavior = self._get_param("InstanceInitiatedShutdownBehavior.Value")
        if behavior is None:
            return upstream(self)
        self.error_on_dryrun()
        self.ec2_backend.get_instance(self._get_param("InstanceId")).instance_initiated_shutdown_behavior = behavior
        return EmptyResult()

    EC2Response.modify_instance_attribute = modify_instance_attribute


def mend_describe_block_device_mapping_attribute() -> None:
    """AWS: DescribeInstanceAttribute with `blockDeviceMapping` lists each device and its DeleteOnTermination."""
    upstream = EC2Response.describe_instance_attribute

    def describe_instance_attribute(self: Any) -> Any:
        if self._get_param("Attribute") != "blockDeviceMapping":
            return upstream(self)
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        return ActionResult({"InstanceId": instance.id, "BlockDeviceMappings": instance.block_device_mappings})

    EC2Response.describe_instance_attribute = describe_instance_attribute


def mend_volume_attachments() -> None:
    """AWS: DescribeVolumes shows each attachment's DeleteOnTermination, as the instance's mapping has it now."""

    def delete_on_termination(self: Any) -> bool:
        mapping = self.instance.block_device_mapping.get(self.device)
        return bool(mapping and mapping.delete_on_termination)

    VolumeAttachment.delete_on_termination = property(delete_on_termination)


# --- EC2: network interfaces -----------------------------------------------------------------------------------


def mend_groups_of_interfaces() -> None:
    """AWS: security groups belong to each interface; an instance's groups are those of its interface at index 0.

    moto keeps a second set on the instance and shows every interface with the union of both, so that a change
    of an interface's groups never takes the old ones away.
    """
    NetworkInterface.group_set = property(lambda self: self._group_set)

    def groups(self: Any) -> list[Any]:
        primary = getattr(self, "nics", {}).get(0)
        return primary._group_set if primary else self._launch_groups

    def set_groups(self: Any, groups: list[Any]) -> None:
        self._launch_groups = groups
        if primary := getattr(self, "nics", {}).get(0):
            primary._group_set = groups

    Instance.security_groups = property(groups, set_groups)


def mend_groups_of_another_vpc() -> None:
    """AWS: an interface takes only groups of its own VPC, at least one, and all of them must exist.

    moto takes any group, and stores "no group" for one that does not exist.
    """
    upstream = NetworkInterfaceBackend.modify_network_interface_attribute

    def modify_network_interface_attribute(self: Any, eni_id: str, group_ids: list[str], *args: Any, **kwargs: Any) -> None:
        vpc = self.get_network_interface(eni_id).vpc_id
        for group_id in group_ids:
            group = self.get_security_group_from_id(group_id)
            if group is None:
                raise EC2ClientError("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
            if group.vpc_id != vpc:
                raise EC2ClientError("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist in VPC '{vpc}'")
        upstream(self, eni_id, group_ids, *args, **kwargs)

    NetworkInterfaceBackend.modify_network_interface_attribute = modify_network_interface_attribute


def mend_interface_attachment_attribute() -> None:
    """AWS: ModifyNetworkInterfaceAttribute sets Attachment.DeleteOnTermination; the attachment's id must match."""
    upstream = EC2Response.modify_network_interface_attribute

    def modify_network_interface_attribute(self: Any) -> Any:
        attachment = self._get_param("Attachment")
        if not attachment:
            return upstream(self)
        interface = self.ec2_backend.get_network_interface(self._get_param("NetworkInterfaceId"))
        if attachment.get("AttachmentId") != interface.attachment_id:
            raise EC2ClientError("InvalidAttachmentID.NotFound", f"The attachment ID '{attachment.get('AttachmentId')}' does not exist")
        self.error_on_dryrun()
        interface.delete_on_termination = self._get_bool_param("Attachment.DeleteOnTermination")
        return EmptyResult()

    EC2Response.modify_network_interface_attribute = modify_network_interface_attribute


# --- EC2: snapshots --------------------------------------------------------------------------------------------


def mend_snapshot_state() -> None:
    """AWS: a snapshot is `pending` with a progress below 100% until its blocks are copied, then `completed`."""

    def state(self: Any) -> str:
        age = (utcnow() - self.start_time).total_seconds()
        return "completed" if age >= seconds("MOTO_SNAPSHOT_PENDING_SECONDS") else "pending"

    Snapshot.status = property(state, lambda self, _: None)
    Snapshot.progress = property(lambda self: "100%" if self.status == "completed" else "42%")


def mend_snapshot_key() -> None:
    """AWS: the snapshot of an encrypted volume is encrypted with the volume's key, and says so."""
    upstream = EBSBackend.create_snapshot

    def create_snapshot(self: Any, *args: Any, **kwargs: Any) -> Any:
        snapshot = upstream(self, *args, **kwargs)
        snapshot.kms_key_id = snapshot.volume.kms_key_id
        return snapshot

    EBSBackend.create_snapshot = create_snapshot


def mend_tags_from_source() -> None:
    """AWS: CreateSnapshots with CopyTagsFromSource=volume copies each volume's tags onto its snapshot."""
    upstream = EC2Response.create_snapshots

    def create_snapshots(self: Any) -> Any:
        answer = upstream(self)
        if self._get_param("CopyTagsFromSource") == "volume":
            for snapshot in answer.result["Snapshots"]:
                own = {tag["key"] for tag in snapshot.get_tags()}
                copied = {tag["key"]: tag["value"] for tag in snapshot.volume.get_tags() if not tag["key"].startswith("aws:")}
                snapshot.add_tags({key: value for key, value in copied.items() if key not in own})
        return answer

    EC2Response.create_snapshots = create_snapshots


def mend_copy_snapshot() -> None:
    """AWS: only a `completed` snapshot can be copied; `Encrypted` encrypts the copy, by default with the EBS key.

    The API reference of Snapshot: "Snapshots created by a copy snapshot operation have an arbitrary volume ID
    that you should not use for any purpose."
    """
    upstream = EC2Response.copy_snapshot

    def copy_snapshot(self: Any) -> Any:
        source_id, region = self._get_param("SourceSnapshotId"), self._get_param("SourceRegion")
        refuse_pending(self, source_id, region)
        answer = upstream(self)
        copy = self.ec2_backend.snapshots[answer.result["SnapshotId"]]
        copy.is_copy = True
        copy.encrypted = copy.encrypted or bool(self._get_bool_param("Encrypted"))
        if copy.encrypted and not copy.kms_key_id:
            copy.kms_key_id = self.ec2_backend.default_kms_key_id or self.ec2_backend._create_default_encryption_key()
        return answer

    def refuse_pending(self: Any, source_id: str, region: str) -> None:
        source = ec2_backends[self.current_account][region].snapshots.get(source_id)
        if source and source.status != "completed":
            raise EC2ClientError("IncorrectState", f"The snapshot '{source_id}' is in the '{source.status}' state.")

    upstream_filter = Snapshot.get_filter_value
    Snapshot.volume_id = property(lambda self: "vol-ffffffff" if getattr(self, "is_copy", False) else self.volume.id)
    Snapshot.get_filter_value = lambda self, name, *args: self.volume_id if name == "volume-id" else upstream_filter(self, name, *args)
    EC2Response.copy_snapshot = copy_snapshot


# --- Load balancers --------------------------------------------------------------------------------------------

Target = tuple[str, int]
NOT_REGISTERED = ("unused", "Target.NotRegistered", "Target is not registered to the target group")
DRAINING = ("draining", "Target.DeregistrationInProgress", "Target deregistration is in progress")


def mend_targets_on_several_ports() -> None:
    """AWS: a target is an id and a port, so that one instance can be registered on several ports.

    The API reference of DeregisterTargets: "If you specified a port override when you registered a target, you
    must specify both the target ID and the port when you deregister it" and "If the specified target does not
    exist, the action returns successfully." A target that leaves is `draining` for a while, then not registered.
    """

    def key(group: Any, target: dict[str, Any]) -> Target:
        return target["Id"], int(target.get("Port") or group.port)

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
    mend_target_health(key)


def mend_target_health(key: Callable[[Any, dict[str, Any]], Target]) -> None:
    """AWS: DescribeTargetHealth lists registered and draining targets, each with its port; an asked-for target that is not there is `unused`."""
    upstream = ELBv2Backend.describe_target_health

    def health(group: Any, target: Target, backend: Any) -> FakeHealthStatus:
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
        known = [health(group, target, self.ec2_backend) for target in asked or [*group.targets, *group.deregistered_targets]]
        return known if asked else [status for status in known if status.reason != "Target.NotRegistered"]

    ELBv2Backend.describe_target_health = describe_target_health


# --- Auto Scaling ----------------------------------------------------------------------------------------------


def mend_detach_instances() -> None:
    """AWS: DetachInstances refuses what it cannot do with ValidationError, and takes effect after `Detaching`.

    The texts are AWS's own, which a caller must tell apart because the code is always the same. A detached
    instance also leaves the target groups of its group, which moto forgets.
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
    """Lets go of the instances whose time in `Detaching` is over."""
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


def mend_registration_by_groups() -> None:
    """AWS: a group registers an instance with its target groups when the instance joins, not at each later change.

    moto registers every member again whenever the capacity changes, even one that is `Detaching`.
    """

    def update_attached_target_groups(self: Any, group_name: str) -> None:
        group = self.autoscaling_groups[group_name]
        for state in group.active_instances():
            done = state.__dict__.setdefault("registered_with", set())
            for arn in set(group.target_group_arns) - done:
                self.elbv2_backend.register_targets(arn, [{"Id": state.instance_id}])
                done.add(arn)

    AutoScalingBackend.update_attached_target_groups = update_attached_target_groups


def mend_attach_instances() -> None:
    """AWS: AttachInstances raises the desired capacity by the number attached, and refuses members and a full group."""
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


MENDS = (
    mend_malformed_instance_ids, mend_filter_by_profile, mend_modify_instance_attribute, mend_describe_block_device_mapping_attribute,
    mend_volume_attachments, mend_groups_of_interfaces, mend_groups_of_another_vpc, mend_interface_attachment_attribute,
    mend_snapshot_state, mend_snapshot_key, mend_tags_from_source, mend_copy_snapshot, mend_targets_on_several_ports,
    mend_detach_instances, mend_registration_by_groups, mend_attach_instances, *STS_MENDS, *SSM_MENDS, *SESSION_MENDS,
    *ENDPOINT_MENDS, *CLOUDTRAIL_MENDS, *CONSOLE_MENDS, *EBS_MENDS, *FLOW_LOG_MENDS, *IMAGE_MENDS, *SNAPSHOT_MENDS,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-H", "--host", default="127.0.0.1")
    parser.add_argument("-p", "--port", type=int, default=5000)
    arguments = parser.parse_args()
    end_with_starter()
    for mend in MENDS:
        mend()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    record, faults = CallRecord(os.environ.get("MOTO_CALL_RECORD")), FaultFile(os.environ.get("MOTO_FAULTS"))
    door = Door(DomainDispatcherApplication(create_backend_app), record, faults, Invocations(os.environ.get("MOTO_INVOCATIONS")))
    run_simple(arguments.host, arguments.port, door, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main()
