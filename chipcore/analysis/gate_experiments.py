"""The numbers of the six lessons: gate, predict, weigh, fit, sum, compare. Pure functions; nothing here knows Streamlit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from chipcore import ChipError, Layer, Network
from chipcore.fitting.moments import Moments
from chipcore.fitting.regression import system
from chipcore.fitting.settings import FitSettings
from chipcore.gating.gates import draw_uniform, generator
from chipcore.gating.perturbation import batch_size, perturbed_scores
from chipcore.gating.suffix import Activations
from chipcore.maps import chip_map
from chipcore.solvers import admm

STEPS = ("gate", "predict", "weigh", "fit", "sum", "compare")
FITTED, HELD_OUT = 300, 60  # gates that the local row is fitted on, as many as local_chip takes, and that test it
RATIOS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.001, 0.0003, 0.0001)  # of the lambda that gives w = 0
USUAL = 0.001  # lambda's ratio in chipcore's own fits
_AT_ONCE = 20  # gates between two reports of progress

First = Literal["at random", "important first", "unimportant first"]


# --- 1 gate and 2 predict ---------------------------------------------------------------------------------------


def ablation_order(channels: int, draw: int, first: First = "at random", row: Tensor | None = None) -> Tensor:
    """The channels (K,) in the order in which they close.

    ``draw`` numbers the random orders. By importance, ``row`` is w_c (K,): the largest weight closes first, or last.
    """
    if first == "at random" or row is None:
        return torch.from_numpy(generator(draw, "learn", str(channels)).permutation(channels))
    return torch.argsort(row, descending=first == "important first", stable=True)


def gates_for(order: Tensor, number_open: int) -> Tensor:
    """d of Eq. 1, (K,) bool: all but the last ``number_open`` channels of the order are closed."""
    gate = torch.zeros(len(order), dtype=torch.bool)
    gate[order[len(order) - number_open :]] = True
    return gate


def open_count(channels: int, percent: int) -> int:
    """How many of K channels are open at a slider's percentage."""
    return max(0, min(channels, round(channels * percent / 100)))


def answer(network: Network, layer: Layer, activations: Activations, gate: Tensor) -> Tensor:
    """g(X, d) of Eq. 3, class scores before softmax (C,), of the network with this gate (K,) at the layer."""
    features = activations.features[layer.path]
    with torch.inference_mode():
        gates = gate[None, None].to(features)
        return perturbed_scores(network.suffix(layer, (layer,)), features, activations.side_inputs[layer.path], gates, 1)[0, 0].cpu()


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
    features, suffix = activations.features[layer.path], network.suffix(layer, (layer,))
    gates = torch.from_numpy(drawn)[None].to(features)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(drawn), _AT_ONCE):
            report(start, len(drawn))
            some = gates[:, start : start + _AT_ONCE]
            at_once = batch_size(suffix.peak, features.device)
            parts.append(perturbed_scores(suffix, features, activations.side_inputs[layer.path], some, at_once)[0].cpu())
        z = (gates[0] * features.mean((2, 3))).cpu()
        return Experiment(z.clone(), layer.channels - gates[0].sum(1).cpu(), torch.cat(parts), FITTED)


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
    learned, held = (_moments(measured, target, sigma2, some) for some in (slice(None, measured.fitted), slice(measured.fitted, None)))
    given = system(learned, torch.zeros(1, dtype=torch.long), FitSettings(intercept=True))
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


def _moments(measured: Experiment, target: int, sigma2: float, some: slice) -> Moments:
    moments = Moments.zeros([target], measured.z.shape[1])
    h = torch.exp(-measured.closed[some].double() / sigma2)
    moments.add(measured.z[some][None], h[None], torch.ones(1, measured.scores.shape[1]), measured.scores[some][None], cutoff=0)
    return moments


# --- 5 sum and 6 compare ----------------------------------------------------------------------------------------


def by_contribution(row: Tensor, features: Tensor) -> list[int]:
    """The channels with a weight, from the one that moves the map most: by the sum over places of |w_k A_k|."""
    moved = row.to(features).abs() * features.abs().sum((1, 2))
    return [int(k) for k in torch.argsort(moved, descending=True, stable=True) if moved[k] > 0]


def partial_map(row: Tensor, features: Tensor, some: Sequence[int]) -> Tensor:
    """Eq. 10 over some of the channels, shape (u, v)."""
    kept = torch.zeros_like(row)
    kept[list(some)] = row[list(some)]
    return chip_map(kept, features)


def channels_for_correlation(row: Tensor, features: Tensor, order: Sequence[int], wanted: float = 0.9) -> int:
    """How many channels of ``order`` it takes until their sum correlates with the whole map by ``wanted`` for the first time."""
    some = torch.tensor(list(order), dtype=torch.long)
    sums = (row.to(features)[some, None] * features[some].flatten(1)).double().cumsum(0)
    centered = sums - sums.mean(1, keepdim=True)
    alike = (centered @ centered[-1]) / (centered.norm(dim=1) * centered[-1].norm()).clamp(min=1e-30)
    reached = (alike >= wanted).nonzero().flatten()
    return int(reached[0]) + 1 if len(reached) else len(order)


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's correlation of two maps of one shape; NaN where one of them is the same everywhere."""
    a, b = (values.double().flatten() - values.double().mean() for values in (one, other))
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length > 0 else math.nan
