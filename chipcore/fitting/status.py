"""How far runs are, read off what they leave on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chipcore.fitting.accumulate import IMAGES_AT_ONCE
from chipcore.fitting.checkpoint import how_far
from chipcore.fitting.shards import CHECKPOINT, ShardFolder, find_shards

State = Literal["finished", "under way", "begun"]
_FILE = re.compile(r"moments-(\d+)-(\d+)\.npz")


@dataclass(frozen=True)
class RunStatus:
    """One shard, or one process of a fit that is under way or was interrupted.

    - ``images_done`` of ``images``: of the pass ``number`` (from 1) of ``passes`` over them
    - ``state``: ``begun`` where nothing has been saved yet
    """

    folder: str
    network: str
    shard: str
    state: State
    images_done: int
    images: int
    number: int
    passes: int

    @property
    def share(self) -> float:
        """How much of all passes is done, 0 to 1."""
        if self.state == "finished":
            return 1.0
        return (self.number - 1 + self.images_done / max(self.images, 1)) / max(self.passes, 1)


def statuses(folders: Sequence[Path]) -> tuple[list[RunStatus], list[str]]:
    """The shards and the checkpoints of fits in some folders, and the shards that are missing.

    Raises ``DataError`` for a folder that is not there, ``ChipError`` for a damaged file.
    """
    shards = find_shards(folders)
    found = [_of_shard(one) for one in shards]
    for folder in folders:
        paths = sorted(folder.glob("checkpoints/*/moments-*.npz"))
        found += [_of_checkpoint(path, "") for path in paths if _FILE.fullmatch(path.name)]
    counts = {one.count for one in shards}
    missing = [
        f"{number}/{count}"
        for count in sorted(counts)
        for number in range(1, count + 1)
        if number not in {one.number for one in shards if one.count == count}
    ]
    return found, missing


def _of_shard(shard: ShardFolder) -> RunStatus:
    name = f"{shard.number}/{shard.count}"
    network, images = str(shard.about["run"].get("network", "")), int(shard.about.get("images", 0))
    if len(shard.finished) == len(shard.about["layers"]):
        return RunStatus(str(shard.folder), network, name, "finished", images, images, 1, 1)
    under_way = [path for path in shard.folder.glob(f"{CHECKPOINT}/moments-0-*.npz") if _FILE.fullmatch(path.name)]
    if not under_way:
        return RunStatus(str(shard.folder), network, name, "begun", 0, images, 1, 1)
    return _of_checkpoint(max(under_way, key=_pass), name)


def _of_checkpoint(path: Path, shard: str) -> RunStatus:
    run, at = how_far(path)
    images = int(run.get("images", run.get("photographs", 0)))
    return RunStatus(
        str(path.parent), str(run.get("network", "")), shard, "under way", min(at.batches * IMAGES_AT_ONCE, images), images, _pass(path) + 1,
        max(int(run.get("passes", 1)), _pass(path) + 1),
    )  # fmt: skip


def _pass(path: Path) -> int:
    found = _FILE.fullmatch(path.name)
    return int(found[2]) if found else 0
