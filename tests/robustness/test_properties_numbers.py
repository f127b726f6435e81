"""Gates, moments, ADMM, boxes and pictures for numbers of any size: what they promise holds, or they refuse in words."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch
from fuzzing import cases
from hypothesis import given
from hypothesis import strategies as st

from chipcore import maps
from chipcore.datasets.annotations import mask_of_boxes, mask_to_view
from chipcore.errors import ChipError, SettingsError
from chipcore.evaluation.boxes import THRESHOLDS, iou, largest_box, overlap_curves
from chipcore.fitting.moments import Moments
from chipcore.fitting.regression import normal_equations, solve_rows
from chipcore.fitting.settings import FitSettings
from chipcore.gating.gates import Draw, draw, gate, generator, proximity
from chipcore.images import InputGeometry
from chipcore.solvers import admm

DRAWS: tuple[Draw, ...] = ("uniform", "importance", "stratified", "antithetic")
seeds = st.integers(0, 2**32 - 1)


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cases(120)
@given(st.sampled_from(DRAWS), st.integers(1, 25), st.integers(1, 60), st.floats(-4, 8), seeds)
def test_gates(name: Draw, count: int, channels: int, log_sigma2: float, seed: int) -> None:
    gates, weight = draw(name, count, channels, 10**log_sigma2, generator(seed, "layer", "photograph"))
    assert gates.shape == (count, channels) and gates.dtype == bool
    assert weight.shape == (count,) and np.isfinite(weight).all() and (weight >= 0).all() and weight.max() <= 1
    again, _weight = draw(name, count, channels, 10**log_sigma2, generator(seed, "layer", "photograph"))
    assert np.array_equal(gates, again)
    if name == "uniform":
        np.testing.assert_allclose(weight, proximity(torch.from_numpy(gates).double(), 10**log_sigma2).numpy(), rtol=1e-9, atol=1e-300)
    features = torch.randn(1, channels, 2, 3, generator=random(seed))
    gated = gate(features, torch.from_numpy(gates)[None].float())
    assert torch.equal(gated, features * torch.from_numpy(gates)[:, :, None, None])


def sample(seed: int, images: int, samples: int, channels: int, classes: int, scale: float) -> tuple[torch.Tensor, ...]:
    dice = random(seed)
    z = scale * torch.rand(images, samples, channels, generator=dice, dtype=torch.float64).float()
    weight = torch.rand(images, samples, generator=dice)
    f = torch.randn(images, classes, generator=dice).softmax(1)
    return z, weight, f, scale * torch.randn(images, samples, classes, generator=dice)


sizes = st.tuples(
    seeds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(1, 4), st.sampled_from((1e-30, 1e-12, 1.0, 1e9, 1e30))
)


@cases(100)
@given(sizes, st.integers(0, 4), st.floats(0, 1))
def test_moments(size: tuple[int, int, int, int, int, float], split: int, cutoff: float) -> None:
    """They are the literal sums, and those of two halves add up."""
    _seed, _images, _samples, channels, classes, _scale = size
    z, weight, f, g = sample(*size)
    whole, halves = Moments.zeros(range(classes), channels), [Moments.zeros(range(classes), channels) for _ in range(2)]
    whole.add(z, weight, f, g, cutoff)
    for half, some in zip(halves, (slice(0, split), slice(split, None)), strict=True):
        if len(z[some]):
            half.add(z[some], weight[some], f[some], g[some], cutoff)
    halves[0] += halves[1]
    omega = (f * (f >= cutoff)).double()[:, None] * weight.double()[:, :, None]
    sums = {
        "gram": torch.einsum("snc,sni,snj->cij", omega, z.double(), z.double()),
        "cross": torch.einsum("snc,snc,sni->ci", omega, g.double(), z.double()),
        "first": torch.einsum("snc,sni->ci", omega, z.double()),
        "mean": torch.einsum("snc,snc->c", omega, g.double()),
        "energy": torch.einsum("snc,snc->c", omega, g.double() ** 2),
        "weight": omega.sum((0, 1)),
    }
    for name, expected in sums.items():
        # The products are in float32, of channels brought to one scale, and added up in float64.
        tolerance = {"rtol": 1e-5, "atol": 3e-6 * max(float(expected.abs().max()), 1e-300)}
        torch.testing.assert_close(getattr(whole, name), expected, **tolerance)
        torch.testing.assert_close(getattr(halves[0], name), expected, **tolerance)
    assert torch.equal(whole.images, (f >= cutoff).sum(0).double())
    assert not torch.isinf(whole.r2(torch.zeros(classes, channels, dtype=torch.float64))).any()
    for row in whole.gram:
        assert torch.equal(row, row.T)


@cases(100)
@given(sizes, st.floats(-6, 0.3), st.booleans(), st.booleans(), st.booleans())
def test_rows_of_w(size: tuple[int, int, int, int, int, float], log_ratio: float, dead: bool, twins: bool, intercept: bool) -> None:
    """From moments of any scale, singular ones too: finite, optimal, and blind to the units of scores and features."""
    _seed, _images, _samples, channels, classes, _scale = size
    z, weight, f, g = sample(*size)
    if dead:
        z[..., 0] = 0
    if twins:
        z[..., -1] = z[..., 0]
    moments = Moments.zeros(range(classes), channels)
    moments.add(z, weight, f, g, 0)
    settings = FitSettings(lambda_ratio=10**log_ratio, intercept=intercept, pooled_share=0)
    given = normal_equations(moments, settings)
    [W] = solve_rows([given], settings)
    constants = given.intercepts(W)
    assert W.shape == (classes, channels) and torch.isfinite(W).all() and torch.isfinite(constants).all()
    gram, cross = given.gram, given.cross
    lam = 10**log_ratio * admm.lambda_max(cross)
    violation = admm.kkt_residual(gram, cross, lam, W)
    assert bool((violation <= 1e-3 * lam + 1e-9 * cross.abs().amax(1)).all()), violation / lam
    if log_ratio >= 0:
        assert not W.any()
    if dead:
        assert not W[:, 0].any()


@cases(100)
@given(
    seeds, st.integers(1, 3), st.integers(1, 6), st.floats(-280, 280), st.sampled_from((0.0, 1.0, torch.nan, torch.inf)), st.floats(-3, 3)
)
def test_admm_on_anything(seed: int, classes: int, channels: int, log_scale: float, odd: float, lam: float) -> None:
    """A finite solution or a refusal."""
    dice = random(seed)
    gram = torch.randn(classes, channels, channels, generator=dice, dtype=torch.float64) * 10.0 ** (log_scale / 2)
    gram = gram @ gram.mT
    cross = torch.randn(classes, channels, generator=dice, dtype=torch.float64)
    if odd != 1.0:
        gram[0, 0, 0] = odd
    with suppress(SettingsError):
        solution = admm.solve(gram, cross, torch.full((classes,), lam, dtype=torch.float64), settings=admm.ADMMSettings(max_iterations=50))
        assert torch.isfinite(solution.W).all() and not torch.isnan(solution.kkt).any()


heats = st.tuples(st.integers(1, 12), st.integers(1, 12), seeds, st.sampled_from((0.0, 1e-40, 1.0, 1e38)))


def heat_of(height: int, width: int, seed: int, scale: float) -> np.ndarray:
    values = np.random.default_rng(seed).random((height, width))
    return np.round(values, 1) * scale


@cases(100)
@given(heats, st.floats(0, 1))
def test_boxes_lie_around_what_is_above(size: tuple[int, int, int, float], threshold: float) -> None:
    heat = heat_of(*size)
    box = largest_box(heat, threshold)
    assert (box is None) == (not (heat > threshold).any())
    if box is not None:
        x0, y0, x1, y1 = box
        assert 0 <= x0 <= x1 < heat.shape[1] and 0 <= y0 <= y1 < heat.shape[0]
        inside = heat[y0 : y1 + 1, x0 : x1 + 1] > threshold
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
        assert iou(np.array([box]), np.array([box])).item() == 1
        assert mask_of_boxes(np.array([box]), 12).sum() == (x1 - x0 + 1) * (y1 - y0 + 1)
    if size[3] <= 1:
        largest, best = overlap_curves(heat, np.array([[0, 0, heat.shape[1] - 1, heat.shape[0] - 1]]))
        assert len(largest) == len(best) == len(THRESHOLDS) and (best >= largest).all() and best.max() <= 1 and largest.min() >= 0


@cases(80)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 32), st.integers(0, 40), st.sampled_from(("crop", "squash")), seeds)
def test_masks_on_the_view(height: int, width: int, size: int, more: int, fit: str, seed: int) -> None:
    geometry = InputGeometry(size=size, resize=size + more, fit=fit)  # type: ignore[arg-type]
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    seen = mask_to_view(mask, geometry)
    assert seen.shape == (size, size) and seen.dtype == bool
    assert mask_to_view(np.ones_like(mask), geometry).all() and not mask_to_view(np.zeros_like(mask), geometry).any()


values = st.sampled_from((0.0, -0.0, 1.0, -1.0, 1e-45, -1e-40, 3.4e38, -3.4e38, 1e20, float("nan"), float("inf"), -float("inf")))


@cases(150)
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.lists(values, min_size=25, max_size=25),
    st.booleans(),
    st.sampled_from((None, 0.0, 1.0, 1e-45, 3e38)),
)
def test_pictures(height: int, width: int, chosen: list[float], signed: bool, maximum: float | None) -> None:
    """Whatever a map holds, a picture is made of numbers between its limits."""
    raw = torch.tensor(chosen)[: height * width].reshape(height, width)
    picture = maps.picture(raw, 16, signed=signed, maximum=maximum)
    assert picture.shape == (16, 16) and torch.isfinite(picture).all()
    assert float(picture.min()) >= (-1 if signed else 0) and float(picture.max()) <= 1
    state = maps.state(raw)
    assert (state == "not finite") == (not bool(torch.isfinite(raw).all()))
    if state in ("not finite", "no positive part") and not signed:
        assert not picture.any()


@cases(60)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=6), st.text(max_size=12))
def test_names_of_classes(names: list[str], wanted: str) -> None:
    from chipcore.datasets.class_names import Classes

    classes = Classes(tuple(names))
    for one in (wanted, *names):
        with suppress(ChipError):
            assert 0 <= classes.index(one) < len(names)
