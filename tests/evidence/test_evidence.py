"""The evidence of whole containments: captures before and after isolation, hash lists, facts; sealed, downloaded and checked."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


from support.capture_window import add_endpoints, groups_of
from support.cases import cordon_verify, download, public_key
from support.containment import contain, isolated, statuses
from support.hosts import small
from support.member import MEMBER, deploy_member_role
from support.stack import Execution, LocalStack
from support.victim import Victim, bare_instance, build_victims


@dataclass(frozen=True)
class Contained:
    """An instance that was contained, and its case as an investigator has it."""

    stack: LocalStack
    victim: Victim
    execution: Execution
    tmp: Path

    @property
    def outcome(self) -> dict[str, Any]:
        return self.execution.instance(self.victim.instance)

    @cached_property
    def folder(self) -> Path:
        (manifest,) = (pointer["Key"] for pointer in self.outcome["Evidence"] if pointer["Key"].endswith("/manifest.json"))
        return download(self.stack, manifest.removesuffix("manifest.json"), self.tmp / "case")

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "manifest.json").read_bytes())

    def step(self, name: str) -> dict[str, Any]:
        return next(step for step in self.outcome["Steps"] if step["Step"] == name)

    def is_intact(self) -> bool:
        checked = cordon_verify(self.folder, public_key(self.stack, self.tmp))
        return checked.returncode == 0 and checked.stdout.splitlines()[-1].startswith("INTACT")

    def order(self, *names: str) -> list[str]:
        """These states in the order in which the workflow first left them."""
        left = [event["stateExitedEventDetails"]["name"] for event in self.execution.history if "stateExitedEventDetails" in event]
        return sorted(names, key=left.index)


def contained(stack: LocalStack, tmp: Path, victim: Victim | None = None, **options: Any) -> Contained:
    victim = victim or build_victims(stack)[0]
    return Contained(stack, victim, contain(stack, victim.instance, **options), tmp)


def managed(stack: LocalStack, *, endpoints: bool = False, **host: Any) -> Victim:
    """A victim whose host answers Systems Manager; with endpoints, in all of its VPCs."""
    (victim,) = build_victims(stack)
    stack.manage(victim.instance, **{"Path": os.environ["PATH"], **small(), **host})
    for number in range(len(victim.interfaces)) if endpoints else ():
        add_endpoints(stack, victim, number)
    return victim


# --- Captures ------------------------------------------------------------------------------------------------------


def test_a_capture_that_comes_first_has_ended_before_anything_disturbs_the_host(stack: LocalStack, tmp_path: Path) -> None:
    case = contained(stack, tmp_path, managed(stack), CaptureVolatile=True, CaptureMode="CaptureFirst")
    assert case.execution.status == "SUCCEEDED", case.execution.cause
    order = ("Create snapshots", "Start capture timer", "Detach from Auto Scaling (deferred)", "Isolate network (deferred)",
             "Terminate sessions (deferred)", "Revoke credentials (deferred)", "Detach profile (deferred)")  # fmt: skip
    assert case.order(*order) == list(order)
    entered = [event["stateEnteredEventDetails"]["name"] for event in case.execution.history if "stateEnteredEventDetails" in event]
    assert not {"Isolate network", "Revoke credentials", "Close capture window"} & set(entered)
    assert isolated(stack, case.victim) and (case.folder / "capture" / "triage.tar.gz").stat().st_size > 1_000
    assert case.is_intact()


def test_a_capture_after_isolation_goes_through_a_window_that_is_closed_behind_it(stack: LocalStack, tmp_path: Path) -> None:
    case = contained(stack, tmp_path, managed(stack, endpoints=True), CaptureVolatile=True)
    assert case.execution.status == "SUCCEEDED", case.execution.cause
    order = ("Isolate network", "Start capture timer", "Close capture window", "Revoke credentials (deferred)")
    assert case.order(*order) == list(order)
    first = next(e for e in case.execution.history if e.get("stateExitedEventDetails", {}).get("name") == "Isolate network")
    assert "cordon-capture" in first["stateExitedEventDetails"]["output"]
    assert set(sum(groups_of(stack, case.victim).values(), [])) == {"cordon-isolation"}
    assert statuses(case.execution, case.victim.instance)["capture-volatile"] == "Done"
    assert {item["Name"] for item in case.manifest["Evidence"]} >= {"capture/triage.tar.gz", "capture/summary.json", "report.html"}
    assert case.is_intact()


def test_without_a_way_to_the_host_it_is_isolated_at_once_and_the_capture_is_said_to_be_impossible(stack: LocalStack, tmp_path: Path) -> None:
    case = contained(stack, tmp_path, managed(stack), CaptureVolatile=True)
    assert (case.execution.status, case.outcome["Verdict"]) == ("FAILED", "PartiallyContained")
    assert case.step("capture-volatile")["Status"] == "Unsupported" and isolated(stack, case.victim)
    assert "isolate-network says what is missing" in case.step("capture-volatile")["Reason"]
    assert any("is impossible after its isolation" in risk for risk in case.outcome["ResidualRisk"])
    assert all(status in ("Done", "NotApplicable") for name, status in statuses(case.execution, case.victim.instance).items() if name != "capture-volatile")


def test_a_host_that_never_answers_is_isolated_when_the_capture_has_had_its_time(stack: LocalStack, tmp_path: Path) -> None:
    victim = managed(stack, Behaviour="lost")
    with stack.reconfigured("capture-volatile", CAPTURE_DEADLINE="4"):
        case = contained(stack, tmp_path, victim, CaptureVolatile=True, CaptureMode="CaptureFirst")
    assert case.outcome["Verdict"] == "PartiallyContained" and "given up" in case.step("capture-volatile")["Reason"]
    assert isolated(stack, victim) and case.step("revoke-credentials")["Status"] == "Done"


def test_a_capture_that_breaks_keeps_nothing_from_being_contained(stack: LocalStack, tmp_path: Path) -> None:
    victim = managed(stack)
    stack.inject({"Service": "ssm", "Action": "SendCommand", "Code": "AccessDeniedException", "Status": 400})
    case = contained(stack, tmp_path, victim, CaptureVolatile=True, CaptureMode="CaptureFirst")
    assert case.outcome["Verdict"] == "PartiallyContained" and "ssm:SendCommand" in case.step("capture-volatile")["Reason"]
    assert isolated(stack, victim)


def test_whoever_is_on_the_host_is_sent_away_and_named(stack: LocalStack, tmp_path: Path) -> None:
    (victim,) = build_victims(stack)
    session = stack.client("ssm").start_session(Target=victim.instance)["SessionId"]
    case = contained(stack, tmp_path, victim)
    assert case.execution.status == "SUCCEEDED", case.execution.cause
    assert [change["Resource"] for change in case.step("terminate-sessions")["Changes"]] == [session]


# --- What the manifest holds ---------------------------------------------------------------------------------------


def test_on_request_every_snapshot_has_a_list_of_the_hashes_of_its_blocks(stack: LocalStack, tmp_path: Path) -> None:
    case = contained(stack, tmp_path, HashSnapshots=True)
    snapshots = [one for one in case.manifest["Snapshots"] if "SourceSnapshotId" not in one]
    hashed = [one for one in snapshots if "Blocks" in one]
    (strange,) = [one["SnapshotId"] for one in snapshots if "Blocks" not in one]
    assert len(snapshots) == len(case.victim.volumes)
    # One of the victim's volumes is under its owner's key.
    assert case.step("hash-snapshots")["Status"] == "Unsupported" and strange in case.step("hash-snapshots")["Reason"]
    assert case.outcome["Open"] == [line for line in case.outcome["Open"] if line.startswith("hash-snapshots Unsupported")]
    ebs = stack.client("ebs")
    for snapshot in hashed:
        (part,) = snapshot["Blocks"]["Parts"]
        lines = [line.split() for line in (case.folder / part).read_text(encoding="ascii").splitlines()]
        listed = ebs.list_snapshot_blocks(SnapshotId=snapshot["SnapshotId"])["Blocks"]
        wanted = []
        for block in listed:
            read = ebs.get_snapshot_block(SnapshotId=snapshot["SnapshotId"], BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"])
            wanted.append([str(block["BlockIndex"]), hashlib.sha256(read["BlockData"].read()).hexdigest()])
        assert lines == wanted and snapshot["Blocks"]["Count"] == len(wanted)
        of_part = hashlib.sha256((case.folder / part).read_bytes()).hexdigest()
        assert snapshot["Blocks"]["Sha256"] == hashlib.sha256(f"{of_part}\n".encode()).hexdigest()
    assert case.is_intact()


def test_a_hash_list_of_a_member_accounts_snapshots_is_made_through_its_role(stack: LocalStack) -> None:
    deploy_member_role(stack, MEMBER, SnapshotKeyArn=stack.outputs["KeyArn"])
    victim = bare_instance(stack.elsewhere(MEMBER))
    step = contain(stack, victim.instance, AccountId=MEMBER, HashSnapshots=True).step(victim.instance, "hash-snapshots")
    assert step["Status"] == "Done" and len(step["Changes"]) == 1, step


def test_the_manifest_has_the_facts_that_an_investigator_asks_for_and_the_report_shows_them(stack: LocalStack, tmp_path: Path) -> None:
    case = contained(stack, tmp_path)
    facts = case.manifest["Facts"]
    assert {"InstanceType", "ImageId", "LaunchTime", "SecurityGroups", "Image", "CloudTrail", "ConsoleOutput"} <= set(facts)
    page = (case.folder / "report.html").read_text(encoding="utf-8")
    assert case.victim.instance in page and facts["ImageId"] in page and all(item["Name"] in page for item in case.manifest["Evidence"][:-1])


def test_every_step_of_the_manifest_has_its_time(stack: LocalStack, tmp_path: Path) -> None:
    case = contained(stack, tmp_path)
    timed = {step["Step"]: (step["Began"], step["Ended"]) for step in case.manifest["Steps"] if "Began" in step}
    assert set(timed) >= {step["Step"] for step in case.manifest["Steps"]} - {"describe-instance", "seal-evidence"}
    assert all(began <= ended and began.endswith("Z") and ended.endswith("Z") for began, ended in timed.values())
