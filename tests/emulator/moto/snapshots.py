"""EC2's snapshots between accounts: who may copy whose, and who may delete what is locked.

Each `mend_…` replaces one behaviour of moto 5.2.5, or adds what it lacks, and has a test in
tests/emulator/tests/test_snapshots.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2 import ec2_backends
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_block_store import EBSBackend, Snapshot
from moto.ec2.responses import EC2Response
from moto.moto_api._internal import mock_random

# AWS's words for a copy whose key is nobody's here; the copy itself is accepted, and fails by itself.
NO_KEY = "Given key ID is not accessible"


def mend_copy_of_anothers_snapshot() -> None:
    """AWS: what can be copied is one's own, what is shared with one, and what is public.

    moto looks only among the caller's own. A key reaches only its own Region; with one of another Region the copy ends
    in `error`, and says why in its StateMessage alone.
    """

    def copy_snapshot(self: Any, source_snapshot_id: str, source_region: str, description: str, kms_key_id: str | None) -> Snapshot:
        source = readable(self.account_id, source_region, source_snapshot_id)
        if source.status != "completed":
            raise EC2ClientError("IncorrectState", f"The snapshot '{source_snapshot_id}' is in the '{source.status}' state.")
        new_id = f"snap-{mock_random.get_random_hex(17)}"
        copy = Snapshot(self, new_id, volume=source.volume, description=description, encrypted=source.encrypted, kms_key_id=kms_key_id)
        copy.state_message = NO_KEY if kms_key_id and of_another_region(kms_key_id, self.region_name) else None
        self.snapshots[new_id] = copy
        return copy

    upstream = Snapshot.status.fget
    Snapshot.state_message = None
    Snapshot.status = property(lambda self: "error" if self.state_message else upstream(self), Snapshot.status.fset)
    EBSBackend.copy_snapshot = copy_snapshot


def readable(account: str, region: str, snapshot_id: str) -> Snapshot:
    """The snapshot as the account sees it: one that is neither its own nor shared with it is not there for it."""
    for owner, backends in list(ec2_backends.items()):
        found = backends[region].snapshots.get(snapshot_id) if region in backends else None
        if found and (owner == account or account in found.create_volume_permission_userids or found.create_volume_permission_groups):
            return found
    raise EC2ClientError("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")


def of_another_region(key: str, region: str) -> bool:
    return key.startswith("arn:") and key.split(":")[3] != region


def mend_snapshots_shown() -> None:
    """AWS: DescribeSnapshots shows one's own and those that are shared with one by name; `OwnerIds` narrows that.

    moto shows the caller's own only, and does not look at OwnerIds.
    """
    upstream = EC2Response.describe_snapshots

    def describe_snapshots(self: Any) -> Any:
        answer, owners = upstream(self), self._get_param("OwnerIds", [])
        wanted = {self.current_account if owner == "self" else owner for owner in owners}
        shown = [one for one in answer.result["Snapshots"] if not wanted or one.owner_id in wanted]
        if not wanted or wanted - {self.current_account}:
            shown += [one for one in shared_with(self.current_account, self.region) if not wanted or one.owner_id in wanted]
        return ActionResult({"Snapshots": shown})

    EC2Response.describe_snapshots = describe_snapshots


def shared_with(account: str, region: str) -> list[Snapshot]:
    others = [backends[region] for owner, backends in list(ec2_backends.items()) if owner != account and region in backends]
    return [one for backend in others for one in backend.snapshots.values() if account in one.create_volume_permission_userids]


def mend_share_under_the_default_key() -> None:
    """AWS: a snapshot under the account's default key for EBS can't be shared, and an encrypted one can't be public."""
    upstream = EC2Response.modify_snapshot_attribute

    def modify_snapshot_attribute(self: Any) -> Any:
        snapshot = self.ec2_backend.get_snapshot(self._get_param("SnapshotId"))
        if self._get_param("OperationType") == "add" and snapshot.encrypted:
            if snapshot.kms_key_id in (None, self.ec2_backend.default_kms_key_id):
                raise EC2ClientError("OperationNotPermitted", "Encrypted snapshots with EBS default key cannot be shared")
            if self._get_param("GroupNames"):
                raise EC2ClientError("OperationNotPermitted", "Encrypted snapshots cannot be made public")
        return upstream(self)

    EC2Response.modify_snapshot_attribute = modify_snapshot_attribute


# --- Locks -----------------------------------------------------------------------------------------------------------


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


def mend_snapshot_locks() -> None:
    """AWS: LockSnapshot, UnlockSnapshot and DescribeLockedSnapshots, which moto lacks; a locked snapshot can't be deleted.

    In governance mode whoever may can unlock, and change everything; in compliance mode, after the cooling-off period,
    the lock can only be made longer. A lock on a pending snapshot is cancelled if the snapshot fails.
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


MENDS = (mend_copy_of_anothers_snapshot, mend_snapshots_shown, mend_share_under_the_default_key, mend_snapshot_locks)
