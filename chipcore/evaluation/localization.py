"""Weakly-supervised localization: the paper's Table II, and MaxBoxAcc V1 and V2 (Choe et al. 2020).

- Table II: a box around the largest component of the map above t x maximum; right if the class is among the
  network's first (first five) and the box overlaps a true box of that class by IoU >= 0.5. Only the map of the
  true class can ever be right, so one map a image serves top-1 and top-5.
- MaxBoxAcc: the true class is given; the map is stretched to [0, 1] after up-sampling. V1: largest component,
  IoU >= 0.5. V2: the best component against the best true box, averaged over IoU 0.3, 0.5 and 0.7, each at
  its own best threshold.

Every best threshold is an oracle's: one a method, searched over the very images it is measured on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from chipcore.datasets.annotations import NOT_IN_VIEW, AnnotatedObject, Source, mask_of_boxes
from chipcore.datasets.ilsvrc import Ilsvrc
from chipcore.evaluation import bootstrap
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.boxes import THRESHOLDS, overlap_curves
from chipcore.evaluation.images import Progress, energy_inside, no_progress, normalize_by_max, normalize_min_max
from chipcore.evaluation.protocols import SECONDS, Column, ProgressOf, Protocol, register
from chipcore.evaluation.results import LayerResult, Result
from chipcore.evaluation.runner import run

V2_OVERLAPS = (0.3, 0.5, 0.7)
GRAD_CAM_THRESHOLD = 0.15  # what Grad-CAM's own paper fixes
OUTSIDE = "object outside the crop"


@dataclass
class Outcomes:
    """One method at one layer; a row a image."""

    v1: list[np.ndarray] = field(default_factory=list)  # (T,) bool
    v2: list[np.ndarray] = field(default_factory=list)  # (3, T) bool
    table2: list[np.ndarray] = field(default_factory=list)  # (T,) bool: the box is right, whatever the class
    energy: list[float] = field(default_factory=list)

    def add(self, heat: np.ndarray, truth: np.ndarray) -> None:
        stretched, relative = normalize_min_max(heat), normalize_by_max(heat)
        largest, best = overlap_curves(stretched, truth)
        self.v1.append(largest >= 0.5)
        self.v2.append(np.stack([best >= overlap for overlap in V2_OVERLAPS]))
        # The two normalizations are one where the map has a zero somewhere, which is nearly always.
        self.table2.append(self.v1[-1] if heat.min() == 0 else overlap_curves(relative, truth)[0] >= 0.5)
        self.energy.append(energy_inside(heat, mask_of_boxes(truth, heat.shape[0])))


@dataclass(frozen=True)
class LocalizationLayer(LayerResult):
    """A layer of :class:`Localization`: also the network's own accuracy on the images that took part."""

    json_order: ClassVar[tuple[str, ...]] = (
        "images", "skipped", "skipped_because", "weak_rows", "top1_accuracy", "top5_accuracy", "methods",
    )  # fmt: skip

    top1_accuracy: float | None
    top5_accuracy: float | None


@dataclass(frozen=True)
class Localization(Result):
    """Boxes from maps: MaxBoxAcc V1 and V2, energy pointing and the errors of the paper's Table II, as shares of 1."""

    json_order: ClassVar[tuple[str, ...]] = ("thresholds", "images", "broken", "layers")

    thresholds: str = "each method's best over this set (an oracle), searched again in every bootstrap resample"


def evaluate(panel: MethodSet, source: Source, limit: int = 0, seed: int = 0, progress: Progress = no_progress) -> Localization:
    """Measure every method on images with one true class and its boxes.

    Parameters
    ----------
    panel
        Network, layers and methods.
    source
        Images whose objects have boxes: :class:`chipcore.datasets.ilsvrc.Ilsvrc`.
    limit, seed
        Draw at most this many images (0: all) from the whole set.
    progress
        Wraps the names of the images.

    Raises
    ------
    ChipError
        A method can't explain this network.
    """
    outcomes = {(layer.name, method): Outcomes() for layer in panel.layers for method in panel.methods}

    def measure(layer: str, method: str, heat: np.ndarray, found: AnnotatedObject) -> None:
        assert found.boxes is not None
        outcomes[layer, method].add(heat, found.boxes)

    done = run(panel, source, limit, seed, progress, measure)
    layers = {}
    for layer in panel.layers:
        rows, stats = done.rows[layer.name], done.stats[layer.name]
        top1 = [first[0] == target for first, target in zip(rows.first, rows.targets, strict=True)]
        top5 = [target in first for first, target in zip(rows.first, rows.targets, strict=True)]
        methods = {method: _report(outcomes[layer.name, method], top1, top5) | stats.of(method) for method in panel.methods}
        statistics = {method: _statistics(outcomes[layer.name, method], top1, top5) for method in panel.methods} if top1 else {}
        for method, compared in bootstrap.compare(statistics, panel.baseline, rows.images, seed).items():
            methods[method]["difference"] = compared
        because = {OUTSIDE if reason == NOT_IN_VIEW else reason: count for reason, count in stats.skipped.items()}
        layers[layer.name] = LocalizationLayer(
            images=len(top1), skipped=sum(because.values()), skipped_because=because, weak_rows=stats.weak,
            top1_accuracy=float(np.mean(top1)) if top1 else None, top5_accuracy=float(np.mean(top5)) if top1 else None, methods=methods,
        )  # fmt: skip
    return Localization(images=done.images, broken=done.broken, layers=layers)


def _curves(outcomes: Outcomes, right1: list[bool], right5: list[bool]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """V1 (S, T), V2 (3, S, T), and Table II's hits for top-1 and top-5, each (S, T)."""
    table2 = np.array(outcomes.table2)
    top1, top5 = (table2 & np.array(right)[:, None] for right in (right1, right5))
    return np.array(outcomes.v1), np.array(outcomes.v2).swapaxes(0, 1), top1, top5


def _statistics(outcomes: Outcomes, right1: list[bool], right5: list[bool]) -> dict[str, bootstrap.Statistic]:
    v1, v2, top1, top5 = _curves(outcomes, right1, right5)

    def error(curve: np.ndarray) -> bootstrap.Statistic:
        hits = bootstrap.best_threshold(curve)
        return lambda weights: 1 - hits(weights)

    return {
        "max_box_acc": bootstrap.best_threshold(v1), "max_box_acc_v2": bootstrap.best_threshold(*v2),
        "energy_pointing": bootstrap.mean(np.array(outcomes.energy)), "top1_loc_error": error(top1), "top5_loc_error": error(top5),
    }  # fmt: skip


def _report(outcomes: Outcomes, right1: list[bool], right5: list[bool]) -> dict[str, Any]:
    """The figures of one method, as shares of 1; None throughout where no image took part."""
    names = (
        "max_box_acc", "threshold", "max_box_acc_v2", "thresholds_v2", "energy_pointing", "top1_loc_error", "threshold_top1", "top5_loc_error",
        "threshold_top5", "top1_loc_error_at_0.15", "top5_loc_error_at_0.15",
    )  # fmt: skip
    if not right1:
        return {**dict.fromkeys(names), "images": 0}
    v1, v2, top1, top5 = _curves(outcomes, right1, right5)
    mean1, mean2, hits1, hits5 = v1.mean(0), v2.mean(1), top1.mean(0), top5.mean(0)
    fixed = int(np.abs(THRESHOLDS - GRAD_CAM_THRESHOLD).argmin())
    values: tuple[Any, ...] = (
        mean1.max(), THRESHOLDS[mean1.argmax()], mean2.max(1).mean(), [float(THRESHOLDS[i]) for i in mean2.argmax(1)],
        np.mean(outcomes.energy), 1 - hits1.max(), THRESHOLDS[hits1.argmax()], 1 - hits5.max(), THRESHOLDS[hits5.argmax()],
        1 - hits1[fixed], 1 - hits5[fixed],
    )  # fmt: skip
    figures = (value if isinstance(value, list) else float(value) for value in values)
    return {**dict(zip(names, figures, strict=True)), "images": len(right1)}


def _run(options: argparse.Namespace, panel: MethodSet, progress: ProgressOf) -> tuple[Localization, str]:
    source = Ilsvrc(options.data, panel.network.classes, panel.network.geometry)
    return evaluate(panel, source, options.limit, options.seed, progress("photographs")), source.images.fingerprint


register(Protocol(
    "localization", "boxes from maps on the ILSVRC layout: the paper's Table II, MaxBoxAcc V1 and V2", _run,
    columns=(
        Column("MaxBoxAcc", "max_box_acc"), Column("at t", "threshold", False), Column("V2", "max_box_acc_v2"),
        Column("energy", "energy_pointing"), Column("top-1 err", "top1_loc_error"), Column("top-5 err", "top5_loc_error"), SECONDS,
    ),
    main="max_box_acc",
))  # fmt: skip
