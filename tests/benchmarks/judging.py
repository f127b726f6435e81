"""Pictures that W is judged on in ``tests.benchmarks.choices``, and the measures: boxes, energy, grid pointing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chipcore.datasets.annotations import boxes_in_view
from chipcore.datasets.ilsvrc import open_ilsvrc
from chipcore.datasets.mosaics import draw_mosaics
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.boxes import overlap_curves
from chipcore.evaluation.grid_pointing import cells_of, enlarged, join
from chipcore.evaluation.images import normalize_min_max, to_input
from chipcore.images import open_image
from chipcore.maps import positive_map
from chipcore.methods import METHODS, MethodInputs
from chipcore.networks import Layer, Network

MOSAICS = 80


@dataclass(frozen=True)
class Scene:
    """A picture to be judged on: features (K, u, v), and per map its class's row, what is true, and Grad-CAM's raw map."""

    features: Tensor
    rows: tuple[int, ...]
    truth: Any  # the cell of each row, or boxes
    gradcam: tuple[Tensor, ...]
    size: int


def gradcam(network: Network, layer: Layer, inputs: Tensor, targets: tuple[int, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    with torch.no_grad():
        activations = network.forward_prefix(inputs, (layer,))
    raw = tuple(METHODS["gradcam"](MethodInputs(network, inputs, target, layer, activations=activations)).raw for target in targets)
    return activations.features[layer.path][0], raw


def mosaics(network: Network, layer: Layer, held: dict[int, tuple[str, ...]], folders: Any, rows: dict[int, int], seed: int) -> list[Scene]:
    """Mosaics of images that no W has seen, of the classes in ``held``."""
    size = network.geometry.size
    large = enlarged(MethodSet.of(network, [layer.path], ["gradcam"]), 2 * size)
    assert large is not None

    def view(name: str) -> np.ndarray:
        return np.asarray(network.geometry.view(open_image(folders.images.root / name)))

    def usable(name: str, target: int) -> bool:
        f = network.probabilities(to_input(view(name), network.geometry))[0]
        return int(f.argmax()) == target and float(f[target]) >= 0.9

    scenes = []
    own = type(folders)(folders.images, held, ())
    for mosaic in draw_mosaics(own, usable, sorted(held), 2, MOSAICS, seed):
        inputs = to_input(join([view(name) for name in mosaic.names], 2), large.network.geometry)
        features, raw = gradcam(large.network, large.layers[0], inputs, mosaic.targets)
        scenes.append(Scene(features, tuple(rows[t] for t in mosaic.targets), tuple(range(4)), raw, 2 * size))
    return scenes


def boxed(network: Network, layer: Layer, rows: dict[int, int], work: Path) -> list[Scene]:
    """ILSVRC validation images of the fitted classes."""
    data, scenes = open_ilsvrc(work / "ilsvrc"), []
    for name in data.images.names:
        annotation = data.annotation(name)
        target = network.classes.synsets.index(annotation.synset)
        if target not in rows:
            continue
        image = open_image(data.images.root / name)
        features, raw = gradcam(network, layer, network.input(image), (target,))
        scenes.append(
            Scene(
                features,
                (rows[target],),
                boxes_in_view(annotation.boxes, annotation.size, image.size, network.geometry),
                raw,
                network.geometry.size,
            )
        )
    return scenes


def judge_mosaics(scenes: list[Scene], W: Tensor | None) -> np.ndarray:
    """Mean share in the right cell of every mosaic."""
    cells = torch.from_numpy(cells_of(scenes[0].size, 2))
    shares = []
    for scene in scenes:
        own = []
        for at, (row, cell) in enumerate(zip(scene.rows, scene.truth, strict=True)):
            raw = scene.gradcam[at] if W is None else torch.einsum("k,kuv->uv", W[row].to(scene.features), scene.features)
            heat = positive_map(raw, scene.size)
            own.append(float(heat[cells == cell].sum() / heat.sum().clamp(min=1e-20)))
        shares.append(np.mean(own))
    return np.array(shares)


def judge_boxes(scenes: list[Scene], W: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Of every image: whether the box is right by threshold (S, T), and the energy (S,)."""
    right, energy = [], []
    for scene in scenes:
        raw = scene.gradcam[0] if W is None else torch.einsum("k,kuv->uv", W[scene.rows[0]].to(scene.features), scene.features)
        heat = positive_map(raw, scene.size).numpy()
        right.append(overlap_curves(normalize_min_max(heat), scene.truth)[0] >= 0.5)
        mask = np.zeros(heat.shape, bool)
        for x0, y0, x1, y1 in scene.truth:
            mask[y0 : y1 + 1, x0 : x1 + 1] = True
        energy.append(heat[mask].sum() / max(heat.sum(), 1e-20))
    return np.array(right), np.array(energy)


def box_interval(ours: np.ndarray, theirs: np.ndarray) -> list[float]:
    """Of the difference in MaxBoxAcc, each at its best threshold in every resample."""
    rng = np.random.default_rng(0)
    drawn = [np.bincount(rng.integers(0, len(ours), len(ours)), minlength=len(ours)) / len(ours) for _ in range(1000)]
    differences = [float((w @ ours).max() - (w @ theirs).max()) for w in drawn]
    return [float(np.quantile(differences, q)) for q in (0.025, 0.975)]


def interval(differences: np.ndarray) -> list[float]:
    rng = np.random.default_rng(0)
    means = differences[rng.integers(0, len(differences), (2000, len(differences)))].mean(1)
    return [float(np.quantile(means, q)) for q in (0.025, 0.975)]
