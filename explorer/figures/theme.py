"""Matplotlib figures as pictures: one look for all, in the theme's light or dark colours.

Never pyplot, which is not thread-safe: every figure is a ``matplotlib.figure.Figure`` of its own.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["DARK", "LIGHT", "SHARP", "Look", "axes", "drawing", "figure", "look"]
SHARP = 1.6  # pixels of the picture for one on the screen


def figure(width: float, height: float) -> Figure:
    """An empty figure of so many screen pixels."""
    return Figure(figsize=(width / 100, height / 100), dpi=100)


def axes(drawn: Figure, style: Look, across: str = "", up: str = "") -> Axes:
    """Axes with the theme's colours, a line at the bottom and on the left only, and large numbers."""
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


def drawing(drawn: Figure, style: Look) -> Image.Image:
    """The figure as RGB on the theme's paper."""
    stream = io.BytesIO()
    drawn.savefig(stream, format="png", dpi=100 * SHARP, facecolor=style.paper)
    return Image.open(stream).convert("RGB")


@dataclass(frozen=True)
class Look:
    """Colours of a figure: what is written, what is quiet, and the classes' or lines' own."""

    paper: str
    ink: str
    quiet: str
    colours: tuple[str, ...]


# Told apart by colour-blind people too (after Okabe and Ito), strong enough for a projector.
LIGHT = Look("#fdfcfa", "#1f1b16", "#6e665c", ("#c2410c", "#0f6cbf", "#0b7a5e", "#8b5cb0"))


DARK = Look("#121014", "#f0ebe4", "#a9a199", ("#fb923c", "#5fb0ff", "#3fc7a0", "#c79bea"))


def look(dark: bool) -> Look:
    return DARK if dark else LIGHT
