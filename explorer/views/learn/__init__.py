"""Learn: the method in six steps, on the visitor's own image, network, layer and class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from chipcore.analysis.gate_experiments import STEPS
from explorer.components import downloads, scrolling
from explorer.components.downloads import Export
from explorer.state import bundle, url
from explorer.state.selection import Selection
from explorer.text import plain
from explorer.views.learn import gates_to_scores, scores_to_weights

TITLES = (
    "Put a switch behind every channel", "Ask the gated network", "How much is this answer worth?", "Learn the weights", "Add the channels up",
    "Compare the maps",
)  # fmt: skip
_SHOW = (
    gates_to_scores.gate,
    gates_to_scores.predict,
    gates_to_scores.weigh,
    scores_to_weights.fit,
    scores_to_weights.add_up,
    scores_to_weights.compare,
)
_TABLES = ("predict", "fit", "sum")  # lessons whose numbers make a table
_KEPT = "kept-step"  # Streamlit forgets the widget's own value when the page is left


def show(selection: Selection) -> None:
    """The whole page."""
    step = _stepper()
    scrolling.to_top(f"step {step}")
    st.header(f"{step}. {TITLES[step - 1]}", anchor=False)
    where = f"{plain(selection.network.title)}, layer **{plain(selection.layer.name)}**, class **{plain(selection.label)}**"
    st.caption(f"Step {step} of {len(STEPS)} on your photograph: {where}. Change any of them in the sidebar.")
    take = _SHOW[step - 1](selection)
    with st.container(horizontal=True, horizontal_alignment="distribute", key="turn"):
        st.button("Back", key="back", icon=":material/arrow_back:", disabled=step == 1, on_click=_turn, args=(step - 1,))
        if step < len(STEPS):
            st.button(
                f"Next: {STEPS[step]}", key="next", icon=":material/arrow_forward:", icon_position="right", type="primary",
                on_click=_turn, args=(step + 1,),
            )  # fmt: skip
    if take is not None:
        _offer(selection, STEPS[step - 1], take)


def _offer(selection: Selection, step: str, take: Callable[[], Export]) -> None:
    """The lesson to take home, with what it was made from."""

    def whole() -> Export:
        taken = take()
        return replace(taken, settings=bundle.about(selection, lesson=step, **taken.settings), files=bundle.files(selection))

    stem = f"chip-lesson-{step}-{selection.network.name}-{selection.layer.name}"
    downloads.offer("learn", stem, whole, table=step in _TABLES)


def _stepper() -> int:
    """Which step, from 1; in the URL as ``step``."""
    asked = _from_url()
    if asked is not None:
        st.session_state["step"] = asked
    elif st.session_state.get("step") is None:
        st.session_state["step"] = st.session_state.get(_KEPT) or 1
    step = st.segmented_control(
        "Step", range(1, len(STEPS) + 1), format_func=lambda number: f"{number} · {STEPS[number - 1]}", key="step", required=True,
        label_visibility="collapsed", width="stretch",
    )  # fmt: skip
    st.session_state[_KEPT] = step
    url.write("step", str(step))
    return int(step or 1)


def _from_url() -> int | None:
    """The step that a link or a step back asks for."""
    asked = url.changed_value("step")
    return int(asked) if asked in {str(number) for number in range(1, len(STEPS) + 1)} else None


def _turn(step: int) -> None:
    st.session_state["step"] = step
