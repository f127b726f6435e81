"""A network cut at its layers: one trunk that is run once a image, one suffix a layer.

The trunk gives the scores, the features A of every chosen layer and whatever else crosses each cut (the
other branch of a residual block, say). A suffix holds only what depends on its layer's features, so a
gated network (Eq. 1) costs the suffix and nothing before it.

The graph comes from ``torch.fx``. A network that fx cannot trace is run whole for every gate, with a
warning; results are the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from chipcore.errors import ChipError, UnknownName
from chipcore.gating import class_head as head_of
from chipcore.gating import graph
from chipcore.gating import linear_front as front_of
from chipcore.gating.class_head import ClassHead
from chipcore.gating.fallback import cut_by_hooks
from chipcore.gating.linear_front import LinearFront
from chipcore.gating.linear_ops import FastLinear
from chipcore.gating.suffix import WIDENED, Activations, Suffix, why_no_feature_maps


class SplitModel:
    """A model cut at several layers.

    Args:
        model: a classifier in eval mode that maps (B, 3, h, w) to (B, C). It is read, never changed.
        paths: dotted module paths of the layers.
        example: one input, shape (1, 3, h, w); run once to learn shapes.

    Raises:
        ChipError: a path that does not exist, is not used, or does not give feature maps (B, K, u, v).
    """

    def __init__(self, model: nn.Module, paths: Sequence[str], example: Tensor) -> None:
        self.paths = tuple(paths)
        modules = dict(model.named_modules())
        for path in self.paths:
            if path not in modules or path == "":
                raise UnknownName("module", path, [name for name in modules if name])
        self.traced = True
        self.peak = WIDENED * example.numel()  # elements that the widest step of the trunk reads and writes for one image
        try:
            traced = graph.trace(model)
            values = graph.values(traced, torch.cat([example, example]))
        except ChipError:
            raise
        except Exception as error:  # fx reports what it can't trace by whatever exception comes up
            self.traced = False
            warnings.warn(
                f"{type(model).__name__} cannot be traced ({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
                "every gate costs a full pass",
                stacklevel=2,
            )
            self._trunk, self.suffixes = cut_by_hooks(model, self.paths, example)
        else:
            self._trunk, self.suffixes = _cut_graph(traced, values, self.paths)
            self.peak = graph.peak([node for node in traced.graph.nodes if node.op != "output"], values)

    def forward_prefix(self, images: Tensor) -> Activations:
        """One pass over images (B, 3, h, w) that keeps what every cut needs."""
        scores, per_layer = self._trunk(images)
        return Activations(
            scores,
            {path: values[0] for path, values in zip(self.paths, per_layer, strict=True)},
            {path: tuple(values[1:]) for path, values in zip(self.paths, per_layer, strict=True)},
        )


def _cut_graph(traced: fx.GraphModule, shapes: dict[fx.Node, Any], paths: Sequence[str]) -> tuple[fx.GraphModule, dict[str, Suffix]]:
    nodes = list(traced.graph.nodes)
    result = next(node for node in nodes if node.op == "output").args[0]
    if not isinstance(result, fx.Node):
        raise ChipError("the network returns more than one value; give one that returns its class scores only.")
    suffixes: dict[str, Suffix] = {}
    leaving: list[list[fx.Node]] = []
    inputs = [node for node in nodes if node.op == "placeholder"]
    for path in paths:
        at = graph.last_node_inside(nodes, path, traced)
        if at is None:
            raise ChipError(f"layer {path!r} takes no part in the network's forward pass; choose another.")
        refused = why_no_feature_maps(shapes[at] if shapes[at] is not graph.NotATensor else None, shapes[inputs[0]])
        if refused:
            raise ChipError(f"layer {path!r} gives {refused}, so CHIP has no channels to gate there.")
        inside, side_inputs = graph.dependents(nodes, at, shapes)
        if result not in inside and result is not at:
            raise ChipError(f"the scores do not depend on layer {path!r}; choose another.")
        suffixes[path] = _build_suffix(traced, shapes, at, side_inputs, inside, result, path)
        leaving.append([at, *side_inputs])
    body = [node for node in nodes if node.op not in ("placeholder", "output")]
    return graph.build(traced, inputs, body, (result, [tuple(values) for values in leaving])), suffixes


def _build_suffix(
    traced: fx.GraphModule, shapes: dict[fx.Node, Any], at: fx.Node, side_inputs: Sequence[fx.Node], inside: Sequence[fx.Node],
    result: fx.Node, path: str,
) -> Suffix:  # fmt: skip
    front, start, rest = None, at, list(inside)
    found = front_of.detect_linear_front(traced, at, inside)
    if found is not None:
        chain, linear = found
        flatten = graph.build(traced, [at], chain, chain[-1])
        features = torch.randn(shapes[at], generator=torch.Generator().manual_seed(0)).to(next(traced.parameters()))
        with torch.inference_mode():
            separate = front_of.separates_channels(flatten, features)
        if separate:
            start, rest = linear, [node for node in inside if node not in chain and node is not linear]
            front = LinearFront(flatten, FastLinear(cast(nn.Linear, traced.get_submodule(cast(str, linear.target)))), shapes[at][1])
    module: nn.Module = graph.build(traced, [start, *side_inputs], rest, result)
    front_is_head = False
    ending = head_of.detect_class_head(traced, result)
    if ending is not None and ending[0] in (*rest, start):
        mixing, after = ending
        tail = graph.build(traced, [mixing], after, result)
        if head_of.separates_classes(tail, shapes[mixing]):
            front_is_head = mixing is start
            if not front_is_head:
                before = cast(fx.Node, mixing.args[0])
                body = graph.build(
                    traced, [start, *side_inputs], [node for node in rest if node is not mixing and node not in after], before
                )
                module = ClassHead(body, cast(Any, traced.get_submodule(cast(str, mixing.target))), tail)
    # A value without the batch as its first axis (a table made on the way, say) is not repeated.
    batched = tuple(shapes[node][:1] == (2,) for node in side_inputs)
    return Suffix(path, module, batched, graph.peak([at, *inside] if front is None else inside, shapes), front, front_is_head)
