"""The terms of Eq. 10: what each channel of a layer adds to a map, and what is known of one channel."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chipcore import Importance, maps
from chipcore.datasets.class_names import Classes


def contributions(row: Tensor, features: Tensor) -> Tensor:
    """w_c^k a_k, shape (K,): the mean over the map of what each channel adds, and its term in the fit (Eq. 2, 11).

    Args:
        row: w_c, shape (K,).
        features: A, shape (K, u, v).
    """
    return row * features.mean((1, 2))


def largest_first(shares: Tensor) -> list[int]:
    """The channels that contribute at all, the largest in magnitude first; equal ones by number."""
    order = torch.argsort(shares.abs(), descending=True, stable=True)
    found: list[int] = order[shares[order] != 0].tolist()
    return found


def partial_map(row: Tensor, features: Tensor, channels: Sequence[int]) -> Tensor:
    """Eq. 10 over some channels only, shape (u, v)."""
    some = torch.tensor(list(channels), dtype=torch.long)
    return maps.chip_map(row[some], features[some])


def table(row: Tensor, features: Tensor, order: Sequence[int]) -> str:
    """The terms of Eq. 10 as CSV, a line a channel in ``order``."""
    means = features.mean((1, 2))
    lines = [
        f"{place},{k},{float(row[k]):.8g},{float(means[k]):.8g},{float(row[k] * means[k]):.8g}" for place, k in enumerate(order, start=1)
    ]
    return "\n".join(["place,channel,weight,mean_activation,contribution", *lines]) + "\n"


def likeness(one: Tensor, other: Tensor) -> float:
    """Correlation of two maps (Pearson), NaN where one of them is constant."""
    a, b = one.flatten() - one.mean(), other.flatten() - other.mean()
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length > 0 else float("nan")


@dataclass(frozen=True)
class ClassWeight:
    """The importance of one channel for one class."""

    index: int
    weight: float
    place: int  # among all classes with a row of W, 1 for the largest


def class_table(weights: Sequence[ClassWeight], classes: Classes) -> str:
    """One channel's weights as CSV, a line a class."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("place", "class", "synset", "label", "weight"))
    for one in weights:
        writer.writerow(
            (one.place, one.index, classes.synsets[one.index] if classes.synsets else "", classes.labels[one.index], f"{one.weight:.8g}")
        )
    return stream.getvalue()


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
    if all(one.index != target for one in first):
        own = [one for one in ranked if one.index == target]
        first = [*first[: count - len(own)], *own]
    return first
