"""How similar maps are: Pearson's and Spearman's correlation of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from chipcore import maps


@dataclass(frozen=True)
class MapSimilarity:
    """Correlations between maps, each (n, n); NaN where a map is the same everywhere, so that nothing can correlate with it."""

    pearson: np.ndarray
    rank: np.ndarray


def map_similarity(raws: Sequence[Tensor], size: int) -> MapSimilarity:
    """Correlate the drawn pictures of maps, pixel by pixel.

    Args:
        raws: maps (u, v) of any resolution; of each the positive part is brought to (size, size), as it is drawn.
        size: pixels of the network's input.

    Returns:
        Pearson's correlation, and Spearman's, which is Pearson's of the ranks and ignores how values are scaled.
    """
    drawn = np.stack([maps.positive_map(raw, size).numpy().astype(np.float64).ravel() for raw in raws])
    by_value, by_rank = directions(drawn), directions(rankdata(drawn, axis=1))
    return MapSimilarity(_cosines(by_value), _cosines(by_rank))


def pearson(first: Tensor, second: Tensor) -> float:
    """Pearson's correlation of two maps of one shape; NaN where one of them is the same everywhere.

    Example:
        >>> import torch
        >>> round(pearson(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[5.0, 3.0, -1.0]])), 6)
        -1.0
    """
    unit = directions(np.stack([first.double().flatten().numpy(), second.double().flatten().numpy()]))
    return float(np.clip(unit[0] @ unit[1], -1, 1))


def directions(rows: np.ndarray) -> np.ndarray:
    """Rows (n, m) less their mean and of length 1, so that products of them are Pearson's correlations; NaN for even rows."""
    centered = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    # A row that is even up to rounding has no direction.
    even = length <= 1e-12 * np.sqrt(rows.shape[1]) * np.abs(rows).max(1, keepdims=True).clip(min=1e-300)
    unit: np.ndarray = centered / np.where(even, np.nan, length)
    return unit


def _cosines(unit: np.ndarray) -> np.ndarray:
    products: np.ndarray = np.clip(unit @ unit.T, -1, 1)
    return products
