"""One run over annotated images for every protocol that has true objects: what took part, what did not, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from PIL import Image
from torch import Tensor

from chipcore.datasets.annotations import AnnotatedObject, Source
from chipcore.evaluation.benchmark import MethodSet, RunStats
from chipcore.evaluation.images import Progress, Reader, subsample, view_of
from chipcore.evaluation.results import Figures, LayerResult
from chipcore.maps import positive_map

MOST_PROBABLE = 5  # classes of every image that are kept, for top-1 and top-5


@dataclass
class Rows:
    """What took part at one layer, a row for each object of each image.

    ``first`` are the network's most probable classes of the image, at most five.
    """

    images: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    first: list[tuple[int, ...]] = field(default_factory=list)


@dataclass
class Run:
    """A finished run: rows and counts by layer, sentences about what is broken, and how many images were looked at."""

    rows: dict[str, Rows]
    stats: dict[str, RunStats]
    broken: list[str]
    images: int


# Given the layer's name, the method's, its finished map (size, size) and the object.
Measure = Callable[[str, str, np.ndarray, AnnotatedObject], None]


def run(panel: MethodSet, source: Source, limit: int, seed: int, progress: Progress, measure: Measure) -> Run:
    """Give ``measure`` every finished map (:func:`chipcore.maps.positive_map`) with its object.

    Parameters
    ----------
    panel
        Network, layers and methods.
    source
        The annotated images.
    limit, seed
        At most this many images (0: all), drawn over the whole set.
    progress
        Wraps the names of the images.
    measure
        Called for every layer, method and object that takes part.
    """
    rows, stats = {layer.name: Rows() for layer in panel.layers}, panel.tallies()
    reader = Reader(source.images, list(source.broken))
    names = subsample(source.images.names, limit, seed)
    for name, image in reader(progress(names)):
        inputs = view_of(image, panel.network.geometry)
        activations = panel.look(inputs)
        f = panel.network.class_probabilities(activations.scores)[0].cpu()
        first = tuple(int(index) for index in activations.scores[0].topk(min(MOST_PROBABLE, len(f))).indices)
        objects: list[AnnotatedObject] | None = reader.attempt(partial(_objects, source, name, image, f))
        for one in objects or []:
            if one.mask is None:
                for counts in stats.values():
                    counts.skipped[one.skip] += 1
                continue
            for layer in panel.layers:
                counts = stats[layer.name]
                if not panel.accepts(layer, one.target, counts):
                    continue
                there = rows[layer.name]
                there.images.append(name)
                there.objects.append(one.name)
                there.targets.append(one.target)
                there.probabilities.append(float(f[one.target]))
                there.first.append(first)
                for method in panel.methods:
                    raw = panel.raw_map(method, inputs, one.target, layer, activations, counts)
                    measure(layer.name, method, positive_map(raw, inputs.shape[-1]).numpy(), one)
    return Run(rows, stats, reader.broken, len(names))


@dataclass(frozen=True)
class ObjectsLayer(LayerResult):
    """A layer of a protocol that measures each object of an image.

    ``objects`` took part; ``median_probability`` is that of f^c over them, None where there was none.
    """

    json_order: ClassVar[tuple[str, ...]] = (
        "images", "objects", "skipped", "skipped_because", "weak_rows", "median_probability", "methods",
    )  # fmt: skip

    objects: int
    median_probability: float | None

    @classmethod
    def of(cls, rows: Rows, stats: RunStats, methods: Mapping[str, Figures], **more: Any) -> Self:
        """From what took part and what every method scored."""
        return cls(
            images=len(set(rows.images)), objects=len(rows.images), skipped=sum(stats.skipped.values()), skipped_because=dict(stats.skipped),
            weak_rows=stats.weak, median_probability=float(np.median(rows.probabilities)) if rows.probabilities else None, methods=methods,
            **more,
        )  # fmt: skip


def _objects(source: Source, name: str, image: Image.Image, probabilities: Tensor) -> list[AnnotatedObject]:
    return list(source.objects(name, image, probabilities))
