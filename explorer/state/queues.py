"""The queues in which a visitor's long jobs wait and run, one for each kind of work."""

from __future__ import annotations

import streamlit as st
import torch
from torch import Tensor

from chipcore import Layer, Network
from chipcore.methods import METHODS
from chipcore.methods.base import MethodInputs
from chipcore.methods.local_chip import local_row as fit_local_row
from explorer.services.jobs import Job, JobQueue
from explorer.state import cached
from explorer.state.cached import Prediction
from explorer.state.visitors import is_local_user


@st.cache_resource
def fits() -> JobQueue:
    """Where fits run, one after another: each wants the whole machine. One visitor may have one that runs and one that waits."""
    return JobQueue(each=2, most=40, what="fits")


@st.cache_resource
def trials() -> JobQueue:
    """Where the time of a fit is tried before it is started."""
    return JobQueue(each=2, what="trials")


@st.cache_resource
def slow_maps() -> JobQueue:
    """Where the methods run that take longer than a visitor should wait for a page: for each visitor one and three that wait."""
    return JobQueue(each=4, what="slow maps")


def local_row(network: Network, sha256: str, layer: Layer, target: int, prediction: Prediction) -> Job:
    """The job that fits a row of W on one image alone; its result is w_c, shape (K,). ``TooMany`` where too much waits."""

    def work(job: Job) -> Tensor:
        method = METHODS["local_chip"]
        with torch.no_grad():
            request = MethodInputs(
                network, cached.inputs_of(network, prediction), target, layer, options=method.options, progress=job.report
            )
            return fit_local_row(request).cpu()

    label = network.classes.labels[target]
    key = f"local-{network.id}-{sha256}-{layer.name}-{target}"
    return slow_maps().start(key, f"Local CHIP of {label} at {layer.name}", work, owner=is_local_user())


def only_the_last(job: Job) -> None:
    """Stop what this visitor's page has started by itself before, where that has not begun: so that browsing does not fill the queue."""
    earlier = st.session_state.get("started-by-itself")
    if earlier is not None and earlier is not job and earlier.state == "waiting" and earlier.owner == is_local_user():
        earlier.stop()
    st.session_state["started-by-itself"] = job


def clear() -> None:
    """Forget every job but fits, which survive; tests call it, because queues outlive a session."""
    slow_maps.clear()
    trials.clear()
