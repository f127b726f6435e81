"""From a channel on any page to the same channel in Explore."""

from __future__ import annotations

import streamlit as st

from explorer.state import navigation

_GOTO = "goto-channel"


def go_to_channel(layer: str, target: int, channel: int) -> None:
    """Ask for Explore with this layer, class and channel; for callbacks."""
    st.session_state[_GOTO] = layer, target, channel


def apply_pending() -> None:
    """Go there, where that was asked for.

    Before the sidebar is drawn with what was picked: the address of this view must stay as it was, for the way back.
    """
    asked = st.session_state.pop(_GOTO, None)
    if asked is not None:
        layer, target, channel = asked
        navigation.pick_layer(layer)
        navigation.open_view("explore", **{"class": str(target), "channel": str(channel)})
