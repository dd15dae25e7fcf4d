"""EC2: locks on snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_block_store import Snapshot
from moto.ec2.responses import EC2Response

from emulator.patches import patch


@dataclass
class Lock:
    """A snapshot's lock, as it was asked for."""

    mode: str
    created: datetime
    days: int | None
    until: datetime | None
    cools_until: datetime | None

    def starts(self, snapshot: Snapshot) -> datetime | None:
        """The days of a lock on a pending snapshot begin with its completion."""
        return self.created if snapshot.status == "completed" else None

    def expires(self, snapshot: Snapshot) -> datetime | None:
        start = self.starts(snapshot)
        return self.until or (start and start + timedelta(days=self.days or 0))

    def state(self, snapshot: Snapshot) -> str:
        expires = self.expires(snapshot)
        if expires and utcnow() >= expires:
            return "expired"
        cooling = self.mode == "compliance" and self.cools_until is not None and utcnow() < self.cools_until
        return "compliance-cooloff" if cooling else self.mode


@patch(
    "AWSEC2/latest/APIReference/API_LockSnapshot.html", "ebs/latest/userguide/snapshot-lock-considerations.html",
    upstream=("getmoto/moto:IMPLEMENTATION_COVERAGE.md",),
)  # fmt: skip
def locks() -> None:
    """`LockSnapshot` locks a snapshot against deletion, `UnlockSnapshot` unlocks it unless it is in compliance mode.

    moto has neither call, nor `DescribeLockedSnapshots`. Governance mode allows every change; compliance mode, once its
    cooling-off period is over, only a longer lock. The days of a lock begin when a pending snapshot completes, and a snapshot
    that fails loses its lock.
    """
    Snapshot.lock = None

    def lock_snapshot(self: Any) -> Any:
        snapshot = self.ec2_backend.get_snapshot(self._get_param("SnapshotId"))
        new = asked_for(self)
        if snapshot.status not in ("pending", "completed"):
            raise EC2ClientError("IncorrectState", f"The snapshot '{snapshot.id}' is in the '{snapshot.status}' state.")
        old = snapshot.lock
        if old and old.state(snapshot) == "compliance":
            refuse_less(snapshot, old, new)
            new.created = old.created
        snapshot.lock = new
        return ActionResult(shown(snapshot))

    def unlock_snapshot(self: Any) -> Any:
        snapshot = self.ec2_backend.get_snapshot(self._get_param("SnapshotId"))
        if not is_locked(snapshot):
            raise EC2ClientError("IncorrectState", f"The snapshot '{snapshot.id}' is not locked.")
        if snapshot.lock.state(snapshot) == "compliance":
            raise EC2ClientError("OperationNotPermitted", f"The snapshot '{snapshot.id}' is locked in compliance mode.")
        snapshot.lock = None
        return ActionResult({"SnapshotId": snapshot.id})

    def describe_locked_snapshots(self: Any) -> Any:
        ids = self._get_param("SnapshotIds", [])
        asked = [self.ec2_backend.get_snapshot(one) for one in ids] if ids else list(self.ec2_backend.snapshots.values())
        return ActionResult({"Snapshots": [shown(one) for one in asked if one.lock and one.status != "error"]})

    upstream = EC2Response.delete_snapshot

    def delete_snapshot(self: Any) -> Any:
        snapshot = self.ec2_backend.snapshots.get(self._get_param("SnapshotId"))
        if snapshot and is_locked(snapshot):
            raise EC2ClientError("SnapshotLocked", f"The snapshot '{snapshot.id}' is locked.")
        return upstream(self)

    EC2Response.lock_snapshot = lock_snapshot
    EC2Response.unlock_snapshot = unlock_snapshot
    EC2Response.describe_locked_snapshots = describe_locked_snapshots
    EC2Response.delete_snapshot = delete_snapshot


def is_locked(snapshot: Snapshot) -> bool:
    return bool(snapshot.lock) and snapshot.status != "error" and snapshot.lock.state(snapshot) != "expired"


def asked_for(request: Any) -> Lock:
    mode, days, until = request._get_param("LockMode"), request._get_param("LockDuration"), request._get_param("ExpirationDate")
    cooling = request._get_param("CoolOffPeriod")
    if mode not in ("governance", "compliance"):
        raise EC2ClientError("InvalidParameterValue", f"Value ({mode}) for parameter lockMode is invalid.")
    if (days is None) == (until is None):
        raise EC2ClientError("InvalidParameterCombination", "Specify either a lock duration or an expiration date.")
    if days is not None and not 1 <= int(days) <= 36_500:
        raise EC2ClientError("InvalidParameterValue", f"Value ({days}) for parameter lockDuration is invalid.")
    if cooling is not None and (mode == "governance" or not 1 <= int(cooling) <= 72):
        raise EC2ClientError("InvalidParameterCombination", "A cooling-off period of 1 to 72 hours is for compliance mode.")
    now = utcnow()
    until = datetime.fromisoformat(until.replace("Z", "+00:00")).replace(tzinfo=None) if isinstance(until, str) else until
    until = until.replace(tzinfo=None) if until else None
    return Lock(mode, now, days and int(days), until, now + timedelta(hours=int(cooling)) if cooling else None)


def refuse_less(snapshot: Snapshot, old: Lock, new: Lock) -> None:
    """The cooling-off period is over: no other mode, no further cooling-off, no earlier end."""
    ends = Lock(new.mode, old.created, new.days, new.until, None).expires(snapshot)
    if new.mode != "compliance" or new.cools_until or (ends and ends < old.expires(snapshot)):
        raise EC2ClientError("OperationNotPermitted", f"The lock of '{snapshot.id}' is in compliance mode and can only be extended.")


def shown(snapshot: Snapshot) -> dict[str, Any]:
    lock = snapshot.lock
    return {
        "OwnerId": snapshot.owner_id, "SnapshotId": snapshot.id, "LockState": lock.state(snapshot), "LockDuration": lock.days,
        "LockCreatedOn": lock.created, "LockDurationStartTime": lock.starts(snapshot), "LockExpiresOn": lock.expires(snapshot),
        "CoolOffPeriodExpiresOn": lock.cools_until,
    }  # fmt: skip
