"""What all images together say about a class's score: the second half of the sums that a row of W is fitted to.

Eq. 11 weighs a image with f^c, so the row of class c is learned from images of c alone. Which channels
do *not* speak for c is then hardly seen: those of other classes are nearly closed in all of them, and their weights
stay at whatever fits the noise. ``FitSettings.background`` mixes in sums over all images alike. README,
'Choices that the paper leaves open', has the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Background:
    """Sums with weight h(d_n) over images s and gate samples n, for M classes and K channels, in float64.

    - ``gram``   (K, K)  sum h z z^T, the same for every class
    - ``cross``  (M, K)  sum h g^c z
    - ``first``  (K,)    sum h z
    - ``mean``   (M,)    sum h g^c
    - ``weight`` (1,)    sum h
    """

    gram: Tensor
    cross: Tensor
    first: Tensor
    mean: Tensor
    weight: Tensor

    @classmethod
    def zeros(cls, classes: int, channels: int, device: torch.device | str = "cpu") -> Background:
        """Empty sums."""
        shapes = ((channels, channels), (classes, channels), (channels,), (classes,), (1,))
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    def add(self, z: Tensor, weight: Tensor, perturbed: Tensor) -> None:
        """Add B images with N gate samples each.

        Args:
            z: pooled gated features of Eq. 2, shape (B, N, K).
            weight: h(d_n), shape (B, N).
            perturbed: g(X_s, d_n) of the M classes, shape (B, N, M).
        """
        z, weight, perturbed = (value.to(self.gram.device).double().flatten(0, 1) for value in (z, weight, perturbed))
        weighted = z * weight[:, None]
        self.gram += weighted.T @ z
        self.cross += perturbed.T @ weighted
        self.first += weighted.sum(0)
        self.mean += perturbed.T @ weight
        self.weight += weight.sum()

    def sums(self) -> dict[str, Tensor]:
        """All that adds up over images and processes, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def bytes_of(classes: int, channels: int) -> int:
        """Memory that it takes."""
        return 8 * (channels * channels + (classes + 1) * (channels + 1))
