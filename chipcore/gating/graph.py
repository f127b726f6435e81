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
from dataclasses import dataclass
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
    graph.eliminate_dead_code()  # what no score comes from: other heads, say
    traced.recompile()
    return traced


def set_submodule(root: nn.Module, target: str, module: nn.Module) -> None:
    parent, _, name = target.rpartition(".")
    setattr(root.get_submodule(parent), name, module)


@dataclass(frozen=True)
class Value:
    """What a node gives.

    - ``shape``: of a tensor, for a batch of two; None for what is no tensor
    - ``batched``: the first axis of the tensor is the batch's
    - ``constant``: it does not depend on the input, at most on how many inputs there are
    - ``number``: of a number that is the same for every batch size
    - ``counts_batch``: it is the number of inputs
    """

    shape: tuple[int, ...] | None = None
    batched: bool = False
    constant: bool = False
    number: float | None = None
    counts_batch: bool = False


Values = dict[fx.Node, Value]
_BATCHES = (2, 3)  # a first axis of two may also be two classes: what is the batch's follows its size


def values(traced: fx.GraphModule, example: Tensor) -> Values:
    """What every node gives for inputs like ``example`` (1, channels, h, w), which is run in batches of two sizes.

    Tensors that do not depend on the input at all (a normalized classifier, say) are computed here once and for all: their nodes
    become attributes of ``traced``.
    """
    runs: list[dict[fx.Node, Any]] = [{}, {}]
    fixed = _without_input(traced)
    for size, seen in zip(_BATCHES, runs, strict=True):
        _Recorder(traced, seen, fixed).run(torch.cat([example] * size))
    found: Values = {}
    for node in traced.graph.nodes:
        if node.op == "output":
            continue
        first, second = (seen[node] for seen in runs)
        sources = [found[source] for source in node.all_input_nodes]
        constant = node.op != "placeholder" and all(one.constant or one.number is not None or one.counts_batch for one in sources)
        if isinstance(first, tuple) and first and first[0] is Tensor:
            batched = bool(first[1]) and first[1][0] * _BATCHES[1] == second[1][0] * _BATCHES[0]
            found[node] = Value(first[1], batched, constant)
        elif isinstance(first, int | float):
            found[node] = Value(None, False, constant, first if first == second else None, (first, second) == _BATCHES)
        else:
            found[node] = Value(None, False, constant)
    _fold(traced, fixed, *runs)
    return found


class _Recorder(fx.Interpreter):
    """Keeps numbers, the shapes of tensors, and the tensors that do not depend on the input."""

    def __init__(self, traced: fx.GraphModule, seen: dict[fx.Node, Any], fixed: frozenset[fx.Node]) -> None:
        super().__init__(traced)
        self._seen, self._fixed = seen, fixed

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self._seen[n] = (Tensor, tuple(result.shape), result if n in self._fixed else None)
        else:
            self._seen[n] = result if isinstance(result, bool | int | float) else None
        return result


def _without_input(traced: fx.GraphModule) -> frozenset[fx.Node]:
    """Nodes that no input leads to."""
    reached: set[fx.Node] = set()
    for node in traced.graph.nodes:
        if node.op == "placeholder" or any(source in reached for source in node.all_input_nodes):
            reached.add(node)
    return frozenset(node for node in traced.graph.nodes if node not in reached and node.op != "output")


def _fold(traced: fx.GraphModule, fixed: frozenset[fx.Node], first: dict[fx.Node, Any], second: dict[fx.Node, Any]) -> None:
    """Turn nodes whose tensor is the same in every run into attributes."""
    for number, node in enumerate(traced.graph.nodes):
        result = first.get(node)
        if node not in fixed or node.op == "get_attr" or not (isinstance(result, tuple) and result[0] is Tensor):
            continue
        if torch.equal(result[2], second[node][2]):  # noise is not
            name = f"_constant_{number}"
            traced.register_buffer(name, result[2].detach().clone(), persistent=False)
            node.op, node.target, node.args, node.kwargs = "get_attr", name, (), {}
    traced.recompile()


def peak(nodes: Sequence[fx.Node], found: Values) -> int:
    """Elements that the widest step reads and writes for one input."""

    def size(node: fx.Node) -> int:
        shape = found[node].shape
        return 0 if shape is None or node.op == "get_attr" else math.prod(shape) // _BATCHES[0]

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


def dependents(nodes: Sequence[fx.Node], at: fx.Node, found: Values) -> tuple[list[fx.Node], list[fx.Node]]:
    """The nodes of the suffix at ``at`` and the tensors that cross the cut beside its features.

    Numbers do not cross: ``build`` writes them in, since the suffix runs on another batch size. What is made of parameters alone
    does not either, but is part of the suffix.
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
            if source is at or source in inside or _is_number(found[source]):
                continue
            if found[source].constant or (found[source].shape is None and source.op != "placeholder"):
                inside.add(source)
                waiting.append(source)
            else:
                side_inputs[source] = None
    order = {node: position for position, node in enumerate(nodes)}
    return sorted(inside, key=order.__getitem__), sorted(side_inputs, key=order.__getitem__)


def _is_number(value: Value) -> bool:
    return value.number is not None or value.counts_batch


def build(
    root: fx.GraphModule, inputs: Sequence[fx.Node], body: Sequence[fx.Node], outputs: Any, found: Values | None = None
) -> fx.GraphModule:
    """A module from some nodes of a graph: from the values of ``inputs`` to those of ``outputs``.

    With ``found``, numbers that come from elsewhere are written in; the number of inputs is read off the first of ``inputs``.
    """
    graph = fx.Graph()
    made: dict[fx.Node, Any] = {node: graph.placeholder(f"value_{position}") for position, node in enumerate(inputs)}
    first = next(iter(made.values()))

    def known(source: fx.Node) -> Any:
        if source not in made and found is not None and _is_number(found[source]):
            made[source] = graph.call_method("size", (first, 0)) if found[source].counts_batch else found[source].number
        return made[source]

    for node in body:
        if node in made:
            continue
        args, kwargs = fx.map_arg((node.args, node.kwargs), known)
        made[node] = graph.create_node(node.op, node.target, args, kwargs, node.name, node.type)
    graph.output(fx.map_arg(outputs, known))
    module = fx.GraphModule(root, graph)
    module.graph.eliminate_dead_code()
    _fold_batch_norm(module)
    for node in module.graph.nodes:
        called = module.get_submodule(node.target) if node.op == "call_module" else None
        if type(called) is nn.Linear:  # a subclass may do something else
            set_submodule(module, node.target, FastLinear(called))
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
