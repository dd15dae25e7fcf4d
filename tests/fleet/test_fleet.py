"""Fleets: more instances than one execution takes, contained in batches that are executions of their own."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from typing import Any, Iterator

import jsonschema
import pytest

from support import member
from support.stack import PROJECT, Execution, LocalStack
from support.victim import ROOT, Fleet, Place, build_network, build_role, described_instance, run_instance

MISSING = "i-0fffffffffffffff0"
EVENTS = PROJECT / "events"


@pytest.fixture(scope="module")
def fleet_stack() -> Iterator[LocalStack]:
    """Batches of three, and a fleet from five instances on; the pace that AWS needs would only be waited for here."""
    with LocalStack(settings={"SFN_WAIT_SCALE": "0.01"}) as stack:
        parameters = {"StateMachineName": "cordon-fleet", "MaxConcurrency": "3", "FleetAbove": "4", "FleetConcurrency": "2", "LogLevel": "ERROR"}
        stack.deploy({**parameters, **member.PARAMETERS}, name="cordon-fleet")
        yield stack


def instances(stack: Place, count: int, name: str) -> list[str]:
    """Plain instances of one new VPC: an interface and a volume each."""
    fleet = Fleet(name)
    build_network(stack, fleet)
    build_role(stack, fleet)
    return [run_instance(stack, fleet, f"{name}-{number}", [ROOT], profile=fleet.profile) for number in range(count)]


def contain(stack: LocalStack, ids: list[str], **more: Any) -> Execution:
    return stack.run({"InstanceIds": ids, "Region": stack.region, **more}, wait=400)


def report_of(execution: Execution) -> dict[str, Any]:
    """The report, whether the execution succeeded or failed."""
    left = [event["stateExitedEventDetails"] for event in execution.history if event.get("stateExitedEventDetails", {}).get("name") == "Report"]
    return json.loads(left[-1]["output"])


def stored(stack: LocalStack, pointer: dict[str, str]) -> dict[str, Any]:
    return json.loads(stack.client("s3").get_object(Bucket=pointer["Bucket"], Key=pointer["Key"])["Body"].read())


def groups_of(stack: Place, instance: str) -> set[str]:
    return {group["GroupName"] for interface in described_instance(stack, instance)["NetworkInterfaces"] for group in interface["Groups"]}


def batches_of(stack: LocalStack, execution: Execution) -> list[dict[str, Any]]:
    """What Step Functions says of the batches of the fleet's execution, but for the children of its Distributed Map."""
    client = stack.client("stepfunctions")
    described = [client.describe_execution(executionArn=arn) for arn in stack.executions()]
    inputs = [(one, json.loads(one["input"])) for one in described]
    return [one for one, given in inputs if given.get("Batch", {}).get("Execution") == execution.arn]


def by_verdict(report: dict[str, Any]) -> dict[str, int]:
    return report["Counts"]["Verdicts"]


# --- All of it -----------------------------------------------------------------------------------------------------


def test_a_fleet_is_contained_in_batches_and_what_is_per_vpc_is_made_once(fleet_stack: LocalStack) -> None:
    ids = instances(fleet_stack, 7, "whole")
    since = time.time()
    execution = contain(fleet_stack, ids, IncidentTicket="INC-7")
    report = report_of(execution)
    assert execution.status == "SUCCEEDED", execution.cause
    assert report["Counts"] == {"Instances": 7, "Verdicts": {"Contained": 7}}
    assert all(groups_of(fleet_stack, id_) == {"cordon-isolation"} for id_ in ids)
    jsonschema.validate(report, json.loads((EVENTS / "output.schema.json").read_text(encoding="utf-8")))

    batches = batches_of(fleet_stack, execution)
    assert sorted(len(json.loads(batch["input"])["InstanceIds"]) for batch in batches) == [1, 3, 3]
    assert all(json.loads(batch["input"])["IncidentTicket"] == "INC-7" for batch in batches)

    whole = stored(fleet_stack, report["Results"])
    assert sorted(row["InstanceId"] for row in whole["Instances"]) == sorted(ids)
    assert {row["Execution"] for row in whole["Instances"]} == {batch["executionArn"] for batch in batches}
    prefix = report["Results"]["Key"].removesuffix("/instances.json")
    one = stored(fleet_stack, {**report["Results"], "Key": f"{prefix}/batches/00000.json"})
    assert any(step["Changes"] for step in one["Instances"][0]["Steps"]), "every change of every instance is in its batch's object"

    made = Counter((call["Action"], call["Caller"].removeprefix("cordon-fleet-")) for call in fleet_stack.calls(since)
                   if call["Action"] in ("CreateSecurityGroup", "DescribeRegions", "Publish"))  # fmt: skip
    assert made["CreateSecurityGroup", "prepare-fleet"] == 2 and made["CreateSecurityGroup", "isolate-network"] == 0
    assert made["Publish", "notify"] == 2, "that it begins and that it has ended, for the fleet and not for its batches"


def test_a_fleet_of_a_member_account_is_contained_through_its_role(fleet_stack: LocalStack) -> None:
    member.deploy_member_role(fleet_stack, member.MEMBER, CordonStackName="cordon-fleet", SnapshotKeyArn=fleet_stack.outputs["KeyArn"])
    there = fleet_stack.elsewhere(member.MEMBER)
    ids = instances(there, 5, "member")
    execution = contain(fleet_stack, ids, AccountId=member.MEMBER)
    assert execution.status == "SUCCEEDED", execution.cause
    assert report_of(execution)["Counts"] == {"Instances": 5, "Verdicts": {"Contained": 5}}
    assert all(groups_of(there, id_) == {"cordon-isolation"} for id_ in ids)


def test_no_more_batches_are_under_way_than_the_parameter_allows(fleet_stack: LocalStack) -> None:
    execution = contain(fleet_stack, instances(fleet_stack, 8, "paced"), DryRun=True)
    times = [(one["startDate"], one["stopDate"]) for one in batches_of(fleet_stack, execution)]
    assert len(times) == 3
    assert max(sum(begin <= at < end for begin, end in times) for at, _ in times) <= 2


def test_a_dry_run_of_a_fleet_plans_every_instance_and_changes_nothing(fleet_stack: LocalStack) -> None:
    ids = instances(fleet_stack, 5, "dry")
    since = time.time()
    execution = contain(fleet_stack, ids, DryRun=True)
    report = report_of(execution)
    assert (execution.status, by_verdict(report)) == ("SUCCEEDED", {"Planned": 5})
    assert fleet_stack.changes(since) == []
    written = {call["Action"] for call in fleet_stack.calls(since) if call["Service"] == "dynamodb"}
    assert written <= {"GetItem"}


# --- What goes wrong -----------------------------------------------------------------------------------------------


def test_one_bad_id_refuses_the_whole_fleet_before_anything_is_touched(fleet_stack: LocalStack) -> None:
    ids = [f"i-{number:017x}" for number in range(9)]
    since, known = time.time(), fleet_stack.executions()
    execution = contain(fleet_stack, [*ids, "i-banana"])
    assert (execution.status, execution.error) == ("FAILED", "InvalidInput")
    assert execution.cause.startswith('InstanceIds[9]: "i-banana"')
    assert fleet_stack.changes(since) == [] and set(fleet_stack.executions()) - set(known) == {execution.arn}


def test_an_instance_that_does_not_exist_is_reported_and_the_rest_is_contained(fleet_stack: LocalStack) -> None:
    ids = instances(fleet_stack, 5, "missing")
    execution = contain(fleet_stack, [*ids[:2], MISSING, *ids[2:]])
    report = report_of(execution)
    assert (execution.status, execution.error) == ("FAILED", "NotContained")
    assert by_verdict(report) == {"Contained": 5, "NotContained": 1}
    assert report["Instances"][0]["InstanceId"] == MISSING and "describe-instance Failed: NotFound" in report["Instances"][0]["Open"][0]
    assert f"{MISSING} in {fleet_stack.region}: NotContained" in execution.cause
    assert all(groups_of(fleet_stack, id_) == {"cordon-isolation"} for id_ in ids)


def test_a_batch_that_is_stopped_is_reported_instance_by_instance_and_stops_no_other(fleet_stack: LocalStack) -> None:
    ids = instances(fleet_stack, 5, "stopped")
    arn = fleet_stack.begin({"InstanceIds": ids, "Region": fleet_stack.region})
    stopper = threading.Thread(target=stop_first_batch, args=(fleet_stack, arn, ids[0]))
    stopper.start()
    execution = fleet_stack.wait(arn, 400)
    stopper.join()
    report = report_of(execution)
    assert (execution.status, execution.error) == ("FAILED", "NotContained")
    rows = {row["InstanceId"]: row for row in stored(fleet_stack, report["Results"])["Instances"]}
    assert set(rows) == set(ids)
    for id_ in ids[:3]:
        assert rows[id_]["Verdict"] == "NotContained" and "its execution ended ABORTED" in rows[id_]["Open"][0]
    assert {rows[id_]["Verdict"] for id_ in ids[3:]} == {"Contained"}


def stop_first_batch(stack: LocalStack, fleet: str, instance: str) -> None:
    client, deadline = stack.client("stepfunctions"), time.monotonic() + 120
    while time.monotonic() < deadline:
        for arn in stack.executions():
            given = json.loads(client.describe_execution(executionArn=arn)["input"])
            if given.get("Batch", {}).get("Execution") == fleet and instance in given["InstanceIds"]:
                client.stop_execution(executionArn=arn)
                return
        time.sleep(0.02)


def test_the_output_is_bounded_and_the_rest_lies_in_the_bucket(fleet_stack: LocalStack) -> None:
    missing = [f"i-{number:017x}" for number in range(0xA00, 0xA00 + 120)]
    report = report_of(contain(fleet_stack, missing))
    assert report["Counts"] == {"Instances": 120, "Verdicts": {"NotContained": 120}}
    assert len(report["Instances"]) == 100 < len(stored(fleet_stack, report["Results"])["Instances"]) == 120


def test_a_batch_that_nobody_waits_for_is_refused(fleet_stack: LocalStack) -> None:
    """Nobody would be told of it: a fleet's execution tells for its batches."""
    ended = contain(fleet_stack, ["i-00000000000000bad"], DryRun=True)
    batch = {"Id": "20261121T030007123Z-x", "Number": 0, "Execution": ended.arn, "SettleAt": "2026-11-21T03:00:07Z"}
    execution = contain(fleet_stack, ["i-00000000000000bad"], Batch=batch)
    assert (execution.status, execution.error) == ("FAILED", "InvalidInput")
    assert execution.cause.startswith("Batch.Execution")
