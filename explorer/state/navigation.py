"""From view to view: choosing a class, layer or image from elsewhere on a page, and opening another view."""

from __future__ import annotations

import streamlit as st

from explorer.state import url

GOING = "go"  # the parameter that says: this address is of the view that is being opened
_PENDING_CHANNEL = "goto-channel"
_ARRIVED = "arrived-at-channel"


def pick_class(index: int) -> None:
    """Choose a class from elsewhere on the page; for callbacks, which run before the sidebar is drawn."""
    st.session_state["class"] = index


def pick_layer(name: str) -> None:
    """The same for a layer."""
    st.session_state["layer"] = name


def pick_image(name: str) -> None:
    """The same for an image, by its name in the gallery."""
    st.session_state["photo"] = name
    start_at_prediction()


def open_view(name: str, **query: str) -> None:
    """Turn to another view with all that the views share: model, image, class and so on, and with parameters of that view's own.

    Not for callbacks: it ends this run of the page.
    """
    kept = {key: st.query_params[key] for key in url.SHARED if key in st.query_params}
    st.switch_page(st.session_state["views"][name], query_params={**kept, **query, GOING: name})


def go_to_channel(layer: str, target: int, channel: int) -> None:
    """Ask for Explore with this layer, class and channel; for callbacks."""
    st.session_state[_PENDING_CHANNEL] = layer, target, channel


def apply_pending() -> None:
    """Go where :func:`go_to_channel` asked for.

    Before the sidebar is drawn with what was picked: the address of this view must stay as it was, for the way back.
    """
    pending = st.session_state.pop(_PENDING_CHANNEL, None)
    if pending is not None:
        layer, target, channel = pending
        pick_layer(layer)
        st.session_state[_ARRIVED] = f"{layer} {target} {channel}"
        open_view("explore", **{"class": str(target), "channel": str(channel)})


def arrived() -> str:
    """What was gone to with :func:`go_to_channel`, once; then empty."""
    return str(st.session_state.pop(_ARRIVED, ""))


def start_at_prediction() -> None:
    """Let the class follow the network's best prediction on the next run."""
    st.session_state["follow"] = True
