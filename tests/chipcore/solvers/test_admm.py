"""Eq. 11 solved: against scikit-learn, against Eq. 17-20 written out, against the optimality conditions."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso
from torch import Tensor

from chipcore.errors import SettingsError
from chipcore.solvers import admm, lasso

DOUBLE = torch.float64


def moments(classes: int, channels: int, samples: int, seed: int = 0, spread: float = 0.0) -> tuple[Tensor, Tensor]:
    """Moments of correlated non-negative features, as gated activations are; ``spread`` in decades of channel scale."""
    gen = torch.Generator().manual_seed(seed)
    scale = 10 ** (spread * (torch.rand(classes, 1, channels, generator=gen, dtype=DOUBLE) - 0.5))
    gates = torch.rand(classes, samples, channels, generator=gen) < torch.rand(classes, samples, 1, generator=gen)
    z = gates * torch.rand(classes, samples, channels, generator=gen, dtype=DOUBLE) * scale
    truth = torch.randn(classes, channels, generator=gen, dtype=DOUBLE) * (torch.rand(classes, channels, generator=gen) < 0.2)
    g = (z / scale * truth[:, None]).sum(2) + 0.1 * torch.randn(classes, samples, generator=gen, dtype=DOUBLE)
    return z.mT @ z / samples, (z * g[:, :, None]).mean(1)


def objective(gram: Tensor, cross: Tensor, lam: Tensor, W: Tensor) -> Tensor:
    quadratic = torch.einsum("ck,ckj,cj->c", W, gram.double(), W) / 2
    return quadratic - (cross.double() * W).sum(1) + lam.double() * W.abs().sum(1)


def sklearn_lasso(gram: Tensor, cross: Tensor, lam: float) -> Tensor:
    """scikit-learn's minimizer of the same objective: its loss is |y - Xw|^2 / 2n, so lambda = alpha n, n = K here."""
    values, vectors = torch.linalg.eigh(gram)
    root = (values.clamp_min(0).sqrt()[:, None] * vectors.T).contiguous()  # root^T root = gram, singular or not
    inverse = torch.where(values > 1e-12 * values[-1], values, torch.inf) ** -0.5
    y = inverse * (vectors.T @ cross)
    model = Lasso(alpha=lam / len(cross), fit_intercept=False, tol=1e-8, max_iter=1_000_000)
    return torch.from_numpy(model.fit(root.numpy(), y.numpy()).coef_)


def assert_optimal(gram: Tensor, cross: Tensor, lam: Tensor, solution: admm.Solution) -> None:
    assert solution.W.dtype == DOUBLE and bool(solution.converged.all())
    r = cross.double() - torch.einsum("ckj,cj->ck", gram.double(), solution.W)  # not by the module's own function
    W, lam = solution.W, lam.double()
    violation = torch.where(W != 0, (r - lam[:, None] * W.sign()).abs(), (r.abs() - lam[:, None]).clamp_min(0)).amax(1)
    assert bool((violation <= 1e-5 * lam + 1e-11 * cross.abs().amax(1)).all()), violation / lam
    torch.testing.assert_close(solution.objective, objective(gram, cross, lam, W), rtol=1e-10, atol=1e-12)


def eq_17_19_20(gram: Tensor, cross: Tensor, lam: float, rho: float, iterations: int) -> Tensor:
    """Algorithm 1 as printed, for one class."""
    m, q = torch.zeros_like(cross), torch.zeros_like(cross)
    inverse = torch.linalg.inv(gram + rho * torch.eye(len(cross), dtype=DOUBLE))
    for _ in range(iterations):
        w = (cross + rho * m + rho * q) @ inverse
        m = (w - q).sign() * ((w - q).abs() - lam / rho).clamp_min(0)
        q = q - (w - m)
    return m


# --- by hand and by the paper ------------------------------------------------------------------------------


def test_one_channel_is_soft_thresholding() -> None:
    gram = torch.tensor([4.0, 4.0, 4.0], dtype=DOUBLE).reshape(3, 1, 1)
    solution = admm.solve(gram, torch.tensor([[6.0], [-6.0], [1.5]], dtype=DOUBLE), torch.full((3,), 2.0, dtype=DOUBLE))
    torch.testing.assert_close(solution.W[:, 0], torch.tensor([1.0, -1.0, 0.0], dtype=DOUBLE))  # (|b| - lambda) / G
    torch.testing.assert_close(solution.objective, torch.tensor([-2.0, -2.0, 0.0], dtype=DOUBLE))


def test_two_channels_by_hand() -> None:
    gram = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]], dtype=DOUBLE)
    # Both non-zero, signs + and -: 2 w1 + w2 = 4 - 1, w1 + 2 w2 = -4 + 1.
    torch.testing.assert_close(
        admm.solve(gram, torch.tensor([[4.0, -4.0]], dtype=DOUBLE), torch.ones(1)).W, torch.tensor([[3.0, -3.0]], dtype=DOUBLE)
    )
    # Only the first: 2 w1 = 5 - 1, and |2.5 - w1| = 0.5 is below lambda.
    torch.testing.assert_close(
        admm.solve(gram, torch.tensor([[5.0, 2.5]], dtype=DOUBLE), torch.ones(1)).W, torch.tensor([[2.0, 0.0]], dtype=DOUBLE)
    )


@pytest.mark.parametrize("polish", [True, False])
def test_equals_the_papers_iteration(polish: bool) -> None:
    gram, cross = moments(3, 12, 40)
    lam = 0.05 * admm.lambda_max(cross)
    solution = admm.solve(gram, cross, lam, settings=admm.ADMMSettings(polish=polish, relative_tolerance=1e-10))
    for c in range(3):
        plain = eq_17_19_20(gram[c], cross[c], float(lam[c]), 0.1, 3000)
        torch.testing.assert_close(solution.W[c], plain, rtol=1e-6, atol=1e-8)


def test_without_relaxation_and_polish_the_iterates_are_the_papers() -> None:
    """On a unit diagonal the metric changes nothing, so i iterations give the i-th iterate of Algorithm 1."""
    gram, cross = moments(1, 10, 40)
    scale = gram[0].diagonal().sqrt()
    gram, cross = gram / scale / scale[:, None], cross / scale
    plain = admm.ADMMSettings(max_iterations=7, over_relaxation=1.0, rho=0.4, polish=False)
    lam = 0.01 * admm.lambda_max(cross)
    problem = lasso.Problem(gram, cross, lam, 0)
    _, _, matrix = problem.restrict(torch.tensor([0]), torch.ones(1, 10, dtype=torch.bool))
    rho, zero = torch.full((1, 1), 0.4, dtype=DOUBLE), torch.zeros_like(cross)
    m, _, _, _ = admm._steps(lasso.factorise(matrix, rho), cross, problem.threshold, rho, zero, zero, 7, plain)
    torch.testing.assert_close(m[0], eq_17_19_20(gram[0], cross[0], float(lam[0]), 0.4, 7), rtol=1e-9, atol=1e-12)


# --- against scikit-learn ----------------------------------------------------------------------------------


SMALL = [
    (1, 1, 5, 1e-1, 0),
    (5, 30, 200, 1e-2, 0),
    (4, 96, 400, 1e-3, 3),  # channels over three decades
    (3, 80, 25, 1e-2, 0),  # fewer samples than channels: singular
]
LARGE = [(2, 256, 100, 1e-2, 2), (2, 512, 1600, 1e-2, 0)]


@pytest.mark.parametrize(
    ("classes", "channels", "samples", "ratio", "spread", "polish"),
    [(*case, True) for case in SMALL + LARGE] + [(*case, False) for case in SMALL],
)
def test_equals_scikit_learn(classes: int, channels: int, samples: int, ratio: float, spread: float, polish: bool) -> None:
    gram, cross = moments(classes, channels, samples, spread=spread)
    lam = ratio * admm.lambda_max(cross)
    solution = admm.solve(gram, cross, lam, settings=admm.ADMMSettings(polish=polish, max_iterations=50_000))
    assert_optimal(gram, cross, lam, solution)
    theirs = torch.stack([sklearn_lasso(G, b, float(value)) for G, b, value in zip(gram, cross, lam, strict=True)])
    torch.testing.assert_close(solution.objective, objective(gram, cross, lam, theirs), rtol=1e-6, atol=0)


@pytest.mark.parametrize("channels", [17, 1280])
def test_float32_moments(channels: int) -> None:
    gram, cross = (value.float() for value in moments(2, channels, 2000))
    lam = 1e-2 * admm.lambda_max(cross)
    assert_optimal(gram, cross, lam, admm.solve(gram, cross, lam))


@given(st.integers(1, 40), st.integers(1, 60), st.floats(-4, 0.1), st.floats(0, 6), st.integers(0, 10**6))
@hypothesis_settings(max_examples=50, deadline=None, derandomize=True)
def test_the_optimality_conditions_hold(channels: int, samples: int, log_ratio: float, spread: float, seed: int) -> None:
    gram, cross = moments(2, channels, samples, seed, spread)
    lam = 10**log_ratio * admm.lambda_max(cross)
    solution = admm.solve(gram, cross, lam)
    assert_optimal(gram, cross, lam, solution)
    torch.testing.assert_close(
        solution.kkt, admm.kkt_residual(gram, cross, lam, solution.W), rtol=1e-3, atol=1e-11 * float(cross.abs().max())
    )


# --- where nothing can or should be learned ----------------------------------------------------------------


def test_lambda_at_and_above_its_maximum_gives_exact_zeros() -> None:
    gram, cross = moments(3, 20, 50)
    for factor in (1.0, 5.0):
        solution = admm.solve(gram, cross, factor * admm.lambda_max(cross))
        assert bool((solution.W == 0).all()) and bool(solution.converged.all()) and bool((solution.iterations == 0).all())
    assert bool((admm.solve(gram, cross, 0.99 * admm.lambda_max(cross)).W != 0).any(1).all())


def test_dead_channels_and_an_empty_class() -> None:
    gram, cross = moments(3, 20, 60)
    gram[:, 4], gram[:, :, 4], cross[:, 4] = 0, 0, 0
    gram[1], cross[1] = 0, 0
    lam = 1e-2 * admm.lambda_max(cross)
    assert lam[1] == 0
    solution = admm.solve(gram, cross, lam)
    assert_optimal(gram, cross, lam, solution)
    assert bool((solution.W[:, 4] == 0).all()) and bool((solution.W[1] == 0).all()) and solution.objective[1] == 0
    living = [k for k in range(20) if k != 4]
    torch.testing.assert_close(solution.W[:, living], admm.solve(gram[:, living][:, :, living], cross[:, living], lam).W)


def test_twin_channels() -> None:
    """Two equal channels make the minimizer ambiguous, not the objective."""
    gram, cross = moments(2, 30, 100)
    twice = [*range(30), 3, 5]
    lam = 1e-2 * admm.lambda_max(cross)
    doubled_gram, doubled_cross = gram[:, twice][:, :, twice], cross[:, twice]
    solution = admm.solve(doubled_gram, doubled_cross, lam)
    assert_optimal(doubled_gram, doubled_cross, lam, solution)
    torch.testing.assert_close(solution.objective, admm.solve(gram, cross, lam).objective, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("channels", "samples"), [(5, 5), (40, 15), (100, 30)])
def test_singular_at_a_tiny_lambda(channels: int, samples: int) -> None:
    """ADMM alone needs tens of thousands of iterations here, and a polish that may rise or stand still goes round in circles."""
    gram, cross = moments(5, channels, samples, seed=3, spread=2)
    lam = 1e-5 * admm.lambda_max(cross)
    solution = admm.solve(gram, cross, lam)
    assert_optimal(gram, cross, lam, solution)
    assert int(solution.iterations.max()) <= 200


def test_lambda_zero_is_least_squares() -> None:
    gram, cross = moments(2, 15, 100)
    solution = admm.solve(gram, cross, torch.zeros(2))
    torch.testing.assert_close(solution.W, torch.linalg.solve(gram, cross[:, :, None])[:, :, 0], rtol=1e-6, atol=1e-8)


def test_units_do_not_matter() -> None:
    gram, cross = moments(2, 25, 100)
    lam = 1e-2 * admm.lambda_max(cross)
    solution, scaled = admm.solve(gram, cross, lam), admm.solve(gram * 1e-12, cross * 1e-9, lam * 1e-9)
    torch.testing.assert_close(scaled.W * 1e-3, solution.W, rtol=1e-8, atol=1e-12)


# --- starts, paths, blocks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("polish", [True, False])
def test_a_warm_start_changes_the_work_and_not_the_answer(polish: bool) -> None:
    gram, cross = moments(4, 60, 300)
    lam = admm.lambda_max(cross)
    settings = admm.ADMMSettings(polish=polish, relative_tolerance=1e-9)
    cold = admm.solve(gram, cross, 0.01 * lam, settings=settings)
    near = admm.solve(gram, cross, 0.0105 * lam, settings=settings)
    warm = admm.solve(gram, cross, 0.01 * lam, warm=near.W, settings=settings)
    torch.testing.assert_close(warm.W, cold.W, rtol=1e-5, atol=1e-7)
    assert int(warm.iterations.sum()) < int(cold.iterations.sum())


def test_a_useless_warm_start_is_survived() -> None:
    gram, cross = moments(3, 60, 300)
    lam = 0.01 * admm.lambda_max(cross)
    solution = admm.solve(gram, cross, lam, warm=1e6 * torch.randn(3, 60, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(solution.W, admm.solve(gram, cross, lam).W, rtol=1e-7, atol=1e-9)


def test_a_path_equals_its_solutions() -> None:
    gram, cross = moments(3, 60, 200)
    ratios = (1.0, 0.3, 0.1, 0.01)
    for ratio, solution in zip(ratios, admm.lambda_path(gram, cross, ratios), strict=True):
        alone = admm.solve(gram, cross, ratio * admm.lambda_max(cross))
        torch.testing.assert_close(solution.W, alone.W, rtol=1e-8, atol=1e-10)


def test_a_class_does_not_depend_on_its_neighbors() -> None:
    gram, cross = moments(30, 130, 90)
    lam = 0.003 * admm.lambda_max(cross)
    reports: list[tuple[int, int]] = []
    together = admm.solve(gram, cross, lam, progress=lambda done, total: reports.append((done, total)))
    assert reports[-1] == (30, 30) and len(reports) > 1
    assert torch.equal(together.W, admm.solve(gram, cross, lam).W)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(admm.solve(gram[order], cross[order], lam[order]).W, together.W[order], rtol=1e-9, atol=1e-9)
    for c in (0, 13, 29):
        alone = admm.solve(gram[c : c + 1], cross[c : c + 1], lam[c : c + 1])
        torch.testing.assert_close(alone.W[0], together.W[c], rtol=1e-9, atol=1e-9)
        assert alone.iterations[0] == together.iterations[c]


def test_torch_is_left_as_it_was() -> None:
    gram, cross = moments(2, 10, 30)
    copies, threads = (gram.clone(), cross.clone()), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        admm.solve(gram, cross, 0.01 * admm.lambda_max(cross))
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:  # a thread born later
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(gram, copies[0]) and torch.equal(cross, copies[1])


def test_too_few_iterations_are_reported() -> None:
    gram, cross = moments(2, 60, 300)
    solution = admm.solve(gram, cross, 1e-3 * admm.lambda_max(cross), settings=admm.ADMMSettings(max_iterations=3, polish=False))
    assert not bool(solution.converged.any()) and bool((solution.iterations == 3).all()) and bool((solution.dual > 0).all())


# --- refusals ----------------------------------------------------------------------------------------------


def test_what_is_no_problem_is_refused() -> None:
    gram, cross = moments(3, 5, 20)
    lam = torch.ones(3)
    broken = gram.clone()
    broken[2, 0, 1] = torch.nan
    with pytest.raises(SettingsError, match=r"class 2 are not finite"):
        admm.solve(broken, cross, lam)
    with pytest.raises(SettingsError, match=r"class 1 are not finite"):
        admm.solve(gram, cross.index_fill(0, torch.tensor([1]), torch.inf), lam)
    negative = gram.clone()
    negative[0, 3, 3] = -1
    with pytest.raises(SettingsError, match=r"class 0 are no moments"):
        admm.solve(negative, cross, lam)
    for bad in (dict(lam=-lam), dict(lam=lam[:2]), dict(gram=gram[:, :4]), dict(lam=lam * torch.nan), dict(warm=cross[:1])):
        with pytest.raises(SettingsError):
            admm.solve(**{"gram": gram, "cross": cross, "lam": lam, **bad})
    with pytest.raises(SettingsError, match="decrease"):
        admm.lambda_path(gram, cross, (0.1, 0.1))


@pytest.mark.parametrize(
    "bad", [dict(max_iterations=0), dict(over_relaxation=2.0), dict(rho=0.0), dict(rho=float("nan")), dict(kkt_tolerance=0.0)]
)
def test_settings_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        admm.ADMMSettings(**bad)  # type: ignore[arg-type]


# --- a real network ----------------------------------------------------------------------------------------


def test_real_moments() -> None:
    data = Path(os.environ.get("CHIP_DATA") or Path(__file__).parents[4] / "shared" / "data")
    if not (data / "networks" / "squeezenet1_0.pth").exists():
        assert not os.environ.get("CI"), f"{data} holds no networks/squeezenet1_0.pth"
        pytest.skip(f"no SqueezeNet weights in {data}")
    from chipcore.benchmarks import solve as bench

    gram, cross, _classes = bench.real_moments(data, per_folder=3, gates=20, folders=4)  # at most 240 samples: singular
    lam = 1e-3 * admm.lambda_max(cross)
    solution = admm.solve(gram, cross, lam)
    assert_optimal(gram, cross, lam, solution)
    theirs = sklearn_lasso(gram[0], cross[0], float(lam[0]))
    torch.testing.assert_close(solution.objective[:1], objective(gram[:1], cross[:1], lam[:1], theirs[None]), rtol=1e-6, atol=0)
    assert int((solution.W != 0).sum(1).min()) > 5 and int((solution.W != 0).sum(1).max()) < 300
