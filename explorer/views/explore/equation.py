"""How a map is made: Eq. 10 with its values filled in, folded below the maps."""

from __future__ import annotations

import streamlit as st

from chipcore.analysis import layer_maps
from chipcore.analysis.layer_maps import LayerMap
from explorer.state.selection import Selection
from explorer.text import plain, readable

WHAT_CHIP_DOES = (
    "CHIP switches random channels of a network off, watches its predictions change, and learns from that how much each channel "
    "matters for each class. A map is the sum of a layer’s channels, weighted by that importance."
)


def show(selection: Selection, here: LayerMap) -> None:
    """Folded; ``here`` is the depth of the chosen layer, whose sum is filled in."""
    with st.expander("How a map is made"):
        words, sum_ = st.columns([1, 1], gap="large")
        with words:
            st.markdown(WHAT_CHIP_DOES)
            with st.container(key="equation"):
                st.latex(r"\tilde A^c(x, y) \;=\; \sum_k \; w_c^{k}\; A_k(x, y)")
            st.caption("Eq. 10: the importance _w_ of every channel for class _c_, times its activation _A_ at a place.")
        with sum_:
            _filled_in(selection, here)


def _filled_in(selection: Selection, here: LayerMap) -> None:
    """Its values at the brightest place of the chosen layer's map."""
    name = plain(here.layer.name)
    if not here.shown:
        st.caption(f"There is no map at {name}. Choose another layer.")
        return
    st.caption(f"At the ring in the map of **{name}**:")
    st.html(_filled(layer_maps.strongest_sum(here, selection.seen.features[here.layer.name])))


def _filled(at: layer_maps.ContributionSum) -> str:
    """The sum as a table: one line a term, so that every number can be followed."""
    place = f"({at.column}, {at.row})"
    lines = [_row(f"channel {term.channel}", readable(term.weight), readable(term.activation), readable(term.value)) for term in at.terms]
    if at.others:
        lines.append(_row(f"{at.others:,} other{'s' if at.others > 1 else ''}", "", "", readable(at.rest)))
    return (
        f'<table class="chip-sum"><thead><tr><th>channel <i>k</i></th><th><i>w</i></th><th><i>A</i>{place}</th>'
        f"<th><i>w</i> · <i>A</i></th></tr></thead><tbody>{''.join(lines)}</tbody>"
        f"<tfoot>{_row(f'their sum, <i>Ã</i>{place}', '', '', readable(at.total))}</tfoot></table>"
    )


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
