"""What the benchmarks share: seconds on a device, counted operations, and the best matrix product to compare them with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from chipcore.gating.linear_ops import linear
from chipcore.gating.perturbation import Precision


@torch.inference_mode()
def best_matrix_product(precision: Precision, device: torch.device | str) -> float:
    """FLOP/s of the fastest square matrix product, by torch's own choice of library and by oneDNN."""
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    best = 0.0
    for size in (1024, 2048, 4096) if torch.device(device).type == "cpu" else (4096, 8192, 16384):
        a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        for product in (torch.mm, linear):
            least = min(seconds(lambda a=a, b=b, product=product: product(a, b), device) for _ in range(4))  # type: ignore[misc]
            best = max(best, 2 * size**3 / least)
    return best


def counting() -> FlopCounterMode:
    """torch's counter, told of the operator of oneDNN that it does not know."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return FlopCounterMode(display=False)

    def flops(x: Sequence[int], weight: Sequence[int], *_others: Any, **_options: Any) -> int:
        return 2 * math.prod(x) * weight[0]

    return FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: flops})


def seconds(call: Callable[[], object], device: torch.device | str) -> float:
    """How long a call takes, until the device has done all that it was asked for."""
    gpu = torch.device(device).type == "cuda"
    if gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start
