"""Graphs of networks, from ``torch.fx``: traced without side effects, and taken apart.

In-place operations are replaced by out-of-place ones in our own graph, and batch norm is folded there; the
caller's model is never touched.
"""

from __future__ import annotations

import copy
import math
import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from chipcore.gating.linear_ops import FastLinear

# In-place operators that fx records as functions, and what they do out of place.
_OUT_OF_PLACE = {
    operator.iadd: operator.add, operator.imul: operator.mul, operator.isub: operator.sub, operator.itruediv: operator.truediv,
}  # fmt: skip

_TRACING = threading.Lock()


class _Tracer(fx.Tracer):
    """Traces for its own thread alone.

    While it traces, ``fx.Tracer`` replaces ``nn.Module.__call__`` and ``__getattr__`` for the whole process;
    a visitor whose network runs at that moment would end up in our graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def trace(model: nn.Module) -> fx.GraphModule:
    """The model's graph with in-place operations made out of place; shares the model's weights, changes nothing of it.

    Raises whatever ``torch.fx`` raises for a model that it cannot trace.
    """
    with _TRACING:  # two traces at once would restore each other's replacements
        graph = _Tracer().trace(model)
    traced = fx.GraphModule(model, graph)
    order = {node: position for position, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        changes = False  # whether it changed its input in place
        if node.op == "call_module":
            module = traced.get_submodule(node.target)
            # A rectifier that is called a second time has been replaced the first time.
            changes = getattr(model.get_submodule(node.target), "inplace", False)
            if getattr(module, "inplace", False):
                replacement = copy.copy(module)
                replacement.inplace = False  # type: ignore[assignment]
                set_submodule(traced, node.target, replacement)
        elif node.op == "call_function":
            node.target = _OUT_OF_PLACE.get(node.target, node.target)
            if node.kwargs.get("inplace"):
                changes = True
                node.kwargs = {**node.kwargs, "inplace": False}
        elif node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__"):
            changes = True
            node.target = node.target[:-1]
        if changes and node.args and isinstance(node.args[0], fx.Node):
            # Whoever reads the input afterwards reads what was made of it: a network may drop what y.relu_() returns.
            here = order[node]

            def later(user: fx.Node, here: int = here) -> bool:
                return order[user] > here

            node.args[0].replace_all_uses_with(node, delete_user_cb=later)
    traced.recompile()
    return traced


def set_submodule(root: nn.Module, target: str, module: nn.Module) -> None:
    parent, _, name = target.rpartition(".")
    setattr(root.get_submodule(parent), name, module)


def values(traced: fx.GraphModule, images: Tensor) -> dict[fx.Node, Any]:
    """For every node its value's shape (tensors) or the value itself, for a batch of two."""
    seen: dict[fx.Node, Any] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            seen[n] = tuple(result.shape) if isinstance(result, Tensor) else NotATensor
            return result

    with torch.inference_mode():
        Recorder(traced).run(images)
    return seen


class NotATensor:
    """Marks a node whose value is a number, a shape or a tuple."""


def peak(nodes: Sequence[fx.Node], shapes: dict[fx.Node, Any]) -> int:
    def size(node: fx.Node) -> int:
        return 0 if shapes[node] is NotATensor or node.op == "get_attr" else math.prod(shapes[node]) // 2

    return max(size(node) + sum(size(source) for source in node.all_input_nodes) for node in nodes)


def last_node_inside(nodes: Sequence[fx.Node], path: str, traced: fx.GraphModule) -> fx.Node | None:
    """The node that computes a module's output; a container's is the last node inside it."""
    found = None
    for node in nodes:
        stack = node.meta.get("nn_module_stack") or {}
        inside = any(entry[0] == path for entry in stack.values())
        if node.op in ("call_module", "call_function", "call_method") and (inside or node.target == path):
            found = node
    return found


def dependents(nodes: Sequence[fx.Node], at: fx.Node, shapes: dict[fx.Node, Any]) -> tuple[list[fx.Node], list[fx.Node]]:
    """The nodes of the suffix at ``at`` and the tensors that cross the cut beside its features.

    Shapes and numbers are not carried but computed again inside, since the suffix runs on another batch
    size; so are parameters, which cost nothing.
    """
    inside = {at}
    for node in nodes:
        if node.op != "output" and any(source in inside for source in node.all_input_nodes):
            inside.add(node)
    inside.discard(at)
    side_inputs: dict[fx.Node, None] = {}
    waiting = list(inside)
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source is at or source in inside:
                continue
            if source.op == "get_attr" or (shapes[source] is NotATensor and source.op != "placeholder"):
                inside.add(source)
                waiting.append(source)
            else:
                side_inputs[source] = None
    order = {node: position for position, node in enumerate(nodes)}
    return sorted(inside, key=order.__getitem__), sorted(side_inputs, key=order.__getitem__)


def build(root: fx.GraphModule, inputs: Sequence[fx.Node], body: Sequence[fx.Node], outputs: Any) -> fx.GraphModule:
    graph = fx.Graph()
    made = {node: graph.placeholder(f"value_{position}") for position, node in enumerate(inputs)}
    for node in body:
        made[node] = graph.node_copy(node, lambda source: made[source])
    graph.output(fx.map_arg(outputs, lambda source: made[source]))
    module = fx.GraphModule(root, graph)
    module.graph.eliminate_dead_code()
    _fold_batch_norm(module)
    for node in module.graph.nodes:
        found = module.get_submodule(node.target) if node.op == "call_module" else None
        if type(found) is nn.Linear:  # a subclass may do something else
            set_submodule(module, node.target, FastLinear(found))
    return module


def _fold_batch_norm(module: fx.GraphModule) -> None:
    """Fold every batch norm that directly follows a convolution into it (on our graph only)."""
    for node in list(module.graph.nodes):
        if node.op != "call_module" or not isinstance(module.get_submodule(node.target), nn.BatchNorm2d):
            continue
        source = node.args[0]
        alone = isinstance(source, fx.Node) and source.op == "call_module" and len(source.users) == 1
        if not alone or not isinstance(module.get_submodule(source.target), nn.Conv2d):
            continue
        norm = cast(nn.BatchNorm2d, module.get_submodule(node.target))
        if norm.running_mean is None or sum(other.target == source.target for other in module.graph.nodes) > 1:
            continue  # a shared convolution, or a norm without running statistics
        fused = fuse_conv_bn_eval(cast(nn.Conv2d, module.get_submodule(source.target)), norm)
        set_submodule(module, source.target, fused)
        node.replace_all_uses_with(source)
        module.graph.erase_node(node)
    module.delete_all_unused_submodules()
    module.recompile()
