"""The Lasso of Eq. 11 for many classes that share one Gram, by block principal pivoting.

Per row c: minimize over w 1/2 w^T G w - b_c^T w + lambda_c ||w||_1, with one G for all rows. Pooled sums have such a G, and
with a small lambda nearly every weight is non-zero, so ADMM's working sets grow to all channels, a factorization for every
row. Here G is inverted once. Given which weights are zero and the others' signs, the solution is a linear system of the
smaller of the two sets; weights of the wrong sign become zero and zeros that violate the optimality conditions join, all at
once, until none is left (Portugal, Judice and Vicente 1994; Kim and Park 2010). Where that does not come to rest, ADMM solves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chipcore.solvers import admm

_ROUNDS = 60
_RIDGE = 1e-11  # of the unit diagonal, for the inverse; what it changes is refined away
_TOLERANCE = 1e-6  # largest violation of the optimality conditions, in units of lambda


@torch.no_grad()
def solve_shared(gram: Tensor, cross: Tensor, lam: Tensor, warm: Tensor | None = None) -> Tensor:
    """W (S, K) float64 of S rows with one Gram.

    Args:
        gram: (K, K), symmetric and positive semidefinite.
        cross: (S, K).
        lam: (S,), each at least 0.
        warm: rows (S, K) whose signs are a good start; by default those of least squares.

    Raises:
        SettingsError: as :func:`chipcore.solvers.admm.solve`.
    """
    gram, cross, lam = gram.double(), cross.double(), lam.double().to(cross.device)
    scale = gram.diagonal().clamp(min=0).sqrt()
    live = scale > 0
    if (
        not bool(gram.isfinite().all() & cross.isfinite().all())
        or bool((cross[:, ~live].abs() > lam[:, None]).any())
        or not bool(live.any())
    ):
        return _by_admm(gram, cross, lam, None)  # which says what is wrong
    G, b = (gram / scale[:, None] / scale)[live][:, live], (cross / scale)[:, live]
    threshold = lam[:, None] / scale[live]
    eye = torch.eye(len(G), dtype=G.dtype, device=G.device)
    factor, failed = torch.linalg.cholesky_ex(G + _RIDGE * eye)
    if int(failed):
        return _by_admm(gram, cross, lam, warm)
    H = torch.cholesky_inverse(factor)
    start = (b @ H if warm is None else warm.to(b)[:, live]).sign()
    found, solved = torch.zeros_like(b), torch.zeros(len(b), dtype=torch.bool)
    for row in range(len(b)):
        x = _row(G, H, b[row], threshold[row], start[row])
        if x is not None:
            found[row], solved[row] = x, True
    W = torch.zeros_like(cross)
    W[:, live] = found / scale[live]
    rest = (~solved).nonzero().flatten()
    if len(rest):
        W[rest] = _by_admm(gram, cross[rest], lam[rest], None)
    return W


def _row(G: Tensor, H: Tensor, b: Tensor, threshold: Tensor, sign: Tensor) -> Tensor | None:
    """One row in the metric of unit diagonal, from a guess of its signs; None where it does not come to rest."""
    fewest, patience = len(b) + 1, 3
    for _ in range(_ROUNDS):
        active, target = sign != 0, b - threshold * sign
        on, off = active.nonzero().flatten(), (~active).nonzero().flatten()
        x = torch.zeros_like(b)
        if len(off) <= len(on):
            x = H @ torch.where(active, target, b)
            if len(off):
                held = torch.linalg.solve_ex(H[off][:, off], x[off])[0]
                x = x - H[:, off] @ held
                x[off] = 0
        elif len(on):
            x[on] = torch.linalg.solve_ex(G[on][:, on], target[on])[0]
        correlation = b - G @ x
        wrong = active & (x * sign <= 0)
        joins = ~active & (correlation.abs() > threshold * (1 + _TOLERANCE))
        bad = int(wrong.sum()) + int(joins.sum())
        if not bad:
            # One step of refinement, for what the ridge and rounding left.
            if len(off) <= len(on):
                left = torch.where(active, target - G @ x, 0)
                step = H @ left
                if len(off):
                    step = step - H[:, off] @ torch.linalg.solve_ex(H[off][:, off], step[off])[0]
                    step[off] = 0
                x = x + step
            correlation = b - G @ x
            excess = torch.where(active, (correlation - threshold * sign).abs(), (correlation.abs() - threshold).clamp(min=0))
            fine = bool((excess <= _TOLERANCE * threshold + 1e-12 * b.abs().max()).all()) and bool((x * sign >= 0).all())
            return x if fine else None
        if bad < fewest:
            fewest, patience = bad, 3
        elif patience:
            patience -= 1
        else:  # all at once goes in circles: the last one alone does not (Murty's rule)
            last = int((wrong | joins).nonzero().max())
            only = torch.zeros_like(wrong)
            only[last] = True
            wrong, joins = wrong & only, joins & only
        sign = torch.where(wrong, 0.0, torch.where(joins, correlation.sign(), sign))
    return None


def _by_admm(gram: Tensor, cross: Tensor, lam: Tensor, warm: Tensor | None) -> Tensor:
    """A few rows at once: their Grams are copies."""
    some = max(1, (1 << 27) // gram.numel() // 8)
    parts = [
        admm.solve(gram.expand(len(at), -1, -1), cross[at], lam[at], warm=None if warm is None else warm[at]).W
        for at in torch.arange(len(cross)).split(some)
    ]
    return torch.cat(parts)
