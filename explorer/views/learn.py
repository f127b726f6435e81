"""Learn: to be written."""

from __future__ import annotations

import streamlit as st

from explorer.sidebar import Selection


def show(selection: Selection) -> None:
    """The whole page."""
    st.header("Learn", anchor=False)
