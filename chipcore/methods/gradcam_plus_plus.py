"""Grad-CAM++ (Chattopadhay et al. 2018): Grad-CAM with a weight for every place, for several objects of a class."""

from __future__ import annotations

import torch

from chipcore.maps import chip_map
from chipcore.methods.base import Explanation, MethodInputs, Properties, register
from chipcore.methods.gradcam import cut, feature_gradient


@register(
    "gradcam_pp", "Grad-CAM++", "Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063",
    Properties(instance=("gradient",), class_discriminative=True), order=52, uses_layer=True, from_features=True, prepare=cut,
)  # fmt: skip
def gradcam_plus_plus(request: MethodInputs) -> Explanation:
    """L = sum_k w_k A_k with w_k = sum_ij alpha_ij relu(g_ij), shape (u, v).

    g is the class score's gradient at channel k and alpha_ij = g_ij^2 / (2 g_ij^2 + g_ij^3 sum_ab A_ab) (their Eq. 19: for
    Y = exp(S) the second and third derivatives are powers of the first); 0 where the gradient is. One pass for the features,
    one forward and one backward through what follows the layer.
    """
    features, gradient = feature_gradient(request)
    square = gradient.square()
    below = 2 * square + square * gradient * features.sum((1, 2), keepdim=True)
    alpha = torch.where(below != 0, square / torch.where(below != 0, below, 1), 0)
    return Explanation(chip_map((alpha * gradient.clamp(min=0)).sum((1, 2)), features), passes=3)
