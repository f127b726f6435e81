"""CAM (Zhou et al. 2016): for networks that end in global average pooling and one linear map."""

from __future__ import annotations

from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from chipcore.errors import ChipError
from chipcore.maps import chip_map
from chipcore.methods.base import Explanation, MethodInputs, Properties, register
from chipcore.methods.traced_graph import Graph, graph_of, tensor_sources
from chipcore.networks.network import Network

# What may stand between the last features and the scores, besides the pooling itself, which is tried out below.
_PASS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity)
_PASS_FUNCTIONS = (torch.flatten, functional.adaptive_avg_pool2d, functional.avg_pool2d, functional.dropout, torch.mean, torch.squeeze)
_PASS_METHODS = ("flatten", "mean", "view", "reshape", "squeeze", "contiguous")

# The features' node by model, or None where the network's head is another; found out once.
_heads: WeakKeyDictionary[nn.Module, tuple[fx.Node, nn.Linear | None] | None] = WeakKeyDictionary()
_lock = Lock()


@register(
    "cam", "CAM", "Zhou et al. 2016", Properties(instance=("gradient",), class_discriminative=True, post_hoc=False, row="CAM"), order=110,
    prepare=lambda network, layer: graph_of(network, "CAM"),
)  # fmt: skip
def cam(request: MethodInputs) -> Explanation:
    """sum_k w_c^k A_k with the classifier's own weights and the features that are pooled; the bias is left out.

    The layer is given by the network. In a network whose pooled features are the class scores themselves
    (SqueezeNet, Network in Network) the map is that of the class's own channel. One pass.
    """
    graph = graph_of(request.network, "CAM")
    with _lock:
        if request.network.model not in _heads:
            _heads[request.network.model] = _find_head(graph, request.inputs)
        head = _heads[request.network.model]
    if head is None:
        raise ChipError(
            f"CAM needs a network that ends in global average pooling and one linear map, and {request.network.name} does not; use Grad-CAM."
        )
    node, linear = head
    features = graph.run(request.inputs)[node][0]
    return Explanation(chip_map(linear.weight[request.target], features) if linear else features[request.target].clone(), passes=1)


def _find_head(graph: Graph, inputs: Tensor) -> tuple[fx.Node, nn.Linear | None] | None:
    """The node of the pooled features and the linear map after the pooling; tried, not believed."""
    values = graph.run(inputs)
    node, linear = graph.result, None
    chain: list[fx.Node] = []
    while values[node].ndim != 4 or values[node].shape[-2:] == (1, 1):
        module = graph.submodule(node)
        passes = (
            isinstance(module, _PASS)
            or (node.op == "call_function" and node.target in _PASS_FUNCTIONS)
            or (node.op == "call_method" and node.target in _PASS_METHODS)
        )
        if isinstance(module, nn.Linear) and linear is None and values[module_source(node)].ndim == 2:
            linear = module
        elif not passes:
            return None
        chain.append(node)
        if len(tensor_sources(node, values)) != 1:
            return None
        node = module_source(node)
    # Random features in place of the image's: what follows must be their mean and the linear map, no more.
    tried = dict(values)
    features = torch.randn(values[node].shape, generator=torch.Generator().manual_seed(0)).to(values[node])
    tried[node] = features
    for one in reversed(chain):
        tried[one] = graph.compute(one, tried)
    pooled = features.mean((2, 3))
    if linear is not None and linear.in_features != pooled.shape[1]:
        return None
    expected = functional.linear(pooled, linear.weight, linear.bias) if linear else pooled
    same = tried[graph.result].shape == expected.shape and torch.allclose(tried[graph.result], expected, rtol=1e-3, atol=1e-4)
    return (node, linear) if same else None


def module_source(node: fx.Node) -> fx.Node:
    """The first of the nodes that a node works on."""
    return node.all_input_nodes[0]


def has_cam_head(network: Network) -> bool:
    """Whether CAM can explain this network."""
    try:
        graph = graph_of(network, "CAM")
    except ChipError:
        return False
    with torch.inference_mode(False), torch.no_grad():
        return _find_head(graph, network.example) is not None
