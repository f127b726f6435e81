"""Channel gates (Eq. 1) and their proximity to the untouched network (Eq. 8)."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, layer: str, photograph: str) -> np.random.Generator:
    """The random numbers of one photograph at one layer.

    They depend on nothing else, so W is the same for any batch size, order of photographs or number of
    processes.
    """
    digest = hashlib.sha256(f"{seed}\0{layer}\0{photograph}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def draw_uniform(count: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """N gate samples d in {0, 1}^K as the paper draws them (Sec. III-A), shape (count, channels), bool.

    The number of open gates is uniform on 0..K, then which of them are open is uniform.
    """
    number_open = rng.integers(0, channels + 1, size=count)
    rank = rng.random((count, channels)).argsort(axis=1).argsort(axis=1)
    return rank < number_open[:, None]


def gate(features: Tensor, gates: Tensor) -> Tensor:
    """Eq. 1, A^_k = d_k A_k, for every photograph and every gate sample.

    Args:
        features: A, shape (B, K, u, v).
        gates: d, shape (B, N, K), of the features' type.

    Returns:
        Gated features, shape (B * N, K, u, v), photograph by photograph.
    """
    gated = features[:, None] * gates[..., None, None]
    return gated.flatten(0, 1).contiguous(memory_format=torch.channels_last)


def proximity(gates: Tensor, sigma2: float) -> Tensor:
    """h(d) of Eq. 8 for gates (..., K): exp(-(number of closed gates) / sigma2), shape (...)."""
    closed = gates.shape[-1] - gates.sum(-1)
    return torch.exp(-closed / sigma2)
