"""Maps on images: the grids of Fig. 3, 4, 5, 8 and 9, and one row of them."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chipcore.analysis.paper_figures import Row
from chipcore.methods import METHODS, Saliency
from chipcore.visualization import colorize, overlay

INK, QUIET = "#1f1b16", "#6e665c"
CELL = 1.5  # inches of a picture in a grid
DIRECT = ("refined_chip", "guided_chip", "guided_gradcam", "guided_backprop", "deconvolution", "backprop")  # fine enough to be shown alone


def map_grid(rows: Sequence[Row], columns: Sequence[str], caption: str = "", *, first: Sequence[str] = ()) -> Figure:
    """Photographs down, maps across: the layout of Fig. 3, 4, 5, 8 and 9.

    Args:
        rows: from ``chipcore.analysis.paper_figures.row_of``, all with as many maps as there are ``columns``.
        columns: headings of the maps.
        caption: written below.
        first: what stands left of each row; the class by default.

    Returns:
        A figure with a column of images and one for each of ``columns``.
    """
    words = fill(caption, max(40, 20 * (len(columns) + 1)))
    lines = words.count("\n") + 1 if words else 0
    wide, high = CELL * (len(columns) + 1) + 0.45, CELL * len(rows) + 0.35 + 0.17 * lines
    figure = Figure(figsize=(wide, high), dpi=150)
    foot = (0.08 + 0.17 * lines) / high
    grid = figure.subplots(len(rows), len(columns) + 1, squeeze=False)
    figure.subplots_adjust(left=0.45 / wide, right=0.995, top=1 - 0.3 / high, bottom=foot, wspace=0.03, hspace=0.03)
    for r, row in enumerate(rows):
        for ax in grid[r]:
            _empty(ax)
        grid[r, 0].imshow(np.asarray(row.pick.view))
        label = first[r] if first else row.pick.label
        grid[r, 0].set_ylabel(fill(label, 16), fontsize=10, color=INK)
        for c, saliency in enumerate(row.maps):
            draw_map(grid[r, c + 1], saliency)
    for ax, title in zip(grid[0], ("original image", *columns), strict=True):
        ax.set_title(title, fontsize=10, color=INK, pad=4)
    if words:
        figure.text(0.02, 0.06 / high, words, fontsize=8, color=INK, va="bottom", ha="left", parse_math=False)
    return figure


def draw_map(ax: Axes, saliency: Saliency | str) -> None:
    """A map on its image; a fine one alone, as the paper shows Refined CHIP; in place of none the reason."""
    if isinstance(saliency, str):
        ax.text(0.5, 0.5, fill(saliency, 26), fontsize=4, color=QUIET, ha="center", va="center", transform=ax.transAxes, parse_math=False)
        return
    if saliency.method in DIRECT:
        # The square root, or a few pixels would be all that can be seen.
        ax.imshow(colorize(saliency.picture.sqrt(), "magma"))
        return
    ax.imshow(np.asarray(overlay(saliency.view, saliency.picture, colormap="turbo")))
    if saliency.state != "ok":
        ax.set_xlabel(saliency.state, fontsize=6, color=QUIET, labelpad=1)


def strip(saliencies: Sequence[Saliency], caption: str = "") -> Figure:
    """Maps side by side behind their image, each with its method, layer, class and f^c below.

    Args:
        saliencies: from ``chipcore.explain``, of any images.
        caption: written below.

    Returns:
        A figure of one row; a image stands before the first map of it.
    """
    pictures: list[Saliency | None] = []
    previous = b""
    images: list[Saliency] = []
    for one in saliencies:
        if one.view.tobytes() != previous:
            previous = one.view.tobytes()
            pictures.append(None)
            images.append(one)
        pictures.append(one)
    wide, high = 2.0 * max(1, len(pictures)), 2.75 if caption else 2.5
    figure = Figure(figsize=(wide, high), dpi=150)
    grid = figure.subplots(1, max(1, len(pictures)), squeeze=False)[0]
    figure.subplots_adjust(left=0.01, right=0.99, top=0.98, bottom=(0.75 if caption else 0.5) / high, wspace=0.04)
    left = iter(images)
    for ax, picture in zip(grid, pictures, strict=False):
        _empty(ax)
        if picture is None:
            ax.imshow(np.asarray(next(left).view))
            continue
        draw_map(ax, picture)
        ax.set_xlabel(
            f"{METHODS[picture.method].title}, {picture.layer}\n{picture.label}, p = {picture.probability:.2f}", fontsize=8, color=INK
        )
    if caption:
        figure.text(0.01, 0.06 / high, caption, fontsize=8, color=INK, va="bottom", parse_math=False)
    return figure


def _empty(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
