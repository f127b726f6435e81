"""Segmentation by maps (Fig. 7): IoU of the map above t x maximum with the object's mask, at each method's best t."""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from chipcore.datasets.annotations import AnnotatedObject, Source
from chipcore.datasets.registry import open_mask_dataset
from chipcore.evaluation import bootstrap
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.boxes import THRESHOLDS, levels
from chipcore.evaluation.images import Progress, no_progress, normalize_by_max
from chipcore.evaluation.protocols import SECONDS, Column, ProgressOf, Protocol, register
from chipcore.evaluation.results import Result
from chipcore.evaluation.runner import ObjectsLayer, Rows, run


@dataclass(frozen=True)
class Segmentation(Result):
    """Maps against masks: IoU at the best threshold, over all objects and by the object's name, as shares of 1."""

    json_order: ClassVar[tuple[str, ...]] = ("data_set", "thresholds", "images", "broken", "layers")

    data_set: str
    thresholds: str = "each method's best over this set (an oracle), searched again in every bootstrap resample"


def mask_iou_curve(heat: np.ndarray, mask: np.ndarray, thresholds: np.ndarray = THRESHOLDS) -> np.ndarray:
    """IoU of ``heat > t`` with a mask for every threshold t, shape (T,).

    Args:
        heat: shape (h, w).
        mask: bool, shape (h, w), not empty.

    Example:
        >>> mask_iou_curve(np.array([[0.2, 0.8]]), np.array([[False, True]]), np.array([0.0, 0.5, 0.9])).tolist()
        [0.5, 1.0, 0.0]
    """
    level = levels(heat, thresholds)
    # A pixel of level n is in the first n masks: counts from the top down are the masks' sizes.
    above = [np.bincount(part.ravel(), minlength=len(thresholds) + 1)[::-1].cumsum()[::-1][1:] for part in (level, level[mask])]
    return above[1] / (above[0] + mask.sum() - above[1])


def evaluate(panel: MethodSet, source: Source, limit: int = 0, seed: int = 0, progress: Progress = no_progress) -> Segmentation:
    """Measure every method on images with masks; the threshold is one a method, over the whole set.

    Parameters
    ----------
    panel
        Network, layers and methods.
    source
        From :func:`chipcore.datasets.registry.open_mask_dataset`.
    limit, seed
        Draw at most this many images (0: all) from the whole set.
    progress
        Wraps the names of the images.

    Raises
    ------
    ChipError
        A method can't explain this network.
    """
    curves: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)

    def measure(layer: str, method: str, heat: np.ndarray, found: AnnotatedObject) -> None:
        assert found.mask is not None
        curves[layer, method].append(mask_iou_curve(normalize_by_max(heat), found.mask))

    done = run(panel, source, limit, seed, progress, measure)
    layers = {}
    for layer in panel.layers:
        rows, stats = done.rows[layer.name], done.stats[layer.name]
        methods: dict[str, dict[str, Any]] = {}
        statistics: dict[str, dict[str, bootstrap.Statistic]] = {}
        for method in panel.methods:
            found = np.array(curves[layer.name, method])
            methods[method] = _report(found, rows) | stats.of(method)
            if len(found):
                statistics[method] = {"iou": bootstrap.best_threshold(found)}
        for method, compared in bootstrap.compare(statistics, panel.baseline, rows.images, seed).items():
            methods[method]["difference"] = compared
        layers[layer.name] = ObjectsLayer.of(rows, stats, methods)
    return Segmentation(data_set=source.layout, images=done.images, broken=done.broken, layers=layers)


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


def _run(options: argparse.Namespace, panel: MethodSet, progress: ProgressOf) -> tuple[Segmentation, str]:
    source = open_mask_dataset(options.data, panel.network.classes, panel.network.geometry)
    return evaluate(panel, source, options.limit, options.seed, progress("photographs")), source.images.fingerprint


register(Protocol(
    "segmentation", "maps against the masks of objects (ADE20K scenes, COCO panoptic)", _run,
    columns=(Column("IoU", "iou"), Column("at t", "threshold", False), Column("own t", "iou_own_threshold"), SECONDS),
    main="iou",
))  # fmt: skip
