"""The terms of Eq. 10: what each channel of a layer adds to a map, and what is known of one channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from chipcore import maps
from chipcore.analysis.tables import class_columns, to_csv
from chipcore.datasets.class_names import Classes
from chipcore.importance import Importance


def contributions(row: Tensor, features: Tensor) -> Tensor:
    """w_c^k a_k, shape (K,): the mean over the map of what each channel adds, and its term in the fit (Eq. 2, 11).

    Args:
        row: w_c, shape (K,).
        features: A, shape (K, u, v).

    Example:
        >>> contributions(torch.tensor([2.0, -1.0]), torch.tensor([[[1.0, 3.0]], [[0.0, 4.0]]])).tolist()
        [4.0, -2.0]
    """
    return row * features.mean((1, 2))


def largest_first(shares: Tensor) -> list[int]:
    """The channels that contribute at all: the one that adds most first, those that take away last; equal ones by number.

    So the sum over the first of them grows to its largest before the others bring it down to the whole.

    Example:
        >>> largest_first(torch.tensor([1.0, 0.0, -5.0, 1.0]))
        [0, 3, 2]
    """
    order = torch.argsort(shares, descending=True, stable=True)
    ranked: list[int] = order[shares[order] != 0].tolist()
    return ranked


def partial_map(row: Tensor, features: Tensor, channels: Sequence[int]) -> Tensor:
    """Eq. 10 over some channels only, shape (u, v); ``row`` (K,) and ``features`` (K, u, v) are the layer's own.

    Example:
        >>> partial_map(torch.tensor([2.0, -1.0]), torch.tensor([[[1.0, 3.0]], [[0.0, 4.0]]]), [1]).tolist()
        [[-0.0, -4.0]]
    """
    chosen = torch.tensor(list(channels), dtype=torch.long)
    return maps.chip_map(row[chosen], features[chosen])


def contributions_csv(row: Tensor, features: Tensor, order: Sequence[int]) -> str:
    """The terms of Eq. 10 as CSV, a line a channel in ``order``."""
    channels = list(order)
    weights, means = row[channels], features.mean((1, 2))[channels]
    return to_csv(
        pd.DataFrame({
            "place": range(1, len(channels) + 1), "channel": channels, "weight": weights.numpy(), "mean_activation": means.numpy(),
            "contribution": (weights * means).numpy(),
        }), digits=8,
    )  # fmt: skip


@dataclass(frozen=True)
class ClassWeight:
    """The importance of one channel for one class."""

    index: int
    weight: float
    place: int  # among all classes with a row of W, 1 for the largest


def class_weights_csv(weights: Sequence[ClassWeight], classes: Classes) -> str:
    """One channel's weights as CSV, a line a class."""
    columns = class_columns(classes, [weight.index for weight in weights])
    places, values = [weight.place for weight in weights], [weight.weight for weight in weights]
    return to_csv(pd.DataFrame({"place": places, **columns, "weight": values}), digits=8)


def weights_of(importance: Importance, channel: int, target: int, count: int = 6) -> list[ClassWeight]:
    """The classes for which a channel matters most, the largest weight first, and among them always ``target``.

    Args:
        importance: W of the layer.
        channel: k.
        target: the class that was asked for; left out where it has no row.
        count: how many classes.
    """
    known = (importance.support > 0).nonzero().flatten()
    column = importance.W[known, channel]
    order = torch.argsort(column, descending=True, stable=True)
    ranked = [ClassWeight(int(known[i]), float(column[i]), place) for place, i in enumerate(order.tolist(), start=1)]
    first = ranked[:count]
    if all(weight.index != target for weight in first):
        of_target = [weight for weight in ranked if weight.index == target]
        first = [*first[: count - len(of_target)], *of_target]
    return first
