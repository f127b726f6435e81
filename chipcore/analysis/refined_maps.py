"""The rows of the strip below CHIP's own: Refined and Guided CHIP at every depth."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from chipcore import maps
from chipcore.analysis.layer_maps import LayerMap
from chipcore.maps import STATES
from chipcore.methods.backpropagation import strongest


def refined(found: Sequence[LayerMap]) -> list[LayerMap]:
    """Refined CHIP (Sec. III-B) of every depth but the first, at the first one's resolution, from the maps of the strip.

    The first layer's map times the positive part of the deeper one's, as ``chipcore.methods.chip.refined_chip``.
    """
    shallow = found[0]
    return [LayerMap(shallow.layer, blank="nothing deeper to refine it with"), *(_refined(shallow, deep) for deep in found[1:])]


def _refined(shallow: LayerMap, deep: LayerMap) -> LayerMap:
    lacking = next((one for one in (shallow, deep) if one.raw is None), None)
    if lacking is not None or shallow.raw is None or deep.raw is None:
        return LayerMap(deep.layer, missing=f"no map at {lacking.layer.name}" if lacking else "")
    raw = shallow.raw * maps.positive_map(deep.raw, (shallow.raw.shape[0], shallow.raw.shape[1]))
    return _described(deep, raw)


def guided(found: Sequence[LayerMap], gradient: Tensor) -> list[LayerMap]:
    """Guided CHIP (Sec. III-B) of every depth: one Guided Backprop pass serves them all.

    Args:
        found: the strip's CHIP maps.
        gradient: Guided Backprop of the class, shape (3, h, w).
    """
    height, width = gradient.shape[-2:]
    return [
        LayerMap(one.layer, missing=f"no map at {one.layer.name}") if one.raw is None
        else _described(one, strongest(gradient * maps.positive_map(one.raw, (height, width))))
        for one in found
    ]  # fmt: skip


def _described(one: LayerMap, raw: Tensor) -> LayerMap:
    state = maps.state(raw)
    return LayerMap(one.layer, one.importance, raw, one.row, blank="" if state == "ok" else STATES[state], local=one.local)
