"""Suffixes that end with a map to the class scores: compute the classes that are asked for only.

A image adds to the moments of the classes whose f^c is above the cut-off: some ten of a thousand. Where
the last thing that mixes channels is a fully connected layer or a convolution with one output a class, the
other classes' outputs need not be computed. In SqueezeNet, which ends with a convolution over 13 x 13
positions, they are nearly all of the suffix's arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from chipcore.gating.linear_ops import linear

# What may follow: each output depends on one class's values. Whether it does is tried (``separates_classes``).
_MODULES = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Dropout, nn.Dropout2d, nn.Identity, nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Flatten)
_FUNCTIONS = (torch.flatten, torch.relu, functional.relu, functional.dropout, functional.adaptive_avg_pool2d, functional.avg_pool2d)
_METHODS = ("flatten", "mean", "squeeze", "contiguous")


class ClassHead(nn.Module):
    """The end of a suffix: ``body``, the map to the classes, and the ``tail`` behind it.

    Args:
        body: from the suffix's inputs to the map's input.
        mixing: the linear map or convolution, one output a class.
        tail: from the map's output to the scores, class by class.
    """

    def __init__(self, body: nn.Module, mixing: nn.Linear | nn.Conv2d, tail: nn.Module) -> None:
        super().__init__()
        self.body, self.mixing, self.tail = body, mixing, tail

    def forward(self, hidden: Tensor, *beside: Tensor, classes: Tensor | None = None) -> Tensor:
        """Scores (n, C), or (n, len(classes)) of some classes by index."""
        x = self.body(hidden, *beside)
        weight, bias = self.mixing.weight, self.mixing.bias
        if classes is not None:
            weight, bias = weight[classes], None if bias is None else bias[classes]
        if isinstance(self.mixing, nn.Linear):
            return self.tail(linear(x, weight, bias))
        return self.tail(functional.conv2d(x, weight, bias, self.mixing.stride, self.mixing.padding, self.mixing.dilation))


def detect_class_head(traced: fx.GraphModule, result: fx.Node) -> tuple[fx.Node, list[fx.Node]] | None:
    """The map to the classes that the scores ``result`` come from, and what follows it; or None."""
    tail: list[fx.Node] = []
    node = result
    while True:
        module: Any = traced.get_submodule(node.target) if node.op == "call_module" else None  # type: ignore[arg-type]
        if type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros"):
            return node, tail
        follows = (
            isinstance(module, _MODULES)
            or (node.op == "call_function" and node.target in _FUNCTIONS)
            or (node.op == "call_method" and node.target in _METHODS)
        )
        sources = node.all_input_nodes
        if not follows or len(sources) != 1 or len(sources[0].users) != 1:
            return None
        tail.insert(0, node)
        node = sources[0]


def separates_classes(tail: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether ``tail`` gives the same for some of the classes, of values of this shape (B, C, ...), as among all."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    some = torch.arange(0, shape[1], 3)
    try:
        whole, part = tail(values), tail(values[:, some])
    except Exception:  # a view to a fixed number of classes, say
        return False
    return whole.shape == shape[:2] and torch.equal(whole[:, some], part)
