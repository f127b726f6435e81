"""How often a network is right on class folders, and what it takes for what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chipcore.networks import Network
from chipcore.training.photographs import Report, decode, find_classes


@dataclass(frozen=True)
class Evaluation:
    """``confusion[i][j]`` images of class i were taken for class j (C, C), in the order of ``classes``."""

    classes: tuple[str, ...]
    confusion: Tensor
    unreadable: tuple[str, ...]

    @property
    def top1(self) -> float:
        return float(self.confusion.diagonal().sum() / self.confusion.sum())

    def worst(self, most: int = 8) -> list[tuple[str, str, int]]:
        """The commonest mistakes: (what it is, what it was taken for, images)."""
        wrong = self.confusion.clone().fill_diagonal_(0)
        order = wrong.flatten().argsort(descending=True, stable=True)[:most].tolist()
        pairs = [divmod(index, len(self.classes)) for index in order]
        return [(self.classes[i], self.classes[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]]

    def as_dict(self) -> dict[str, Any]:
        totals = self.confusion.sum(1)
        share = self.confusion.diagonal() / totals.clamp(min=1)
        return {
            "photographs": int(self.confusion.sum()), "top1": round(self.top1, 4), "classes": list(self.classes),
            "class_top1": {name: round(float(one), 4) for name, one in zip(self.classes, share, strict=True)},
            "confusion": self.confusion.tolist(),
            "worst": [{"is": true, "taken_for": taken, "photographs": count} for true, taken, count in self.worst()],
            "unreadable": list(self.unreadable),
        }  # fmt: skip


def evaluate(network: Network, folder: Path, classes: tuple[str, ...], report: Report | None = None) -> Evaluation:
    """Classify every image below ``folder``, whose class folders carry names of ``classes`` (in the order of the network's outputs).

    Raises ``DataError`` where a folder is not a class of the network.
    """
    folders = find_classes(folder, classes)
    decoded = decode(folders, network.geometry, report, "validation")
    confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    for which in decoded.readable.nonzero().flatten().split(64):
        predicted = network.probabilities(network.geometry.normalize(decoded.views[which])).argmax(1).cpu()
        confusion.index_put_((folders.labels[which], predicted), torch.ones(len(which), dtype=torch.int64), accumulate=True)
    return Evaluation(classes, confusion, decoded.unreadable)
