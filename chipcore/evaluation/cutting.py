"""A map cut at a share of its maximum: the mask, its largest component, and that one's box, as Table II is measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from chipcore import maps
from chipcore.datasets.annotations import Box, extent
from chipcore.evaluation.boxes import largest_component
from chipcore.evaluation.images import normalize_by_max


def relative(raw: Tensor, size: int | tuple[int, int]) -> np.ndarray:
    """A raw map's positive part at input resolution as a share of its maximum, float64 (size, size) or (height, width); zeros for a blank one.

    float64, because the evaluation compares with its thresholds in float64.
    """
    if maps.state(raw) == "not finite":
        return np.zeros((size, size) if isinstance(size, int) else size)
    shares: np.ndarray = normalize_by_max(maps.positive_map(raw, size).numpy()).astype(np.float64)
    return shares


@dataclass(frozen=True)
class ThresholdedMap:
    """What a threshold leaves of a map: everything above it, the largest component of that, and that one's box."""

    mask: np.ndarray
    largest: np.ndarray
    box: Box | None


def threshold_map(shares: np.ndarray, threshold: float) -> ThresholdedMap:
    """Cut a map (size, size) of shares of its maximum at a threshold."""
    largest = largest_component(shares, threshold)
    if largest is None:
        nothing = np.zeros(shares.shape, dtype=bool)
        return ThresholdedMap(nothing, nothing, None)
    return ThresholdedMap(shares > threshold, largest, extent(largest))
