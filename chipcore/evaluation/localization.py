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

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from chipcore.datasets.annotations import NO_BOXES, box_to_view, mask_of_boxes
from chipcore.datasets.ilsvrc import Annotation, Localization
from chipcore.errors import DataError
from chipcore.evaluation import bootstrap
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.boxes import THRESHOLDS, overlap_curves
from chipcore.evaluation.images import Progress, Reader, energy_inside, no_progress, normalize_by_max, normalize_min_max, subsample, view_of
from chipcore.maps import positive_map

V2_OVERLAPS = (0.3, 0.5, 0.7)
GRAD_CAM_THRESHOLD = 0.15  # what Grad-CAM's own paper fixes


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


@dataclass
class LocalizationStats:
    """The images that took part at one layer: names, and whether the true class was the first or in the first five."""

    names: list[str] = field(default_factory=list)
    top1: list[bool] = field(default_factory=list)
    top5: list[bool] = field(default_factory=list)


def true_boxes(annotation: Annotation, image: tuple[int, int], panel: MethodSet) -> np.ndarray:
    """The true boxes on the network's view, shape (m, 4); m may be 0 where a crop has lost them."""
    found = (box_to_view(box, annotation.size, image, panel.network.geometry) for box in annotation.boxes)
    kept = [box for box in found if box is not None]
    return np.array(kept) if kept else NO_BOXES


def evaluate(panel: MethodSet, data: Localization, limit: int = 0, seed: int = 0, progress: Progress = no_progress) -> dict[str, Any]:
    """Measure every method of the panel on annotated images.

    Raises ``DataError`` where the network's classes are not synsets.
    """
    synsets = panel.network.classes.synsets
    if not synsets:
        raise DataError(f"the classes of {panel.network.name} have no WordNet synsets, by which ILSVRC names its objects.")
    outcomes = {layer.name: {method: Outcomes() for method in panel.methods} for layer in panel.layers}
    tallies, seen = panel.tallies(), {layer.name: LocalizationStats() for layer in panel.layers}
    names = subsample(data.images.names, limit, seed)
    reader = Reader(data.images)
    for name, image in reader(progress(names)):
        annotation = reader.attempt(partial(data.annotation, name))
        if annotation is None:
            continue
        truth = true_boxes(annotation, image.size, panel)
        reason = "class unknown to the network" if annotation.synset not in synsets else "object outside the crop" if not len(truth) else ""
        if reason:
            for tally in tallies.values():
                tally.skipped[reason] += 1
            continue
        target, inputs = synsets.index(annotation.synset), view_of(image, panel.network.geometry)
        activations = panel.look(inputs)
        first = _first(activations.scores, 5)
        for layer in panel.layers:
            tally = tallies[layer.name]
            if not panel.accepts(layer, target, tally):
                continue
            seen[layer.name].names.append(name)
            seen[layer.name].top1.append(first[0] == target)
            seen[layer.name].top5.append(target in first)
            for method in panel.methods:
                raw = panel.raw_map(method, inputs, target, layer, activations, tally)
                heat = positive_map(raw, inputs.shape[-1]).numpy()
                outcomes[layer.name][method].add(heat, truth)
    layers = {}
    for layer in panel.layers:
        there, tally = seen[layer.name], tallies[layer.name]
        methods = {method: _report(outcomes[layer.name][method], there) | tally.of(method) for method in panel.methods}
        statistics = {method: _statistics(outcomes[layer.name][method], there) for method in panel.methods} if there.names else {}
        for method, compared in bootstrap.compare(statistics, panel.baseline, there.names, seed).items():
            methods[method]["difference"] = compared
        layers[layer.name] = {
            "images": len(there.names), "skipped": sum(tally.skipped.values()), "skipped_because": dict(tally.skipped), "weak_rows": tally.weak,
            "top1_accuracy": float(np.mean(there.top1)) if there.names else None,
            "top5_accuracy": float(np.mean(there.top5)) if there.names else None, "methods": methods,
        }  # fmt: skip
    return {
        "thresholds": "each method's best over this set (an oracle), searched again in every bootstrap resample",
        "photographs": len(names), "broken": reader.broken, "layers": layers,
    }  # fmt: skip


def _first(scores: Tensor, count: int) -> list[int]:
    return [int(index) for index in scores[0].topk(min(count, scores.shape[1])).indices]


def _curves(outcomes: Outcomes, seen: LocalizationStats) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """V1 (S, T), V2 (3, S, T), and Table II's hits for top-1 and top-5, each (S, T)."""
    table2 = np.array(outcomes.table2)
    top1, top5 = (table2 & np.array(right)[:, None] for right in (seen.top1, seen.top5))
    return np.array(outcomes.v1), np.array(outcomes.v2).swapaxes(0, 1), top1, top5


def _statistics(outcomes: Outcomes, seen: LocalizationStats) -> dict[str, bootstrap.Statistic]:
    v1, v2, top1, top5 = _curves(outcomes, seen)

    def error(curve: np.ndarray) -> bootstrap.Statistic:
        hits = bootstrap.best_threshold(curve)
        return lambda weights: 1 - hits(weights)

    return {
        "max_box_acc": bootstrap.best_threshold(v1), "max_box_acc_v2": bootstrap.best_threshold(*v2),
        "energy_pointing": bootstrap.mean(np.array(outcomes.energy)), "top1_loc_error": error(top1), "top5_loc_error": error(top5),
    }  # fmt: skip


def _report(outcomes: Outcomes, seen: LocalizationStats) -> dict[str, Any]:
    """The figures of one method, as shares of 1; None throughout where no image took part."""
    names = (
        "max_box_acc", "threshold", "max_box_acc_v2", "thresholds_v2", "energy_pointing", "top1_loc_error", "threshold_top1", "top5_loc_error",
        "threshold_top5", "top1_loc_error_at_0.15", "top5_loc_error_at_0.15",
    )  # fmt: skip
    if not seen.names:
        return {**dict.fromkeys(names), "images": 0}
    v1, v2, top1, top5 = _curves(outcomes, seen)
    mean1, mean2, right1, right5 = v1.mean(0), v2.mean(1), top1.mean(0), top5.mean(0)
    fixed = int(np.abs(THRESHOLDS - GRAD_CAM_THRESHOLD).argmin())
    values: tuple[Any, ...] = (
        mean1.max(), THRESHOLDS[mean1.argmax()], mean2.max(1).mean(), [float(THRESHOLDS[i]) for i in mean2.argmax(1)],
        np.mean(outcomes.energy), 1 - right1.max(), THRESHOLDS[right1.argmax()], 1 - right5.max(), THRESHOLDS[right5.argmax()],
        1 - right1[fixed], 1 - right5[fixed],
    )  # fmt: skip
    figures = (value if isinstance(value, list) else float(value) for value in values)
    return {**dict(zip(names, figures, strict=True)), "images": len(seen.names)}
