"""The sufficient statistics of Eq. 11; they add up over gates, images, processes and machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from chipcore.errors import ChipError


@dataclass
class Moments:
    """What Eq. 11 knows of the perturbed data set, for M classes at a layer of K channels, in float64.

    With weight omega = f^c(X_s) h(d_n), sums run over images s and gate samples n:

    - ``gram``   (M, K, K)  sum omega z z^T
    - ``cross``  (M, K)     sum omega g^c z
    - ``first``  (M, K)     sum omega z
    - ``energy`` (M,)       sum omega (g^c)^2
    - ``mean``   (M,)       sum omega g^c
    - ``weight`` (M,)       sum omega
    - ``loyalty`` (M,)      sum over images of f^c: how many images' worth of evidence there is
    - ``images`` (M,)       number of images that carried weight
    """

    classes: Tensor
    gram: Tensor
    cross: Tensor
    first: Tensor
    energy: Tensor
    mean: Tensor
    weight: Tensor
    loyalty: Tensor
    images: Tensor

    @classmethod
    def zeros(cls, classes: Sequence[int], channels: int, device: torch.device | str = "cpu") -> Moments:
        """Empty moments for the classes with these indices."""
        many = len(classes)

        def empty(*shape: int) -> Tensor:
            # numpy's zeros are pages that take no memory until a class is first touched; torch's are written.
            return torch.from_numpy(np.zeros((many, *shape))).to(device)

        return cls(
            torch.as_tensor(list(classes), device=device),
            empty(channels, channels),
            empty(channels),
            empty(channels),
            *(empty() for _ in range(5)),
        )

    def add(self, z: Tensor, weight: Tensor, original: Tensor, perturbed: Tensor, cutoff: float) -> None:
        """Add B images with N gate samples each.

        Args:
            z: pooled gated features of Eq. 2, shape (B, N, K).
            weight: h(d_n), shape (B, N).
            original: f(X_s), probabilities, shape (B, C).
            perturbed: g(X_s, d_n), shape (B, N, C).
            cutoff: images with f^c below it add nothing to class c.
        """
        z, weight, original, perturbed = (value.to(self.gram.device) for value in (z, weight, original, perturbed))
        loyalty = original[:, self.classes]
        active = loyalty >= cutoff
        slots = active.any(0).nonzero().flatten().tolist()
        if not slots:
            return
        # In float64 from here on: which images share a batch depends on the number of processes, and W must not.
        z, weight, loyalty = z.double(), weight.double(), loyalty.double()
        # f^c does not depend on the gate, so one K x K product per image serves all of its classes.
        weighted = z * weight[..., None]
        products = weighted.transpose(1, 2) @ z
        # Rounding leaves the two triangles a little apart, and a solver that reads both would never settle.
        products = (products + products.transpose(1, 2)) / 2
        g = perturbed[..., self.classes[slots]].double()
        crosses = torch.einsum("bnk,bnm->bmk", weighted, g)
        firsts = weighted.sum(1)
        energies = torch.einsum("bn,bnm->bm", weight, g.square())
        means = torch.einsum("bn,bnm->bm", weight, g)
        totals = weight.sum(1)
        for position, slot in enumerate(slots):
            which = active[:, slot].nonzero().flatten()
            f = loyalty[which, slot]
            self.gram[slot] += torch.tensordot(f, products[which], dims=1)
            self.cross[slot] += f @ crosses[which, position]
            self.first[slot] += f @ firsts[which]
            self.energy[slot] += f @ energies[which, position]
            self.mean[slot] += f @ means[which, position]
            self.weight[slot] += f @ totals[which]
            self.loyalty[slot] += f.sum()
            self.images[slot] += len(which)

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
        return 8 * (channels * channels + 2 * channels + 6)
