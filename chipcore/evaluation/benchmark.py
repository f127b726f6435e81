"""The methods side by side: one image, one pass, and every method's map of the same class at the same size."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from chipcore import maps
from chipcore.errors import SettingsError, UnknownName
from chipcore.gating.suffix import Activations
from chipcore.importance import Importance, load_importance
from chipcore.methods import METHODS, MethodInputs
from chipcore.networks import Layer, Network

BASELINE = "gradcam"  # what the others are compared to, where it takes part


@dataclass
class RunStats:
    """What happened at one layer besides the figures: who was left out and why, times, and maps with nothing on them."""

    skipped: Counter[str] = field(default_factory=Counter)
    weak: int = 0
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    maps: Counter[str] = field(default_factory=Counter)
    blank: Counter[str] = field(default_factory=Counter)

    def of(self, method: str) -> dict[str, Any]:
        """The fields that every evaluation reports of a method."""
        count = self.maps[method]
        return {"seconds_per_image": self.seconds[method] / count if count else None, "blank_maps": self.blank[method]}


@dataclass(frozen=True)
class MethodSet:
    """A network, some of its layers and the methods that are compared there.

    ``importances`` holds W by layer name where a method of the CHIP family takes part, and is empty otherwise.
    ``evidence`` 'good' leaves out the classes whose row of W is weak; ``options`` go to the methods.
    """

    network: Network
    layers: tuple[Layer, ...]
    methods: tuple[str, ...]
    importances: Mapping[str, Importance]
    evidence: Literal["any", "good"] = "any"
    options: Mapping[str, Any] = field(default_factory=dict)
    shallow: Importance | None = None  # W of the network's first layer, where a method combines it with a deeper one

    @classmethod
    def of(
        cls, network: Network, layers: Sequence[str], methods: Sequence[str], importance: str | Path | None = None,
        evidence: Literal["any", "good"] = "any", options: Mapping[str, Any] | None = None,
    ) -> MethodSet:  # fmt: skip
        """Look everything up by name.

        Raises ``UnknownName`` for a layer or method that does not exist, ``SettingsError`` for none or the
        same one twice, ``ImportanceNotFitted`` where a method needs W and there is none.
        """
        if not methods or not layers:
            raise SettingsError("nothing to evaluate; name at least one method and one layer.")
        for name in methods:
            if name not in METHODS:
                raise UnknownName("method", name, METHODS)
        at = tuple(network.layer(name) for name in layers)
        for kind, names in (("method", list(methods)), ("layer", [layer.path for layer in at])):
            if len(set(names)) < len(names):
                raise SettingsError(f"a {kind} is named twice ({', '.join(names)}); name each once.")
        pictures = [name for name in methods if METHODS[name].is_image]
        if pictures:
            raise SettingsError(f"{pictures[0]} makes a picture of its own, not a map of a photograph; there is nothing to measure.")
        needed = any(METHODS[name].needs_importance for name in methods)
        found = {layer.name: load_importance(network, layer.name, importance) for layer in at} if needed else {}
        below = any(METHODS[name].needs_shallow for name in methods)
        shallow = load_importance(network, network.layers[0].name, importance) if below else None
        return cls(network, at, tuple(methods), found, evidence, options or {}, shallow)

    @property
    def baseline(self) -> str | None:
        """The method that differences are taken to: Grad-CAM, or the second method where it is absent."""
        if len(self.methods) < 2:
            return None
        return BASELINE if BASELINE in self.methods else self.methods[1]

    def tallies(self) -> dict[str, RunStats]:
        return {layer.name: RunStats() for layer in self.layers}

    def look(self, inputs: Tensor) -> Activations:
        """One pass for all layers; ordinary tensors, so that gradient methods can use them."""
        with torch.no_grad():
            return self.network.forward_prefix(inputs, self.layers)

    def skip_reason(self, layer: Layer, target: int) -> str:
        """Why a image of this class is left out, for every method alike; empty where it is not."""
        importance = self.importances.get(layer.name)
        if importance is None:
            return ""
        evidence = importance.evidence(target)
        if evidence == "none":
            return "no fitted row of W"
        return "weak row of W" if evidence == "weak" and self.evidence == "good" else ""

    def accepts(self, layer: Layer, target: int, tally: RunStats) -> bool:
        """Whether a image of this class takes part at this layer; counts it where it does not."""
        reason = self.skip_reason(layer, target)
        if reason:
            tally.skipped[reason] += 1
            return False
        importance = self.importances.get(layer.name)
        tally.weak += importance is not None and importance.evidence(target) == "weak"
        return True

    def raw_map(self, method: str, inputs: Tensor, target: int, layer: Layer, activations: Activations, tally: RunStats) -> Tensor:
        """A method's map at its own resolution, shape (u, v), signed, on the CPU; ``maps.positive_map`` finishes it.

        A map that is not finite or has no positive part is counted as blank; a non-finite one becomes zeros.
        """
        own = METHODS[method].options  # a method refuses the options of others
        options = {name: value for name, value in self.options.items() if name in own}
        request = MethodInputs(self.network, inputs, target, layer, self.importances.get(layer.name), activations, self.shallow, options)
        start = time.perf_counter()
        raw = METHODS[method](request).raw.detach().cpu()
        tally.seconds[method] += time.perf_counter() - start
        tally.maps[method] += 1
        if maps.state(raw) == "not finite":
            raw = torch.zeros_like(raw)
        tally.blank[method] += not bool((raw > 0).any())
        return raw
