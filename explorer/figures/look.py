"""The colours of figures that are drawn for the theme, light or dark."""

from __future__ import annotations

from dataclasses import dataclass


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
