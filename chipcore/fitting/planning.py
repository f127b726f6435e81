"""Which layers are fitted in one pass over the images, so that what is kept of them fits into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chipcore.fitting.pooled_moments import PooledMoments
from chipcore.fitting.samples import Samples
from chipcore.fitting.settings import FitSettings
from chipcore.networks.network import Layer

MEMORY = 6 << 30  # bytes that samples and sums may take at once; more layers go in further passes


@dataclass(frozen=True)
class ClassSlice:
    """Classes of one layer that are fitted in one pass."""

    layer: Layer
    classes: tuple[int, ...]


def bytes_of(part: ClassSlice, images: int, settings: FitSettings) -> int:
    """Memory that the samples and sums of a slice take."""
    pooled = 2 * PooledMoments.bytes_of(len(part.classes), part.layer.channels)
    return Samples.bytes_of(images, part.layer.channels, settings.gates) + pooled


def plan_passes(layers: Sequence[Layer], rows: Sequence[int], images: int, settings: FitSettings, memory: int) -> list[list[ClassSlice]]:
    """Layers grouped into passes whose samples and sums fit into ``memory`` bytes; a pass has one layer at least."""
    passes: list[list[ClassSlice]] = [[]]
    left = memory
    for layer in layers:
        part = ClassSlice(layer, tuple(rows))
        need = bytes_of(part, images, settings)
        if passes[-1] and need > left:
            passes.append([])
            left = memory
        passes[-1].append(part)
        left -= need
    return passes
