"""Explore: one image, one class, and its CHIP map at every depth of the network."""

from __future__ import annotations

import streamlit as st

from chipcore.analysis import layer_maps
from chipcore.analysis.layer_maps import LayerMap
from explorer.components import job_progress, scrolling
from explorer.services.jobs import TooMany
from explorer.state import navigation, queues
from explorer.state.selection import Selection
from explorer.text import plain
from explorer.views.explore import closer, equation, notes, strip, switching
from explorer.views.explore.notes import Note

INLINE_WAIT_S = 0.6  # seconds that a page waits for a local row before it shows that it is being made
_ICONS = {"weak": ":material/balance:", "none": ":material/block:", "unfitted": ":material/build:"}


def show(selection: Selection) -> None:
    """The whole page."""
    features = selection.seen.features
    found = [
        layer_maps.layer_map(layer, selection.target, features[layer.name], lambda layer=layer: selection.importance(layer))  # type: ignore[misc]
        for layer in selection.network.layers
    ]
    here = next(number for number, one in enumerate(found) if one.layer == selection.layer)
    st.header(f"Evidence for {plain(selection.label)}", anchor=False)
    maps, experiment, said, folded, files = (st.container() for _ in range(5))
    with said:  # below the maps, but known before they are drawn
        if found[here].missing:
            found[here] = _local(selection, found[here])
        for note in notes.notes(selection.network, selection.target, found):
            _note(note)
    with maps:
        strip.show(selection, found, found[here], files)
    with experiment:
        switching.show(selection, found[here])
    with folded:
        equation.show(selection, found[here])
    with st.container(key="closer"):
        closer.show(selection, found[here])
    if arrived := navigation.arrived():
        scrolling.to_container("closer", arrived)


def _local(selection: Selection, missing: LayerMap) -> LayerMap:
    """Local CHIP in the place of a map that W cannot give, or the same depth while it is being made."""
    layer, label = missing.layer, plain(selection.label)
    desk, sha256 = queues.slow_maps(), selection.image.sha256
    known = {job.key for job in desk.jobs()}
    try:
        job = queues.local_row(selection.network, sha256, layer, selection.target, selection.seen)
    except TooMany as error:
        st.info(
            f"W has no row for {label} at {plain(layer.name)}, and Local CHIP is queued: {plain(str(error))}",
            icon=":material/hourglass_top:",
        )
        return missing
    queues.only_the_last(job)
    if job.key not in known:
        job.finished.wait(INLINE_WAIT_S)
    with st.container(key="local", border=True):
        st.markdown(
            f"**At {plain(layer.name)}, this map is Local CHIP’s.** W has no row for {label} here, so the channels’ weights are learned from this "
            "photograph alone, with 300 random gates. They hold for this photograph only and are noisier than W."
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            if st.button("Fit W on more photographs", key="to-fit", icon=":material/school:"):
                navigation.open_view("fit")
            st.markdown(f"or `python -m chipcore fit {selection.network.flags} --layers {layer.name} --images FOLDER`")
        done = job_progress.progress_until_done(desk, job)
    return layer_maps.local_layer_map(missing, job.result, selection.seen.features[layer.name]) if done else missing


def _note(note: Note) -> None:
    (st.warning if note.kind == "weak" else st.info)(note.text, icon=_ICONS[note.kind])
