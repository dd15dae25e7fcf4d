"""Snapshots that a test makes for itself."""

from __future__ import annotations

from typing import Any

from .stack import ACCOUNT, REGION, LocalStack


def new_snapshot(moto: LocalStack, account: str = ACCOUNT, **encryption: Any) -> str:
    ec2 = moto.client("ec2", account=account)
    volume = ec2.create_volume(Size=8, AvailabilityZone=f"{REGION}a", **encryption)["VolumeId"]
    return ec2.create_snapshot(VolumeId=volume)["SnapshotId"]


def share(moto: LocalStack, snapshot: str, *accounts: str, operation: str = "add") -> None:
    moto.client("ec2").modify_snapshot_attribute(
        SnapshotId=snapshot, Attribute="createVolumePermission", OperationType=operation, UserIds=list(accounts)
    )
