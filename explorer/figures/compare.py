"""Figures of the page Compare: a map of any method, a sheet of many, and tables that are pictures too. No Streamlit."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from chipcore import Saliency, maps
from chipcore.methods import METHODS
from explorer.figures.fonts import font
from explorer.figures.pictures import INK, PAPER, QUIET, FigurePanel, blank_picture, chip_picture, jpeg
from explorer.text import decimal

_AGAINST, _FOR = "37, 99, 235", "234, 88, 12"  # blue for -1, orange for +1: told apart by every kind of color vision


def map_picture(
    image: Image.Image, saliency: Saliency | None, size: int, *, colormap: str, opacity: float, maximum: float,
    smoothing: maps.Smoothing = "bilinear",
) -> Image.Image:  # fmt: skip
    """Any method's map on the enlarged view; pale gray where there is none; the image itself where the method draws one.

    Args:
        image: the view at display size.
        saliency: the map, or None.
        size: pixels of the network's input.
        maximum: the value drawn as the strongest color.
    """
    if saliency is not None and METHODS[saliency.method].is_image and saliency.image is not None:
        return method_image(saliency, image.width)
    if saliency is None or saliency.state != "ok":
        return blank_picture(image)
    return chip_picture(image, saliency.raw, size, colormap=colormap, opacity=opacity, maximum=maximum, smoothing=smoothing)


def describe_peak(raw: Tensor) -> str:
    """Where a map (u, v) is strongest, in words."""
    height, width = raw.shape
    row, column = divmod(int(raw.argmax()), width)
    return f"{('top', 'center', 'bottom')[min(2, 3 * row // height)]} {('left', 'middle', 'right')[min(2, 3 * column // width)]}"


def method_image(saliency: Saliency, side: int) -> Image.Image:
    """The color picture (3, h, w) that some methods make, at display size.

    Signed colors around gray are stretched until one in a hundred is as strong as it can be; a few pixels would
    leave the rest gray.
    """
    assert saliency.image is not None
    image = saliency.image
    if not METHODS[saliency.method].is_image:
        signed = image - 0.5
        strong = torch.quantile(signed.abs().flatten(), 0.99)
        image = 0.5 + signed * (0.5 / strong if strong > 0 else 1)
    pixels = (image.clamp(0, 1).permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)


def data_uri(picture: Image.Image) -> str:
    """A picture as text, at the quality of all pictures on the screen."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture)).decode()


def sheet(rows: Sequence[tuple[str, Sequence[FigurePanel]]], title: str, side: int = 384) -> Image.Image:
    """Rows of panels with their captions, each row under its name, on paper: what the download gives."""
    gap, top, head, foot = side // 16, side // 4, side // 7, side // 4
    widest = max(len(panels) for _name, panels in rows)
    height = top + len(rows) * (head + side + foot)
    picture = Image.new("RGB", (gap + widest * (side + gap), height), PAPER)
    draw = ImageDraw.Draw(picture)
    large, medium, small = (side * part // 1000 for part in (72, 56, 46))
    draw.text((gap, top / 2), title, fill=INK, font=font(title, large), anchor="lm")
    for number, (name, panels) in enumerate(rows):
        above = top + number * (head + side + foot)
        draw.text((gap, above + head / 2), name, fill=INK, font=font(name, medium), anchor="lm")
        for place, panel in enumerate(panels):
            left = gap + place * (side + gap)
            picture.paste(panel.picture.resize((side, side)), (left, above + head))
            draw.text((left, above + head + side + side // 14), panel.heading, fill=INK, font=font(panel.heading, medium), anchor="lm")
            draw.text((left, above + head + side + side // 6), panel.line, fill=QUIET, font=font(panel.line, small), anchor="lm")
    return picture


def matrix(names: Sequence[str], values: np.ndarray, caption: str) -> str:
    """A correlation matrix as an HTML table whose cells are colored: a heatmap that can be read aloud.

    Args:
        names: of the n maps.
        values: (n, n) in [-1, 1]; NaN where there is none.
        caption: what is correlated, for screen readers.
    """
    heads = "".join(f'<th scope="col"><abbr title="{html.escape(name)}">{number}</abbr></th>' for number, name in enumerate(names, 1))
    lines = []
    for number, (name, row) in enumerate(zip(names, values, strict=True), 1):
        cells = "".join(_cell(float(value)) for value in row)
        lines.append(f'<tr><th scope="row"><b>{number}</b> {html.escape(name)}</th>{cells}</tr>')
    return (
        f'<table class="chip-matrix"><caption>{html.escape(caption)}</caption><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _cell(value: float) -> str:
    if np.isnan(value):
        return "<td>none</td>"
    color = _FOR if value >= 0 else _AGAINST
    return f'<td style="background: rgba({color}, {0.75 * abs(value):.2f})">{decimal(value)}</td>'


@dataclass(frozen=True)
class Example:
    """A row of Table I: a method, its picture as a data URI ('' for none), what the picture shows or why there is none, its marks."""

    title: str
    source: str
    picture: str
    alternative: str
    line: str
    marks: Sequence[bool]


def examples(columns: Sequence[tuple[str, str]], groups: Sequence[tuple[str, Sequence[Example]]]) -> str:
    """Table I with a live example a row, as HTML.

    Args:
        columns: (name, meaning) of each property.
        groups: (heading, rows).
    """
    heads = "".join(f'<th scope="col"><abbr title="{html.escape(meaning)}">{html.escape(name)}</abbr></th>' for name, meaning in columns)
    bodies = []
    for heading, rows in groups:
        lines = "".join(_example(row) for row in rows)
        bodies.append(
            f'<tbody><tr><th class="group" scope="rowgroup" colspan="{2 + len(columns)}">{html.escape(heading)}</th></tr>{lines}</tbody>'
        )
    return f'<table class="chip-table1"><thead><tr><td></td><td></td>{heads}</tr></thead>{"".join(bodies)}</table>'


def _example(row: Example) -> str:
    seen = f'<img src="{row.picture}" alt="{html.escape(row.alternative)}">' if row.picture else f"<i>{html.escape(row.alternative)}</i>"
    cells = "".join('<td class="yes">✓<span>yes</span></td>' if mark else "<td><span>no</span></td>" for mark in row.marks)
    below = f"<small>{html.escape(row.line)}</small>" if row.line else ""
    title = f"{html.escape(row.title)}<small>{html.escape(row.source)}</small>{below}"
    return f'<tr><td class="picture">{seen}</td><th scope="row">{title}</th>{cells}</tr>'
