"""In which order to switch a layer's channels off, to see whether the ones that a method calls important are."""

from __future__ import annotations

import torch
from torch import Tensor

from chipcore.methods.base import MethodInputs
from chipcore.methods.gradcam import feature_gradient


def gradcam_contributions(request: MethodInputs) -> Tensor:
    """What each channel adds to Grad-CAM's map on average, alpha_k a_k, shape (K,); alpha_k is the mean gradient of channel k."""
    features, gradient = feature_gradient(request)
    return (gradient.mean((1, 2)) * features.mean((1, 2))).cpu()


def most_important_first(contributions: Tensor) -> list[int]:
    """All channels, from the one that adds most to the one that takes most away; equal ones by number.

    >>> most_important_first(torch.tensor([0.1, -2.0, 3.0, 0.0]))
    [2, 0, 3, 1]
    """
    return list(torch.argsort(contributions, descending=True, stable=True).tolist())


def random_order(channels: int, seed: int = 0) -> list[int]:
    """All channels in an order drawn by ``seed``."""
    return list(torch.randperm(channels, generator=torch.Generator().manual_seed(seed)).tolist())
