"""Channel gates (Eq. 1) and their proximity to the untouched network (Eq. 8)."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Draw = Literal["uniform", "importance", "stratified", "antithetic"]


def generator(seed: int, layer: str, image: str) -> np.random.Generator:
    """The random numbers of one image at one layer.

    They depend on nothing else, so W is the same for any batch size, order of images or number of
    processes.
    """
    digest = hashlib.sha256(f"{seed}\0{layer}\0{image}".encode(errors="surrogateescape")).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def draw_uniform(count: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """N gate samples d in {0, 1}^K as the paper draws them (Sec. III-A), shape (count, channels), bool.

    The number of open gates is uniform on 0..K, then which of them are open is uniform.
    """
    number_open = rng.integers(0, channels + 1, size=count)
    rank = rng.random((count, channels)).argsort(axis=1).argsort(axis=1)
    return rank < number_open[:, None]


def draw(name: Draw, count: int, channels: int, sigma2: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """N gate samples and their weights in Eq. 5, whose expected sum is the paper's for every ``name``.

    - ``uniform``: the paper's draw, weighted by h(d)
    - ``importance``: the number of open gates in proportion to h, so that all weights are equal
    - ``stratified``: the same, with one sample in each of N equal parts of that distribution
    - ``antithetic``: stratified, and two samples share one random order of the channels, one taking its
      beginning, the other its end; together they cover the channels more evenly than two of their own would

    Args:
        count: N.
        channels: K.
        sigma2: sigma^2 of Eq. 8.

    Returns:
        Gates (N, K), bool, and weights (N,), float64.
    """
    if name == "uniform":
        gates = draw_uniform(count, channels, rng)
        return gates, np.exp(-(channels - gates.sum(1)) / sigma2)
    # h depends on the number of open gates m alone, so m is drawn from h / sum h and the subset uniformly.
    h = np.exp(-(channels - np.arange(channels + 1)) / sigma2)
    cumulative = np.cumsum(h) / h.sum()
    place = rng.random(count) if name == "importance" else rng.permutation((np.arange(count) + rng.random(count)) / count)
    number_open = np.minimum(np.searchsorted(cumulative, place, side="right"), channels)
    if name == "antithetic":
        order = rng.random(((count + 1) // 2, channels)).argsort(axis=1).argsort(axis=1)
        # Ranks counted from the other end are the order reversed.
        rank = np.stack([order, channels - 1 - order], axis=1).reshape(-1, channels)[:count]
    else:
        rank = rng.random((count, channels)).argsort(axis=1).argsort(axis=1)
    return rank < number_open[:, None], np.full(count, h.mean())


def gate(features: Tensor, gates: Tensor, layout: torch.memory_format = torch.channels_last) -> Tensor:
    """Eq. 1, A^_k = d_k A_k, for every image and every gate sample.

    Args:
        features: A, shape (B, K, u, v).
        gates: d, shape (B, N, K), of the features' type.
        layout: how the result lies in memory.

    Returns:
        Gated features, shape (B * N, K, u, v), image by image.
    """
    gated = features[:, None] * gates[..., None, None]
    return gated.flatten(0, 1).contiguous(memory_format=layout)


def proximity(gates: Tensor, sigma2: float) -> Tensor:
    """h(d) of Eq. 8 for gates (..., K): exp(-(number of closed gates) / sigma2), shape (...)."""
    closed = gates.shape[-1] - gates.sum(-1)
    return torch.exp(-closed / sigma2)
