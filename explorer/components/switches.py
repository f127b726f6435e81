"""The switches of a gate as one button a channel, each of which can be turned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st

_HERE = Path(__file__).parent
_mount = st.components.v2.component(
    "chip_switches",
    html='<div class="chip-switches" role="group"></div>',
    css=(_HERE / "switches.css").read_text(encoding="utf-8"),
    js=(_HERE / "switches.js").read_text(encoding="utf-8"),
    isolate_styles=False,
)


def switches(is_open: Sequence[bool], description: str, key: str, on_turn: Callable[[int], None]) -> None:
    """Draw them.

    Args:
        is_open: for every channel whether its switch is open.
        description: of them all, in words.
        key: of the widget.
        on_turn: called before the next run of the page with the channel whose switch was pressed.
    """

    def pressed() -> None:
        sent = getattr(st.session_state[key], "turn", None)
        # What a browser sends is what anybody may send.
        if type(sent) is int and 0 <= sent < len(is_open):
            on_turn(sent)

    _mount(data={"open": "".join("01"[bool(one)] for one in is_open), "description": description}, key=key, on_turn_change=pressed)
