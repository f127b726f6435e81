"""Boxes from maps, and how boxes overlap; from an annotation's pixels to the network's view.

A box is (x0, y0, x1, y1) in whole pixels, both ends inside it, as ILSVRC counts them; an array of boxes has
shape (n, 4). Choe et al. (2020) call OpenCV's findContours and take the contour of largest polygon area;
here components are labelled with the same 8-connectivity, and the largest is the one with the most pixels.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image
from scipy import ndimage

from chipcore.images import InputGeometry

Box = tuple[int, int, int, int]
THRESHOLDS = np.arange(100) / 100  # of the maximum; Choe et al.'s grid
_EIGHT = np.ones((3, 3), dtype=bool)
NO_BOXES = np.empty((0, 4), dtype=np.int64)


def _crop(size: tuple[int, int], geometry: InputGeometry) -> tuple[float, float, float, float]:
    """The part of a picture (width, height) that is the network's view: left, top, width, height in its pixels."""
    width, height = size
    if geometry.fit == "squash":
        return 0.0, 0.0, float(width), float(height)
    side = min(size) * geometry.size / geometry.resize
    return (width - side) / 2, (height - side) / 2, side, side


def box_to_view(box: Box, annotated: tuple[int, int], image: tuple[int, int], geometry: InputGeometry) -> Box | None:
    """A box of an annotation on the network's view.

    Args:
        box: pixels of the annotated picture, both ends inside.
        annotated: width and height of the picture that the annotation was made on (the XML's ``<size>``).
        image: width and height of the picture on disk, which may have been resized since.
        geometry: how the picture becomes the view; it is squashed or cropped.

    Returns:
        The box in pixels of the view, cut off at its borders and at least one pixel wide and high; None
        where nothing of it is in view.
    """
    left, top, width, height = _crop(image, geometry)
    ends: list[int] = []
    for low, high, of, on, start, extent in (
        (box[0], box[2], annotated[0], image[0], left, width), (box[1], box[3], annotated[1], image[1], top, height),
    ):  # fmt: skip
        # A pixel p covers [p, p + 1): scale the edges, not the pixels' numbers.
        first, last = ((edge * on / of - start) / extent * geometry.size for edge in (low, high + 1))
        if last <= 0 or first >= geometry.size:
            return None
        begin = min(max(math.floor(first + 0.5), 0), geometry.size - 1)
        end = min(max(math.floor(last + 0.5), begin + 1), geometry.size)
        ends += [begin, end - 1]
    return ends[0], ends[2], ends[1], ends[3]


def mask_to_view(mask: np.ndarray, geometry: InputGeometry) -> np.ndarray:
    """A mask (h, w) of the picture, at any resolution, on the network's view: bool (size, size), nearest pixel."""
    left, top, width, height = _crop((mask.shape[1], mask.shape[0]), geometry)
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    view = picture.resize((geometry.size, geometry.size), Image.Resampling.NEAREST, box=(left, top, left + width, top + height))
    return np.asarray(view) > 0


def mask_of_boxes(boxes: np.ndarray, size: int) -> np.ndarray:
    """The union of boxes (n, 4) as a mask, bool (size, size)."""
    mask = np.zeros((size, size), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) with boxes (m, 4), pixels counted inclusively, shape (n, m)."""
    a, b = first[:, None].astype(np.float64), second[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    inside = np.clip(sides, 0, None).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2] + 1).prod(-1) for box in (a, b))
    return inside / (area_a + area_b - inside)


def levels(heat: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many of the ascending thresholds each value exceeds: ``heat > thresholds[i]`` exactly where this is above i."""
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
    """The largest component of ``heat > threshold`` as a mask, bool (h, w), or None where nothing is above it."""
    labels, count = ndimage.label(heat > threshold, structure=_EIGHT)
    if not count:
        return None
    mask: np.ndarray = labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())
    return mask


def extent(mask: np.ndarray) -> Box:
    """The box of a mask (h, w) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def largest_box(heat: np.ndarray, threshold: float) -> Box | None:
    """The box of the largest component of ``heat > threshold``, or None; for drawing what a threshold does."""
    mask = largest_component(heat, threshold)
    return None if mask is None else extent(mask)
