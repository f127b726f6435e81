"""The method's own mechanism, used to test it: close channels of a layer and see what the network then says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chipcore import Layer, Network
from chipcore.perturbation import perturbed_scores
from chipcore.suffix import Activations

DRAWS = 5  # sets of random channels; the mean over them is shown, with the lowest and highest


@dataclass(frozen=True)
class Closed:
    """Probabilities of all classes, each (C,), with some channels closed.

    ``chosen`` for the channels that were asked for, ``random`` (draws, C) for as many that were drawn blindly.
    """

    chosen: Tensor
    random: Tensor


def steps(channels: int) -> list[int]:
    """How many channels one may close: finely at first, then in doublings, at last all."""
    some = [0, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 4000]
    return [k for k in some if k < channels] + [channels]


def random_channels(channels: int, count: int, draws: int = DRAWS, seed: int = 0) -> list[list[int]]:
    """``draws`` sets of ``count`` different channels, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return [sorted(torch.randperm(channels, generator=generator)[:count].tolist()) for _ in range(draws)]


def close(network: Network, layer: Layer, activations: Activations, channels: Sequence[int]) -> Closed:
    """What the network says with ``channels`` of a layer closed (Eq. 1, 3), and with as many random ones.

    Args:
        network: the network.
        layer: where; the suffix from there on runs once for every set of channels.
        activations: of one photograph, from a trunk over all layers of the network.
        channels: to be closed.
    """
    sets = [list(channels), *random_channels(layer.channels, len(channels))]
    gates = torch.ones(1, len(sets), layer.channels)
    for number, some in enumerate(sets):
        gates[0, number, some] = 0
    with torch.inference_mode():
        suffix, features = network.suffix(layer, network.layers), activations.features[layer.path]
        scores = perturbed_scores(suffix, features, activations.carried[layer.path], gates.to(features), batch=len(sets))
    probabilities = scores[0].softmax(-1).cpu()
    return Closed(probabilities[0], probabilities[1:])
