"""Maps of any method, asked for once and kept for every visitor; what is slow waits to be asked for.

Nothing in here knows Streamlit: slow maps are made in threads of their own. ``explorer/components/map_cell.py`` shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from chipcore import Importance, Layer, Network, Saliency
from chipcore.maps import STATES
from chipcore.methods import METHODS, explain_view
from explorer.services.cache import WeightedLRUCache, size_of

SATURATED = 0.01  # of the places of a gradient map at the pixels are drawn in the strongest color
PASSES_MB = 32  # of LIME's and occlusion's probabilities; 4.5 MB an image for 1,000 classes
CACHE_MB = 128  # of maps; one of a pixel method has 1.2 MB at 224 pixels with its pictures, 24 at 1,024


@dataclass(frozen=True)
class MapKey:
    """What one map is the answer to, by names short enough for a key.

    ``image`` is the sha256 of its file; ``layer`` is empty for methods that pay no heed to it, so that they are asked once.
    ``importance`` names the W behind the map, and is empty for methods that take none: visitors may use fits of their own.
    """

    network: str
    image: str
    method: str
    layer: str
    target: int
    importance: str = ""

    @classmethod
    def of(
        cls, network: Network, sha256: str, method: str, layer: Layer, target: int, version: Callable[[Layer], str] = lambda _layer: ""
    ) -> MapKey:
        """The key of a map; ``version`` names the W of a layer."""
        asked = METHODS[method]
        layers = [layer] * asked.needs_importance + [network.layers[0]] * asked.needs_shallow
        versions = " ".join(version(at) for at in layers)
        return cls(network.id, sha256, method, layer.name if asked.uses_layer else "", target, versions)

    @property
    def key(self) -> str:
        return f"map/{self.network}/{self.image[:16]}/{self.method}/{self.layer}/{self.target}/{self.importance}"

    @property
    def slow(self) -> bool:
        return METHODS[self.method].slow


_PASSES: WeightedLRUCache[Any] = WeightedLRUCache(PASSES_MB, name="explorer.services.saliency_cache.passes")
_WARM: set[tuple[str, str]] = set()  # networks and methods that have made a map in this process


class MapCache(WeightedLRUCache[Saliency]):
    """The maps that were asked for last, by question. Safe to use from any thread."""

    def __init__(self, megabytes: float = CACHE_MB) -> None:
        super().__init__(megabytes, size, "explorer.services.saliency_cache")


def size(saliency: Saliency) -> int:
    """Bytes of a map, with the picture that it makes of itself once it is shown."""
    return size_of(saliency) + 4 * saliency.view.width**2


def compute_map(
    network: Network, view: Image.Image, question: MapKey, layer: Layer, load: Callable[[Layer], Importance],
    progress: Callable[[int, int], None] | None = None,
) -> Saliency:  # fmt: skip
    """One map, computed now.

    Args:
        network: the one that the question names.
        view: the image as it sees it.
        question: method and class.
        layer: where; methods that pay no heed to it get it all the same.
        load: gives W of a layer, or raises ``ChipError``.
        progress: called with (done, total) by methods that take long.

    Raises:
        ChipError: with a sentence for the visitor, where the method cannot explain this network or class.
    """
    method = METHODS[question.method]
    network.peak(method.layers(network, layer))  # cuts the network there: once a network, not once a map
    if method.prepare is not None:
        method.prepare(network, layer)
    importance = load(layer) if method.needs_importance else None
    shallow = load(network.layers[0]) if method.needs_shallow and layer.path != network.layers[0].path else None

    def explained() -> Saliency:
        return explain_view(
            network, view, question.target, question.method, layer.name, importance, shallow_importance=shallow, progress=progress,
            share=lambda key, make: _shared((network.id, question.image, key), make),
        )  # fmt: skip

    # The first map of a method on a network traces its graph and has torch choose its kernels, five times the work of the
    # map itself; the seconds under a map are the method's alone. Of slow methods that part is small.
    if not question.slow and (network.id, question.method) not in _WARM:
        explained()
        _WARM.add((network.id, question.method))
    return explained()


def _shared(key: Hashable, make: Callable[[], Any]) -> Any:
    """What a method makes once an image, for all classes."""
    known = _PASSES.get(key)
    if known is None:
        known = make()
        _PASSES.put(key, known)
    return known


def visible_peak(saliency: Saliency) -> float:
    """The value drawn as the strongest color: the map's maximum, or what ``SATURATED`` of its places exceed.

    Maps of pixels made from gradients have a few places a hundred times stronger than the rest; on a scale up to
    their maximum there would be nothing to see.
    """
    if not is_saturated(saliency):
        return float(saliency.raw.max())
    above = torch.quantile(saliency.raw.flatten().float(), 1 - SATURATED)
    return float(above) if above > 0 else float(saliency.raw.max())


def is_saturated(saliency: Saliency) -> bool:
    """Whether the strongest places of this map are drawn alike."""
    properties = METHODS[saliency.method].properties
    return "gradient" in properties.instance and saliency.raw.shape[0] == saliency.view.height


def blank_reason(saliency: Saliency) -> str:
    """Why there is nothing to see in a map; empty where there is something."""
    state = saliency.state
    if state == "ok":
        return ""
    method = METHODS[saliency.method]
    if method.zero_means and not bool(saliency.raw.any()):
        return f"zero everywhere: {method.zero_means}"
    if state == "no positive part" and not method.uses_layer:
        return "no place in this photograph is evidence for this class"
    return STATES[state]
