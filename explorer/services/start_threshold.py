"""The threshold at which a map is cut before anybody moves the slider: the best one that was measured for its method and layer."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from chipcore import Layer, Network
from chipcore.storage import ASSETS

USUAL = 0.15  # Grad-CAM's authors take it; where nothing was measured
LOWEST = 0.05  # a best threshold below boxes the whole picture: the maps of that layer find no object at any


def start_threshold(network: Network, layer: Layer, method: str) -> float:
    """A share of the map's maximum: that of the best MaxBoxAcc in ``assets/results``, on the most images; else ``USUAL``."""
    _images, threshold = _measured().get((network.id, layer.name, method), (0, 0.0))
    return threshold if threshold >= LOWEST else USUAL


@cache
def _measured() -> dict[tuple[str, str, str], tuple[int, float]]:
    """(images, best threshold) by network, layer and method, as ``evaluate localization`` wrote them."""
    best: dict[tuple[str, str, str], tuple[int, float]] = {}
    for path in sorted((ASSETS / "results").glob("*.json")):
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if content.get("protocol") != "localization":
                continue
            for layer, measured in content["layers"].items():
                for method, numbers in measured["methods"].items():
                    key = content["network"], layer, method
                    best[key] = max(best.get(key, (0, 0.0)), (int(numbers["images"]), float(numbers["threshold"])))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # of another release: the usual one then
            continue
    return best
