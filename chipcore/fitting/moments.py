"""The sufficient statistics of Eq. 11; they add up over gates, images, processes and machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from chipcore.errors import ChipError

_SIDE = ("normalizer_cross", "normalizer_score", "normalizer_energy", "normalizer_mean")


@dataclass
class Moments:
    """What Eq. 11 knows of the perturbed data set, for M classes at a layer of K channels, in float64.

    With weight omega = f^c(X_s) h(d_n), and l = log sum exp of the gated scores over all classes, sums run over
    images s and gate samples n:

    - ``gram``   (M, K, K)  sum omega z z^T
    - ``cross``  (M, K)     sum omega g^c z
    - ``first``  (M, K)     sum omega z
    - ``energy`` (M,)       sum omega (g^c)^2
    - ``mean``   (M,)       sum omega g^c
    - ``weight`` (M,)       sum omega
    - ``normalizer_cross`` (M, K), ``normalizer_score``, ``normalizer_energy``, ``normalizer_mean`` (M,): sum omega l z,
      l g^c, l^2 and l, which :meth:`contrasted` needs
    - ``evidence_mass`` (M,)  sum over images of f^c: how many images' worth of evidence there is
    - ``images`` (M,)       number of images that side_inputs weight
    """

    classes: Tensor
    gram: Tensor
    cross: Tensor
    first: Tensor
    normalizer_cross: Tensor
    energy: Tensor
    mean: Tensor
    weight: Tensor
    normalizer_score: Tensor
    normalizer_energy: Tensor
    normalizer_mean: Tensor
    evidence_mass: Tensor
    images: Tensor

    @classmethod
    def zeros(cls, classes: Sequence[int], channels: int, device: torch.device | str = "cpu") -> Moments:
        """Empty moments for the classes with these indices."""
        many = len(classes)

        def empty(*shape: int) -> Tensor:
            # numpy's zeros are pages that take no memory until a class is first touched; torch's are written.
            return torch.from_numpy(np.zeros((many, *shape))).to(device)

        wide = {"gram": (channels, channels), "cross": (channels,), "first": (channels,), "normalizer_cross": (channels,)}
        return cls(torch.as_tensor(list(classes), device=device), **{name: empty(*wide.get(name, ())) for name in cls.names()})

    def add_class(self, place: int, z: Tensor, weight: Tensor, original: Tensor, scores: Tensor, normalizer: Tensor) -> None:
        """Add B images with N gate samples each to one class, its Gram by one matrix product.

        The product is in float32, of channels brought to the same scale; what it is added to is float64.

        Args:
            place: of the class among those of these moments.
            z: pooled gated features of Eq. 2, shape (B, N, K).
            weight: h(d_n), shape (B, N).
            original: f^c(X_s), shape (B,).
            scores: g^c(X_s, d_n), shape (B, N).
            normalizer: l(X_s, d_n), shape (B, N).
        """
        omega = (weight.double() * original.double()[:, None]).flatten()
        g, l = scores.double().flatten(), normalizer.double().flatten()  # noqa: E741 (as in the formulas)
        z = z.flatten(0, 1)
        scale = z.abs().amax(0).double()
        unit = (z / torch.where(scale > 0, scale, 1).to(z)) * omega.sqrt().to(z)[:, None]
        product = (unit.T @ unit).double()
        # Rounding leaves the two triangles a little apart, and a solver that reads both would never settle.
        self.gram[place] += (product + product.T) / 2 * scale[:, None] * scale
        sides = torch.stack([omega.sqrt() * g, omega.sqrt(), omega.sqrt() * l]).to(z) @ unit
        cross, first, normalizer_cross = sides.double() * scale
        self.cross[place] += cross
        self.first[place] += first
        self.normalizer_cross[place] += normalizer_cross
        self.energy[place] += omega @ g.square()
        self.mean[place] += omega @ g
        self.weight[place] += omega.sum()
        self.normalizer_score[place] += omega @ (g * l)
        self.normalizer_energy[place] += omega @ l.square()
        self.normalizer_mean[place] += omega @ l
        self.evidence_mass[place] += original.double().sum()
        self.images[place] += len(original)

    def add(self, z: Tensor, weight: Tensor, original: Tensor, perturbed: Tensor, cutoff: float) -> None:
        """Add B images with N gate samples each to every class that they speak for.

        Args:
            z: pooled gated features of Eq. 2, shape (B, N, K).
            weight: h(d_n), shape (B, N).
            original: f(X_s), probabilities, shape (B, C).
            perturbed: g(X_s, d_n), shape (B, N, C).
            cutoff: images with f^c below it add nothing to class c.
        """
        z, weight, original, perturbed = (value.to(self.gram.device) for value in (z, weight, original, perturbed))
        normalizer = perturbed.logsumexp(-1)
        for place, index in enumerate(self.classes.tolist()):
            which = (original[:, index] >= cutoff).nonzero().flatten()
            if len(which):
                self.add_class(place, z[which], weight[which], original[which, index], perturbed[which, :, index], normalizer[which])

    def contrasted(self, kappa: float) -> Moments:
        """The moments of the target g^c - kappa l in place of g^c; the sums that do not change are shared."""
        if not kappa:
            return self
        return replace(
            self, cross=self.cross - kappa * self.normalizer_cross, mean=self.mean - kappa * self.normalizer_mean,
            energy=self.energy - 2 * kappa * self.normalizer_score + kappa**2 * self.normalizer_energy,
        )  # fmt: skip

    def __iadd__(self, other: Moments) -> Moments:
        """Moments of two disjoint sets of images are those of their union."""
        if self.gram.shape != other.gram.shape or not torch.equal(self.classes, other.classes):
            raise ChipError("moments of different classes or layers can't be added.")
        for name in self.names():
            getattr(self, name).add_(getattr(other, name))
        return self

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The sums, by name (all fields but ``classes``)."""
        return tuple(field.name for field in fields(cls) if field.name != "classes")

    def r2(self, W: Tensor, intercept: Tensor | None = None) -> Tensor:
        """Share of the weighted variance of g^c that W z + intercept explains, shape (M,); NaN without evidence.

        Args:
            W: rows, shape (M, K).
            intercept: constants beside them, shape (M,). Eq. 11 has none; the comparison is with the best constant
                all the same, so a W that only finds the mean gets 0 and a bad one gets less.
        """
        W = W.to(self.gram)
        quadratic = torch.einsum("mi,mij,mj->m", W, self.gram, W)
        residual = quadratic - 2 * (W * self.cross).sum(1) + self.energy
        if intercept is not None:
            b = intercept.to(self.gram)
            residual += b * (b * self.weight - 2 * (self.mean - (W * self.first).sum(1)))
        variance = self.energy - self.mean.square() / self.weight
        known = (self.weight > 0) & (variance > 1e-12 * self.energy)
        return torch.where(known, 1 - residual / variance, torch.nan)

    @staticmethod
    def bytes_per_class(channels: int) -> int:
        """Memory that one class takes at a layer of this many channels."""
        return 8 * (channels * channels + 3 * channels + 9)
