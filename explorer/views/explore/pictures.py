"""Pictures on the page, and maps as pictures."""

from __future__ import annotations

import streamlit as st
from PIL import Image
from torch import Tensor

from chipcore import visualization
from chipcore.analysis.layer_maps import LayerMap
from explorer import figures
from explorer.state.selection import Selection
from explorer.text import readable


def image(picture: Image.Image, alternative: str) -> None:
    """Encoded here: Streamlit's own JPEG halves the resolution of color, which is what a map is made of."""
    st.image(figures.jpeg(picture), width="stretch", output_format="JPEG", alt=alternative)


def of_map(selection: Selection, image: Image.Image, one: LayerMap, maximum: float | None = None, signed: bool = False) -> Image.Image:
    """A depth's map on the enlarged image, on a scale to ``maximum`` (its own where None); gray where there is none."""
    if one.raw is None or not one.drawn(signed):
        return figures.blank_picture(image)
    # The raw map's own maximum, not that of the up-sampled one: it is the number in the caption and in the sum.
    return of_raw(selection, image, one.raw, one.top(signed) if maximum is None else maximum, signed)


def alone(selection: Selection, raw: Tensor) -> Image.Image:
    """A map of single pixels, on black: on the image nobody would see it. Drawn to the brightest of every 200 pixels."""
    black = Image.new("RGB", (figures.SIDE, figures.SIDE))
    maximum = float(raw.quantile(1 - 1 / 200)) or float(raw.max())
    return figures.chip_picture(black, raw, selection.network.geometry.size, colormap=selection.colormap, opacity=1.0, maximum=maximum)


def of_raw(selection: Selection, image: Image.Image, raw: Tensor, maximum: float | None = None, signed: bool = False) -> Image.Image:
    """Any map (u, v) on the enlarged image, in the visitor's colors."""
    return figures.chip_picture(
        image, raw, selection.network.geometry.size, colormap=selection.colormap, opacity=selection.opacity, maximum=maximum,
        signed=signed,
    )  # fmt: skip


def legend(selection: Selection, maximum: float | None, signed: bool) -> str:
    """The color scale with its ends, as HTML; ``maximum`` where all maps share it."""
    top = "each map’s maximum" if maximum is None else f"{readable(maximum)} in all maps"
    first, last = ("against", f"for: {top}") if signed else ("0", top)
    colors = figures.gradient(visualization.SIGNED_COLORMAP if signed else selection.colormap)
    return (
        f'<div class="chip-legend" role="img" aria-label="Colors run from {first} to {last}"><span>{first}</span>'
        f'<i style="background: {colors}"></i><span>{last}</span></div>'
    )


def place(height: int, width: int, row: int, column: int) -> str:
    """Where on the image a cell of a map is, in words."""
    across = ("left", "middle", "right")[min(2, 3 * column // width)]
    down = ("top", "center", "bottom")[min(2, 3 * row // height)]
    return "center" if (down, across) == ("center", "middle") else f"{down} {across}"
