"""The Lasso of Eq. 11 in the metric of its channels: the problem, the best solution known, and the polish.

``admm`` finds out which weights are non-zero. The polish then solves Eq. 11 exactly: with the non-zero weights
and their signs given it is a linear system.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from chipcore.errors import SettingsError

TINY = 1e-300  # keeps a quotient of zeros at zero
_PROXIMAL_STEPS = 3  # of refinement; each divides the error that the ridge makes by eigenvalue / ridge
_RIDGE = 1e-8  # of the unit diagonal; lets a singular system be factored, refined away afterwards


class Problem:
    """The moments of n classes in the metric of their channels: v_k = w_k sqrt(G_kk), so that G has a unit diagonal.

    Methods take the positions (n',) of the classes wanted, and per class the indices (n', m) of some channels.
    """

    def __init__(self, gram: Tensor, cross: Tensor, lam: Tensor, first: int) -> None:
        diagonal = gram.diagonal(dim1=1, dim2=2).double()
        finite = gram.sum(dim=(1, 2), dtype=torch.float64).isfinite() & cross.isfinite().all(dim=1)
        # A channel that was never active has no Gram and so no cross moment; its weight is zero.
        impossible = (diagonal < 0) | ((diagonal == 0) & (cross.abs() > lam[:, None]))
        for ok, what in ((finite, "are not finite"), (~impossible.any(dim=1), "are no moments (G_kk < 0, or G_kk = 0 but b_k is not)")):
            if not bool(ok.all()):
                raise SettingsError(f"gram and cross of class {first + int(ok.int().argmin())} {what}; accumulate them again.")
        self.scale = torch.where(diagonal > 0, diagonal.sqrt(), 1.0)
        self.cross = cross / self.scale
        self.threshold = lam[:, None] / self.scale
        self.lam = lam
        self._gram_rows = gram.double().reshape(-1, gram.shape[-1])

    def restrict(self, at: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The Grams between the ``chosen`` (n', K) channels, with a unit diagonal.

        Returns the channels' indices (n', m), which of those are meant (n', m), and the Grams (n', m, m). m is
        the largest number of a class; the others are filled up with channels whose row and column are zero.
        """
        index = indices(chosen)
        taken = chosen.gather(1, index)
        flat = self._row(at, index)[:, :, None] * self._gram_rows.shape[1] + index[:, None, :]
        gram = self._gram_rows.view(-1).index_select(0, flat.view(-1)).view(flat.shape)
        inverse = taken / self.scale[at].gather(1, index)
        return index, taken, gram.mul_(inverse[:, :, None]).mul_(inverse[:, None, :])

    def correlation(self, at: Tensor, index: Tensor, values: Tensor) -> Tensor:
        """b - G v (n', K) for v that is ``values`` (n', m) on ``index`` and zero elsewhere."""
        scale = self.scale[at]
        # A weighted sum of rows of the Gram, without a copy of the rows.
        fitted = embedding_bag(self._row(at, index), self._gram_rows, mode="sum", per_sample_weights=values / scale.gather(1, index))
        return self.cross[at] - fitted / scale

    def _row(self, at: Tensor, index: Tensor) -> Tensor:
        return at[:, None] * self._gram_rows.shape[1] + index

    def objective(self, at: Tensor, index: Tensor, values: Tensor, correlation: Tensor) -> Tensor:
        """Eq. 11 (n',) at v that is ``values`` (n', m) on ``index``, from its ``correlation``."""
        both = (self.cross[at] + correlation).gather(1, index)
        return (self.threshold[at].gather(1, index) * values.abs() - values * both / 2).sum(dim=1)

    def kkt(self, at: Tensor, v: Tensor, correlation: Tensor) -> Tensor:
        """``kkt_residual`` (n',) of v (n', K)."""
        threshold = self.threshold[at]
        violation = torch.where(v != 0, (correlation - threshold * v.sign()).abs(), (correlation.abs() - threshold).clamp_min(0))
        return (violation * self.scale[at]).amax(dim=1)


class Best:
    """What is known of the classes of one block; rows are written as classes are worked on."""

    def __init__(self, problem: Problem, kkt_tolerance: float) -> None:
        n, device = len(problem.lam), problem.lam.device
        self.v = torch.zeros_like(problem.cross)
        self.correlation = problem.cross.clone()
        self.kkt = problem.kkt(torch.arange(n, device=device), self.v, self.correlation)
        # Below the rounding of b itself no residual means anything.
        floor = 1e-12 * (problem.cross * problem.scale).abs().amax(dim=1)
        self.tolerance = kkt_tolerance * problem.lam + floor
        self.iterations = torch.zeros(n, dtype=torch.int64, device=device)
        self.primal, self.dual = torch.zeros_like(self.kkt), torch.zeros_like(self.kkt)

    def put_better(self, at: Tensor, v: Tensor, correlation: Tensor, kkt: Tensor) -> None:
        """Keep what violates the optimality conditions less than what was known; NaN never does."""
        better = kkt < self.kkt[at]
        at = at[better]
        self.v[at], self.correlation[at], self.kkt[at] = v[better], correlation[better], kkt[better]

    def solved(self, at: Tensor) -> Tensor:
        return self.kkt[at] <= self.tolerance[at]


def polish(problem: Problem, best: Best, at: Tensor, m: Tensor, correlation: Tensor, attempts: int) -> None:
    """Solve Eq. 11 on the non-zero weights with their signs held, and keep in ``best`` what improves on it.

    Weights that change sign leave and channels that violate the conditions join, over all channels, until the
    conditions hold or the attempts are used up. The objective never rises on the way.
    ``m`` and ``correlation`` (n', K) are ADMM's. Each of the ``attempts`` solves one linear system a class.
    """
    settled = torch.ones_like(at, dtype=torch.bool)
    stuck = ~settled
    everything = torch.arange(m.shape[1], device=m.device).expand_as(m)
    lowest = problem.objective(at, everything, m, correlation)
    for _ in range(attempts):
        threshold = problem.threshold[at]
        # Channels join only where no weight has just left: before the others have moved, r is not to be trusted.
        excess = (correlation.abs() - threshold).masked_fill(m != 0, 0)
        # Where many at once got nowhere, the one that is furthest off does: its own step cannot be of length zero.
        joins = settled[:, None] & (excess > 0) & (~stuck[:, None] | (excess == excess.amax(dim=1, keepdim=True)))
        sign = torch.where(joins, correlation.sign(), m.sign())
        index, taken, gram = problem.restrict(at, sign != 0)
        factor = factorise(gram, torch.where(taken, _RIDGE, 1.0))
        sign = sign.gather(1, index)
        target = problem.cross[at].gather(1, index) * taken - threshold.gather(1, index) * sign
        x = m.gather(1, index)
        for _ in range(_PROXIMAL_STEPS):
            x = x + solve_factored(factor, target - (gram @ x[:, :, None])[:, :, 0])
        stays = x * sign > 0
        settled = (stays == taken).all(dim=1)
        start, x_all = m.gather(1, index), x
        x = torch.where(stays, x, 0.0)
        correlation = problem.correlation(at, index, x)
        objective = problem.objective(at, index, x, correlation)
        rises = ~settled & ~(objective < lowest)
        if bool(rises.any()):
            # Setting every weight that changed sign to zero went too far: go up to the first zero only, as on
            # the way there nothing rises.
            reach = torch.where(stays | ~taken, 1.0, start.abs() / (x_all - start).abs().clamp_min(TINY))
            first = reach.amin(dim=1, keepdim=True)
            part = torch.where(~stays & (reach <= first), 0.0, start + first * (x_all - start))
            x = torch.where(rises[:, None], part, x)
            correlation = problem.correlation(at, index, x)
            objective = problem.objective(at, index, x, correlation)
        m = torch.zeros_like(m).scatter(1, index, x)
        stuck = stuck | ~(objective < lowest)
        lowest = objective
        best.put_better(at, m, correlation, problem.kkt(at, m, correlation))
        left = ~best.solved(at)
        if not bool(left.any()):
            return
        at, m, correlation, settled, stuck, lowest = (value[left] for value in (at, m, correlation, settled, stuck, lowest))


def indices(chosen: Tensor) -> Tensor:
    """Indices (n, m) of the chosen (n, K), row by row; rows shorter than the longest go on with others."""
    count = max(1, int(chosen.sum(dim=1).max()))
    return chosen.to(torch.int8).sort(dim=1, descending=True, stable=True).indices[:, :count]


def factorise(gram: Tensor, ridge: Tensor) -> Tensor:
    """Cholesky factor of gram (n, m, m) plus a diagonal (n, m) or (n, 1)."""
    factor: Tensor = torch.linalg.cholesky_ex(gram + torch.diag_embed(ridge.expand(gram.shape[:2]))).L
    return factor


def solve_factored(factor: Tensor, right: Tensor) -> Tensor:
    # Two triangular solves; torch.cholesky_solve takes three times as long on matrices of this size.
    half: Tensor = torch.linalg.solve_triangular(factor, right[:, :, None], upper=False)
    whole: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    return whole[:, :, 0]
