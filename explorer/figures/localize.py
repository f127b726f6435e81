"""Figures of the page Localize: a cut map on its image, IoU against the threshold, and mosaics. No Streamlit."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from chipcore import visualization
from chipcore.evaluation.boxes import THRESHOLDS, best_threshold
from chipcore.evaluation.cutting import ThresholdedMap
from chipcore.methods import METHODS
from explorer.figures.pictures import chip_picture

TRUTH, FOUND = (255, 255, 255), (34, 211, 238)  # as in explorer/components/overlays.py
# Margins of the chart in pixels; style.css places the line of the threshold by them. No legend, for it would move them: the table of
# scores below the chart has the colors.
HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 58, 16, 12, 52
# Told apart by every kind of color vision (Okabe and Ito), and readable on light and dark.
_COLOURS = ("#e8710a", "#3b9bdc", "#14a37f", "#c9569b", "#d0a215", "#8a63d2", "#7a7f87")


def colors(methods: Sequence[str]) -> dict[str, str]:
    return {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(methods)}


def cut_picture(
    view: Image.Image, shares: np.ndarray, cut: ThresholdedMap, *, colormap: str, opacity: float, scale: int = 3
) -> Image.Image:
    """What a threshold keeps: in color what is above it, outlined its largest component, the rest dim and gray.

    Args:
        view: the image as the network sees it, (size, size).
        shares: the map as shares of its maximum, (size, size).
        cut: of that map.
        scale: whole number of screen pixels a pixel of the view.
    """
    side = view.width * scale
    large = view.resize((side, side), Image.Resampling.LANCZOS)
    drawn = np.asarray(
        visualization.overlay(view, shares, colormap=colormap, opacity=opacity).resize((side, side), Image.Resampling.BILINEAR)
    )
    gray = np.asarray(ImageOps.grayscale(large).convert("RGB")) * 0.45
    mask, largest = (np.kron(one, np.ones((scale, scale), dtype=bool)) for one in (cut.mask, cut.largest))
    picture = np.where(mask[..., None], drawn, gray).astype(np.uint8)
    picture[_outline(largest)] = (255, 255, 255)
    return Image.fromarray(picture)


def _outline(mask: np.ndarray, width: int = 2) -> np.ndarray:
    """The inner edge of a mask (h, w)."""
    inner = mask.copy()
    for _ in range(width):
        shrunk = inner.copy()
        shrunk[1:] &= inner[:-1]
        shrunk[:-1] &= inner[1:]
        shrunk[:, 1:] &= inner[:, :-1]
        shrunk[:, :-1] &= inner[:, 1:]
        inner = shrunk
    edge: np.ndarray = mask & ~inner
    return edge


def with_boxes(picture: Image.Image, size: int, truth: np.ndarray, found: Sequence[int] | None) -> Image.Image:
    """The same with true boxes (white) and the found one (cyan) drawn in, for keeping; boxes in pixels of a view of ``size``."""
    marked = picture.copy()
    draw, scale = ImageDraw.Draw(marked), picture.width / size
    for box, color in (*((one, TRUTH) for one in truth), *(((found, FOUND),) if found is not None else ())):
        place = [box[0] * scale, box[1] * scale, (box[2] + 1) * scale - 1, (box[3] + 1) * scale - 1]
        draw.rectangle(place, outline=(0, 0, 0), width=6)
        draw.rectangle([place[0] + 1, place[1] + 1, place[2] - 1, place[3] - 1], outline=color, width=3)
    return marked


def curves(of: Mapping[str, np.ndarray]) -> go.Figure:
    """IoU against the threshold, a line a method, its best threshold marked."""
    figure = go.Figure()
    figure.add_hline(y=0.5, line={"dash": "dot", "width": 1.5, "color": "rgba(128, 128, 128, 0.8)"})
    figure.add_annotation(x=1, y=0.5, text="counted as found", showarrow=False, xanchor="right", yanchor="bottom", font={"size": 13})
    color = colors(list(of))
    for name, values in of.items():
        title = METHODS[name].title
        figure.add_scatter(
            x=THRESHOLDS, y=values, name=title, mode="lines", line={"color": color[name], "width": 3},
            hovertemplate=f"{title}<br>threshold %{{x:.0%}}<br>IoU %{{y:.2f}}<extra></extra>",
        )  # fmt: skip
        threshold, height = best_threshold(values)
        if height > 0:
            figure.add_scatter(
                x=[threshold], y=[height], mode="markers", showlegend=False, cliponaxis=False, marker={"color": color[name], "size": 13, "line": {"width": 2, "color": "white"}},
                hovertemplate=f"{title} is best here<br>threshold %{{x:.0%}}<br>IoU %{{y:.2f}}<extra></extra>",
            )  # fmt: skip
    figure.update_layout(
        height=HEIGHT, margin={"l": LEFT, "r": RIGHT, "t": TOP, "b": BOTTOM}, hovermode="closest", showlegend=False,
    )  # fmt: skip
    figure.update_xaxes(
        title="threshold, as a share of the map’s maximum", range=[0, 1], tickformat=".0%", fixedrange=True, automargin=False, title_font={"size": 15},
    )  # fmt: skip
    figure.update_yaxes(title="IoU with the true box", range=[0, 1.02], fixedrange=True, automargin=False, title_font={"size": 15})
    return figure


def scores(rows: Sequence[Sequence[str]], heads: Sequence[tuple[str, str]], marks: Sequence[str], chosen: int = -1) -> str:
    """A table of numbers as HTML.

    Args:
        rows: the cells of each row, its name first.
        heads: (name, meaning) of each column after the first.
        marks: a color a row, or '' for none.
        chosen: the row that is set in bold.
    """
    head = "".join(f'<th scope="col"><abbr title="{html.escape(meaning)}">{html.escape(name)}</abbr></th>' for name, meaning in heads)
    lines = []
    for place, (cells, mark) in enumerate(zip(rows, marks, strict=True)):
        dot = f'<i style="background: {mark}"></i>' if mark else ""
        body = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells[1:])
        bold = ' class="chosen"' if place == chosen else ""
        lines.append(f'<tr{bold}><th scope="row">{dot}{html.escape(cells[0])}</th>{body}</tr>')
    return f'<table class="chip-scores"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def mosaic_map(mosaic: Image.Image, raw: Tensor | None, cell: int, *, colormap: str, opacity: float, side: int = 512) -> Image.Image:
    """A map on a mosaic of four, with a frame around the cell that it should be in.

    Args:
        mosaic: as the network saw it, square.
        raw: the map (u, v), or None for none.
        cell: 0 to 3 in reading order.
        side: of the result in pixels.
    """
    image = mosaic.resize((side, side), Image.Resampling.LANCZOS)
    if raw is not None and float(raw.max()) > 0:
        picture = chip_picture(image, raw, mosaic.width, colormap=colormap, opacity=opacity, maximum=float(raw.max()))
    else:
        picture = image.copy()
    draw, half = ImageDraw.Draw(picture), side // 2
    left, top = half * (cell % 2), half * (cell // 2)
    draw.rectangle([left, top, left + half - 1, top + half - 1], outline=(0, 0, 0), width=9)
    draw.rectangle([left + 2, top + 2, left + half - 3, top + half - 3], outline=TRUTH, width=5)
    return picture
