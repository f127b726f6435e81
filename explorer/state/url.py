"""What is in the URL by our own hand: all that the sidebar chooses, and the lists of classes.

Widgets that Streamlit binds follow the URL by themselves when the browser goes back or forward, but lose their parameter on
the way to another view. So what all views share is written here, on every view. The rule is: what the URL says counts
where it is not what this visitor's page wrote there last.
"""

from __future__ import annotations

from collections.abc import Collection

import streamlit as st

from explorer.services.photo_links import PARAMETER

_WROTE = "wrote"
OWN_FITS = "fit"
SHARED = (
    "model",
    "photo",
    PARAMETER,
    "class",
    "layer",
    "order",
    "colours",
    "opacity",
    "scale",
    OWN_FITS,
)  # parameters that every view keeps


def changed_value(key: str) -> str | None:
    """What the URL says that this page did not write: a link, or a step back in the browser's history; else None."""
    said = st.query_params.get(key)
    return said if said is not None and said != st.session_state.get(_WROTE, {}).get(key) else None


def asked(key: str) -> str | None:
    """The same for a widget of this key; and what the URL says at all, where Streamlit has forgotten the widget's state.

    It does so when a run of the page ends before the widget is drawn, as every jump to another view does.
    """
    return changed_value(key) if key in st.session_state else st.query_params.get(key)


def write(key: str, value: str) -> None:
    """Into the URL, where it is not there yet."""
    st.session_state.setdefault(_WROTE, {})[key] = value
    if st.query_params.get(key) != value:
        st.query_params[key] = value


def restore(key: str, options: Collection[str], default: str) -> None:
    """Set the state of a widget before it is drawn: to what a link says, else to what it was, else to the default."""
    wanted = asked(key)
    if wanted is not None and wanted in options:
        st.session_state[key] = wanted
    elif st.session_state.get(key) not in options:
        st.session_state[key] = default


def write_unless(key: str, value: str, default: str) -> None:
    """Into the URL, but for the default, which links are short without."""
    if value != default:
        write(key, value)
    else:
        st.session_state.setdefault(_WROTE, {})[key] = value
        if key in st.query_params:
            del st.query_params[key]
