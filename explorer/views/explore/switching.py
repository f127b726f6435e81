"""The photograph, its predictions and the map of the chosen layer, with a slider that switches channels off.

The live experiment of the page: bars drop, and the map fades, as the channels go that are said to matter.
"""

from __future__ import annotations

import streamlit as st
from torch import Tensor

from chipcore.analysis import channel_ablation, channel_order, contributions
from chipcore.analysis.layer_maps import LayerMap
from explorer import figures
from explorer.components import sidebar
from explorer.state import cached, navigation
from explorer.state.selection import Selection
from explorer.text import percent, plain, readable
from explorer.views.explore.pictures import image, of_raw

CHIP, GRADCAM, RANDOM = "CHIP", "Grad-CAM", "random"


@st.fragment  # so that the slider does not draw the strip anew
def show(selection: Selection, here: LayerMap) -> None:
    """Three columns: the photograph, the predictions under the slider, the map of what is left."""
    with st.container(key="experiment"):
        with st.container(key="experiment-photo"):
            _photograph(selection)
        with st.container(key="experiment-predictions", gap="small"):
            off, order = _switched_off(selection, here)
            after = _probabilities(selection, here, off)
            _predictions(selection, after, len(off))
        with st.container(key="experiment-map"):
            _map(selection, here, off, order)


def _photograph(selection: Selection) -> None:
    geometry = selection.network.geometry
    st.markdown("**Photograph**")
    whole = cached.whole_image(selection.network.id, selection.image.sha256, selection.network, selection.image)
    fitted = f"{'resized' if geometry.fit == 'squash' else 'cropped'} to {geometry.size} × {geometry.size}"
    with st.container(key="view"):
        if geometry.fit == "squash" and whole.width == whole.height:  # the two are one
            image(figures.enlarged(selection.seen.view), f"{selection.image.description}, as {selection.network.title} sees it")
        else:
            own, view = st.columns(2, gap="small", vertical_alignment="top")
            with own:
                image(whole, selection.image.description)
            with view:
                image(figures.enlarged(selection.seen.view), f"{selection.image.description}, as {selection.network.title} sees it")
            fitted = f"left as it is, right as the network sees it: {fitted}"
    st.caption(" ".join(filter(None, [f"{fitted[0].upper()}{fitted[1:]}.", plain(selection.image.credit)])))


def _switched_off(selection: Selection, here: LayerMap) -> tuple[list[int], str]:
    """Which channels the slider switches off, and whose order they are in."""
    layer = here.layer
    orders = [CHIP, GRADCAM, RANDOM] if here.row is not None else [GRADCAM, RANDOM]
    steps = channel_ablation.ablation_steps(layer.channels)
    if st.session_state.get("off") not in (None, *steps):
        st.session_state["off"] = steps[-1]
    if st.session_state.get("off-order") not in (None, *orders):
        del st.session_state["off-order"]
    count = int(st.select_slider(
        f"Switch channels of {plain(layer.name)} off", steps, value=0, key="off", bind="query-params",
        help=f"Their feature maps are set to 0 for the rest of the network (Eq. 1). {layer.channels:,} in all.",
    ))  # fmt: skip
    order = st.segmented_control(
        "In the order of", orders, default=orders[0], required=True, key="off-order", bind="query-params", label_visibility="collapsed",
        help="The channels that add most to the map go first: of CHIP (weight times mean activation), of Grad-CAM, or in random order.",
    ) or orders[0]  # fmt: skip
    return (_order(selection, here, order)[:count] if count else []), order


def _order(selection: Selection, here: LayerMap, order: str) -> list[int]:
    if order == CHIP and here.row is not None:
        features = selection.seen.features[here.layer.name]
        return channel_order.most_important_first(contributions.contributions(here.row, features))
    if order == GRADCAM:
        return channel_order.most_important_first(cached.gradcam_contributions(
            selection.network.id, selection.image.sha256, here.layer.name, selection.target, selection.network, selection.seen
        ))  # fmt: skip
    return channel_order.random_order(here.layer.channels)


def _probabilities(selection: Selection, here: LayerMap, off: list[int]) -> Tensor:
    if not off:
        return selection.seen.probabilities
    return cached.switched_off(
        selection.network.id, selection.image.sha256, here.layer.name, tuple(off), selection.network, selection.seen
    )  # fmt: skip


def _predictions(selection: Selection, after: Tensor, off: int) -> None:
    """A bar chart whose bars are buttons: each asks for the evidence of its class."""
    best, labels, before = selection.seen.best(sidebar.PREDICTIONS), selection.network.classes.labels, selection.seen.probabilities
    rules = []
    with st.container(key="predictions", gap=None):
        for rank, index in enumerate(best):
            was, now = float(before[index]), float(after[index])
            if st.button(
                f"{plain(labels[index])} **{percent(now)}**", key=f"prediction-{rank}", width="stretch",
                type="primary" if index == selection.target else "secondary", on_click=navigation.pick_class, args=(index,),
                help=f"{plain(labels[index])}: its evidence" if off == 0 else f"{percent(was)} with all channels on",
            ):  # fmt: skip
                st.rerun()  # the whole page: it is about another class now
            rules.append(f".st-key-prediction-{rank} {{ --share: {now:.1%}; --before: {was:.1%}; --moved: {0.7 if off else 0}; }}")
    st.html(f"<style>{' '.join(rules)}</style>")
    first, target = int(after.argmax()), selection.target
    said = []
    if target not in best:
        said.append(f"{plain(labels[target])} has {percent(float(after[target]))}.")
    if off and first != best[0]:
        said.append(f"Now first: **{plain(labels[first])}**, {percent(float(after[first]))}.")
    st.caption(" ".join(said) or "Click a class for its evidence.")


def _map(selection: Selection, here: LayerMap, off: list[int], order: str) -> None:
    """The map of the channels that are still on, on the whole map's scale."""
    name = plain(here.layer.name)
    st.markdown(f"**CHIP map at {name}**" if not off else f"**Without {len(off):,} channels**")
    photograph = figures.enlarged(selection.seen.view)
    if here.row is None or here.raw is None or not here.shown:
        image(figures.blank_picture(photograph), f"No CHIP map of {selection.label} at {here.layer.name}")
        st.caption("No map here.")
        return
    gone = set(off)
    left = [k for k in range(here.layer.channels) if k not in gone]
    raw = contributions.partial_map(here.row, selection.seen.features[here.layer.name], left) if off else here.raw
    image(
        of_raw(selection, photograph, raw, here.maximum), f"CHIP map of {selection.label} at {here.layer.name}, {len(off):,} channels off"
    )
    if off:
        st.caption(f"Maximum {readable(float(raw.max()))} of {readable(here.maximum)}; order of {order}." if order != RANDOM else f"Maximum {readable(float(raw.max()))} of {readable(here.maximum)}; random order.")  # fmt: skip
    else:
        st.caption(f"The sum over {here.layer.channels:,} channels, {here.layer.height} × {here.layer.width} places.")
