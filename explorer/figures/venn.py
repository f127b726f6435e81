"""The Venn diagrams of Fig. 11, and the tree of classes: as SVG, drawn in a millisecond and sharp on any projector."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import dendrogram

from explorer.channels import Region
from explorer.figures.look import Look

_FACE = 'font-family="Source Sans, Segoe UI, Helvetica, Arial, sans-serif"'
_WIDE, _TALL = 480, 470
_RADIUS, _APART = 125, 145  # of the circles, and between the centres of any two
_LINE = 20  # between the lines of a name


def venn_picture(regions: Sequence[Region], labels: Sequence[str], style: Look) -> str:
    """Two or three classes as circles with the number of channels in every region.

    All circles are of one size: areas in proportion do not exist for most triples of numbers, and an empty region
    would have no place for its zero.

    Args:
        regions: from ``explorer.channels.regions``.
        labels: two or three names.
        style: colours.

    Returns:
        SVG.
    """
    towards = _towards(len(labels))
    middle = _WIDE / 2, _TALL / 2 - (0 if len(labels) == 2 else 18)
    # From the middle to each centre: the circumradius of the triangle, or half of the line.
    out = _APART / math.sqrt(3) if len(labels) == 3 else _APART / 2
    centres = [(middle[0] + out * x, middle[1] + out * y) for x, y in towards]
    parts = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}" fill="{colour}" fill-opacity="0.42" stroke="{colour}" stroke-width="2"/>'
        for (x, y), colour in zip(centres, style.colours, strict=False)
    ]
    for region in regions:
        x, y = _inside(region.members, towards)
        parts.append(_text(f"{len(region.channels):,}", middle[0] + x, middle[1] + y + 8, 24, style.ink, bold=True))
    for label, (x, y), (across, down) in zip(labels, centres, towards, strict=True):
        lines = _wrapped(label)
        top = y + _RADIUS + 26 if down > 0.5 else y - _RADIUS - 14 - _LINE * (len(lines) - 1)
        for number, line in enumerate(lines):
            parts.append(_text(line, x + 55 * across, top + _LINE * number, 18, style.ink))
    return _svg(_WIDE, _TALL, parts)


def _towards(count: int) -> list[tuple[float, float]]:
    """Unit vectors from the middle to each circle: left and right, or left, right and down."""
    if count == 2:
        return [(-1.0, 0.0), (1.0, 0.0)]
    return [(-math.cos(math.pi / 6), -0.5), (math.cos(math.pi / 6), -0.5), (0.0, 1.0)]


def _inside(members: Sequence[bool], towards: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """A place in the middle of a region, from the middle of the diagram."""
    inside = [way for way, member in zip(towards, members, strict=True) if member]
    if len(inside) == len(members):
        return 0.0, 0.0
    x, y = (sum(way[i] for way in inside) for i in (0, 1))
    # One circle alone lies further out than the overlap of two, which ends where the third begins.
    far = (133 if len(members) == 2 else 145) if len(inside) == 1 else 88
    return far * x, far * y


def _wrapped(label: str, width: int = 18) -> list[str]:
    lines = [""]
    for word in label.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


_ROW, _NAMES, _TREE = 26, 215, 300  # pixels: between two classes, for their names, for the branches


def tree_picture(linked: np.ndarray, labels: Sequence[str], chosen: str, style: Look) -> str:
    """A dendrogram of classes, from ``explorer.channels.tree``: the further left two branches meet, the less alike. SVG."""
    shown = dendrogram(linked, labels=list(labels), no_plot=True)
    far = max(float(np.max(linked[:, 2])), 1e-6)
    left, tall = 14, _ROW * len(labels)

    def across(distance: float) -> float:
        return left + _TREE * (1 - distance / far)

    def down(place: float) -> float:  # scipy puts the leaves at 5, 15, 25 ... from the bottom
        return tall - place / 10 * _ROW + 6

    parts = []
    for places, distances in zip(shown["icoord"], shown["dcoord"], strict=True):
        line = " ".join(f"{across(distance):.1f},{down(place):.1f}" for place, distance in zip(places, distances, strict=True))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{style.colours[0]}" stroke-width="2"/>')
    for number, label in enumerate(shown["ivl"]):
        marked = label == chosen
        colour = style.colours[0] if marked else style.ink
        parts.append(_text(_cut(label), left + _TREE + 10, down(5 + 10 * number) + 5, 16, colour, bold=marked, anchor="start"))
    bottom = tall + 14
    parts.append(f'<path d="M{left} {bottom}H{left + _TREE}" stroke="{style.quiet}" stroke-width="1"/>')
    for value in _ticks(far):
        parts.append(f'<path d="M{across(value):.1f} {bottom}v5" stroke="{style.quiet}" stroke-width="1"/>')
        parts.append(_text(f"{value:g}", across(value), bottom + 20, 14, style.ink))
    parts.append(_text("1 − cosine of their rows of W, where branches meet", left, bottom + 42, 14, style.ink, anchor="start"))
    return _svg(left + _TREE + _NAMES, bottom + 54, parts)


def _ticks(far: float) -> list[float]:
    """Two to five round numbers from 0 to ``far``."""
    step = next(step for step in (1e-7, *(m * 10.0**e for e in range(-6, 1) for m in (1, 2, 5))) if far / step <= 5)
    return [round(step * number, 9) for number in range(int(far / step + 1e-9) + 1)]


def _cut(label: str, most: int = 26) -> str:
    return label if len(label) <= most else label[: most - 1].rstrip() + "…"


def _text(text: str, x: float, y: float, size: int, colour: str, *, bold: bool = False, anchor: str = "middle") -> str:
    weight = ' font-weight="700"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" {_FACE} fill="{colour}" text-anchor="{anchor}"{weight}>{html.escape(text)}</text>'


def _svg(wide: float, tall: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:g} {tall:g}" width="{wide:g}" height="{tall:g}">{"".join(parts)}</svg>'
    )
