"""A network's graph, for the methods that walk through it node by node."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

from chipcore.errors import ChipError
from chipcore.gating.graph import last_node_inside, trace
from chipcore.networks.network import Layer, Network

_graphs: WeakKeyDictionary[nn.Module, Graph] = WeakKeyDictionary()
_lock = threading.Lock()


class Graph:
    """The traced graph of a model; shares its weights, keeps nothing of a run."""

    def __init__(self, module: fx.GraphModule, layout: torch.memory_format = torch.channels_last) -> None:
        self.module, self._layout = module, layout
        self.nodes: tuple[fx.Node, ...] = tuple(module.graph.nodes)
        result = next(node for node in self.nodes if node.op == "output").args[0]
        if not isinstance(result, fx.Node):
            raise ChipError("the network returns more than one value; give one that returns its class scores only.")
        self.result = result
        self._runner = fx.Interpreter(module, garbage_collect_values=False)

    def run(self, inputs: Tensor) -> dict[fx.Node, Any]:
        """The value of every node for inputs (B, 3, h, w)."""
        runner = fx.Interpreter(self.module, garbage_collect_values=False)  # a runner holds its values: one a call
        runner.run(inputs.contiguous(memory_format=self._layout))
        return dict(runner.env)

    def compute(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        """The value of one node, given those of its sources."""
        args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        return getattr(self._runner, node.op)(node.target, args, kwargs)

    def submodule(self, node: fx.Node) -> nn.Module | None:
        return self.module.get_submodule(str(node.target)) if node.op == "call_module" else None

    def at(self, layer: Layer) -> fx.Node:
        """The node that gives a layer's features."""
        node = last_node_inside(self.nodes, layer.path, self.module)
        if node is None:
            raise ChipError(f"layer {layer.name!r} takes no part in the network's forward pass; choose another.")
        return node


def graph_of(network: Network, method: str) -> Graph:
    """The network's graph, traced once; raises ``ChipError`` for a network that can't be traced."""
    with _lock:
        if network.model not in _graphs:
            try:
                with torch.inference_mode(False):
                    _graphs[network.model] = Graph(trace(network.model), network.cutting.layout)
            except ChipError:
                raise
            except Exception as error:  # fx reports what it can't trace by whatever exception comes up
                raise ChipError(
                    f"{method} needs the network's graph, and {network.name} cannot be traced; use Grad-CAM or CHIP."
                ) from error
        return _graphs[network.model]


def tensor_sources(node: fx.Node, values: Mapping[fx.Node, Any]) -> list[fx.Node]:
    """The nodes whose tensors of floats a node works on, without parameters and constants."""
    return [
        source
        for source in node.all_input_nodes
        if source.op != "get_attr" and isinstance(values[source], Tensor) and values[source].is_floating_point()
    ]
