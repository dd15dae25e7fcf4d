"""EC2: snapshots, their copies, and who sees them."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2 import ec2_backends
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_block_store import EBSBackend, Snapshot
from moto.ec2.responses import EC2Response
from moto.moto_api._internal import mock_random

from emulator.patches import patch
from emulator.settings import seconds

# AWS's words; the request is accepted, and the copy fails later.
NO_KEY = "Given key ID is not accessible"


@patch("AWSEC2/latest/APIReference/API_Snapshot.html", upstream=("getmoto/moto#437",))
def pending() -> None:
    """A snapshot is `pending` until its blocks are copied, and `completed` after that.

    moto's snapshots are complete at once.
    """

    def state(self: Any) -> str:
        if getattr(self, "state_message", None):
            return "error"  # see copies_without_key
        age = (utcnow() - self.start_time).total_seconds()
        return "completed" if age >= seconds("MOTO_SNAPSHOT_PENDING_SECONDS") else "pending"

    Snapshot.status = property(state, lambda self, _: None)
    Snapshot.progress = property(lambda self: "100%" if self.status == "completed" else "42%")


@patch("AWSEC2/latest/APIReference/API_Snapshot.html", "ebs/latest/userguide/ebs-encryption.html")
def key_of_volume() -> None:
    """The snapshot of an encrypted volume is encrypted with the volume's key, and shows it.

    moto shows no key.
    """
    upstream = EBSBackend.create_snapshot

    def create_snapshot(self: Any, *args: Any, **kwargs: Any) -> Any:
        snapshot = upstream(self, *args, **kwargs)
        snapshot.kms_key_id = snapshot.volume.kms_key_id
        return snapshot

    EBSBackend.create_snapshot = create_snapshot


@patch("AWSEC2/latest/APIReference/API_CreateSnapshots.html", upstream=("getmoto/moto#4767", "getmoto/moto:docs/docs/services/ec2.rst"))
def tags_from_source() -> None:
    """`CreateSnapshots` with `CopyTagsFromSource` gives each snapshot the tags of its volume.

    moto ignores the parameter.
    """
    upstream = EC2Response.create_snapshots

    def create_snapshots(self: Any) -> Any:
        answer = upstream(self)
        if self._get_param("CopyTagsFromSource") == "volume":
            for snapshot in answer.result["Snapshots"]:
                own = {tag["key"] for tag in snapshot.get_tags()}
                copied = {tag["key"]: tag["value"] for tag in snapshot.volume.get_tags() if not tag["key"].startswith("aws:")}
                snapshot.add_tags({key: value for key, value in copied.items() if key not in own})
        return answer

    EC2Response.create_snapshots = create_snapshots


# --- Copies ----------------------------------------------------------------------------------------------------------


@patch("ebs/latest/userguide/ebs-copy-snapshot.html")
def copies_of_shared() -> None:
    """An account can copy its own snapshots, those shared with it, and public ones.

    moto copies the caller's own only.
    """

    def copy_snapshot(self: Any, source_snapshot_id: str, source_region: str, description: str, kms_key_id: str | None) -> Snapshot:
        source, new_id = readable(self.account_id, source_region, source_snapshot_id), f"snap-{mock_random.get_random_hex(17)}"
        copy = Snapshot(self, new_id, volume=source.volume, description=description, encrypted=source.encrypted, kms_key_id=kms_key_id)
        self.snapshots[new_id] = copy
        return copy

    EBSBackend.copy_snapshot = copy_snapshot


def readable(account: str, region: str, snapshot_id: str) -> Snapshot:
    """The snapshot as the account sees it: one that is neither its own nor shared with it does not exist."""
    for owner, backends in list(ec2_backends.items()):
        found = backends[region].snapshots.get(snapshot_id) if region in backends else None
        if found and (owner == account or account in found.create_volume_permission_userids or found.create_volume_permission_groups):
            return found
    raise EC2ClientError("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")


@patch("ebs/latest/userguide/ebs-copy-snapshot.html")
def copies_of_completed() -> None:
    """Only a `completed` snapshot can be copied.

    moto has no others; see `pending`.
    """
    upstream = EBSBackend.copy_snapshot

    def copy_snapshot(self: Any, source_snapshot_id: str, source_region: str, **more: Any) -> Snapshot:
        source = readable(self.account_id, source_region, source_snapshot_id)
        if source.status != "completed":
            raise EC2ClientError("IncorrectState", f"The snapshot '{source_snapshot_id}' is in the '{source.status}' state.")
        return upstream(self, source_snapshot_id, source_region, **more)

    EBSBackend.copy_snapshot = copy_snapshot


@patch("AWSEC2/latest/APIReference/API_CopySnapshot.html", "ebs/latest/userguide/ebs-copy-snapshot.html")
def encryption_of_copies() -> None:
    """`Encrypted` encrypts a copy, under the account's default key for EBS unless the request names another one.

    moto ignores the parameter.
    """
    upstream = EC2Response.copy_snapshot

    def copy_snapshot(self: Any) -> Any:
        answer = upstream(self)
        copy = self.ec2_backend.snapshots[answer.result["SnapshotId"]]
        copy.encrypted = copy.encrypted or bool(self._get_bool_param("Encrypted"))
        if copy.encrypted and not copy.kms_key_id:
            copy.kms_key_id = self.ec2_backend.default_kms_key_id or self.ec2_backend._create_default_encryption_key()
        return answer

    EC2Response.copy_snapshot = copy_snapshot


@patch("ebs/latest/userguide/ebs-copy-snapshot.html", "AWSEC2/latest/APIReference/API_Snapshot.html")
def copies_without_key() -> None:
    """A copy under a key that is out of reach is accepted, and ends in `error`; only its `StateMessage` says why.

    moto accepts every key. Here, the keys of other Regions are out of reach.
    """
    upstream = EBSBackend.copy_snapshot

    def copy_snapshot(self: Any, *more: Any, kms_key_id: str | None, **named: Any) -> Snapshot:
        copy = upstream(self, *more, kms_key_id=kms_key_id, **named)
        if kms_key_id and of_another_region(kms_key_id, self.region_name):
            copy.state_message, copy.status = NO_KEY, "error"
        return copy

    Snapshot.state_message = None
    EBSBackend.copy_snapshot = copy_snapshot


def of_another_region(key: str, region: str) -> bool:
    return key.startswith("arn:") and key.split(":")[3] != region


@patch("AWSEC2/latest/APIReference/API_Snapshot.html")
def volume_of_copies() -> None:
    """A copy has an arbitrary volume id, which means nothing.

    moto shows the volume of the source.
    """
    upstream, upstream_filter = EBSBackend.copy_snapshot, Snapshot.get_filter_value

    def copy_snapshot(self: Any, *more: Any, **named: Any) -> Snapshot:
        copy = upstream(self, *more, **named)
        copy.is_copy = True
        return copy

    Snapshot.is_copy = False
    Snapshot.volume_id = property(lambda self: "vol-ffffffff" if self.is_copy else self.volume.id)
    Snapshot.get_filter_value = lambda self, name, *args: self.volume_id if name == "volume-id" else upstream_filter(self, name, *args)
    EBSBackend.copy_snapshot = copy_snapshot


# --- Sharing ---------------------------------------------------------------------------------------------------------


@patch("AWSEC2/latest/APIReference/API_DescribeSnapshots.html")
def shared_are_shown() -> None:
    """`DescribeSnapshots` shows an account its own snapshots and those shared with it by name; `OwnerIds` narrows them.

    moto shows the caller's own only, and ignores `OwnerIds`.
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


@patch("AWSEC2/latest/APIReference/API_ModifySnapshotAttribute.html", "ebs/latest/userguide/ebs-modifying-snapshot-permissions.html")
def sharing_of_encrypted() -> None:
    """A snapshot under the account's default key for EBS cannot be shared, and no encrypted one can be made public.

    moto shares every snapshot.
    """
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
