"""c-MWP: contrastive marginal winning probability, or contrastive excitation backprop (Zhang et al. 2018).

A top-down signal P starts as 1 at the class and goes to the units below in proportion to how much each
excites the unit above (their Eq. 10):

    P(a_j) = sum_i P(a_i) a_j w_ji^+ / sum_k a_k w_ki^+

The contrastive signal is that of the class less that of its dual, a unit with the negated weights of the
network's top linear map. What both have in common cancels.

Their rule assumes activations of 0 or more. Where a layer's output is signed (linear bottlenecks, as in
EfficientNet-Lite) we take the positive part of each contribution a_j w_ji instead of a_j w_ji^+, which is the
same thing for a_j >= 0. Biases take no part, as in the paper.

It is computed on tensors, over a walk from the scores down the traced graph: nothing is patched and no weight
is changed. The rule of a layer f(x; w) needs only f and its transpose, P_j = a_j f^T(P / f(a; w^+); w^+).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from chipcore.errors import ChipError
from chipcore.methods.base import Explanation, MethodInputs, Properties, register
from chipcore.methods.traced_graph import Graph, graph_of, tensor_sources

_WEIGHTED = (nn.Conv2d, nn.Linear)
# One unit above for each unit below: the signal passes unchanged. So it does through batch norm, which scales
# a unit; what a negative scale means for the convolution before it is looked up in _weighted.
# Leaky rectifiers keep the sign and the order of a unit; what comes out negative is met by the rule for signed activations.
_SAME_MODULES = (nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.Hardtanh, nn.Dropout, nn.Dropout2d, nn.Identity, nn.BatchNorm2d)
_SAME_FUNCTIONS = (functional.leaky_relu, functional.relu, torch.relu, functional.relu6, functional.hardtanh, functional.dropout)
_SAME_METHODS = ("relu", "contiguous", "clone")
# Units that are moved, joined or picked: the signal goes to where the value came from.
_MOVE_MODULES = (nn.Flatten, nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d)
_MOVE_FUNCTIONS = (
    torch.flatten, torch.cat, torch.squeeze, functional.pad, functional.max_pool2d, torch.max_pool2d, functional.adaptive_max_pool2d,
)  # fmt: skip
_MOVE_METHODS = ("flatten", "view", "reshape", "squeeze")
# Sums with equal weights: the signal goes in proportion to the values.
_SUM_MODULES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_SUM_FUNCTIONS = (functional.avg_pool2d, functional.adaptive_avg_pool2d, torch.mean, operator.add, torch.add)
_SUM_METHODS = ("mean", "add")

Values = Mapping[fx.Node, Any]


@register(
    "cmwp", "c-MWP", "Zhang et al. 2018, contrastive excitation backprop",
    Properties(instance=("gradient",), class_discriminative=True, multi_layer=True), order=100, uses_layer=True,
    prepare=lambda network, layer: graph_of(network, "c-MWP"),
)  # fmt: skip
def cmwp(request: MethodInputs) -> Explanation:
    """The contrastive signal at the layer, summed over channels, shape (u, v); negative where the dual wins.

    One pass forward and one down. Raises ``ChipError`` for an operation that the rule is not defined for.
    """
    graph = graph_of(request.network, "c-MWP")
    at = graph.at(request.layer)
    values = graph.run(request.inputs)
    signal = contrastive(graph, values, request.target, at)
    return Explanation(signal[0].sum(0), passes=2)


def contrastive(graph: Graph, values: Values, target: int, at: fx.Node) -> Tensor:
    """The contrastive signal at a node, of the shape of its value."""
    start = torch.zeros_like(values[graph.result])
    start[0, target] = 1
    above, top = _above_the_top(graph, values)
    if at is top or at in above:
        raise ChipError("c-MWP begins at the network's top linear map, and this layer does not lie below it; choose an earlier layer.")
    # The dual unit has the top map's weights negated, so its output and all that is computed from it differ too.
    dual = {**values, top: -values[top]}
    for node in reversed(above):
        dual[node] = graph.compute(node, dual)
    (source,) = tensor_sources(top, values)
    won, lost = (
        _weighted(graph, top, _walk(graph, known, {graph.result: start}, top), values[source], sign)
        for known, sign in ((values, 1.0), (dual, -1.0))
    )
    return _walk(graph, values, {source: won - lost}, at)  # the rule is linear in P, so the difference goes down as one


def _above_the_top(graph: Graph, values: Values) -> tuple[list[fx.Node], fx.Node]:
    """The nodes from the scores down to the top linear map, and that map."""
    above: list[fx.Node] = []
    node = graph.result
    while not isinstance(graph.submodule(node), _WEIGHTED):
        sources = tensor_sources(node, values)
        if len(sources) != 1 or node.op == "placeholder":
            raise ChipError("c-MWP needs a network whose scores come from one linear map or convolution; use Grad-CAM.")
        above.append(node)
        node = sources[0]
    return above, node


def _walk(graph: Graph, values: Values, signals: dict[fx.Node, Tensor], stop: fx.Node) -> Tensor:
    """Carry signals from nodes down to ``stop``; what passes by it is left where it is."""
    for node in reversed(graph.nodes):
        if node is stop:
            break
        if node not in signals or node.op in ("placeholder", "get_attr"):
            continue
        for source, share in _shares(graph, node, signals.pop(node), values):
            signals[source] = signals[source] + share if source in signals else share
    if stop not in signals:
        return torch.zeros_like(values[stop])
    return signals[stop]


def _shares(graph: Graph, node: fx.Node, signal: Tensor, values: Values) -> list[tuple[fx.Node, Tensor]]:
    """What each tensor that a node works on gets of the node's signal."""
    module, sources = graph.submodule(node), tensor_sources(node, values)

    def one_of(modules: tuple[type, ...], functions: tuple[Any, ...], methods: tuple[str, ...]) -> bool:
        return (
            isinstance(module, modules)
            or (node.op == "call_function" and node.target in functions)
            or (node.op == "call_method" and node.target in methods)
        )

    if isinstance(module, _WEIGHTED):
        return [(sources[0], _weighted(graph, node, signal, values[sources[0]]))]
    if one_of(_SAME_MODULES, _SAME_FUNCTIONS, _SAME_METHODS) and len(sources) == 1:
        return [(sources[0], signal)]
    if one_of(_MOVE_MODULES, _MOVE_FUNCTIONS, _MOVE_METHODS):
        _out, back = _transpose(graph, node, values, {source: values[source] for source in sources})
        return list(zip(sources, back(signal), strict=True))
    if one_of(_SUM_MODULES, _SUM_FUNCTIONS, _SUM_METHODS) and sources:
        positive = {source: values[source].clamp(min=0) for source in sources}
        total, back = _transpose(graph, node, values, positive)
        return [(source, positive[source] * share) for source, share in zip(sources, back(_over(signal, total)), strict=True)]
    name = type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))
    raise ChipError(f"c-MWP has no rule for {name}, which lies between this layer and the scores; use Grad-CAM or a deeper layer.")


def _transpose(
    graph: Graph, node: fx.Node, values: Values, at: dict[fx.Node, Tensor]
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
    """A node's value at some sources' values, and the transpose of its derivative there."""
    with torch.enable_grad():
        leaves = {source: value.detach().requires_grad_() for source, value in at.items()}
        out = graph.compute(node, {**values, **leaves})
    return out.detach(), lambda signal: torch.autograd.grad(out, list(leaves.values()), signal)


def _weighted(graph: Graph, node: fx.Node, signal: Tensor, below: Tensor, sign: float = 1.0) -> Tensor:
    """The rule of a convolution or linear map with its weights times ``sign``, for activations ``below``."""
    module = graph.submodule(node)
    assert isinstance(module, _WEIGHTED)
    weight = module.weight * sign * _scale_signs(graph, node)
    # The positive part of a w is a^+ w^+ + a^- w^-; the second pair is empty where activations are 0 or more.
    pairs = [(below.clamp(min=0), weight.clamp(min=0))]
    if bool((below < 0).any()):
        pairs.append(((-below).clamp(min=0), (-weight).clamp(min=0)))
    leaves, total = [], torch.zeros_like(signal)
    with torch.enable_grad():
        for a, w in pairs:
            leaf = a.detach().requires_grad_()
            out = functional.linear(leaf, w) if isinstance(module, nn.Linear) else module._conv_forward(leaf, w, None)
            leaves.append(leaf)
            total = total + out
        back = torch.autograd.grad(total, leaves, _over(signal, total.detach()))
    return torch.stack([a * share for (a, _w), share in zip(pairs, back, strict=True)]).sum(0)


def _scale_signs(graph: Graph, node: fx.Node) -> Tensor | float:
    """-1 for the channels that a batch norm right behind turns round, for the folded weights decide what excites.

    How large the scale is does not matter: the rule divides by it again.
    """
    users = list(node.users)
    norm = graph.submodule(users[0]) if len(users) == 1 else None
    if not isinstance(norm, nn.BatchNorm2d) or norm.weight is None:
        return 1.0
    return torch.where(norm.weight < 0, -1.0, 1.0).view(-1, 1, 1, 1)


def _over(signal: Tensor, total: Tensor) -> Tensor:
    """signal / total; 0 where nothing excites a unit, so that its signal ends there."""
    known = total > 1e-12 * total.max()
    return torch.where(known, signal / torch.where(known, total, 1), 0)
