"""Gates against their definition (Eq. 1, Eq. 8, Sec. III-A)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chipcore.gating.gates import Draw, draw, draw_uniform, gate, generator, proximity


@pytest.mark.parametrize("channels", [1, 3, 16])
def test_number_of_open_gates_is_uniform_and_every_channel_equally_likely(channels: int) -> None:
    draws = 20_000
    gates = draw_uniform(draws, channels, np.random.default_rng(1))
    assert gates.shape == (draws, channels) and gates.dtype == bool
    # Each count 0..K has probability 1 / (K + 1): within 5 standard deviations of a binomial.
    share = 1 / (channels + 1)
    spread = 5 * math.sqrt(draws * share * (1 - share))
    counts = np.bincount(gates.sum(1), minlength=channels + 1)
    assert np.all(np.abs(counts - draws * share) < spread)
    # Given the count, subsets are uniform, so each channel is open half of the time.
    assert np.all(np.abs(gates.mean(0) - 0.5) < 5 * math.sqrt(0.25 / draws))


@pytest.mark.parametrize("name", ["uniform", "importance", "stratified", "antithetic"])
@pytest.mark.parametrize("sigma2", [0.7, 4.0])
def test_every_draw_has_the_papers_expected_objective(name: Draw, sigma2: float) -> None:
    """E[weight phi(d)] equals E[h(d) phi(d)] under the paper's draw, for the terms of Eq. 11: 1, d_i and d_i d_j."""
    channels, images, count = 4, 4000, 7
    exact = np.zeros((channels + 1, channels + 1))
    for subset in range(2**channels):
        d = np.array([1, *(subset >> k & 1 for k in range(channels))])
        number_open = int(d.sum()) - 1
        probability = 1 / (channels + 1) / math.comb(channels, number_open)
        exact += probability * math.exp(-(channels - number_open) / sigma2) * np.outer(d, d)
    sums = []
    for s in range(images):
        gates, weight = draw(name, count, channels, sigma2, generator(0, "layer", str(s)))
        assert gates.shape == (count, channels) and weight.shape == (count,)
        d = np.concatenate([np.ones((count, 1)), gates], axis=1)
        sums.append((d.T * weight) @ d / count)
    spread = 5 * np.std(sums, axis=0) / math.sqrt(images)
    assert np.all(np.abs(np.mean(sums, axis=0) - exact) <= spread + 1e-9)


def test_stratified_draws_vary_less_than_uniform_ones() -> None:
    """The reason for them: the weighted number of open gates of one image, over images."""
    spread = {}
    for name in ("uniform", "stratified"):
        drawn = (draw(name, 20, 32, 32.0, np.random.default_rng(s)) for s in range(400))
        sums = [float(gates.sum(1) @ weight) for gates, weight in drawn]
        spread[name] = np.std(sums) / np.mean(sums)
    assert spread["stratified"] < spread["uniform"] / 3


def test_subsets_of_one_size_are_uniform() -> None:
    gates = draw_uniform(30_000, 4, np.random.default_rng(2))
    pairs = gates[gates.sum(1) == 2]
    codes = np.bincount(pairs @ (1 << np.arange(4)), minlength=16)
    chosen = codes[codes > 0]
    assert len(chosen) == 6
    assert np.all(np.abs(chosen - len(pairs) / 6) < 5 * math.sqrt(len(pairs) / 6))


def test_generator_depends_on_seed_layer_and_image_only() -> None:
    base = generator(0, "features.12", "zebra/1.jpg").random(4)
    assert np.array_equal(base, generator(0, "features.12", "zebra/1.jpg").random(4))
    for other in (
        generator(1, "features.12", "zebra/1.jpg"),
        generator(0, "features.1", "zebra/1.jpg"),
        generator(0, "features.12", "zebra/2.jpg"),
    ):
        assert not np.array_equal(base, other.random(4))


def test_gate_is_equation_1_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -4.0]]]])  # one image, two channels of 1 x 2
    gates = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    expected = torch.tensor([[[[1.0, 2.0]], [[0.0, 0.0]]], [[[0.0, 0.0]], [[3.0, -4.0]]], [[[0.0, 0.0]], [[0.0, 0.0]]]])
    assert torch.equal(gate(features, gates), expected)


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.floats(0.1, 1e4))
def test_proximity_is_equation_8(opened: list[bool], sigma2: float) -> None:
    d = torch.tensor(opened, dtype=torch.float64)
    distance = sum((int(one) - 1) ** 2 for one in opened)
    assert float(proximity(d, sigma2)) == pytest.approx(math.exp(-distance / sigma2), rel=1e-12, abs=1e-300)
