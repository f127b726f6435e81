"""The channels of a Venn diagram's regions as buttons.

Of our own, because Streamlit's take a second to draw a thousand of them, in which nothing else is painted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st

_HERE = Path(__file__).parent
_mount = st.components.v2.component(
    "chip_regions",
    html='<div class="chip-regions"></div>',
    css=(_HERE / "regions.css").read_text(encoding="utf-8"),
    js=(_HERE / "regions.js").read_text(encoding="utf-8"),
    isolate_styles=False,
)


def regions(groups: Sequence[tuple[str, int, Sequence[int]]], key: str, on_channel: Callable[[int, int], None]) -> None:
    """Draw them.

    Args:
        groups: for every region its name, the class that its channels are opened with, and the channels.
        key: of the widget.
        on_channel: called before the next run of the page with (class, channel) of the button that was pressed.
    """

    def pressed() -> None:
        sent = getattr(st.session_state[key], "channel", None)
        # What a browser sends is what anybody may send.
        if isinstance(sent, dict) and type(sent.get("class")) is type(sent.get("channel")) is int:
            on_channel(sent["class"], sent["channel"])

    data = [{"name": name, "class": owner, "channels": [int(channel) for channel in channels]} for name, owner, channels in groups]
    _mount(data=data, key=key, on_channel_change=pressed)
