"""The upper part of Explore: the image, what the network says of it, and how a map is made."""

from __future__ import annotations

import streamlit as st

from chipcore.analysis import layer_maps
from chipcore.analysis.layer_maps import LayerMap
from explorer import figures
from explorer.components import sidebar
from explorer.state import navigation
from explorer.state.selection import Selection
from explorer.text import percent, plain, readable
from explorer.views.explore.pictures import image


def show(selection: Selection, here: LayerMap) -> None:
    """Three columns; ``here`` is the depth of the chosen layer, whose sum is filled in."""
    image, predictions, equation = st.columns([0.9, 1.2, 1.6], gap="medium")
    with image:
        _image(selection)
    with predictions:
        _predictions(selection)
    with equation, st.container(key="equation", gap="xsmall"):
        _equation(selection, here)


def _image(selection: Selection) -> None:
    geometry = selection.network.geometry
    st.subheader("The photograph", anchor=False)
    with st.container(key="view"):
        image(figures.enlarged(selection.seen.view), f"{selection.image.description}, as {selection.network.title} sees it")
    fitted = "resized" if geometry.fit == "squash" else "cropped"
    credit = f" {plain(selection.image.credit)}." if selection.image.credit else ""
    st.caption(f"As the network sees it: {fitted} to {geometry.size} × {geometry.size} pixels.{credit}")


def _predictions(selection: Selection) -> None:
    """A bar chart whose bars are buttons: each asks for the evidence of its class."""
    st.subheader("Predictions", anchor=False)
    best = selection.seen.best(sidebar.PREDICTIONS)
    rules = []
    with st.container(key="predictions", gap=None):
        for rank, index in enumerate(best):
            share = float(selection.seen.probabilities[index])
            st.button(
                f"{plain(selection.network.classes.labels[index])} **{percent(share)}**", key=f"prediction-{rank}", width="stretch",
                type="primary" if index == selection.target else "secondary", on_click=navigation.pick_class, args=(index,),
            )  # fmt: skip
            rules.append(f".st-key-prediction-{rank} {{ --share: {share:.1%}; }}")
    st.html(f"<style>{' '.join(rules)}</style>")
    if selection.target in best:
        st.caption("Click a prediction to see the evidence for it.")
    else:
        share = float(selection.seen.probabilities[selection.target])
        st.caption(
            f"{plain(selection.label)}: {percent(share)} (chosen by you or by the link). Click a prediction to see the evidence for it."
        )


def _equation(selection: Selection, here: LayerMap) -> None:
    """Eq. 10 next to the pictures it makes, with its values at the brightest place of the chosen layer's map."""
    st.subheader("How a map is made", anchor=False)
    st.latex(r"\tilde A^c(x, y) \;=\; \sum_k \; w_c^{k}\; A_k(x, y)")
    st.caption("Eq. 10: every channel’s importance _w_ for class _c_, times its activation _A_ at a place.")
    name = plain(here.layer.name)
    if not here.shown:
        st.caption(f"There is no map at {name}, so there is nothing to add up. Choose another layer on the left.")
        return
    st.caption(f"Here at the ring in the map of **{name}**, the layer that is chosen on the left:")
    st.html(_filled(layer_maps.strongest_sum(here, selection.seen.features[here.layer.name])))


def _filled(at: layer_maps.ContributionSum) -> str:
    """The sum as a table: one line a term, so that every number can be followed."""
    place = f"({at.column}, {at.row})"
    lines = [_row(f"channel {term.channel}", readable(term.weight), readable(term.activation), readable(term.value)) for term in at.terms]
    if at.others:
        lines.append(_row(f"{at.others:,} other{'s' if at.others > 1 else ''}", "", "", readable(at.rest)))
    return (
        f'<table class="chip-sum"><thead><tr><th>channel <i>k</i></th><th><i>w</i></th><th><i>A</i>{place}</th>'
        f"<th><i>w</i> · <i>A</i></th></tr></thead><tbody>{''.join(lines)}</tbody>"
        f"<tfoot>{_row(f'their sum, <i>Ã</i>{place}', '', '', readable(at.total))}</tfoot></table>"
    )


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
