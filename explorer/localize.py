"""From a map to a box, as ``chipcore evaluate localization`` does it for its Table II. Pure functions, no Streamlit."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from chipcore import maps
from chipcore.evaluation.boxes import THRESHOLDS, Box, extent, iou, largest_component, mask_of_boxes, overlap_curves
from chipcore.evaluation.photographs import over_maximum, positive, share_inside


def relative(raw: Tensor, size: int) -> np.ndarray:
    """A raw map's positive part at input resolution as a share of its maximum, float64 (size, size); zeros for a blank one.

    float64, because the evaluation compares with its thresholds in float64.
    """
    if maps.state(raw) == "not finite":
        return np.zeros((size, size))
    shares: np.ndarray = over_maximum(positive(maps.upsample(raw, size))).astype(np.float64)
    return shares


@dataclass(frozen=True)
class Cut:
    """What a threshold leaves of a map: everything above it, the largest component of that, and that one's box."""

    mask: np.ndarray
    largest: np.ndarray
    box: Box | None


def cut(shares: np.ndarray, threshold: float) -> Cut:
    """Cut a map (size, size) of shares of its maximum at a threshold."""
    largest = largest_component(shares, threshold)
    if largest is None:
        nothing = np.zeros(shares.shape, dtype=bool)
        return Cut(nothing, nothing, None)
    return Cut(shares > threshold, largest, extent(largest))


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
    return share_inside(shares, mask_of_boxes(truth, shares.shape[0]))


def table(curves: Mapping[str, np.ndarray]) -> str:
    """IoU at every threshold as CSV, a column a method."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("threshold", *curves))
    for place, threshold in enumerate(THRESHOLDS):
        writer.writerow((f"{threshold:.2f}", *(f"{one[place]:.4f}" for one in curves.values())))
    return stream.getvalue()
