"""From a channel on any page to the same channel in Explore."""

from __future__ import annotations

import streamlit as st

from explorer import sidebar

_GOTO = "goto-channel"


def to_channel(layer: str, target: int, channel: int) -> None:
    """Ask for Explore with this layer, class and channel; for callbacks, which run before the sidebar is drawn."""
    sidebar.pick_class(target)
    sidebar.pick_layer(layer)
    st.session_state[_GOTO] = channel


def follow() -> None:
    """Go there, where that was asked for; a page that offers channels calls it first."""
    channel = st.session_state.pop(_GOTO, None)
    if channel is not None:
        st.session_state["channel"] = channel
        sidebar.open_view("explore", channel=str(channel))
