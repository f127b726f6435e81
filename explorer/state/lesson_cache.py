"""What the lessons compute once and share: one image at one layer, and the small fit of lesson four."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
import streamlit as st
import torch
from torch import Tensor

from chipcore import Layer, Network
from chipcore.analysis import gate_experiments
from chipcore.analysis.gate_experiments import Experiment, First, Fitted
from chipcore.gating.suffix import Activations
from chipcore.methods import METHODS
from chipcore.methods.base import MethodInputs
from explorer.services.cache import cached_by_size
from explorer.services.gallery import GalleryImage
from explorer.services.jobs import Job
from explorer.state import queues
from explorer.state.visitors import at_work, is_local_user

_KEPT = 8  # experiments that are remembered: another class at the same layer needs no further passes


@cached_by_size(64, meanwhile=at_work)
def activations(network_id: str, sha256: str, layer: str, _network: Network, _layer: Layer, _image: GalleryImage) -> Activations:
    """Features of one layer and the values that cross the cut there, for one image."""
    with torch.inference_mode():
        return _network.forward_prefix(_network.input(_image.open()), (_layer,))


@cached_by_size(8, meanwhile=at_work)
def answer(
    network_id: str, sha256: str, layer: str, first: First, target: int, number_open: int, draw: int, turned: tuple[int, ...], _network: Network, _layer: Layer,
    _activations: Activations, _gate: Tensor,
) -> np.ndarray:  # fmt: skip
    """g(X, d), scores (C,). The strings and numbers determine the gate."""
    return gate_experiments.gated_scores(_network, _layer, _activations, _gate).numpy()


@cached_by_size(8, meanwhile=at_work)
def gradcam(
    network_id: str,
    sha256: str,
    layer: str,
    target: int,
    _network: Network,
    _layer: Layer,
    _image: GalleryImage,
    _activations: Activations,
) -> np.ndarray:
    """Grad-CAM's raw map (u, v) at the layer."""
    request = MethodInputs(_network, _network.input(_image.open()), target, _layer, activations=_activations)
    return METHODS["gradcam"](request).raw.cpu().numpy()


@st.cache_resource
def _experiments() -> tuple[threading.Lock, OrderedDict[str, Experiment]]:
    return threading.Lock(), OrderedDict()


def local_fit(network: Network, image: GalleryImage, layer: Layer, target: int, known: Activations, *, again: bool = False) -> Job:
    """The job whose result is the lasso path of this class, a tuple of ``Fitted``, and the experiment behind it.

    One that failed or was stopped stays so until it is asked for ``again``. Raises ``TooMany`` where too much waits.
    """
    place = f"{network.id}/{image.sha256}/{layer.path}"
    lock, kept = _experiments()

    def work(job: Job) -> tuple[tuple[Fitted, ...], Experiment]:
        with lock:
            measured = kept.get(place)
        if measured is None:
            measured = gate_experiments.experiment(network, layer, known, lambda done, total: job.report(done, total, "gated networks"))
            with lock:
                kept[place] = measured
                while len(kept) > _KEPT:
                    kept.popitem(last=False)
        return gate_experiments.lasso_path(measured, target, layer.channels), measured

    desk, key = queues.slow_maps(), f"lesson/{place}/{target}"
    found = desk.get(key)
    return (
        found
        if found is not None and not again
        else desk.start(key, f"The small fit at {layer.name}", work, owner=is_local_user(), again=again)
    )
