"""What is in the URL by our own hand: the model, the class, and the lists of classes.

Widgets that Streamlit binds follow the URL by themselves when the browser goes back or forward. For what is written here
the rule is: what the URL says counts where it is not what this visitor's page wrote there last.
"""

from __future__ import annotations

import streamlit as st

_WROTE = "wrote"


def changed_value(key: str) -> str | None:
    """What the URL says that this page did not write: a link, or a step back in the browser's history; else None."""
    said = st.query_params.get(key)
    return said if said is not None and said != st.session_state.get(_WROTE, {}).get(key) else None


def write(key: str, value: str) -> None:
    """Into the URL, where it is not there yet."""
    st.session_state.setdefault(_WROTE, {})[key] = value
    if st.query_params.get(key) != value:
        st.query_params[key] = value
