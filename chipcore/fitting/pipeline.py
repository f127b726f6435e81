"""Learning W: perturbed predictions of many images, summed into moments, solved class by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from chipcore.datasets.image_folder import Batch, ImageFolder, batches, find_images
from chipcore.errors import ChipError, DataError, SettingsError
from chipcore.fitting.checkpoint import Checkpoint, Position, alone_in_its_folder
from chipcore.fitting.distributed import ALONE, Team
from chipcore.fitting.moments import Moments
from chipcore.fitting.pooled_moments import Background
from chipcore.fitting.regression import solve_rows
from chipcore.fitting.settings import FitSettings
from chipcore.gating.gates import draw, generator
from chipcore.gating.perturbation import batch_size, perturbed_scores
from chipcore.importance import Importance, describe
from chipcore.networks.network import Layer, Network

PHOTOGRAPHS_AT_ONCE = 16
MEMORY = 6 << 30  # bytes that moments may take at once; more classes or channels go in further passes


@dataclass(frozen=True)
class Progress:
    """How far a fit has come: images of all passes, or classes while solving."""

    stage: str
    done: int
    total: int
    unreadable: tuple[str, ...] = ()


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Share:
    """Classes of one layer whose moments are gathered in one pass."""

    layer: Layer
    classes: tuple[int, ...]


@dataclass
class Gathered:
    """Moments of one share: from the images that W is fitted to, and from those held out.

    ``background`` is from the first alone; where ``FitSettings.background`` is 0 it stays empty.
    """

    share: Share
    training: Moments
    held_out: Moments
    background: Background

    @classmethod
    def empty(cls, share: Share, device: torch.device | str = "cpu") -> Gathered:
        classes, channels = share.classes, share.layer.channels
        training, held_out = (Moments.zeros(classes, channels, device) for _ in range(2))
        return cls(share, training, held_out, Background.zeros(len(classes), channels, device))

    def beside_grams(self, number: int) -> dict[str, Tensor]:
        """The background's sums, by a name that is unique among the shares of a pass."""
        return {f"background/{number}/{name}": value for name, value in self.background.sums().items()}


@alone_in_its_folder
def fit(
    network: Network, layers: Sequence[str], images: str | Path | ImageFolder | Sequence[str | Path], settings: FitSettings | None = None,
    *, classes: Sequence[int | str] = (), progress: Report | None = None, memory: int = MEMORY,
    checkpoints: Path | None = None, resume: bool = False, checkpoint_seconds: float = 60.0, keep_checkpoints: bool = False,
    team: Team = ALONE, watch: Callable[[Gathered], None] | None = None,
) -> dict[str, Importance]:  # fmt: skip
    """Fit W of one or several layers, all in one pass over the images where memory allows.

    Args:
        network: the network to interpret.
        layers: registry names or module paths.
        images: a folder of images (flat or class folders), several folders, or ``find_images``' result.
        settings: see :class:`FitSettings`.
        classes: fit only these rows (index, synset or name); all by default.
        progress: called with :class:`Progress` after every batch and every block of solved classes.
        memory: bytes that the moments may take at once.
        checkpoints: a folder for the state of the run, written every ``checkpoint_seconds`` and removed at the end.
        keep_checkpoints: leave them where they are at the end, for a caller who removes them once W is on disk.
        resume: go on from ``checkpoints`` where there is something; refuses where anything that W depends on changed.
        team: this process among those of a distributed run, see :mod:`chipcore.fitting.distributed`.
        watch: shown the moments of every share once they are whole; they are gone afterwards.

    Returns:
        :class:`Importance` by layer name; in a team, whole only on the process of rank 0.

    Raises:
        ChipError: a layer, class, folder or setting that can't be used.
    """
    settings = settings or FitSettings()
    chosen = tuple(dict.fromkeys(network.layer(name) for name in layers))
    if not chosen:
        raise DataError("no layer was given; name one or several.")
    rows = tuple(sorted({network.classes.index(one) for one in classes})) or tuple(range(len(network.classes)))
    folder = images if isinstance(images, ImageFolder) else find_images(images)
    held = folder.held_out(settings.held_out)
    names = team.share(folder.names)
    passes = plan(chosen, rows, memory)
    facts = {"settings": settings.as_dict(), "photographs": len(folder), "data_fingerprint": folder.fingerprint}
    described = {layer.name: describe(network, layer, **facts) for layer in chosen}
    solved = {layer.name: _Rows(len(network.classes), layer.channels) for layer in chosen}
    saving = None
    if checkpoints is not None:
        run = {
            **described[chosen[0].name],
            "layers": [layer.path for layer in chosen],
            "classes": list(rows),
            "processes": team.size,
            "memory": memory,
        }
        saving = Checkpoint(checkpoints, run, team.rank, checkpoint_seconds)
    first, stored, position = 0, None, Position()
    if saving is not None and not resume:
        saving.begin()
    if saving is not None and resume and (first := team.agree(saving.last_pass())) >= 0:
        position, saved_rows, stored = saving.read(first)
        for name, one in solved.items():
            one.restore(saved_rows, name)
        if progress and position.unreadable:  # said by the run that was broken off; this one does not meet them again
            progress(Progress("photographs", first * len(names), len(passes) * len(names), tuple(position.unreadable)))
    for number in range(max(first, 0), len(passes)):
        gathered = [Gathered.empty(share, _device_of_moments(network.device)) for share in passes[number]]
        if stored is not None:
            for index, moments in enumerate(_all_moments(gathered)):
                stored.restore(index, moments)
            for index, share in enumerate(gathered):
                for name, value in share.beside_grams(index).items():
                    value.copy_(torch.from_numpy(saved_rows[name]))
            stored = None
        else:
            position = Position(number, unreadable=position.unreadable)

        def after_batch(position: Position, unreadable: tuple[str, ...], gathered: list[Gathered] = gathered) -> None:
            if progress:
                done = position.number * len(names) + min(position.batches * PHOTOGRAPHS_AT_ONCE, len(names))
                progress(Progress("photographs", done, len(passes) * len(names), unreadable))
            over = position.batches * PHOTOGRAPHS_AT_ONCE >= len(names)
            if saving is not None and (saving.due() or (over and team.size > 1)):
                saving.write(
                    position,
                    _all_moments(gathered),
                    {f"{name}/{key}": value for name, one in solved.items() for key, value in one.arrays().items()} | _beside(gathered),
                )

        gather(network, gathered, folder, held, settings, names=names, position=position, after_batch=after_batch)
        if not team.add_up(
            _all_moments(gathered), position.readable, [value for one in gathered for value in one.background.sums().values()]
        ):
            raise DataError(f"none of the {len(folder)} files below {folder.root} could be read as a photograph; give another folder.")
        if saving is not None:
            saving.forget(number - 1)
        # Taken out one by one: a name that still held the last of them would keep its moments all through the next pass.
        while gathered:
            _finish(gathered.pop(0), team, solved, settings, progress, watch)
    if saving is not None and not keep_checkpoints:
        saving.remove()
    return {layer.name: solved[layer.name].importance(described[layer.name]) for layer in chosen}


def _finish(
    done: Gathered, team: Team, solved: dict[str, _Rows], settings: FitSettings, progress: Report | None, watch: Callable[[Gathered], None] | None
) -> None:  # fmt: skip
    if team.rank == 0:
        solved[done.share.layer.name].solve(done, settings, progress)
        if watch is not None:
            watch(done)


def _device_of_moments(device: torch.device) -> torch.device:
    """Apple's GPUs have no float64, so there moments are summed on the CPU."""
    return torch.device("cpu") if device.type == "mps" else device


def _all_moments(gathered: Sequence[Gathered]) -> list[Moments]:
    return [moments for one in gathered for moments in (one.training, one.held_out)]


def _beside(gathered: Sequence[Gathered]) -> dict[str, np.ndarray]:
    return {name: value.cpu().numpy() for number, one in enumerate(gathered) for name, value in one.beside_grams(number).items()}


def plan(layers: Sequence[Layer], rows: Sequence[int], memory: int) -> list[list[Share]]:
    """Layers and classes grouped into passes whose moments (training and held-out) fit into ``memory`` bytes."""
    passes: list[list[Share]] = [[]]
    left = memory
    for layer in layers:
        each = 2 * Moments.bytes_per_class(layer.channels)
        waiting = list(rows)
        while waiting:
            room = min(len(waiting), left // each)
            if room == 0 and passes[-1]:
                passes.append([])
                left = memory
                continue
            room = max(room, 1)  # one class more than the budget is better than none
            passes[-1].append(Share(layer, tuple(waiting[:room])))
            waiting = waiting[room:]
            left -= room * each
    return passes


def gather(
    network: Network, gathered: Sequence[Gathered], images: ImageFolder, held: frozenset[str], settings: FitSettings,
    *, names: Sequence[str] | None = None, position: Position | None = None,
    after_batch: Callable[[Position, tuple[str, ...]], None] | None = None,
) -> None:  # fmt: skip
    """One pass over the images that adds to the moments of every share.

    Args:
        held: the images whose moments are kept apart for measuring R2.
        names: this process's images; all by default.
        position: the batches before it are in the moments already; moved on as batches are added.
        after_batch: called with the position and what was unreadable in the batch.
    """
    names = images.names if names is None else names
    position = position or Position()
    with torch.inference_mode():
        for batch in batches(images, names[position.batches * PHOTOGRAPHS_AT_ONCE :], network.geometry, PHOTOGRAPHS_AT_ONCE):
            if batch.names:
                add_batch(network, gathered, batch, held, settings)
            position.batches += 1
            position.readable += len(batch.names)
            position.unreadable += [one for one in batch.unreadable if one not in position.unreadable]
            if after_batch:
                after_batch(position, batch.unreadable)


def add_batch(network: Network, gathered: Sequence[Gathered], batch: Batch, held: frozenset[str], settings: FitSettings) -> None:
    """Perturb a batch of images at every share's layer and add what comes out to the moments."""
    layers = tuple(dict.fromkeys(one.share.layer for one in gathered))
    activations = network.forward_prefix(network.geometry.normalize(batch.views.to(network.device)), layers)
    _check_finite(activations.scores, batch.names, network, "")
    original = activations.scores.softmax(1)
    held_out = torch.tensor([name in held for name in batch.names], device=original.device)
    for layer in layers:
        shares = [one for one in gathered if one.share.layer == layer]
        # A class with too small an f^c gains nothing from a image, so its scores are not wanted; and where
        # that holds for every class, the image is not perturbed at all.
        active = torch.zeros_like(original, dtype=torch.bool)
        for one in shares:
            rows = one.training.classes.to(original.device)
            active[:, rows] = original[:, rows] >= settings.cutoff
            if settings.background:  # where every image counts for every class, no score can be left out
                active[torch.meshgrid((~held_out).nonzero().flatten(), rows, indexing="ij")] = True
        at = active.any(1).nonzero().flatten()
        if not len(at):
            continue
        suffix = network.suffix(layer, layers)
        features = activations.features[layer.path][at]
        side_inputs = tuple(
            value[at] if batched else value for value, batched in zip(activations.side_inputs[layer.path], suffix.batched, strict=True)
        )
        sigma2 = settings.sigma2 or layer.channels
        drawn = [
            draw(settings.draw, settings.gates, layer.channels, sigma2, generator(settings.seed, layer.path, batch.names[s]))
            for s in at.tolist()
        ]
        gates = torch.from_numpy(np.stack([one for one, _weight in drawn])).to(features)
        weight = torch.from_numpy(np.stack([one for _gates, one in drawn])).to(features)
        wanted = active[at] if settings.target == "score" else None  # a probability needs every score
        perturbed = perturbed_scores(
            suffix, features, side_inputs, gates, batch_size(suffix.peak, network.device), settings.precision, wanted
        )
        _check_finite(perturbed, [batch.names[s] for s in at.tolist()], network, f" with channels of {layer.name} closed")
        if settings.target == "probability":
            perturbed = perturbed.softmax(-1)
        z = gates * features.mean((2, 3))[:, None]  # Eq. 2: pooling commutes with the gate
        for one in shares:
            for moments, which in ((one.training, ~held_out[at]), (one.held_out, held_out[at])):
                if which.any():
                    moments.add(z[which], weight[which], original[at][which], perturbed[which], settings.cutoff)
            if settings.background and (~held_out[at]).any():
                rows = one.training.classes.to(original.device)
                one.background.add(z[~held_out[at]], weight[~held_out[at]], perturbed[~held_out[at]][..., rows])


def _check_finite(scores: Tensor, names: Sequence[str], network: Network, when: str) -> None:
    """Infinite or undefined scores (B, ...) would spoil every row of W that they are added to."""
    whole = scores.isfinite().flatten(1).all(1)
    if not bool(whole.all()):
        name = names[int(whole.int().argmin())]
        raise ChipError(
            f"{network.name} gives NaN or infinity for {name}{when}; its weights are damaged or too large for the precision of this run."
        )


class _Rows:
    """The rows of W of one layer as they are solved."""

    def __init__(self, classes: int, channels: int) -> None:
        self.W = torch.zeros(classes, channels)
        self.r2 = torch.full((classes,), torch.nan)
        self.images = torch.zeros(classes, dtype=torch.int32)
        self.loyalty = torch.zeros(classes)

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name).numpy() for name in ("W", "r2", "images", "loyalty")}

    def restore(self, saved: dict[str, np.ndarray], layer: str) -> None:
        for name, value in self.arrays().items():
            value[...] = saved[f"{layer}/{name}"]

    def solve(self, gathered: Gathered, settings: FitSettings, progress: Report | None) -> None:
        moments = gathered.training
        self.images[moments.classes.cpu()] = moments.images.to("cpu", torch.int32)
        self.loyalty[moments.classes.cpu()] = moments.loyalty.to("cpu", torch.float32)
        known = (moments.loyalty >= max(settings.min_evidence, 1e-12)).nonzero().flatten()
        if len(known) == 0:
            return
        if not bool((moments.weight[known] > 0).all()):
            raise SettingsError(
                f"sigma^2 is so small that no gates drawn at {gathered.share.layer.name} carry any weight; give a larger --sigma2, or more --gates."
            )

        def report(done: int, total: int) -> None:
            if progress:
                progress(Progress(f"solving {gathered.share.layer.name}", done, total))

        W, intercept = solve_rows(moments, known, settings, gathered.background, report)
        rows = moments.classes[known].cpu()
        self.W[rows] = W.to("cpu", torch.float32)
        complete, constants = torch.zeros_like(moments.cross), torch.zeros_like(moments.mean)
        complete[known], constants[known] = W.to(complete), intercept.to(constants)
        self.r2[rows] = gathered.held_out.r2(complete, constants)[known].to("cpu", torch.float32)

    def importance(self, metadata: dict[str, object]) -> Importance:
        return Importance(self.W, self.r2, (self.W != 0).sum(1, dtype=torch.int32), self.images, self.loyalty, metadata)
