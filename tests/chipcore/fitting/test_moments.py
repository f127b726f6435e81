"""Moments against the literal sums of Eq. 11, written out over images and gates in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from chipcore.errors import ChipError
from chipcore.fitting.moments import Moments

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
    sums = {
        "gram": torch.zeros(channels, channels, dtype=torch.float64), "cross": torch.zeros(channels, dtype=torch.float64),
        "energy": torch.tensor(0.0, dtype=torch.float64), "mean": torch.tensor(0.0, dtype=torch.float64),
        "weight": torch.tensor(0.0, dtype=torch.float64), "loyalty": torch.tensor(0.0, dtype=torch.float64), "images": torch.tensor(0.0, dtype=torch.float64),
    }  # fmt: skip
    for s in range(images):
        if f[s, c] < CUTOFF:
            continue
        sums["loyalty"] += f[s, c]
        sums["images"] += 1
        for n in range(gates):
            omega = f[s, c] * h[s, n]
            sums["gram"] += omega * torch.outer(z[s, n], z[s, n])
            sums["cross"] += omega * g[s, n, c] * z[s, n]
            sums["energy"] += omega * g[s, n, c] ** 2
            sums["mean"] += omega * g[s, n, c]
            sums["weight"] += omega
    return sums


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("photographs", "gates", "channels", "classes"), [(6, 4, 3, 5), (1, 1, 1, 1), (9, 7, 11, 2)])
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
