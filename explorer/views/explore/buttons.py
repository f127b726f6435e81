"""A layer's channels as buttons that are bars: how much each adds to the map, and a click looks at it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st
from torch import Tensor

from explorer.text import readable


def channels(
    key: str, order: Sequence[int], shares: Tensor, pick: Callable[[int], None], *, chosen: int | None = None, pale_from: int | None = None
) -> None:
    """One button for every channel of ``order``.

    Args:
        key: of the group, unique on the page.
        order: channel numbers.
        shares: what each channel adds, shape (K,); the largest magnitude in ``order`` fills its button.
        pick: called with the number of the channel that is clicked.
        chosen: the channel that is looked at.
        pale_from: buttons from this place on are pale.
    """
    top = max((abs(float(shares[k])) for k in order), default=0.0) or 1.0
    rules = []
    with st.container(key=key, gap=None):
        for place, number in enumerate(order):
            share = float(shares[number])
            st.button(
                f"channel {number} **{readable(share)}**", key=f"{key}-{place}", width="stretch",
                type="primary" if number == chosen else "secondary", on_click=pick, args=(number,),
            )  # fmt: skip
            color = "--bar: #2563eb;" if share < 0 else ""
            pale = "opacity: 0.5;" if pale_from is not None and place >= pale_from else ""
            rules.append(f".st-key-{key}-{place} {{ --share: {abs(share) / top:.1%}; {color} {pale} }}")
    st.html(f"<style>{' '.join(rules)}</style>")
