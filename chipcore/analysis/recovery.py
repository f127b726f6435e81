"""How well W finds weights that are known: those of a network that is linear behind the layer.

Where only global pooling and one linear map follow, as behind the last features of EfficientNet-Lite0, g^c is exactly linear in
z, and the solution of Eq. 11 without sparsity is the map's own weights. That is the one place where the right W is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from chipcore.errors import SettingsError
from chipcore.gating.perturbation import batch_size, perturbed_scores
from chipcore.importance import Importance
from chipcore.networks import Layer, Network

TOP = 10
_AT_ONCE = 128  # channels whose weights are read in one go
_TOLERANCE = 1e-3  # of the largest score, by which a linear network may differ from its linear map


@dataclass(frozen=True)
class Recovery:
    """W against known weights, row by row.

    - ``classes``: the R classes that have a row
    - ``cosine`` (R,): of each row with the known weights, in [-1, 1]
    - ``shared`` (R,): how many of its ten largest channels are among the ten of the known weights
    """

    classes: tuple[int, ...]
    cosine: Tensor
    shared: Tensor

    def summary(self) -> dict[str, float | int]:
        """Medians, means and the worst row, for a report."""
        return {
            "rows": len(self.classes), "cosine_median": float(self.cosine.median()), "cosine_least": float(self.cosine.min()),
            "shared_median": float(self.shared.median()), "shared_mean": float(self.shared.mean()), "top": TOP,
        }  # fmt: skip


def known_weights(network: Network, layer: Layer) -> Tensor:
    """The class scores' weights of the channels' means, shape (C, K), where they are linear in them.

    Every channel is opened alone with a feature map of ones, which gives its weight. Random features then have to give the
    scores that these weights predict.

    Raises:
        SettingsError: what follows the layer is not linear in the channels' means, so no W is known to be right.
    """
    device = network.device
    with torch.inference_mode():
        blank = torch.zeros(1, 3, network.geometry.size, network.geometry.size, device=device)
        activations = network.forward_prefix(blank, (layer,))
        suffix, beside = network.suffix(layer, (layer,)), activations.side_inputs[layer.path]
        at_once = batch_size(suffix.peak, device)
        ones = torch.ones_like(activations.features[layer.path])

        def scores(features: Tensor, gates: Tensor) -> Tensor:
            return perturbed_scores(suffix, features, beside, gates[None].to(features), at_once)[0]

        constant = scores(ones, torch.zeros(1, layer.channels, device=device))
        eye = torch.eye(layer.channels, device=device)
        weights = torch.cat([scores(ones, some) - constant for some in eye.split(_AT_ONCE)]).T
        tried = torch.randn(ones.shape, generator=torch.Generator().manual_seed(0)).to(ones)
        found = scores(tried, torch.ones(1, layer.channels, device=device))
        expected = tried.mean((2, 3)) @ weights.T + constant
    if not bool((found - expected).abs().max() <= _TOLERANCE * (found - constant).abs().max()):
        raise SettingsError(
            f"what follows {layer.name} of {network.name} is not linear in the channels' means, so no W is known to be right there; "
            "give a layer that only global pooling and one linear map follow, as --network efficientnet_lite0 --layer head."
        )
    return weights.cpu().clone()


def recovery(W: Tensor, weights: Tensor, classes: Sequence[int]) -> Recovery:
    """Rows of W (C, K) against the known ``weights`` (C, K), for some classes.

    Examples
    --------
    >>> weights = torch.eye(2, 12)
    >>> recovery(2 * weights, weights, [0, 1]).cosine.tolist()
    [1.0, 1.0]
    """
    own, true = W[list(classes)].double(), weights[list(classes)].double()
    tops = [one.topk(min(TOP, one.shape[1])).indices for one in (own, true)]
    shared = (tops[0][:, :, None] == tops[1][:, None]).any(2).sum(1)
    return Recovery(tuple(classes), functional.cosine_similarity(own, true), shared.double())


def recovery_of(network: Network, layer: Layer, importance: Importance) -> Recovery:
    """All rows that an importance has; raises ``SettingsError`` where the right ones are not known, or there is none."""
    weights = known_weights(network, layer)
    rows = [int(c) for c in (importance.support > 0).nonzero().flatten()]
    if not rows:
        raise SettingsError(f"W of {network.name} at {layer.name} has no row; fit W first.")
    return recovery(importance.W, weights, rows)
