"""What a method is given, what it gives back, and the one call that runs any of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from chipcore import maps
from chipcore.cut import Activations
from chipcore.errors import SettingsError, UnknownName
from chipcore.images import open_image
from chipcore.importance import Importance, load_importance
from chipcore.networks.network import Layer, Network


@dataclass(frozen=True)
class Request:
    """One question: which part of this photograph speaks for this class, at this layer?"""

    network: Network
    inputs: Tensor  # (1, 3, size, size)
    target: int
    layer: Layer
    importance: Importance | None = None
    activations: Activations | None = None

    def known_activations(self) -> Activations:
        """Features of the layer: those that were handed in, or one pass."""
        if self.activations is not None and self.layer.path in self.activations.features:
            return self.activations
        return self.network.trunk(self.inputs, (self.layer,))


@dataclass(frozen=True)
class Explanation:
    """What a method computes: its raw map (u, v) and how many passes through the network it took."""

    raw: Tensor
    passes: int


Method = Callable[[Request], Explanation]
METHODS: dict[str, Method] = {}


def register(name: str) -> Callable[[Method], Method]:
    """Add a method to the registry; the command line and the app take their choices from it."""

    def add(method: Method) -> Method:
        METHODS[name] = method
        return method

    return add


@dataclass(frozen=True)
class Saliency:
    """A map with everything that is needed to show it or to compute with it.

    ``raw`` (u, v) keeps its sign and resolution; ``view`` is the photograph as the network saw it, on which
    the map is drawn; ``probability`` is f^c. ``state`` says why there is nothing to see, where that is so.
    """

    method: str
    network: str
    layer: str
    target: int
    label: str
    probability: float
    raw: Tensor
    view: Image.Image
    seconds: float
    passes: int

    @property
    def state(self) -> maps.State:
        return maps.state(self.raw)

    @cached_property
    def picture(self) -> Tensor:
        """The positive part at input resolution, float32 (size, size) in [0, 1]."""
        return maps.picture(self.raw, self.view.width)


def explain(
    network: Network, image: Image.Image | str | Path, target: int | str, method: str = "chip", layer: str | None = None,
    importance: Importance | None = None,
) -> Saliency:  # fmt: skip
    """A map of what speaks for a class in a photograph.

    Args:
        network: from :func:`chipcore.load_network`.
        image: a photograph or its path.
        target: a class by index, synset or name.
        method: a name from ``chipcore.methods.METHODS``.
        layer: a layer by name or module path; the deepest by default.
        importance: W to use with CHIP; the cached or bundled one by default.

    Raises:
        ChipError: an unknown class, layer or method, an unreadable photograph, or W that is not fitted.
    """
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)
    at = network.layer(layer) if layer is not None else network.layers[-1]
    index = network.classes.index(target)
    view = network.geometry.view(image if isinstance(image, Image.Image) else open_image(image))
    inputs = network.geometry.normalise(torch.from_numpy(np.array(view)))[None]
    start = time.perf_counter()
    # CHIP reads W and the features only, but every caption shows f^c: one pass serves both.
    with torch.inference_mode():
        activations = network.trunk(inputs, (at,))
        probability = float(activations.scores.softmax(1)[0, index])
        if method.endswith("chip") and importance is None:
            importance = load_importance(network, at.name)
        found = METHODS[method](Request(network, inputs, index, at, importance, activations))
    if found.raw.ndim != 2:
        raise SettingsError(f"{method} gave a map of {found.raw.ndim} axes; a method must give (height, width).")
    seconds = time.perf_counter() - start
    return Saliency(
        method, network.name, at.name, index, network.classes.labels[index], probability, found.raw.cpu(), view, seconds, found.passes
    )
