"""What all photographs together say about a class's score: the second half of the sums that a row of W is fitted to.

Eq. 11 weighs a photograph with f^c, so the row of class c is learned from photographs of c alone. Which channels
do *not* speak for c is then hardly seen: those of other classes are nearly closed in all of them, and their weights
stay at whatever fits the noise. ``FitSettings.background`` mixes in sums over all photographs alike. README,
'Choices that the paper leaves open', has the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from chipcore.moments import Moments


@dataclass
class Background:
    """Sums with weight h(d_n) over photographs s and gate samples n, for M classes and K channels, in float64.

    - ``gram``   (K, K)  sum h z z^T, the same for every class
    - ``cross``  (M, K)  sum h g^c z
    - ``weight`` (1,)    sum h
    """

    gram: Tensor
    cross: Tensor
    weight: Tensor

    @classmethod
    def zeros(cls, classes: int, channels: int, device: torch.device | str = "cpu") -> Background:
        """Empty sums."""
        shapes = ((channels, channels), (classes, channels), (1,))
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    def add(self, z: Tensor, weight: Tensor, perturbed: Tensor) -> None:
        """Add B photographs with N gate samples each.

        Args:
            z: pooled gated features of Eq. 2, shape (B, N, K).
            weight: h(d_n), shape (B, N).
            perturbed: g(X_s, d_n) of the M classes, shape (B, N, M).
        """
        z, weight, perturbed = (value.to(self.gram.device).double().flatten(0, 1) for value in (z, weight, perturbed))
        weighted = z * weight[:, None]
        self.gram += weighted.T @ z
        self.cross += perturbed.T @ weighted
        self.weight += weight.sum()

    def mixed_into(self, moments: Moments, slots: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Gram (S, K, K) and cross (S, K) of some classes: ``1 - share`` of their own, ``share`` of everybody's, each divided by its weight."""
        own = moments.weight[slots]
        gram = (self.gram + self.gram.T) * (share / 2 / self.weight)
        cross = (1 - share) / own[:, None] * moments.cross[slots] + share / self.weight * self.cross[slots]
        return (1 - share) / own[:, None, None] * moments.gram[slots] + gram, cross

    def sums(self) -> dict[str, Tensor]:
        """All that adds up over photographs and processes, by name."""
        return {"gram": self.gram, "cross": self.cross, "weight": self.weight}

    @staticmethod
    def bytes_of(classes: int, channels: int) -> int:
        """Memory that it takes."""
        return 8 * (channels * channels + classes * channels + 1)
