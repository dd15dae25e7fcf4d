"""What the local stack mends in moto about snapshots between accounts, each against the behaviour that AWS documents."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any, Iterator

import pytest

from support.refusal import refusal
from support.stack import ACCOUNT, REGION, LocalStack

OTHER, STRANGER = "888888888888", "333333333333"
ELSEWHERE = "eu-west-1"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/2f2d3a1c-0000-4000-8000-000000000001"
THEIR_KEY = f"arn:aws:kms:{REGION}:{OTHER}:key/2f2d3a1c-0000-4000-8000-000000000002"


def new_snapshot(moto: LocalStack, account: str = ACCOUNT, **encryption: Any) -> str:
    ec2 = moto.client("ec2", account=account)
    volume = ec2.create_volume(Size=8, AvailabilityZone=f"{REGION}a", **encryption)["VolumeId"]
    return ec2.create_snapshot(VolumeId=volume)["SnapshotId"]


def described(moto: LocalStack, snapshot: str, account: str = ACCOUNT, region: str = REGION) -> dict[str, Any]:
    return moto.client("ec2", account=account, region=region).describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]


def share(moto: LocalStack, snapshot: str, *accounts: str, operation: str = "add") -> None:
    moto.client("ec2").modify_snapshot_attribute(
        SnapshotId=snapshot, Attribute="createVolumePermission", OperationType=operation, UserIds=list(accounts)
    )


# --- Copies of another's


def test_a_snapshot_that_is_not_shared_cannot_be_copied_and_is_not_even_there(moto: LocalStack) -> None:
    snapshot = new_snapshot(moto, Encrypted=True, KmsKeyId=KEY)
    for account in (OTHER, STRANGER):
        ec2 = moto.client("ec2", account=account)
        assert refusal(ec2.copy_snapshot, SourceSnapshotId=snapshot, SourceRegion=REGION)[0] == "InvalidSnapshot.NotFound"
    share(moto, snapshot, OTHER)
    copied = moto.client("ec2", account=OTHER).copy_snapshot(SourceSnapshotId=snapshot, SourceRegion=REGION, KmsKeyId=THEIR_KEY, Encrypted=True)
    copy = described(moto, copied["SnapshotId"], OTHER)
    assert (copy["OwnerId"], copy["KmsKeyId"], copy["Encrypted"], copy["VolumeSize"]) == (OTHER, THEIR_KEY, True, 8)
    ec2 = moto.client("ec2", account=STRANGER)
    assert refusal(ec2.copy_snapshot, SourceSnapshotId=snapshot, SourceRegion=REGION)[0] == "InvalidSnapshot.NotFound"
    share(moto, snapshot, OTHER, operation="remove")
    ec2 = moto.client("ec2", account=OTHER)
    assert refusal(ec2.copy_snapshot, SourceSnapshotId=snapshot, SourceRegion=REGION)[0] == "InvalidSnapshot.NotFound"


def test_a_shared_snapshot_is_copied_into_another_region_too(moto: LocalStack) -> None:
    snapshot = new_snapshot(moto, Encrypted=True, KmsKeyId=KEY)
    share(moto, snapshot, OTHER)
    ec2 = moto.client("ec2", account=OTHER, region=ELSEWHERE)
    key = THEIR_KEY.replace(REGION, ELSEWHERE)
    copied = ec2.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion=REGION, KmsKeyId=key, Encrypted=True)["SnapshotId"]
    assert described(moto, copied, OTHER, ELSEWHERE)["State"] == "completed"


def test_a_copy_under_a_key_that_does_not_reach_is_accepted_and_fails_with_a_message_only(moto: LocalStack) -> None:
    ec2 = moto.client("ec2")
    key = KEY.replace(REGION, ELSEWHERE)
    copied = ec2.copy_snapshot(SourceSnapshotId=new_snapshot(moto), SourceRegion=REGION, KmsKeyId=key, Encrypted=True)["SnapshotId"]
    copy = described(moto, copied)
    assert (copy["State"], copy["StateMessage"]) == ("error", "Given key ID is not accessible")
    assert "StateMessage" not in described(moto, new_snapshot(moto))


def test_whoever_a_snapshot_is_shared_with_sees_it_but_not_among_his_own(moto: LocalStack) -> None:
    snapshot = new_snapshot(moto, Encrypted=True, KmsKeyId=KEY)
    share(moto, snapshot, OTHER)

    def seen(account: str, **owners: Any) -> bool:
        ec2 = moto.client("ec2", account=account)
        return snapshot in [one["SnapshotId"] for one in ec2.describe_snapshots(**owners)["Snapshots"]]

    assert seen(ACCOUNT, OwnerIds=["self"]) and seen(OTHER) and seen(OTHER, OwnerIds=[ACCOUNT])
    assert not seen(OTHER, OwnerIds=["self"]) and not seen(STRANGER)


def test_a_snapshot_under_the_default_key_cannot_be_shared_in_the_words_of_aws(moto: LocalStack) -> None:
    ec2 = moto.client("ec2")
    copied = ec2.copy_snapshot(SourceSnapshotId=new_snapshot(moto), SourceRegion=REGION, Encrypted=True)["SnapshotId"]
    share_it = {"SnapshotId": copied, "Attribute": "createVolumePermission", "OperationType": "add"}
    said = refusal(ec2.modify_snapshot_attribute, **share_it, UserIds=[OTHER])
    assert said == ("OperationNotPermitted", "Encrypted snapshots with EBS default key cannot be shared")
    under_a_key = {**share_it, "SnapshotId": new_snapshot(moto, Encrypted=True, KmsKeyId=KEY)}
    assert refusal(ec2.modify_snapshot_attribute, **under_a_key, GroupNames=["all"])[0] == "OperationNotPermitted"
    ec2.modify_snapshot_attribute(**under_a_key, UserIds=[OTHER])


# --- Locks


def lock(moto: LocalStack, snapshot: str, mode: str = "governance", **asked: Any) -> dict[str, Any]:
    return moto.client("ec2").lock_snapshot(SnapshotId=snapshot, LockMode=mode, **(asked or {"LockDuration": 30}))


def lock_of(moto: LocalStack, snapshot: str) -> dict[str, Any] | None:
    locked = moto.client("ec2").describe_locked_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    return locked[0] if locked else None


def test_a_snapshot_without_a_lock_is_not_among_the_locked_ones(moto: LocalStack) -> None:
    assert lock_of(moto, new_snapshot(moto)) is None


def test_a_locked_snapshot_cannot_be_deleted_until_it_is_unlocked_which_governance_allows(moto: LocalStack) -> None:
    ec2, snapshot = moto.client("ec2"), new_snapshot(moto)
    assert lock(moto, snapshot)["LockState"] == "governance"
    shown = lock_of(moto, snapshot)
    assert (shown["LockState"], shown["LockDuration"], shown["OwnerId"]) == ("governance", 30, ACCOUNT)
    assert shown["LockExpiresOn"] - shown["LockCreatedOn"] == timedelta(days=30)
    assert refusal(ec2.delete_snapshot, SnapshotId=snapshot)[0] == "SnapshotLocked"
    ec2.unlock_snapshot(SnapshotId=snapshot)
    assert lock_of(moto, snapshot) is None
    ec2.delete_snapshot(SnapshotId=snapshot)


def test_in_compliance_mode_a_lock_can_only_be_made_longer(moto: LocalStack) -> None:
    ec2, snapshot = moto.client("ec2"), new_snapshot(moto)
    lock(moto, snapshot, "compliance")
    for call, asked in (
        (ec2.unlock_snapshot, {}),
        (ec2.lock_snapshot, {"LockMode": "governance", "LockDuration": 60}),
        (ec2.lock_snapshot, {"LockMode": "compliance", "LockDuration": 29}),
        (ec2.lock_snapshot, {"LockMode": "compliance", "LockDuration": 60, "CoolOffPeriod": 1}),
    ):
        assert refusal(call, SnapshotId=snapshot, **asked)[0] == "OperationNotPermitted"
    assert lock(moto, snapshot, "compliance", LockDuration=31)["LockDuration"] == 31
    assert refusal(ec2.delete_snapshot, SnapshotId=snapshot)[0] == "SnapshotLocked"


def test_during_a_cooling_off_period_a_compliance_lock_can_be_taken_back(moto: LocalStack) -> None:
    snapshot = new_snapshot(moto)
    assert lock(moto, snapshot, "compliance", LockDuration=30, CoolOffPeriod=1)["LockState"] == "compliance-cooloff"
    assert refusal(moto.client("ec2").delete_snapshot, SnapshotId=snapshot)[0] == "SnapshotLocked"
    moto.client("ec2").unlock_snapshot(SnapshotId=snapshot)


def test_a_lock_that_has_ended_is_shown_as_expired_and_keeps_nobody_from_deleting(moto: LocalStack) -> None:
    snapshot = new_snapshot(moto)
    lock(moto, snapshot, ExpirationDate=datetime.now(timezone.utc) + timedelta(seconds=1))
    assert lock_of(moto, snapshot)["LockState"] == "governance"
    time.sleep(1.1)
    assert lock_of(moto, snapshot)["LockState"] == "expired"
    moto.client("ec2").delete_snapshot(SnapshotId=snapshot)


@pytest.mark.parametrize(
    "asked",
    [
        {"LockMode": "governance"},
        {"LockMode": "governance", "LockDuration": 30, "CoolOffPeriod": 1},
        {"LockMode": "governance", "LockDuration": 36_501},
        {"LockMode": "compliance", "LockDuration": 30, "CoolOffPeriod": 73},
        {"LockMode": "forever", "LockDuration": 30},
    ],
)
def test_a_lock_that_aws_would_not_take_is_refused(moto: LocalStack, asked: dict[str, Any]) -> None:
    assert refusal(moto.client("ec2").lock_snapshot, SnapshotId=new_snapshot(moto), **asked)[0].startswith("InvalidParameter")


@pytest.fixture(scope="module")
def slow_moto() -> Iterator[LocalStack]:
    with LocalStack(moto_only=True, settings={"MOTO_SNAPSHOT_PENDING_SECONDS": "0.8"}) as stack:
        yield stack


def test_a_lock_on_a_pending_snapshot_begins_with_its_completion_and_is_cancelled_by_its_failure(slow_moto: LocalStack) -> None:
    ec2, snapshot = slow_moto.client("ec2"), new_snapshot(slow_moto)
    assert "LockExpiresOn" not in lock(slow_moto, snapshot)
    time.sleep(0.9)
    assert "LockExpiresOn" in lock_of(slow_moto, snapshot)
    key = KEY.replace(REGION, ELSEWHERE)
    failed = ec2.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion=REGION, KmsKeyId=key, Encrypted=True)["SnapshotId"]
    assert refusal(ec2.lock_snapshot, SnapshotId=failed, LockMode="governance", LockDuration=1)[0] == "IncorrectState"
    assert lock_of(slow_moto, failed) is None


def test_only_the_owner_can_lock_not_whoever_a_snapshot_is_shared_with(moto: LocalStack) -> None:
    snapshot = new_snapshot(moto, Encrypted=True, KmsKeyId=KEY)
    share(moto, snapshot, OTHER)
    ec2 = moto.client("ec2", account=OTHER)
    assert refusal(ec2.lock_snapshot, SnapshotId=snapshot, LockMode="governance", LockDuration=1)[0].startswith("InvalidSnapshot")
