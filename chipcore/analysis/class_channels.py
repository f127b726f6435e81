"""Which channels matter for which classes: what the page Channels shows of W (Fig. 10 and 11 of the paper).

Pure functions of W; a row without evidence is zero and takes no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from chipcore.analysis.channel_overlap import above_sets, cosines, top_sets
from chipcore.analysis.tables import class_columns, to_csv
from chipcore.datasets.class_names import Classes
from chipcore.importance import Importance, Ranking


def fitted(importance: Importance) -> list[int]:
    """The classes that have a row of W."""
    return [int(index) for index in (importance.support > 0).nonzero().flatten()]


@dataclass(frozen=True)
class Neighbor:
    """How much a class has in common with the chosen one.

    - ``shared``: channels among the top k of both
    - ``jaccard``: shared ones as a share of those in either, in [0, 1]
    - ``cosine``: of the two rows of weights (or contributions), with their signs, in [-1, 1]
    """

    index: int
    shared: int
    jaccard: float
    cosine: float


def neighbors(importance: Importance, target: int, count: int, by: Ranking = "weight") -> list[Neighbor]:
    """All other classes with a row, those that share most of their top ``count`` channels first, then by cosine.

    Channels are ranked and rows compared by weight, or by contribution, see :meth:`Importance.ranking`.
    """
    if not importance.support[target]:
        return []
    ranked = importance.ranking(by).numpy()
    sets = top_sets(ranked, count)
    both = (sets & sets[target]).sum(1)
    either = (sets | sets[target]).sum(1)
    cosine = cosines(ranked, ranked[target][None])[:, 0]
    others = [
        Neighbor(index, int(both[index]), float(both[index] / either[index]) if either[index] else 0.0, float(cosine[index]))
        for index in fitted(importance) if index != target
    ]  # fmt: skip
    return sorted(others, key=lambda near: (-near.shared, -near.cosine, near.index))


def suggested(
    importance: Importance, target: int, predictions: Sequence[int], near: int = 5, count: int = 10, by: Ranking = "weight"
) -> list[int]:
    """What to start with: the chosen class, the image's predictions, and the classes nearest to the chosen one."""
    nearest = [neighbor.index for neighbor in neighbors(importance, target, count, by)[:near]]
    wanted = [target, *predictions, *nearest]
    return [index for index in dict.fromkeys(wanted) if importance.support[index] > 0]


def trio(importance: Importance, target: int) -> list[int]:
    """Three classes for Fig. 11: the chosen one (or the first there is), its nearest relative, and a stranger.

    Relatives are classes whose channels contribute alike: by the cosine of the rows of w times mean activation, where W
    was fitted with activations, else of the weights. Only rows with good evidence, as long as there are two others of
    those; fewer classes where fewer have a row.
    """
    rows = fitted(importance)
    if not rows:
        return []
    first = target if target in rows else rows[0]
    ranking = importance.ranking("weight" if importance.activation is None else "contribution").float().numpy()
    others = [index for index in rows if index != first]
    good = [index for index in others if importance.evidence(index) == "good"]
    others = good if len(good) > 1 else others
    alike = cosines(ranking[others], ranking[[first]])[:, 0]
    order = np.argsort(-alike, kind="stable")
    return list(dict.fromkeys([first, *(others[place] for place in (*order[:1], *order[-1:]))]))


# --- the order of channels and classes ------------------------------------------------------------------------


def by_importance(row: np.ndarray) -> np.ndarray:
    """Channels (K,) from the largest weight to the smallest.

    Example:
        >>> by_importance(np.array([0.5, -1.0, 2.0])).tolist()
        [2, 0, 1]
    """
    return np.argsort(-row, kind="stable")


def by_similarity(W: np.ndarray) -> np.ndarray:
    """Channels (K,) so that those that matter for the same classes stand together.

    Ward's hierarchical clustering of W's columns; every row is first divided by its largest magnitude, or the classes
    with large scores would decide alone.
    """
    columns = relative(W).T
    if len(columns) < 3:
        return np.arange(len(columns))
    return leaves_list(linkage(squareform(_distances(columns), checks=False), "ward"))


def relative(W: np.ndarray) -> np.ndarray:
    """Rows (n, K) divided by their largest magnitude, so in [-1, 1].

    Example:
        >>> relative(np.array([[1.0, -4.0], [0.0, 0.0]])).tolist()
        [[0.25, -1.0], [0.0, 0.0]]
    """
    top = np.abs(W).max(axis=1, keepdims=True)
    return W / np.where(top > 0, top, 1)


def _distances(points: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, n): by one matrix product, since ``pdist`` takes seconds for a thousand points."""
    points = points.astype(np.float64)
    squares = (points**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * points @ points.T, 0))
    np.fill_diagonal(distances, 0)
    return distances


def tree(W: np.ndarray) -> np.ndarray:
    """Average linkage of the rows (n, K) by 1 - cosine, as scipy gives it, shape (n - 1, 4); n at least 2."""
    distances = np.clip(1 - cosines(W, W), 0, 2)
    np.fill_diagonal(distances, 0)
    return linkage(squareform((distances + distances.T) / 2, checks=False), "average")


# --- counts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """How sparse one row of W is, and how far it can be trusted.

    ``above`` counts the weights above one thousandth of the row's largest (as Fig. 11 does); ``r2`` is NaN where no
    held-out image carried weight; ``evidence_mass`` says how many whole images the row was learned from.
    """

    index: int
    nonzero: int
    positive: int
    negative: int
    above: int
    r2: float
    evidence_mass: float
    images: int
    evidence: str


def counts(importance: Importance, indices: Sequence[int]) -> list[Counts]:
    """The counts of some classes' rows."""
    W = importance.W[list(indices)]
    above = torch.from_numpy(above_sets(W.numpy()))
    whole = torch.stack([(W != 0).sum(1), (W > 0).sum(1), (W < 0).sum(1), above.sum(1)], dim=1).tolist()
    return [
        Counts(
            index, nonzero, positive, negative, count, float(importance.r2[index]), float(importance.evidence_mass[index]),
            int(importance.images[index]), importance.evidence(index),
        )
        for index, (nonzero, positive, negative, count) in zip(indices, whole, strict=True)
    ]  # fmt: skip


# --- Fig. 11 ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Region:
    """One region of a Venn diagram: which of the classes it belongs to, and the channels in it, in their order."""

    members: tuple[bool, ...]
    channels: tuple[int, ...]

    @property
    def name(self) -> str:
        """A digit a class: '10' is in the first class only."""
        return "".join("1" if member else "0" for member in self.members)

    def labels(self, of_all: Sequence[str]) -> list[str]:
        """Of the labels of all classes in the diagram those that the region belongs to."""
        return [label for label, member in zip(of_all, self.members, strict=True) if member]


def regions(sets: Sequence[Sequence[int]]) -> list[Region]:
    """All regions of the Venn diagram of two or three sets, those of one class first, empty ones too.

    Example:
        >>> [(region.name, region.channels) for region in regions([[1, 2], [2, 3]])]
        [('10', (1,)), ('01', (3,)), ('11', (2,))]
    """
    everything = dict.fromkeys(channel for channels in sets for channel in channels)
    every = [members for members in product((True, False), repeat=len(sets)) if any(members)]
    every.sort(key=lambda members: (sum(members), [not member for member in members]))
    return [
        Region(members, tuple(k for k in everything if tuple(k in channels for channels in sets) == members)) for members in every
    ]  # fmt: skip


def region_words(region: Region, labels: Sequence[str]) -> str:
    """Which classes a region belongs to, in words."""
    inside = region.labels(labels)
    if len(inside) == 1:
        return f"only {inside[0]}"
    if len(inside) == len(labels):
        return "both" if len(labels) == 2 else "all three"
    return " and ".join(inside)


def venn_words(regions: Sequence[Region], labels: Sequence[str]) -> str:
    """The diagram in words: its alternative text."""
    parts = [f"{region_words(region, labels)}: {len(region.channels)}" for region in regions]
    return f"Venn diagram of the important channels of {', '.join(labels[:-1])} and {labels[-1]}. {'; '.join(parts)}."


# --- to take home -----------------------------------------------------------------------------------------------


def weights_csv(importance: Importance, classes: Classes, indices: Sequence[int]) -> str:
    """Rows of W as CSV: one line a class, with its counts, then one column a channel."""
    rows = counts(importance, indices)
    about = pd.DataFrame({
        **class_columns(classes, indices), "held_out_r2": [row.r2 for row in rows], "photographs_worth": [row.evidence_mass for row in rows],
        "nonzero": [row.nonzero for row in rows], "positive": [row.positive for row in rows], "negative": [row.negative for row in rows],
        "above_a_thousandth": [row.above for row in rows],
    })  # fmt: skip
    weights = pd.DataFrame(importance.W[list(indices)].numpy(), columns=[f"channel_{k}" for k in range(importance.W.shape[1])])
    return to_csv(pd.concat([about, weights], axis=1), digits=8)


def neighbors_csv(neighbors: Sequence[Neighbor], classes: Classes) -> str:
    """Neighbors of a class as CSV, a line a class."""
    return to_csv(
        pd.DataFrame({
            **class_columns(classes, [near.index for near in neighbors]), "shared": [near.shared for near in neighbors],
            "jaccard": [near.jaccard for near in neighbors], "cosine": [near.cosine for near in neighbors],
        })
    )  # fmt: skip


def regions_csv(diagrams: Mapping[str, Sequence[Region]], labels: Sequence[str]) -> str:
    """The channels of every region of Venn diagrams as CSV, a line a region."""
    lines = [
        (diagram, f"only {' and '.join(region.labels(labels))}", len(region.channels), " ".join(map(str, region.channels)))
        for diagram, regions in diagrams.items() for region in regions
    ]  # fmt: skip
    return to_csv(pd.DataFrame(lines, columns=["diagram", "region", "count", "channels"]))
