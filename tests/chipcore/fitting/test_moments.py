"""Moments against the literal sums of Eq. 11, written out over images and gates in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from chipcore.errors import ChipError
from chipcore.fitting.moments import Moments
from chipcore.fitting.pooled_moments import PooledMoments
from chipcore.fitting.samples import Samples

CUTOFF = 0.05


def random_data(seed: int, images: int, gates: int, channels: int, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(images, gates, channels, generator=generator, dtype=torch.float64)
    h = torch.rand(images, gates, generator=generator, dtype=torch.float64)
    f = torch.randn(images, classes, generator=generator, dtype=torch.float64).mul(2).softmax(1)
    g = torch.randn(images, gates, classes, generator=generator, dtype=torch.float64)
    return z, h, f, g


def literal(z: Tensor, h: Tensor, f: Tensor, g: Tensor, c: int) -> dict[str, Tensor]:
    """Eq. 11's sums for one class, term by term."""
    images, gates, channels = z.shape
    shapes = {"gram": (channels, channels), "cross": (channels,), "first": (channels,), "normalizer_cross": (channels,)}
    sums = {name: torch.zeros(shapes.get(name, ()), dtype=torch.float64) for name in Moments.names()}
    for s in range(images):
        if f[s, c] < CUTOFF:
            continue
        sums["evidence_mass"] += f[s, c]
        sums["images"] += 1
        for n in range(gates):
            omega = f[s, c] * h[s, n]
            sums["gram"] += omega * torch.outer(z[s, n], z[s, n])
            sums["cross"] += omega * g[s, n, c] * z[s, n]
            sums["first"] += omega * z[s, n]
            sums["energy"] += omega * g[s, n, c] ** 2
            sums["mean"] += omega * g[s, n, c]
            sums["weight"] += omega
            log_sum = g[s, n].exp().sum().log()
            sums["normalizer_cross"] += omega * log_sum * z[s, n]
            sums["normalizer_score"] += omega * log_sum * g[s, n, c]
            sums["normalizer_energy"] += omega * log_sum**2
            sums["normalizer_mean"] += omega * log_sum
    return sums


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("images", "gates", "channels", "classes"), [(6, 4, 3, 5), (1, 1, 1, 1), (9, 7, 11, 2)])
def test_moments_are_the_literal_sums(seed: int, images: int, gates: int, channels: int, classes: int) -> None:
    z, h, f, g = random_data(seed, images, gates, channels, classes)
    moments = Moments.zeros(range(classes), channels)
    for start in range(0, images, 4):  # batches of uneven size
        some = slice(start, start + 4)
        moments.add(z[some], h[some], f[some], g[some], CUTOFF)
    for c in range(classes):
        for name, value in literal(z, h, f, g, c).items():
            torch.testing.assert_close(getattr(moments, name)[c], value, rtol=1e-12, atol=1e-12)


def test_two_halves_add_up_to_one_pass() -> None:
    z, h, f, g = random_data(7, 10, 5, 6, 4)
    whole, first, second = (Moments.zeros(range(4), 6) for _ in range(3))
    whole.add(z, h, f, g, CUTOFF)
    first.add(z[:3], h[:3], f[:3], g[:3], CUTOFF)
    second.add(z[3:], h[3:], f[3:], g[3:], CUTOFF)
    first += second
    for name in Moments.names():
        torch.testing.assert_close(getattr(first, name), getattr(whole, name), rtol=1e-12, atol=1e-14)


def test_a_subset_of_classes_gets_the_same_sums() -> None:
    z, h, f, g = random_data(3, 8, 4, 5, 6)
    every, some = Moments.zeros(range(6), 5), Moments.zeros([4, 1], 5)
    every.add(z, h, f, g, CUTOFF)
    some.add(z, h, f, g, CUTOFF)
    torch.testing.assert_close(some.gram, every.gram[[4, 1]])
    torch.testing.assert_close(some.cross, every.cross[[4, 1]])


def test_moments_of_other_layers_or_classes_do_not_add() -> None:
    with pytest.raises(ChipError, match="different classes or layers"):
        Moments.zeros([0, 1], 3).__iadd__(Moments.zeros([0, 1], 4))
    with pytest.raises(ChipError, match="different classes or layers"):
        Moments.zeros([0, 1], 3).__iadd__(Moments.zeros([0, 2], 3))


def test_r2_against_its_definition() -> None:
    z, h, f, g = random_data(5, 7, 6, 4, 3)
    moments = Moments.zeros(range(3), 4)
    moments.add(z, h, f, g, CUTOFF)
    W = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b = torch.tensor([0.7, -2.0, 0.0], dtype=torch.float64)
    for c in range(3):
        omega = (f[:, c] * (f[:, c] >= CUTOFF))[:, None] * h
        residual = (omega * (z @ W[c] - g[..., c]) ** 2).sum()
        center = (omega * g[..., c]).sum() / omega.sum()
        variance = (omega * (g[..., c] - center) ** 2).sum()
        assert float(moments.r2(W)[c]) == pytest.approx(float(1 - residual / variance), rel=1e-9)
        shifted = (omega * (z @ W[c] + b[c] - g[..., c]) ** 2).sum()
        assert float(moments.r2(W, b)[c]) == pytest.approx(float(1 - shifted / variance), rel=1e-9)


def test_r2_without_evidence_is_nan() -> None:
    assert Moments.zeros([0], 2).r2(torch.zeros(1, 2)).isnan().all()


def test_contrast_is_another_target() -> None:
    """g - kappa log sum exp g put in for g gives what the sums beside it give afterwards."""
    z, h, f, g = random_data(11, 8, 5, 4, 3)
    moments, other = Moments.zeros(range(3), 4), Moments.zeros(range(3), 4)
    moments.add(z, h, f, g, CUTOFF)
    other.add(z, h, f, g - 0.3 * g.logsumexp(-1, keepdim=True), CUTOFF)
    found = moments.contrasted(0.3)
    for name in ("gram", "cross", "first", "energy", "mean", "weight"):
        torch.testing.assert_close(getattr(found, name), getattr(other, name), rtol=1e-11, atol=1e-12)
    assert not torch.allclose(found.cross, moments.cross) and moments.contrasted(0) is moments


def gates_of(seed: int, images: int, gates: int, channels: int) -> tuple[np.ndarray, Tensor]:
    """Binary gates (S, N, K) and the pooled features (S, K) of images, the latter in float32, as samples keep them."""
    rng = np.random.default_rng(seed)
    return rng.random((images, gates, channels)) < 0.6, torch.from_numpy(rng.normal(size=(images, channels)).astype(np.float32))


def sampled(parts: list[slice], channels: int = 11) -> tuple[Samples, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Samples added in parts, and what they were made from; every third image is held out."""
    _z, h, f, g = random_data(2, 13, 5, channels, 6)
    bits, a = gates_of(4, 13, 5, channels)
    held = torch.arange(13) % 3 == 0
    samples = Samples([1, 4, 5], channels, 5)
    for some in parts:
        samples.add(
            range(13)[some], held[some], a[some], bits[some], h[some], f[some].float(), g[some], g[some].logsumexp(-1), CUTOFF
        )  # fmt: skip
    return samples, torch.from_numpy(bits).double() * a[:, None].double(), h, f, g, held


def test_samples_give_the_literal_sums_of_either_half() -> None:
    samples, z, h, f, g, held = sampled([slice(0, 4), slice(4, 13)])
    for apart in (False, True):
        some = held == apart
        moments = samples.moments(torch.tensor([2, 0]), held=apart)
        for place, c in enumerate((5, 1)):
            for name, value in literal(z[some], h[some], f[some], g[some], c).items():
                torch.testing.assert_close(getattr(moments, name)[place], value, rtol=2e-5, atol=2e-5)
        torch.testing.assert_close(samples.evidence_mass(apart)[[2, 0]], moments.evidence_mass, rtol=1e-6, atol=1e-6)
        assert torch.equal(samples.images(apart)[[2, 0]], moments.images)


def test_samples_do_not_depend_on_who_took_them() -> None:
    """Other parts in another order are put back into the images' order: the same sums, to the bit."""
    whole = sampled([slice(0, 13)])[0]
    parts = [sampled([one])[0] for one in (slice(6, 13), slice(0, 6))]
    parts[0].merge(parts[1].arrays())
    slots = torch.arange(3)
    for name in Moments.names():
        assert torch.equal(getattr(whole.moments(slots), name), getattr(parts[0].moments(slots), name))


def test_samples_of_another_layer_are_refused() -> None:
    samples = sampled([slice(0, 13)])[0]
    with pytest.raises(ValueError, match="does not fit"):
        samples.merge(sampled([slice(0, 13)], channels=16)[0].arrays())
    with pytest.raises(ValueError, match="does not exist"):
        samples.merge({**samples.arrays(), "slot": samples.arrays()["slot"] + 3})


def test_r2_of_samples_is_that_of_their_sums() -> None:
    samples = sampled([slice(0, 13)])[0]
    W = torch.randn(2, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    constants, slots = torch.tensor([0.4, -1.0], dtype=torch.float64), torch.tensor([0, 2])
    for apart in (False, True):
        expected = samples.moments(slots, held=apart).r2(W, constants)
        torch.testing.assert_close(samples.r2(slots, W, constants, held=apart), expected, rtol=1e-4, atol=1e-4)


def test_pooled_sums_are_the_literal_ones() -> None:
    z, h, f, g = random_data(9, 7, 4, 5, 6)
    rows = [0, 3, 4]
    pooled = PooledMoments.zeros(3, 5)
    for some in (slice(0, 3), slice(3, 7)):
        pooled.add(z[some], h[some], g[some][..., rows], g[some].logsumexp(-1))
        pooled.add_activation(z[some, 0], f[some][:, rows])
    omega, log_sum = h.flatten(), g.logsumexp(-1).flatten()
    Z, G = z.flatten(0, 1), g[..., rows].flatten(0, 1)
    expected = {
        "gram": torch.einsum("t,ti,tj->ij", omega, Z, Z), "cross": torch.einsum("t,tm,ti->mi", omega, G, Z), "first": omega @ Z,
        "normalizer_cross": (omega * log_sum) @ Z, "energy": omega @ G**2, "mean": omega @ G, "normalizer_score": (omega * log_sum) @ G,
        "normalizer_energy": (omega @ log_sum**2)[None], "normalizer_mean": (omega @ log_sum)[None], "weight": omega.sum()[None],
    }  # fmt: skip
    for name, value in expected.items():
        torch.testing.assert_close(getattr(pooled, name), value, rtol=1e-10, atol=1e-10)
    means = torch.stack([(f[:, c, None] * z[:, 0]).sum(0) / f[:, c].sum() for c in rows])
    torch.testing.assert_close(pooled.mean_activation(), means)
    W, constants = (
        torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
        torch.tensor([0.3, 0.0], dtype=torch.float64),
    )
    for place, slot in enumerate((2, 0)):
        residual = (omega * (Z @ W[place] + constants[place] - G[:, slot]) ** 2).sum()
        variance = (omega * (G[:, slot] - (omega @ G[:, slot]) / omega.sum()) ** 2).sum()
        assert float(pooled.r2(torch.tensor([2, 0]), W, constants)[place]) == pytest.approx(float(1 - residual / variance), rel=1e-9)
