"""A figure on a slide."""

from __future__ import annotations

import io
from textwrap import fill

from matplotlib.figure import Figure
from PIL import Image

INK, QUIET = "#1f1b16", "#6e665c"
WIDE, HIGH, MARGIN = 40 / 3, 7.5, 0.4  # inches: 16:9, as presentation programs have it
POINTS = 16


def slide(figure: Figure, title: str, caption: str) -> Figure:
    """``figure`` as large as a slide of 16:9 allows, with ``title`` and ``caption``: beside it where it is high, below where it is wide.

    >>> [round(side, 2) for side in slide(Figure(figsize=(4, 6)), "Fig. 10", "The importance of channels.").get_size_inches().tolist()]
    [13.33, 7.5]
    """
    across, down = figure.get_size_inches()
    beside = across / down < 1.5
    page = Figure(figsize=(WIDE, HIGH), dpi=144)
    if beside:
        high = HIGH - 2 * MARGIN
        wide = min(across / down * high, WIDE - 2 * MARGIN - 4.2)
        high = wide * down / across
        left, bottom = MARGIN, (HIGH - high) / 2
        letters = int((WIDE - wide - 3 * MARGIN) * 72 / POINTS * 1.95)
        words = fill(caption, letters)
        page.text((left + wide + MARGIN) / WIDE, 1 - MARGIN / HIGH, title, fontsize=24, color=INK, fontweight="bold", va="top")
        page.text(
            (left + wide + MARGIN) / WIDE, 1 - (MARGIN + 0.65) / HIGH, words, fontsize=POINTS, color=INK, va="top", linespacing=1.35,
            parse_math=False,
        )  # fmt: skip
    else:
        words = fill(caption, int((WIDE - 2 * MARGIN) * 72 / POINTS * 1.95))
        foot = 0.33 * (words.count("\n") + 1) + MARGIN + 0.15
        room = HIGH - foot - MARGIN - 0.65
        wide = min(WIDE - 2 * MARGIN, across / down * room)
        high = wide * down / across
        left, bottom = (WIDE - wide) / 2, foot + (room - high) / 2
        page.text(MARGIN / WIDE, 1 - MARGIN / HIGH, title, fontsize=24, color=INK, fontweight="bold", va="top")
        page.text(MARGIN / WIDE, MARGIN / HIGH, words, fontsize=POINTS, color=INK, va="bottom", linespacing=1.35, parse_math=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=144 * wide / across * 1.25, facecolor="white")
    ax = page.add_axes((left / WIDE, bottom / HIGH, wide / WIDE, high / HIGH))
    ax.imshow(Image.open(picture), interpolation="lanczos", aspect="auto")
    ax.axis("off")
    return page
