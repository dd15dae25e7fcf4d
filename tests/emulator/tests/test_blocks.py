"""The blocks of snapshots on the EC2 side, each against the behaviour that AWS documents."""

from __future__ import annotations

import base64
import hashlib

from support.stack import LocalStack
from support.victim import build_victims


def blocks_of(moto: LocalStack, snapshot: str) -> list[tuple[int, bytes]]:
    ebs, read = moto.client("ebs"), []
    for listed in ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]:
        block = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=listed["BlockIndex"], BlockToken=listed["BlockToken"])
        data = block["BlockData"].read()
        assert block["Checksum"] == base64.b64encode(hashlib.sha256(data).digest()).decode()
        read.append((listed["BlockIndex"], data))
    return read


def test_a_snapshot_has_blocks_with_their_checksums_and_its_copy_has_the_same(moto: LocalStack) -> None:
    (victim,) = build_victims(moto, 1)
    ec2, volume = moto.client("ec2"), next(iter(victim.volumes.values()))
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "VolumeId", "Value": volume}]}]
    copy = ec2.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion=moto.region, TagSpecifications=tags)["SnapshotId"]
    assert len(blocks_of(moto, snapshot)) == 3 and blocks_of(moto, snapshot) == blocks_of(moto, copy)


def test_blocks_are_listed_page_by_page_from_an_index_on(moto: LocalStack) -> None:
    (victim,) = build_victims(moto, 1)
    snapshot, ebs = moto.client("ec2").create_snapshot(VolumeId=next(iter(victim.volumes.values())))["SnapshotId"], moto.client("ebs")
    first = ebs.list_snapshot_blocks(SnapshotId=snapshot, MaxResults=100, StartingBlockIndex=1)
    assert [block["BlockIndex"] for block in first["Blocks"]] == [1, 5] and "NextToken" not in first
