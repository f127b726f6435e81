"""Runs on machines that never meet: every shard leaves its moments in a folder, and ``merge`` adds and solves them.

A shard's folder ``shard-03-of-64`` holds ``shard.json``, which describes the run, one ``<layer>.npz`` a finished layer, and
meanwhile the checkpoint of what is under way.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chipcore.datasets.sources import Images, open_images
from chipcore.errors import DataError
from chipcore.fitting.accumulate import LayerSums
from chipcore.fitting.checkpoint import FORMAT, what_differs
from chipcore.fitting.distributed import ALONE, Shard, Team
from chipcore.fitting.pipeline import Progress, Report, fit, solve
from chipcore.fitting.planning import MEMORY, ClassSlice
from chipcore.fitting.settings import FitSettings
from chipcore.importance import Importance, describe
from chipcore.networks.network import Layer, Network
from chipcore.storage import write_whole

ABOUT = "shard.json"
CHECKPOINT = "checkpoint"


def shard_folder(out: Path, shard: Shard) -> Path:
    """Where a shard leaves its moments below ``out``.

    >>> shard_folder(Path("out"), Shard(3, 64)).name
    'shard-03-of-64'
    """
    return out / f"shard-{shard.number:0{len(str(shard.count))}}-of-{shard.count}"


def fit_shard(
    network: Network, layers: Sequence[str], images: Images, settings: FitSettings | None = None,
    *, shard: Shard, out: Path, classes: Sequence[int | str] = (), progress: Report | None = None, memory: int = MEMORY,
    resume: bool = False, checkpoint_seconds: float = 60.0, team: Team = ALONE,
) -> Path:  # fmt: skip
    """Leave the moments of one share of the images in a folder below ``out``, for :func:`merge`.

    Parameters
    ----------
    shard
        Which share. All shards are given the same images, layers, classes and settings.
    out
        A folder; all shards may share one.
    network, layers, images, settings, classes, progress, memory, resume, checkpoint_seconds, team
        As in :func:`chipcore.fitting.pipeline.fit`.

    Returns
    -------
    Path
        The shard's own folder.

    Raises
    ------
    ChipError
        A layer, class, folder or setting that can't be used.
    """
    settings, found, folder = settings or FitSettings(), open_images(images), shard_folder(out, shard)
    chosen = tuple(dict.fromkeys(network.layer(name) for name in layers))
    rows = sorted({network.classes.index(one) for one in classes}) or list(range(len(network.classes)))
    facts = {"settings": settings.as_dict(), "photographs": len(found), "data_fingerprint": found.fingerprint}
    described = {layer.name: describe(network, layer, **facts) for layer in chosen}
    about: dict[str, Any] = {
        "run": {
            **facts, "format": FORMAT, "count": shard.count, "classes": rows, "layers": [layer.path for layer in chosen],
            **({key: described[chosen[0].name][key] for key in ("network", "weights_sha256", "geometry", "chipcore")} if chosen else {}),
        },
        "shard": shard.number, "images": len(shard.share(found.names)), "layers": [layer.name for layer in chosen], "unreadable": [],
    }  # fmt: skip

    def collect(at: Progress) -> None:
        about["unreadable"] += [one for one in at.unreadable if one not in about["unreadable"]]
        if progress:
            progress(at)

    def keep(sums: LayerSums) -> None:
        layer = sums.slice.layer
        told = {**about, "layer": asdict(layer), "metadata": described[layer.name]}
        arrays = {**sums.arrays(), "about": np.frombuffer(json.dumps(told).encode(), np.uint8)}

        def save(path: Path) -> None:
            with open(path, "wb") as stream:
                np.savez(stream, allow_pickle=False, **arrays)

        write_whole(layer_file(folder, layer.name), save)

    if resume and _is_done(ShardFolder(folder, about)):
        return folder
    if team.rank == 0 and chosen:
        if not resume:  # what an earlier run left is not this one's
            for old in folder.glob("*.npz"):
                old.unlink()
        write_whole(folder / ABOUT, lambda path: path.write_text(json.dumps(about), encoding="utf-8"))
    fit(
        network, layers, found, settings, classes=rows, progress=collect, memory=memory, checkpoints=folder / CHECKPOINT, resume=resume,
        checkpoint_seconds=checkpoint_seconds, team=team, shard=shard, watch=keep,
    )  # fmt: skip
    return folder


def layer_file(folder: Path, layer: str) -> Path:
    """The moments of a layer in a shard's folder."""
    return folder / f"{layer.replace('/', '_')}.npz"


def _is_done(shard: ShardFolder) -> bool:
    """Whether the same run has left all that this shard has to leave."""
    path = shard.folder / ABOUT
    return path.is_file() and _read_about(path)["run"] == shard.about["run"] and len(shard.finished) == len(shard.about["layers"])


@dataclass(frozen=True)
class ShardFolder:
    """What one shard has left: its folder and what ``shard.json`` says."""

    folder: Path
    about: Mapping[str, Any]

    @property
    def number(self) -> int:
        return int(self.about["shard"])

    @property
    def count(self) -> int:
        return int(self.about["run"]["count"])

    @property
    def finished(self) -> list[str]:
        """The layers whose moments are whole."""
        return [layer for layer in self.about["layers"] if layer_file(self.folder, layer).is_file()]


def find_shards(folders: Sequence[Path]) -> list[ShardFolder]:
    """The shards in and one level below these folders, in the order of their numbers.

    Raises ``DataError`` for a folder that is not there or a damaged ``shard.json``.
    """
    found: dict[Path, ShardFolder] = {}
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder; give the --out of `fit --shard`.")
        for path in (folder / ABOUT, *sorted(folder.glob(f"*/{ABOUT}"))):
            if path.is_file():
                found[path.parent.resolve()] = ShardFolder(path.parent, _read_about(path))
    return sorted(found.values(), key=lambda one: one.number)


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(about["shard"], int) and isinstance(about["run"]["count"], int) and isinstance(about["layers"], list)
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise DataError(f"{path} is damaged; run that shard again.")
    return dict(about)


def merge(folders: Sequence[Path], progress: Report | None = None) -> Iterator[tuple[str, Importance]]:
    """W from the moments of all shards of a run, a layer at a time.

    Parameters
    ----------
    folders
        The shards' folders, or those that hold them.
    progress
        Called with :class:`~chipcore.fitting.pipeline.Progress` after every shard and every block of solved classes.

    Yields
    ------
    tuple[str, Importance]
        A layer's name and its W, which is that of one run to rounding.

    Raises
    ------
    DataError
        A shard that is missing, there twice, unfinished, damaged or of another run; it is named.
    """
    shards = _whole_run(find_shards(folders), folders)
    for layer in shards[0].about["layers"]:
        total: LayerSums | None = None
        for done, shard in enumerate(shards):
            if progress:
                progress(Progress(f"adding {layer}", done, len(shards)))
            path = layer_file(shard.folder, layer)
            told, arrays = _read_moments(path, shard)
            settings = FitSettings.from_dict(told["run"]["settings"])
            part = ClassSlice(Layer(**told["layer"]), tuple(told["run"]["classes"]))
            sums = LayerSums.empty(part, settings)
            try:
                sums.restore(arrays)
            except (KeyError, ValueError):
                raise _damaged(path) from None
            if total is None:
                total, metadata = sums, told["metadata"]
            else:
                total += sums
        assert total is not None
        if not bool((total.pooled.mass + total.pooled_held_out.mass > 0).any()):
            raise DataError(
                f"none of the {metadata['photographs']} files of this run could be read as a photograph; run its shards on others."
            )
        yield layer, solve(total, settings, metadata, progress)


def unreadable(folders: Sequence[Path]) -> list[str]:
    """A sentence for every image that a finished shard could not read."""
    found: dict[str, None] = {}
    for shard in find_shards(folders):
        for layer in shard.finished:
            found |= dict.fromkeys(_read_moments(layer_file(shard.folder, layer), shard)[0].get("unreadable", ()))
    return list(found)


def _whole_run(shards: list[ShardFolder], folders: Sequence[Path]) -> list[ShardFolder]:
    """The shards of one run, one of each number; raises ``DataError`` that names what is missing, doubled or foreign."""
    if not shards:
        raise DataError(f"{', '.join(map(str, folders))} holds no shards; give the --out of `fit --shard`.")
    kinds = Counter(json.dumps(shard.about["run"], sort_keys=True) for shard in shards)
    common = json.loads(kinds.most_common(1)[0][0])
    for shard in shards:
        if shard.about["run"] != common:
            other = [*what_differs(shard.about["run"], common), *(["the number of shards"] if shard.count != common["count"] else [])]
            raise DataError(f"{shard.folder} belongs to another run ({' and '.join(other) or 'the input'} differ); leave it out.")
    by_number: defaultdict[int, list[Path]] = defaultdict(list)
    for shard in shards:
        by_number[shard.number].append(shard.folder)
    for number, places in by_number.items():
        if len(places) > 1:
            raise DataError(
                f"shard {number}/{common['count']} is there {len(places)} times ({', '.join(map(str, places))}); give one of them."
            )
    if missing := [number for number in range(1, common["count"] + 1) if number not in by_number]:
        listed = ", ".join(map(str, missing[:20])) + (f" and {len(missing) - 20} more" if len(missing) > 20 else "")
        raise DataError(
            f"of {common['count']} shards, {listed} {'is' if len(missing) == 1 else 'are'} missing; run `fit --shard` for {'it' if len(missing) == 1 else 'them'}."
        )
    for shard in shards:
        if behind := [layer for layer in shard.about["layers"] if layer not in shard.finished]:
            raise DataError(
                f"shard {shard.number}/{shard.count} in {shard.folder} is not finished at {', '.join(behind)}; run it again with --resume."
            )
    return shards


def _read_moments(path: Path, shard: ShardFolder) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with zipfile.ZipFile(path) as archive:  # checks every member's CRC, as numpy does not
            if archive.testzip() is not None:
                raise ValueError
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays.pop("about").tobytes())
        if about["run"] != shard.about["run"] or about["shard"] != shard.number:
            raise ValueError
    except Exception:  # zipfile and numpy raise many types for a damaged file
        raise _damaged(path) from None
    return about, arrays


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is damaged or of another run; run that shard again.")
