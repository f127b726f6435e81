"""How similar maps are: Pearson's and Spearman's correlation of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from chipcore import maps


def as_drawn(raw: Tensor, size: int) -> np.ndarray:
    """What the eye is shown of a map: its positive part at the network's input resolution, float64 (size, size)."""
    large: np.ndarray = maps.positive_map(raw, size).numpy().astype(np.float64)
    return large


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 on, equal values sharing their mean rank; the shape of ``values``."""
    _distinct, place, count = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    found: np.ndarray = ((last - (count - 1) / 2)[place]).reshape(values.shape)
    return found


@dataclass(frozen=True)
class MapSimilarity:
    """Correlations between maps, each (n, n); NaN where a map is the same everywhere, so that nothing can correlate with it."""

    pearson: np.ndarray
    rank: np.ndarray


def map_similarity(raws: Sequence[Tensor], size: int) -> MapSimilarity:
    """How alike the drawn pictures of maps are, pixel by pixel.

    Args:
        raws: maps (u, v) of any resolution; each is brought to (size, size).
        size: pixels of the network's input.

    Returns:
        Pearson's correlation, and Spearman's, which is Pearson's of the ranks and pays no heed to how values are scaled.
    """
    drawn = [as_drawn(raw, size) for raw in raws]
    return MapSimilarity(_correlations(drawn), _correlations([ranks(one) for one in drawn]))


def _correlations(pictures: Sequence[np.ndarray]) -> np.ndarray:
    rows = np.stack([one.ravel() - one.mean() for one in pictures])
    length = np.sqrt((rows**2).sum(1))
    # A map that is even up to rounding has no direction.
    flat = length <= 1e-12 * np.sqrt(rows.shape[1]) * np.array([max(1e-300, float(np.abs(one).max())) for one in pictures])
    unit = rows / np.where(flat, 1, length)[:, None]
    found: np.ndarray = np.clip(unit @ unit.T, -1, 1)
    found[flat] = found[:, flat] = np.nan
    return found
