"""Explore: one photograph, one class, and its CHIP map at every depth of the network."""

from __future__ import annotations

import html
import io
import math
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from explorer import depths, figures, sidebar
from explorer.depths import Depth, Note
from explorer.sidebar import Selection
from explorer.words import percent, plain, readable

WHAT_CHIP_DOES = (
    "CHIP closes random channels of a network, watches its predictions change, and learns how much each channel matters for each class; "
    "a map adds up a layer’s channels, weighted by that."
)
_ICONS = {"weak": ":material/balance:", "none": ":material/block:", "unfitted": ":material/build:"}


def show(selection: Selection) -> None:
    """The whole page."""
    features = selection.seen.features
    found = [
        depths.depth(layer, selection.target, features[layer.name], lambda layer=layer: selection.importance(layer))  # type: ignore[misc]
        for layer in selection.network.layers
    ]
    st.header(f"What speaks for {plain(selection.label)}?", anchor=False)
    st.markdown(WHAT_CHIP_DOES)
    photograph, predictions, equation = st.columns([0.9, 1.2, 1.6], gap="medium")
    with photograph:
        _photograph(selection)
    with predictions:
        _predictions(selection)
    with equation, st.container(key="equation", gap="xsmall"):
        ringed = _equation(selection, found)
    for note in depths.notes(selection.network, selection.target, found):
        _note(note)
    _strip(selection, found, ringed)


def _image(picture: Image.Image, alternative: str) -> None:
    """Encoded here: Streamlit's own JPEG halves the resolution of colour, which is what a map is made of."""
    st.image(figures.jpeg(picture), width="stretch", output_format="JPEG", alt=alternative)


def _photograph(selection: Selection) -> None:
    geometry = selection.network.geometry
    st.subheader("The photograph", anchor=False)
    with st.container(key="view"):
        _image(figures.enlarged(selection.seen.view), f"{selection.photograph.description}, as {selection.network.title} sees it")
    fitted = "squeezed" if geometry.fit == "squash" else "cropped"
    credit = f" {plain(selection.photograph.credit)}." if selection.photograph.credit else ""
    st.caption(f"As the network sees it: {fitted} to {geometry.size} × {geometry.size} pixels.{credit}")


def _predictions(selection: Selection) -> None:
    """A bar chart whose bars are buttons: each asks for the evidence of its class."""
    st.subheader("What the network says", anchor=False)
    best = selection.seen.best(sidebar.PREDICTIONS)
    rules = []
    with st.container(key="predictions", gap=None):
        for rank, index in enumerate(best):
            share = float(selection.seen.probabilities[index])
            st.button(
                f"{plain(selection.network.classes.labels[index])} **{percent(share)}**", key=f"prediction-{rank}", width="stretch",
                type="primary" if index == selection.target else "secondary", on_click=sidebar.pick_class, args=(index,),
            )  # fmt: skip
            rules.append(f".st-key-prediction-{rank} {{ --share: {share:.1%}; }}")
    st.html(f"<style>{' '.join(rules)}</style>")
    if selection.target in best:
        st.caption("Click a prediction to see what speaks for it.")
    else:
        share = float(selection.seen.probabilities[selection.target])
        st.caption(f"{plain(selection.label)}, which you asked for, has {percent(share)}. Click a prediction to see what speaks for it.")


def _equation(selection: Selection, found: list[Depth]) -> Depth | None:
    """Eq. 10 next to the pictures it makes, with its values; gives the depth whose ring it is about."""
    st.subheader("How a map is made", anchor=False)
    st.latex(r"M_c(x, y) \;=\; \sum_k \; w_c^{k}\; A_k(x, y)")
    st.caption("Eq. 10: every channel’s importance _w_ for class _c_, times its activation _A_ at a place.")
    depth = next(one for one in found if one.layer == selection.layer)
    st.caption(f"Here at the ring in the map of **{plain(depth.layer.name)}**, the layer chosen on the left:")
    if not depth.shown:
        st.caption(f"There is no map at {depth.layer.name}, so there is nothing to add up.")
        return None
    st.html(_filled(depths.strongest_sum(depth, selection.target, selection.seen.features[depth.layer.name])))
    return depth


def _filled(at: depths.Sum) -> str:
    """The sum as a table: one line a term, so that every number can be followed."""
    place = f"({at.column}, {at.row})"
    lines = [_row(f"channel {term.channel}", _number(term.weight), _number(term.activation), _number(term.value)) for term in at.terms]
    if at.others:
        lines.append(_row(f"{at.others:,} other{'s' if at.others > 1 else ''}", "", "", _number(at.rest)))
    return (
        f'<table class="chip-sum"><thead><tr><th>channel <i>k</i></th><th><i>w</i></th><th><i>A</i>{place}</th>'
        f"<th><i>w</i> · <i>A</i></th></tr></thead><tbody>{''.join(lines)}</tbody>"
        f"<tfoot>{_row(f'their sum, <i>M</i>{place}', '', '', _number(at.total))}</tfoot></table>"
    )


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _number(value: float) -> str:
    return readable(value).replace("-", "\N{MINUS SIGN}")


def _note(note: Note) -> None:
    (st.warning if note.kind == "weak" else st.info)(note.text, icon=_ICONS[note.kind])


def _strip(selection: Selection, found: list[Depth], ringed: Depth | None) -> None:
    shown = [one for one in found if one.shown]
    top = max((one.maximum for one in shown), default=0.0) if selection.one_scale else None
    photograph = figures.enlarged(selection.seen.view)
    pictures = {one.layer.name: _picture(selection, photograph, one, top) for one in found}
    heading, legend = st.columns([1.6, 1], vertical_alignment="bottom")
    heading.subheader(f"CHIP maps of {plain(selection.label)}, from the first layers to the last", anchor=False)
    scale = f"{readable(top)} in all maps" if top is not None else "each map’s maximum"
    if shown:
        legend.html(
            f'<div class="chip-legend" role="img" aria-label="Colours run from 0 to {scale}"><span>0</span>'
            f'<i style="background: {figures.gradient(selection.colour_map)}"></i><span>{scale}</span></div>'
        )
    with st.container(key="strip"):
        for one in found:
            with st.container(key=f"depth-{one.layer.name}", gap=None):
                picture = pictures[one.layer.name]
                if one is ringed and one.raw is not None:
                    height, width = one.raw.shape
                    picture = figures.ringed(picture, *divmod(int(one.raw.argmax()), width), (height, width))
                _image(picture, _alternative(selection, one))
                st.html(_caption(selection, one))
    if shown:
        _downloads(selection, found, pictures)


def _picture(selection: Selection, photograph: Image.Image, one: Depth, top: float | None) -> Image.Image:
    if one.raw is None or not one.shown:
        return figures.blank_picture(photograph)
    # The raw map's own maximum, not that of the up-sampled one: it is the number in the caption and in the sum.
    maximum = one.maximum if top is None else top
    return figures.chip_picture(
        photograph, one.raw, selection.network.geometry.size, colour_map=selection.colour_map, opacity=selection.opacity, maximum=maximum
    )


def _alternative(selection: Selection, one: Depth) -> str:
    if one.raw is None or not one.shown:
        return f"No map of {selection.label} at {one.layer.name}: {one.missing or one.blank}"
    height, width = one.raw.shape
    row, column = divmod(int(one.raw.argmax()), width)
    across = ("left", "middle", "right")[min(2, 3 * column // width)]
    down = ("top", "centre", "bottom")[min(2, 3 * row // height)]
    return f"CHIP map of {selection.label} at {one.layer.name}, strongest at the {down} {across} of the photograph"


def _caption(selection: Selection, one: Depth) -> str:
    lines = [f"{one.layer.channels:,} channels, {one.layer.height} × {one.layer.width}"]
    if one.importance is None:
        lines.append("W is not fitted here")
    elif one.missing:
        lines.append(one.missing)
    else:
        lines += [_quality(one, selection.target), one.blank or f"maximum {readable(one.maximum)}"]
    body = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    return f'<div class="chip-caption"><h4>{html.escape(one.layer.name)}</h4>{body}</div>'


def _quality(one: Depth, target: int) -> str:
    """The row's own figures: how many channels it uses, and how well it predicted what it was not fitted on."""
    assert one.importance is not None
    r2 = float(one.importance.r2[target])
    told = "R² not measured" if math.isnan(r2) else f"held-out R² {r2:.2f}"
    return f"{int(one.importance.support[target]):,} in use, {told}"


def _downloads(selection: Selection, found: list[Depth], pictures: dict[str, Image.Image]) -> None:
    """Made when they are asked for: a click costs time then, a change of class does not."""
    stem = f"chip-{selection.network.name}-{selection.label}-{selection.photograph.name}".replace(" ", "_").replace("/", "_")

    def picture() -> bytes:
        line = {one.layer.name: _quality(one, selection.target) if one.shown else "no map" for one in found}
        panels = [figures.Panel(figures.enlarged(selection.seen.view), "photograph", selection.network.title)]
        panels += [figures.Panel(pictures[name], name, line[name]) for name in line]
        return figures.png(figures.strip(panels, f"CHIP: {selection.label}"))

    def raw() -> bytes:
        stream = io.BytesIO()
        arrays: dict[str, Any] = {one.layer.name: one.raw.numpy() for one in found if one.raw is not None}
        np.savez(stream, **arrays)
        return stream.getvalue()

    with st.container(horizontal=True):
        st.download_button(
            "Strip as PNG", picture, f"{stem}.png", "image/png", icon=":material/image:", on_click="ignore",
            key="download-png", help="The photograph and all maps in one picture, without the ring.",
        )  # fmt: skip
        st.download_button(
            "Raw maps as NumPy", raw, f"{stem}.npz", "application/octet-stream", icon=":material/grid_on:", on_click="ignore",
            key="download-npz", help="Signed and at their own resolution, one array a layer: numpy.load(file)['head'].",
        )  # fmt: skip
