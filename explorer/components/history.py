"""The browser's history: one step a view, so that Back leads back to the view before, as it was.

Streamlit takes a step of the history for every parameter that a run of the page writes into the address, also for those
that ``st.switch_page`` writes just before it leaves: with the address of the page that is being left. Back then led to a
page between, without that page's settings. A few lines of script, on every page, undo both.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from explorer.state.navigation import GOING

_mount = st.components.v2.component(
    "chip_history", js=(Path(__file__).parent / "history.js").read_text(encoding="utf-8").replace("GOING", GOING), isolate_styles=False
)


def one_step_a_view() -> None:
    """Put it on the page; the same for all, so that it is there before anything is clicked."""
    if GOING in st.query_params:  # we have arrived
        del st.query_params[GOING]
    _mount(key="history")
