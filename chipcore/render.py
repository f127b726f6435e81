"""A map on its photograph, as pixels."""

from __future__ import annotations

import matplotlib
import numpy as np
from PIL import Image
from torch import Tensor

# Perceptually uniform first; jet because older papers' figures use it.
COLOUR_MAPS = ("inferno", "viridis", "magma", "cividis", "turbo", "jet")
SIGNED_COLOUR_MAP = "RdBu_r"


def colour(picture: Tensor | np.ndarray, colour_map: str = "inferno") -> np.ndarray:
    """A picture in [0, 1] (or [-1, 1] for the signed map) as uint8 RGB, shape (size, size, 3)."""
    values: np.ndarray = np.asarray(picture, dtype=np.float32)
    if colour_map == SIGNED_COLOUR_MAP:
        values = (values + 1) / 2
    rgba = matplotlib.colormaps[colour_map](values, bytes=True)
    return np.ascontiguousarray(rgba[..., :3])


def overlay(view: Image.Image, picture: Tensor | np.ndarray, *, colour_map: str = "inferno", opacity: float = 0.6) -> Image.Image:
    """The map over the photograph: where the map is 0 the photograph stays as it is, darkened a little.

    ``opacity`` is that of the map's strongest pixels. Weak pixels are more transparent, so the photograph
    stays readable everywhere; ``opacity`` 1 and a map of 1 hide it.
    """
    values = np.abs(np.asarray(picture, dtype=np.float32))[..., None]
    photograph = np.asarray(view.convert("RGB"), dtype=np.float32)
    alpha = opacity * (0.35 + 0.65 * values)
    mixed = photograph * (1 - alpha) + colour(picture, colour_map).astype(np.float32) * alpha
    return Image.fromarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))
