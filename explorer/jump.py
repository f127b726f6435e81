"""From a channel on any page to the same channel in Explore."""

from __future__ import annotations

import streamlit as st

_GOTO = "goto-explore"


def to_channel(layer: str, target: int, channel: int) -> None:
    """Ask for Explore with this layer, class and channel; for callbacks, which run before the sidebar is drawn."""
    st.session_state["class"] = target
    st.session_state["layer"] = layer
    st.session_state["channel"] = channel
    st.session_state[_GOTO] = channel


def follow() -> None:
    """Go there, where that was asked for; a page that offers channels calls it first."""
    channel = st.session_state.pop(_GOTO, None)
    if channel is None:
        return
    st.session_state["channel"] = channel
    # A page is known by its path, so this one stands for the router's own.
    st.switch_page(st.Page(_explore, title="Explore", url_path="explore"), query_params={**st.query_params.to_dict(), "channel": str(channel)})


def _explore() -> None:
    raise AssertionError("the router shows its own page")
