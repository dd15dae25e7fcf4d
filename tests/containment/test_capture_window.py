"""The window that isolation leaves for a capture, and the sessions that containment ends: the functions as they are deployed."""

from __future__ import annotations

import json
import time
from typing import Any


from support.capture_window import HTTPS, add_endpoints, groups_of, invoke, isolate, target, window_rules
from support.containment import groups_named, isolated, journal
from support.stack import LocalStack
from support.victim import Victim, build_victims, rules_by_interface


def verified(stack: LocalStack, victim: Victim, said: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The row that the verifier makes of isolation."""
    described = {"Target": target(stack, victim, **more), "Facts": {}, "Outcome": {"Step": "describe-instance", "Status": "Done"}}
    report = invoke(stack, "verify-containment", {"Described": described, "Outcomes": [[said]]})
    return next(step for step in report["Steps"] if step["Step"] == "isolate-network") | {"Verdict": report["Verdict"]}


def test_a_window_is_open_to_the_vpcs_own_endpoints_and_nothing_else_until_it_is_closed(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    peers = [add_endpoints(stack, victim, number) for number in (0, 1)]
    opened = isolate(stack, victim, window=True)
    assert opened["Status"] == "Done", opened
    assert set(map(tuple, groups_of(stack, victim).values())) == {("cordon-capture",)}
    assert rules_by_interface(stack, victim) == {eni: window_rules(those) for eni, those in zip(victim.interfaces, peers)}
    risks = " ".join(opened["ResidualRisk"])
    assert all(f"until the capture ends, {eni} can reach tcp/443" in risks for eni in victim.interfaces), risks
    assert verified(stack, victim, opened, CaptureWindow=True)["Status"] == "Failed", "an open window is not contained, whoever asks"

    now = time.time()
    closed = isolate(stack, victim, window=False)
    assert closed["Status"] == "Done" and isolated(stack, victim)
    assert "open through the capture window" in " ".join(closed["ResidualRisk"])
    changes = [call for call in stack.changes(now) if call["Service"] == "ec2"]
    assert {call["Action"] for call in changes} == {"ModifyNetworkInterfaceAttribute"} and len(changes) == len(victim.interfaces)
    row = verified(stack, victim, closed, CaptureWindow=True)
    assert row["Status"] == "Done" and row["Verdict"] != "NotContained"
    first = journal(stack, victim)[f"journal#{victim.instance}-20261121T030007Z#isolate-network"]
    assert [json.loads(first[f"{eni}|Groups"]) != [] for eni in victim.interfaces] == [True, True]
    before = {change["Resource"]: change["Before"] for change in row["Changes"] if change["Attribute"] == "Groups"}
    assert before == {eni: json.loads(first[f"{eni}|Groups"]) for eni in victim.interfaces}


def test_the_capture_group_is_used_again_and_named_and_tagged_like_the_others(stack: LocalStack) -> None:
    first, second = build_victims(stack, 2)
    add_endpoints(stack, first)
    isolate(stack, first, window=True)
    groups = groups_named(stack, "cordon-capture", first)
    assert list(groups) == [first.vpcs[0]], "a VPC without endpoints gets none"
    assert {"Key": "ManagedBy", "Value": "Cordon"} in groups[first.vpcs[0]]["Tags"]
    now = time.time()
    isolate(stack, second, window=True)
    assert groups_named(stack, "cordon-capture", second)[second.vpcs[0]]["GroupId"] == groups[first.vpcs[0]]["GroupId"]
    assert not [call for call in stack.changes(now) if call["Action"] == "CreateSecurityGroup"]


def test_opening_it_twice_and_closing_it_twice_changes_nothing_the_second_time(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    add_endpoints(stack, victim)
    for window in (True, False):
        isolate(stack, victim, window=window)
        now = time.time()
        again = isolate(stack, victim, window=window)
        assert again["Status"] == "Done" and stack.changes(now) == []
    late = isolate(stack, victim, window=True)
    assert late["Status"] == "Done" and isolated(stack, victim), "a run that comes late opens nothing"
    assert "is isolated, so no window" in " ".join(late["ResidualRisk"])


def test_without_endpoints_the_instance_is_isolated_at_once_and_the_sentence_says_why(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    said = isolate(stack, victim, window=True)
    assert said["Status"] == "Done" and isolated(stack, victim)
    risks = " ".join(said["ResidualRisk"])
    assert f"{victim.vpcs[0]} has no endpoint for ssm, so the host's agent reaches Systems Manager over the Internet" in risks
    assert "CaptureFirst" in risks
    assert groups_named(stack, "cordon-capture", victim) == {}


def test_of_two_interfaces_each_has_the_window_of_its_own_vpc(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    peers = add_endpoints(stack, victim, 0)
    add_endpoints(stack, victim, 1, s3=False)
    said = isolate(stack, victim, window=True)
    assert said["Status"] == "Done"
    first, second = victim.interfaces
    assert groups_of(stack, victim) == {first: ["cordon-capture"], second: ["cordon-isolation"]}
    assert rules_by_interface(stack, victim) == {first: window_rules(peers), second: []}
    assert f"{victim.vpcs[1]} has no endpoint for s3" in " ".join(said["ResidualRisk"])


def test_an_endpoint_that_lets_only_the_workload_in_is_told_with_the_rule_that_is_missing(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    add_endpoints(stack, victim, let_in="192.0.2.0/24")
    said = isolate(stack, victim, window=True)
    assert isolated(stack, victim)
    assert f"lacks the rule ingress tcp 443 from {victim.private_ip}/32" in " ".join(said["ResidualRisk"])


def test_a_capture_group_that_somebody_has_widened_is_repaired_before_anything_is_put_on_it(stack: LocalStack) -> None:
    first, second = build_victims(stack, 2)
    peers = add_endpoints(stack, first)
    isolate(stack, first, window=True)
    ec2, group = stack.client("ec2"), groups_named(stack, "cordon-capture", first)[first.vpcs[0]]["GroupId"]
    everybody = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[everybody])
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[{**HTTPS, "IpRanges": [{"CidrIp": peers[0]}]}])
    said = isolate(stack, second, window=True)
    assert said["Status"] == "Done"
    assert "cordon-capture in" in " ".join(said["ResidualRisk"]) and "ingress -1 0.0.0.0/0" in " ".join(said["ResidualRisk"])
    assert rules_by_interface(stack, second)[second.interfaces[0]] == window_rules(peers)


def test_a_window_that_somebody_has_widened_is_closed_by_way_of_the_conversion_group(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    add_endpoints(stack, victim)
    isolate(stack, victim, window=True)
    group = groups_named(stack, "cordon-capture", victim)[victim.vpcs[0]]["GroupId"]
    everybody = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    stack.client("ec2").authorize_security_group_egress(GroupId=group, IpPermissions=[everybody])
    now = time.time()
    assert isolate(stack, victim, window=False)["Status"] == "Done" and isolated(stack, victim)
    conversion = groups_named(stack, "cordon-conversion", victim)[victim.vpcs[0]]["GroupId"]
    changes = [call["Parameters"] for call in stack.changes(now) if call["Action"] == "ModifyNetworkInterfaceAttribute"]
    assert [call["SecurityGroupId.1"] == conversion for call in changes if call["NetworkInterfaceId"] == victim.interfaces[0]] == [True, False]


def test_endpoints_that_cannot_be_read_do_not_keep_the_instance_connected(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    add_endpoints(stack, victim)
    stack.inject({"Service": "ec2", "Action": "DescribeVpcEndpoints", "Code": "UnauthorizedOperation", "Status": 403})
    said = isolate(stack, victim, window=True)
    assert said["Status"] == "Done" and isolated(stack, victim)
    assert "ec2:DescribeVpcEndpoints" in " ".join(said["ResidualRisk"])


def test_a_dry_run_shows_the_capture_group_that_would_be_made_and_changes_nothing(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    peers, now = add_endpoints(stack, victim), time.time()
    said = invoke(stack, "isolate-network", target(stack, victim, CaptureWindow=True, DryRun=True))
    planned = {(change["Resource"], change["Attribute"]): change["After"] for change in said["Changes"]}
    assert said["Status"] == "Planned" and stack.changes(now) == []
    assert planned[victim.interfaces[0], "Groups"] == ["cordon-capture"]
    assert planned[f"{victim.vpcs[0]} cordon-capture", "Rules"] == sorted(f"egress tcp 443-443 {peer}" for peer in peers)


def test_a_host_that_cannot_be_asked_about_is_contained_without_a_window(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    asked = target(stack, victim, Capture={"Mode": "IsolateFirst"})
    stack.inject({"Service": "ssm", "Action": "DescribeInstanceInformation", "Code": "AccessDeniedException", "Status": 400})
    said = invoke(stack, "describe-instance", asked)
    assert said["Outcome"]["Status"] == "Failed" and "ssm:DescribeInstanceInformation" in said["Outcome"]["Reason"]
    assert "CaptureWindow" not in said["Target"] and said["Target"]["Capture"] == {"Mode": "IsolateFirst", "Memory": False}
    assert said["Facts"]["InstanceType"] and "PingStatus" not in said["Facts"]


def test_where_no_capture_is_asked_for_systems_manager_is_not_asked_about_the_host(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    now = time.time()
    assert invoke(stack, "describe-instance", target(stack, victim))["Outcome"]["Status"] == "Done"
    assert "DescribeInstanceInformation" not in {call["Action"] for call in stack.calls(now)}


def test_without_a_capture_nobody_looks_for_endpoints(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    now = time.time()
    isolate(stack, victim, window=False)
    assert "DescribeVpcEndpoints" not in {call["Action"] for call in stack.calls(now)}


# --- Sessions ----------------------------------------------------------------------------------------------------


def open_sessions(stack: LocalStack, victim: Victim) -> list[str]:
    filters = [{"key": "Target", "value": victim.instance}]
    return [one["SessionId"] for one in stack.client("ssm").describe_sessions(State="Active", Filters=filters)["Sessions"]]


def test_every_session_to_the_host_is_ended_and_its_owner_stays_in_the_case(stack: LocalStack) -> None:
    victim, other = build_victims(stack, 2)
    ssm = stack.client("ssm")
    opened = {ssm.start_session(Target=victim.instance)["SessionId"] for _ in range(2)}
    untouched = ssm.start_session(Target=other.instance)["SessionId"]
    said = invoke(stack, "terminate-sessions", target(stack, victim))
    assert said["Status"] == "Done", said
    assert open_sessions(stack, victim) == [] and open_sessions(stack, other) == [untouched]
    assert {change["Resource"] for change in said["Changes"]} == opened
    for change in said["Changes"]:
        assert change["After"] is None and change["Before"]["Owner"].startswith("arn:aws:") and change["Before"]["StartDate"].endswith("Z")
    again = invoke(stack, "terminate-sessions", target(stack, victim))
    assert (again["Status"], again["Changes"]) == ("Done", said["Changes"])


def test_a_host_without_a_session_has_none_to_end(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    said = invoke(stack, "terminate-sessions", target(stack, victim))
    assert (said["Status"], said["Changes"]) == ("NotApplicable", [])


def test_the_verifier_sees_a_session_that_is_open_again(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    stack.client("ssm").start_session(Target=victim.instance)
    said = invoke(stack, "terminate-sessions", target(stack, victim))
    described = {"Target": target(stack, victim), "Facts": {}, "Outcome": {"Step": "describe-instance", "Status": "Done"}}

    def shown() -> str:
        report = invoke(stack, "verify-containment", {"Described": described, "Outcomes": [[said]]})
        return next(step["Status"] for step in report["Steps"] if step["Step"] == "terminate-sessions")

    assert shown() == "Done"
    stack.client("ssm").start_session(Target=victim.instance)
    assert shown() == "Failed"
