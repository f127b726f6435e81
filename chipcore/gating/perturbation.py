"""Predictions of the perturbed networks (Eq. 3), through the suffix alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from chipcore.errors import ChipError
from chipcore.gating.suffix import Suffix

Target = Literal["score", "probability"]
Precision = Literal["float32", "bfloat16"]


def perturbed_scores(
    suffix: Suffix, features: Tensor, side_inputs: tuple[Tensor, ...], gates: Tensor, batch: int, precision: Precision = "float32",
    active: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Scores g(X_s, d_n) of B images under N gate samples each.

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
    images, samples, _channels = gates.shape
    at_once, each = max(1, batch // samples), min(batch, samples)
    rows: list[Tensor] = []
    first = 0
    with torch.autocast(features.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        prepared = suffix.prepare(features)
        while first < images:
            some = slice(first, first + at_once)
            wanted = active[some].any(0).nonzero().flatten() if active is not None and suffix.selects_classes else None
            beside = tuple(value[some] if batched else value for value, batched in zip(side_inputs, suffix.batched, strict=True))
            parts = _in_parts(suffix, prepared[some], beside, gates[some], wanted, each)
            if parts is None:
                at_once, each = _fewer(at_once, each, features.device)
                continue
            scores = torch.cat(parts, dim=1).to(features.dtype)
            if wanted is not None and active is not None:
                scores = scores.new_zeros(*scores.shape[:2], active.shape[1]).index_copy_(2, wanted, scores)
            rows.append(scores)
            first += at_once
    return torch.cat(rows)


def _in_parts(
    suffix: Suffix, prepared: Tensor, side_inputs: tuple[Tensor, ...], gates: Tensor, wanted: Tensor | None, each: int
) -> list[Tensor] | None:
    """Scores of a few images, ``each`` gate samples at once; None where a GPU's memory does not suffice."""
    try:
        return [suffix.scores(prepared, side_inputs, gates[:, start : start + each], wanted) for start in range(0, gates.shape[1], each)]
    except torch.OutOfMemoryError:
        return None  # and with it go the tensors that the failed pass has left


def _fewer(at_once: int, each: int, device: torch.device) -> tuple[int, int]:
    """Half as many gate samples at once, then half as many images: somebody else may have taken the memory meanwhile."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if each > 1:
        return at_once, each // 2
    if at_once > 1:
        return at_once // 2, each
    raise ChipError("the GPU's memory does not suffice for a single gated network; free some of it, or give --device cpu.")


def batch_size(peak: int, device: torch.device) -> int:
    """How many gated networks run at once, from the widest step of the suffix in elements.

    On a CPU the widest step should stay near the caches; a GPU takes what a share of its free memory holds.
    """
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return max(8, min(4096, free // (16 * 4 * peak)))
    return max(8, min(1024, (64 << 20) // (4 * peak)))
