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
from chipcore.gating.token_grid import Reshape, places_of
from chipcore.images import InputGeometry

_NOT_OFFERED = (nn.Dropout, nn.Identity, nn.Softmax)  # the same maps again, or the weights of an attention


def discover(model: nn.Module, geometry: InputGeometry | int, name: str, reshape: Reshape = None) -> tuple[tuple[str, str], ...]:
    """``(name, module path)`` of the last feature map at every stride, shallow to deep, named ``stride4`` and so on.

    Args:
        model: a classifier in eval mode; it is run once and not changed.
        geometry: of its input, or the side of a square of three channels, in pixels.
        name: what to call the network in an error.
        reshape: how layers that give tokens become maps, see :mod:`chipcore.gating.token_grid`.

    Strides are rounded to powers of two. Maps of 1 x 1 pixel, and maps with a channel for every class
    (SqueezeNet's scores before pooling), are not offered. Raises ``ChipError`` where nothing is left.
    """
    if isinstance(geometry, int):
        geometry = InputGeometry(size=geometry, resize=geometry, fit="squash")
    example = torch.zeros(1, geometry.channels, *geometry.shape)
    try:
        traced = graph.trace(model)
        values = graph.values(traced, example)
    except Exception:  # fx reports what it can't trace by whatever exception comes up
        found, outputs, tokens = _by_hooks(model, torch.cat([example, example]))
    else:
        found, outputs, tokens = _by_graph(traced, values)
    chosen: dict[int, str] = {}
    for path, shape in found:
        maps = _maps(shape, example.shape, reshape)
        if maps is None:
            continue
        channels, height, width = maps
        if min(height, width) < 2 or channels == outputs or ((height, width) == geometry.shape and channels <= 3):
            continue
        chosen[2 ** round(math.log2(max(geometry.shape) / max(height, width)))] = path
    if not chosen:
        reason = f"gives tokens {tokens}, not feature maps, as a transformer does" if tokens else "has no feature maps"
        advice = "; a map of its patches is had with reshape='tokens' (--tokens)" if tokens else ""
        raise ChipError(f"{name} {reason}, so CHIP has no channels to gate; give a convolutional network{advice}.")
    return tuple((f"stride{stride}", path) for stride, path in sorted(chosen.items()))


def _maps(shape: tuple[int, ...], images: Sequence[int], reshape: Reshape) -> tuple[int, int, int] | None:
    """Channels, height and width of the feature maps that an output (2, ...) gives; None where it gives none."""
    try:
        places = places_of(shape, images, reshape)
    except ChipError:  # the reshape is for other layers
        return None
    if places is not None:
        return places.shape[0], places.shape[1], places.shape[2]
    if len(shape) != 4 or abs(shape[2] * images[3] - shape[3] * images[2]) > (0 if images[2] == images[3] else max(images[2:])):
        return None  # tokens, or of another shape than the image
    return shape[1], shape[2], shape[3]


Found = list[tuple[str, tuple[int, ...]]]


def _by_graph(traced: fx.GraphModule, values: graph.Values) -> tuple[Found, int, str]:
    nodes = list(traced.graph.nodes)
    result = next(node for node in nodes if node.op == "output").args[0]
    outputs = (values[result].shape or (0,))[-1] if isinstance(result, fx.Node) else 0
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
        value = values.get(node)
        if node in ends and value is not None and value.shape is not None and len(value.shape) in (3, 4) and value.batched:
            inside, side_inputs = graph.dependents(nodes, node, values)
            if result in inside and not side_inputs:
                found.append((max(ends[node], key=lambda path: path.count(".")), value.shape))  # the innermost: features.30, not features
    shapes = (values[node].shape for node in reversed(nodes) if node in values)
    tokens = next((_said(shape) for shape in shapes if shape is not None and len(shape) == 3), "")
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
            if (
                isinstance(output, Tensor)
                and output.ndim in (3, 4)
                and len(output) == len(example)
                and not isinstance(module, _NOT_OFFERED)
            ):
                seen.append((path, tuple(output.shape)))

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in model.named_modules() if path]
    try:
        with torch.inference_mode():
            result = model(example)
    finally:
        for handle in handles:
            handle.remove()
    depth: dict[tuple[int, ...], int] = {}
    for path, shape in seen:
        depth[shape[2:]] = min(depth.get(shape[2:], 99), path.count("."))
    once = Counter(path for path, _shape in seen)
    found = [(path, shape) for path, shape in seen if path.count(".") == depth[shape[2:]] and once[path] == 1]
    return found, result.shape[-1] if isinstance(result, Tensor) else 0, tokens[-1] if tokens else ""


def _said(shape: Sequence[int]) -> str:
    return f"({' x '.join(str(one) for one in shape[1:])})"
