"""Channel ablation: close channels of a layer, and see what the network then predicts (Eq. 1, 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from chipcore.analysis.tables import class_columns, to_csv
from chipcore.datasets.class_names import Classes
from chipcore.gating.perturbation import batch_size, perturbed_scores
from chipcore.gating.suffix import Activations
from chipcore.networks import Layer, Network

DRAWS = 5  # sets of random channels; the mean over them is shown, with the lowest and highest


@dataclass(frozen=True)
class AblatedScores:
    """Probabilities of all classes, each (C,), with some channels closed.

    ``chosen`` for the channels that were asked for, ``random`` (draws, C) for as many that were drawn blindly.
    """

    chosen: Tensor
    random: Tensor


def random_channels(channels: int, count: int, draws: int = DRAWS, seed: int = 0) -> list[list[int]]:
    """``draws`` sets of ``count`` different channels of ``channels``, the same for the same seed.

    Example:
        >>> [len(one) for one in random_channels(100, 3)]
        [3, 3, 3, 3, 3]
        >>> random_channels(100, 3) == random_channels(100, 3)
        True
    """
    generator = torch.Generator().manual_seed(seed)
    return [sorted(torch.randperm(channels, generator=generator)[:count].tolist()) for _ in range(draws)]


def gates_for(sets: Sequence[Sequence[int]], channels: int) -> Tensor:
    """d of Eq. 1, bool (len(sets), K): every set's channels are closed, the others open.

    Example:
        >>> gates_for([[0], [1, 2]], 3).int().tolist()
        [[0, 1, 1], [1, 0, 0]]
    """
    gates = torch.ones(len(sets), channels, dtype=torch.bool)
    for number, closed in enumerate(sets):
        gates[number, list(closed)] = False
    return gates


def ablated_scores(network: Network, layer: Layer, activations: Activations, gates: Tensor, layers: Sequence[Layer] = ()) -> Tensor:
    """g(X, d) of Eq. 3 for one image, class scores before softmax (G, C), on the CPU.

    Args:
        network: the network.
        layer: where; the suffix from there on runs once for every gate.
        activations: of one image, from a prefix over ``layers``, by default all of the network.
        gates: (G, K).
    """
    with torch.inference_mode():
        suffix, features = network.suffix(layer, layers or network.layers), activations.features[layer.path]
        at_once = batch_size(suffix.peak, features.device)  # so that memory does not grow with the number of gates
        return perturbed_scores(suffix, features, activations.side_inputs[layer.path], gates[None].to(features), at_once)[0].cpu()


def ablate(network: Network, layer: Layer, activations: Activations, channels: Sequence[int]) -> AblatedScores:
    """Predict with ``channels`` of a layer closed (Eq. 1, 3), and with as many random ones.

    ``activations`` are of one image, from a prefix over all layers of the network.
    """
    sets = [list(channels), *random_channels(layer.channels, len(channels))]
    probabilities = network.class_probabilities(ablated_scores(network, layer, activations, gates_for(sets, layer.channels)))
    return AblatedScores(probabilities[0], probabilities[1:])


def ablation_steps(channels: int) -> list[int]:
    """Numbers of channels to close that are worth a try: finely at first, then in doublings, at last all ``channels``.

    Example:
        >>> ablation_steps(24)
        [0, 1, 2, 3, 5, 10, 20, 24]
    """
    fine = [0, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 4000]
    return [count for count in fine if count < channels] + [channels]


def ablation_csv(before: Tensor, closed: AblatedScores, classes: Classes) -> str:
    """Probabilities of all classes as CSV, the most probable first: all open, with the chosen channels closed, with random ones."""
    order = before.argsort(descending=True, stable=True)
    random = closed.random[:, order]
    return to_csv(
        pd.DataFrame({
            **class_columns(classes, order.tolist()), "all_open": before[order].numpy(), "closed": closed.chosen[order].numpy(),
            "random_mean": random.mean(0).numpy(), "random_lowest": random.amin(0).numpy(), "random_highest": random.amax(0).numpy(),
        })
    )  # fmt: skip
