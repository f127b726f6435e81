"""Suffixes that begin with a linear map: gate the contributions of the channels, not the features.

Where the first thing that mixes channels is a fully connected layer (VGG16's pool5, or global pooling and
a classifier), its output is a sum over channels, y = b + sum_k d_k (V_k A_k). The terms V_k A_k do not
depend on the gates, so they are computed once a image and N gates cost one N x K by K x O product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from chipcore.gating.linear_ops import linear

# What may stand between the gate and the linear map: each output depends on one channel, linearly, without offset.
_MODULES = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Dropout, nn.Dropout2d, nn.Identity, nn.Flatten)
_FUNCTIONS = (torch.flatten, functional.adaptive_avg_pool2d, functional.avg_pool2d, functional.dropout)
_METHODS = ("flatten", "contiguous")


class LinearFront(nn.Module):
    """The part of a suffix up to and including its first linear map.

    Args:
        flatten: features (B, K, u, v) to (B, K * m), channel by channel.
        linear: the linear map that follows.
        channels: K.
    """

    def __init__(self, flatten: nn.Module, linear: nn.Linear, channels: int) -> None:
        super().__init__()
        self.flatten, self.linear = flatten, linear
        # Elements of one image's contributions.
        self.size = channels * (1 if linear.in_features == channels else linear.out_features)

    def contributions(self, features: Tensor) -> Tensor:
        """Pooled features (B, K) where m is 1, else each channel's share of the linear map, (B, K, O)."""
        K = features.shape[1]
        flat = self.flatten(features)
        if flat.shape[1] == K:
            return flat
        weight = self.linear.weight.unflatten(1, (K, -1))
        return torch.einsum("bkm,okm->bko", flat.unflatten(1, (K, -1)), weight)

    def gated(self, contributions: Tensor, gates: Tensor, outputs: Tensor | None = None) -> Tensor:
        """The linear map's output under gates (B, N, K), shape (B * N, O), or (B * N, len(outputs)) of some by index."""
        bias = self.linear.bias if outputs is None or self.linear.bias is None else self.linear.bias[outputs]
        if contributions.ndim == 2:
            weight = self.linear.weight if outputs is None else self.linear.weight[outputs]
            return linear((gates * contributions[:, None]).flatten(0, 1), weight, bias)
        hidden = (gates @ (contributions if outputs is None else contributions[:, :, outputs])).flatten(0, 1)
        return hidden if bias is None else hidden + bias


def detect_linear_front(traced: fx.GraphModule, at: fx.Node, inside: Sequence[fx.Node]) -> tuple[list[fx.Node], fx.Node] | None:
    """The chain from a gated node to the linear map that alone uses it, and that map; or None."""
    chain: list[fx.Node] = []
    node = at
    while True:
        users = [user for user in node.users if user in inside]
        if len(users) != 1 or (users[0].all_input_nodes != [node]):
            return None
        node = users[0]
        module: Any = traced.get_submodule(node.target) if node.op == "call_module" else None  # type: ignore[arg-type]
        if isinstance(module, nn.Linear):
            return (chain, node) if chain else None
        passes = (
            isinstance(module, _MODULES)
            or (node.op == "call_function" and node.target in _FUNCTIONS)
            or (node.op == "call_method" and node.target in _METHODS)
        )
        if not passes:
            return None
        chain.append(node)


def separates_channels(flatten: nn.Module, features: Tensor) -> bool:
    """Whether gating before ``flatten`` is the same as gating its blocks of m values; tried, not believed."""
    flat = flatten(features)
    if flat.ndim != 2 or flat.shape[1] % features.shape[1]:
        return False
    open_gates = torch.arange(features.shape[1], device=features.device) % 2 == 0
    gates = open_gates.to(features)
    block = flat.shape[1] // features.shape[1]
    return torch.equal(flatten(features * gates[None, :, None, None]), flat * gates.repeat_interleave(block))
