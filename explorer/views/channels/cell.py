"""The cell of the heat map that was clicked: its channel, for its class, below the map."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from chipcore import ChipError, Importance, Layer, Network
from chipcore.analysis import layer_maps
from explorer.services import reproduce
from explorer.state import navigation, url
from explorer.state.selection import Selection
from explorer.text import plain, readable
from explorer.views.explore import channel as channel_view

_CELL = "cell"  # in the URL and the session: class and channel of the cell that is open


def choose(network: Network, importance: Importance, index: int, channel: int) -> None:
    """Open a cell of the heat map below it; for callbacks."""
    if 0 <= index < importance.W.shape[0] and 0 <= channel < importance.W.shape[1]:
        st.session_state[_CELL] = f"{reproduce.class_name(network, index)}.{channel}"


def show(selection: Selection, layer: Layer, importance: Importance) -> None:
    """The channel of the cell that was clicked, for that cell's class, on the same page."""
    asked = url.asked(_CELL)
    if asked is not None:
        st.session_state[_CELL] = asked
    opened = st.session_state.get(_CELL, "")
    name, _, number = opened.rpartition(".")
    try:
        index = selection.network.classes.index(name) if name else -1
    except ChipError:
        index = -1  # another network's
    channel = int(number) if number.isdecimal() and len(number) < 6 else -1
    if index < 0 or not 0 <= channel < layer.channels:
        url.write_unless(_CELL, "", "")
        return
    url.write(_CELL, opened)
    label = selection.network.classes.labels[index]
    chosen = replace(selection, target=index)
    here = layer_maps.layer_map(layer, index, selection.seen.features[layer.name], lambda: importance)
    with st.container(border=True, key="cell"):
        head, explore, close = st.columns([3, 1, 0.6], vertical_alignment="center")
        head.markdown(f"#### Channel {channel} for {plain(label)}: _w_ = {readable(float(importance.W[index, channel]))}")
        explore.button(
            "Open in Explore", key="cell-explore", icon=":material/open_in_new:", width="stretch", on_click=navigation.go_to_channel,
            args=(layer.name, index, channel),
        )  # fmt: skip
        close.button("Close", key="cell-close", icon=":material/close:", type="tertiary", on_click=_close)
        fires, weights = st.columns([1, 1.6], gap="medium")
        with fires:
            channel_view.fires(chosen, here, channel)
        with weights:
            channel_view.weights(chosen, here, channel)


def _close() -> None:
    st.session_state[_CELL] = ""
