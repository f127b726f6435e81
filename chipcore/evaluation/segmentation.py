"""Segmentation by maps (Fig. 7): IoU of the map above t x maximum with the object's mask, at each method's best t."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from chipcore.datasets.annotations import Source
from chipcore.evaluation import bootstrap
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.boxes import THRESHOLDS, levels
from chipcore.evaluation.images import Progress, no_progress, normalize_by_max
from chipcore.evaluation.runner import Rows, layer_report, walk


def mask_iou_curve(heat: np.ndarray, mask: np.ndarray, thresholds: np.ndarray = THRESHOLDS) -> np.ndarray:
    """IoU of ``heat > t`` with a mask for every threshold t, shape (T,).

    Args:
        heat: shape (h, w).
        mask: bool, shape (h, w), not empty.
    """
    level = levels(heat, thresholds)
    # A pixel of level n is in the first n masks: counts from the top down are the masks' sizes.
    above = [np.bincount(part.ravel(), minlength=len(thresholds) + 1)[::-1].cumsum()[::-1][1:] for part in (level, level[mask])]
    return above[1] / (above[0] + mask.sum() - above[1])


def evaluate(panel: MethodSet, source: Source, limit: int = 0, seed: int = 0, progress: Progress = no_progress) -> dict[str, Any]:
    """Measure every method of the panel on images with masks; the threshold is one a method, over the whole set."""
    curves: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)

    def measure(layer: str, method: str, heat: np.ndarray, mask: np.ndarray) -> None:
        curves[layer, method].append(mask_iou_curve(normalize_by_max(heat), mask))

    walked = walk(panel, source, limit, seed, progress, measure)
    layers = {}
    for layer in panel.layers:
        rows, tally = walked.rows[layer.name], walked.tallies[layer.name]
        methods: dict[str, dict[str, Any]] = {}
        statistics: dict[str, dict[str, bootstrap.Statistic]] = {}
        for method in panel.methods:
            found = np.array(curves[layer.name, method])
            methods[method] = _report(found, rows) | tally.of(method)
            if len(found):
                statistics[method] = {"iou": bootstrap.best_threshold(found)}
        for method, compared in bootstrap.compare(statistics, panel.baseline, rows.images, seed).items():
            methods[method]["difference"] = compared
        layers[layer.name] = layer_report(rows, tally, methods)
    return {
        "data_set": source.layout, "thresholds": "each method's best over this set (an oracle), searched again in every bootstrap resample",
        "photographs": walked.images, "broken": walked.broken, "layers": layers,
    }  # fmt: skip


def _report(curves: np.ndarray, rows: Rows) -> dict[str, Any]:
    if not len(curves):
        return {"iou": None, "threshold": None, "iou_by_object": {}, "iou_own_threshold": None}
    mean = curves.mean(0)
    best = int(mean.argmax())
    names = np.array(rows.objects)
    return {
        "iou": float(mean[best]), "threshold": float(THRESHOLDS[best]),
        "iou_own_threshold": float(curves.max(1).mean()),  # every image's own best: an upper bound
        "iou_by_object": {str(name): float(curves[names == name, best].mean()) for name in np.unique(names)},
    }  # fmt: skip
