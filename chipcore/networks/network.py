"""What a network is: a frozen model, its named layers, its input and its classes."""

from __future__ import annotations

import copy
import shlex
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor, nn

from chipcore.datasets.class_names import Classes
from chipcore.errors import ChipError, UnknownName
from chipcore.gating.split import SplitModel
from chipcore.gating.suffix import Activations, Suffix
from chipcore.images import InputGeometry
from chipcore.storage import sha256_of_tensors


@dataclass(frozen=True)
class Layer:
    """A layer whose channels can be gated: its registry name, module path and feature size (K, u, v)."""

    name: str
    path: str
    channels: int
    height: int
    width: int
    stride: int

    def __str__(self) -> str:
        return f"{self.name} ({self.channels} channels, {self.height} x {self.width})"


@dataclass(frozen=True)
class Network:
    """A pretrained classifier as CHIP sees it. Make one with :func:`chipcore.load_network`.

    ``model`` is in eval mode and frozen. ``weights_sha256`` identifies the weights by value, whatever file
    they came from. ``layers`` are the named depths, from shallow to deep. ``given`` are the command line's
    flags, beside ``--network``, that load this network again; ``variant`` tells apart networks of equal weights whose
    input or classes differ.
    """

    name: str
    title: str
    model: nn.Module
    geometry: InputGeometry
    classes: Classes
    layers: tuple[Layer, ...]
    weights_sha256: str
    source: str = ""
    given: tuple[str, ...] = ()
    variant: str = ""
    _cuts: dict[tuple[str, ...], SplitModel] = field(default_factory=dict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def wrap(
        cls, model: nn.Module, *, name: str, layers: Sequence[tuple[str, str]], geometry: InputGeometry, classes: Classes,
        title: str = "", source: str = "",
    ) -> Network:  # fmt: skip
        """A network from a loaded model and its ``(name, module path)`` depths.

        The model is copied, so the caller's own keeps its train flags, ``requires_grad`` and hooks.
        Raises ``ChipError`` where the number of outputs and of classes differ, or weights are not finite.
        """
        model = copy.deepcopy(model).eval().requires_grad_(False)
        for key, value in model.state_dict().items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise ChipError(f"the weights of {name} hold NaN or infinity in {key!r}; give another checkpoint.")
        digest = sha256_of_tensors(model.state_dict().items())
        # Convolutions over many gates are fastest with channels last on CPU and on GPU alike.
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network = cls(name, title or name, model, geometry, classes, (), digest, source)
        activations = network._passes(tuple(path for _name, path in layers))
        if activations.scores.shape[1] != len(classes):
            raise ChipError(
                f"{name} has {activations.scores.shape[1]} outputs but {len(classes)} class names were given; give one name an output."
            )
        described = tuple(_describe(label, path, activations.features[path], geometry.size) for label, path in layers)
        return replace(network, layers=described)

    def _passes(self, paths: tuple[str, ...]) -> Activations:
        with torch.inference_mode():
            return self._cut(paths).forward_prefix(self._example())

    def _example(self) -> Tensor:
        return torch.zeros(1, 3, self.geometry.size, self.geometry.size, device=self.device)

    @property
    def id(self) -> str:
        """Name, the first digits of the weights' sha256 and the variant: what anything computed with it is kept under."""
        return f"{self.name}-{self.weights_sha256[:12]}{self.variant}"

    @property
    def flags(self) -> str:
        """What the command line is told to load this network, for a command that a person can copy."""
        return shlex.join(("--network", self.name, *self.given))

    def private(self) -> Network:
        """The same network with room of its own for what it is cut into, which goes when it does."""
        return replace(self, _cuts={}, _lock=threading.Lock())

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def to(self, device: str | torch.device) -> Network:
        """The same network on another device; this one stays where it is."""
        if torch.device(device) == self.device:
            return self
        return replace(self, model=copy.deepcopy(self.model).to(device), _cuts={}, _lock=threading.Lock())

    def layer(self, wanted: str) -> Layer:
        """A layer by registry name or by module path; ``UnknownName`` lists the layers with their sizes.

        Any module that gives feature maps can be named by its path, listed or not.
        """
        for layer in self.layers:
            if wanted in (layer.name, layer.path):
                return layer
        if wanted and wanted in dict(self.model.named_modules()):
            return _describe(wanted, wanted, self._passes((wanted,)).features[wanted], self.geometry.size)
        listed = ", ".join(str(layer) for layer in self.layers)
        raise UnknownName("layer", wanted, [layer.name for layer in self.layers], f"{self.name} offers {listed}.")

    def forward_prefix(self, images: Tensor, layers: Sequence[Layer] = ()) -> Activations:
        """One pass over images (B, 3, size, size): scores, and features and carried values by layer path."""
        paths = tuple(layer.path for layer in (layers or self.layers))
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        return self._cut(paths).forward_prefix(images)

    def suffix(self, layer: Layer, layers: Sequence[Layer] = ()) -> Suffix:
        """What follows ``layer``, for the carried values of a trunk over ``layers``."""
        return self._cut(tuple(one.path for one in (layers or self.layers))).suffixes[layer.path]

    def peak(self, layers: Sequence[Layer] = ()) -> int:
        """Elements that the widest step of a trunk over ``layers`` reads and writes for one image."""
        return self._cut(tuple(one.path for one in (layers or self.layers))).peak

    def _cut(self, paths: tuple[str, ...]) -> SplitModel:
        # Weights folded in inference mode could never be differentiated through (Grad-CAM does).
        with self._lock, torch.inference_mode(False), torch.no_grad():
            if paths not in self._cuts:
                self._cuts[paths] = SplitModel(self.model, paths, self._example())
            return self._cuts[paths]

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """f(X) of Eq. 4: class probabilities (B, C) of images (B, 3, size, size)."""
        return self.forward_prefix(images).scores.softmax(1)

    def input(self, image: Image.Image) -> Tensor:
        """One image as a batch of one, shape (1, 3, size, size)."""
        return self.geometry.tensor(image)[None]


def _describe(name: str, path: str, features: Tensor, size: int) -> Layer:
    _one, channels, height, width = features.shape
    return Layer(name, path, channels, height, width, round(size / max(height, width)))
