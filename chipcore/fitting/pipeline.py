"""Learning W: perturbed predictions of many images, summed into moments, solved class by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chipcore.datasets.sources import Images, open_images
from chipcore.errors import DataError, SettingsError
from chipcore.fitting.accumulate import IMAGES_AT_ONCE, LayerSums, accumulate
from chipcore.fitting.checkpoint import Checkpoint, Cursor, alone_in_its_folder
from chipcore.fitting.distributed import ALONE, Shard, Team
from chipcore.fitting.planning import MEMORY, plan_passes
from chipcore.fitting.regression import NormalEquations, has_own, normal_equations, pooled_equations, solve_block, solve_rows
from chipcore.fitting.settings import FitSettings
from chipcore.importance import Importance, describe
from chipcore.networks.network import Network

_POOLED_BLOCK = 256  # rows of one Gram that are solved between two reports


@dataclass(frozen=True)
class Progress:
    """How far a fit has come: images of all passes, or classes while solving."""

    stage: str
    done: int
    total: int
    unreadable: tuple[str, ...] = ()


Report = Callable[[Progress], None]


@alone_in_its_folder
def fit(
    network: Network, layers: str | Sequence[str], images: Images, settings: FitSettings | None = None,
    *, classes: Sequence[int | str] = (), progress: Report | None = None, memory: int = MEMORY,
    checkpoints: str | Path | None = None, resume: bool = False, checkpoint_seconds: float = 60.0, keep_checkpoints: bool = False,
    team: Team = ALONE, shard: Shard | None = None, watch: Callable[[LayerSums], None] | None = None,
) -> dict[str, Importance]:  # fmt: skip
    """Fit W of one or several layers, all in one pass over the images where memory allows.

    Args:
        network: the network to interpret.
        layers: registry names or module paths, or a single one.
        images: folders, tar shards, a saved data set, a Dataset or an iterable of (image, name), see
            :func:`chipcore.datasets.sources.open_images`.
        settings: see :class:`FitSettings`.
        classes: fit only these rows (index, synset or name); all by default.
        progress: called with :class:`Progress` after every batch and every block of solved classes.
        memory: bytes that samples and sums may take at once; more layers go in further passes over the images.
        checkpoints: a folder for the state of the run, written every ``checkpoint_seconds`` and removed at the end.
        keep_checkpoints: leave them where they are at the end, for a caller who removes them once W is on disk.
        resume: go on from ``checkpoints`` where there is something; refuses where anything that W depends on changed.
        team: this process among those of a distributed run, see :mod:`chipcore.distributed`.
        shard: the part of the images that this run takes; it solves nothing, and its sums are for ``watch``. Call
            :func:`chipcore.fitting.shards.fit_shard`, which keeps them.
        watch: shown the sums of every layer once they are whole; they are gone afterwards.

    Returns:
        :class:`Importance` by layer name; in a team, whole only on the process of rank 0; nothing for a shard.

    Raises:
        ChipError: a layer, class, folder or setting that can't be used.
    """
    settings = settings or FitSettings()
    layers = [layers] if isinstance(layers, str) else layers
    chosen = tuple(dict.fromkeys(network.layer(name) for name in layers))
    if not chosen:
        raise DataError("no layer was given; name one or several.")
    rows = tuple(sorted({network.classes.index(one) for one in classes})) or tuple(range(len(network.classes)))
    folder = open_images(images)
    held = folder.held_out(settings.held_out)
    names = team.share(shard.share(folder.names) if shard else folder.names)
    passes = plan_passes(chosen, rows, len(names), settings, memory)
    facts = {"settings": settings.as_dict(), "photographs": len(folder), "data_fingerprint": folder.fingerprint}
    described = {layer.name: describe(network, layer, **facts) for layer in chosen}
    solved = {
        layer.name: _Rows(len(network.classes), layer.channels, settings.contrast > 0 and settings.target == "score") for layer in chosen
    }
    saving = None
    if checkpoints is not None:
        run = {
            **described[chosen[0].name],
            "layers": [layer.path for layer in chosen],
            "classes": list(rows),
            "processes": team.size,
            "memory": memory,
            "shard": str(shard or ""),
            "passes": len(passes),  # these two are for whoever asks how far the run is
            "images": len(names),
        }
        saving = Checkpoint(Path(checkpoints), run, team.rank, checkpoint_seconds)
    first, stored, cursor = 0, None, Cursor()
    if saving is not None and not resume:
        saving.begin()
    if saving is not None and resume and (first := team.agree(saving.last_pass())) >= 0:
        cursor, saved_rows, stored = saving.read(first)
        for name, one in solved.items():
            one.restore(saved_rows, name)
        if progress and cursor.unreadable:  # said by the run that was broken off; this one does not meet them again
            progress(Progress("photographs", first * len(names), len(passes) * len(names), tuple(cursor.unreadable)))
    for number in range(max(first, 0), len(passes)):
        sums = [LayerSums.empty(part, settings, _device_of_sums(network.device)) for part in passes[number]]
        if stored is not None:
            for index, layer_sums in enumerate(sums):
                stored.restore(index, layer_sums)
            stored = None
        else:
            cursor = Cursor(number, unreadable=cursor.unreadable)

        def after_batch(cursor: Cursor, unreadable: tuple[str, ...], sums: list[LayerSums] = sums) -> None:
            if progress:
                done = cursor.number * len(names) + min(cursor.batches * IMAGES_AT_ONCE, len(names))
                progress(Progress("photographs", done, len(passes) * len(names), unreadable))
            over = cursor.batches * IMAGES_AT_ONCE >= len(names)
            if saving is not None and (saving.due() or (over and (team.size > 1 or shard))):
                saving.write(cursor, sums, {f"{name}/{key}": value for name, one in solved.items() for key, value in one.arrays().items()})

        accumulate(network, sums, folder, held, settings, names=names, cursor=cursor, after_batch=after_batch)
        if not team.add_up(sums, cursor.readable) and shard is None:
            raise DataError(f"none of the {len(folder)} files {folder.place} could be read as a photograph; give another folder.")
        if saving is not None:
            saving.forget(number - 1)
        # Taken out one by one: a name that still held the last of them would keep its sums all through the next pass.
        while sums:
            _finish(sums.pop(0), team, {} if shard else solved, settings, progress, watch)
    if saving is not None and not keep_checkpoints:
        saving.remove()
    return {} if shard else {layer.name: solved[layer.name].importance(described[layer.name]) for layer in chosen}


def solve(sums: LayerSums, settings: FitSettings, metadata: dict[str, Any], progress: Report | None = None) -> Importance:
    """W of one layer from whole sums.

    Args:
        sums: of every image of the run.
        settings: those that the sums were made with.
        metadata: what :func:`chipcore.importance.describe` said of the network and layer; its ``classes`` is C.
        progress: called after every block of classes.
    """
    rows = _Rows(metadata["classes"], sums.slice.layer.channels, settings.contrast > 0 and settings.target == "score")
    rows.solve(sums, settings, progress)
    return rows.importance(metadata)


def _finish(
    done: LayerSums, team: Team, solved: dict[str, _Rows], settings: FitSettings, progress: Report | None, watch: Callable[[LayerSums], None] | None
) -> None:  # fmt: skip
    if team.rank == 0:
        if done.slice.layer.name in solved:
            solved[done.slice.layer.name].solve(done, settings, progress)
        if watch is not None:
            watch(done)


def _device_of_sums(device: torch.device) -> torch.device:
    """Apple's GPUs have no float64, so there sums are made on the CPU."""
    return torch.device("cpu") if device.type == "mps" else device


class _Rows:
    """The rows of W of one layer as they are solved."""

    def __init__(self, classes: int, channels: int, contrasted: bool) -> None:
        self.W = torch.zeros(classes, channels)
        self.contrast_W = torch.zeros(classes, channels) if contrasted else None
        self.activation = torch.zeros(classes, channels)
        self.r2 = torch.full((classes,), torch.nan)
        self.images = torch.zeros(classes, dtype=torch.int32)
        self.evidence_mass = torch.zeros(classes)
        self.intercept = torch.zeros(classes)

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in vars(self).items() if value is not None}

    def restore(self, saved: dict[str, np.ndarray], layer: str) -> None:
        for name, value in self.arrays().items():
            if f"{layer}/{name}" in saved:
                value[...] = saved[f"{layer}/{name}"]

    def solve(self, sums: LayerSums, settings: FitSettings, progress: Report | None) -> None:
        classes, pooled, layer = torch.as_tensor(sums.slice.classes), sums.pooled, sums.slice.layer
        mass = sums.samples.evidence_mass()
        self.images[classes] = sums.samples.images().to(torch.int32)
        self.evidence_mass[classes] = mass.float()
        self.activation[classes] = pooled.mean_activation().to("cpu", torch.float32)
        weightless = f"sigma^2 is so small that no gates drawn at {layer.name} carry any weight; give a larger --sigma2, or more --gates."
        mixed = settings.pooled_share > 0
        if mixed and not bool(pooled.weight > 0):
            raise SettingsError(weightless)
        own = has_own(mass, settings)
        targets = [0.0] if self.contrast_W is None else [0.0, settings.contrast]
        # A block after another: the Grams of all classes at once would take gigabytes. Pooled rows share one.
        blocks = [(slots, True) for slots in own.nonzero().flatten().split(solve_block(layer.channels))]
        blocks += [(slots, False) for slots in (~own).nonzero().flatten().split(_POOLED_BLOCK)] if mixed else []
        total, done = sum(len(slots) for slots, _own in blocks), 0
        for slots, owns in blocks:
            if progress and len(slots):
                progress(Progress(f"solving {layer.name}", done, total))
            if owns and len(slots):
                moments = sums.moments(slots)
                if not bool((moments.weight > 0).all()):
                    raise SettingsError(weightless)
                given = [normal_equations(moments, settings, pooled if mixed else None, slots, kappa) for kappa in targets]
            elif len(slots):
                given = [pooled_equations(pooled, slots.to(sums.device), settings, kappa) for kappa in targets]
            else:
                continue
            self._keep(sums, slots, solve_rows(given, settings), given[0], mixed)
            done += len(slots)
        if progress and total:
            progress(Progress(f"solving {layer.name}", total, total))

    def _keep(self, sums: LayerSums, slots: Tensor, solved: list[Tensor], given: NormalEquations, mixed: bool) -> None:
        """Put solved rows, one tensor a target, into their places, with their held-out R2."""
        rows = torch.as_tensor(sums.slice.classes)[slots]
        W, constants = solved[0], given.intercepts(solved[0])
        r2 = sums.samples.r2(slots, W, constants)
        if mixed:  # where no image of the class was held out, all that were
            r2 = torch.where(r2.isnan(), sums.pooled_held_out.r2(slots.to(W.device), W, constants).cpu(), r2)
        self.W[rows], self.r2[rows] = W.to("cpu", torch.float32), r2.to(torch.float32)
        self.intercept[rows] = constants.to("cpu", torch.float32)
        if self.contrast_W is not None:
            self.contrast_W[rows] = solved[1].to("cpu", torch.float32)

    def importance(self, metadata: dict[str, object]) -> Importance:
        support = (self.W != 0).sum(1, dtype=torch.int32)
        intercept = self.intercept if bool((self.intercept != 0).any()) else None
        return Importance(self.W, self.r2, support, self.images, self.evidence_mass, metadata, self.activation, self.contrast_W, intercept)
