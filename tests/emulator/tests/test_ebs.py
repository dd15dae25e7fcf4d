"""EBS direct APIs: the blocks of snapshots."""

from __future__ import annotations

import base64
import hashlib

import pytest

from support.stack import LocalStack
from support.victim import build_victims

proves = pytest.mark.proves

def blocks_of(moto: LocalStack, snapshot: str) -> list[tuple[int, bytes]]:
    ebs, read = moto.client("ebs"), []
    for listed in ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]:
        block = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=listed["BlockIndex"], BlockToken=listed["BlockToken"])
        data = block["BlockData"].read()
        assert block["Checksum"] == base64.b64encode(hashlib.sha256(data).digest()).decode()
        read.append((listed["BlockIndex"], data))
    return read


@proves("moto.ebs.blocks")
def test_a_snapshot_has_blocks_with_checksums_and_its_copy_the_same_ones(moto: LocalStack) -> None:
    (victim,) = build_victims(moto, 1)
    ec2, volume = moto.client("ec2"), next(iter(victim.volumes.values()))
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "VolumeId", "Value": volume}]}]
    copy = ec2.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion=moto.region, TagSpecifications=tags)["SnapshotId"]
    assert len(blocks_of(moto, snapshot)) == 3 and blocks_of(moto, snapshot) == blocks_of(moto, copy)


@proves("moto.ebs.pages")
def test_blocks_are_listed_from_an_index_on_in_pages(moto: LocalStack) -> None:
    (victim,) = build_victims(moto, 1)
    snapshot, ebs = moto.client("ec2").create_snapshot(VolumeId=next(iter(victim.volumes.values())))["SnapshotId"], moto.client("ebs")
    first = ebs.list_snapshot_blocks(SnapshotId=snapshot, MaxResults=100, StartingBlockIndex=1)
    assert [block["BlockIndex"] for block in first["Blocks"]] == [1, 5] and "NextToken" not in first
