"""The heat map of W (Fig. 10) as data for the page's canvas; ``heatmap_picture`` draws it for keeping."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image

from explorer.figures.theme import Theme, figure, render
from explorer.text import readable


def top_channels(values: np.ndarray, *, each: bool) -> np.ndarray:
    """The magnitude (n,) that is drawn at full strength: of each row (n, K), or of them all."""
    largest = np.abs(values).max(axis=1, initial=0)
    return largest if each else np.full(len(values), largest.max(initial=0))


def packed(
    W: np.ndarray, rows: Sequence[int], labels: Sequence[str], columns: Sequence[int], chosen: int, *, signed: bool, each: bool,
) -> bytes:  # fmt: skip
    """What ``explorer/components/heatmap.js`` reads.

    Args:
        W: all of it, shape (C, K).
        rows: the classes shown, from the top.
        labels: their names, one a row.
        columns: the channels, from the left.
        chosen: the class whose name is marked.
        signed: whether weights below zero are drawn.
        each: whether every row is drawn on its own scale.

    Returns:
        Length of the header (uint32, little endian), the header (JSON) with spaces up to a multiple of 4, then the
        weights as float32, row by row.
    """
    values = np.ascontiguousarray(W[np.ix_(rows, columns)], dtype="<f4")
    top = top_channels(values, each=each)
    most = readable(float(top.max(initial=0)))
    header = {
        "rows": [int(row) for row in rows], "labels": list(labels), "columns": [int(column) for column in columns], "chosen": int(chosen),
        "tops": [float(one) for one in top], "signed": signed, "ends": _ends(most, signed=signed, each=each), "scale": scale_words(each=each),
        "description": description(len(rows), len(columns)),
    }  # fmt: skip
    text = json.dumps(header).encode()
    return len(text).to_bytes(4, "little") + text + b" " * (-len(text) % 4) + values.tobytes()


def _ends(most: str, *, signed: bool, each: bool) -> list[str]:
    high = "100%" if each else most
    return [f"-{high}" if signed else "0", high]


def scale_words(*, each: bool) -> str:
    return "of each class’s largest weight" if each else "weight, one scale for all"


def description(classes: int, channels: int) -> str:
    """The heat map in words, for who can't see it."""
    return (
        f"Heat map of the weights of {classes:,} classes, in rows, and {channels:,} channels, in columns. "
        "Arrow keys move from cell to cell, Enter opens the channel below."
    )


_FAINT = "#f4f1ec", "#232027"  # of a weight of zero, on light and on dark paper


def heatmap_picture(
    W: np.ndarray, rows: Sequence[int], labels: Sequence[str], columns: Sequence[int], title: str, style: Theme, *, signed: bool, each: bool,
) -> Image.Image:  # fmt: skip
    """The same as a picture: every class and every channel, at least a pixel each."""
    values = W[np.ix_(rows, columns)]
    top = top_channels(values, each=each)[:, None]
    shares = values / np.where(top > 0, top, 1)
    if not signed:
        shares = shares.clip(min=0)
    tall = max(3, 22 if len(rows) <= 40 else 9)
    drawn = figure(1400, 140 + tall * len(rows))
    faint = _FAINT[style.paper < "#7"]
    colors = LinearSegmentedColormap.from_list("weights", ["#1058a8", faint, "#be3606"] if signed else [faint, "#be3606"])
    ax = drawn.add_axes((0.16, 60 / drawn.bbox.height, 0.82, tall * len(rows) / drawn.bbox.height))
    # The square root, as on the page: a hundredth of the largest can still be seen.
    roots = np.sign(shares) * np.sqrt(np.abs(shares))
    ax.imshow(roots, cmap=colors, vmin=-1 if signed else 0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_yticks(range(len(rows)), labels, fontsize=min(11, tall * 0.6), color=style.ink)
    places = np.unique(np.linspace(0, len(columns) - 1, min(24, len(columns))).round().astype(int))
    ax.set_xticks(places, [str(columns[int(place)]) for place in places], fontsize=10, color=style.ink)
    ax.set_xlabel(f"channel · {scale_words(each=each)} · colors follow the square root", color=style.quiet, fontsize=11)
    ax.set_title(title, color=style.ink, fontsize=15, loc="left", pad=14)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return render(drawn, style)
