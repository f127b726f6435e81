"""The heat map of W (Fig. 10) as a picture for keeping."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image

from explorer.figures.heatmap import scale_words, tops
from explorer.figures.paper import Look, drawing, figure

_FAINT = "#f4f1ec", "#232027"  # of a weight of zero, on light and on dark paper


def heatmap_picture(
    W: np.ndarray, rows: Sequence[int], labels: Sequence[str], columns: Sequence[int], title: str, style: Look, *, signed: bool, each: bool,
) -> Image.Image:  # fmt: skip
    """The same as a picture: every class and every channel, at least a pixel each."""
    values = W[np.ix_(rows, columns)]
    top = tops(values, each=each)[:, None]
    shares = values / np.where(top > 0, top, 1)
    if not signed:
        shares = shares.clip(min=0)
    tall = max(3, 22 if len(rows) <= 40 else 9)
    drawn = figure(1400, 140 + tall * len(rows))
    faint = _FAINT[style.paper < "#7"]
    colours = LinearSegmentedColormap.from_list("weights", ["#1058a8", faint, "#be3606"] if signed else [faint, "#be3606"])
    ax = drawn.add_axes((0.16, 60 / drawn.bbox.height, 0.82, tall * len(rows) / drawn.bbox.height))
    # The square root, as on the page: a hundredth of the largest can still be seen.
    roots = np.sign(shares) * np.sqrt(np.abs(shares))
    ax.imshow(roots, cmap=colours, vmin=-1 if signed else 0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_yticks(range(len(rows)), labels, fontsize=min(11, tall * 0.6), color=style.ink)
    places = np.unique(np.linspace(0, len(columns) - 1, min(24, len(columns))).round().astype(int))
    ax.set_xticks(places, [str(columns[int(place)]) for place in places], fontsize=10, color=style.ink)
    ax.set_xlabel(f"channel · {scale_words(each=each)} · colours follow the square root", color=style.quiet, fontsize=11)
    ax.set_title(title, color=style.ink, fontsize=15, loc="left", pad=14)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return drawing(drawn, style)
