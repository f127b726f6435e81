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
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, features
from torch import Tensor

from chipcore.errors import ImageError, ImageNotice, SettingsError

# Pillow's name of every format that is read, with the endings its files go by. Its JPEG reads MPO, which phones write into .jpg.
_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"), "PNG": (".png", ".apng"), "WEBP": (".webp",), "GIF": (".gif",),
    "BMP": (".bmp", ".dib"), "TIFF": (".tif", ".tiff"), "JPEG2000": (".jp2", ".j2k", ".jpx"), "AVIF": (".avif", ".avifs"),
}  # fmt: skip
HEIF_ENDINGS = (".heic", ".heif", ".hif")  # what iPhones write; pillow-heif reads them where it is installed
# Pillow can be built without these two.
_BUILT = {"AVIF": "avif", "JPEG2000": "jpg_2000"}
FORMATS = tuple(name for name in _ENDINGS if name not in _BUILT or features.check(_BUILT[name]))
SUFFIXES = tuple(ending for name in FORMATS for ending in _ENDINGS[name])
KINDS = "JPEG, PNG, WebP, GIF, BMP, TIFF, JPEG 2000 or AVIF"
MAX_PIXELS = 50_000_000  # a 50-megapixel camera; decoding it takes 150 MB
MAX_SIDE = 8192  # of a network's input

Fit = Literal["squash", "crop"]


@dataclass(frozen=True)
class InputGeometry:
    """How an image becomes a network's input.

    ``size`` is the input's side in pixels, or its height where ``width`` is another; ``fit`` is the rule. For ``crop`` the short side
    is first resized to ``resize`` pixels, so that ``size / resize`` of the image is kept. Values are scaled to [0, 1], then
    ``(x - mean) / std`` per channel. ``channels`` is 3 (RGB) or 1 (gray); a gray network's view is gray too.
    """

    size: int = 224
    fit: Fit = "crop"
    resize: int = 256
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    width: int | None = None
    channels: int = 3

    def __post_init__(self) -> None:
        if self.width == self.size:
            object.__setattr__(self, "width", None)  # square inputs have one form, which W is compared by
        if self.size < 1 or self.resize < self.size or (self.width is not None and self.width < 1):
            raise SettingsError(f"input size {self.size} and resize {self.resize} do not fit: give 1 <= size <= resize.")
        if max(self.resize, *self.shape) > MAX_SIDE:
            raise SettingsError(f"input size {self.size} and resize {self.resize} are too large; give at most {MAX_SIDE} pixels.")
        if self.fit not in ("squash", "crop"):
            raise SettingsError(f"there is no fit rule {self.fit!r}; give squash or crop.")
        if self.channels not in (1, 3) or len(self.mean) != self.channels or len(self.std) != self.channels:
            raise SettingsError("an input has one channel or three, and as many values of mean and std.")
        if not all(0 < value < math.inf for value in self.std):
            raise SettingsError("every std of the normalisation must be a number above 0.")
        if not all(math.isfinite(value) for value in self.mean):
            raise SettingsError("every mean of the normalisation must be a finite number.")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.size, self.size if self.width is None else self.width

    def window(self, image: tuple[int, int]) -> tuple[float, float, float, float]:
        """The part of an image (width, height) that the network sees: left, top, width, height in pixels of the image."""
        if self.fit == "squash":
            return 0.0, 0.0, float(image[0]), float(image[1])
        height, width = self.shape
        scale = min(image[0] / width, image[1] / height) * self.size / self.resize
        across, down = width * scale, height * scale
        return (image[0] - across) / 2, (image[1] - down) / 2, across, down

    def view(self, image: Image.Image) -> Image.Image:
        """The image as the network sees it: RGB, of the input's height and width."""
        image = as_rgb(image)
        filtering = Image.Resampling.BICUBIC if self.interpolation == "bicubic" else Image.Resampling.BILINEAR
        # Cut the part out first and resize it once: the same picture as resizing everything, cropping
        # afterwards, without a 5,000-pixel strip in memory for a 1 x 5,000 image.
        left, top, across, down = self.window(image.size)
        box = None if self.fit == "squash" else (left, top, left + across, top + down)
        view = image.resize(self.shape[::-1], filtering, box=box)
        return view.convert("L").convert("RGB") if self.channels == 1 else view

    def tensor(self, image: Image.Image) -> Tensor:
        """Normalized input, shape (channels, h, w), float32."""
        return self.normalize(torch.from_numpy(np.asarray(self.view(image)).copy()))

    def normalize(self, view: Tensor) -> Tensor:
        """uint8 views (..., h, w, 3) to normalized float32 (..., channels, h, w)."""
        mean = torch.tensor(self.mean, device=view.device)
        std = torch.tensor(self.std, device=view.device)
        return ((view[..., : self.channels].to(torch.float32) / 255 - mean) / std).movedim(-1, -3)

    def colors(self, inputs: Tensor) -> Tensor:
        """Normalized inputs (..., channels, h, w) back to values around [0, 1]."""
        mean, std = (torch.tensor(values, device=inputs.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return inputs * std + mean


def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read here: :data:`FORMATS`, and HEIF where ``pillow-heif`` is installed."""
    return (*FORMATS, "HEIF") if _reads_heif() else FORMATS


def suffixes() -> tuple[str, ...]:
    """The endings of the files that are read here, lower case, with their dot."""
    return (*SUFFIXES, *HEIF_ENDINGS) if _reads_heif() else SUFFIXES


def _reads_heif() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def as_rgb(image: Image.Image) -> Image.Image:
    """Upright, flattened on white and RGB; the first frame of an animation; grays of more than 8 bits scaled to 8.

    How EXIF had the image turned stays known, see :func:`exif_orientation`. A gray image that uses 10, 12 or 14 of its 16
    bits, as scanners, microscopes and X-ray machines write them, is scaled by the bits it uses, with an ``ImageNotice``.

    Raises ``ImageError`` for pixels that are no colors: floating-point numbers have no known range.
    """
    orientation = exif_orientation(image)
    flat = _flattened(_upright(image))
    if orientation != 1:
        flat.info[_ORIENTATION] = orientation
    return flat


def _flattened(image: Image.Image) -> Image.Image:
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):  # I, I;16, I;16B: Pillow's convert() would clip at 255, not scale
        values = np.asarray(image).astype(np.float64)
        top = _full_scale(float(values.max(initial=0)))
        gray = np.clip(values * (255 / top), 0, 255)
        if isinstance(transparent, int):
            gray = np.where(values == transparent, 255, gray)
        return Image.fromarray(gray.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError("this photograph's pixels are floating-point numbers, whose range nobody knows; save it with 8 or 16 bits.")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or transparent is not None:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _full_scale(brightest: float) -> float:
    """White of a gray image of 16 or more bits, by the bits that its brightest pixel needs: files rarely say how many are used."""
    if brightest <= 255 or brightest > 2**14 - 1:
        return 255 if brightest <= 255 else 65535
    bits = next(bits for bits in (10, 12, 14) if brightest < 2**bits)
    _notice(
        f"a gray photograph of 16 bits uses {bits} or fewer, as X-rays and microscopes do; it was scaled from 0..{2**bits - 1}. "
        "If it is only dark, save it with 8 bits."
    )
    return 2**bits - 1


def _notice(sentence: str) -> None:
    warnings.warn(sentence, ImageNotice, stacklevel=2)


_ORIENTATION = "exif_orientation"  # in the ``info`` of an image that was turned upright


def exif_orientation(image: Image.Image) -> int:
    """How EXIF says, or said before :func:`as_rgb`, that an image is turned: 1 (not at all) to 8; 5 to 8 swap its sides.

    Annotations may have been made on the pixels as stored; this says how those have been turned since.

    Examples
    --------
    >>> stored = Image.new("RGB", (30, 20))
    >>> stored.getexif()[0x0112] = 6
    >>> exif_orientation(stored), exif_orientation(as_rgb(stored)), as_rgb(stored).size
    (6, 6, (20, 30))
    """
    try:
        told = image.info.get(_ORIENTATION) or image.getexif().get(0x0112, 1)
    except MemoryError:
        raise
    except Exception:  # Pillow's parser raises many types
        return 1
    return told if isinstance(told, int) and 1 <= told <= 8 else 1


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
        with Image.open(stream, formats=formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{label} has {image.width} x {image.height} pixels; give at most {MAX_PIXELS // 10**6} million.")
            deep = image.mode in ("RGB", "RGBA") and any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
            image.load()
            if deep and np.asarray(image)[..., :3].max(initial=0) < 64:
                _notice(f"{label} has 16 bits a color and uses 14 or fewer, so it is nearly black here; save it with 8 bits.")
            return as_rgb(image)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"{label} has more pixels than we decode; give at most {MAX_PIXELS // 10**6} million.") from None
    except PermissionError:
        raise ImageError(f"{label} may not be read; check its permissions.") from None
    except Exception:  # Pillow's readers raise whatever comes up in a damaged file
        raise ImageError(f"{label} is not a photograph we can read ({_kinds(label)}).") from None


def _kinds(label: str) -> str:
    if label.lower().endswith(HEIF_ENDINGS) and not _reads_heif():
        return "HEIC takes pillow-heif: pip install pillow-heif"
    return f"{KINDS}, whole"


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
