"""Annotations of photographs that EXIF turns: made on the pixels as stored, or on the upright photograph.

Some tools (labelImg, cocoapi) read the stored pixels, others turn them first, and no annotation says which. Where EXIF
swaps the sides, the annotation's size tells; where nothing tells, one sentence says so and nothing is measured.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from chipcore.errors import DataError
from chipcore.images import exif_orientation

Box = tuple[int, int, int, int]
_SAME = 0.02  # of two aspects: a photograph that was resized has whole pixels

# From the stored pixels (h, w) to the upright ones, by EXIF's number.
_TURN: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
    5: lambda a: a.T, 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a),
}  # fmt: skip


def annotated_orientation(annotated: tuple[int, int], image: tuple[int, int], orientation: int, name: str) -> int:
    """By which of EXIF's turns an annotation comes to lie on the upright photograph: 1 is none.

    Parameters
    ----------
    annotated
        Width and height that the annotation gives.
    image
        Width and height of the photograph, upright.
    orientation
        EXIF's number, see :func:`chipcore.images.exif_orientation`.
    name
        The annotation, in what is said of it.

    Raises
    ------
    DataError
        It can't be told.

    Examples
    --------
    >>> annotated_orientation((200, 300), (300, 200), 6, "stored.xml"), annotated_orientation((300, 200), (300, 200), 6, "upright.xml")
    (6, 1)
    """
    upright, stored = _same_aspect(annotated, image), _same_aspect(annotated, image[::-1])
    size = f"{annotated[0]} x {annotated[1]}"
    if orientation == 1:
        if stored and not upright:
            raise DataError(
                f"{name} is for {size} pixels, but the photograph has {image[0]} x {image[1]} and does not say how it was turned."
            )
        return 1
    if orientation >= 5 and upright != stored:
        return 1 if upright else orientation
    raise DataError(
        f"EXIF turns the photograph of {name}, and a size of {size} does not tell whether the annotation was made before or after; "
        "save the photograph upright, without EXIF, and annotate that."
    )


def _same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) < _SAME


def turn_box(box: Box, stored: tuple[int, int], orientation: int) -> Box:
    """A box of the stored pixels, both ends inside, on the upright photograph; ``stored`` is their width and height.

    Examples
    --------
    >>> turn_box((10, 79, 170, 199), (200, 300), 6)
    (100, 10, 220, 170)
    """
    (x0, y0, x1, y1), (width, height) = box, stored
    if orientation in (2, 3, 7, 8):  # what was on the right is then on the left, or above
        x0, x1 = width - 1 - x1, width - 1 - x0
    if orientation in (3, 4, 6, 7):
        y0, y1 = height - 1 - y1, height - 1 - y0
    return (y0, x0, y1, x1) if orientation >= 5 else (x0, y0, x1, y1)


def turn_size(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of the upright photograph."""
    return (stored[1], stored[0]) if orientation >= 5 else stored


def upright_mask(mask: np.ndarray, image: Image.Image, name: str) -> np.ndarray:
    """A mask (h, w) as it lies on the upright photograph; raises as :func:`annotated_orientation`."""
    size = (mask.shape[1], mask.shape[0])
    return _TURN[annotated_orientation(size, image.size, exif_orientation(image), name)](mask)
