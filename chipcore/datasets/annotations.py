"""What an image shows and where: the objects of an annotated image, and from its pixels to the network's view.

A box is (x0, y0, x1, y1) in whole pixels, both ends inside it, as ILSVRC counts them; an array of boxes has shape
(n, 4).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from chipcore.datasets.image_folder import ImageFolder
from chipcore.images import InputGeometry

Box = tuple[int, int, int, int]
NO_BOXES = np.empty((0, 4), dtype=np.int64)
NOT_IN_VIEW = "object not in view"


@dataclass(frozen=True)
class AnnotatedObject:
    """An object in an image: its name, the class whose map should find it, and where it is on the network's view.

    ``mask`` is bool (size, size); ``boxes`` (m, 4) where the data set has boxes. ``skip`` says why it can't be
    evaluated, where that is so; then there is no mask.
    """

    name: str
    target: int = -1
    mask: np.ndarray | None = None
    skip: str = ""
    boxes: np.ndarray | None = None


class Source(Protocol):
    """Annotated images. ``layout`` names the data set; ``broken`` what was found broken on opening."""

    layout: str
    images: ImageFolder
    broken: tuple[str, ...]

    def objects(self, name: str, image: Image.Image, probabilities: Tensor) -> Iterator[AnnotatedObject]:
        """The objects of one image, given f (C,); raises ``DataError`` where its annotation is broken."""


def visible_object(name: str, target: int, mask: np.ndarray, boxes: np.ndarray | None = None) -> AnnotatedObject:
    """An object with this mask, or one that is left out because nothing of it is in view."""
    return AnnotatedObject(name, target, mask, boxes=boxes) if mask.any() else AnnotatedObject(name, skip=NOT_IN_VIEW)


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

    Example:
        >>> geometry = InputGeometry(size=100, resize=100, fit="squash")
        >>> box_to_view((0, 0, 99, 49), (200, 100), (200, 100), geometry)
        (0, 0, 49, 49)
    """
    left, top, width, height = geometry.window(image)
    ends: list[int] = []
    for low, high, of, on, start, extent, pixels in (
        (box[0], box[2], annotated[0], image[0], left, width, geometry.shape[1]),
        (box[1], box[3], annotated[1], image[1], top, height, geometry.shape[0]),
    ):
        # A pixel p covers [p, p + 1): scale the edges, not the pixels' numbers.
        first, last = ((edge * on / of - start) / extent * pixels for edge in (low, high + 1))
        if last <= 0 or first >= pixels:
            return None
        begin = min(max(math.floor(first + 0.5), 0), pixels - 1)
        end = min(max(math.floor(last + 0.5), begin + 1), pixels)
        ends += [begin, end - 1]
    return ends[0], ends[2], ends[1], ends[3]


def boxes_in_view(boxes: Iterable[Box], annotated: tuple[int, int], image: tuple[int, int], geometry: InputGeometry) -> np.ndarray:
    """Boxes of an annotation on the network's view, shape (m, 4); those outside a crop are left out.

    Parameters
    ----------
    boxes
        Pixels of the annotated picture.
    annotated, image
        Width and height of the annotated picture and of the picture on disk, as in :func:`box_to_view`.
    geometry
        How the picture becomes the view.
    """
    found = [seen for box in boxes if (seen := box_to_view(box, annotated, image, geometry)) is not None]
    return np.array(found) if found else NO_BOXES


def mask_to_view(mask: np.ndarray, geometry: InputGeometry) -> np.ndarray:
    """A mask (h, w) of the picture, at any resolution, on the network's view: bool (size, size), nearest pixel."""
    left, top, width, height = geometry.window((mask.shape[1], mask.shape[0]))
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    view = picture.resize(geometry.shape[::-1], Image.Resampling.NEAREST, box=(left, top, left + width, top + height))
    return np.asarray(view) > 0


def mask_of_boxes(boxes: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """The union of boxes (n, 4) as a mask, bool (size, size), or (height, width) where both are given.

    Example:
        >>> mask_of_boxes(np.array([[0, 0, 1, 0]]), 2).astype(int).tolist()
        [[1, 1], [0, 0]]
    """
    mask = np.zeros((size, size) if isinstance(size, int) else size, dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def extent(mask: np.ndarray) -> Box:
    """The box of a mask (h, w) that is not empty.

    Example:
        >>> extent(np.array([[False, True, True], [False, True, False]]))
        (1, 0, 2, 1)
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
