"""What all images together say about a class's score: the second half of the sums that a row of W is fitted to.

Eq. 11 weighs a image with f^c, so the row of class c is learned from images of c alone. Which channels
do *not* speak for c is then hardly seen: those of other classes are nearly closed in all of them, and their weights
stay at whatever fits the noise. ``FitSettings.pooled_share`` mixes in sums over all images alike;
``chipcore/fitting/README.md`` has the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class PooledMoments:
    """Sums with weight h(d_n) over images s and gate samples n, for M classes and K channels, in float64.

    l is log sum exp of the gated scores over all classes.

    - ``gram``   (K, K)  sum h z z^T, the same for every class
    - ``cross``  (M, K)  sum h g^c z
    - ``first``, ``normalizer_cross`` (K,)  sum h z, sum h l z
    - ``energy``, ``mean``, ``normalizer_score`` (M,)  sum h (g^c)^2, h g^c, h l g^c
    - ``normalizer_energy``, ``normalizer_mean``, ``weight`` (1,)  sum h l^2, h l, h
    - ``activation`` (M, K), ``mass`` (M,)  sum f^c a and sum f^c over images, whose ratio is the class's mean activation
    """

    gram: Tensor
    cross: Tensor
    first: Tensor
    normalizer_cross: Tensor
    energy: Tensor
    mean: Tensor
    normalizer_score: Tensor
    normalizer_energy: Tensor
    normalizer_mean: Tensor
    weight: Tensor
    activation: Tensor
    mass: Tensor

    @classmethod
    def zeros(cls, classes: int, channels: int, device: torch.device | str = "cpu") -> PooledMoments:
        """Empty sums."""
        M, K = classes, channels
        shapes = ((K, K), (M, K), (K,), (K,), (M,), (M,), (M,), (1,), (1,), (1,), (M, K), (M,))
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    def add(self, z: Tensor, weight: Tensor, perturbed: Tensor, normalizer: Tensor) -> None:
        """Add B images with N gate samples each; matrix products in float32, of channels at one scale, summed in float64.

        Args:
            z: pooled gated features of Eq. 2, shape (B, N, K).
            weight: h(d_n), shape (B, N).
            perturbed: g(X_s, d_n) of the M classes, shape (B, N, M).
            normalizer: l(X_s, d_n), shape (B, N).
        """
        z, h, g, l = (value.to(self.gram.device).flatten(0, 1) for value in (z, weight, perturbed, normalizer))  # noqa: E741
        root = h.sqrt()[:, None]
        scale = z.abs().amax(0).double()
        unit = z / torch.where(scale > 0, scale, 1).to(z) * root
        largest = g.abs().amax().clamp(min=1e-30)  # of all classes: one scale keeps float32 within its range
        scores = g / largest * root
        self.gram += (unit.T @ unit).double() * scale[:, None] * scale
        self.cross += (scores.T @ unit).double() * scale * largest.double()
        sides = torch.stack([root[:, 0], l * root[:, 0]]) @ unit
        self.first += sides[0].double() * scale
        self.normalizer_cross += sides[1].double() * scale
        h, l, g = h.double(), l.double(), g.double()  # noqa: E741
        self.energy += h @ g.square()
        self.mean += h @ g
        self.normalizer_score += (h * l) @ g
        self.normalizer_energy += h @ l.square()
        self.normalizer_mean += h @ l
        self.weight += h.sum()

    def add_activation(self, pooled: Tensor, original: Tensor) -> None:
        """Add a (B, K) of images whose probabilities f of the M classes are ``original`` (B, M)."""
        a, f = pooled.to(self.gram.device).double(), original.to(self.gram.device).double()
        self.activation += f.T @ a
        self.mass += f.sum(0)

    def mean_activation(self) -> Tensor:
        """Each class's mean activation (M, K), of images weighted by f^c; 0 where there are none."""
        return self.activation / torch.where(self.mass > 0, self.mass, 1)[:, None]

    def r2(self, slots: Tensor, W: Tensor, constants: Tensor) -> Tensor:
        """Share of the variance of g^c over all images alike that W z + constant explains, as :meth:`Moments.r2`.

        Args:
            slots: the classes' places among the M, int64 (M',).
            W: their rows, shape (M', K).
            constants: beside them, shape (M',).
        """
        W, b = W.to(self.gram), constants.to(self.gram)
        energy, mean = self.energy[slots], self.mean[slots]
        residual = ((W @ self.gram) * W).sum(1) - 2 * (W * self.cross[slots]).sum(1) + energy
        residual += b * (b * self.weight - 2 * (mean - W @ self.first))
        variance = energy - mean.square() / torch.where(self.weight > 0, self.weight, 1)
        known = (self.weight > 0) & (variance > 1e-12 * energy)
        return torch.where(known, 1 - residual / variance, torch.nan)

    def sums(self) -> dict[str, Tensor]:
        """All that adds up over images and processes, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def bytes_of(classes: int, channels: int) -> int:
        """Memory that it takes."""
        return 8 * (channels * channels + (2 * classes + 2) * (channels + 2))
