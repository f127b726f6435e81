"""Finer-CAM (Zhang et al. 2025): Grad-CAM of what tells a class from those that the network takes for the nearest."""

from __future__ import annotations

import torch
from torch import Tensor

from chipcore.maps import chip_map
from chipcore.methods.base import Explanation, MethodInputs, Properties, register
from chipcore.methods.gradcam import cut, feature_gradient


@register(
    "finercam", "Finer-CAM", "Zhang et al. 2025, https://arxiv.org/abs/2501.11309",
    Properties(instance=("gradient",), class_discriminative=True), order=56, uses_layer=True, from_features=True, prepare=cut,
    options={"comparisons": 3, "alpha": 0.6},
)  # fmt: skip
def finercam(request: MethodInputs) -> Explanation:
    """Grad-CAM of the contrast sum_d p_d (S_c - alpha S_d) / sum_d p_d, shape (u, v).

    The d are the ``comparisons`` classes whose scores lie nearest to the class's own, and p_d their probabilities, as in the
    authors' code. ``alpha`` 0 is Grad-CAM. One pass for the features, one forward and one backward behind the layer.
    """
    count, alpha = request.options["comparisons"], request.options["alpha"]

    def contrast(scores: Tensor) -> Tensor:
        own = scores[request.target]
        distance = (scores.detach() - own.detach()).abs()
        distance[request.target] = torch.inf
        near = distance.argsort(stable=True)[: min(count, len(scores) - 1)]
        share = scores.detach().softmax(0)[near]
        return (share * (own - alpha * scores[near])).sum() / (share.sum() + 1e-9)

    features, gradient = feature_gradient(request, contrast if len(request.network.classes) > 1 else None)
    return Explanation(chip_map(gradient.mean((1, 2)), features), passes=3)
