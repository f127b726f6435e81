"""Pictures from arrays: pure functions, no Streamlit."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from chipcore import maps, visualization
from chipcore.images import InputGeometry, as_rgb
from explorer.figures.fonts import font

SIDE = 512  # pixels of a picture in the strip: crisp where six of them share a 1920-pixel screen
PAPER, INK, QUIET = (253, 252, 250), (31, 27, 22), (110, 102, 92)


def enlarged(view: Image.Image, side: int = SIDE) -> Image.Image:
    """The network's view at display size."""
    return view.resize((side, side), Image.Resampling.LANCZOS)


def whole_image(image: Image.Image, geometry: InputGeometry, side: int = SIDE) -> Image.Image:
    """The image in its own shape, upright, at most ``side`` pixels; a frame around what a crop leaves of it."""
    picture = as_rgb(image).copy()  # the image itself, where it is RGB already
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    if geometry.fit == "crop":
        cut = min(picture.size) * geometry.size / geometry.resize
        left, top = ((length - cut) / 2 for length in picture.size)
        draw = ImageDraw.Draw(picture)
        for color, width in (("black", 5), ("white", 2)):
            draw.rectangle((left, top, left + cut - 1, top + cut - 1), outline=color, width=width)
    return picture


def chip_picture(
    image: Image.Image, raw: Tensor, size: int, *, colormap: str = "inferno", opacity: float = 0.6, maximum: float | None = None,
    signed: bool = False, smoothing: maps.Smoothing = "bilinear",
) -> Image.Image:  # fmt: skip
    """A raw map (u, v) on the enlarged view.

    The map is first brought to the network's input of ``size`` pixels (the contract of ``maps.picture``),
    then enlarged like the view, so that the screen shows no more than was computed. ``signed`` draws both signs
    in a diverging color map of its own.
    """
    picture = maps.upsample(maps.picture(raw, size, maximum=maximum, signed=signed, smoothing=smoothing), image.width)
    return visualization.overlay(image, picture, colormap=visualization.SIGNED_COLORMAP if signed else colormap, opacity=opacity)


def blank_picture(image: Image.Image) -> Image.Image:
    """The image in pale gray: the place of a map that is not there."""
    gray = ImageOps.grayscale(image).convert("RGB")
    return Image.blend(gray, Image.new("RGB", gray.size, (128, 128, 128)), 0.6)


def circled(picture: Image.Image, row: int, column: int, shape: tuple[int, int]) -> Image.Image:
    """A ring around the cell (row, column) of a map of this shape, visible on light and dark alike."""
    marked = picture.copy()
    draw = ImageDraw.Draw(marked)
    x, y = (column + 0.5) / shape[1] * picture.width, (row + 0.5) / shape[0] * picture.height
    radius = picture.width * 0.05
    for color, width, extra in (("black", 10, 2), ("white", 5, 0)):
        r = radius + extra
        draw.ellipse((x - r, y - r, x + r, y + r), outline=color, width=width)
    return marked


def jpeg(picture: Image.Image) -> bytes:
    """For the screen: no loss that could be seen, at full color resolution, twenty times faster than PNG."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def png(picture: Image.Image) -> bytes:
    """For keeping: exactly these pixels."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def data_uri(picture: Image.Image) -> str:
    """A small picture as text that can stand in a style sheet."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture.convert("RGB"))).decode()


@dataclass(frozen=True)
class FigurePanel:
    """One picture of a printed strip, with a heading and a line below."""

    picture: Image.Image
    heading: str
    line: str


def strip(panels: Sequence[FigurePanel], title: str, side: int = SIDE) -> Image.Image:
    """The panels side by side with their captions, on paper: what the download gives."""
    gap, top, bottom = side // 20, side // 5, side // 4
    sheet = Image.new("RGB", (gap + len(panels) * (side + gap), top + side + bottom), PAPER)
    draw = ImageDraw.Draw(sheet)
    large, medium, small = (side * part // 1000 for part in (76, 58, 48))
    draw.text((gap, top / 2), title, fill=INK, font=font(title, large), anchor="lm")
    for i, panel in enumerate(panels):
        left = gap + i * (side + gap)
        sheet.paste(panel.picture.resize((side, side)), (left, top))
        draw.text((left, top + side + side // 14), panel.heading, fill=INK, font=font(panel.heading, medium), anchor="lm")
        draw.text((left, top + side + side // 6), panel.line, fill=QUIET, font=font(panel.line, small), anchor="lm")
    return sheet


def gradient(colormap: str, steps: int = 12) -> str:
    """The color map from 0 (the signed one: from the largest value against) to its maximum as a CSS gradient, for the legend."""
    first = -1 if colormap == visualization.SIGNED_COLORMAP else 0
    colors = visualization.colorize(np.linspace(first, 1, steps, dtype=np.float32)[None], colormap)[0]
    return "linear-gradient(90deg, " + ", ".join("#{:02x}{:02x}{:02x}".format(*color) for color in colors) + ")"
