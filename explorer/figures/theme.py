"""Matplotlib figures as pictures: one look for all, in the theme's light or dark colors.

Never pyplot, which is not thread-safe: every figure is a ``matplotlib.figure.Figure`` of its own.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from explorer.figures import fonts

PIXEL_RATIO = 1.6  # pixels of the picture for one on the screen


def figure(width: float, height: float) -> Figure:
    """An empty figure of so many screen pixels."""
    return Figure(figsize=(width / 100, height / 100), dpi=100)


def axes(drawn: Figure, style: Theme, across: str = "", up: str = "") -> Axes:
    """Axes with the theme's colors, a line at the bottom and on the left only, and large numbers."""
    ax = drawn.add_subplot()
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        ax.spines[side].set_color(style.quiet)
    ax.set_facecolor("none")
    ax.tick_params(colors=style.ink, labelsize=11, length=3)
    ax.set_xlabel(across, color=style.ink, fontsize=12)
    ax.set_ylabel(up, color=style.ink, fontsize=12)
    return ax


def render(drawn: Figure, style: Theme) -> Image.Image:
    """The figure as RGB on the theme's paper."""
    for text in drawn.findobj(Text):  # names of classes may be in any script
        assert isinstance(text, Text)
        text.set_fontfamily(fonts.families(text.get_text()))
    stream = io.BytesIO()
    drawn.savefig(stream, format="png", dpi=100 * PIXEL_RATIO, facecolor=style.paper)
    return Image.open(stream).convert("RGB")


@dataclass(frozen=True)
class Theme:
    """Colors of a figure: what is written, what is quiet, and the classes' or lines' own."""

    paper: str
    ink: str
    quiet: str
    colors: tuple[str, ...]


# Told apart by color-blind people too (after Okabe and Ito), strong enough for a projector.
LIGHT = Theme("#fdfcfa", "#1f1b16", "#6e665c", ("#c2410c", "#0f6cbf", "#0b7a5e", "#8b5cb0"))


DARK = Theme("#121014", "#f0ebe4", "#a9a199", ("#fb923c", "#5fb0ff", "#3fc7a0", "#c79bea"))


def theme_for(dark: bool) -> Theme:
    return DARK if dark else LIGHT
