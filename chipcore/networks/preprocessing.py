"""The geometry of a preprocessing function: its size, normalization and placement, found by trying.

A map is drawn on the view that the network sees, so from a function that only gives numbers the view has to be won back.
Four flat images give the normalization, an image of coordinates the placement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from chipcore.errors import SettingsError
from chipcore.images import InputGeometry, as_rgb

Preprocess = Callable[[Image.Image], Tensor]
_TRIED = (320, 240)  # width and height of the images it is tried on


class CallableGeometry(InputGeometry):
    """A geometry whose view is what ``preprocess`` gives, with its normalization taken off again."""

    preprocess: Preprocess | None

    def __init__(self, preprocess: Preprocess | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        object.__setattr__(self, "preprocess", preprocess)  # no field: it has no JSON, and W is compared by size, mean and std

    def view(self, image: Image.Image) -> Image.Image:
        """The image as the network sees it, RGB."""
        if self.preprocess is None:  # another size than the function's
            return super().view(image)
        values = (self.colors(_run(self.preprocess, as_rgb(image))).clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1)
        return Image.fromarray(values.permute(1, 2, 0).contiguous().numpy())


def geometry_of_callable(preprocess: Preprocess) -> InputGeometry:
    """The geometry of a function from an RGB image to an input (channels, h, w).

    Where resizing or cropping by one of our own rules gives the same inputs, that rule is taken.

    Raises:
        SettingsError: what it gives is no input, or no linear function of the pixels.

    Example:
        >>> half = lambda image: torch.from_numpy(np.array(image.resize((8, 8), 2))).permute(2, 0, 1) / 127.5 - 1
        >>> found = geometry_of_callable(half)
        >>> found.shape, found.fit, [round(one, 3) for one in found.mean], type(found).__name__
        ((8, 8), 'squash', [0.5, 0.5, 0.5], 'InputGeometry')
    """
    black, gray, white = (_run(preprocess, Image.new("RGB", _TRIED, (value,) * 3)) for value in (0, 51, 255))
    low, high = black.mean((1, 2)), white.mean((1, 2))
    scale = high - low
    flat = all(float((one - one.mean((1, 2), keepdim=True)).abs().max()) < 1e-3 * (1 + float(scale.abs().max())) for one in (black, white))
    straight = torch.allclose(gray.mean((1, 2)), low + scale / 5, atol=1e-2 * float(scale.abs().max() + 1e-9))
    if not flat or not straight or not bool((scale > 0).all()):
        raise SettingsError("preprocess does not normalize linearly, or pads the image; give size, mean and std instead.")
    std, channels = 1 / scale, len(black)
    mean = -low * std
    plain = InputGeometry(
        size=black.shape[1], width=black.shape[2], resize=black.shape[1], fit="squash", channels=channels,
        mean=tuple(round(float(one), 6) for one in mean), std=tuple(round(float(one), 6) for one in std),
    )  # fmt: skip
    coordinates = Image.fromarray(_coordinates())
    wanted = _run(preprocess, coordinates)
    kept = _share_kept(plain, wanted)
    rules: list[dict[str, Any]] = [{"fit": "squash"}]
    if kept is not None:
        near = round(plain.size / kept)
        rules += [{"fit": "crop", "resize": max(plain.size, near + step)} for step in (0, -1, 1)]
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    random = Image.fromarray(blocks.repeat(80, 0).repeat(80, 1))  # coarse, so that a crop rounded to half a pixel still fits
    seen = _run(preprocess, random)
    tried = [replace(plain, interpolation=one, **rule) for rule in rules for one in ("bilinear", "bicubic")]
    errors = [float((one.tensor(random) - seen).abs().mean()) / float(scale.abs().max()) for one in tried]
    if min(errors) < 0.03:
        return tried[errors.index(min(errors))]
    return CallableGeometry(preprocess, **{one.name: getattr(plain, one.name) for one in fields(plain)})


def _run(preprocess: Preprocess, image: Image.Image) -> Tensor:
    try:
        given = preprocess(image)
    except Exception as error:  # user code may raise anything
        raise SettingsError(
            f"preprocess fails on an RGB image ({str(error).splitlines()[0] if str(error) else type(error).__name__})."
        ) from None
    if isinstance(given, Tensor) and given.ndim == 4 and len(given) == 1:
        given = given[0]
    if not isinstance(given, Tensor) or given.ndim != 3 or given.shape[0] not in (1, 3):
        kind = f"a tensor of shape {tuple(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
        raise SettingsError(f"preprocess gives {kind}; it must give a tensor (channels, height, width) with one channel or three.")
    return given.detach().cpu().float()


def _coordinates() -> np.ndarray:
    """Red grows from left to right, green from top to bottom."""
    width, height = _TRIED
    down, across = np.mgrid[0:height, 0:width]
    return np.stack([across / (width - 1), down / (height - 1), 0 * down], -1).__mul__(255).round().astype(np.uint8)


def _share_kept(geometry: InputGeometry, inputs: Tensor) -> float | None:
    """The share of an image's height that a crop keeps, from the coordinates that are seen; None for a gray network."""
    if geometry.channels == 1:
        return None
    seen = geometry.colors(inputs)[1]
    first, last = float(seen[0].mean()), float(seen[-1].mean())
    return min(1.0, max(0.05, (last - first) * geometry.size / max(1, geometry.size - 1)))
