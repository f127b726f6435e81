"""From images to sums: gated networks, batch by batch, and what they leave for the rows of W."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from chipcore.datasets.image_set import Batch, ImageSet, batches
from chipcore.errors import ChipError
from chipcore.fitting.checkpoint import Cursor
from chipcore.fitting.moments import Moments
from chipcore.fitting.planning import ClassSlice
from chipcore.fitting.pooled_moments import PooledMoments
from chipcore.fitting.samples import Samples
from chipcore.fitting.settings import FitSettings
from chipcore.gating.gates import draw_batch
from chipcore.gating.perturbation import batch_size, perturbed_scores
from chipcore.networks.network import Network

IMAGES_AT_ONCE = 16


@dataclass
class LayerSums:
    """What one slice has learned so far: ``samples`` of the classes' own images, and sums over all images alike.

    ``pooled`` is from the images that W is fitted to, ``pooled_held_out`` from those held out; where
    ``FitSettings.pooled_share`` is 0 they hold the mean activations alone.
    """

    slice: ClassSlice
    samples: Samples
    pooled: PooledMoments
    pooled_held_out: PooledMoments
    device: torch.device | str = "cpu"

    @classmethod
    def empty(cls, part: ClassSlice, settings: FitSettings, device: torch.device | str = "cpu") -> LayerSums:
        classes, channels = part.classes, part.layer.channels
        pooled, held_out = (PooledMoments.zeros(len(classes), channels, device) for _ in range(2))
        return cls(part, Samples(classes, channels, settings.gates), pooled, held_out, device)

    def moments(self, slots: Tensor) -> Moments:
        """The classes' own sums, of the images that W is fitted to; ``slots`` are their places in the slice."""
        return self.samples.moments(slots, device=self.device)

    def held_out(self, slots: Tensor) -> Moments:
        """The same of the images held out."""
        return self.samples.moments(slots, held=True, device=self.device)

    def sums(self) -> dict[str, Tensor]:
        """All that adds up over processes, by name."""
        both = {"pooled": self.pooled, "pooled_held_out": self.pooled_held_out}
        return {f"{kind}/{name}": value for kind, pooled in both.items() for name, value in pooled.sums().items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, by name, for a checkpoint."""
        return {f"samples/{name}": value for name, value in self.samples.arrays().items()} | {
            name: value.cpu().numpy() for name, value in self.sums().items()
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Put what :meth:`arrays` gave into empty sums; raises ``ValueError`` or ``KeyError`` where it does not fit."""
        lead = "samples/"
        self.samples.merge({name.removeprefix(lead): value for name, value in arrays.items() if name.startswith(lead)})
        for name, value in self.sums().items():
            if arrays[name].shape != tuple(value.shape):  # copy_ would stretch it
                raise ValueError(f"{name} does not fit")
            value.copy_(torch.from_numpy(arrays[name]))

    def __iadd__(self, other: LayerSums) -> LayerSums:
        """Add the sums of other images of the same run."""
        self.samples.merge(other.samples.arrays())
        for name, value in self.sums().items():
            value += other.sums()[name]
        return self


def accumulate(
    network: Network, sums: Sequence[LayerSums], images: ImageSet, held: frozenset[str], settings: FitSettings,
    *, names: Sequence[str] | None = None, cursor: Cursor | None = None,
    after_batch: Callable[[Cursor, tuple[str, ...]], None] | None = None,
) -> None:  # fmt: skip
    """One pass over the images that adds to the sums of every slice.

    Args:
        held: the images that are kept apart for measuring R2.
        names: this process's images; all by default.
        cursor: the batches before it are in the sums already; moved on as batches are added.
        after_batch: called with the cursor and what was unreadable in the batch.
    """
    names = images.names if names is None else names
    cursor = cursor or Cursor()
    places = {name: place for place, name in enumerate(images.names)}
    with torch.inference_mode():
        for batch in batches(images, names[cursor.batches * IMAGES_AT_ONCE :], network.geometry, IMAGES_AT_ONCE):
            if batch.names:
                add_batch(network, sums, batch, held, settings, places)
            cursor.batches += 1
            cursor.readable += len(batch.names)
            cursor.unreadable += [one for one in batch.unreadable if one not in cursor.unreadable]
            if after_batch:
                after_batch(cursor, batch.unreadable)


def add_batch(
    network: Network, sums: Sequence[LayerSums], batch: Batch, held: frozenset[str], settings: FitSettings, places: Mapping[str, int] | None = None
) -> None:  # fmt: skip
    """Perturb a batch of images at every slice's layer and add what comes out.

    Args:
        places: every image's place in the run, which is the order that sums are made in; by default that in the batch.
    """
    layers = tuple(dict.fromkeys(one.slice.layer for one in sums))
    activations = network.forward_prefix(network.geometry.normalize(batch.views.to(network.device)), layers)
    _check_finite(activations.scores, batch.names, network, "")
    original = network.class_probabilities(activations.scores)
    held_out = torch.tensor([name in held for name in batch.names], device=original.device)
    order = np.array([places[name] if places else number for number, name in enumerate(batch.names)], np.int64)
    for one in sums:
        layer = one.slice.layer
        rows = torch.as_tensor(one.slice.classes, device=original.device)
        pooled = activations.features[layer.path].mean((2, 3))
        for apart, which in ((one.pooled, ~held_out), (one.pooled_held_out, held_out)):
            apart.add_activation(pooled[which], original[which][:, rows])
        # A class with too small an f^c gains nothing from a image of its own, so its scores are not wanted; and
        # where that holds for every class, the image is not perturbed at all. Pooled, every image counts for all.
        active = torch.zeros_like(original, dtype=torch.bool)
        active[:, rows] = True if settings.pooled_share else original[:, rows] >= settings.cutoff
        at = active.any(1).nonzero().flatten()
        if not len(at):
            continue
        suffix = network.suffix(layer, layers)
        features = activations.features[layer.path][at]
        side_inputs = tuple(
            value[at] if batched else value for value, batched in zip(activations.side_inputs[layer.path], suffix.batched, strict=True)
        )
        sigma2 = settings.sigma2 or layer.channels
        drawn, weight = draw_batch(
            settings.generator, settings.draw, settings.gates, layer.channels, sigma2, settings.seed, layer.path,
            [batch.names[s] for s in at.tolist()], features.device,
        )  # fmt: skip
        bits, gates, weight = drawn.cpu().numpy(), drawn.to(features), weight.to(features)
        # A probability and the contrast need every score.
        wanted = active[at] if settings.target == "score" and not settings.contrast else None
        perturbed = perturbed_scores(
            suffix, features, side_inputs, gates, batch_size(suffix.peak, network.device), settings.precision, wanted
        )
        _check_finite(perturbed, [batch.names[s] for s in at.tolist()], network, f" with channels of {layer.name} closed")
        # Classes that do not exclude each other have no common normalizer, and so no contrast.
        common = wanted is None and network.outputs in ("logits", "probabilities")
        normalizer = perturbed.logsumexp(-1) if common else perturbed.new_zeros(perturbed.shape[:2])
        if settings.target == "probability":
            perturbed, normalizer = network.class_probabilities(perturbed), torch.zeros_like(normalizer)
        apart_here = held_out[at]
        one.samples.add(order[at.cpu().numpy()], apart_here, pooled[at], bits, weight, original[at], perturbed, normalizer, settings.cutoff)
        if settings.pooled_share:
            some = slice(settings.pooled_gates or None)
            z = gates[:, some] * pooled[at][:, None]  # Eq. 2: pooling commutes with the gate
            for into, which in ((one.pooled, ~apart_here), (one.pooled_held_out, apart_here)):
                if which.any():
                    into.add(z[which], weight[which][:, some], perturbed[which][:, some][..., rows], normalizer[which][:, some])


def _check_finite(scores: Tensor, names: Sequence[str], network: Network, when: str) -> None:
    """Infinite or undefined scores (B, ...) would spoil every row of W that they are added to."""
    whole = scores.isfinite().flatten(1).all(1)
    if not bool(whole.all()):
        name = names[int(whole.int().argmin())]
        raise ChipError(
            f"{network.name} gives NaN or infinity for {name}{when}; its weights are damaged or too large for the precision of this run."
        )
