"""A network cut at its layers: one prefix that is run once an image, one suffix a layer.

The prefix gives the scores, the features A of every chosen layer and whatever else crosses each cut (the
other branch of a residual block, say). A suffix holds only what depends on its layer's features, so a
gated network (Eq. 1) costs the suffix and nothing before it.

The graph comes from ``torch.fx``. Every cut is compared once with a full pass in which a hook closes the same channels. A network
that fx cannot trace, or whose cut gives anything else, is run whole for every gate, with a warning; results are the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from chipcore.errors import ChipError, UnknownName
from chipcore.gating import class_head as head_of
from chipcore.gating import graph
from chipcore.gating import linear_front as front_of
from chipcore.gating.class_head import ClassHead
from chipcore.gating.fallback import HookedModel, cut_by_hooks
from chipcore.gating.linear_front import LinearFront
from chipcore.gating.linear_ops import FastLinear
from chipcore.gating.suffix import WIDENED, Activations, Suffix, why_no_feature_maps
from chipcore.gating.token_grid import FromMaps, Reshape, ToMaps, places_of


class ModelGraph:
    """A model's graph, traced once for all the cuts that are made of it, and which of them have been checked.

    Args:
        model: a classifier in eval mode.
        example: one input, shape (1, channels, h, w); run in batches of two sizes to see what follows the batch.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.checked: set[str] = set()
        self.failure = ""  # why there is no graph
        self.maps: dict[str, fx.Node] = {}  # nodes of feature maps that were put in, by layer
        try:
            self.module = graph.trace(model)
            self.values = graph.values(self.module, example)
        except ChipError:
            raise
        except Exception as error:  # fx reports what it can't trace by whatever exception comes up
            self.failure = str(error).splitlines()[0] if str(error) else type(error).__name__

    def features(self, path: str, images: Sequence[int], reshape: Reshape) -> fx.Node:
        """The node that gives a layer's feature maps; ``ChipError`` where there are none."""
        nodes = list(self.module.graph.nodes)
        if path in self.maps:
            return self.maps[path]
        at = graph.last_node_inside(nodes, path, self.module)
        if at is None:
            raise ChipError(f"layer {path!r} takes no part in the network's forward pass; choose another.")
        shape = self.values[at].shape
        places = places_of(shape, images, reshape) if shape is not None else None
        if places is None:
            refused = why_no_feature_maps(shape, images)
            if refused:
                raise ChipError(f"layer {path!r} gives {refused}, so CHIP has no channels to gate there.")
            return at
        self.maps[path] = self._insert_maps(at, cast(tuple[int, ...], shape), places)
        return self.maps[path]

    def _insert_maps(self, at: fx.Node, shape: tuple[int, ...], places: Tensor) -> fx.Node:
        """Turn a node's tokens to maps and back behind it; what follows sees no difference."""
        number = len(self.maps)
        device = next((one.device for one in self.module.parameters()), torch.device("cpu"))
        back_of = FromMaps(places, shape[1:]).to(device)
        self.module.add_submodule(f"_to_maps_{number}", ToMaps(places).to(device))
        self.module.add_submodule(f"_from_maps_{number}", back_of)
        with self.module.graph.inserting_after(at):
            maps = self.module.graph.call_module(f"_to_maps_{number}", (at,))
        with self.module.graph.inserting_after(maps):
            back = self.module.graph.call_module(f"_from_maps_{number}", (maps,) if back_of.complete else (maps, at))
        at.replace_all_uses_with(back, delete_user_cb=lambda user: user not in (maps, back))
        batched, constant = self.values[at].batched, self.values[at].constant
        self.values[maps] = graph.Value((shape[0], *places.shape), batched, constant)
        self.values[back] = graph.Value(shape, batched, constant)
        self.module.recompile()
        return maps


@dataclass(frozen=True)
class CutOptions:
    """How a model is cut.

    - ``layout``: the memory format that the model runs with
    - ``reshape``: how layers that give tokens become maps, see :mod:`chipcore.gating.token_grid`
    - ``check``: whether a cut is compared with full passes; not where the model never gives the same answer twice
    """

    layout: torch.memory_format = field(default=torch.channels_last)
    reshape: Reshape = None
    check: bool = True


class SplitModel:
    """A model cut at several layers.

    Args:
        model: a classifier in eval mode that maps (B, channels, h, w) to (B, C). It is read, never changed.
        paths: dotted module paths of the layers.
        example: one input, shape (1, channels, h, w); run to learn shapes.
        traced: the model's graph, where it is at hand.
        options: see :class:`CutOptions`.

    Raises:
        ChipError: a path that does not exist, is not used, or does not give feature maps (B, K, u, v).
    """

    def __init__(
        self, model: nn.Module, paths: Sequence[str], example: Tensor, traced: ModelGraph | None = None, options: CutOptions | None = None
    ) -> None:  # fmt: skip
        self.paths = tuple(paths)
        options = options or CutOptions()
        modules = dict(model.named_modules())
        for path in self.paths:
            if path not in modules or path == "":
                raise UnknownName("module", path, [name for name in modules if name])
        known = traced or ModelGraph(model, example)
        self.peak = WIDENED * example.numel()  # elements that the widest step of the prefix reads and writes for one image
        failure = f"cannot be traced ({known.failure})" if known.failure else ""
        if not failure:
            self._prefix, self.suffixes = _cut_graph(known, self.paths, options)
            body = [node for node in known.module.graph.nodes if node.op != "output"]
            self.peak = graph.peak(body, known.values)
            unchecked = [path for path in self.paths if path not in known.checked] if options.check else []
            if unchecked:
                failure = self._difference(model, unchecked, example, options)
                known.checked.update(unchecked if not failure else ())
        self.traced = not failure
        if failure:
            warnings.warn(f"{type(model).__name__} {failure}; every gate costs a full pass", stacklevel=2)
            self._prefix, self.suffixes = cut_by_hooks(model, self.paths, example, options.reshape)

    def forward_prefix(self, images: Tensor) -> Activations:
        """One pass over images (B, channels, h, w) that keeps what every cut needs."""
        scores, per_layer = self._prefix(images)
        return Activations(
            scores,
            {path: values[0] for path, values in zip(self.paths, per_layer, strict=True)},
            {path: tuple(values[1:]) for path, values in zip(self.paths, per_layer, strict=True)},
        )

    def _difference(self, model: nn.Module, paths: Sequence[str], example: Tensor, options: CutOptions) -> str:
        """Where a cut differs from the whole network, in words; empty where none does.

        Two images, so that what belongs to one does not go unseen in the other's; all gates open, then half of them closed.
        """
        random = torch.Generator().manual_seed(0)
        images = torch.randn(2, *example.shape[1:], generator=random).to(example).contiguous(memory_format=options.layout)
        with torch.inference_mode():
            hooked = HookedModel(model, paths, example, options.reshape)
            whole = model(images)
            try:
                found = self.forward_prefix(images)
                if not _alike(found.scores, whole, whole):
                    return "gives other scores when it is run by its graph"
                for path in paths:
                    suffix, side_inputs, features = self.suffixes[path], found.side_inputs[path], found.features[path]
                    closed = (torch.rand(2, 1, features.shape[1], generator=random) < 0.5).to(features)
                    prepared = suffix.prepare(features)
                    expected = hooked.scores(path, images, lambda output, d=closed: output * d[:, 0, :, None, None])  # type: ignore[misc]
                    for gates, scores in ((torch.ones_like(closed), whole), (closed, expected)):
                        if not _alike(suffix.scores(prepared, side_inputs, gates)[:, 0], scores, whole):
                            return f"gives other scores when it is cut at {path}"
            except ChipError:
                raise
            except Exception as error:  # a view that the gated features' layout does not allow, say
                return f"cannot be run from the middle ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        return ""


def _alike(found: Tensor, expected: Tensor, whole: Tensor) -> bool:
    """Equal but for rounding, by the scale of the scores and of what closing channels has changed in them."""
    if found.shape != expected.shape:
        return False
    if not bool(expected.isfinite().all()):
        return True  # nothing to compare; a fit refuses such a network
    tolerance = 1e-3 * float(whole.abs().max()) + 1e-2 * float((expected - whole).abs().max()) + 1e-6
    return float((found - expected).abs().max()) <= tolerance


def _cut_graph(known: ModelGraph, paths: Sequence[str], options: CutOptions) -> tuple[fx.GraphModule, dict[str, Suffix]]:
    traced, found = known.module, known.values
    result = next(node for node in traced.graph.nodes if node.op == "output").args[0]
    if not isinstance(result, fx.Node):
        raise ChipError("the network returns more than one value; give one that returns its class scores only.")
    inputs = [node for node in traced.graph.nodes if node.op == "placeholder"]
    images = cast(tuple[int, ...], found[inputs[0]].shape)
    places = [known.features(path, images, options.reshape) for path in paths]
    nodes = list(traced.graph.nodes)
    suffixes: dict[str, Suffix] = {}
    leaving: list[list[fx.Node]] = []
    for path, at in zip(paths, places, strict=True):
        inside, side_inputs = graph.dependents(nodes, at, found)
        if result not in inside and result is not at:
            raise ChipError(f"the scores do not depend on layer {path!r}; choose another.")
        suffixes[path] = _build_suffix(known, at, side_inputs, inside, result, path, options.layout)
        leaving.append([at, *side_inputs])
    body = [node for node in nodes if node.op not in ("placeholder", "output")]
    return graph.build(traced, inputs, body, (result, [tuple(values) for values in leaving])), suffixes


def _build_suffix(
    known: ModelGraph, at: fx.Node, side_inputs: Sequence[fx.Node], inside: Sequence[fx.Node], result: fx.Node, path: str,
    layout: torch.memory_format,
) -> Suffix:  # fmt: skip
    traced, found = known.module, known.values
    front, start, rest = None, at, list(inside)
    begins = front_of.detect_linear_front(traced, at, inside)
    if begins is not None:
        chain, linear = begins
        flatten = graph.build(traced, [at], chain, chain[-1], found)
        shape = cast(tuple[int, ...], found[at].shape)
        features = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(next(traced.parameters()))
        with torch.inference_mode():
            separate = front_of.separates_channels(flatten, features)
        if separate:
            start, rest = linear, [node for node in inside if node not in chain and node is not linear]
            front = LinearFront(flatten, FastLinear(cast(nn.Linear, traced.get_submodule(cast(str, linear.target)))), shape[1])
    module: nn.Module = graph.build(traced, [start, *side_inputs], rest, result, found)
    front_is_head = False
    ending = head_of.detect_class_head(traced, result)
    if ending is not None and ending[0] in (*rest, start):
        mixing, after = ending
        tail = graph.build(traced, [mixing], after, result, found)
        if head_of.separates_classes(tail, cast(tuple[int, ...], found[mixing].shape)):
            front_is_head = mixing is start
            if not front_is_head:
                before = cast(fx.Node, mixing.args[0])
                body = graph.build(
                    traced, [start, *side_inputs], [node for node in rest if node is not mixing and node not in after], before, found
                )
                module = ClassHead(body, cast(Any, traced.get_submodule(cast(str, mixing.target))), tail)
    batched = tuple(found[node].batched for node in side_inputs)
    return Suffix(path, module, batched, graph.peak([at, *inside] if front is None else inside, found), front, front_is_head, layout)
