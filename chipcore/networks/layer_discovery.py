"""Layers of a network that nobody has described: the last feature map at every stride.

A map is offered where everything that decides the scores goes through it, so gating its channels leaves
nothing beside them: the output of a residual stage rather than a convolution inside the next one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from chipcore.errors import ChipError
from chipcore.gating import graph

_NOT_OFFERED = (nn.Dropout, nn.Identity, nn.Softmax)  # the same maps again, or the weights of an attention


def discover(model: nn.Module, size: int, name: str) -> tuple[tuple[str, str], ...]:
    """``(name, module path)`` of the last feature map at every stride, shallow to deep, named ``stride4`` and so on.

    Args:
        model: a classifier in eval mode for inputs (B, 3, size, size); it is run once and not changed.
        size: side of the input, in pixels.
        name: what to call the network in an error.

    Strides are rounded to powers of two. Maps of 1 x 1 pixel, and maps with a channel for every class
    (SqueezeNet's scores before pooling), are not offered. Raises ``ChipError`` where nothing is left.
    """
    example = torch.zeros(2, 3, size, size)
    try:
        traced = graph.trace(model)
        shapes = graph.values(traced, example)
    except Exception:  # fx reports what it can't trace by whatever exception comes up
        found, outputs, tokens = _by_hooks(model, example)
    else:
        found, outputs, tokens = _by_graph(traced, shapes)
    chosen: dict[int, str] = {}
    for path, shape in found:
        _batch, channels, height, width = shape
        if height != width or height < 2 or channels == outputs or (height == size and channels <= 3):
            continue  # unequal sides: tokens or channels last
        chosen[2 ** round(math.log2(size / height))] = path
    if not chosen:
        reason = f"gives tokens {tokens}, not feature maps, as a transformer does" if tokens else "has no feature maps"
        raise ChipError(f"{name} {reason}, so CHIP has no channels to gate; give a convolutional network.")
    return tuple((f"stride{stride}", path) for stride, path in sorted(chosen.items()))


Found = list[tuple[str, tuple[int, ...]]]


def _by_graph(traced: fx.GraphModule, shapes: dict[fx.Node, Any]) -> tuple[Found, int, str]:
    nodes = list(traced.graph.nodes)
    result = next(node for node in nodes if node.op == "output").args[0]
    outputs = shapes[result][-1] if isinstance(result, fx.Node) and isinstance(shapes[result], tuple) else 0
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    last: dict[str, fx.Node] = {}  # the node that ends each module
    for node in nodes:
        for path in _around(node):
            last[path] = node
    ends: dict[fx.Node, list[str]] = {}
    for path, node in last.items():
        # A module that is called twice (ResNet's ReLU) is no place of its own: the block around it is.
        if path and calls.get(path, 1) == 1 and not (path in calls and isinstance(traced.get_submodule(path), _NOT_OFFERED)):
            ends.setdefault(node, []).append(path)
    found: Found = []
    for node in nodes:
        shape = shapes.get(node)
        if node in ends and isinstance(shape, tuple) and len(shape) == 4 and shape[0] == 2:
            inside, side_inputs = graph.dependents(nodes, node, shapes)
            if result in inside and not side_inputs:
                found.append((max(ends[node], key=lambda path: path.count(".")), shape))  # the innermost: features.30, not features
    tokens = next((_said(shapes[n]) for n in reversed(nodes) if isinstance(shapes.get(n), tuple) and len(shapes[n]) == 3), "")
    return found, outputs, tokens


def _around(node: fx.Node) -> Iterator[str]:
    if node.op not in ("call_module", "call_function", "call_method"):
        return
    for entry in (node.meta.get("nn_module_stack") or {}).values():
        yield entry[0]
    if node.op == "call_module":
        yield str(node.target)


def _by_hooks(model: nn.Module, example: Tensor) -> tuple[Found, int, str]:
    """Without a graph: the outermost modules, in the order in which they finish."""
    seen: Found = []
    tokens: list[str] = []

    def note(path: str) -> Any:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 3:
                tokens.append(_said(output.shape))
            if isinstance(output, Tensor) and output.ndim == 4 and len(output) == len(example) and not isinstance(module, _NOT_OFFERED):
                seen.append((path, tuple(output.shape)))

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in model.named_modules() if path]
    try:
        with torch.inference_mode():
            result = model(example)
    finally:
        for handle in handles:
            handle.remove()
    depth: dict[int, int] = {}
    for path, shape in seen:
        depth[shape[-1]] = min(depth.get(shape[-1], 99), path.count("."))
    once = Counter(path for path, _shape in seen)
    found = [(path, shape) for path, shape in seen if path.count(".") == depth[shape[-1]] and once[path] == 1]
    return found, result.shape[-1] if isinstance(result, Tensor) else 0, tokens[-1] if tokens else ""


def _said(shape: Sequence[int]) -> str:
    return f"({' x '.join(str(one) for one in shape[1:])})"
