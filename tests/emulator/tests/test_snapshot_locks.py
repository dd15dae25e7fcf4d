"""EC2: locks on snapshots."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from support.refusal import refusal
from support.snapshots import new_snapshot, share
from support.stack import ACCOUNT, REGION, LocalStack

proves = pytest.mark.proves

OTHER, ELSEWHERE = "888888888888", "eu-west-1"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/2f2d3a1c-0000-4000-8000-000000000001"


def lock(moto: LocalStack, snapshot: str, mode: str = "governance", **asked: Any) -> dict[str, Any]:
    return moto.client("ec2").lock_snapshot(SnapshotId=snapshot, LockMode=mode, **(asked or {"LockDuration": 30}))


def lock_of(moto: LocalStack, snapshot: str) -> dict[str, Any] | None:
    locked = moto.client("ec2").describe_locked_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    return locked[0] if locked else None


def test_a_snapshot_without_a_lock_is_not_among_the_locked_ones(moto: LocalStack) -> None:
    assert lock_of(moto, new_snapshot(moto)) is None


@proves("moto.ec2.snapshot_locks.locks")
def test_in_governance_mode_a_lock_holds_until_somebody_removes_it(moto: LocalStack) -> None:
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


def test_during_its_cooling_off_period_a_compliance_lock_can_be_removed(moto: LocalStack) -> None:
    snapshot = new_snapshot(moto)
    assert lock(moto, snapshot, "compliance", LockDuration=30, CoolOffPeriod=1)["LockState"] == "compliance-cooloff"
    assert refusal(moto.client("ec2").delete_snapshot, SnapshotId=snapshot)[0] == "SnapshotLocked"
    moto.client("ec2").unlock_snapshot(SnapshotId=snapshot)


def test_an_expired_lock_is_shown_and_prevents_nothing(moto: LocalStack) -> None:
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
def test_a_lock_with_invalid_terms_is_refused(moto: LocalStack, asked: dict[str, Any]) -> None:
    assert refusal(moto.client("ec2").lock_snapshot, SnapshotId=new_snapshot(moto), **asked)[0].startswith("InvalidParameter")


def test_a_lock_begins_with_completion_and_ends_with_failure(slow_moto: LocalStack, slow_seconds: float) -> None:
    ec2, snapshot = slow_moto.client("ec2"), new_snapshot(slow_moto)
    assert "LockExpiresOn" not in lock(slow_moto, snapshot)
    time.sleep(slow_seconds + 0.1)
    assert "LockExpiresOn" in lock_of(slow_moto, snapshot)
    key = KEY.replace(REGION, ELSEWHERE)
    failed = ec2.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion=REGION, KmsKeyId=key, Encrypted=True)["SnapshotId"]
    assert refusal(ec2.lock_snapshot, SnapshotId=failed, LockMode="governance", LockDuration=1)[0] == "IncorrectState"
    assert lock_of(slow_moto, failed) is None


def test_only_the_owner_can_lock_a_snapshot(moto: LocalStack) -> None:
    snapshot = new_snapshot(moto, Encrypted=True, KmsKeyId=KEY)
    share(moto, snapshot, OTHER)
    ec2 = moto.client("ec2", account=OTHER)
    assert refusal(ec2.lock_snapshot, SnapshotId=snapshot, LockMode="governance", LockDuration=1)[0].startswith("InvalidSnapshot")
