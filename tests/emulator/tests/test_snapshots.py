"""EC2: snapshots, their copies, and who sees them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from support.refusal import refusal
from support.snapshots import new_snapshot
from support.stack import ACCOUNT, REGION, LocalStack
from support.victim import DATA, ROOT, Victim, bare_instance, build_victims

proves = pytest.mark.proves

OTHER, STRANGER = "888888888888", "333333333333"
ELSEWHERE = "eu-west-1"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/2f2d3a1c-0000-4000-8000-000000000001"
THEIR_KEY = f"arn:aws:kms:{REGION}:{OTHER}:key/2f2d3a1c-0000-4000-8000-000000000002"


def described(moto: LocalStack, snapshot: str, account: str = ACCOUNT, region: str = REGION) -> dict[str, Any]:
    return moto.client("ec2", account=account, region=region).describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]


def share(moto: LocalStack, snapshot: str, *accounts: str, operation: str = "add") -> None:
    moto.client("ec2").modify_snapshot_attribute(
        SnapshotId=snapshot, Attribute="createVolumePermission", OperationType=operation, UserIds=list(accounts)
    )


@proves("moto.ec2.snapshots.pending", "moto.ec2.snapshots.copies_of_completed")
def test_a_pending_snapshot_cannot_be_copied_until_it_is_completed(slow_moto: LocalStack, slow_seconds: float) -> None:
    ec2, victim = slow_moto.client("ec2"), bare_instance(slow_moto)
    snapshot = ec2.create_snapshot(VolumeId=victim.volumes[ROOT])["SnapshotId"]
    copy = {"SourceSnapshotId": snapshot, "SourceRegion": slow_moto.region}
    assert ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] == "pending"
    assert refusal(ec2.copy_snapshot, **copy)[0] == "IncorrectState"
    time.sleep(slow_seconds)
    completed = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
    assert (completed["State"], completed["Progress"]) == ("completed", "100%")
    ec2.copy_snapshot(**copy)


@proves("moto.ec2.snapshots.key_of_volume")
def test_the_snapshot_of_an_encrypted_volume_shows_the_volumes_key(moto: LocalStack) -> None:
    ec2, victim = moto.client("ec2"), build_victims(moto)[0]
    snapshot = ec2.create_snapshot(VolumeId=victim.volumes[DATA])["SnapshotId"]
    volume = ec2.describe_volumes(VolumeIds=[victim.volumes[DATA]])["Volumes"][0]
    found = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
    assert found["Encrypted"] and found["KmsKeyId"] == volume["KmsKeyId"]


@proves("moto.ec2.snapshots.tags_from_source")
def test_snapshots_get_the_tags_of_their_volumes_when_asked(moto: LocalStack, bare: Victim) -> None:
    ec2 = moto.client("ec2")
    ec2.create_tags(Resources=[bare.volumes[ROOT]], Tags=[{"Key": "Owner", "Value": "shop"}])
    asked = {"InstanceSpecification": {"InstanceId": bare.instance}, "CopyTagsFromSource": "volume"}
    made = ec2.create_snapshots(**asked)["Snapshots"]
    found = ec2.describe_snapshots(SnapshotIds=[one["SnapshotId"] for one in made])["Snapshots"]
    assert [{"Key": "Owner", "Value": "shop"}] == found[0]["Tags"]


# --- Copies


@proves("moto.ec2.snapshots.encryption_of_copies", "moto.ec2.snapshots.volume_of_copies")
def test_an_encrypted_copy_has_its_own_key_and_an_arbitrary_volume(moto: LocalStack, bare: Victim) -> None:
    ec2 = moto.client("ec2")
    source = ec2.create_snapshot(VolumeId=bare.volumes[ROOT])["SnapshotId"]
    assert ec2.describe_snapshots(SnapshotIds=[source])["Snapshots"][0]["Encrypted"] is False
    copied = ec2.copy_snapshot(SourceSnapshotId=source, SourceRegion=moto.region, Encrypted=True, KmsKeyId=KEY)["SnapshotId"]
    copy = ec2.describe_snapshots(SnapshotIds=[copied])["Snapshots"][0]
    assert (copy["Encrypted"], copy["KmsKeyId"], copy["VolumeId"]) == (True, KEY, "vol-ffffffff")
    by_volume = ec2.describe_snapshots(Filters=[{"Name": "volume-id", "Values": [bare.volumes[ROOT]]}])["Snapshots"]
    assert copied not in [one["SnapshotId"] for one in by_volume]


@proves("moto.ec2.snapshots.encryption_of_copies")
def test_an_encrypted_copy_without_a_key_is_under_the_default_one(moto: LocalStack, bare: Victim) -> None:
    ec2 = moto.client("ec2")
    source = ec2.create_snapshot(VolumeId=bare.volumes[ROOT])["SnapshotId"]
    copied = ec2.copy_snapshot(SourceSnapshotId=source, SourceRegion=moto.region, Encrypted=True)["SnapshotId"]
    copy = ec2.describe_snapshots(SnapshotIds=[copied])["Snapshots"][0]
    assert copy["Encrypted"] and copy["KmsKeyId"].startswith("arn:aws:kms:")


@proves("moto.ec2.snapshots.copies_of_shared")
def test_a_snapshot_that_is_not_shared_does_not_exist_for_others(moto: LocalStack) -> None:
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


@proves("moto.ec2.snapshots.copies_of_shared")
def test_a_shared_snapshot_can_be_copied_into_another_region(moto: LocalStack) -> None:
    snapshot = new_snapshot(moto, Encrypted=True, KmsKeyId=KEY)
    share(moto, snapshot, OTHER)
    ec2 = moto.client("ec2", account=OTHER, region=ELSEWHERE)
    key = THEIR_KEY.replace(REGION, ELSEWHERE)
    copied = ec2.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion=REGION, KmsKeyId=key, Encrypted=True)["SnapshotId"]
    assert described(moto, copied, OTHER, ELSEWHERE)["State"] == "completed"


@proves("moto.ec2.snapshots.copies_without_key")
def test_a_copy_under_a_key_out_of_reach_is_accepted_and_fails_later(moto: LocalStack) -> None:
    ec2 = moto.client("ec2")
    key = KEY.replace(REGION, ELSEWHERE)
    copied = ec2.copy_snapshot(SourceSnapshotId=new_snapshot(moto), SourceRegion=REGION, KmsKeyId=key, Encrypted=True)["SnapshotId"]
    copy = described(moto, copied)
    assert (copy["State"], copy["StateMessage"]) == ("error", "Given key ID is not accessible")
    assert "StateMessage" not in described(moto, new_snapshot(moto))


# --- Sharing


@proves("moto.ec2.snapshots.shared_are_shown")
def test_a_shared_snapshot_is_shown_but_not_as_an_own_one(moto: LocalStack) -> None:
    snapshot = new_snapshot(moto, Encrypted=True, KmsKeyId=KEY)
    share(moto, snapshot, OTHER)

    def seen(account: str, **owners: Any) -> bool:
        ec2 = moto.client("ec2", account=account)
        return snapshot in [one["SnapshotId"] for one in ec2.describe_snapshots(**owners)["Snapshots"]]

    assert seen(ACCOUNT, OwnerIds=["self"]) and seen(OTHER) and seen(OTHER, OwnerIds=[ACCOUNT])
    assert not seen(OTHER, OwnerIds=["self"]) and not seen(STRANGER)


@proves("moto.ec2.snapshots.sharing_of_encrypted")
def test_a_snapshot_under_the_default_key_cannot_be_shared(moto: LocalStack) -> None:
    ec2 = moto.client("ec2")
    copied = ec2.copy_snapshot(SourceSnapshotId=new_snapshot(moto), SourceRegion=REGION, Encrypted=True)["SnapshotId"]
    share_it = {"SnapshotId": copied, "Attribute": "createVolumePermission", "OperationType": "add"}
    said = refusal(ec2.modify_snapshot_attribute, **share_it, UserIds=[OTHER])
    assert said == ("OperationNotPermitted", "Encrypted snapshots with EBS default key cannot be shared")
    under_a_key = {**share_it, "SnapshotId": new_snapshot(moto, Encrypted=True, KmsKeyId=KEY)}
    assert refusal(ec2.modify_snapshot_attribute, **under_a_key, GroupNames=["all"])[0] == "OperationNotPermitted"
    ec2.modify_snapshot_attribute(**under_a_key, UserIds=[OTHER])
