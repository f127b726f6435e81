"""One walk over annotated images for every evaluation that needs masks: what took part, what did not, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PIL import Image
from torch import Tensor

from chipcore.datasets.annotations import AnnotatedObject, Source
from chipcore.evaluation.benchmark import MethodSet, RunStats
from chipcore.evaluation.images import Progress, Reader, subsample, view_of
from chipcore.maps import positive_map


@dataclass
class Rows:
    """What took part at one layer, a row for each object of each image."""

    images: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)


@dataclass
class Walk:
    rows: dict[str, Rows]
    tallies: dict[str, RunStats]
    broken: list[str]
    images: int


Measure = Callable[[str, str, np.ndarray, np.ndarray], None]


def walk(panel: MethodSet, source: Source, limit: int, seed: int, progress: Progress, measure: Measure) -> Walk:
    """Give ``measure(layer, method, heat, mask)`` every finished map (:func:`positive_map`) with its object's mask, both (size, size)."""
    rows, tallies = {layer.name: Rows() for layer in panel.layers}, panel.tallies()
    reader = Reader(source.images, list(source.broken))
    names = subsample(source.images.names, limit, seed)
    for name, image in reader(progress(names)):
        inputs = view_of(image, panel.network.geometry)
        activations = panel.look(inputs)
        f = activations.scores.softmax(1)[0].cpu()
        objects: list[AnnotatedObject] | None = reader.attempt(partial(_objects, source, name, image, f))
        for shown in objects or []:
            if shown.mask is None:
                for tally in tallies.values():
                    tally.skipped[shown.skip] += 1
                continue
            for layer in panel.layers:
                tally = tallies[layer.name]
                if not panel.accepts(layer, shown.target, tally):
                    continue
                there = rows[layer.name]
                there.images.append(name)
                there.objects.append(shown.name)
                there.targets.append(shown.target)
                there.probabilities.append(float(f[shown.target]))
                for method in panel.methods:
                    raw = panel.raw_map(method, inputs, shown.target, layer, activations, tally)
                    measure(layer.name, method, positive_map(raw, inputs.shape[-1]).numpy(), shown.mask)
    return Walk(rows, tallies, reader.broken, len(names))


def layer_report(rows: Rows, tally: RunStats, methods: dict[str, dict[str, object]]) -> dict[str, object]:
    """The fields that every evaluation with masks reports of a layer."""
    return {
        "images": len(set(rows.images)), "objects": len(rows.images), "skipped": sum(tally.skipped.values()),
        "skipped_because": dict(tally.skipped), "weak_rows": tally.weak,
        "median_probability": float(np.median(rows.probabilities)) if rows.probabilities else None, "methods": methods,
    }  # fmt: skip


def _objects(source: Source, name: str, image: Image.Image, probabilities: Tensor) -> list[AnnotatedObject]:
    return list(source.shown(name, image, probabilities))
