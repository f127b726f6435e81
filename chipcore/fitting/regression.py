"""From moments to rows of W: what the solver is given, class by class, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from chipcore.fitting.moments import Moments
from chipcore.fitting.pooled_moments import Background
from chipcore.fitting.settings import FitSettings
from chipcore.solvers import admm

_ROUNDING = 1e-12


@dataclass(frozen=True)
class System:
    """The quadratic part of Eq. 11 for S classes: minimize w^T gram w / 2 - cross^T w + lambda |w|_1.

    - ``gram`` (S, K, K), ``cross`` (S, K): second moments, centerd where the fit has an intercept
    - ``first`` (S, K), ``mean`` (S,): weighted means of z and of g^c
    """

    gram: Tensor
    cross: Tensor
    first: Tensor
    mean: Tensor
    centered: bool

    def intercepts(self, W: Tensor) -> Tensor:
        """The constant beside each row (S, K) of W, shape (S,): zero in a fit without one."""
        return self.mean - (W * self.first).sum(1) if self.centered else torch.zeros_like(self.mean)


def system(moments: Moments, slots: Tensor, settings: FitSettings, background: Background | None = None) -> System:
    """The systems of some classes, from sums divided by their weights, so that lambda means the same for every class.

    Where there is a ``background``, it has the share ``settings.background`` of every class's sums. An intercept that is
    not penalised leaves the moments about the means (Hastie, Tibshirani and Friedman 2009, 3.4.2).
    """
    weight = moments.weight[slots]
    share = settings.background if background is not None else 0.0
    own = (1 - share) / weight
    gram = moments.gram[slots] * own[:, None, None]
    cross, first, mean = moments.cross[slots] * own[:, None], moments.first[slots] * own[:, None], moments.mean[slots] * own
    if background is not None and share > 0:
        each = share / background.weight
        gram += (background.gram + background.gram.T) * (each / 2)
        cross += background.cross[slots] * each
        first += background.first * each
        mean += background.mean[slots] * each
    if settings.intercept:
        # Where nothing varies (one gate, one image) only rounding is left, and a row fitted to it would be noise.
        second, product = gram.diagonal(dim1=1, dim2=2).clone(), first * mean[:, None]
        gram -= first[:, :, None] * first[:, None]
        cross -= product
        varies = gram.diagonal(dim1=1, dim2=2) > _ROUNDING * second
        gram *= varies[:, :, None] & varies[:, None]
        cross *= varies & (cross.abs() > _ROUNDING * product.abs())
    return System(gram, cross, first, mean, settings.intercept)


def solve_rows(
    moments: Moments, slots: Tensor, settings: FitSettings, background: Background | None = None, report: Callable[[int, int], None] | None = None
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Rows of W (S, K) of some classes by ADMM, and the constants (S,) beside them.

    Args:
        moments: with evidence for every one of ``slots``, its places among the classes.
        settings: of which ``lambda_ratio``, ``background`` and ``intercept`` matter here.
        background: the sums of all images, where there are any.
        report: called with the number of classes that are done, and of all.
    """
    # One block of classes after another: indexing all Grams at once would copy gigabytes.
    size = solve_block(moments.cross.shape[1])
    rows, constants = [], []
    for start in range(0, len(slots), size):
        given = system(moments, slots[start : start + size], settings, background)
        W = admm.solve(given.gram, given.cross, settings.lambda_ratio * admm.lambda_max(given.cross)).W
        rows.append(W)
        constants.append(given.intercepts(W))
        if report:
            report(min(start + size, len(slots)), len(slots))
    return torch.cat(rows), torch.cat(constants)


def solve_block(channels: int) -> int:
    """How many classes are solved at once: 64, or fewer where their Grams would take more than an eighth of a gigabyte."""
    return max(1, min(64, (1 << 27) // (8 * channels**2)))
