"""One map of one method on a page: there at once, or after a click and a while, or with the reason why not.

Shared by the views that show many methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from chipcore import ChipError, Layer, Saliency
from chipcore.methods import METHODS
from explorer.components import job_progress
from explorer.services import saliency_cache
from explorer.services.jobs import Job
from explorer.services.saliency_cache import MapKey
from explorer.state import cached, queues
from explorer.state.selection import Selection
from explorer.state.visitors import at_work


@dataclass(frozen=True)
class MapCell:
    """A map, or why there is none: ``problem`` is a sentence; where that is empty too, it was not computed yet."""

    question: MapKey
    layer: Layer
    saliency: Saliency | None = None
    problem: str = ""

    @property
    def shown(self) -> bool:
        return self.saliency is not None and self.saliency.state == "ok"

    @property
    def waits(self) -> bool:
        return self.saliency is None and not self.problem

    @property
    def title(self) -> str:
        return METHODS[self.question.method].title


def resolve_map(selection: Selection, method: str, layer: Layer, target: int) -> MapCell:
    """The map if it is known or quick to compute; slow ones are left for :func:`pending_map`."""
    network = selection.network
    question = MapKey.of(network, selection.image.sha256, method, layer, target, lambda at: cached.importance_version(network, at.name))
    kept = cached.answers()
    known = kept.get(question)
    if known is None and not question.slow:
        try:
            with at_work():
                known = saliency_cache.compute_map(selection.network, selection.seen.view, question, layer, selection.importance)
        except ChipError as error:
            return MapCell(question, layer, problem=str(error))
        kept.put(question, known)
    return MapCell(question, layer, known)


def pending_map(selection: Selection, cell: MapCell, place: str) -> None:
    """What stands where a slow map will be: a button, then how far it is, with a way to stop it.

    Args:
        place: of the page, for the keys of its buttons.
    """
    desk = queues.slow_maps()
    job = desk.get(cell.question.key)
    if job is not None and not (job.state == "done" and cell.waits):
        job_progress.progress_until_done(desk, job)
        if not job.over:
            return
    again = job is not None and job.state != "done"
    st.button(
        "Try again" if again else f"Compute {cell.title}",
        key=f"start-{place}-{cell.question.key}", on_click=start, args=(selection, [cell]), icon=":material/play_arrow:",
        help="This takes seconds to half a minute. It continues in the background.",
    )  # fmt: skip


def start(selection: Selection, cells: Sequence[MapCell]) -> None:
    """Put slow maps on the desk, as many as this visitor may have there."""
    kept, desk = cached.answers(), queues.slow_maps()
    network, view, load = selection.network, selection.seen.view, cached.importance_loader(selection.network)
    for cell in cells:
        label = network.classes.labels[cell.question.target]

        def work(job: Job, cell: MapCell = cell) -> bool:
            kept.put(
                cell.question,
                saliency_cache.compute_map(network, view, cell.question, cell.layer, load, job.report),
            )
            return True

        if not job_progress.start(desk, cell.question.key, f"{cell.title} of {label}", work):
            return
