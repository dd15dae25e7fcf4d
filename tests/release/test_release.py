"""Whole releases on the local stack: what was contained is as it was, and nothing else was touched."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as some

from support.account import RELEASED, account_snapshot, without_groups
from emulator.call_record import Call, is_change
from support.cases import cordon_verify, download, public_key
from support.containment import isolated, journal, schema
from support.home_role import allowed
from support.inbox import Inbox, Message
from support.member import MEMBER, deploy_member_role
from support.release import contain, release
from support.stack import ACCOUNT, ON_MOTO, PROJECT, Execution, LocalStack
from support.victim import (
    DATA, PROTECTIONS, ROOT, Fleet, Place, Victim, attach_partner_interface, bare_instance, build_load_balancers, build_network, build_role,
    build_scaling_group, build_victims, describe, differences, groups_by_interface, role_policies_of, run_instance, snapshot_of_world, tags_of,
)  # fmt: skip

ORDER = [
    "revoke-credentials", "detach-profile", "isolate-network", "deregister-targets", "protect-instance", "preserve-volumes",
    "create-flow-logs", "tag-resources", "detach-autoscaling", "close-case", "seal-evidence",
]  # fmt: skip


def case_of(stack: LocalStack, victim: Victim, account: str = ACCOUNT) -> dict[str, Any]:
    return journal(stack, victim, account)["case"]


def changes_of(stack: LocalStack, since: float) -> list[Call]:
    """The calls by which the product changed anything, but for reading and telling."""
    quiet = ("sns", "logs", "lambda", "states", "sts", "xray", "events", "sqs")
    return [call for call in stack.calls(since) if is_change(call) and call["Caller"] and call["Service"] not in quiet]


@dataclass(frozen=True)
class Released:
    """A containment and its release, with what everybody was told, and the account before and after."""

    victim: Victim
    before: dict[str, Any]
    contained: dict[str, Any]
    after: dict[str, Any]
    containment: Execution
    execution: Execution
    told: list[Message]
    calls: list[Call]


@pytest.fixture(scope="module")
def released(stack: LocalStack) -> Released:
    (victim,) = build_victims(stack)
    inbox, before = Inbox(stack), account_snapshot(stack)
    containment = contain(stack, victim)
    contained, since = account_snapshot(stack), time.time()
    execution = release(stack, victim, IncidentTicket="INC-7")
    told = [*inbox.wait(containment.arn, 2), *inbox.wait(execution.arn)]
    return Released(victim, before, contained, account_snapshot(stack), containment, execution, told, stack.calls(since))


# --- A false alarm -----------------------------------------------------------------------------------------------


def test_a_release_leaves_the_account_as_it_was_before_the_containment(released: Released) -> None:
    assert released.execution.status == "SUCCEEDED", released.execution.cause
    assert released.execution.instance(released.victim.instance)["Verdict"] == "Released"
    before, after = without_groups(released.before), without_groups(released.after)
    assert differences(before, without_groups(released.contained)), "it was contained in between"
    assert differences(before, after) == []


def test_the_group_is_left_alone_and_the_output_says_so_and_how_to_go_back(released: Released) -> None:
    group = released.after["AutoScalingGroups"][released.victim.auto_scaling_group]
    assert released.victim.instance not in group["Members"]
    step = released.execution.step(released.victim.instance, "detach-autoscaling")
    assert step["Status"] == "NotApplicable" and '"AttachAutoScaling": true' in step["Reason"], step


def test_the_output_is_as_the_schema_says_with_every_step_in_order_before_and_after(released: Released) -> None:
    jsonschema.validate(released.execution.outcome, schema("output"))
    one = released.execution.instance(released.victim.instance)
    assert [step["Step"] for step in one["Steps"]] == ORDER
    network = released.execution.step(released.victim.instance, "isolate-network")
    assert {change["Resource"] for change in network["Changes"]} == set(released.victim.interfaces)
    assert all(change["After"] != change["Before"] for change in network["Changes"])
    assert all(step["Began"] <= step["Ended"] for step in one["Steps"] if step["Step"] in ORDER[:9])


def test_the_instance_has_a_tag_that_says_from_which_case_it_was_released(stack: LocalStack, released: Released) -> None:
    case = released.execution.instance(released.victim.instance)["CaseId"]
    assert tags_of(stack, [released.victim.instance])[released.victim.instance][RELEASED] == case


def test_the_case_is_closed_and_says_by_which_execution_and_when(stack: LocalStack, released: Released) -> None:
    case = case_of(stack, released.victim)
    assert (case["Status"], case["ReleasedBy"], case["Verdict"]) == ("Released", released.execution.arn, "Released")
    assert case["ReleasedAt"].endswith("Z")
    assert any(record.startswith(f"journal#{case['CaseId']}#") for record in journal(stack, released.victim)), "the journal stays"


def test_the_sealed_case_says_that_and_how_it_was_released_and_is_intact(stack: LocalStack, released: Released, tmp_path: Path) -> None:
    one = released.execution.instance(released.victim.instance)
    prefix = f"cases/{ACCOUNT}/{stack.region}/{one['CaseId']}/"
    folder = download(stack, prefix, tmp_path / "case")
    checked = cordon_verify(folder, public_key(stack, tmp_path))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    jsonschema.validate(manifest, json.loads((PROJECT / "docs" / "manifest.schema.json").read_text(encoding="utf-8")))
    assert (manifest["Verdict"], manifest["Release"]["CaseClosed"], manifest["Release"]["Execution"]) == ("Released", True, released.execution.arn)
    assert "isolate-network" in {step["Step"] for step in manifest["Steps"]}, "the containment stays in it"
    assert "verify-release" in {item["Name"].rsplit("-", 1)[0] for item in manifest["Evidence"]}
    assert manifest["Previous"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<h1><span class="en" lang="en">Released</span>' in page and released.execution.arn in page


def test_somebody_is_told_and_the_containments_own_message_said_how_to_undo_it(stack: LocalStack, released: Released) -> None:
    schema_ = json.loads((PROJECT / "docs" / "notification.schema.json").read_text(encoding="utf-8"))
    by_kind = {message.kind: message for message in released.told}
    assert set(by_kind) == {"ContainmentStarted", "Contained", "Released"}
    for message in released.told:
        jsonschema.validate(message.record, schema_)
    starts = [line.strip() for line in by_kind["Contained"].email.splitlines() if "start-execution" in line]
    (undo,) = [line for line in starts if stack.outputs["ReleaseStateMachineArn"] + " " in line]
    assert released.victim.instance in undo
    assert released.victim.instance in by_kind["Released"].record["Headline"]


def test_the_verifier_makes_exactly_the_reads_that_its_role_allows(released: Released) -> None:
    reads = {
        f"{PREFIXES.get(call['Service'], call['Service'])}:{call['Action']}"
        for call in released.calls if call["Service"] in ON_MOTO and (call["Caller"] or "").endswith("-verify-release") and call["Service"] != "sts"
    }  # fmt: skip
    assert reads == {action for action in allowed("verify-release") if action.split(":")[0] in ("ec2", "iam", "autoscaling", "elasticloadbalancing")}


PREFIXES = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing"}


def test_a_second_release_says_when_and_by_whom_it_was_released_and_changes_nothing(stack: LocalStack, released: Released) -> None:
    since = time.time()
    again = release(stack, released.victim)
    assert (again.status, again.outcome["Verdict"]) == ("SUCCEEDED", "NothingToRelease")
    (left,) = again.outcome["LeftOut"]
    assert released.execution.arn in left["Reason"] and case_of(stack, released.victim)["ReleasedAt"] in left["Reason"]
    assert changes_of(stack, since) == []
    jsonschema.validate(again.outcome, schema("output"))


# --- Nothing to do, and what is refused --------------------------------------------------------------------------


def test_what_was_never_contained_has_nothing_to_release_and_is_not_touched(stack: LocalStack) -> None:
    victim, inbox = bare_instance(stack), Inbox(stack)
    since = time.time()
    execution = release(stack, victim)
    assert (execution.status, execution.outcome["Verdict"]) == ("SUCCEEDED", "NothingToRelease")
    assert "never contained" in execution.outcome["LeftOut"][0]["Reason"]
    assert changes_of(stack, since) == [] and not journal(stack, victim)
    (message,) = inbox.wait(execution.arn)
    assert message.kind == "NothingToRelease" and "start-execution" not in message.email
    elsewhere = release(stack, victim, Region="eu-west-1")
    assert elsewhere.outcome["Verdict"] == "NothingToRelease" and elsewhere.outcome["LeftOut"][0]["Region"] == "eu-west-1"


def test_bad_input_is_refused_in_one_sentence_and_told_as_a_release_that_released_nothing(stack: LocalStack) -> None:
    inbox = Inbox(stack)
    execution = release(stack, bare_instance(stack), Steps=["create-snapshots"])
    assert (execution.status, execution.error) == ("FAILED", "InvalidInput")
    assert execution.cause.startswith('Steps[0]: "create-snapshots" is not accepted; accepted: a list of one or more of revoke-credentials')
    (message,) = inbox.wait(execution.arn)
    assert message.kind == "ExecutionFailed" and "released nothing" in message.record["Headline"]


# --- In parts, and again -----------------------------------------------------------------------------------------


def test_a_dry_run_a_part_the_rest_and_the_next_case_each_do_what_they_say(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    before = account_snapshot(stack)
    contain(stack, victim)
    contained, first = account_snapshot(stack), case_of(stack, victim)

    since = time.time()
    dry = release(stack, victim, DryRun=True)
    assert (dry.status, dry.outcome["Verdict"]) == ("SUCCEEDED", "Planned"), dry.cause
    assert any(change["After"] for change in dry.step(victim.instance, "isolate-network")["Changes"])
    assert changes_of(stack, since) == [] and differences(contained, account_snapshot(stack)) == []
    assert case_of(stack, victim) == first

    inbox = Inbox(stack)
    part = release(stack, victim, Steps=["isolate-network", "tag-resources"])
    assert (part.status, part.outcome["Verdict"]) == ("SUCCEEDED", "PartiallyReleased"), part.cause
    now = snapshot_of_world(stack, victim)
    assert now["Profile"] is None and not now["Targets"], "nobody asked for these"
    assert groups_by_interface(stack, victim) == {id_: before["Interfaces"][id_]["Groups"] for id_ in victim.interfaces}
    stays_open = part.step(victim.instance, "close-case")
    assert stays_open["Status"] == "NotApplicable" and "revoke-credentials" in stays_open["Reason"] and "isolate-network" not in stays_open["Reason"]
    assert part.step(victim.instance, "detach-profile")["Reason"].startswith("not asked for: ")
    assert case_of(stack, victim)["Status"] == "Open"
    (message,) = inbox.wait(part.arn)
    assert message.kind == "PartiallyReleased" and stack.outputs["ReleaseStateMachineArn"] in message.email

    rest = release(stack, victim, AttachAutoScaling=True)
    assert (rest.status, rest.outcome["Verdict"]) == ("SUCCEEDED", "Released"), rest.cause
    assert differences(before, account_snapshot(stack)) == [], "its Auto Scaling group included"
    assert case_of(stack, victim)["Status"] == "Released"

    contain(stack, victim)
    second = case_of(stack, victim)
    assert second["CaseId"] != first["CaseId"] and second["Status"] == "Open" and isolated(stack, victim)
    last = release(stack, victim, AttachAutoScaling=True)
    assert (last.status, last.outcome["Verdict"]) == ("SUCCEEDED", "Released"), last.cause
    assert differences(before, account_snapshot(stack)) == []
    journals = {record.split("#")[1] for record in journal(stack, victim) if record.startswith("journal#")}
    assert journals == {first["CaseId"], second["CaseId"]}, "each case has a journal of its own"


# --- What can no longer be restored ------------------------------------------------------------------------------


def test_a_deleted_group_is_named_with_the_command_and_everything_else_is_restored(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    ec2, inbox = stack.client("ec2"), Inbox(stack)
    gone = ec2.create_security_group(GroupName=f"{victim.instance}-old", Description="old", VpcId=victim.vpcs[0])["GroupId"]
    ec2.modify_network_interface_attribute(NetworkInterfaceId=victim.interfaces[0], Groups=[victim.open_group, gone])
    before = account_snapshot(stack)
    contain(stack, victim)
    ec2.delete_security_group(GroupId=gone)

    execution = release(stack, victim)
    assert (execution.status, execution.error) == ("FAILED", "PartiallyReleased")
    network = execution.step(victim.instance, "isolate-network")
    assert network["Status"] in ("Unsupported", "Failed") and gone in network["Reason"] and "aws ec2 modify-network-interface-attribute" in network["Reason"]
    assert execution.cause.count(gone) >= 1, "the table names it"
    statuses = {step["Step"]: step["Status"] for step in execution.instance(victim.instance)["Steps"]}
    assert all(statuses[step] in ("Done", "NotApplicable") for step in ORDER if step not in ("isolate-network", "detach-autoscaling")), statuses
    assert case_of(stack, victim)["Status"] == "Open"
    (message,) = inbox.wait(execution.arn)
    assert message.kind == "PartiallyReleased" and gone in message.email and stack.outputs["ReleaseStateMachineArn"] in message.email

    ec2.modify_network_interface_attribute(NetworkInterfaceId=victim.interfaces[0], Groups=[victim.open_group])
    closed = release(stack, victim, CloseCase=True)
    assert closed.step(victim.instance, "close-case")["Status"] == "Done"
    assert case_of(stack, victim)["Status"] == "Released"
    left = differences(without_groups(before), without_groups(account_snapshot(stack)))
    assert all(gone in json.dumps([was, now]) or gone in path for path, was, now in left), left


# --- Others ------------------------------------------------------------------------------------------------------


def test_another_instance_of_the_same_role_stays_contained_and_a_running_containment_is_not_disturbed(stack: LocalStack) -> None:
    one, other = build_victims(stack, 2)
    document = {"InstanceIds": [one.instance, other.instance], "Region": stack.region, "AutoScaling": "Decrement"}
    running = stack.begin(document)
    deadline = time.monotonic() + 60
    while "case" not in journal(stack, one) and time.monotonic() < deadline:
        time.sleep(0.05)
    early = release(stack, one)
    assert (early.status, early.error) == ("FAILED", "NotReleased")
    assert running in early.cause and "holds its case" in early.cause
    containment = stack.wait(running, 240)
    assert containment.status == "SUCCEEDED", containment.cause
    assert case_of(stack, one)["Execution"] == running

    kept = snapshot_of_world(stack, other)
    denies = set(role_policies_of(stack, one))
    execution = release(stack, one)
    assert execution.status == "SUCCEEDED", execution.cause
    left = role_policies_of(stack, one)
    assert {name for name in denies - set(left) if one.instance in name} and {name for name in left if other.instance in name}
    after = snapshot_of_world(stack, other)
    policies = kept.pop("RolePolicies"), after.pop("RolePolicies")
    assert after == kept and isolated(stack, other) and set(policies[0]) - set(policies[1]) == denies - set(left)
    assert case_of(stack, other)["Status"] == "Open"


def test_an_instance_of_a_member_account_is_released_through_the_same_role(stack: LocalStack) -> None:
    deploy_member_role(stack, MEMBER, SnapshotKeyArn=stack.outputs["KeyArn"])
    member = stack.elsewhere(MEMBER)
    (victim,) = build_victims(member)
    before = account_snapshot(member)
    contain(stack, victim, account=MEMBER)
    execution = release(stack, victim, AccountId=MEMBER, AttachAutoScaling=True)
    assert (execution.status, execution.outcome["Verdict"]) == ("SUCCEEDED", "Released"), execution.cause
    assert differences(before, account_snapshot(member)) == []


# --- Any instance ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """An instance as somebody may have built it."""

    interfaces: int
    extra_groups: int
    profile: bool
    data_volume: bool
    goes_with_it: tuple[bool, bool]  # its volumes, its interfaces
    protections: tuple[bool, bool, str]  # from termination, from stopping, on shutdown
    ports: frozenset[int]
    by_address: bool
    classic: bool
    member: bool
    protected_from_scale_in: bool
    tags: dict[str, str]


# Two of the names are those of incident tags, which containment overwrites.
NAMES = some.sampled_from(["Owner", "Evidence", "Service", "名前"])
SHAPES = some.builds(
    Shape,
    interfaces=some.integers(1, 2), extra_groups=some.integers(0, 2), profile=some.booleans(), data_volume=some.booleans(),
    goes_with_it=some.tuples(some.booleans(), some.booleans()),
    protections=some.tuples(some.booleans(), some.booleans(), some.sampled_from(["stop", "terminate"])),
    ports=some.frozensets(some.sampled_from([80, 8080, 9090]), max_size=3), by_address=some.booleans(), classic=some.booleans(),
    member=some.booleans(), protected_from_scale_in=some.booleans(),
    tags=some.dictionaries(NAMES, some.sampled_from(["payments", "はい", "No"]), max_size=3),
)  # fmt: skip


@pytest.fixture(scope="module")
def fleet(stack: LocalStack) -> Iterator[Fleet]:
    shared = Fleet(f"any-{int(time.time()) % 100000}")
    for build in (build_network, build_role, build_load_balancers):
        build(stack, shared)
    build_scaling_group(stack, shared, 20)
    yield shared


def build(place: Place, fleet: Fleet, shape: Shape) -> Victim:
    ec2 = place.client("ec2")
    devices = [ROOT, DATA] if shape.data_volume else [ROOT]
    instance = run_instance(place, fleet, fleet.name, devices, profile=fleet.profile if shape.profile else None)
    if shape.interfaces == 2:
        attach_partner_interface(place, fleet, instance)
    victim = describe(place, fleet, instance)
    groups = [ec2.create_security_group(GroupName=f"{instance}-{n}", Description="more", VpcId=fleet.vpc)["GroupId"] for n in range(shape.extra_groups)]
    if groups:
        ec2.modify_network_interface_attribute(NetworkInterfaceId=victim.interfaces[0], Groups=[fleet.group, *groups])
    volumes_go, interfaces_go = shape.goes_with_it
    for device in victim.volumes:
        setting = [{"DeviceName": device, "Ebs": {"DeleteOnTermination": volumes_go}}]
        ec2.modify_instance_attribute(InstanceId=instance, BlockDeviceMappings=setting)
    for one in ec2.describe_network_interfaces(NetworkInterfaceIds=list(victim.interfaces))["NetworkInterfaces"]:
        setting = {"AttachmentId": one["Attachment"]["AttachmentId"], "DeleteOnTermination": interfaces_go}
        ec2.modify_network_interface_attribute(NetworkInterfaceId=one["NetworkInterfaceId"], Attachment=setting)
    for attribute, value in zip(PROTECTIONS, shape.protections):
        name = attribute[0].upper() + attribute[1:]
        ec2.modify_instance_attribute(InstanceId=instance, **{name: {"Value": value}})
    if shape.tags:
        tags = [{"Key": key, "Value": value} for key, value in shape.tags.items()]
        ec2.create_tags(Resources=[instance, *victim.volumes.values()], Tags=tags)
    if shape.member:
        group = {"AutoScalingGroupName": fleet.scaling, "InstanceIds": [instance]}
        place.client("autoscaling").attach_instances(**group)
        place.client("autoscaling").set_instance_protection(**group, ProtectedFromScaleIn=shape.protected_from_scale_in)
    targets = [{"Id": instance, "Port": port} for port in sorted(shape.ports)]
    if targets:
        place.client("elbv2").register_targets(TargetGroupArn=fleet.instance_targets, Targets=targets)
    if shape.by_address:
        place.client("elbv2").register_targets(TargetGroupArn=fleet.ip_targets, Targets=[{"Id": victim.private_ip, "Port": 80}])
    if shape.classic:
        place.client("elb").register_instances_with_load_balancer(LoadBalancerName=fleet.classic, Instances=[{"InstanceId": instance}])
    return victim


# Each example is a containment and a release of several instances; nothing is shrunk, since each step would take as long.
@settings(
    max_examples=2, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(shapes=some.lists(SHAPES, min_size=3, max_size=3))
def test_whatever_the_instance_is_like_containing_and_releasing_it_leaves_the_account_as_it_was(
    stack: LocalStack, fleet: Fleet, shapes: list[Shape]
) -> None:
    victims = [build(stack, fleet, shape) for shape in shapes]
    before = account_snapshot(stack)
    contain(stack, *victims)
    assert all(isolated(stack, victim) for victim in victims)
    execution = release(stack, *victims, AttachAutoScaling=True)
    for victim, shape in zip(victims, shapes):
        note(f"{victim.instance}: {shape}")
    assert (execution.status, execution.outcome.get("Verdict")) == ("SUCCEEDED", "Released"), execution.cause
    assert differences(before, account_snapshot(stack)) == []
