"""EC2: instances and their attributes."""

from __future__ import annotations

import pytest

from support.refusal import refusal
from support.stack import LocalStack
from support.victim import DATA, ROOT, Victim, attribute_of, build_victims, described_instance, groups_by_interface

proves = pytest.mark.proves

@proves("moto.ec2.instances.malformed_ids")
def test_a_malformed_id_is_told_apart_from_an_unknown_one(moto: LocalStack) -> None:
    ec2 = moto.client("ec2")
    assert refusal(ec2.describe_instances, InstanceIds=["banana"])[0] == "InvalidInstanceID.Malformed"
    assert refusal(ec2.describe_instances, InstanceIds=["i-0123456789abcdef0"])[0] == "InvalidInstanceID.NotFound"


@proves("moto.ec2.instances.filter_by_profile")
def test_instances_are_found_by_their_profile(moto: LocalStack) -> None:
    ec2, victims = moto.client("ec2"), build_victims(moto, 2)
    profile = described_instance(moto, victims[0].instance)["IamInstanceProfile"]["Arn"]
    found = ec2.describe_instances(Filters=[{"Name": "iam-instance-profile.arn", "Values": [profile]}])["Reservations"]
    assert {one["InstanceId"] for group in found for one in group["Instances"]} == {victim.instance for victim in victims}


@proves("moto.ec2.instances.shutdown_behavior")
def test_the_shutdown_behavior_is_set_and_the_groups_stay(moto: LocalStack, bare: Victim) -> None:
    before = groups_by_interface(moto, bare)
    moto.client("ec2").modify_instance_attribute(InstanceId=bare.instance, InstanceInitiatedShutdownBehavior={"Value": "terminate"})
    assert attribute_of(moto, bare.instance, "instanceInitiatedShutdownBehavior") == "terminate"
    assert groups_by_interface(moto, bare) == before
    assert described_instance(moto, bare.instance)["SecurityGroups"]


@proves("moto.ec2.instances.one_attribute_per_call")
def test_modify_instance_attribute_takes_one_attribute_at_a_time(moto: LocalStack, bare: Victim) -> None:
    two = {"DisableApiStop": {"Value": True}, "DisableApiTermination": {"Value": True}}
    assert refusal(moto.client("ec2").modify_instance_attribute, InstanceId=bare.instance, **two)[0] == "InvalidParameterCombination"
    assert attribute_of(moto, bare.instance, "disableApiStop") is False


@proves("moto.ec2.instances.block_device_mapping", "moto.ec2.instances.volume_attachments")
def test_delete_on_termination_of_volumes_reads_the_same_in_three_places(moto: LocalStack) -> None:
    victim, ec2 = build_victims(moto)[0], moto.client("ec2")
    kept = [{"DeviceName": DATA, "Ebs": {"DeleteOnTermination": False}}]
    ec2.modify_instance_attribute(InstanceId=victim.instance, BlockDeviceMappings=kept)
    attribute = ec2.describe_instance_attribute(InstanceId=victim.instance, Attribute="blockDeviceMapping")
    for mappings in (attribute["BlockDeviceMappings"], described_instance(moto, victim.instance)["BlockDeviceMappings"]):
        assert {one["DeviceName"]: one["Ebs"]["DeleteOnTermination"] for one in mappings} == {ROOT: True, DATA: False}
    volumes = ec2.describe_volumes(VolumeIds=list(victim.volumes.values()))["Volumes"]
    attachments = [attachment for volume in volumes for attachment in volume["Attachments"]]
    assert {one["Device"]: one["DeleteOnTermination"] for one in attachments} == {ROOT: True, DATA: False}
