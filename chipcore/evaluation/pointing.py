"""Pointing game (Zhang et al. 2018) and energy pointing game (Wang et al. 2020) on objects with boxes or masks."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from chipcore.datasets.annotations import Source
from chipcore.evaluation import bootstrap
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.images import Progress, energy_inside, no_progress
from chipcore.evaluation.runner import layer_report, walk

TOLERANCE = 15  # pixels, of the network's view


def hits(heat: np.ndarray, mask: np.ndarray, tolerance: int = TOLERANCE) -> bool:
    """Whether the map's maximum lies on the mask or within ``tolerance`` pixels of it.

    A map without a positive part points nowhere and misses. Several equal maxima: the first in reading order.

    Args:
        heat: the finished map, shape (h, w).
        mask: bool, shape (h, w), not empty.
    """
    if not heat.max() > 0:
        return False
    y, x = np.unravel_index(int(heat.argmax()), heat.shape)
    rows, columns = np.nonzero(mask)
    return bool(((rows - y) ** 2 + (columns - x) ** 2).min() <= tolerance**2)


def evaluate(
    panel: MethodSet, source: Source, limit: int = 0, seed: int = 0, progress: Progress = no_progress, tolerance: int = TOLERANCE
) -> dict[str, Any]:
    """Measure every method of the panel; accuracy is hits / (hits + misses) per class, then averaged over classes."""
    hit: dict[tuple[str, str], list[bool]] = defaultdict(list)
    energy: dict[tuple[str, str], list[float]] = defaultdict(list)

    def measure(layer: str, method: str, heat: np.ndarray, mask: np.ndarray) -> None:
        hit[layer, method].append(hits(heat, mask, tolerance))
        energy[layer, method].append(energy_inside(heat, mask))

    walked = walk(panel, source, limit, seed, progress, measure)
    layers = {}
    for layer in panel.layers:
        rows, tally = walked.rows[layer.name], walked.tallies[layer.name]
        count = len(rows.images)
        names: dict[str, int] = {}
        kinds = [names.setdefault(name, len(names)) for name in rows.objects]
        methods: dict[str, dict[str, Any]] = {}
        statistics: dict[str, dict[str, bootstrap.Statistic]] = {}
        for method in panel.methods:
            methods[method] = {"pointing": None, "energy_pointing": None, "hits": 0, "misses": 0, **tally.of(method)}
            if count:
                found = np.array(hit[layer.name, method])
                statistics[method] = {
                    "pointing": bootstrap.class_mean(found, kinds), "energy_pointing": bootstrap.mean(np.array(energy[layer.name, method])),
                }  # fmt: skip
                methods[method] |= {name: bootstrap.whole(one, count) for name, one in statistics[method].items()}
                methods[method] |= {"hits": int(found.sum()), "misses": int((~found).sum())}
        for method, compared in bootstrap.compare(statistics, panel.baseline, rows.images, seed).items():
            methods[method]["difference"] = compared
        layers[layer.name] = {**layer_report(rows, tally, methods), "classes": len(names)}
    return {
        "data_set": source.layout, "tolerance": tolerance, "photographs": walked.images, "broken": walked.broken, "layers": layers,
    }  # fmt: skip
