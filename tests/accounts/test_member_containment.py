"""Whole containments in other accounts than Cordon's own, through the role of member-account.yaml."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Iterator

import jsonschema
import pytest

from emulator.call_record import Call
from support.capture_window import add_endpoints, isolate, window_rules
from support.containment import evidence, isolated, journal, schema
from support.findings import attack_sequence, guardduty_finding
from support.iam import listed, steps_of
from support.member import EXTERNAL_ID, MEMBER, NO_ROLE, OTHER_ID, ROLE, STRANGER, deploy_member_role
from support.member_role import acting, statements
from support.recorded_calls import session_tags, step_name
from support.stack import ACCOUNT, ON_MOTO, Execution, LocalStack
from support.victim import Victim, bare_instance, build_victims, rules_by_interface, snapshot_of_world

ELSEWHERE = "eu-west-1"
NO_INSTANCE = "i-0123456789abcdef0"
# No forensic account is configured here, so that these call nothing; test_forensic.py is about them.
FORENSIC_STEPS = {"share-snapshots", "copy-snapshots"}
# Nobody asks for these here.
ON_REQUEST = {"capture-volatile", "hash-snapshots", "prepare-fleet", "verify-release"}


@pytest.fixture(scope="module")
def roles(stack: LocalStack) -> None:
    deploy_member_role(stack, MEMBER, SnapshotKeyArn=stack.outputs["KeyArn"])
    deploy_member_role(stack, OTHER_ID, ExternalId="somebody-else")


@dataclass(frozen=True)
class Contained:
    """A containment in the member account, from both sides of it."""

    victim: Victim
    before: dict[str, Any]
    execution: Execution
    after: dict[str, Any]
    calls: list[Call]

    def on_the_ec2_side(self) -> list[Call]:
        return [call for call in self.calls if call["Service"] in ON_MOTO and call["Service"] != "sts"]

    def sessions(self) -> list[Call]:
        return [call for call in self.calls if call["Action"] == "AssumeRole"]


@pytest.fixture(scope="module")
def contained(stack: LocalStack, roles: None) -> Contained:
    member = stack.elsewhere(MEMBER)
    (victim,) = build_victims(member)
    before, since = snapshot_of_world(member, victim), time.time()
    execution = stack.run({"InstanceIds": [victim.instance], "Region": stack.region, "AccountId": MEMBER, "IncidentTicket": "INC-7"})
    return Contained(victim, before, execution, snapshot_of_world(member, victim), stack.calls(since))


@dataclass(frozen=True)
class UnderWay:
    """Containments that were begun together, so that they take their seconds side by side: each an execution and its victims."""

    second_region: tuple[str, Victim]
    delegated: tuple[str, Victim]
    sequence: tuple[str, dict[str, Victim]]  # by account
    without_role: tuple[str, dict[str, Victim]]


@pytest.fixture(scope="module")
def under_way(stack: LocalStack, contained: Contained) -> Iterator[UnderWay]:
    """After the one whose calls are looked at. A finding leads to containment, however many there were in this hour."""
    there, member = stack.elsewhere(MEMBER, ELSEWHERE), stack.elsewhere(MEMBER)
    of_region, of_finding = build_victims(there)[0], bare_instance(member)
    of_sequence = {account: bare_instance(stack.elsewhere(account)) for account in (ACCOUNT, MEMBER, STRANGER)}
    of_others = {account: bare_instance(stack.elsewhere(account)) for account in (NO_ROLE, OTHER_ID, ACCOUNT)}
    with stack.reconfigured("intake", RESPONSE_MODE="Contain", INSTANCES_PER_HOUR="1000"):
        yield UnderWay(
            (stack.begin({"InstanceIds": [of_region.instance], "Region": ELSEWHERE, "AccountId": MEMBER}), of_region),
            (respond(stack, guardduty_finding(of_finding.instance, account=MEMBER)), of_finding),
            *((respond(stack, attack_sequence(*named(stack, victims))), victims) for victims in (of_sequence, of_others)),
        )


def named(stack: LocalStack, victims: dict[str, Victim]) -> list[tuple[str, str, str]]:
    return [(account, stack.region, victim.instance) for account, victim in victims.items()]


def respond(stack: LocalStack, event: dict[str, Any]) -> str:
    """The execution that the event starts."""
    known = stack.executions()
    stack.put_event(event)
    return stack.new_execution(known)


def test_an_instance_of_a_member_account_is_contained_and_that_account_shows_it(stack: LocalStack, contained: Contained) -> None:
    victim, before, after = contained.victim, contained.before, contained.after
    assert contained.execution.status == "SUCCEEDED", contained.execution.cause
    outcome = contained.execution.instance(victim.instance)
    assert (outcome["Verdict"], outcome["AccountId"]) == ("Contained", MEMBER)
    assert isolated(stack.elsewhere(MEMBER), victim)
    assert before["AutoScaling"]["LifecycleState"] == "InService" and after["AutoScaling"] is None
    assert before["Targets"] and after["Targets"] == []
    assert before["ClassicLoadBalancers"] and after["ClassicLoadBalancers"] == []
    assert after["Protection"] == {"disableApiTermination": True, "disableApiStop": True, "instanceInitiatedShutdownBehavior": "stop"}
    assert not any(after["VolumesDeletedWithInstance"].values()) and not any(after["InterfacesDeletedWithInstance"].values())
    assert before["Profile"] and after["Profile"] is None
    assert f"cordon-deny-{victim.instance}" in after["RolePolicies"]
    encrypted = [one for one in after["Snapshots"].values() if one["Encrypted"] and one["State"] == "completed"]
    assert {one["Tags"]["VolumeId"] for one in encrypted} == set(victim.volumes.values())
    for resource in (victim.instance, *victim.volumes.values()):
        assert after["Tags"][resource] | {"SecurityIncidentStatus": "Investigation", "IncidentTicket": "INC-7"} == after["Tags"][resource]
    jsonschema.validate(contained.execution.output, schema("output"))


def test_the_encrypted_copies_in_the_member_account_are_under_the_key_at_home(stack: LocalStack, contained: Contained) -> None:
    copies = [one for one in contained.after["Snapshots"].values() if "SourceSnapshotId" in one["Tags"]]
    assert [one["KmsKeyId"] for one in copies] == [stack.outputs["KeyArn"]]


def test_the_instance_is_touched_in_its_own_account_only_and_its_case_is_kept_at_home(stack: LocalStack, contained: Contained) -> None:
    touching = contained.on_the_ec2_side()
    assert {call["Account"] for call in touching} == {MEMBER} and {call["Region"] for call in touching if call["Service"] not in ("iam", "cloudtrail")} == {stack.region}
    at_home = [call for call in contained.calls if call["Service"] not in ON_MOTO]
    assert {call["Account"] for call in at_home} == {ACCOUNT} and {"dynamodb", "s3"} <= {call["Service"] for call in at_home}
    victim = contained.victim
    outcome, kept = contained.execution.instance(victim.instance), journal(stack, victim, MEMBER)
    assert (kept["case"]["CaseId"], kept["case"]["Verdict"]) == (outcome["CaseId"], "Contained") and journal(stack, victim) == {}
    groups = kept[f"journal#{outcome['CaseId']}#isolate-network"]
    assert {eni: json.loads(groups[f"{eni}|Groups"]) for eni in victim.interfaces} == contained.before["Groups"]
    assert set(evidence(stack, victim, MEMBER)) == {"describe-instance", "describe-network", "collect-facts", "verify-containment", "manifest.json"}
    assert {pointer["Bucket"] for pointer in outcome["Evidence"]} == {stack.outputs["EvidenceBucketName"]}


def test_every_session_in_the_member_account_is_for_one_step_and_one_instance(contained: Contained) -> None:
    assert {step_name(call) for call in contained.sessions()} == acting() - FORENSIC_STEPS - ON_REQUEST
    assert {call["Caller"] for call in contained.on_the_ec2_side()} <= {call["Caller"] for call in contained.sessions()}
    for call in contained.sessions():
        assert call["Account"] == ACCOUNT and call["Error"] is None
        assert session_tags(call) == {"CordonStep": step_name(call), "CordonInstance": contained.victim.instance}
        given = call["Parameters"]
        assert (given["RoleArn"], given["ExternalId"]) == (f"arn:aws:iam::{MEMBER}:role/{ROLE}", EXTERNAL_ID)
        assert given["RoleSessionName"] == f"{step_name(call)}@{contained.victim.instance}"


def test_no_step_made_a_call_in_the_member_account_that_the_role_there_does_not_allow_it(contained: Contained) -> None:
    """The local stack enforces only who may assume the role, so this does the rest."""
    names = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing"}
    made: dict[str, set[str]] = {}
    for call in contained.on_the_ec2_side():
        made.setdefault(step_name(call), set()).add(f"{names.get(call['Service'], call['Service'])}:{call['Action']}")
    allowed = {step: {action for s in statements() if s["Effect"] == "Allow" and step in steps_of(s) for action in listed(s["Action"])} for step in made}
    assert made.keys() == acting() - FORENSIC_STEPS - ON_REQUEST - {"delete-originals"}, "deleting is off, so there was nothing to read either"
    assert {step: actions - allowed[step] for step, actions in made.items() if actions - allowed[step]} == {}


def test_a_second_region_of_the_member_account_is_acted_in_where_the_instance_is(stack: LocalStack, under_way: UnderWay) -> None:
    arn, victim = under_way.second_region
    execution = stack.wait(arn)
    assert execution.status == "SUCCEEDED", execution.cause
    assert isolated(stack.elsewhere(MEMBER, ELSEWHERE), victim)
    since = execution.history[0]["timestamp"].timestamp()
    regional = [call for call in stack.calls(since) if call["Service"] in ON_MOTO and call["Service"] not in ("iam", "sts", "cloudtrail")]
    assert {(call["Account"], call["Region"]) for call in regional if victim.instance in str(call["Parameters"])} == {(MEMBER, ELSEWHERE)}
    assert {call["Account"] for call in regional if call["Region"] == ELSEWHERE} == {MEMBER}
    assert any("a key reaches only its own Region" in risk for risk in execution.instance(victim.instance)["ResidualRisk"])


def test_a_finding_that_the_delegated_administrator_delivers_is_responded_to_where_the_instance_is(stack: LocalStack, under_way: UnderWay) -> None:
    """The envelope is that of the account whose bus it is on; the finding is the member's."""
    arn, victim = under_way.delegated
    execution = stack.wait(arn)
    assert execution.status == "SUCCEEDED", execution.cause
    event = json.loads(execution.history[0]["executionStartedEventDetails"]["input"])
    assert (event["account"], event["detail"]["accountId"]) == (ACCOUNT, MEMBER)
    assert execution.instance(victim.instance)["AccountId"] == MEMBER
    assert isolated(stack.elsewhere(MEMBER), victim)


def test_of_one_attack_sequence_home_and_member_are_contained_and_a_stranger_is_left_out_by_name(stack: LocalStack, under_way: UnderWay) -> None:
    arn, victims = under_way.sequence
    execution = stack.wait(arn)
    assert (execution.status, execution.error) == ("FAILED", "NotContained")
    verdicts = {account: execution.instance(victim.instance).get("Verdict") for account, victim in victims.items()}
    assert verdicts == {ACCOUNT: "Contained", MEMBER: "Contained", STRANGER: None}
    assert all(isolated(stack.elsewhere(account), victims[account]) for account in (ACCOUNT, MEMBER))
    (left_out,) = execution.outcome["LeftOut"]
    assert (left_out["InstanceId"], left_out["Status"]) == (victims[STRANGER].instance, "Failed")
    assert f'the account of {victims[STRANGER].instance}: "{STRANGER}" is not accepted' in left_out["Reason"] and left_out["Reason"] in execution.cause
    assert_untouched(stack, STRANGER, victims[STRANGER])
    assert not any(STRANGER in str(call) for call in stack.calls())
    jsonschema.validate(execution.outcome, schema("output"))


@pytest.mark.parametrize("account", [NO_ROLE, OTHER_ID])
def test_an_account_whose_role_cannot_be_assumed_is_an_error_that_says_what_to_deploy(stack: LocalStack, under_way: UnderWay, account: str) -> None:
    """In the one account nobody has deployed the role; in the other it trusts whoever has another external id."""
    arn, victims = under_way.without_role
    execution, instance = stack.wait(arn), victims[account].instance
    assert (execution.status, execution.error) == ("FAILED", "NotContained")
    assert execution.instance(instance)["Verdict"] == "NotContained"
    (said,) = execution.instance(instance)["Open"]
    wanted = ("AccessDenied", "sts:AssumeRole", f"arn:aws:iam::{account}:role/{ROLE}", f"account {account}", "member-account.yaml", EXTERNAL_ID)
    assert [part for part in wanted if part not in said] == [], said
    assert said.split("Failed: ", 1)[1] in execution.cause
    assert_untouched(stack, account, victims[account])
    jsonschema.validate(execution.outcome, schema("output"))


def test_nothing_else_suffers_from_an_account_whose_role_cannot_be_assumed(stack: LocalStack, under_way: UnderWay) -> None:
    arn, victims = under_way.without_role
    assert stack.wait(arn).instance(victims[ACCOUNT].instance)["Verdict"] == "Contained"
    assert isolated(stack, victims[ACCOUNT])


def assert_untouched(stack: LocalStack, account: str, victim: Victim) -> None:
    """As it was built: its own group on it, no tag and no snapshot of Cordon's; and no call has come there but ours."""
    world = snapshot_of_world(stack.elsewhere(account), victim)
    assert {group for groups in world["Groups"].values() for group in groups} == {victim.open_group}
    assert world["Snapshots"] == {} and world["Tags"][victim.instance].keys() == {"Name", "Service"}
    assert not any(call["Account"] == account for call in stack.calls())


def test_an_account_that_is_not_named_is_refused_by_hand_before_anything_is_touched(stack: LocalStack) -> None:
    now = time.time()
    execution = stack.run({"InstanceIds": [NO_INSTANCE], "Region": stack.region, "AccountId": STRANGER})
    assert (execution.status, execution.error) == ("FAILED", "InvalidInput")
    assert execution.cause.startswith(f'AccountId: "{STRANGER}" is not accepted; accepted: {ACCOUNT}') and MEMBER in execution.cause
    assert [call for call in stack.calls(now) if call["Service"] in ON_MOTO] == []


def test_a_window_for_a_capture_is_opened_and_closed_there(stack: LocalStack, roles: None) -> None:
    place = stack.elsewhere(MEMBER)
    (victim,) = build_victims(place)
    peers = add_endpoints(place, victim)
    assert isolate(stack, victim, window=True, account=MEMBER)["Status"] == "Done"
    assert rules_by_interface(place, victim)[victim.interfaces[0]] == window_rules(peers)
    assert isolate(stack, victim, window=False, account=MEMBER)["Status"] == "Done" and isolated(place, victim)
