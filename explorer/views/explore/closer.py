"""Below the strip: a closer look at the chosen layer. Only the part that is open is computed, and only it is drawn again."""

from __future__ import annotations

import streamlit as st

from chipcore.analysis import contributions
from chipcore.analysis.layer_maps import LayerMap
from explorer.state import url
from explorer.state.selection import Selection
from explorer.text import plain
from explorer.views.explore import adding, channel, gating

ADDING, CHANNEL, GATING = "Add channels one by one", "One channel", "Switch channels off"
_OLD = {"Close channels": GATING}  # as links said it before


def show(selection: Selection, here: LayerMap) -> None:
    """The heading, the choice of parts, and the open one."""
    st.subheader(f"A closer look at {plain(here.layer.name)}", anchor=False)
    _show(selection, here)


@st.fragment
def _show(selection: Selection, here: LayerMap) -> None:
    if "channel" in st.query_params and "look" not in st.query_params:  # a link to a channel, from another page
        st.session_state["look"] = CHANNEL
    wanted = url.asked("look")
    url.restore("look", (ADDING, CHANNEL, GATING), _OLD.get(wanted or "", ADDING))
    part = st.segmented_control(
        "Part", [ADDING, CHANNEL, GATING], required=True, key="look", on_change=_turned, label_visibility="collapsed",
        persist_state="session",
    )  # fmt: skip
    url.write_unless("look", part or ADDING, ADDING)
    if part == GATING:
        gating.show(selection, here)
        return
    features = selection.seen.features[here.layer.name]
    order = [] if here.row is None else contributions.largest_first(contributions.contributions(here.row, features))
    if part == CHANNEL:
        channel.show(selection, here, order, pick)
    elif here.row is None or not order:
        st.caption(f"At {plain(here.layer.name)} no channel adds anything to a map of {plain(selection.label)}; choose another layer.")
    else:
        adding.show(selection, here, here.row, order, pick)


def _turned() -> None:
    if "channel" in st.query_params:  # it is there while a channel is looked at, and would open it again
        del st.query_params["channel"]


def pick(number: int) -> None:
    """Look at one channel; for callbacks."""
    st.session_state["channel"] = number
    st.session_state["look"] = CHANNEL
