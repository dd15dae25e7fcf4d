"""Steps in both directions on the local stack: each function contains, and releases what it has contained."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

from support.stack import ACCOUNT, LocalStack
from support.victim import Victim, build_victims, differences, scaling_of, scaling_sizes, snapshot_of_world

# In the order of the containment; a release goes the other way, with the Auto Scaling group last of all.
STEPS = (
    "isolate-network", "deregister-targets", "protect-instance", "preserve-volumes", "tag-resources", "create-flow-logs",
    "revoke-credentials", "detach-profile",
)  # fmt: skip
GROUP = "detach-autoscaling"
CASES = itertools.count(1)


def invoke(stack: LocalStack, name: str, payload: dict[str, Any], seconds: float = 40) -> dict[str, Any]:
    """A step's outcome once it has settled, as the workflow asks for it; a failed step's is in its error."""
    machine = stack.outputs["StateMachineArn"].rsplit(":", 1)[1]
    end = time.monotonic() + seconds
    while True:
        answer = stack.client("lambda").invoke(FunctionName=f"{machine}-{name}", Payload=json.dumps(payload))
        said = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            assert said["errorType"] in ("NotContained", "NotReleased"), said
            return {**json.loads(said["errorMessage"]), "Error": said["errorType"]}
        if said.get("Status") != "InProgress" or time.monotonic() > end:
            return said
        time.sleep(0.5)


def target(stack: LocalStack, victim: Victim, **more: Any) -> dict[str, Any]:
    case = {"AccountId": ACCOUNT, "Region": stack.region, "InstanceId": victim.instance, "CaseId": f"{victim.instance}-{next(CASES)}"}
    return {**case, "IncidentTicket": "INC-7", **more}


def contain(stack: LocalStack, victim: Victim) -> dict[str, Any]:
    """A whole containment but for its evidence; answers the case's target."""
    described = invoke(stack, "describe-instance", target(stack, victim))
    case = described["Target"]
    first = {**case, "Registrations": described["Registrations"]}
    said = {name: invoke(stack, name, first if name == GROUP else case) for name in (GROUP, *STEPS)}
    assert {name: one["Status"] for name, one in said.items()} == dict.fromkeys(said, "Done"), said
    return case


def release(stack: LocalStack, case: dict[str, Any], *steps: str, **more: Any) -> dict[str, dict[str, Any]]:
    steps = steps or (*reversed(STEPS), GROUP)
    return {name: invoke(stack, name, {**case, **more, "Release": list(steps)}) for name in steps}


def statuses(said: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: one["Status"] for name, one in said.items()}


def flow_logs(stack: LocalStack, victim: Victim) -> list[str]:
    found = stack.client("ec2").describe_flow_logs()["FlowLogs"]
    return sorted(log["FlowLogId"] for log in found if log["ResourceId"] in victim.interfaces)


def world(stack: LocalStack, victim: Victim) -> dict[str, Any]:
    return {**snapshot_of_world(stack, victim), "FlowLogs": flow_logs(stack, victim)}


def delete_target_group(elb: Any, arn: str) -> None:
    """With the listeners that forward to it, which would keep it."""
    (group,) = elb.describe_target_groups(TargetGroupArns=[arn])["TargetGroups"]
    for balancer in group["LoadBalancerArns"]:
        for listener in elb.describe_listeners(LoadBalancerArn=balancer)["Listeners"]:
            if any(action.get("TargetGroupArn") == arn for action in listener["DefaultActions"]):
                elb.delete_listener(ListenerArn=listener["ListenerArn"])
    elb.delete_target_group(TargetGroupArn=arn)


def test_contained_and_released_twice_an_instance_is_what_it_was_but_for_the_tag_that_says_so(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    scaling = stack.client("autoscaling")
    scaling.set_instance_protection(AutoScalingGroupName=victim.auto_scaling_group, InstanceIds=[victim.instance], ProtectedFromScaleIn=True)
    before, size = world(stack, victim), scaling_sizes(stack, victim.auto_scaling_group)
    for _ in range(2):
        case = contain(stack, victim)
        contained = world(stack, victim)
        assert not before["FlowLogs"] and contained["FlowLogs"] and contained["Groups"] != before["Groups"]

        planned = release(stack, case, DryRun=True)
        assert statuses(planned) == dict.fromkeys(planned, "Planned") and world(stack, victim) == contained
        said = release(stack, case)
        assert statuses(said) == dict.fromkeys(said, "Done"), said
        assert differences(before, world(stack, victim)) == [(f"Tags {victim.instance} CordonReleased", None, case["CaseId"])]
        groups = {one["Resource"]: (one["Before"], one["After"]) for one in said["isolate-network"]["Changes"]}
        assert groups == {name: (contained["Groups"][name], before["Groups"][name]) for name in victim.interfaces}
        assert victim.instance in scaling_sizes(stack, victim.auto_scaling_group)["Members"]

        since = time.time()
        again = release(stack, case)
        assert statuses(again) == dict.fromkeys(again, "Done") and not any(one["Changes"] for one in again.values()), again
        assert stack.changes(since) == []
    assert scaling_sizes(stack, victim.auto_scaling_group)["MaxSize"] == size["MaxSize"]


def test_an_instance_that_was_in_standby_is_in_standby_again_and_its_group_wants_as_many_as_before(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    group = {"AutoScalingGroupName": victim.auto_scaling_group}
    stack.client("autoscaling").enter_standby(InstanceIds=[victim.instance], ShouldDecrementDesiredCapacity=True, **group)
    before, size = scaling_of(stack, victim), scaling_sizes(stack, victim.auto_scaling_group)
    case = target(stack, victim)
    assert before["LifecycleState"] == "Standby" and invoke(stack, GROUP, case)["Status"] == "Done" and scaling_of(stack, victim) is None
    assert release(stack, case, GROUP)[GROUP]["Status"] == "Done"
    assert (scaling_of(stack, victim), scaling_sizes(stack, victim.auto_scaling_group)) == (before, size)


def test_what_somebody_did_while_it_was_contained_is_no_part_of_what_comes_back(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    ec2, elb, data = stack.client("ec2"), stack.client("elbv2"), victim.volumes["/dev/sdf"]
    protected = lambda on: ec2.modify_instance_attribute(InstanceId=victim.instance, DisableApiTermination={"Value": on})
    deleted = lambda yes: ec2.modify_instance_attribute(
        InstanceId=victim.instance, BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"DeleteOnTermination": yes}}]
    )
    protected(True)
    deleted(False)
    before = world(stack, victim)
    case = contain(stack, victim)
    protected(False)
    deleted(True)
    elb.register_targets(TargetGroupArn=victim.instance_target_group, Targets=[{"Id": victim.instance, "Port": 4444}])
    repaired = {name: invoke(stack, name, case) for name in ("protect-instance", "preserve-volumes", "deregister-targets")}
    named = {(change["Resource"], str(change["Before"])) for one in repaired.values() for change in one["Changes"]}
    assert {(victim.instance, "false"), (data, "True")} <= named and any(group == victim.instance_target_group for group, _ in named), named
    said = release(stack, case)
    assert differences(before, world(stack, victim)) == [(f"Tags {victim.instance} CordonReleased", None, case["CaseId"])]
    assert any("was added while the instance was contained" in risk for risk in said["deregister-targets"]["ResidualRisk"]), said


def test_what_was_never_contained_or_is_not_asked_for_is_left_alone(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    before = world(stack, victim)
    never = release(stack, target(stack, victim))
    assert {one["Reason"] for one in never.values()} == {"this case changed nothing here"} and world(stack, victim) == before
    case = contain(stack, victim)
    contained = world(stack, victim)
    other = invoke(stack, "isolate-network", {**case, "Release": ["tag-resources"]})
    assert other["Status"] == "NotApplicable" and "not among the steps" in other["Reason"]
    assert invoke(stack, "create-snapshots", {**case, "Release": ["create-snapshots"]})["Status"] == "NotApplicable"
    assert world(stack, victim) == contained


def test_what_can_no_longer_be_restored_is_named_with_its_command_and_the_rest_goes_on(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    ec2, elb, scaling = stack.client("ec2"), stack.client("elbv2"), stack.client("autoscaling")
    case = contain(stack, victim)
    partner = victim.interfaces[1]
    old = [change["Before"] for change in invoke(stack, "isolate-network", case)["Changes"] if change["Resource"] == partner][0]
    ec2.delete_security_group(GroupId=old[0])
    data = victim.volumes["/dev/sdf"]
    ec2.detach_volume(VolumeId=data, InstanceId=victim.instance)
    delete_target_group(elb, victim.ip_target_group)
    size = scaling_sizes(stack, victim.auto_scaling_group)
    scaling.update_auto_scaling_group(AutoScalingGroupName=victim.auto_scaling_group, MaxSize=size["DesiredCapacity"])
    tags = [{"Key": "SecurityIncidentStatus", "Value": "Closed"}]
    ec2.create_tags(Resources=[victim.instance], Tags=tags)

    said = release(stack, case)
    whole = {"protect-instance", "tag-resources", "create-flow-logs", "revoke-credentials", "detach-profile"}
    assert statuses(said) == {name: "Done" if name in whole else "Unsupported" for name in said}, said
    after = world(stack, victim)
    assert after["Groups"][victim.interfaces[0]] == [victim.open_group] and after["Groups"][partner] != old
    assert f"--network-interface-id {partner} --groups NEW-GROUP`" in said["isolate-network"]["Reason"]
    assert f"{data} is no longer attached" in said["preserve-volumes"]["Reason"]
    assert f"--target-group-arn {victim.ip_target_group}" in said["deregister-targets"]["Reason"]
    assert "is full" in said[GROUP]["Reason"] and "`aws autoscaling attach-instances" in said[GROUP]["Reason"]
    assert after["Targets"] and all(victim.instance in one for one in after["Targets"]) and after["ClassicLoadBalancers"]
    assert after["Tags"][victim.instance]["SecurityIncidentStatus"] == "Closed" and "CordonCase" not in after["Tags"][victim.instance]
    assert "CordonCase" not in after["Tags"][data], "a volume that was detached is untagged all the same"
    assert after["Profile"].endswith(f"/{victim.profile}")
