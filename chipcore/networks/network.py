"""What a network is: a frozen model, its named layers, its input and its classes."""

from __future__ import annotations

import copy
import shlex
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from chipcore.datasets.class_names import Classes
from chipcore.errors import UnknownName
from chipcore.gating.split import CutOptions, ModelGraph, SplitModel
from chipcore.gating.suffix import Activations, Suffix
from chipcore.images import InputGeometry
from chipcore.networks.adopted import adopt, lay_out
from chipcore.networks.outputs import Outputs, check_count, class_probabilities
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


@dataclass
class _Cuts:
    """What a network has been cut into so far, and the lock under which it is."""

    made: dict[tuple[str, ...], SplitModel] = field(default_factory=dict)
    graph: ModelGraph | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self.made)


@dataclass(frozen=True)
class Network:
    """A pretrained classifier as CHIP sees it. Make one with :func:`chipcore.load_network` or :func:`chipcore.wrap`.

    ``model`` is in eval mode and frozen. ``weights_sha256`` identifies the weights by value, whatever file
    they came from. ``layers`` are the named depths, from shallow to deep. ``outputs`` says what the scores are, and so how
    f^c comes from them. ``given`` are the command line's flags, beside ``--network``, that load this network again, None for a
    module that no command can load; ``variant`` tells apart networks of equal weights whose input or classes differ. ``notes`` are
    sentences about what was found out or changed when it was loaded.
    """

    name: str
    title: str
    model: nn.Module
    geometry: InputGeometry
    classes: Classes
    layers: tuple[Layer, ...]
    weights_sha256: str
    source: str = ""
    given: tuple[str, ...] | None = ()
    variant: str = ""
    outputs: Outputs = "logits"
    notes: tuple[str, ...] = ()
    cutting: CutOptions = field(default_factory=CutOptions, compare=False)
    _cuts: _Cuts = field(default_factory=_Cuts, repr=False, compare=False)

    @classmethod
    def wrap(
        cls, model: nn.Module, *, name: str, layers: Sequence[tuple[str, str]], geometry: InputGeometry, classes: Classes,
        title: str = "", source: str = "",
    ) -> Network:  # fmt: skip
        """A network from a model that gives class scores before softmax, and its ``(name, module path)`` depths.

        The model is copied, so the caller's own keeps its train flags, ``requires_grad`` and hooks. :func:`chipcore.wrap` does
        this and finds the rest. Raises ``ChipError`` where the number of outputs and of classes differ, or weights are not finite.
        """
        own, notes = adopt(model, name)
        return cls.of_own(own, name=name, layers=layers, geometry=geometry, classes=classes, title=title, source=source, notes=notes)

    @classmethod
    def of_own(
        cls, model: nn.Module, *, name: str, layers: Sequence[tuple[str, str]], geometry: InputGeometry, classes: Classes,
        title: str = "", source: str = "", **more: Any,
    ) -> Network:  # fmt: skip
        """As :meth:`wrap`, of a model that belongs to the network alone already; ``more`` are fields of this class."""
        digest = sha256_of_tensors(model.state_dict().items())
        cutting = more.pop("cutting", CutOptions())
        example = torch.zeros(1, geometry.channels, *geometry.shape)
        # Convolutions over many gates are fastest with channels last on CPU and on GPU alike.
        cutting = replace(cutting, layout=lay_out(model, example))
        network = cls(name, title or name, model, geometry, classes, (), digest, source, cutting=cutting, **more)
        activations = network._passes(tuple(path for _name, path in layers))
        check_count(activations.scores.shape[1], len(classes), name)
        described = tuple(_describe(label, path, activations.features[path], geometry) for label, path in layers)
        return replace(network, layers=described)

    def _passes(self, paths: tuple[str, ...]) -> Activations:
        with torch.inference_mode():
            return self._cut(paths).forward_prefix(self.example)

    @property
    def example(self) -> Tensor:
        """An input of zeros, shape (1, channels, h, w), on the network's device."""
        return self.arrange(torch.zeros(1, self.geometry.channels, *self.geometry.shape, device=self.device))

    def arrange(self, images: Tensor) -> Tensor:
        """Images (B, channels, h, w) in the memory format that the model runs with."""
        return images.contiguous(memory_format=self.cutting.layout)

    @property
    def id(self) -> str:
        """Name, the first digits of the weights' sha256 and the variant: what anything computed with it is kept under."""
        return f"{self.name}-{self.weights_sha256[:12]}{self.variant}"

    @property
    def flags(self) -> str:
        """Command-line flags that load this network, for a command that a person can copy; empty where no command can."""
        return shlex.join(("--network", self.name, *self.given)) if self.given is not None else ""

    def private(self, **changes: Any) -> Network:
        """The same network, or one with other fields, with room of its own for what it is cut into, which goes when it does."""
        return replace(self, _cuts=_Cuts(), **changes)

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def to(self, device: str | torch.device) -> Network:
        """The same network on another device; this one stays where it is."""
        if torch.device(device) == self.device:
            return self
        return self.private(model=copy.deepcopy(self.model).to(device))

    def layer(self, wanted: str | Layer | nn.Module) -> Layer:
        """A layer by registry name, by module path, or by the module itself; ``UnknownName`` lists the layers with their sizes.

        Any module that gives feature maps can be named by its path, listed or not.
        """
        if isinstance(wanted, Layer):
            wanted = wanted.path
        if isinstance(wanted, nn.Module):
            wanted = next((path for path, module in self.model.named_modules() if module is wanted), type(wanted).__name__)
        for layer in self.layers:
            if wanted in (layer.name, layer.path):
                return layer
        if wanted and wanted in dict(self.model.named_modules()):
            return _describe(wanted, wanted, self._passes((wanted,)).features[wanted], self.geometry)
        listed = ", ".join(str(layer) for layer in self.layers)
        raise UnknownName("layer", wanted, [layer.name for layer in self.layers], f"{self.name} offers {listed}.")

    def forward_prefix(self, images: Tensor, layers: Sequence[Layer] = ()) -> Activations:
        """One pass over images (B, channels, h, w): scores, and features and side inputs by layer path."""
        paths = tuple(layer.path for layer in (layers or self.layers))
        return self._cut(paths).forward_prefix(self.arrange(images.to(self.device)))

    def suffix(self, layer: Layer, layers: Sequence[Layer] = ()) -> Suffix:
        """What follows ``layer``, for the side inputs of a prefix over ``layers``."""
        return self._cut(tuple(one.path for one in (layers or self.layers))).suffixes[layer.path]

    def peak(self, layers: Sequence[Layer] = ()) -> int:
        """Elements that the widest step of a prefix over ``layers`` reads and writes for one image."""
        return self._cut(tuple(one.path for one in (layers or self.layers))).peak

    def _cut(self, paths: tuple[str, ...]) -> SplitModel:
        cuts = self._cuts
        # Weights folded in inference mode could never be differentiated through (Grad-CAM does).
        with cuts.lock, torch.inference_mode(False), torch.no_grad():
            if paths not in cuts.made:
                cuts.graph = cuts.graph or ModelGraph(self.model, self.example)
                cuts.made[paths] = SplitModel(self.model, paths, self.example, cuts.graph, self.cutting)
            return cuts.made[paths]

    def class_probabilities(self, scores: Tensor) -> Tensor:
        """f of Eq. 4 from scores (..., C): their softmax, or where every output is a question of its own, its sigmoid."""
        return class_probabilities(scores, self.outputs)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """f(X) of Eq. 4: class probabilities (B, C) of images (B, channels, h, w)."""
        return self.class_probabilities(self.forward_prefix(images).scores)

    def input(self, image: Image.Image) -> Tensor:
        """One image as a batch of one, shape (1, channels, h, w)."""
        return self.geometry.tensor(image)[None]


def _describe(name: str, path: str, features: Tensor, geometry: InputGeometry) -> Layer:
    _one, channels, height, width = features.shape
    return Layer(name, path, channels, height, width, round(max(geometry.shape) / max(height, width)))
