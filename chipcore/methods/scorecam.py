"""Score-CAM (Wang et al. 2020): channels weighed by the score of the image seen through each, without gradients."""

from __future__ import annotations

import torch
from torch.nn import functional

from chipcore.maps import chip_map
from chipcore.methods.base import Explanation, MethodInputs, Properties, register

_AT_ONCE = 32


@register(
    "scorecam", "Score-CAM", "Wang et al. 2020, https://arxiv.org/abs/1910.01279",
    Properties(instance=("perturbation",), class_discriminative=True), order=58, slow=True, uses_layer=True, from_features=True,
)  # fmt: skip
def scorecam(request: MethodInputs) -> Explanation:
    """L = sum_k w_k A_k, shape (u, v), with w the softmax over channels of the class's scores of the masked images.

    The mask of channel k is A_k, up-sampled (bilinear) and stretched to [0, 1]; it multiplies the normalized image, so what is
    masked out has the data set's mean color. A channel that is the same everywhere has no mask and weighs nothing. The score of
    a baseline image, which the paper takes away, is the same for all channels and cancels in the softmax. A pass a channel.
    """
    features = request.known_activations().features[request.layer.path][0]
    masks = functional.interpolate(features[:, None].float(), request.inputs.shape[-2:], mode="bilinear", align_corners=False)
    low, high = masks.amin((1, 2, 3), keepdim=True), masks.amax((1, 2, 3), keepdim=True)
    used = (high > low).flatten()
    masks = (masks - low) / torch.where(high > low, high - low, 1)
    scores = features.new_full((len(features),), -torch.inf)
    chosen = used.nonzero().flatten()
    for done, some in enumerate(chosen.split(_AT_ONCE)):
        seen = request.network.arrange(request.inputs * masks[some].to(request.inputs))
        scores[some] = request.network.model(seen)[:, request.target].to(scores)
        request.report(min((done + 1) * _AT_ONCE, len(chosen)), len(chosen))
    weights = scores.softmax(0) if len(chosen) else torch.zeros_like(scores)
    return Explanation(chip_map(weights, features), passes=1 + len(chosen))
