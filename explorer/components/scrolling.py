"""Scroll the page where the reader should go on: Streamlit keeps the place, so that a new lesson would open in its middle."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

_mount = st.components.v2.component(
    "chip_scrolling", js=(Path(__file__).parent / "scrolling.js").read_text(encoding="utf-8"), isolate_styles=False
)


def to_top(occasion: str) -> None:
    """To the top of the page, once for every new ``occasion``."""
    _mount(data={"occasion": occasion, "to": ""}, key="scrolling")


def to_container(key: str, occasion: str) -> None:
    """To the container of this key as soon as it is there, once for every new ``occasion``."""
    _mount(data={"occasion": occasion, "to": f".st-key-{key}"}, key="scrolling")
