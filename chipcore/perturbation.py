"""Predictions of the perturbed networks (Eq. 3), through the suffix alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from chipcore.suffix import Suffix

Target = Literal["score", "probability"]
Precision = Literal["float32", "bfloat16"]


def perturbed_scores(
    suffix: Suffix, features: Tensor, carried: tuple[Tensor, ...], gates: Tensor, batch: int, precision: Precision = "float32",
    active: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Scores g(X_s, d_n) of B photographs under N gate samples each.

    Args:
        suffix: the network from the gated layer on.
        features: A, shape (B, K, u, v).
        carried: the other tensors that cross the cut, each (B, ...).
        gates: d, shape (B, N, K), of the features' type.
        batch: how many gated networks run at once.
        precision: of the suffix's convolutions and linear maps.
        active: (B, C) bool, the classes whose scores are wanted, at least one; all by default.

    Returns:
        Class scores before softmax, shape (B, N, C); of no meaning where not ``active``.
    """
    photographs, samples, _channels = gates.shape
    at_once, each = max(1, batch // samples), min(batch, samples)
    rows = []
    with torch.autocast(features.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        prepared = suffix.prepare(features)
        for first in range(0, photographs, at_once):
            some = slice(first, first + at_once)
            wanted = active[some].any(0).nonzero().flatten() if active is not None and suffix.selects_classes else None
            beside = tuple(value[some] if batched else value for value, batched in zip(carried, suffix.batched, strict=True))
            parts = [suffix.scores(prepared[some], beside, gates[some, start : start + each], wanted) for start in range(0, samples, each)]
            scores = torch.cat(parts, dim=1).to(features.dtype)
            if wanted is not None and active is not None:
                scores = scores.new_zeros(*scores.shape[:2], active.shape[1]).index_copy_(2, wanted, scores)
            rows.append(scores)
    return torch.cat(rows)
