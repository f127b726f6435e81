"""Sanity check (Adebayo et al. 2018): a map must change when the network's weights are randomized.

Weights are drawn anew from the end of the network upwards: the last layer alone, the upper half of the layers,
all of them. Convolutions and linear maps get He et al.'s normal (which keeps activations alive in a ReLU
network) and no bias, normalization becomes the identity. All of it happens on copies.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chipcore.evaluation.benchmark import MethodSet, RunStats
from chipcore.evaluation.images import normalize_by_max
from chipcore.gating.suffix import Activations
from chipcore.maps import positive_map, upsample
from chipcore.networks import Layer, Network

STAGES = ("last", "half", "all")


def weighted_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that have weights of their own, in the order they were defined in."""
    return [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]


def randomized(network: Network, stage: str, seed: int) -> Network:
    """A copy of a network with new weights in its last module, in the later half of them, or in all."""
    model = copy.deepcopy(network.model)
    modules = weighted_modules(model)
    count = {"last": 1, "half": math.ceil(len(modules) / 2), "all": len(modules)}[stage]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in modules[len(modules) - count :]:
            for name, value in module.named_parameters(recurse=False):
                if value.ndim > 1:
                    fan_in = value[0].numel()
                    value.copy_(torch.randn(value.shape, generator=generator) * math.sqrt(2 / fan_in))
                else:
                    value.fill_(1.0 if name == "weight" else 0.0)
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.reset_running_stats()
    return network.private(model=model, weights_sha256=f"randomised {stage} {seed}")


def similarity(before: Tensor, after: Tensor, size: int) -> tuple[float, float] | None:
    """Spearman's rank correlation of two signed maps and SSIM of their finished ones, both at (size, size); None where one is constant.

    Args:
        before, after: raw maps, shape (u, v).
        size: pixels of the network's input.
    """
    if before.max() == before.min() or after.max() == after.min():
        return None
    # They take a second to import, which every other command would pay.
    from scipy.stats import spearmanr
    from skimage.metrics import structural_similarity

    with warnings.catch_warnings():  # a nearly constant map: spearmanr warns and gives NaN, which is left out below
        warnings.simplefilter("ignore")
        rank = float(spearmanr(*(upsample(one, size).numpy().ravel() for one in (before, after))).statistic)
    pictures = [normalize_by_max(positive_map(one, size).numpy()) for one in (before, after)]
    alike = float(structural_similarity(*pictures, data_range=1.0, win_size=min(7, (size - 1) // 2 * 2 + 1)))
    return (rank, alike) if math.isfinite(rank) and math.isfinite(alike) else None


class Sanity:
    """Maps of the randomized copies against those of the network itself, for every method and layer."""

    note = (
        "1 means that the map did not change. The class stays the network's own. CHIP's W is not learned again: it stays, and only the activations"
        " change, so randomising what comes after the layer cannot change a CHIP map, while it does change a gradient's."
    )

    def __init__(self, panel: MethodSet, seed: int) -> None:
        self._panels = {stage: replace(panel, network=randomized(panel.network, stage, seed)) for stage in STAGES}
        self._found: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
        self._constant: dict[tuple[str, str, str], int] = defaultdict(int)

    def look(self, inputs: Tensor) -> dict[str, Activations]:
        """One pass through every randomized copy."""
        return {stage: panel.look(inputs) for stage, panel in self._panels.items()}

    def compare(self, method: str, inputs: Tensor, target: int, layer: Layer, activations: dict[str, Activations], raw: Tensor) -> None:
        """Set a method's map of each copy against ``raw``, its signed map (u, v) of the network itself."""
        for stage, panel in self._panels.items():
            other = panel.raw_map(method, inputs, target, layer, activations[stage], RunStats())
            found = similarity(raw, other, inputs.shape[-1])
            if found is None:
                self._constant[layer.name, method, stage] += 1
            else:
                self._found[layer.name, method, stage].append(found)

    def report(self, layer: Layer, method: str) -> dict[str, Any]:
        """Means over images by stage; ``constant`` counts the pairs in which a map was constant and nothing can be said."""
        result = {}
        for stage in STAGES:
            pairs = np.array(self._found[layer.name, method, stage])
            result[stage] = {
                "spearman": float(pairs[:, 0].mean()) if len(pairs) else None, "ssim": float(pairs[:, 1].mean()) if len(pairs) else None,
                "constant": self._constant[layer.name, method, stage],
            }  # fmt: skip
        return result
