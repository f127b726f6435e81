"""What images leave for the classes they speak for: small samples, summed into moments class by class when W is solved.

Eq. 11 weighs a image with f^c, so each adds to a handful of classes only. A K x K update per image and class is
bound by memory, and a Gram for every class fills gigabytes. A sample is small: its gate d has K bits, its pooled features
z = d * a (Eq. 2) need only a beside them. So samples are kept, and a class's Gram is one matrix product of its stacked
samples, made when its row is solved and forgotten afterwards. Sums go in the order of the images, so W does not depend
on how many processes shared them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from chipcore.fitting.moments import Moments

_ROWS = 2048  # samples in one matrix product: float32 inside, summed in float64


@dataclass
class _Table:
    """S images with N gate samples each, and the P pairs of a image and a class that it speaks for.

    - ``order`` (S,)          the image's place in the whole run
    - ``held`` (S,)           whether it is kept apart for measuring R2
    - ``pooled`` (S, K)       a, the spatial means of its feature maps
    - ``gates`` (S, N, K/8)   d, eight channels a byte
    - ``weight`` (S, N)       h(d)
    - ``normalizer`` (S, N)   log sum exp of the gated scores over all classes
    - ``image`` (P,), ``slot`` (P,)  the pair: the image's row in this table, and the class's place in the slice
    - ``original`` (P,)       f^c
    - ``scores`` (P, N)       g^c
    """

    order: np.ndarray
    held: np.ndarray
    pooled: np.ndarray
    gates: np.ndarray
    weight: np.ndarray
    normalizer: np.ndarray
    image: np.ndarray
    slot: np.ndarray
    original: np.ndarray
    scores: np.ndarray


_NAMES = tuple(field.name for field in fields(_Table))


class Samples:
    """The samples of one share of classes at one layer; they add up over images and processes."""

    def __init__(self, classes: Sequence[int], channels: int, gates: int) -> None:
        self.classes, self.channels = torch.as_tensor(list(classes)), channels
        packed = (channels + 7) // 8
        kinds: dict[str, tuple[tuple[int, ...], type]] = {
            "order": ((), np.int64), "held": ((), np.bool_), "pooled": ((channels,), np.float32), "gates": ((gates, packed), np.uint8),
            "weight": ((gates,), np.float32), "normalizer": ((gates,), np.float32), "image": ((), np.int64), "slot": ((), np.int64),
            "original": ((), np.float32), "scores": ((gates,), np.float32),
        }  # fmt: skip
        self._parts: list[dict[str, np.ndarray]] = [{name: np.zeros((0, *shape), kind) for name, (shape, kind) in kinds.items()}]
        self._sorted: _Sorted | None = None

    def add(
        self, order: Sequence[int], held: Tensor, pooled: Tensor, gates: np.ndarray, weight: Tensor, original: Tensor, perturbed: Tensor,
        normalizer: Tensor, cutoff: float,
    ) -> None:  # fmt: skip
        """Add B images with N gate samples each.

        Args:
            order: their places in the whole run.
            held: which are kept apart for measuring R2, bool (B,).
            pooled: a, shape (B, K).
            gates: d, bool (B, N, K).
            weight: h(d_n), shape (B, N).
            original: f(X_s), probabilities, shape (B, C).
            perturbed: g(X_s, d_n), shape (B, N, C).
            normalizer: log sum exp of the gated scores, shape (B, N).
            cutoff: images with f^c below it add nothing to class c.
        """
        f = original.cpu()[:, self.classes]
        image, slot = (f >= cutoff).nonzero(as_tuple=True)
        speaks = (f >= cutoff).any(1).numpy()
        scores = perturbed[image.to(perturbed.device), :, self.classes[slot].to(perturbed.device)]
        places = np.asarray(order, np.int64)
        whole = {
            "order": places, "held": held.cpu().numpy(), "pooled": _f32(pooled), "gates": np.packbits(gates, axis=2), "weight": _f32(weight),
            "normalizer": _f32(normalizer),
        }  # fmt: skip
        part = {name: value[speaks] for name, value in whole.items()}
        part |= {
            "image": (np.cumsum(speaks) - 1)[image.numpy()], "slot": slot.numpy(), "original": _f32(f[image, slot]), "scores": _f32(scores),
        }  # fmt: skip
        self._parts.append(part)
        self._sorted = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, by name: what :meth:`merge` takes."""
        if len(self._parts) > 1:
            before = np.cumsum([0, *(len(part["order"]) for part in self._parts)])
            whole = {name: np.concatenate([part[name] for part in self._parts]) for name in _NAMES}
            whole["image"] += np.repeat(before[:-1], [len(part["slot"]) for part in self._parts])
            self._parts = [whole]
        return self._parts[0]

    def merge(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Add what :meth:`arrays` of another part of the same run gave; raises ``ValueError`` where it does not fit."""
        own = self._parts[0]
        for name in _NAMES:
            if arrays[name].shape[1:] != own[name].shape[1:] or arrays[name].dtype != own[name].dtype:
                raise ValueError(f"{name} does not fit")
        part = {name: arrays[name] for name in _NAMES}
        images, pairs = len(part["order"]), len(part["slot"])
        if any(len(part[name]) != images for name in _NAMES[:6]) or any(len(part[name]) != pairs for name in _NAMES[6:]):
            raise ValueError("the parts differ in length")
        for name, most in (("image", images), ("slot", len(self.classes))):
            if pairs and not 0 <= part[name].min() <= part[name].max() < most:
                raise ValueError(f"a pair with a {name} that does not exist")
        self._parts.append(part)
        self._sorted = None

    def evidence_mass(self, held: bool = False) -> Tensor:
        """Sum of f^c over the images that carry weight, for each class, float64 (M,)."""
        return self._summed(held, True)

    def images(self, held: bool = False) -> Tensor:
        """Number of images that carry weight, for each class, float64 (M,)."""
        return self._summed(held, False)

    def _summed(self, held: bool, weighted: bool) -> Tensor:
        table, found = self._table(), torch.zeros(len(self.classes), dtype=torch.float64)
        some = table.held[table.image] == held
        values = torch.from_numpy(table.original[some]).double() if weighted else torch.ones(int(some.sum()), dtype=torch.float64)
        return found.index_add_(0, torch.from_numpy(table.slot[some]), values)

    def moments(self, slots: Tensor, held: bool = False, device: torch.device | str = "cpu") -> Moments:
        """The sums of Eq. 11 of some classes, by their places in the share.

        Args:
            slots: int64 (M',).
            held: of the images that are kept apart, not of those that W is fitted to.
            device: where they are summed and kept.
        """
        table = self._table()
        moments = Moments.zeros(self.classes[slots.cpu()].tolist(), self.channels, device)
        for place, slot in enumerate(slots.tolist()):
            pairs = table.pairs[table.first[slot] : table.first[slot + 1]]
            pairs = pairs[table.held[table.image[pairs]] == held]
            for some in np.array_split(pairs, max(1, -(-len(pairs) * table.weight.shape[1] // _ROWS))) if len(pairs) else ():
                rows = table.image[some]
                z = np.unpackbits(table.gates[rows], axis=2, count=self.channels) * table.pooled[rows][:, None]
                moments.add_class(place, *(torch.from_numpy(value).to(device) for value in (
                    z, table.weight[rows], table.original[some], table.scores[some], table.normalizer[rows]
                )))  # fmt: skip
        return moments

    def _table(self) -> _Sorted:
        if self._sorted is None:
            self._sorted = _Sorted.of(self.arrays(), len(self.classes))
        return self._sorted

    def r2(self, slots: Tensor, W: Tensor, constants: Tensor, held: bool = True) -> Tensor:
        """What :meth:`Moments.r2` gives for some classes, from the samples themselves: float64 (M',), NaN without evidence.

        Args:
            slots: the classes' places in the slice, int64 (M',).
            W: their rows, shape (M', K).
            constants: beside them, shape (M',).
            held: of the images that are kept apart.
        """
        table, found = self._table(), torch.full((len(slots),), torch.nan, dtype=torch.float64)
        for place, (slot, row, constant) in enumerate(zip(slots.tolist(), W.cpu().double().numpy(), constants.tolist(), strict=True)):
            pairs = table.pairs[table.first[slot] : table.first[slot + 1]]
            pairs = pairs[table.held[table.image[pairs]] == held]
            if not len(pairs):
                continue
            rows = table.image[pairs]
            d = np.unpackbits(table.gates[rows], axis=2, count=self.channels)
            predicted = np.einsum("snk,sk->sn", d, table.pooled[rows] * row) + constant
            omega, g = table.weight[rows] * table.original[pairs, None].astype(np.float64), table.scores[pairs].astype(np.float64)
            total, energy = omega.sum(), float((omega * g**2).sum())
            variance = energy - float((omega * g).sum()) ** 2 / total if total > 0 else 0.0
            if variance > 1e-12 * energy:
                found[place] = 1 - float((omega * (g - predicted) ** 2).sum()) / variance
        return found

    @staticmethod
    def bytes_of(images: int, channels: int, gates: int, pairs: float = 8.0) -> int:
        """Memory that so many images take, each with ``pairs`` classes that it speaks for; twice where parts are joined."""
        each = 4 * channels + gates * ((channels + 7) // 8 + 8) + 9 + pairs * (4 * gates + 20)
        return int(2 * images * each)


@dataclass
class _Sorted(_Table):
    """The table with its pairs by class, and those by the order of the images: ``pairs[first[c] : first[c + 1]]``."""

    pairs: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], classes: int) -> _Sorted:
        pairs = np.lexsort((arrays["order"][arrays["image"]], arrays["slot"]))
        return cls(**arrays, pairs=pairs, first=np.searchsorted(arrays["slot"][pairs], np.arange(classes + 1)))


def _f32(value: Tensor) -> np.ndarray:
    found: np.ndarray = value.detach().to("cpu", torch.float32).numpy()
    return found
