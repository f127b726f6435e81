"""One row of the registry: a network that is known by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from chipcore.datasets.class_names import Classes, imagenet
from chipcore.images import InputGeometry


@dataclass(frozen=True)
class LayerSpec:
    """A named depth as the table states it: module path, channels K and side u = v in pixels of its maps.

    The figures hold for the entry's own input size; the tests compare them with the built network.
    """

    name: str
    path: str
    channels: int
    side: int


class Weights(Protocol):
    """Where published weights come from."""

    def file(self) -> Path | None:
        """The file on this machine, or None where it has yet to be fetched."""

    def load(self, download: bool) -> dict[str, Tensor]:
        """The published state_dict; ``CheckpointError`` names the file and its place where it can't be had."""


def unchanged(weights: dict[str, Tensor], _model: nn.Module) -> dict[str, Tensor]:
    """For published weights whose keys are the module's own."""
    return weights


@dataclass(frozen=True)
class NetworkSpec:
    """A registered network.

    ``build`` makes the module without weights; it takes ``classes=``, the number of outputs. ``depths`` run
    from shallow to deep. ``dropped`` are the beginnings of keys that a checkpoint may hold for parts we leave
    off (auxiliary heads); ``convert`` gives the published keys the module's names and leaves those alone.
    """

    name: str
    title: str
    build: Callable[..., nn.Module]
    weights: Weights
    depths: tuple[LayerSpec, ...]
    geometry: InputGeometry
    classes: Callable[[], Classes] = imagenet
    bundled: bool = False
    dropped: tuple[str, ...] = ()
    convert: Callable[[dict[str, Tensor], Any], dict[str, Tensor]] = unchanged

    @property
    def layers(self) -> tuple[tuple[str, str], ...]:
        """The depths as ``(name, module path)``."""
        return tuple((depth.name, depth.path) for depth in self.depths)

    def fitting(self, weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """A state_dict, the published one or of a checkpoint, under the keys of ``model``."""
        return {key: value for key, value in self.convert(weights, model).items() if not key.startswith(self.dropped)}

    @property
    def here(self) -> bool:
        """Whether the published weights are on this machine; looks for the file and opens nothing."""
        return self.weights.file() is not None
