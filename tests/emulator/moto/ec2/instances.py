"""EC2: instances and their attributes."""

from __future__ import annotations

import re
from typing import Any, Callable

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_block_store import VolumeAttachment
from moto.ec2.models.instances import InstanceBackend
from moto.ec2.responses import EC2Response
from moto.ec2.utils import filter_dict_attribute_mapping

from emulator.patches import patch

INSTANCE_ID = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")
ATTRIBUTES = (
    "BlockDeviceMappings", "DisableApiStop", "DisableApiTermination", "EbsOptimized", "EnaSupport", "Groups",
    "InstanceInitiatedShutdownBehavior", "InstanceType", "Kernel", "Ramdisk", "SourceDestCheck", "SriovNetSupport", "UserData",
)  # fmt: skip


@patch("AWSEC2/latest/APIReference/errors-overview.html")
def malformed_ids() -> None:
    """A malformed instance id is `InvalidInstanceID.Malformed`, an unknown one `InvalidInstanceID.NotFound`.

    moto answers both with the second.
    """

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


@patch("AWSEC2/latest/APIReference/API_DescribeInstances.html")
def filter_by_profile() -> None:
    """`DescribeInstances` filters by `iam-instance-profile.arn`.

    moto does not know the filter.
    """
    filter_dict_attribute_mapping["iam-instance-profile.arn"] = "iam_instance_profile.Arn"


@patch("AWSEC2/latest/APIReference/API_ModifyInstanceAttribute.html")
def shutdown_behavior() -> None:
    """`ModifyInstanceAttribute` sets `InstanceInitiatedShutdownBehavior`, and nothing else changes.

    moto loses the attribute, takes the call for one that sets no security groups, and removes the instance's groups.
    """
    upstream = EC2Response.modify_instance_attribute

    def modify_instance_attribute(self: Any) -> Any:
        behavior = self._get_param("InstanceInitiatedShutdownBehavior.Value")
        if behavior is None:
            return upstream(self)
        self.error_on_dryrun()
        self.ec2_backend.get_instance(self._get_param("InstanceId")).instance_initiated_shutdown_behavior = behavior
        return EmptyResult()

    EC2Response.modify_instance_attribute = modify_instance_attribute


@patch("AWSEC2/latest/APIReference/API_ModifyInstanceAttribute.html")
def one_attribute_per_call() -> None:
    """`ModifyInstanceAttribute` changes one attribute per call, and refuses a call that names several.

    moto changes the first attribute and ignores the others.
    """
    upstream = EC2Response.modify_instance_attribute

    def modify_instance_attribute(self: Any) -> Any:
        if sum(self._get_param(name) is not None for name in ATTRIBUTES) > 1:
            raise EC2ClientError("InvalidParameterCombination", "Fields for multiple attribute types specified")
        return upstream(self)

    EC2Response.modify_instance_attribute = modify_instance_attribute


@patch("AWSEC2/latest/APIReference/API_DescribeInstanceAttribute.html")
def block_device_mapping() -> None:
    """`DescribeInstanceAttribute` with `blockDeviceMapping` lists each device and its `DeleteOnTermination`.

    moto answers with an empty list.
    """
    upstream = EC2Response.describe_instance_attribute

    def describe_instance_attribute(self: Any) -> Any:
        if self._get_param("Attribute") != "blockDeviceMapping":
            return upstream(self)
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        return ActionResult({"InstanceId": instance.id, "BlockDeviceMappings": instance.block_device_mappings})

    EC2Response.describe_instance_attribute = describe_instance_attribute


@patch("AWSEC2/latest/APIReference/API_VolumeAttachment.html")
def volume_attachments() -> None:
    """`DescribeVolumes` shows each attachment's current `DeleteOnTermination`.

    moto leaves it out.
    """

    def delete_on_termination(self: Any) -> bool:
        mapping = self.instance.block_device_mapping.get(self.device)
        return bool(mapping and mapping.delete_on_termination)

    VolumeAttachment.delete_on_termination = property(delete_on_termination)
