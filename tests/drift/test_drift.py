"""Contained instances stay contained: what somebody else does to them is repaired, told and kept, and Cordon wakes itself never.

Each test builds its own victims. A stranger makes a call against the EC2 side, and CloudTrail's record of it goes on the bus.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Iterator

import jsonschema
import pytest
import yaml

from support.containment import contain, evidence, groups_named, isolated, journal
from support.inbox import Inbox, Message
from support.member import MEMBER, deploy_member_role
from support.stack import ACCOUNT, PROJECT, REGION, Execution, LocalStack, StackError
from support.strangers import ADDRESS, KEY, api_call, session
from support.template import TOOLS, Loader, run
from support.victim import Place, Victim, bare_instance, build_victims, snapshot_of_world

MACHINE = "cordon-drill"
RULE = f"{MACHINE}-contained-instance-changed"
INSTANCE = "i-0123456789abcdef0"
EVERYWHERE = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
SETTLED = 6  # seconds after which a verification has seen a change for certain

Event = dict[str, Any]


@pytest.fixture(autouse=True)
def nothing_left_in_the_queue(stack: LocalStack) -> Iterator[None]:
    yield
    stack.client("sqs").purge_queue(QueueUrl=queue(stack))
    patience(stack, 2)


def patience(stack: LocalStack, seconds: int) -> None:
    """After how long the queue brings a call back."""
    stack.client("sqs").set_queue_attributes(QueueUrl=queue(stack), Attributes={"VisibilityTimeout": str(seconds)})


def queue(stack: LocalStack) -> str:
    return stack.client("sqs").get_queue_url(QueueName=f"{MACHINE}-drift")["QueueUrl"]


# --- What happens ------------------------------------------------------------------------------------------------


def put(stack: LocalStack, *events: Event) -> None:
    for event in events:
        stack.put_event(event)


def repair(stack: LocalStack, *events: Event) -> Execution:
    """The execution that the events lead to, from start to end."""
    known = stack.executions()
    put(stack, *events)
    return stack.wait(stack.new_execution(known, 30))


def quiet(stack: LocalStack, *events: Event, seconds: float = 5) -> None:
    """Nothing is started for the events."""
    known = stack.executions()
    put(stack, *events)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert stack.executions() == known
        time.sleep(0.2)


def started_by(stack: LocalStack, event: Event) -> list[str]:
    return [arn for arn in stack.executions() if arn.endswith(event["detail"]["eventID"])]


def told(inbox: Inbox, arn: str) -> list[str]:
    return [message.kind for message in inbox.messages(arn, 1)]


def settle() -> None:
    """So that a stranger's call comes later than the verification, as far as whole seconds can tell."""
    time.sleep(1.1)


@dataclass(frozen=True)
class Change:
    """What a stranger does, and what CloudTrail says of it."""

    do: Callable[[Place, Victim], Any]
    event: Callable[[Place, Victim, Any], Event]


def isolation_group(stack: Place, victim: Victim) -> str:
    return groups_named(stack, "cordon-isolation", victim)[victim.vpcs[0]]["GroupId"]


def snapshots(stack: Place, victim: Victim) -> list[str]:
    return sorted(snapshot_of_world(stack, victim)["Snapshots"])


def ec2(stack: Place) -> Any:
    return stack.client("ec2")


CHANGES: dict[str, Change] = {
    "an interface gets its old group back": Change(
        lambda at, v: ec2(at).modify_network_interface_attribute(NetworkInterfaceId=v.interfaces[0], Groups=[v.open_group]),
        lambda at, v, _: api_call("ModifyNetworkInterfaceAttribute",
                                  {"networkInterfaceId": v.interfaces[0], "groupSet": {"items": [{"groupId": v.open_group}]}})),
    "the isolation group gets a rule": Change(
        lambda at, v: ec2(at).authorize_security_group_ingress(GroupId=isolation_group(at, v), IpPermissions=EVERYWHERE),
        lambda at, v, _: api_call("AuthorizeSecurityGroupIngress", {"groupId": isolation_group(at, v), "ipPermissions": {"items": [
            {"ipProtocol": "-1", "ipRanges": {"items": [{"cidrIp": "0.0.0.0/0"}]}}]}})),
    "a profile is associated": Change(
        lambda at, v: ec2(at).associate_iam_instance_profile(InstanceId=v.instance, IamInstanceProfile={"Name": v.profile}),
        lambda at, v, _: api_call("AssociateIamInstanceProfile", {"AssociateIamInstanceProfileRequest": {
            "InstanceId": v.instance, "IamInstanceProfile": {"Name": v.profile}}})),
    "it is registered with a target group": Change(
        lambda at, v: at.client("elbv2").register_targets(TargetGroupArn=v.instance_target_group, Targets=[{"Id": v.instance, "Port": 80}]),
        lambda at, v, _: api_call("RegisterTargets", {"targetGroupArn": v.instance_target_group, "targets": [{"id": v.instance, "port": 80}]},
                                  source="elasticloadbalancing")),
    "its address is registered with a target group": Change(
        lambda at, v: at.client("elbv2").register_targets(TargetGroupArn=v.ip_target_group, Targets=[{"Id": v.private_ip, "Port": 80}]),
        lambda at, v, _: api_call("RegisterTargets", {"targetGroupArn": v.ip_target_group, "targets": [{"id": v.private_ip, "port": 80}]},
                                  source="elasticloadbalancing")),
    "the deny is removed from its role": Change(
        lambda at, v: at.client("iam").delete_role_policy(RoleName=v.role, PolicyName=f"cordon-deny-{v.instance}"),
        lambda at, v, _: api_call("DeleteRolePolicy", {"roleName": v.role, "policyName": f"cordon-deny-{v.instance}"}, source="iam")),
    "its protection is removed": Change(
        lambda at, v: ec2(at).modify_instance_attribute(InstanceId=v.instance, DisableApiTermination={"Value": False}),
        lambda at, v, _: api_call("ModifyInstanceAttribute", {"instanceId": v.instance, "disableApiTermination": {"value": False}})),
    "it is attached to its group again": Change(
        lambda at, v: at.client("autoscaling").attach_instances(AutoScalingGroupName=v.auto_scaling_group, InstanceIds=[v.instance]),
        lambda at, v, _: api_call("AttachInstances", {"autoScalingGroupName": v.auto_scaling_group, "instanceIds": [v.instance]},
                                  source="autoscaling")),
    "its tags are removed": Change(
        lambda at, v: ec2(at).delete_tags(Resources=[v.instance], Tags=[{"Key": "CordonCase"}]),
        lambda at, v, _: api_call("DeleteTags", {"resourcesSet": {"items": [{"resourceId": v.instance}]},
                                                 "tagSet": {"items": [{"key": "CordonCase"}]}})),
    "an interface is attached": Change(
        lambda at, v: attach_interface(at, v),
        lambda at, v, eni: api_call("AttachNetworkInterface", {"networkInterfaceId": eni, "instanceId": v.instance, "deviceIndex": 4})),
    "a snapshot is deleted": Change(
        lambda at, v: delete_snapshot(at, v),
        lambda at, v, gone: api_call("DeleteSnapshot", {"snapshotId": gone})),
}  # fmt: skip


def attach_interface(stack: Place, victim: Victim) -> str:
    client = ec2(stack)
    subnet = client.describe_network_interfaces(NetworkInterfaceIds=[victim.interfaces[0]])["NetworkInterfaces"][0]["SubnetId"]
    eni = client.create_network_interface(SubnetId=subnet, Groups=[victim.open_group])["NetworkInterface"]["NetworkInterfaceId"]
    client.attach_network_interface(NetworkInterfaceId=eni, InstanceId=victim.instance, DeviceIndex=4)
    return eni


def delete_snapshot(stack: Place, victim: Victim) -> str:
    """The original of an unencrypted volume; its copy remains."""
    found = snapshot_of_world(stack, victim)["Snapshots"]
    gone = sorted(id_ for id_, one in found.items() if "SourceSnapshotId" not in one["Tags"] and not one["Encrypted"])[0]
    ec2(stack).delete_snapshot(SnapshotId=gone)
    return gone


def watched_parts(world: dict[str, Any]) -> dict[str, Any]:
    """All that a repair brings back; a new interface and its group are compared apart."""
    names = ("State", "Groups", "AutoScaling", "Targets", "ClassicLoadBalancers", "Protection", "VolumesDeletedWithInstance", "Profile",
             "RolePolicies", "Tags")  # fmt: skip
    return {name: world[name] for name in names}


# --- A stranger --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_a_stranger_undoes_is_done_again_and_people_are_told_who_it_was(stack: LocalStack, inbox: Inbox, what: str) -> None:
    (victim,) = build_victims(stack)
    first = contain(stack, victim.instance, IncidentTicket="INC-7", AutoScaling="Decrement")
    assert first.status == "SUCCEEDED", first.cause
    before, change = watched_parts(snapshot_of_world(stack, victim)), CHANGES[what]
    settle()
    event = change.event(stack, victim, change.do(stack, victim))
    put(stack, event)
    # Another instance may have the same address, and then has a repair of its own.
    until(lambda: any(victim.instance in arn for arn in started_by(stack, event)), 30)
    execution = stack.wait(next(arn for arn in started_by(stack, event) if victim.instance in arn))
    assert execution.status == "SUCCEEDED", execution.cause
    assert isolated(stack, victim)
    after = watched_parts(snapshot_of_world(stack, victim))
    if what != "an interface is attached":
        assert after == before
    assert execution.instance(victim.instance)["CaseId"] == first.instance(victim.instance)["CaseId"]

    assert told(inbox, execution.arn) == ["DriftFound", "Contained"]
    for message in inbox.messages(execution.arn):
        drift = message.record["Trigger"]["Drift"]
        assert (message.record["Trigger"]["Source"], drift["EventName"]) == ("Drift", event["detail"]["eventName"])
        assert (drift["Caller"], drift["AccessKeyId"], drift["SourceIpAddress"]) == (f"arn:aws:iam::{ACCOUNT}:user/eve", KEY, ADDRESS)
        assert all(part in message.email for part in (f"arn:aws:iam::{ACCOUNT}:user/eve", KEY, ADDRESS, drift["EventName"]))
        check_schema(message)

    records = journal(stack, victim)
    kept = json.loads(records[f"drift#{records['case']['CaseId']}#{event['detail']['eventID']}"]["Drift"])
    assert kept["Caller"] == f"arn:aws:iam::{ACCOUNT}:user/eve"
    assert evidence(stack, victim)["watch-drift"]["Event"]["detail"] == event["detail"]
    assert "watch-drift" in json.dumps(records[f"journal#{records['case']['CaseId']}#evidence"])
    assert (records["case"]["Status"], records["case"]["Verdict"]) == ("Open", "Contained")


def check_schema(message: Message) -> None:
    jsonschema.validate(message.record, json.loads((PROJECT / "docs" / "notification.schema.json").read_text(encoding="utf-8")))


def test_another_containment_keeps_the_cases_options(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    contain(stack, victim.instance, IncidentTicket="INC-7", RevokeAllSessions=True)
    settle()
    execution = repair(stack, CHANGES["its tags are removed"].event(stack, victim, None))
    target = next(json.loads(e["stateExitedEventDetails"]["output"])["Targets"][0] for e in execution.history
                  if e.get("stateExitedEventDetails", {}).get("name") == "Validate input")  # fmt: skip
    assert (target["IncidentTicket"], target["RevokeAllSessions"]) == ("INC-7", True)


def test_what_a_stranger_says_of_himself_is_quoted_as_data(stack: LocalStack, inbox: Inbox) -> None:
    victim = bare_instance(stack)
    contain(stack, victim.instance)
    settle()
    hostile = "FORGED”\r\n\nWHAT TO DO\n\nFORGED: nothing\n<http://evil.example|FORGED> @here `FORGED`"
    event = api_call("StopInstances", {"instancesSet": {"items": [{"instanceId": victim.instance}]}}, userAgent=hostile)
    execution = repair(stack, event)
    (found, *_) = inbox.messages(execution.arn, 1)
    assert found.kind == "DriftFound" and "evil.example" not in found.email and "@here" not in found.chat["content"]["description"]
    assert not [line for line in found.email.splitlines() if line.strip().startswith("FORGED")]
    assert "Cordon does not start it" in found.email.replace("\n", " ")


def test_a_snapshot_that_was_shared_is_named_with_the_command_that_takes_the_share_away(stack: LocalStack, inbox: Inbox) -> None:
    victim = bare_instance(stack)
    contain(stack, victim.instance)
    settle()
    shared, accomplice = snapshots(stack, victim)[0], "666666666666"
    ec2(stack).modify_snapshot_attribute(SnapshotId=shared, Attribute="createVolumePermission", OperationType="add", UserIds=[accomplice])
    event = api_call("ModifySnapshotAttribute", {"snapshotId": shared, "attributeType": "CREATE_VOLUME_PERMISSION",
                                                 "createVolumePermission": {"add": {"items": [{"userId": accomplice}]}}})  # fmt: skip
    execution = repair(stack, event)
    (found, *_) = inbox.messages(execution.arn, 1)
    assert f"--region {REGION} --snapshot-id {shared} --attribute createVolumePermission" in found.email
    assert "Copies that were made" in found.email


# --- Not a stranger, or nobody's business ------------------------------------------------------------------------


def function_role(stack: LocalStack, function: str) -> str:
    """Path and name of a function's role, as CloudFormation has named it."""
    arn = stack.client("lambda").get_function_configuration(FunctionName=f"{MACHINE}-{function}")["Role"]
    return arn.split(":role/", 1)[1]


def test_cordons_own_calls_start_nothing(stack: LocalStack) -> None:
    victim = bare_instance(stack)
    contain(stack, victim.instance)
    settle()
    parameters = {"networkInterfaceId": victim.interfaces[0]}
    for by in (session(function_role(stack, "isolate-network"), f"{MACHINE}-isolate-network"),
               session("cordon/cordon-member", f"isolate-network@{victim.instance}")):  # fmt: skip
        quiet(stack, api_call("ModifyNetworkInterfaceAttribute", parameters, by=by), seconds=3)
    assert not [record for record in journal(stack, victim) if record.startswith("drift#")]


def test_an_instance_that_is_not_contained_is_nobodys_business(stack: LocalStack) -> None:
    victim, dry = bare_instance(stack), bare_instance(stack)
    contain(stack, dry.instance, DryRun=True)
    stop = [api_call("StopInstances", {"instancesSet": {"items": [{"instanceId": one.instance}]}}) for one in (victim, dry)]
    quiet(stack, *stop, api_call("ModifyNetworkInterfaceAttribute", {"networkInterfaceId": victim.interfaces[0]}), seconds=3)


def test_what_was_done_before_the_containment_undid_nothing(stack: LocalStack) -> None:
    victim = bare_instance(stack)
    event = api_call("ModifyInstanceAttribute", {"instanceId": victim.instance})
    settle()
    contain(stack, victim.instance)
    quiet(stack, event, seconds=3)


def test_a_released_case_is_not_watched(stack: LocalStack) -> None:
    victim = bare_instance(stack)
    contain(stack, victim.instance)
    stack.client("dynamodb").update_item(
        TableName=stack.outputs["CaseTableName"], Key={"Instance": {"S": f"{ACCOUNT}/{REGION}/{victim.instance}"}, "Record": {"S": "case"}},
        UpdateExpression="SET #s = :released", ExpressionAttributeNames={"#s": "Status"}, ExpressionAttributeValues={":released": {"S": "Released"}},
    )  # fmt: skip
    settle()
    quiet(stack, api_call("ModifyInstanceAttribute", {"instanceId": victim.instance}), seconds=3)


def test_a_start_for_drift_that_nobody_contained_does_nothing_and_tells_nobody(stack: LocalStack, inbox: Inbox) -> None:
    victim, now = bare_instance(stack), time.time()
    drift = {"EventId": "forged-0001", "EventName": "StopInstances"}
    execution = stack.run({"InstanceIds": [victim.instance], "Region": REGION, "Drift": drift})
    assert execution.output["Verdict"] == "NothingDone" and "no open case" in execution.output["Table"]
    assert stack.changes(now) == [] and told(inbox, execution.arn) == []


# --- No endless loop ---------------------------------------------------------------------------------------------


def test_a_burst_of_changes_is_one_repair(stack: LocalStack, inbox: Inbox) -> None:
    victim = bare_instance(stack)
    contain(stack, victim.instance)
    time.sleep(SETTLED + 2)
    group = isolation_group(stack, victim)
    events = [api_call("AuthorizeSecurityGroupIngress", {"groupId": group, "ipPermissions": {"items": []}}, ago=SETTLED + 0.5) for _ in range(12)]
    known = stack.executions()
    execution = repair(stack, *events)
    assert told(inbox, execution.arn) == ["DriftFound", "Contained"]
    until_empty(stack)
    assert len(stack.executions()) == len(known) + 1
    records = journal(stack, victim)
    assert len([record for record in records if record.startswith("drift#i-")]) == 12
    assert len([entry for entry in records[f"journal#{records['case']['CaseId']}#evidence"] if "watch-drift" in entry]) == 12


def until_empty(stack: LocalStack, seconds: float = 30) -> None:
    """All messages of the queue are done with."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    deadline = time.monotonic() + seconds
    while any(int(n) for n in stack.client("sqs").get_queue_attributes(QueueUrl=queue(stack), AttributeNames=names)["Attributes"].values()):
        if time.monotonic() > deadline:
            raise StackError(f"the queue is not empty after {seconds:.0f} s")
        time.sleep(0.2)


def test_an_event_that_is_delivered_twice_is_repaired_and_kept_once(stack: LocalStack) -> None:
    victim = bare_instance(stack)
    contain(stack, victim.instance)
    settle()
    event = api_call("ModifyInstanceAttribute", {"instanceId": victim.instance})
    repair(stack, event)
    put(stack, event, event)
    time.sleep(4)
    assert len(started_by(stack, event)) == 1
    assert len([record for record in journal(stack, victim) if record.startswith("drift#i-")]) == 1


@contextmanager
def repairs(stack: LocalStack, an_hour: int) -> Iterator[None]:
    with stack.reconfigured("watch-drift", REPAIRS_PER_HOUR=str(an_hour)):
        yield


def test_beyond_the_limit_nothing_is_started_and_a_person_is_called_once(stack: LocalStack, inbox: Inbox) -> None:
    victim = bare_instance(stack)
    contain(stack, victim.instance)
    with repairs(stack, 1):
        settle()
        repair(stack, api_call("ModifyInstanceAttribute", {"instanceId": victim.instance}))
        settle()
        seen = len(inbox.messages())
        for _ in range(2):
            quiet(stack, api_call("ModifyInstanceAttribute", {"instanceId": victim.instance}))
        (called,) = [one for one in inbox.messages(seconds=1)[seen:] if one.kind == "DriftNotRepaired"]
    assert called.record["Instances"][0]["InstanceId"] == victim.instance and called.subject.startswith("Cordon: A PERSON IS NEEDED")
    assert "service control policy" in called.email.replace("\n", " ") and KEY in called.email
    assert called.command("start-execution")
    check_schema(called)


def test_a_change_while_an_execution_is_at_it_is_told_at_once_and_looked_at_again_afterwards(stack: LocalStack, inbox: Inbox) -> None:
    victim = bare_instance(stack)
    contain(stack, victim.instance)
    settle()
    patience(stack, 5)  # three minutes otherwise
    stack.inject({"Service": "ec2", "Action": "CreateTags", "DelaySeconds": 0.1}, {"Service": "ec2", "Action": "DescribeSnapshots", "DelaySeconds": 4})
    try:
        holder = stack.begin({"InstanceIds": [victim.instance], "Region": REGION})
        time.sleep(2)
        event = CHANGES["an interface gets its old group back"]
        ec2(stack).modify_network_interface_attribute(NetworkInterfaceId=victim.interfaces[0], Groups=[old_group(stack, victim)])
        put(stack, api_call("ModifyNetworkInterfaceAttribute", {"networkInterfaceId": victim.interfaces[0]}))
        until(lambda: "DriftFound" in told(inbox, holder))
    finally:
        stack.inject()
    stack.wait(holder)
    assert event
    until(lambda: isolated(stack, victim), 40)
    until_empty(stack)


def test_a_change_during_the_first_containment_is_told_long_before_the_verification(stack: LocalStack, inbox: Inbox) -> None:
    """Snapshots take hours, and the watch begins when the network is isolated."""
    victim = bare_instance(stack)
    patience(stack, 5)
    stack.inject({"Service": "ec2", "Action": "DescribeSnapshots", "DelaySeconds": 6})
    try:
        holder = stack.begin({"InstanceIds": [victim.instance], "Region": REGION, "AutoScaling": "Decrement"})
        until(lambda: "WatchedSince" in journal(stack, victim).get("case", {}))
        assert isolated(stack, victim) and "VerifiedAt" not in journal(stack, victim)["case"]
        ec2(stack).modify_network_interface_attribute(NetworkInterfaceId=victim.interfaces[0], Groups=[old_group(stack, victim)])
        put(stack, api_call("ModifyNetworkInterfaceAttribute", {"networkInterfaceId": victim.interfaces[0]}))
        until(lambda: "DriftFound" in told(inbox, holder))
        assert "VerifiedAt" not in journal(stack, victim)["case"], "it was told before that"
    finally:
        stack.inject()
    stack.wait(holder)
    until(lambda: isolated(stack, victim), 40)
    until_empty(stack)


def old_group(stack: Place, victim: Victim) -> str:
    """The VPC's default group, which is open."""
    filters = [{"Name": "vpc-id", "Values": [victim.vpcs[0]]}, {"Name": "group-name", "Values": ["default"]}]
    return ec2(stack).describe_security_groups(Filters=filters)["SecurityGroups"][0]["GroupId"]


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.1)


# --- Another account ---------------------------------------------------------------------------------------------


def forward(stack: LocalStack, event: Event) -> None:
    """What the rule of drift-events.yaml forwards keeps its account and Region; the local bus would write its own on it."""
    stack.client("sqs").send_message(QueueUrl=queue(stack), MessageBody=json.dumps({"version": "0", "id": "1", **event}))


def test_a_change_in_a_member_account_is_repaired_there(stack: LocalStack, inbox: Inbox) -> None:
    deploy_member_role(stack, MEMBER, SnapshotKeyArn=stack.outputs["KeyArn"])
    member = stack.elsewhere(MEMBER)
    (victim,) = build_victims(member)
    contained = stack.run({"InstanceIds": [victim.instance], "Region": REGION, "AccountId": MEMBER})
    assert contained.status == "SUCCEEDED", contained.cause
    settle()
    ec2(member).modify_network_interface_attribute(NetworkInterfaceId=victim.interfaces[0], Groups=[victim.open_group])
    known = stack.executions()
    parameters = {"networkInterfaceId": victim.interfaces[0]}
    own = session("cordon/cordon-member", f"isolate-network@{victim.instance}", MEMBER)
    elsewhere = api_call("ModifyNetworkInterfaceAttribute", parameters)  # the same id in Cordon's own account
    for event in (api_call("ModifyNetworkInterfaceAttribute", parameters, account=MEMBER, by=own), elsewhere):
        forward(stack, event)
    time.sleep(3)
    assert stack.executions() == known and not isolated(member, victim)
    # A role by the name of Cordon's functions, in the account of whoever made it.
    stranger = session("cordon/cordon-IsolateNetworkRole-1A2B3C", account=MEMBER)
    forward(stack, api_call("ModifyNetworkInterfaceAttribute", parameters, account=MEMBER, by=stranger))
    execution = stack.wait(stack.new_execution(known, 30))
    assert execution.status == "SUCCEEDED", execution.cause
    assert isolated(member, victim)
    (found, *_) = inbox.messages(execution.arn, 1)
    assert found.record["Trigger"]["Drift"]["Caller"] == stranger["arn"] and found.record["Instances"][0]["AccountId"] == MEMBER


# --- Rules -------------------------------------------------------------------------------------------------------


def items(name: str, *ids: str) -> dict[str, Any]:
    return {"items": [{name: id_} for id_ in ids]}


EVENTS: dict[str, tuple[Event, bool]] = {
    "an interface's groups": (api_call("ModifyNetworkInterfaceAttribute", {"networkInterfaceId": "eni-1"}), True),
    "a call of the root user": (api_call("StopInstances", {}, by={"type": "Root", "arn": f"arn:aws:iam::{ACCOUNT}:root"}), True),
    "a call of a role": (api_call("StopInstances", {}, by=session("admin")), True),
    "a call of a service": (api_call("TerminateInstances", {}, by={"type": "AWSService", "invokedBy": "autoscaling.amazonaws.com"}), True),
    "a role that is named like a function's, elsewhere": (api_call("StopInstances", {}, by=session("cordon/cordon-IsolateNetworkRole-1", account="666666666666")), True),
    "a role that is named like a function's, without the path": (api_call("StopInstances", {}, by=session("cordon-IsolateNetworkRole-1")), True),
    "a function of Cordon's": (api_call("StopInstances", {}, by=session("cordon/cordon-IsolateNetworkRole-1A2B3C")), False),
    "a call that failed": (api_call("StopInstances", {}, errorCode="Client.UnauthorizedOperation"), False),
    "a dry run": (api_call("StopInstances", {}, errorCode="Client.DryRunOperation"), False),
    "a call that undoes nothing": (api_call("RevokeSecurityGroupIngress", {"groupId": "sg-1"}), False),
    "the tag of a case": (api_call("DeleteTags", {"resourcesSet": items("resourceId", INSTANCE), "tagSet": items("key", "a", "CordonCase")}), True),
    "all tags": (api_call("DeleteTags", {"resourcesSet": items("resourceId", INSTANCE)}), True),
    "another tag": (api_call("CreateTags", {"resourcesSet": items("resourceId", INSTANCE), "tagSet": items("key", "Name")}), False),
    "another tag, removed": (api_call("DeleteTags", {"resourcesSet": items("resourceId", INSTANCE), "tagSet": items("key", "Name")}), False),
    "the deny": (api_call("DeleteRolePolicy", {"roleName": "web", "policyName": f"cordon-deny-{INSTANCE}"}, source="iam"), True),
    "another policy": (api_call("DeleteRolePolicy", {"roleName": "web", "policyName": "app"}, source="iam"), False),
    "a target": (api_call("RegisterTargets", {"targets": [{"id": INSTANCE}]}, source="elasticloadbalancing"), True),
    "a group": (api_call("AttachInstances", {"instanceIds": [INSTANCE]}, source="autoscaling"), True),
    "a session": (api_call("StartSession", {"target": INSTANCE}, source="ssm"), True),
    "another service's call of that name": (api_call("StopInstances", {}, source="elasticmapreduce"), False),
    "what an application puts on the bus": ({**api_call("StopInstances", {}), "source": "com.intruder"}, False),
    "what is no call": ({**api_call("StopInstances", {}), "detail-type": "EC2 Instance State-change Notification"}, False),
}  # fmt: skip


@pytest.mark.parametrize(("event", "matches"), EVENTS.values(), ids=EVENTS)
def test_the_rule_matches_what_can_undo_a_containment_and_nothing_else(stack: LocalStack, event: Event, matches: bool) -> None:
    events = stack.client("events")
    pattern = events.describe_rule(Name=RULE)["EventPattern"]
    whole = {"id": "1", "time": "2026-11-21T00:00:00Z", "resources": [], **event}
    assert events.test_event_pattern(EventPattern=pattern, Event=json.dumps(whole))["Result"] == matches


def rule(template: str) -> dict[str, Any]:
    document = yaml.load((PROJECT / template).read_text(encoding="utf-8"), Loader)
    return document["Resources"]["ContainedInstanceChanged"]["Properties"]


def test_other_accounts_forward_the_same_calls_but_for_who_cordon_is_there() -> None:
    here, there = rule("template.yaml")["EventPattern"], rule("templates/drift-events.yaml")["EventPattern"]
    (absent, ours), (_, theirs) = (one["detail"]["userIdentity"]["sessionContext"]["sessionIssuer"].pop("arn") for one in (here, there))
    assert here == there and absent == {"exists": False}
    assert ours["anything-but"]["wildcard"].endswith(":role/cordon/${AWS::StackName}-*Role-*")
    member, (functions, of) = theirs["anything-but"]["wildcard"]
    assert member.endswith("${AWS::AccountId}:role/cordon/${RoleName}") and functions.endswith("::${Cordon}:role/cordon/${CordonStackName}-*Role-*")
    assert "EventBusArn" in str(of["Cordon"]), "the functions are Cordon's in its own account and a stranger's in any other"


def test_the_rules_calls_are_those_that_the_function_knows() -> None:
    source = (PROJECT / "functions" / "watch-drift" / "src" / "call.rs").read_text(encoding="utf-8")
    table = source.split("const CALLS", 1)[1].split("];", 1)[0]
    known = {line.split('"')[1] for line in table.splitlines() if line.strip().startswith('("')}
    named = {name for branch in rule("template.yaml")["EventPattern"]["detail"]["$or"] for name in branch["eventName"]}
    assert named == known


def test_the_pattern_is_no_longer_than_eventbridge_takes(stack: LocalStack) -> None:
    """https://docs.aws.amazon.com/general/latest/gr/ev.html: 2,048 characters; a stack's and a role's name may be longer."""
    deployed = json.loads(stack.client("events").describe_rule(Name=RULE)["EventPattern"])
    assert len(json.dumps(deployed, separators=(",", ":"))) < 1_900


def test_linters_find_nothing_wrong_with_the_forwarding_template() -> None:
    run(TOOLS / "build/bin/cfn-lint", "--regions", "ap-northeast-1", "--template", PROJECT / "templates/drift-events.yaml")
    run(TOOLS / "lint/bin/checkov", "-f", "templates/drift-events.yaml", "--config-file", ".checkov.yaml")
