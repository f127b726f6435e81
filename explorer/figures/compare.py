"""Figures of the page Compare: a map of any method, a sheet of many, and tables that are pictures too. No Streamlit."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from chipcore import Saliency
from chipcore.methods import METHODS
from explorer.figures.pictures import FONT, INK, PAPER, QUIET, Panel, blank_picture, chip_picture, jpeg

_AGAINST, _FOR = "37, 99, 235", "234, 88, 12"  # blue for -1, orange for +1: told apart by every kind of colour vision


def map_picture(
    photograph: Image.Image, saliency: Saliency | None, size: int, *, colour_map: str, opacity: float, maximum: float | None = None
) -> Image.Image:
    """Any method's map on the enlarged view; pale grey where there is none; the image itself where the method draws one.

    Args:
        photograph: the view at display size.
        saliency: the map, or None.
        size: pixels of the network's input.
        maximum: the value drawn as the strongest colour; by default the raw map's own.
    """
    if saliency is not None and METHODS[saliency.method].is_image and saliency.image is not None:
        return own_image(saliency, photograph.width)
    if saliency is None or saliency.state != "ok":
        return blank_picture(photograph)
    top = float(saliency.raw.max()) if maximum is None else maximum
    return chip_picture(photograph, saliency.raw, size, colour_map=colour_map, opacity=opacity, maximum=top)


def own_image(saliency: Saliency, side: int) -> Image.Image:
    """The colour picture (3, h, w) that some methods make, at display size."""
    assert saliency.image is not None
    pixels = (saliency.image.clamp(0, 1).permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)


def uri(picture: Image.Image) -> str:
    """A picture as text, at the quality of all pictures on the screen."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture)).decode()


def sheet(rows: Sequence[tuple[str, Sequence[Panel]]], title: str, side: int = 384) -> Image.Image:
    """Rows of panels with their captions, each row under its name, on paper: what the download gives."""
    gap, top, head, foot = side // 16, side // 4, side // 7, side // 4
    widest = max(len(panels) for _name, panels in rows)
    height = top + len(rows) * (head + side + foot)
    picture = Image.new("RGB", (gap + widest * (side + gap), height), PAPER)
    draw = ImageDraw.Draw(picture)
    large, medium, small = (ImageFont.truetype(FONT, side * part // 1000) for part in (72, 56, 46))
    draw.text((gap, top / 2), title, fill=INK, font=large, anchor="lm")
    for number, (name, panels) in enumerate(rows):
        above = top + number * (head + side + foot)
        draw.text((gap, above + head / 2), name, fill=INK, font=medium, anchor="lm")
        for place, panel in enumerate(panels):
            left = gap + place * (side + gap)
            picture.paste(panel.picture.resize((side, side)), (left, above + head))
            draw.text((left, above + head + side + side // 14), panel.heading, fill=INK, font=medium, anchor="lm")
            draw.text((left, above + head + side + side // 6), panel.line, fill=QUIET, font=small, anchor="lm")
    return picture


def matrix(names: Sequence[str], values: np.ndarray, caption: str) -> str:
    """A correlation matrix as an HTML table whose cells are coloured: a heatmap that can be read aloud.

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
    colour = _FOR if value >= 0 else _AGAINST
    written = f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
    return f'<td style="background: rgba({colour}, {0.75 * abs(value):.2f})">{written}</td>'


def examples(columns: Sequence[tuple[str, str]], rows: Sequence[tuple[str, str, str, str, Sequence[bool], str]]) -> str:
    """Table I with a live example a row, as HTML.

    Args:
        columns: (name, meaning) of each property.
        rows: (title, source, picture as a data URI or '', alternative text, a mark a property, a line under the title).
    """
    heads = "".join(f'<th scope="col"><abbr title="{html.escape(meaning)}">{html.escape(name)}</abbr></th>' for name, meaning in columns)
    lines = []
    for title, source, picture, alternative, has, line in rows:
        seen = f'<img src="{picture}" alt="{html.escape(alternative)}">' if picture else f"<i>{html.escape(alternative)}</i>"
        cells = "".join(
            f'<td class="{"yes" if mark else "no"}">{"✓<span>yes</span>" if mark else "<span>no</span>"}</td>' for mark in has
        )
        below = f"<small>{html.escape(line)}</small>" if line else ""
        lines.append(
            f'<tr><td class="picture">{seen}</td><th scope="row">{html.escape(title)}<small>{html.escape(source)}</small>{below}</th>{cells}</tr>'
        )
    return f'<table class="chip-table1"><thead><tr><td></td><td></td>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
