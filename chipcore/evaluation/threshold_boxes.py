"""From a map to a box, as ``chipcore evaluate localization`` does it for its Table II. Pure functions, no Streamlit."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

import numpy as np

from chipcore.datasets.annotations import Box, mask_of_boxes
from chipcore.evaluation.boxes import THRESHOLDS, iou, overlap_curves
from chipcore.evaluation.cutting import ThresholdedMap, relative, threshold_map
from chipcore.evaluation.images import energy_inside

__all__ = ["ThresholdedMap", "best", "curve", "inside", "overlap", "relative", "table", "threshold_map"]


def overlap(box: Box | None, truth: np.ndarray) -> float:
    """IoU of a box with the best of the true boxes (m, 4); 0 where there is none."""
    return 0.0 if box is None else float(iou(np.array([box]), truth).max())


def curve(shares: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU of the largest component's box with the best true box at every threshold of ``THRESHOLDS``, shape (100,)."""
    return overlap_curves(shares, truth)[0]


def best(of: np.ndarray) -> tuple[float, float]:
    """The threshold at which a curve is highest (the lowest of several), and its height there."""
    place = int(of.argmax())
    return float(THRESHOLDS[place]), float(of[place])


def inside(shares: np.ndarray, truth: np.ndarray) -> float:
    """Share of a map's positive mass inside the true boxes (energy pointing)."""
    return energy_inside(shares, mask_of_boxes(truth, shares.shape[0]))


def table(curves: Mapping[str, np.ndarray]) -> str:
    """IoU at every threshold as CSV, a column a method."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("threshold", *curves))
    for place, threshold in enumerate(THRESHOLDS):
        writer.writerow((f"{threshold:.2f}", *(f"{one[place]:.4f}" for one in curves.values())))
    return stream.getvalue()
