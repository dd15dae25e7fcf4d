"""A case's snapshots on their way to the forensic account: shared with it alone, copied under its key, and locked there."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulator.call_record import Call
from support.forensic import FORENSIC, deploy_forensic_account, told
from support.forensic_role import allowed
from support.member import EXTERNAL_ID, deploy_member_role
from support.recorded_calls import session_tags, step_name
from support.stack import ACCOUNT, ON_MOTO, REGION, LocalStack
from support.victim import DATA, ROOT, Place, Victim, build_victims

# The two ways are asked for by name.
pytestmark = [pytest.mark.xdist_group("test_forensic_account"), pytest.mark.deployed]
MEMBER = "567890123456"
ELSEWHERE = "eu-west-1"
STRANGER = "444444444444"
ORDER = ("create-snapshots", "encrypt-snapshots", "share-snapshots", "copy-snapshots", "lock-snapshots", "delete-originals")


def target(place: Place, victim: Victim, account: str) -> dict[str, str]:
    return {"AccountId": account, "Region": place.region, "InstanceId": victim.instance, "CaseId": f"{victim.instance}-case"}


def invoke(stack: LocalStack, function: str, event: dict[str, Any]) -> dict[str, Any]:
    """What the function says, or the error that it ends with."""
    name = f"{stack.outputs['StateMachineArn'].rsplit(':', 1)[1]}-{function}"
    return json.loads(stack.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event))["Payload"].read())


def settled(stack: LocalStack, function: str, event: dict[str, Any], seconds: float = 20) -> dict[str, Any]:
    """Asks again as the workflow does, until the step is no longer in progress."""
    deadline = time.monotonic() + seconds
    while (said := invoke(stack, function, event)).get("Status") == "InProgress":
        assert time.monotonic() < deadline, said
        time.sleep(0.4)
    return said


@dataclass(frozen=True)
class Way:
    """One case's way to the forensic account: each step's last answer, and the calls that it took."""

    place: Place
    victim: Victim
    event: dict[str, str]
    settings: dict[str, str]
    region: str  # where the copies are
    said: dict[str, dict[str, Any]]
    calls: list[Call]

    def originals(self) -> dict[str, dict[str, Any]]:
        return {id_: one for id_, one in self.snapshots().items() if "SourceSnapshotId" not in one["Tags"]}

    def encrypted(self) -> dict[str, dict[str, Any]]:
        return {id_: one for id_, one in self.snapshots().items() if "SourceSnapshotId" in one["Tags"]}

    def snapshots(self) -> dict[str, dict[str, Any]]:
        return of_case(self.place.client("ec2"), self.event["CaseId"])

    def over_there(self, stack: LocalStack) -> Any:
        return stack.client("ec2", account=FORENSIC, region=self.region)

    def copies(self, stack: LocalStack) -> dict[str, dict[str, Any]]:
        return of_case(self.over_there(stack), self.event["CaseId"])


def of_case(ec2: Any, case: str) -> dict[str, dict[str, Any]]:
    found = ec2.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "tag:CordonCase", "Values": [case]}])["Snapshots"]
    return {one["SnapshotId"]: {**one, "Tags": {tag["Key"]: tag["Value"] for tag in one["Tags"]}} for one in found}


def go(stack: LocalStack, place: Place, account: str, settings: dict[str, str], region: str) -> Way:
    (victim,) = build_victims(place)
    event, since = target(place, victim, account), time.time()
    with told(stack, **settings):
        said = {step: settled(stack, step, event) for step in ORDER}
    return Way(place, victim, event, settings, region, said, stack.calls(since))


@pytest.fixture(scope="module")
def settings(stack: LocalStack) -> dict[str, str]:
    return deploy_forensic_account(stack, REGION, "cordon-forensic")


@pytest.fixture(scope="module")
def way(stack: LocalStack, settings: dict[str, str]) -> Way:
    """From Cordon's own account, in one Region."""
    return go(stack, stack.elsewhere(ACCOUNT), ACCOUNT, settings, REGION)


@pytest.fixture(scope="module")
def long_way(stack: LocalStack) -> Way:
    """From a member account, into another Region: three accounts, two Regions, three keys."""
    deploy_member_role(stack, MEMBER, SnapshotKeyArn=stack.outputs["KeyArn"], ForensicAccountId=FORENSIC)
    there = deploy_forensic_account(stack, ELSEWHERE, "cordon-forensic-elsewhere")
    return go(stack, stack.elsewhere(MEMBER), MEMBER, {**there, "FORENSIC_REGION": ELSEWHERE}, ELSEWHERE)


@pytest.fixture(params=["way", "long_way"])
def either(request: pytest.FixtureRequest) -> Way:
    return request.getfixturevalue(request.param)


def test_every_step_ends_well_and_originals_are_kept(either: Way) -> None:
    statuses = {step: said.get("Status", said) for step, said in either.said.items()}
    assert statuses == {**dict.fromkeys(ORDER, "Done"), "delete-originals": "NotApplicable"}, either.said


def test_what_was_under_the_default_key_is_copied_under_the_stacks_key_too(stack: LocalStack, either: Way) -> None:
    originals, encrypted = either.originals(), either.encrypted()
    assert {one["VolumeId"] for one in originals.values()} == set(either.victim.volumes.values())
    by_device = {one["Tags"]["DeviceName"]: one for one in originals.values()}
    assert (by_device[ROOT]["Encrypted"], by_device[DATA]["Encrypted"]) == (False, True)
    assert {one["Tags"]["SourceSnapshotId"] for one in encrypted.values()} == set(originals)
    assert {one["KmsKeyId"] for one in encrypted.values()} == {stack.outputs["KeyArn"]}


def test_the_forensic_account_and_nobody_else_may_read_what_is_shared(either: Way) -> None:
    ec2 = either.place.client("ec2")
    permissions = {
        id_: ec2.describe_snapshot_attribute(SnapshotId=id_, Attribute="createVolumePermission")["CreateVolumePermissions"]
        for id_ in either.snapshots()
    }
    assert permissions == {**dict.fromkeys(either.originals(), []), **dict.fromkeys(either.encrypted(), [{"UserId": FORENSIC}])}


def test_each_volume_has_a_copy_over_there_under_that_accounts_own_key(stack: LocalStack, either: Way) -> None:
    copies = either.copies(stack)
    assert {one["Tags"]["SourceSnapshotId"] for one in copies.values()} == set(either.encrypted()) and len(copies) == 2
    for one in copies.values():
        assert (one["OwnerId"], one["State"], one["Encrypted"], one["VolumeSize"]) == (FORENSIC, "completed", True, 8)
        assert one["KmsKeyId"] == either.settings["FORENSIC_KEY_ARN"] and f":{either.region}:{FORENSIC}:" in one["KmsKeyId"]


def test_a_copys_tags_lead_back_to_the_volume_and_the_moment_it_shows(stack: LocalStack, either: Way) -> None:
    originals = either.originals()
    for copy in either.copies(stack).values():
        tags = copy["Tags"]
        original = originals[tags["OriginalSnapshotId"]]
        assert tags["VolumeId"] == original["VolumeId"] == either.victim.volumes[tags["DeviceName"]]
        assert tags["TakenAt"].rstrip("Z")[:19] == original["StartTime"].strftime("%Y-%m-%dT%H:%M:%S")
        expected = {"InstanceId": either.victim.instance, "SourceAccountId": either.event["AccountId"], "SourceRegion": either.place.region}
        assert expected.items() <= tags.items() and tags["CordonCase"] == either.event["CaseId"]


def test_the_copies_are_locked_for_a_month_and_cannot_be_deleted(stack: LocalStack, either: Way) -> None:
    ec2, ids = either.over_there(stack), sorted(either.copies(stack))
    locks = {one["SnapshotId"]: one for one in ec2.describe_locked_snapshots(SnapshotIds=ids)["Snapshots"]}
    assert sorted(locks) == ids
    assert {(one["LockState"], one["LockDuration"]) for one in locks.values()} == {("governance", 30)}
    for id_ in ids:
        with pytest.raises(ClientError, match="SnapshotLocked"):
            ec2.delete_snapshot(SnapshotId=id_)


def test_a_second_run_changes_nothing_and_says_so(stack: LocalStack, either: Way) -> None:
    before, since = (either.snapshots(), either.copies(stack)), time.time()
    with told(stack, **either.settings):
        for step in ORDER[1:5]:
            said = invoke(stack, step, either.event)
            assert said["Status"] == "Done" and "nothing was changed by this run" in said["Reason"], said
            assert said["Changes"] == either.said[step]["Changes"]
    assert (either.snapshots(), either.copies(stack)) == before
    assert [call for call in stack.changes(since) if call["Service"] == "ec2"] == []


def test_sessions_over_there_are_for_one_step_and_one_instance_and_make_the_calls_that_the_role_allows(either: Way) -> None:
    role = f"arn:aws:iam::{FORENSIC}:role/{either.settings['FORENSIC_ROLE']}"
    sessions = [call for call in either.calls if call["Action"] == "AssumeRole" and call["Parameters"]["RoleArn"] == role]
    assert {step_name(call) for call in sessions} == {"copy-snapshots", "lock-snapshots"}
    for call in sessions:
        assert call["Account"] == ACCOUNT and call["Error"] is None, "from Cordon's account, not by way of the member's"
        assert session_tags(call) == {"CordonStep": step_name(call), "CordonInstance": either.victim.instance}
        assert call["Parameters"]["ExternalId"] == EXTERNAL_ID
    over_there = [call for call in either.calls if call["Account"] == FORENSIC and call["Service"] != "sts"]
    assert {call["Region"] for call in over_there} == {either.region}
    made = {step: {f"{call['Service']}:{call['Action']}" for call in over_there if step_name(call) == step} for step in map(step_name, over_there)}
    assert made["copy-snapshots"] == {"ec2:DescribeSnapshots", "ec2:CopySnapshot"}
    assert made["lock-snapshots"] == {"ec2:DescribeSnapshots", "ec2:DescribeLockedSnapshots", "ec2:LockSnapshot"}
    assert all(actions <= allowed(step) for step, actions in made.items())


def test_a_copy_goes_with_a_request_that_is_signed_for_its_source(either: Way) -> None:
    copies = [call["Parameters"] for call in either.calls if call["Action"] == "CopySnapshot" and call["Account"] == FORENSIC]
    assert len(copies) == 2
    for asked in copies:
        assert (asked["SourceRegion"], asked["DestinationRegion"], asked["Encrypted"]) == (either.place.region, either.region, "true")
        source = f"https://ec2.{either.place.region}.amazonaws.com/?Action=CopySnapshot&"
        assert asked["PresignedUrl"].startswith(source) and f"SourceSnapshotId={asked['SourceSnapshotId']}&" in asked["PresignedUrl"]


def test_the_verifier_reads_it_all_back_with_the_rights_to_read(stack: LocalStack, either: Way) -> None:
    since = time.time()
    with told(stack, **either.settings):
        report = verified(stack, either)
    rows = {step["Step"]: step["Status"] for step in report["Steps"]}
    assert {step: rows[step] for step in ("share-snapshots", "copy-snapshots", "lock-snapshots")} == {
        "share-snapshots": "Done", "copy-snapshots": "Done", "lock-snapshots": "Done",
    }  # fmt: skip
    over_there = {call["Action"] for call in stack.calls(since) if call["Account"] == FORENSIC and call["Service"] == "ec2"}
    assert over_there == {"DescribeSnapshots", "DescribeLockedSnapshots"}
    assert [call for call in stack.changes(since) if call["Service"] == "ec2"] == []


def verified(stack: LocalStack, way: Way) -> dict[str, Any]:
    described = {"Target": way.event, "Facts": {}, "Outcome": {"Step": "describe-instance", "Status": "Done"}}
    return invoke(stack, "verify-containment", {"Described": described, "Outcomes": [list(way.said.values())]})


def test_without_a_forensic_account_the_steps_do_not_apply_and_call_nothing_at_all(stack: LocalStack, way: Way) -> None:
    since = time.time()
    for step in ("share-snapshots", "copy-snapshots", "lock-snapshots"):
        said = invoke(stack, step, way.event)
        assert (said["Status"], said["Reason"], said["Changes"]) == ("NotApplicable", "no forensic account is configured", [])
    assert [call for call in stack.calls(since) if call["Service"] in ON_MOTO or call["Service"] == "dynamodb"] == []
    rows = {step["Step"] for step in verify_case(stack, way.event)["Steps"]}
    assert "encrypt-snapshots" in rows and not rows & {"share-snapshots", "copy-snapshots", "lock-snapshots"}
    assert not any(call["Account"] == FORENSIC or call["Action"] == "DescribeSnapshotAttribute" for call in stack.calls(since))


# --- What goes wrong, or is made to


def new_case(stack: LocalStack, settings: dict[str, str], upto: int) -> dict[str, str]:
    """A case that has come so far on its way."""
    (victim,) = build_victims(stack)
    event = target(stack.elsewhere(), victim, ACCOUNT)
    with told(stack, **settings):
        for step in ORDER[:upto]:
            assert settled(stack, step, event)["Status"] == "Done"
    return event


def test_a_share_with_anybody_else_is_taken_back_and_reported_as_a_change(stack: LocalStack, settings: dict[str, str]) -> None:
    event, ec2 = new_case(stack, settings, 3), stack.client("ec2")
    copy = next(id_ for id_, one in of_case(ec2, event["CaseId"]).items() if "SourceSnapshotId" in one["Tags"])
    share = {"SnapshotId": copy, "Attribute": "createVolumePermission"}
    ec2.modify_snapshot_attribute(**share, OperationType="add", UserIds=[STRANGER])
    with told(stack, **settings):
        found = {step["Step"]: step for step in verify_case(stack, event)["Steps"]}["share-snapshots"]
        assert found["Status"] == "Failed" and STRANGER in found["Reason"], found
        said = invoke(stack, "share-snapshots", event)
    assert said["Status"] == "Done", said
    assert ec2.describe_snapshot_attribute(**share)["CreateVolumePermissions"] == [{"UserId": FORENSIC}]
    (change,) = [one for one in said["Changes"] if one["Resource"] == copy]
    assert (change["Attribute"], change["After"]) == ("SharedWith", [FORENSIC])


def verify_case(stack: LocalStack, event: dict[str, str]) -> dict[str, Any]:
    described = {"Target": event, "Facts": {}, "Outcome": {"Step": "describe-instance", "Status": "Done"}}
    return invoke(stack, "verify-containment", {"Described": described, "Outcomes": []})


def test_the_copies_outlive_all_that_is_deleted_where_they_come_from(stack: LocalStack, settings: dict[str, str]) -> None:
    event, ec2 = new_case(stack, settings, 5), stack.client("ec2")
    for id_ in of_case(ec2, event["CaseId"]):
        ec2.delete_snapshot(SnapshotId=id_)
    over_there = of_case(stack.client("ec2", account=FORENSIC), event["CaseId"])
    assert len(over_there) == 2 and {one["State"] for one in over_there.values()} == {"completed"}
    with told(stack, **settings):
        assert invoke(stack, "lock-snapshots", event)["Status"] == "Done"


def test_an_unlocked_copy_is_found_by_the_verifier_and_locked_again_by_the_next_run(stack: LocalStack, settings: dict[str, str]) -> None:
    event, ec2 = new_case(stack, settings, 5), stack.client("ec2", account=FORENSIC)
    copy = sorted(of_case(ec2, event["CaseId"]))[0]
    ec2.unlock_snapshot(SnapshotId=copy)
    with told(stack, **settings):
        found = {step["Step"]: step for step in verify_case(stack, event)["Steps"]}["lock-snapshots"]
        assert found["Status"] == "Failed" and copy in found["Reason"], found
        assert invoke(stack, "lock-snapshots", event)["Status"] == "Done"
    assert ec2.describe_locked_snapshots(SnapshotIds=[copy])["Snapshots"][0]["LockState"] == "governance"


def test_a_lock_that_somebody_has_made_longer_stays_and_a_stricter_mode_is_brought_about(stack: LocalStack, settings: dict[str, str]) -> None:
    event, ec2 = new_case(stack, settings, 5), stack.client("ec2", account=FORENSIC)
    one, other = sorted(of_case(ec2, event["CaseId"]))
    ec2.lock_snapshot(SnapshotId=one, LockMode="governance", LockDuration=90)
    with told(stack, **settings):
        assert invoke(stack, "lock-snapshots", event)["Status"] == "Done"
        assert locks(ec2, one, other) == {one: ("governance", 90), other: ("governance", 30)}
        with stack.reconfigured("lock-snapshots", **settings, SNAPSHOT_LOCK_MODE="compliance"):
            assert invoke(stack, "lock-snapshots", event)["Status"] == "Done"
        assert locks(ec2, one, other) == {one: ("compliance", 90), other: ("compliance", 30)}
        assert invoke(stack, "lock-snapshots", event)["Status"] == "Done", "governance is asked for, and compliance stays"
    assert locks(ec2, one, other) == {one: ("compliance", 90), other: ("compliance", 30)}


def locks(ec2: Any, *ids: str) -> dict[str, tuple[str, int]]:
    found = ec2.describe_locked_snapshots(SnapshotIds=list(ids))["Snapshots"]
    return {one["SnapshotId"]: (one["LockState"], one["LockDuration"]) for one in found}


def test_the_limit_of_copies_at_a_time_is_waited_out_and_a_lost_answer_makes_no_second_copy(stack: LocalStack, settings: dict[str, str]) -> None:
    event = new_case(stack, settings, 3)
    with told(stack, **settings):
        stack.inject({"Service": "ec2", "Action": "CopySnapshot", "Code": "ResourceLimitExceeded"})
        assert invoke(stack, "copy-snapshots", event)["Status"] == "InProgress"
        stack.inject({"Service": "ec2", "Action": "CopySnapshot", "Code": "InternalError", "Status": 500, "Executed": True})
        lost = invoke(stack, "copy-snapshots", event)
        assert lost.get("errorType") == "Unavailable" or lost["Status"] == "InProgress", lost
        stack.inject()
        assert settled(stack, "copy-snapshots", event)["Status"] == "Done"
    assert len(of_case(stack.client("ec2", account=FORENSIC), event["CaseId"])) == 2


def test_a_role_that_cannot_be_assumed_is_an_error_that_says_what_to_deploy(stack: LocalStack, way: Way) -> None:
    nobody = {**way.settings, "FORENSIC_ROLE": "cordon/nobody"}
    with told(stack, **nobody):
        said = invoke(stack, "copy-snapshots", way.event)
        rows = {step["Step"]: step for step in verified(stack, way)["Steps"]}
    assert said["errorType"] == "AccessDenied"
    for part in ("sts:AssumeRole", f"arn:aws:iam::{FORENSIC}:role/cordon/nobody", "forensic-account.yaml", EXTERNAL_ID):
        assert part in said["errorMessage"]
    assert (rows["copy-snapshots"]["Status"], rows["lock-snapshots"]["Status"], rows["share-snapshots"]["Status"]) == ("Failed", "Failed", "Done")


def test_a_key_that_does_not_reach_where_copies_would_go_is_said_before_anything_is_asked_for(stack: LocalStack, way: Way) -> None:
    since = time.time()
    with told(stack, **way.settings, FORENSIC_REGION=ELSEWHERE):
        said = invoke(stack, "copy-snapshots", way.event)
    assert said["Status"] == "Unsupported" and f"copies go to {ELSEWHERE}, which the forensic account's key in {REGION}" in said["Reason"]
    assert [call for call in stack.calls(since) if call["Service"] == "ec2"] == []


def test_a_dry_run_shares_copies_and_locks_nothing(stack: LocalStack, settings: dict[str, str]) -> None:
    event, since = {**new_case(stack, settings, 2), "DryRun": True}, time.time()
    with told(stack, **settings):
        said = {step: invoke(stack, step, event)["Status"] for step in ("share-snapshots", "copy-snapshots", "lock-snapshots")}
    assert said == {"share-snapshots": "Planned", "copy-snapshots": "Planned", "lock-snapshots": "NotApplicable"}
    assert [call for call in stack.changes(since) if call["Service"] == "ec2"] == []
