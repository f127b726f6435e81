"""How many channels a visitor may close, and what then happened as a table; the closing itself is ``chipcore.analysis.channel_ablation``."""

from __future__ import annotations

import csv
import io

from torch import Tensor

from chipcore.analysis.channel_ablation import AblatedScores, ablate, random_channels
from chipcore.datasets.class_names import Classes

__all__ = ["AblatedScores", "ablate", "random_channels", "steps", "table"]


def steps(channels: int) -> list[int]:
    """How many channels one may close: finely at first, then in doublings, at last all."""
    some = [0, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 4000]
    return [k for k in some if k < channels] + [channels]


def table(before: Tensor, closed: AblatedScores, classes: Classes) -> str:
    """Probabilities of all classes as CSV, the most probable first: all open, with the chosen channels closed, with random ones."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("class", "synset", "label", "all_open", "closed", "random_mean", "random_lowest", "random_highest"))
    for index in before.argsort(descending=True, stable=True).tolist():
        random = closed.random[:, index]
        numbers = (before[index], closed.chosen[index], random.mean(), random.min(), random.max())
        synset = classes.synsets[index] if classes.synsets else ""
        writer.writerow((index, synset, classes.labels[index], *(f"{float(one):.6g}" for one in numbers)))
    return stream.getvalue()
