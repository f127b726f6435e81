"""From a file to the network's input, by one geometry.

A image is turned upright (EXIF), flattened on white where it is transparent, made RGB and fitted to
the network's input by a named rule. Every map is drawn on exactly that view, so a map and its image
always agree. ``squash`` keeps the whole image and changes its aspect; ``crop`` keeps the aspect and
loses the borders.
"""

from __future__ import annotations

import io
import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from chipcore.errors import ImageError, SettingsError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 50_000_000  # a 50-megapixel camera; decoding it takes 150 MB
MAX_SIDE = 8192  # of a network's input

Fit = Literal["squash", "crop"]


@dataclass(frozen=True)
class InputGeometry:
    """How a image becomes a network's input.

    ``size`` is the input's side in pixels, ``fit`` the rule; for ``crop`` the short side is first resized
    to ``resize`` pixels. Values are scaled to [0, 1], then ``(x - mean) / std`` per RGB channel.
    """

    size: int = 224
    fit: Fit = "crop"
    resize: int = 256
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        if self.size < 1 or self.resize < self.size:
            raise SettingsError(f"input size {self.size} and resize {self.resize} do not fit: give 1 <= size <= resize.")
        if self.resize > MAX_SIDE:
            raise SettingsError(f"input size {self.size} and resize {self.resize} are too large; give at most {MAX_SIDE} pixels.")
        if self.fit not in ("squash", "crop"):
            raise SettingsError(f"there is no fit rule {self.fit!r}; give squash or crop.")
        if not all(0 < value < math.inf for value in self.std):
            raise SettingsError("every std of the normalisation must be a number above 0.")
        if not all(math.isfinite(value) for value in self.mean):
            raise SettingsError("every mean of the normalisation must be a finite number.")

    def view(self, image: Image.Image) -> Image.Image:
        """The image as the network sees it: RGB, ``size`` x ``size`` pixels."""
        image = as_rgb(image)
        filtering = Image.Resampling.BICUBIC if self.interpolation == "bicubic" else Image.Resampling.BILINEAR
        if self.fit == "squash":
            return image.resize((self.size, self.size), filtering)
        # Cut the square out first and resize it once: the same picture as resizing everything, cropping
        # afterwards, without a 5,000-pixel strip in memory for a 1 x 5,000 image.
        side = min(image.size) * self.size / self.resize
        left, top = (image.width - side) / 2, (image.height - side) / 2
        return image.resize((self.size, self.size), filtering, box=(left, top, left + side, top + side))

    def tensor(self, image: Image.Image) -> Tensor:
        """Normalized input, shape (3, size, size), float32."""
        return self.normalize(torch.from_numpy(np.asarray(self.view(image)).copy()))

    def normalize(self, view: Tensor) -> Tensor:
        """uint8 views (..., size, size, 3) to normalized float32 (..., 3, size, size)."""
        mean = torch.tensor(self.mean, device=view.device)
        std = torch.tensor(self.std, device=view.device)
        return ((view.to(torch.float32) / 255 - mean) / std).movedim(-1, -3)


def as_rgb(image: Image.Image) -> Image.Image:
    """Upright, flattened on white and RGB; the first frame of an animation; 16-bit grays scaled to 8.

    Raises ``ImageError`` for pixels that are no colors: floating-point numbers have no known range.
    """
    image = _upright(image)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # I, I;16, I;16B: Pillow's convert() would clip at 255, not scale
        values = np.asarray(image).astype(np.float64)
        scale = 257.0 if image.mode != "I" or values.max(initial=0) > 255 else 1.0
        return Image.fromarray(np.clip(values / scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError("this photograph's pixels are floating-point numbers, whose range nobody knows; save it with 8 or 16 bits.")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says; damaged EXIF says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # Pillow's parser raises many types
        return image


def open_image(source: str | Path | bytes, name: str = "") -> Image.Image:
    """Decode a image from a path or from bytes.

    The size is checked before anything is decoded. Raises ``ImageError`` with one sentence for whatever is
    not a image: a missing file, a folder, text, a truncated file, or more than ``MAX_PIXELS`` pixels.
    """
    label = name or (str(source) if not isinstance(source, bytes) else "this file")
    stream: io.BytesIO | Path
    if isinstance(source, bytes):
        stream = io.BytesIO(source)
    else:
        stream = Path(source)
        try:
            kind = stream.stat().st_mode
        except PermissionError:
            raise ImageError(f"{label} may not be read; check its permissions.") from None
        except (OSError, ValueError):  # a name that is too long, or holds a zero byte
            raise ImageError(f"{label} does not exist; check the path.") from None
        if stat.S_ISDIR(kind):
            raise ImageError(f"{label} is a folder; give a photograph.")
        if not stat.S_ISREG(kind):  # reading a pipe would wait for ever
            raise ImageError(f"{label} is not a file; give a photograph.")
    try:
        with Image.open(stream, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{label} has {image.width} x {image.height} pixels; give at most {MAX_PIXELS // 10**6} million.")
            image.load()
            return as_rgb(image)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"{label} has more pixels than we decode; give at most {MAX_PIXELS // 10**6} million.") from None
    except PermissionError:
        raise ImageError(f"{label} may not be read; check its permissions.") from None
    except Exception:  # Pillow's readers raise whatever comes up in a damaged file
        raise ImageError(f"{label} is not a photograph we can read (JPEG, PNG, WebP, GIF, BMP or TIFF, whole).") from None


def as_image(given: Any, name: str = "") -> Image.Image:
    """An image, upright and RGB, from what people hold one in.

    Args:
        given: a path or a file's bytes; a PIL image; an array (H, W, 3), (H, W, 1) or (H, W), or a tensor (3, H, W) or (1, H, W),
            of uint8 or of floating-point numbers in [0, 1].
        name: what a person calls it, for the sentence of an error.

    Raises:
        ImageError: anything else, or numbers outside their range.

    >>> as_image(torch.ones(3, 4, 6)).size
    (6, 4)
    """
    label = name or "the image"
    if isinstance(given, str | Path | bytes):
        return open_image(given, name)
    if isinstance(given, Image.Image):
        return as_rgb(given)
    if isinstance(given, Tensor):
        given = given.detach().cpu().movedim(0, -1).numpy() if given.ndim == 3 else given.detach().cpu().numpy()
    if not isinstance(given, np.ndarray):
        raise ImageError(f"{label} is a {type(given).__name__}; give a path, a PIL image, an array or a tensor.")
    if given.ndim == 2:
        given = given[:, :, None]
    if given.ndim != 3 or given.shape[2] not in (1, 3) or not given.size:
        raise ImageError(f"{label} has the shape {given.shape}; give an array (height, width, 3) or a tensor (3, height, width).")
    if given.dtype.kind == "f":
        # Written so that NaN is outside, too.
        if not (given.min() >= 0 and given.max() <= 1):
            raise ImageError(f"{label} has values outside 0 to 1; give the pixels before normalization.")
        given = (given * 255).round().astype(np.uint8)
    if given.dtype != np.uint8:
        raise ImageError(f"{label} holds {given.dtype}; give uint8, or floating-point numbers in 0 to 1.")
    return Image.fromarray(np.repeat(given, 3 // given.shape[2], axis=2))
