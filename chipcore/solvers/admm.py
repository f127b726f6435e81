"""The Lasso of Eq. 11 for all classes at once, by ADMM (Eq. 16-20).

Per class c, with the moments G_c (gram), b_c (cross) and lambda_c:

    minimize over w:   1/2 w^T G_c w - b_c^T w + lambda_c ||w||_1

Three things are added to the paper's iteration; none changes the minimizer.

- Metric. Channels differ by orders of magnitude, so rho of Eq. 13 becomes rho G_kk, one value a channel. That
  is Eq. 16-20 for v_k = w_k sqrt(G_kk), whose Gram has a unit diagonal and whose thresholds are
  lambda / sqrt(G_kk). There rho = 1 is a good start whatever the units of the activations.
- Working set. Few channels have a non-zero weight, and a factorisation costs their number cubed. So Eq. 17-20
  run on the channels that violate the optimality conditions most; after every few iterations the conditions
  are checked over all channels and the set grows. At the latest it holds every channel.
- Polish. Once ADMM has found which weights are non-zero and their signs, Eq. 11 is a linear system on those.
  Solving it (``lasso.polish``) gives machine precision; the result counts only if it meets the optimality
  conditions better.

A class takes the same steps whichever classes are solved beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor

from chipcore.errors import SettingsError
from chipcore.solvers.lasso import TINY, Best, Problem, factorise, indices, polish, solve_factored
from chipcore.solvers.threads import solving_threads

_CHECK = 10  # iterations between two checks of the residuals and of the channels left out
_FIRST = 48  # channels of the first working set; an average row has about 90 non-zero weights of 512
_LEFT_OUT = 0.25  # of the working set's size: as many violators outside it a polish can still take in
_ATTEMPTS = 20  # linear systems a polish may solve, or more: as many as there were iterations, where a class is that hard
_UNBALANCED, _BALANCE = 4.0, 10.0  # rho changes when the residuals' root ratio is beyond the first, by at most the second
_FACTOR_BYTES = 2**21  # of factors a CPU thread keeps at hand: about a core's share of the cache
_DEVICE_BYTES = 2**30  # of Grams an accelerator takes in one block


# Told iterations so far, the positions of the classes in their block, and their primal and dual residuals, each (n',).
Trace = Callable[[int, Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class ADMMSettings:
    """How long and how exactly to iterate.

    Attributes:
        max_iterations: of Eq. 17-20 for one class; at least 1.
        relative_tolerance: a class may stop once its primal residual ||v - m||, relative to the larger of
            ||v|| and ||m||, and its dual residual, relative to ||b||, are both below this (Boyd et al. 2011,
            sec. 3.3; v and b in the channels' own metric).
        kkt_tolerance: the largest violation of the optimality conditions, in units of lambda, at which a class
            counts as solved. Both tests must pass; a polished solution needs only this one.
        over_relaxation: alpha in [1, 2) (Boyd et al. 2011, sec. 3.4.3); 1 is the paper's iteration.
        rho: the start value, in units of G_kk; None means 1. It is balanced between the residuals on the way.
        polish: whether to finish with the linear system on the weights found to be non-zero.
    """

    max_iterations: int = 5000
    relative_tolerance: float = 1e-6
    kkt_tolerance: float = 1e-7
    over_relaxation: float = 1.6
    rho: float | None = None
    polish: bool = True

    def __post_init__(self) -> None:
        if self.max_iterations < 1:
            raise SettingsError(f"max_iterations is {self.max_iterations}; give at least 1.")
        if not 1 <= self.over_relaxation < 2:
            raise SettingsError(f"over_relaxation is {self.over_relaxation}; give a value from 1 to below 2.")
        for name, value in (("relative_tolerance", self.relative_tolerance), ("kkt_tolerance", self.kkt_tolerance), ("rho", self.rho)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SettingsError(f"{name} is {value}; give a finite value above 0.")


@dataclass(frozen=True)
class Solution:
    """W and how it was reached; every tensor on the device of the Gram (the CPU where that has no float64).

    Attributes:
        W: (C, K) float64, one row a class.
        iterations: (C,) int64, of Eq. 17-20; 0 where W = 0 or the warm start already solves the class.
        primal, dual: (C,) relative residuals at the last check; 0 where there was no iteration.
        kkt: (C,) ``kkt_residual`` of W, in the units of lambda.
        objective: (C,) 1/2 w^T G w - b^T w + lambda ||w||_1.
        converged: (C,) bool; whether ``kkt`` is within the tolerance.
    """

    W: Tensor
    iterations: Tensor
    primal: Tensor
    dual: Tensor
    kkt: Tensor
    objective: Tensor
    converged: Tensor


def lambda_max(cross: Tensor) -> Tensor:
    """The smallest lambda (C,) at which every weight is zero: max over k of |b_k|, of ``cross`` (C, K)."""
    return cross.abs().amax(dim=1).to(_float64_device(cross.device), torch.float64)


def kkt_residual(gram: Tensor, cross: Tensor, lam: Tensor, W: Tensor) -> Tensor:
    """The largest violation (C,) of the optimality conditions of Eq. 11 by ``W`` (C, K), in the units of lambda.

    With r = b - G w they are r_k = lambda sign(w_k) where w_k is not zero and |r_k| <= lambda elsewhere.
    """
    device = _float64_device(gram.device)
    cross, W, lam = (value.to(device, torch.float64) for value in (cross, W, lam[:, None]))
    r = torch.stack([b - G.to(device, torch.float64) @ w for G, b, w in zip(gram, cross, W, strict=True)])
    return torch.where(W != 0, (r - lam * W.sign()).abs(), (r.abs() - lam).clamp_min(0)).amax(dim=1)


def lambda_path(gram: Tensor, cross: Tensor, ratios: Sequence[float], *, settings: ADMMSettings | None = None) -> list[Solution]:
    """One solution for every ratio, at lambda = ratio x ``lambda_max``, each started from the one before.

    Args:
        gram, cross: as for ``solve``.
        ratios: decreasing, each at least 0.

    Raises:
        SettingsError: as for ``solve``, and for ratios that do not decrease.
    """
    if any(later >= earlier for earlier, later in pairwise(ratios)):
        raise SettingsError("the ratios of a lambda path must decrease.")
    path: list[Solution] = []
    for ratio in ratios:
        path.append(solve(gram, cross, ratio * lambda_max(cross), warm=path[-1].W if path else None, settings=settings))
    return path


def solve(
    gram: Tensor,
    cross: Tensor,
    lam: Tensor,
    *,
    warm: Tensor | None = None,
    settings: ADMMSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
    trace: Trace | None = None,
) -> Solution:
    """Minimize Eq. 11 for every class.

    Args:
        gram: (C, K, K), float32 or float64, symmetric and positive semidefinite; singular is fine. It is read
            in small blocks and never copied whole.
        cross: (C, K).
        lam: (C,), each at least 0, in the units of ``cross``.
        warm: (C, K) weights to start from, say of a neighboring lambda.
        progress: called with (classes done, classes) from the calling thread.
        trace: called at every check of the residuals, from the threads that solve.

    Returns:
        The solution, in float64.

    Raises:
        SettingsError: shapes that do not fit, a lambda below 0, or moments that are not finite or no moments
            at all (a negative G_kk, or G_kk = 0 beside b_k beyond lambda); names the first such class.
    """
    settings = settings or ADMMSettings()
    _check_shapes(gram, cross, lam, warm)
    classes, channels = cross.shape
    device = _float64_device(gram.device)

    @torch.no_grad()
    def one(rows: slice) -> Solution:
        start = None if warm is None else warm[rows].to(device, torch.float64)
        values = [value[rows].to(device, torch.float64) for value in (cross, lam)]
        return _solve_block(Problem(gram[rows].to(device), values[0], values[1], rows.start), start, settings, trace)

    size = _block_size(channels, device)
    blocks = [slice(first, min(first + size, classes)) for first in range(0, classes, size)]
    parts: dict[int, Solution] = {}
    done = 0
    for first, part in _run(one, blocks, device):
        parts[first] = part
        done += len(part.W)
        if progress is not None:
            progress(done, classes)
    ordered = [parts[rows.start] for rows in blocks]
    return Solution(**{field.name: torch.cat([getattr(part, field.name) for part in ordered]) for field in fields(Solution)})


def _check_shapes(gram: Tensor, cross: Tensor, lam: Tensor, warm: Tensor | None) -> None:
    if cross.ndim != 2 or 0 in cross.shape or gram.shape != (*cross.shape, cross.shape[1]) or lam.shape != cross.shape[:1]:
        raise SettingsError(
            f"gram {tuple(gram.shape)}, cross {tuple(cross.shape)} and lambda {tuple(lam.shape)} do not fit; "
            "give (C, K, K), (C, K) and (C,)."
        )
    if warm is not None and (warm.shape != cross.shape or not bool(warm.isfinite().all())):
        raise SettingsError(f"the warm start must be finite and of shape {tuple(cross.shape)}.")
    if not bool(((lam >= 0) & lam.isfinite()).all()):
        raise SettingsError("lambda must be finite and at least 0 for every class.")


def _float64_device(device: torch.device) -> torch.device:
    """MPS has no float64, so its moments are solved on the CPU."""
    return torch.device("cpu") if device.type == "mps" else device


def _block_size(channels: int, device: torch.device) -> int:
    if device.type == "cpu":
        return max(1, _FACTOR_BYTES // (8 * min(channels, 3 * _FIRST) ** 2))
    return max(1, _DEVICE_BYTES // (8 * channels**2))


def _run(one: Callable[[slice], Solution], blocks: list[slice], device: torch.device) -> Iterator[tuple[int, Solution]]:
    """Each block's first class and solution, as they come."""
    if device.type != "cpu":
        yield from ((rows.start, one(rows)) for rows in blocks)
        return
    # Matrices this small gain nothing from threads inside an operation and stall for milliseconds at its
    # barriers when the machine has other work; so a thread takes whole classes and runs its operations alone.
    pool = solving_threads(torch.get_num_threads())
    futures = {pool.submit(one, rows): rows.start for rows in blocks}
    try:
        yield from ((futures[future], future.result()) for future in as_completed(futures))
    finally:
        for future in futures:
            future.cancel()


def _solve_block(problem: Problem, warm: Tensor | None, settings: ADMMSettings, trace: Trace | None = None) -> Solution:
    best = Best(problem, settings.kkt_tolerance)
    everyone = torch.arange(len(problem.lam), device=problem.lam.device)
    live = everyone[~best.solved(everyone)]  # not those that zero solves
    start = torch.zeros_like(problem.cross) if warm is None else warm * problem.scale
    if warm is not None and len(live):
        index = indices(start[live] != 0)
        correlation = problem.correlation(live, index, start[live].gather(1, index))
        best.put_better(live, start[live], correlation, problem.kkt(live, start[live], correlation))
        if settings.polish:
            polish(problem, best, live, start[live], correlation, _ATTEMPTS)
        live = everyone[~best.solved(everyone)]
    if len(live):
        _iterate(problem, best, live, start[live], settings, trace)
    w = best.v / problem.scale
    cross, gram_w = problem.cross * problem.scale, (problem.cross - best.correlation) * problem.scale
    objective = (w * (gram_w / 2 - cross)).sum(dim=1) + problem.lam * w.abs().sum(dim=1)
    return Solution(w, best.iterations, best.primal, best.dual, best.kkt, objective, best.solved(everyone))


def _iterate(problem: Problem, best: Best, live: Tensor, m: Tensor, settings: ADMMSettings, trace: Trace | None = None) -> None:
    """Eq. 17-20 on growing working sets until the classes ``live`` (n',) are solved, from ``m`` (n', K)."""
    members = m != 0
    index = indices(members)
    correlation = problem.correlation(live, index, m.gather(1, index))
    p = _multiplier(correlation, problem.threshold[live])
    rho = torch.full((len(live), 1), settings.rho or 1.0, dtype=torch.float64, device=m.device)
    next_polish = torch.zeros_like(live)
    iterations = 0
    stale = True  # whether the factor belongs to other classes, channels or rho
    while True:
        grown = _grow(members, correlation.abs() - problem.threshold[live])
        if stale or not torch.equal(grown, members):
            members = grown
            index, taken, gram = problem.restrict(live, members)
            factor = factorise(gram, rho)
            cross, threshold = problem.cross[live].gather(1, index) * taken, problem.threshold[live].gather(1, index)
        steps = min(_CHECK, settings.max_iterations - iterations)
        m_set, p_set, primal, dual = _steps(factor, cross, threshold, rho, m.gather(1, index), p.gather(1, index) * taken, steps, settings)
        iterations += steps
        m = m.scatter(1, index, m_set)
        correlation = problem.correlation(live, index, m_set)
        p = torch.where(members, p.scatter(1, index, p_set), _multiplier(correlation, problem.threshold[live]))
        kkt = problem.kkt(live, m, correlation)
        best.iterations[live], best.primal[live], best.dual[live] = iterations, primal, dual
        if trace is not None:
            trace(iterations, live, primal, dual)
        best.put_better(live, m, correlation, kkt)
        small = (primal <= settings.relative_tolerance) & (dual <= settings.relative_tolerance)
        done = small & (kkt <= best.tolerance[live])
        if settings.polish:
            left_out = ((correlation.abs() > problem.threshold[live]) & ~members).sum(dim=1)
            ready = ~done & (left_out <= _LEFT_OUT * members.sum(dim=1)) & (next_polish <= iterations)
            if bool(ready.any()):
                polish(problem, best, live[ready], m[ready], correlation[ready], max(_ATTEMPTS, iterations))
                # A polish costs as much as some iterations; one that failed is tried again half as far on.
                next_polish = torch.where(ready, iterations + iterations // 2, next_polish)
                done |= ready & best.solved(live)
        if bool(done.all()) or iterations == settings.max_iterations:
            return
        balanced = _balance(rho, primal, dual)
        stale = bool(done.any()) or not torch.equal(balanced, rho)
        live, m, p, correlation, members, rho, next_polish = (
            value[~done] for value in (live, m, p, correlation, members, balanced, next_polish)
        )


def _grow(members: Tensor, excess: Tensor) -> Tensor:
    """Each working set (n, K) with the channels outside that exceed lambda by most: half as many, or ``_FIRST``."""
    excess = excess.masked_fill(members, 0).clamp_min(0)
    most = (members.sum(dim=1, keepdim=True) // 2).clamp(_FIRST, members.shape[1])
    ranked = excess.sort(dim=1, descending=True, stable=True)
    joins = (ranked.values > 0) & (torch.arange(members.shape[1], device=members.device) < most)
    return members.scatter(1, ranked.indices, members.gather(1, ranked.indices) | joins)


def _steps(
    factor: Tensor, cross: Tensor, threshold: Tensor, rho: Tensor, m: Tensor, p: Tensor, steps: int, settings: ADMMSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Some iterations of Eq. 17, 19, 20 and the relative residuals after the last; p is -rho q (Eq. 15)."""
    alpha = settings.over_relaxation
    for _ in range(steps):
        before = m
        v = solve_factored(factor, cross + rho * m - p)  # Eq. 17
        relaxed = rho * (alpha * v + (1 - alpha) * m) + p
        p = relaxed.clamp(-threshold, threshold)  # Eq. 20: what soft thresholding cuts off is the multiplier
        m = (relaxed - p) / rho  # Eq. 19
    # The gradient of the quadratic at v against the subgradient of the l1 norm at m; rho (m - before) for alpha = 1.
    dual = rho * (m - before + (1 - alpha) * (v - before))
    primal_size = torch.maximum(v.norm(dim=1), m.norm(dim=1)).clamp_min(TINY)
    return m, p, (v - m).norm(dim=1) / primal_size, dual.norm(dim=1) / cross.norm(dim=1).clamp_min(TINY)


def _balance(rho: Tensor, primal: Tensor, dual: Tensor) -> Tensor:
    """Residual balancing (Boyd et al. 2011, sec. 3.4.1): a larger rho presses on the primal residual."""
    ratio = (primal / dual.clamp_min(TINY)).sqrt().clamp(1 / _BALANCE, _BALANCE)
    far = (ratio > _UNBALANCED) | (ratio < 1 / _UNBALANCED)
    return torch.where(far[:, None], rho * ratio[:, None], rho)


def _multiplier(correlation: Tensor, threshold: Tensor) -> Tensor:
    """The multiplier p of a channel with weight zero: its correlation, as far as lambda allows."""
    return correlation.clamp(-threshold, threshold)
