"""Fully connected layers by oneDNN's matrix product.

torch sends float32 products of two matrices to MKL, which on other makers' processors reaches two thirds of
what oneDNN does (131 to 180 against 200 to 214 GFLOP/s for VGG16's 4096 x 4096 on an EPYC, ``bench fit``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class FastLinear(nn.Linear):
    """``nn.Linear`` with the weights of another one; results differ by rounding only."""

    def __init__(self, like: nn.Linear) -> None:
        # nn.Linear's own constructor would make and fill weights that nobody wants.
        nn.Module.__init__(self)
        self.in_features, self.out_features = like.in_features, like.out_features
        self.weight, self.bias = like.weight, like.bias
        self.training = like.training

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (n, in) times the transpose of weight (out, in), plus bias (out,), shape (n, out)."""
    # oneDNN's operator has no gradient and takes no part in autocast.
    plain = x.device.type == "cpu" and x.dtype is weight.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    if _ONEDNN and plain and not torch.is_grad_enabled():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return functional.linear(x, weight, bias)
