"""EC2: network interfaces."""

from __future__ import annotations

import pytest

from support.refusal import refusal
from support.stack import LocalStack
from support.victim import Victim, build_victims, described_instance, groups_by_interface, interfaces_of

proves = pytest.mark.proves

@proves("moto.ec2.interfaces.groups_of_each")
def test_an_instance_shows_the_groups_of_its_primary_interface_alone(moto: LocalStack) -> None:
    victim, ec2 = build_victims(moto)[0], moto.client("ec2")
    new = [ec2.create_security_group(GroupName="isolation", Description="none", VpcId=vpc)["GroupId"] for vpc in victim.vpcs]
    for interface, group in zip(victim.interfaces, new):
        ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[group])
    expected = {interface: [group] for interface, group in zip(victim.interfaces, new)}
    described = described_instance(moto, victim.instance)
    assert groups_by_interface(moto, victim) == expected
    assert {one["NetworkInterfaceId"]: [group["GroupId"] for group in one["Groups"]] for one in described["NetworkInterfaces"]} == expected
    assert [group["GroupId"] for group in described["SecurityGroups"]] == [new[0]]


@proves("moto.ec2.interfaces.groups_of_own_vpc")
def test_an_interface_takes_existing_groups_of_its_own_vpc_only(moto: LocalStack) -> None:
    victim, ec2 = build_victims(moto)[0], moto.client("ec2")
    for group in (victim.open_group, "sg-0123456789abcdef0"):
        refused = refusal(ec2.modify_network_interface_attribute, NetworkInterfaceId=victim.interfaces[1], Groups=[group])
        assert refused[0] == "InvalidGroup.NotFound"


@proves("moto.ec2.interfaces.attachment")
def test_delete_on_termination_of_an_interface_is_set_through_its_attachment(moto: LocalStack, bare: Victim) -> None:
    ec2, interface = moto.client("ec2"), bare.interfaces[0]
    attachment = interfaces_of(moto, bare)[0]["Attachment"]
    assert attachment["DeleteOnTermination"] is True
    kept = {"AttachmentId": attachment["AttachmentId"], "DeleteOnTermination": False}
    ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Attachment=kept)
    assert interfaces_of(moto, bare)[0]["Attachment"]["DeleteOnTermination"] is False
    assert described_instance(moto, bare.instance)["NetworkInterfaces"][0]["Attachment"]["DeleteOnTermination"] is False
    wrong = {"AttachmentId": "eni-attach-01234567", "DeleteOnTermination": True}
    refused = refusal(ec2.modify_network_interface_attribute, NetworkInterfaceId=interface, Attachment=wrong)
    assert refused[0] == "InvalidAttachmentID.NotFound"
