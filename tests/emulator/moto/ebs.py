"""EBS direct APIs: the blocks of snapshots."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from moto.core.responses import ActionResult
from moto.ebs.models import Block, EBSBackend, EBSSnapshot
from moto.ebs.responses import EBSResponse

from emulator.patches import patch

BLOCK = 512 * 1024
INDEXES = (0, 1, 5)  # AWS does not list unwritten blocks


def action_in(path: str) -> str:
    """The action that a path stands for: /snapshots/ID/blocks or /snapshots/ID/blocks/INDEX."""
    parts = path.strip("/").split("/")
    return {3: "ListSnapshotBlocks", 4: "GetSnapshotBlock"}.get(len(parts), "") if parts[0] == "snapshots" else ""


@patch("ebs/latest/userguide/ebs-accessing-snapshot.html", upstream=("getmoto/moto#6523",))
def blocks() -> None:
    """Every snapshot has blocks to list and read, and a copy has the blocks of its source.

    moto has blocks only of snapshots that `StartSnapshot` made.
    """

    def blocks_of(backend: EBSBackend, snapshot_id: str) -> EBSSnapshot:
        if snapshot_id not in backend.snapshots:
            snapshot = backend.ec2_backend.describe_snapshots(snapshot_ids=[snapshot_id])[0]
            made = EBSSnapshot(backend.account_id, snapshot)
            tags = {tag["key"]: tag["value"] for tag in snapshot.get_tags()}
            volume = tags.get("VolumeId", snapshot.volume.id)
            for index in INDEXES:
                data = f"{volume} block {index}\n".encode().ljust(BLOCK, b"\0")
                made.put_block(index, data, base64.b64encode(hashlib.sha256(data).digest()).decode(), "SHA256", BLOCK)
            backend.snapshots[snapshot_id] = made
        return backend.snapshots[snapshot_id]

    def get_snapshot_block(self: EBSBackend, snapshot_id: str, block_index: int) -> Block:
        return blocks_of(self, snapshot_id).blocks[int(block_index)]

    EBSBackend.list_snapshot_blocks = blocks_of
    EBSBackend.get_snapshot_block = get_snapshot_block


@patch("ebs/latest/APIReference/API_ListSnapshotBlocks.html")
def pages() -> None:
    """`ListSnapshotBlocks` begins at `StartingBlockIndex`, and a page has `MaxResults` blocks at most.

    moto returns all blocks at once.
    """

    def list_snapshot_blocks(self: EBSResponse) -> ActionResult:
        snapshot = self.ebs_backend.list_snapshot_blocks(snapshot_id=self._get_param("SnapshotId"))
        begin = int(self._get_param("NextToken") or self._get_param("StartingBlockIndex") or 0)
        most = int(self._get_param("MaxResults") or 10_000)
        behind = [(index, block) for index, block in sorted(snapshot.blocks.items()) if index >= begin]
        page: dict[str, Any] = {"VolumeSize": snapshot.volume_size, "BlockSize": BLOCK}
        page["Blocks"] = [{"BlockIndex": index, "BlockToken": block.block_token} for index, block in behind[:most]]
        if len(behind) > most:
            page["NextToken"] = str(behind[most][0])
        return ActionResult(page)

    EBSResponse.list_snapshot_blocks = list_snapshot_blocks
