"""The numbers of the six lessons: gate, predict, weigh, fit, sum, compare. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from chipcore.analysis.channel_ablation import ablated_scores, gates_for
from chipcore.analysis.map_similarity import directions
from chipcore.errors import ChipError
from chipcore.fitting.moments import Moments
from chipcore.fitting.regression import normal_equations
from chipcore.fitting.settings import FitSettings
from chipcore.gating.gates import draw_uniform, generator
from chipcore.gating.suffix import Activations
from chipcore.networks import Layer, Network
from chipcore.solvers import admm

STEPS = ("gate", "predict", "weigh", "fit", "sum", "compare")
FITTED, HELD_OUT = 300, 60  # gates that the local row is fitted on, as many as local_chip takes, and that test it
RATIOS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.001, 0.0003, 0.0001)  # of the lambda that gives w = 0
USUAL = 0.001  # lambda's ratio in chipcore's own fits
_GATES_PER_REPORT = 20  # of progress

First = Literal["at random", "important first", "unimportant first"]


# --- 1 gate and 2 predict ---------------------------------------------------------------------------------------


def ablation_order(channels: int, draw: int, first: First = "at random", row: Tensor | None = None) -> Tensor:
    """The channels (K,) in the order in which they close.

    ``draw`` numbers the random orders. By importance, ``row`` is w_c (K,): the largest weight closes first, or last.
    """
    if first == "at random" or row is None:
        return torch.from_numpy(generator(draw, "learn", str(channels)).permutation(channels))
    return torch.argsort(row, descending=first == "important first", stable=True)


def partly_open_gate(order: Tensor, number_open: int) -> Tensor:
    """d of Eq. 1, (K,) bool: all but the last ``number_open`` channels of the order are closed.

    Example:
        >>> partly_open_gate(torch.tensor([2, 0, 1]), 1).tolist()
        [False, True, False]
    """
    return gates_for([order[: len(order) - number_open].tolist()], len(order))[0]


def open_count(channels: int, percent: int) -> int:
    """How many of K channels are open at a slider's percentage.

    Example:
        >>> open_count(320, 25), open_count(320, 0)
        (80, 0)
    """
    return max(0, min(channels, round(channels * percent / 100)))


def gated_scores(network: Network, layer: Layer, activations: Activations, gate: Tensor) -> Tensor:
    """g(X, d) of Eq. 3, class scores before softmax (C,), of the network with this gate (K,) at the layer."""
    return ablated_scores(network, layer, activations, gate[None], (layer,))[0]


# --- 4 fit ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Experiment:
    """What the gated networks said of one image: ``fitted`` gates to learn from, then others to test with.

    ``z`` (N, K) are the pooled gated features of Eq. 2, ``closed`` (N,) the numbers of closed channels, ``scores``
    (N, C) the g of Eq. 3.
    """

    z: Tensor
    closed: Tensor
    scores: Tensor
    fitted: int


def experiment(network: Network, layer: Layer, activations: Activations, report: Callable[[int, int], None]) -> Experiment:
    """Run the gated networks: the very gates of the method ``local_chip``, and some more that take no part in the fit."""
    drawn = np.concatenate([
        draw_uniform(FITTED, layer.channels, generator(0, layer.path, "local")),
        draw_uniform(HELD_OUT, layer.channels, generator(0, layer.path, "held out")),
    ])  # fmt: skip
    gates, features = torch.from_numpy(drawn), activations.features[layer.path]
    parts = []
    for start in range(0, len(drawn), _GATES_PER_REPORT):
        report(start, len(drawn))
        parts.append(ablated_scores(network, layer, activations, gates[start : start + _GATES_PER_REPORT], (layer,)))
    with torch.inference_mode():
        z = (gates.to(features) * features.mean((2, 3))).cpu()
        return Experiment(z.clone(), layer.channels - gates.sum(1).to(features.dtype), torch.cat(parts), FITTED)


@dataclass(frozen=True)
class Fitted:
    """One row w_c on the lasso path.

    - ``ratio``: lambda as a share of the smallest that gives w = 0; ``lam`` is lambda itself
    - ``row``: (K,), and the ``intercept`` beside it
    - ``r2``, ``held_out``: of the gates that were fitted, and of the others
    """

    ratio: float
    lam: float
    row: Tensor
    intercept: float
    r2: float
    held_out: float

    @property
    def support(self) -> int:
        return int((self.row != 0).sum())


def lasso_path(measured: Experiment, target: int, sigma2: float, ratios: Sequence[float] = RATIOS) -> tuple[Fitted, ...]:
    """Eq. 11 for one class and this image alone, at every lambda, the largest first.

    With one image f^c is a factor of the whole and cancels. Raises ``ChipError`` where the score reacts to nothing.
    """
    learned, held = (_moments(measured, target, sigma2, rows) for rows in (slice(None, measured.fitted), slice(measured.fitted, None)))
    given = normal_equations(learned, FitSettings(intercept=True))
    top = float(admm.lambda_max(given.cross)[0])
    if not top > 0:
        raise ChipError(
            "this class's score does not react to the channels of this layer in this photograph; choose another layer or class."
        )
    steps = []
    for ratio, found in zip(ratios, admm.lambda_path(given.gram, given.cross, ratios), strict=True):
        b = given.intercepts(found.W)
        steps.append(Fitted(ratio, ratio * top, found.W[0], float(b), float(learned.r2(found.W, b)), float(held.r2(found.W, b))))
    return tuple(steps)


def _moments(measured: Experiment, target: int, sigma2: float, rows: slice) -> Moments:
    moments = Moments.zeros([target], measured.z.shape[1])
    h = torch.exp(-measured.closed[rows].double() / sigma2)
    moments.add(measured.z[rows][None], h[None], torch.ones(1, measured.scores.shape[1]), measured.scores[rows][None], cutoff=0)
    return moments


# --- 5 sum and 6 compare ----------------------------------------------------------------------------------------


def by_contribution(row: Tensor, features: Tensor) -> list[int]:
    """The channels with a weight, from the one that moves the map most: by the sum over places of |w_k A_k|.

    Example:
        >>> by_contribution(torch.tensor([1.0, 0.0, -3.0]), torch.ones(3, 2, 2))
        [2, 0]
    """
    moved = row.to(features).abs() * features.abs().sum((1, 2))
    return [int(k) for k in torch.argsort(moved, descending=True, stable=True) if moved[k] > 0]


def channels_for_correlation(row: Tensor, features: Tensor, order: Sequence[int], wanted: float = 0.9) -> int:
    """Count the channels of ``order`` until their sum correlates with the whole map by ``wanted`` for the first time.

    Example:
        >>> features = torch.tensor([[[9.0, 0.0, 1.0]], [[0.0, 0.1, 0.0]]])
        >>> channels_for_correlation(torch.ones(2), features, [0, 1])
        1
    """
    channels = torch.tensor(list(order), dtype=torch.long)
    sums = (row.to(features)[channels, None] * features[channels].flatten(1)).double().cumsum(0)
    unit = directions(sums.numpy())
    reached = np.flatnonzero(unit @ unit[-1] >= wanted)
    return int(reached[0]) + 1 if len(reached) else len(order)
