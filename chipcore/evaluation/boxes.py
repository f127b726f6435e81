"""Boxes from maps, and how boxes overlap; from an annotation's pixels to the network's view.

A box is (x0, y0, x1, y1) in whole pixels, both ends inside it, as ILSVRC counts them; an array of boxes has
shape (n, 4). Choe et al. (2020) call OpenCV's findContours and take the contour of largest polygon area;
here components are labeled with the same 8-connectivity, and the largest is the one with the most pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import ndimage

from chipcore.analysis.tables import to_csv
from chipcore.datasets.annotations import Box, extent, mask_of_boxes
from chipcore.errors import SettingsError
from chipcore.evaluation.images import energy_inside

THRESHOLDS = np.arange(100) / 100  # of the maximum; Choe et al.'s grid
_EIGHT = np.ones((3, 3), dtype=bool)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) with boxes (m, 4), pixels counted inclusively, shape (n, m).

    Raises ``SettingsError`` for a box whose right side lies left of its left one, or its bottom above its top.

    Example:
        >>> iou(np.array([[0, 0, 9, 9]]), np.array([[0, 0, 9, 4], [20, 20, 29, 29]])).tolist()
        [[0.5, 0.0]]
    """
    for boxes in (first, second):
        turned = (boxes[:, 2:] < boxes[:, :2]).any(1)
        if turned.any():
            raise SettingsError(f"the box {boxes[turned][0].tolist()} is turned round; give left, top, right and bottom.")
    a, b = first[:, None].astype(np.float64), second[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    inside = np.clip(sides, 0, None).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2] + 1).prod(-1) for box in (a, b))
    return inside / (area_a + area_b - inside)


def levels(heat: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many of the ascending thresholds each value exceeds: ``heat > thresholds[i]`` exactly where this is above i.

    Example:
        >>> levels(np.array([[0.0, 0.5, 0.9]]), np.array([0.0, 0.5])).tolist()
        [[0, 1, 2]]
    """
    return np.searchsorted(thresholds, heat.astype(np.float64).ravel(), side="left").reshape(heat.shape)


def overlap_curves(heat: np.ndarray, truth: np.ndarray, thresholds: np.ndarray = THRESHOLDS) -> tuple[np.ndarray, np.ndarray]:
    """How well the boxes of ``heat > t`` cover the true boxes, for every threshold t.

    Args:
        heat: shape (h, w).
        truth: boxes, shape (m, 4), m >= 1.
        thresholds: ascending, shape (T,).

    Returns:
        Two IoUs with the best of the true boxes, each (T,): of the largest component's box, and of the best
        component's box. Where nothing is above a threshold both are 0.
    """
    level = levels(heat, thresholds).astype(np.int32)
    largest, best = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    # Masks only shrink as the threshold rises: one is the last one again unless a pixel has its level, and
    # everything happens inside the last one's extent.
    occupied = np.bincount(level.ravel(), minlength=len(thresholds) + 1) > 0
    x, y = 0, 0
    for i in range(len(thresholds)):
        if i and not occupied[i]:
            largest[i], best[i] = largest[i - 1], best[i - 1]
            continue
        mask = level > i
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            break
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        level, mask = level[window], mask[window]
        x, y = x + int(columns[0]), y + int(rows[0])
        labels, count = ndimage.label(mask, structure=_EIGHT)
        places = ndimage.find_objects(labels)
        boxes = np.array([(x + b.start, y + a.start, x + b.stop - 1, y + a.stop - 1) for a, b in places])
        overlap = iou(boxes, truth).max(1)
        areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        largest[i], best[i] = overlap[areas.argmax()], overlap.max()
    return largest, best


def largest_component(heat: np.ndarray, threshold: float) -> np.ndarray | None:
    """The largest component of ``heat > threshold`` as a mask, bool (h, w), or None where nothing is above it.

    Example:
        >>> largest_component(np.array([[1.0, 1.0, 0.0, 1.0]]), 0.5).astype(int).tolist()
        [[1, 1, 0, 0]]
    """
    labels, count = ndimage.label(heat > threshold, structure=_EIGHT)
    if not count:
        return None
    mask: np.ndarray = labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())
    return mask


def largest_box(heat: np.ndarray, threshold: float) -> Box | None:
    """The box of the largest component of ``heat > threshold``, or None; for drawing what a threshold does.

    Example:
        >>> largest_box(np.array([[0.0, 1.0, 1.0, 0.0]]), 0.5)
        (1, 0, 2, 0)
    """
    mask = largest_component(heat, threshold)
    return None if mask is None else extent(mask)


def best_overlap(box: Box | None, truth: np.ndarray) -> float:
    """IoU of a box with the best of the true boxes (m, 4); 0 where there is none.

    Example:
        >>> best_overlap((0, 0, 9, 9), np.array([[0, 0, 9, 4], [0, 0, 9, 9]])), best_overlap(None, np.array([[0, 0, 1, 1]]))
        (1.0, 0.0)
    """
    return 0.0 if box is None else float(iou(np.array([box]), truth).max())


def best_threshold(curve: np.ndarray) -> tuple[float, float]:
    """The threshold of ``THRESHOLDS`` at which an IoU curve (100,) is highest (the lowest of several), and its height there."""
    place = int(curve.argmax())
    return float(THRESHOLDS[place]), float(curve[place])


def energy_in_boxes(heat: np.ndarray, truth: np.ndarray) -> float:
    """Share of a map's positive mass (h, w) inside the true boxes (m, 4): energy pointing."""
    return energy_inside(heat, mask_of_boxes(truth, heat.shape[0]))


def curves_csv(curves: Mapping[str, np.ndarray]) -> str:
    """IoU at every threshold as CSV, a column a method."""
    return to_csv(pd.DataFrame({"threshold": THRESHOLDS, **curves}), digits=4)
