"""The heat map of W that can be scrolled, read by hovering, and clicked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

_HERE = Path(__file__).parent
# In the page's own tree, not in a shadow root, so that it inherits the theme and the tests find it by its class.
_mount = st.components.v2.component(
    "chip_heatmap",
    html='<div class="chip-heatmap"></div>',
    css=(_HERE / "heatmap.css").read_text(encoding="utf-8"),
    js=(_HERE / "heatmap.js").read_text(encoding="utf-8"),
    isolate_styles=False,
)


def heatmap(data: bytes, key: str, on_cell: Callable[[int, int], None], on_painted: Callable[[], None]) -> None:
    """Draw it.

    Args:
        data: from :func:`explorer.figures.heatmap.packed`.
        key: of the widget.
        on_cell: called before the next run of the page with (class, channel) of the cell that was clicked.
        on_painted: called before the run that follows the first picture.
    """

    def clicked() -> None:
        cell = getattr(st.session_state[key], "cell", None)
        # What a browser sends is what anybody may send.
        if isinstance(cell, dict) and type(cell.get("class")) is type(cell.get("channel")) is int:
            on_cell(cell["class"], cell["channel"])

    _mount(data=data, key=key, on_cell_change=clicked, on_painted_change=on_painted)
