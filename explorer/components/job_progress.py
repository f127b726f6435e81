"""A background job on the page: how far it is, how long it will take, and a button to stop it for whoever started it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from explorer.services.jobs import Job, JobQueue, TooMany
from explorer.state.visitors import can_stop_job, is_local_user
from explorer.text import duration, plain

EVERY = 0.5  # seconds between looks at a running job


def start(desk: JobQueue, key: str, title: str, work: Callable[[Job], Any]) -> bool:
    """Put a job of this visitor on a desk, also in a callback; False, and a sentence comes up, where there are too many."""
    try:
        desk.start(key, title, work, owner=is_local_user(), again=True)
    except TooMany as error:
        st.toast(f"Not now: {plain(str(error))}", icon=":material/hourglass_top:", duration="long")
        return False
    return True


def progress_until_done(desk: JobQueue, job: Job) -> bool:
    """Show a job that is under way and draw the page again when it is over; True where there is a result.

    Call it on every run of the page; what is below it can be drawn once it gives True.
    """
    if job.state == "done":
        return True
    if job.state == "failed":
        st.error(f"**{plain(job.title)} failed:** {plain(job.error)}", icon=":material/error:")
    elif job.state == "stopped":
        st.info(f"{plain(job.title)} was stopped.", icon=":material/block:")
    else:
        _watch(desk, job)
    return False


@st.fragment(run_every=EVERY)
def _watch(desk: JobQueue, job: Job) -> None:
    if job.over:
        st.rerun(scope="app")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(job.share, _line(desk, job))
        if can_stop_job(job):
            st.button("Stop", key=f"stop-{job.key}", on_click=job.stop, disabled=job.stopping.is_set())


def _line(desk: JobQueue, job: Job) -> str:
    title = plain(job.title)
    if job.stopping.is_set():
        return f"{title}: stopping …"
    if job.state == "waiting":
        return f"{title}: queued, {desk.ahead_of(job)} ahead"
    if not job.total:
        return f"{title} …"
    stage = f" ({plain(job.stage)})" if job.stage else ""
    left = f", about {duration(job.left)} left" if job.left is not None else ""
    return f"{title}: {job.done:,} of {job.total:,}{stage}{left}"
