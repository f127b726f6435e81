"""Channel gates (Eq. 1) and their proximity to the untouched network (Eq. 8)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from chipcore.gating.philox import philox

Draw = Literal["uniform", "importance", "stratified", "antithetic"]
Generator = Literal["numpy", "device"]

_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 25}  # random words: what stays in a CPU's caches, and what a GPU has room for beside all else
_LAST = (1 << 63) - 1


def generator(seed: int, layer: str, image: str) -> np.random.Generator:
    """The random numbers of one image at one layer.

    They depend on nothing else, so W is the same for any batch size, order of images or number of
    processes.

    Example:
        >>> generator(0, "late", "a.jpg").random() == generator(0, "late", "a.jpg").random()
        True
    """
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(seed, layer, image), "little")))


def _digest(seed: int, layer: str, image: str) -> bytes:
    """16 bytes for one image at one layer."""
    return hashlib.sha256(f"{seed}\0{layer}\0{image}".encode(errors="surrogateescape")).digest()[:16]


def draw_uniform(count: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """N gate samples d in {0, 1}^K as the paper draws them (Sec. III-A), shape (count, channels), bool.

    The number of open gates is uniform on 0..K, then which of them are open is uniform.

    Example:
        >>> draw_uniform(100, 512, generator(0, "late", "photo.jpg")).shape
        (100, 512)
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


def draw_batch(
    kind: Generator, name: Draw, count: int, channels: int, sigma2: float, seed: int, layer: str, images: Sequence[str], device: torch.device
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The gates of several images at one layer, by either generator; they depend on seed, layer and image alone.

    Args:
        kind: ``numpy`` draws image by image on the CPU, with :func:`generator`; ``device`` draws all of them where the network is,
            with :func:`draw_on_device`. The two draw other gates of the same distribution.
        name, count, channels, sigma2: as in :func:`draw`.
        seed, layer, images: what the gates are keyed by.
        device: where the result goes.

    Returns:
        Gates (B, N, K), bool, and weights (B, N), float32.
    """
    if kind == "device":
        return draw_on_device(name, count, channels, sigma2, philox_keys(seed, layer, images).to(device))
    drawn = [draw(name, count, channels, sigma2, generator(seed, layer, image)) for image in images]
    gates, weights = (np.stack([one[place] for one in drawn]) for place in (0, 1))
    return torch.from_numpy(gates).to(device), torch.from_numpy(weights).to(torch.float32).to(device)


def philox_keys(seed: int, layer: str, images: Sequence[str]) -> Tensor:
    """Four words of 32 bits for each image at one layer, int64 (B, 4)."""
    digests = b"".join(_digest(seed, layer, image) for image in images)
    return torch.from_numpy(np.frombuffer(digests, "<u4").astype(np.int64)).view(-1, 4)


def draw_on_device(name: Draw, count: int, channels: int, sigma2: float, keys: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`draw`, for B images at once and by :func:`~chipcore.gating.philox.philox`: integers throughout, so every device gives the same bits.

    The generator's key and the upper half of its counter are the image's four words; the lower half is the gate sample's number
    and, within it, the channel's (four to a call), followed by a call for the number of open gates.

    Args:
        name, count, channels, sigma2: as in :func:`draw`; at most 2^20 channels and 2^31 samples.
        keys: int64 (B, 4), from :func:`philox_keys`.

    Returns:
        Gates (B, N, K), bool, and weights (B, N), float32, on the device of ``keys``.
    """
    words = count * (channels + 4)
    at_once = max(1, _AT_ONCE.get(keys.device.type, _AT_ONCE["cpu"]) // words)
    drawn = [_draw_on_device(name, count, channels, sigma2, some) for some in keys.split(at_once)]
    return torch.cat([gates for gates, _weight in drawn]), torch.cat([weight for _gates, weight in drawn])


def _draw_on_device(name: Draw, count: int, channels: int, sigma2: float, keys: Tensor) -> tuple[Tensor, Tensor]:
    N, K, device = count, channels, keys.device
    quads = -(-K // 4)
    first, second, third, fourth = (keys[:, place, None, None] for place in range(4))
    sample = torch.arange(N, device=device)[None, :, None]
    block = torch.arange(quads + 1, device=device)
    # Two antithetic samples share one order of the channels.
    ordered_by = sample // 2 * 2 if name == "antithetic" else sample
    order = philox((block[:-1], ordered_by, third, fourth), (first, second))
    spare = philox((block[-1:], sample, third, fourth), (first, second))
    # With the channel's number behind it no two keys are equal, so there is one order only, whatever sorts them.
    rank_key = torch.stack(order, dim=-1).flatten(2)[..., :K] << 20 | torch.arange(K, device=device)
    ranked = torch.cat([rank_key.sort(dim=-1).values, rank_key.new_full((*rank_key.shape[:2], 1), _LAST)], dim=-1)
    h = np.exp(-(K - np.arange(K + 1)) / sigma2)
    number_open = _number_open(name, K, h, spare[0][..., 0], spare[1][..., 0])
    weight = torch.from_numpy(h if name == "uniform" else np.full(K + 1, h.mean())).to(torch.float32).to(device)[number_open]
    gates = rank_key < ranked.gather(2, number_open[..., None])
    if name == "antithetic":  # the second of two takes the other end of the order
        other = rank_key >= ranked.gather(2, K - number_open[..., None])
        gates = torch.where(sample % 2 == 1, other, gates)
    return gates, weight


def _number_open(name: Draw, channels: int, h: np.ndarray, word: Tensor, strata: Tensor) -> Tensor:
    """How many gates are open, int64 (B, N), from a random word of 32 bits each and, for strata, another one."""
    count = word.shape[1]
    if name == "uniform":
        return word * (channels + 1) >> 32
    if name != "importance":  # a random word within one of N equal parts of the range, each sample in a part of its own
        place = torch.arange(count, device=word.device)
        part = (strata << 20 | place).argsort(dim=1).argsort(dim=1)
        word = ((part << 32) + word) // count
    limits = torch.from_numpy(np.floor(np.cumsum(h) / h.sum() * 2.0**32).astype(np.int64)).to(word.device)
    return torch.searchsorted(limits, word, right=True).clamp_max(channels)


def gate(features: Tensor, gates: Tensor, layout: torch.memory_format = torch.channels_last) -> Tensor:
    """Eq. 1, A^_k = d_k A_k, for every image and every gate sample.

    Args:
        features: A, shape (B, K, u, v).
        gates: d, shape (B, N, K), of the features' type.
        layout: how the result lies in memory.

    Returns:
        Gated features, shape (B * N, K, u, v), image by image.

    Example:
        >>> gate(torch.ones(1, 2, 1, 1), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])).flatten(1).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    gated = features[:, None] * gates[..., None, None]
    return gated.flatten(0, 1).contiguous(memory_format=layout)


def proximity(gates: Tensor, sigma2: float) -> Tensor:
    """h(d) of Eq. 8 for gates (..., K): exp(-(number of closed gates) / sigma2), shape (...).

    Example:
        >>> proximity(torch.tensor([[1.0, 1.0], [1.0, 0.0]]), 2.0).tolist()
        [1.0, 0.6065306663513184]
    """
    closed = gates.shape[-1] - gates.sum(-1)
    return torch.exp(-closed / sigma2)
