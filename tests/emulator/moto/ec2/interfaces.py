"""EC2: network interfaces."""

from __future__ import annotations

from typing import Any

from moto.core.responses import EmptyResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_network_interfaces import NetworkInterface, NetworkInterfaceBackend
from moto.ec2.models.instances import Instance
from moto.ec2.responses import EC2Response

from emulator.patches import patch


@patch("AWSEC2/latest/UserGuide/changing-security-group.html")
def groups_of_each() -> None:
    """Security groups belong to an interface, and an instance shows those of its primary interface.

    moto keeps a second set on the instance and shows the union of both on every interface, so that a change of an interface's
    groups never takes the old ones away.
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


@patch("vpc/latest/userguide/vpc-security-groups.html", "AWSEC2/latest/APIReference/errors-overview.html")
def groups_of_own_vpc() -> None:
    """An interface takes existing groups of its own VPC only.

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


@patch("AWSEC2/latest/APIReference/API_ModifyNetworkInterfaceAttribute.html")
def attachment() -> None:
    """`ModifyNetworkInterfaceAttribute` sets the attachment's `DeleteOnTermination`, given the attachment's id.

    moto ignores the attachment.
    """
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
