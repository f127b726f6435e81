"""oneDNN's matrix product against torch's linear map."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from chipcore.gating.linear_ops import FastLinear, linear


@pytest.mark.parametrize(("rows", "inner", "outer"), [(1, 1, 1), (3, 7, 5), (100, 512, 1000)])
@pytest.mark.parametrize("biased", [True, False])
def test_linear_is_the_product_in_float64(rows: int, inner: int, outer: int, biased: bool) -> None:
    source = torch.Generator().manual_seed(rows)
    x, weight = torch.randn(rows, inner, generator=source), torch.randn(outer, inner, generator=source)
    bias = torch.randn(outer, generator=source) if biased else None
    expected = x.double() @ weight.double().T + (bias.double() if bias is not None else 0)
    with torch.inference_mode():
        got = linear(x, weight, bias)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5 * inner**0.5)


def test_fast_linear_shares_the_weights_and_keeps_gradients() -> None:
    like = nn.Linear(6, 4)
    fast = FastLinear(like)
    assert fast.weight is like.weight and fast.bias is like.bias
    x = torch.randn(3, 6, requires_grad=True)
    [gradient] = torch.autograd.grad(fast(x).sum(), x)
    torch.testing.assert_close(gradient, like.weight.detach().sum(0).expand(3, 6))


def test_bfloat16_is_left_to_autocast() -> None:
    fast = FastLinear(nn.Linear(6, 4))
    x = torch.randn(3, 6)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert fast(x).dtype is torch.bfloat16
        assert torch.equal(fast(x), functional.linear(x, fast.weight, fast.bias))
