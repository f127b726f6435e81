"""From moments to rows of W: what the solver is given, class by class, and what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from chipcore.fitting.moments import Moments
from chipcore.fitting.pooled_moments import PooledMoments
from chipcore.fitting.settings import FitSettings
from chipcore.solvers import admm
from chipcore.solvers.pivoting import solve_shared

_ROUNDING = 1e-12


@dataclass(frozen=True)
class NormalEquations:
    """The quadratic part of Eq. 11 for S classes: minimize w^T gram w / 2 - cross^T w + lambda |w|_1.

    - ``gram`` (S, K, K), ``cross`` (S, K): second moments, centered where the fit has an intercept
    - ``first`` (S, K), ``mean`` (S,): weighted means of z and of the target
    """

    gram: Tensor
    cross: Tensor
    first: Tensor
    mean: Tensor
    centered: bool

    def intercepts(self, W: Tensor) -> Tensor:
        """The constant beside each row (S, K) of W, shape (S,): zero in a fit without one."""
        return self.mean - (W * self.first).sum(1) if self.centered else torch.zeros_like(self.mean)


def has_own(evidence_mass: Tensor, settings: FitSettings) -> Tensor:
    """Which classes have sums of their own, bool (M,): the others have only those of all images, or no row."""
    least = settings.own_evidence if settings.pooled_share > 0 else settings.min_evidence
    return evidence_mass >= max(least, 1e-12)


def normal_equations(
    moments: Moments, settings: FitSettings, pooled: PooledMoments | None = None, slots: Tensor | None = None, contrast: float = 0.0
) -> NormalEquations:  # fmt: skip
    """The equations of the classes of ``moments``, from sums divided by their weights, so that lambda means the same for every class.

    Pooled sums have the share ``settings.pooled_share`` of every class's, and the whole where a class has none of its own.
    An intercept that is not penalised leaves the moments about the means (Hastie, Tibshirani and Friedman 2009, 3.4.2).

    Args:
        moments: of S classes; sums divided by their weight.
        pooled: the sums of all images, where there are any.
        slots: the classes' places among those of ``pooled``, int64 (S,); all by default.
        contrast: kappa of the target g^c - kappa log sum exp(g).
    """
    own = moments.contrasted(contrast)
    weight = torch.where(own.weight > 0, own.weight, 1)
    mixed = pooled is not None and settings.pooled_share > 0
    share = torch.full_like(weight, settings.pooled_share if mixed else 0.0)
    if mixed:
        share[~has_own(own.evidence_mass, settings)] = 1
    each = (1 - share) / weight
    gram, cross = own.gram * each[:, None, None], own.cross * each[:, None]
    first, mean = own.first * each[:, None], own.mean * each
    if mixed and pooled is not None:
        at = torch.arange(len(weight), device=weight.device) if slots is None else slots.to(weight.device)
        every = share / pooled.weight
        gram += (pooled.gram + pooled.gram.T) / 2 * every[:, None, None]
        cross += (pooled.cross[at] - contrast * pooled.normalizer_cross) * every[:, None]
        first += pooled.first * every[:, None]
        mean += (pooled.mean[at] - contrast * pooled.normalizer_mean) * every
    return _centered(gram, cross, first, mean) if settings.intercept else NormalEquations(gram, cross, first, mean, False)


def pooled_equations(pooled: PooledMoments, slots: Tensor, settings: FitSettings, contrast: float = 0.0) -> NormalEquations:
    """The equations of classes without sums of their own: as :func:`normal_equations`, with one Gram (1, K, K) for all."""
    gram = ((pooled.gram + pooled.gram.T) / 2 / pooled.weight)[None]
    cross = (pooled.cross[slots] - contrast * pooled.normalizer_cross) / pooled.weight
    first = (pooled.first / pooled.weight).expand_as(cross)
    mean = (pooled.mean[slots] - contrast * pooled.normalizer_mean) / pooled.weight
    if not settings.intercept:
        return NormalEquations(gram, cross, first, mean, False)
    return replace(_centered(gram, cross, first, mean), first=first)


def _centered(gram: Tensor, cross: Tensor, first: Tensor, mean: Tensor) -> NormalEquations:
    """Moments about the means: Grams (S, K, K), or one (1, K, K) for rows that share it."""
    # Where nothing varies (one gate, one image) only rounding is left, and a row fitted to it would be noise.
    second, product = gram.diagonal(dim1=1, dim2=2).clone(), first * mean[:, None]
    at = first[: len(gram)]
    gram = gram - at[:, :, None] * at[:, None]
    cross = cross - product
    varies = gram.diagonal(dim1=1, dim2=2) > _ROUNDING * second
    gram = gram * (varies[:, :, None] & varies[:, None])
    cross = cross * (varies & (cross.abs() > _ROUNDING * product.abs()))
    return NormalEquations(gram, cross, first, mean, True)


def solve_rows(given: Sequence[NormalEquations], settings: FitSettings) -> list[Tensor]:
    """Rows of W (S, K), float64, for every one of some targets that share their Grams.

    Pooled sums leave nearly every weight non-zero, and then block principal pivoting is many times as fast as ADMM, which
    solves Eq. 11 as printed; both reach the same minimum.

    Args:
        given: the equations of the same classes, one for each target.
        settings: of which ``lambda_ratio`` and ``pooled_share`` matter here.
    """
    gram, many = given[0].gram, len(given[0].cross)
    if not settings.pooled_share:
        return [admm.solve(one.gram, one.cross, settings.lambda_ratio * admm.lambda_max(one.cross)).W for one in given]
    found: list[list[Tensor]] = [[] for _ in given]
    # Rows that share a Gram are solved together, as are the targets.
    for at in [slice(None)] if len(gram) == 1 else [slice(row, row + 1) for row in range(many)]:
        cross = torch.cat([one.cross[at] for one in given])
        lam = settings.lambda_ratio * cross.abs().amax(1)
        solved = solve_shared(gram[0 if len(gram) == 1 else at.start], cross, lam)
        for rows, part in zip(found, solved.chunk(len(given)), strict=True):
            rows.append(part)
    return [torch.cat(rows) for rows in found]


def solve_block(channels: int) -> int:
    """How many classes are solved at once: 64, or fewer where their Grams would take more than an eighth of a gigabyte."""
    return max(1, min(64, (1 << 27) // (8 * channels**2)))
