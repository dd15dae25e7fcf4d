"""What the local stack mends in moto, each against the behaviour that AWS documents."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterator

import pytest
from botocore.exceptions import ClientError

from emulator.call_record import is_change
from support.refusal import refusal
from support.stack import LocalStack, longest_chain
from support.victim import DATA, ROOT, Victim, attribute_of, bare_instance, build_victims, described_instance
from support.victim import differences, groups_by_interface, interfaces_of, scaling_of, scaling_sizes, snapshot_of_world, targets_of

WINDOW = 0.8
KEY = "arn:aws:kms:ap-northeast-1:123456789012:key/2f2d3a1c-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def slow_moto() -> Iterator[LocalStack]:
    """An EC2 side where snapshots, detaching and draining take their time."""
    names = ("MOTO_SNAPSHOT_PENDING_SECONDS", "MOTO_DETACH_SECONDS", "MOTO_DRAIN_SECONDS")
    with LocalStack(moto_only=True, settings={name: str(WINDOW) for name in names}) as stack:
        yield stack


@pytest.fixture(scope="module")
def bare(moto: LocalStack) -> Victim:
    return bare_instance(moto)


@pytest.fixture(autouse=True)
def fair_weather(moto: LocalStack) -> Iterator[None]:
    yield
    moto.inject()


# --- EC2 instances


def test_a_malformed_instance_id_is_told_apart_from_one_that_is_not_there(moto: LocalStack) -> None:
    ec2 = moto.client("ec2")
    assert refusal(ec2.describe_instances, InstanceIds=["banana"])[0] == "InvalidInstanceID.Malformed"
    assert refusal(ec2.describe_instances, InstanceIds=["i-0123456789abcdef0"])[0] == "InvalidInstanceID.NotFound"


def test_the_shutdown_behavior_is_set_and_read_back_and_the_groups_stay(moto: LocalStack, bare: Victim) -> None:
    before = groups_by_interface(moto, bare)
    moto.client("ec2").modify_instance_attribute(InstanceId=bare.instance, InstanceInitiatedShutdownBehavior={"Value": "terminate"})
    assert attribute_of(moto, bare.instance, "instanceInitiatedShutdownBehavior") == "terminate"
    assert groups_by_interface(moto, bare) == before
    assert described_instance(moto, bare.instance)["SecurityGroups"]


def test_instances_are_found_by_the_profile_they_have(moto: LocalStack) -> None:
    ec2, victims = moto.client("ec2"), build_victims(moto, 2)
    profile = described_instance(moto, victims[0].instance)["IamInstanceProfile"]["Arn"]
    found = ec2.describe_instances(Filters=[{"Name": "iam-instance-profile.arn", "Values": [profile]}])["Reservations"]
    assert {one["InstanceId"] for group in found for one in group["Instances"]} == {victim.instance for victim in victims}


def test_what_moto_cannot_do_is_refused_with_its_reason_and_recorded(moto: LocalStack) -> None:
    since = time.time()
    code, reason = refusal(moto.client("ec2").describe_instances, Filters=[{"Name": "hibernation-options.configured", "Values": ["true"]}])
    assert code == "NotPlayedByLocalStack" and "hibernation-options.configured" in reason
    assert [call["Error"] for call in moto.calls(since, ours=True)] == [code]


def test_modify_instance_attribute_takes_one_attribute_at_a_time(moto: LocalStack, bare: Victim) -> None:
    two = {"DisableApiStop": {"Value": True}, "DisableApiTermination": {"Value": True}}
    assert refusal(moto.client("ec2").modify_instance_attribute, InstanceId=bare.instance, **two)[0] == "InvalidParameterCombination"
    assert attribute_of(moto, bare.instance, "disableApiStop") is False


def test_delete_on_termination_of_volumes_reads_the_same_in_all_three_places(moto: LocalStack) -> None:
    victim, ec2 = build_victims(moto)[0], moto.client("ec2")
    kept = [{"DeviceName": DATA, "Ebs": {"DeleteOnTermination": False}}]
    ec2.modify_instance_attribute(InstanceId=victim.instance, BlockDeviceMappings=kept)
    attribute = ec2.describe_instance_attribute(InstanceId=victim.instance, Attribute="blockDeviceMapping")
    for mappings in (attribute["BlockDeviceMappings"], described_instance(moto, victim.instance)["BlockDeviceMappings"]):
        assert {one["DeviceName"]: one["Ebs"]["DeleteOnTermination"] for one in mappings} == {ROOT: True, DATA: False}
    volumes = ec2.describe_volumes(VolumeIds=list(victim.volumes.values()))["Volumes"]
    attachments = [attachment for volume in volumes for attachment in volume["Attachments"]]
    assert {one["Device"]: one["DeleteOnTermination"] for one in attachments} == {ROOT: True, DATA: False}


# --- EC2 network interfaces


def test_each_interface_has_its_own_groups_and_the_first_ones_are_the_instances(moto: LocalStack) -> None:
    victim, ec2 = build_victims(moto)[0], moto.client("ec2")
    new = [ec2.create_security_group(GroupName="isolation", Description="none", VpcId=vpc)["GroupId"] for vpc in victim.vpcs]
    for interface, group in zip(victim.interfaces, new):
        ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[group])
    expected = {interface: [group] for interface, group in zip(victim.interfaces, new)}
    described = described_instance(moto, victim.instance)
    assert groups_by_interface(moto, victim) == expected
    assert {one["NetworkInterfaceId"]: [group["GroupId"] for group in one["Groups"]] for one in described["NetworkInterfaces"]} == expected
    assert [group["GroupId"] for group in described["SecurityGroups"]] == [new[0]]


def test_an_interface_takes_no_group_of_another_vpc_and_none_that_does_not_exist(moto: LocalStack) -> None:
    victim, ec2 = build_victims(moto)[0], moto.client("ec2")
    for group in (victim.open_group, "sg-0123456789abcdef0"):
        refused = refusal(ec2.modify_network_interface_attribute, NetworkInterfaceId=victim.interfaces[1], Groups=[group])
        assert refused[0] == "InvalidGroup.NotFound"


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


# --- Snapshots


def test_a_snapshot_is_pending_before_it_is_completed_and_cannot_be_copied_meanwhile(slow_moto: LocalStack) -> None:
    ec2, victim = slow_moto.client("ec2"), bare_instance(slow_moto)
    snapshot = ec2.create_snapshot(VolumeId=victim.volumes[ROOT])["SnapshotId"]
    copy = {"SourceSnapshotId": snapshot, "SourceRegion": slow_moto.region}
    assert ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] == "pending"
    assert refusal(ec2.copy_snapshot, **copy)[0] == "IncorrectState"
    time.sleep(WINDOW)
    completed = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
    assert (completed["State"], completed["Progress"]) == ("completed", "100%")
    ec2.copy_snapshot(**copy)


def test_an_encrypted_copy_has_the_key_it_was_given_and_no_volume_to_speak_of(moto: LocalStack, bare: Victim) -> None:
    ec2 = moto.client("ec2")
    source = ec2.create_snapshot(VolumeId=bare.volumes[ROOT])["SnapshotId"]
    assert ec2.describe_snapshots(SnapshotIds=[source])["Snapshots"][0]["Encrypted"] is False
    copied = ec2.copy_snapshot(SourceSnapshotId=source, SourceRegion=moto.region, Encrypted=True, KmsKeyId=KEY)["SnapshotId"]
    copy = ec2.describe_snapshots(SnapshotIds=[copied])["Snapshots"][0]
    assert (copy["Encrypted"], copy["KmsKeyId"], copy["VolumeId"]) == (True, KEY, "vol-ffffffff")
    by_volume = ec2.describe_snapshots(Filters=[{"Name": "volume-id", "Values": [bare.volumes[ROOT]]}])["Snapshots"]
    assert copied not in [one["SnapshotId"] for one in by_volume]


def test_an_encrypted_copy_without_a_key_takes_the_default_one(moto: LocalStack, bare: Victim) -> None:
    ec2 = moto.client("ec2")
    source = ec2.create_snapshot(VolumeId=bare.volumes[ROOT])["SnapshotId"]
    copied = ec2.copy_snapshot(SourceSnapshotId=source, SourceRegion=moto.region, Encrypted=True)["SnapshotId"]
    copy = ec2.describe_snapshots(SnapshotIds=[copied])["Snapshots"][0]
    assert copy["Encrypted"] and copy["KmsKeyId"].startswith("arn:aws:kms:")


def test_the_snapshot_of_an_encrypted_volume_names_the_volumes_key(moto: LocalStack) -> None:
    ec2, victim = moto.client("ec2"), build_victims(moto)[0]
    snapshot = ec2.create_snapshot(VolumeId=victim.volumes[DATA])["SnapshotId"]
    volume = ec2.describe_volumes(VolumeIds=[victim.volumes[DATA]])["Volumes"][0]
    found = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
    assert found["Encrypted"] and found["KmsKeyId"] == volume["KmsKeyId"]


def test_snapshots_of_an_instance_take_their_volumes_tags_along_when_asked(moto: LocalStack, bare: Victim) -> None:
    ec2 = moto.client("ec2")
    ec2.create_tags(Resources=[bare.volumes[ROOT]], Tags=[{"Key": "Owner", "Value": "shop"}])
    asked = {"InstanceSpecification": {"InstanceId": bare.instance}, "CopyTagsFromSource": "volume"}
    made = ec2.create_snapshots(**asked)["Snapshots"]
    found = ec2.describe_snapshots(SnapshotIds=[one["SnapshotId"] for one in made])["Snapshots"]
    assert [{"Key": "Owner", "Value": "shop"}] == found[0]["Tags"]


# --- Load balancers


def test_a_target_registered_on_two_ports_leaves_only_the_port_that_is_named(moto: LocalStack) -> None:
    victim, elb = build_victims(moto)[0], moto.client("elbv2")
    group = victim.instance_target_group
    assert ports(moto, victim) == [80, 8080]
    elb.deregister_targets(TargetGroupArn=group, Targets=[{"Id": victim.instance, "Port": 8080}])
    assert ports(moto, victim) == [80]
    elb.deregister_targets(TargetGroupArn=group, Targets=[{"Id": victim.instance}])
    assert ports(moto, victim) == []


def test_deregistering_a_target_without_its_port_override_succeeds_and_changes_nothing(moto: LocalStack) -> None:
    victim, elb = build_victims(moto)[0], moto.client("elbv2")
    group = victim.instance_target_group
    elb.deregister_targets(TargetGroupArn=group, Targets=[{"Id": victim.instance, "Port": 80}])
    elb.deregister_targets(TargetGroupArn=group, Targets=[{"Id": victim.instance}])
    assert ports(moto, victim) == [8080]


def test_a_deregistered_target_drains_before_it_is_gone(slow_moto: LocalStack) -> None:
    victim, elb = build_victims(slow_moto)[0], slow_moto.client("elbv2")
    target = {"Id": victim.instance, "Port": 8080}
    elb.deregister_targets(TargetGroupArn=victim.instance_target_group, Targets=[target])
    assert ":8080 draining" in " ".join(targets_of(slow_moto, victim))
    time.sleep(WINDOW)
    assert ":8080" not in " ".join(targets_of(slow_moto, victim))
    asked = elb.describe_target_health(TargetGroupArn=victim.instance_target_group, Targets=[target])["TargetHealthDescriptions"][0]
    assert (asked["TargetHealth"]["State"], asked["TargetHealth"]["Reason"]) == ("unused", "Target.NotRegistered")


def ports(stack: LocalStack, victim: Victim) -> list[int]:
    health = stack.client("elbv2").describe_target_health(TargetGroupArn=victim.instance_target_group)["TargetHealthDescriptions"]
    return sorted(one["Target"]["Port"] for one in health if one["Target"]["Id"] == victim.instance)


# --- Auto Scaling


def test_detaching_an_instance_that_is_no_member_is_refused_in_the_words_of_aws(moto: LocalStack, bare: Victim) -> None:
    victim = build_victims(moto)[0]
    refused = detach(moto, victim.auto_scaling_group, bare.instance)
    assert refused == ("ValidationError", f"The instance {bare.instance} is not part of Auto Scaling group {victim.auto_scaling_group}.")


def test_detaching_below_the_minimum_size_is_refused_in_the_words_of_aws(moto: LocalStack) -> None:
    victim = build_victims(moto)[0]
    name = victim.auto_scaling_group
    moto.client("autoscaling").update_auto_scaling_group(AutoScalingGroupName=name, MinSize=1)
    sizes = f"AutoScalingGroup {name} has min-size=1, max-size=3, and desired-size=1."
    expected = f"{sizes} To detach 1 instance, please update the AutoScalingGroup sizes appropriately."
    assert detach(moto, name, victim.instance, decrement=True) == ("ValidationError", expected)


def test_a_detached_instance_leaves_the_targets_of_its_group_and_may_come_back(moto: LocalStack) -> None:
    victim, scaling = build_victims(moto)[0], moto.client("autoscaling")
    name = victim.auto_scaling_group
    assert detach(moto, name, victim.instance, decrement=True) is None
    assert scaling_of(moto, victim) is None
    assert scaling_sizes(moto, name) == {"MinSize": 0, "DesiredCapacity": 0, "MaxSize": 3, "Members": []}
    assert ports(moto, victim) == [8080]
    scaling.attach_instances(AutoScalingGroupName=name, InstanceIds=[victim.instance])
    assert scaling_of(moto, victim)["LifecycleState"] == "InService"
    assert ports(moto, victim) == [80, 8080]


def test_a_group_that_keeps_its_size_replaces_the_instance_it_lets_go(moto: LocalStack) -> None:
    victim = build_victims(moto)[0]
    assert detach(moto, victim.auto_scaling_group, victim.instance, decrement=False) is None
    after = scaling_sizes(moto, victim.auto_scaling_group)
    assert after["DesiredCapacity"] == 1 and len(after["Members"]) == 1 and victim.instance not in after["Members"]


def test_an_instance_is_detaching_before_it_is_gone_and_is_not_registered_again(slow_moto: LocalStack) -> None:
    victim, other = build_victims(slow_moto, 2)
    name = victim.auto_scaling_group
    assert detach(slow_moto, name, victim.instance, decrement=True) is None
    assert scaling_of(slow_moto, victim)["LifecycleState"] == "Detaching"
    assert detach(slow_moto, name, victim.instance, decrement=True)[1].endswith("is not in InService or Standby.")
    assert detach(slow_moto, name, other.instance, decrement=True) is None
    assert not [line for line in targets_of(slow_moto, victim) if ":80 healthy" in line and "-instance" in line]
    time.sleep(WINDOW)
    assert scaling_of(slow_moto, victim) is None


def test_attaching_a_member_or_beyond_the_maximum_is_refused(moto: LocalStack, bare: Victim) -> None:
    victim, scaling = build_victims(moto)[0], moto.client("autoscaling")
    name = victim.auto_scaling_group
    member = refusal(scaling.attach_instances, AutoScalingGroupName=name, InstanceIds=[victim.instance])
    assert member[1] == f"The instance {victim.instance} is already part of AutoScalingGroup:{name}"
    scaling.update_auto_scaling_group(AutoScalingGroupName=name, MaxSize=1)
    full = refusal(scaling.attach_instances, AutoScalingGroupName=name, InstanceIds=[bare.instance])
    assert full[0] == "ValidationError" and "max-size=1" in full[1]


def detach(stack: LocalStack, group: str, instance: str, *, decrement: bool = True) -> tuple[str, str] | None:
    """None, or the refusal."""
    call = stack.client("autoscaling").detach_instances
    try:
        call(AutoScalingGroupName=group, InstanceIds=[instance], ShouldDecrementDesiredCapacity=decrement)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["Error"]["Message"]
    return None


# --- The door


def test_every_call_is_recorded_with_its_error_and_only_real_changes_count(moto: LocalStack, bare: Victim) -> None:
    ec2, since = moto.client("ec2"), time.time()
    ec2.describe_vpcs()
    ec2.create_tags(Resources=[bare.instance], Tags=[{"Key": "Case", "Value": "1"}])
    assert refusal(ec2.create_tags, Resources=[bare.instance], Tags=[{"Key": "a", "Value": "b"}], DryRun=True)[0] == "DryRunOperation"
    calls = moto.calls(since, ours=True)
    assert [(call["Service"], call["Action"], call["Error"], is_change(call)) for call in calls] == [
        ("ec2", "DescribeVpcs", None, False), ("ec2", "CreateTags", None, True), ("ec2", "CreateTags", "DryRunOperation", False)]  # fmt: skip
    assert {(call["Account"], call["Region"], call["Caller"]) for call in calls} == {("123456789012", moto.region, "tests")}
    assert all(call["Start"] <= call["End"] for call in calls) and longest_chain(calls) == 3
    assert moto.calls(since) == []


def test_both_generations_of_load_balancer_are_told_apart_in_the_record(moto: LocalStack) -> None:
    since = time.time()
    moto.client("elb").describe_load_balancers()
    moto.client("elbv2").describe_load_balancers()
    assert [call["Service"] for call in moto.calls(since, ours=True)] == ["elb", "elbv2"]


@pytest.mark.parametrize(
    ("service", "action", "method"),
    [("ec2", "DescribeVpcs", "describe_vpcs"), ("autoscaling", "DescribeAutoScalingGroups", "describe_auto_scaling_groups"),
     ("elb", "DescribeLoadBalancers", "describe_load_balancers"), ("elbv2", "DescribeLoadBalancers", "describe_load_balancers"),
     ("iam", "ListRoles", "list_roles"), ("sts", "GetCallerIdentity", "get_caller_identity"),
     ("ssm", "DescribeInstanceInformation", "describe_instance_information")],
)  # fmt: skip
def test_a_fault_is_answered_in_the_shape_of_its_protocol(moto: LocalStack, service: str, action: str, method: str) -> None:
    moto.inject({"Service": service, "Action": action, "Code": "Throttling", "Status": 503, "Message": "Rate exceeded"})
    assert refusal(getattr(moto.client(service), method)) == ("Throttling", "Rate exceeded")


def test_a_fault_strikes_as_often_as_it_says_and_only_the_resource_it_names(moto: LocalStack, bare: Victim) -> None:
    ec2 = moto.client("ec2")
    moto.inject({"Service": "ec2", "Action": "DescribeInstances", "Code": "RequestLimitExceeded", "Times": 1, "Resource": bare.instance})
    ec2.describe_instances()
    assert refusal(ec2.describe_instances, InstanceIds=[bare.instance])[0] == "RequestLimitExceeded"
    ec2.describe_instances(InstanceIds=[bare.instance])


def test_a_refused_call_has_no_effect_and_one_whose_answer_was_lost_has(moto: LocalStack) -> None:
    ec2, victim = moto.client("ec2"), bare_instance(moto)
    before = snapshot_of_world(moto, victim)
    protect = {"InstanceId": victim.instance, "DisableApiTermination": {"Value": True}}
    moto.inject({"Service": "ec2", "Action": "ModifyInstanceAttribute", "Code": "UnauthorizedOperation", "Status": 403})
    assert refusal(ec2.modify_instance_attribute, **protect)[0] == "UnauthorizedOperation"
    assert snapshot_of_world(moto, victim) == before
    moto.inject({"Service": "ec2", "Action": "ModifyInstanceAttribute", "Code": "InternalError", "Status": 500, "Executed": True})
    assert refusal(ec2.modify_instance_attribute, **protect)[0] == "InternalError"
    assert differences(before, snapshot_of_world(moto, victim)) == [("Protection disableApiTermination", False, True)]


def test_with_a_latency_calls_in_parallel_are_one_link_in_the_chain_of_calls(moto: LocalStack) -> None:
    ec2 = moto.client("ec2")
    moto.inject({"Service": "*", "Action": "*", "DelaySeconds": 0.3})
    since = time.time()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: ec2.describe_vpcs(), range(3)))
    ec2.describe_subnets()
    calls = moto.calls(since, ours=True)
    assert len(calls) == 4 and longest_chain(calls) == 2
