"""Grid pointing game (Boehle et al. 2021; Rao et al. 2022): does a map find the right one of n x n images?

A mosaic joins n x n images of distinct classes, each recognized correctly and confidently on its own. For
the class of every cell, the score is the map's positive mass inside that cell over all of it; chance is
1 / n^2. As in both papers the mosaic goes in at n times the input size, which a network that ends in global
pooling takes as it comes; for one that doesn't (or on request) the mosaic is squashed to the input size, where
every image is n times smaller and much harder to see. The result says which it was.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from PIL import Image

from chipcore.datasets.mosaics import Mosaic, draw_mosaics, open_class_folders
from chipcore.datasets.sources import Images, open_images
from chipcore.errors import DataError, ImageError, SettingsError
from chipcore.evaluation import bootstrap
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.images import Progress, no_progress, to_input
from chipcore.evaluation.protocols import SECONDS, Column, ProgressOf, Protocol, register, whole_number
from chipcore.evaluation.results import LayerResult, Result
from chipcore.maps import positive_map
from chipcore.networks import Layer

Scale = Literal["auto", "full", "squashed"]


@dataclass(frozen=True)
class GridPointing(Result):
    """How much of each map lies on the right image of a mosaic, as a share of 1.

    ``grid`` is n, ``chance`` 1 / n^2; ``mosaic_scale`` says whether a mosaic of n times the input's size went in
    ('full') or one that was squashed to it; ``looked_at`` counts the images that were and were not confident enough.
    """

    json_order: ClassVar[tuple[str, ...]] = (
        "data_set", "grid", "chance", "confidence", "mosaic_size", "mosaic_scale", "mosaics", "looked_at", "classes", "unknown_folders",
        "images", "broken", "layers",
    )  # fmt: skip

    data_set: str
    grid: int
    chance: float
    confidence: float
    mosaic_size: int
    mosaic_scale: str
    mosaics: int
    looked_at: Mapping[str, int]
    classes: int
    unknown_folders: list[str]


def cells_of(size: int, side: int) -> np.ndarray:
    """Which cell every pixel of a (size, size) picture is in, int (size, size), cells counted in reading order.

    Example:
        >>> cells_of(4, 2).tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    """
    place = ((np.arange(size) + 0.5) * side / size).astype(int)
    return place[:, None] * side + place[None]


def shares(heat: np.ndarray, side: int) -> np.ndarray:
    """A finished map's mass in every cell over all of it, shape (side * side,); zeros for a map without any.

    Example:
        >>> shares(np.array([[3.0, 1.0], [0.0, 0.0]]), 2).tolist()
        [0.75, 0.25, 0.0, 0.0]
    """
    mass = np.bincount(cells_of(heat.shape[0], side).ravel(), weights=heat.astype(np.float64).ravel(), minlength=side * side)
    return mass / mass.sum() if mass.sum() > 0 else mass


def enlarged(panel: MethodSet, size: int) -> MethodSet | None:
    """The same panel for inputs of ``size`` px, or None for a network that takes no other size than its own.

    Checked numerically rather than inferred from the graph.

    Only the geometry and the sizes of the layers change, so that every method sees a network whose input is
    the whole mosaic.
    """
    network = panel.network
    try:
        with torch.no_grad():
            every = tuple({layer.path: layer for layer in (*network.layers, *panel.layers)}.values())
            activations = network.forward_prefix(torch.zeros(1, network.geometry.channels, size, size), every)
    except (RuntimeError, ValueError, AssertionError):
        return None
    if tuple(activations.scores.shape) != (1, len(network.classes)):
        return None

    def grown(layer: Layer) -> Layer:
        height, width = activations.features[layer.path].shape[2:]
        return replace(layer, height=height, width=width)

    geometry = replace(network.geometry, size=size, resize=max(size, network.geometry.resize))
    layers = tuple(grown(layer) for layer in network.layers)
    larger = network.private(geometry=geometry, layers=layers)
    return replace(panel, network=larger, layers=tuple(grown(layer) for layer in panel.layers))


def join(views: list[np.ndarray], side: int) -> np.ndarray:
    """Views (size, size, 3) joined in reading order to (side * size, side * size, 3)."""
    return np.concatenate([np.concatenate(views[row * side : (row + 1) * side], axis=1) for row in range(side)], axis=0)


def evaluate(
    panel: MethodSet, folder: Images, side: int = 2, mosaics: int = 500, confidence: float = 0.99, seed: int = 0, scale: Scale = "auto",
    progress: Progress = no_progress,
) -> GridPointing:  # fmt: skip
    """Play the game with mosaics from class folders.

    Parameters
    ----------
    panel
        Network, layers and methods.
    folder
        Images of any kind that :func:`chipcore.datasets.sources.open_images` takes, in class folders named by synset, class name or index.
    side
        n, images on a side of a mosaic.
    mosaics
        How many; fewer where there are not enough classes.
    confidence
        The probability with which the network must recognize an image of a mosaic on its own.
    seed
        Of the draw.
    scale
        Whether a mosaic has n times the input's size ('full') or its size ('squashed'); 'auto' is full where the network takes it.
    progress
        Wraps the mosaics.

    Raises
    ------
    SettingsError
        A setting out of range.
    DataError
        Too few classes have an image that the network recognizes that confidently.
    """
    if side < 2 or mosaics < 1 or not 0 <= confidence <= 1:
        raise SettingsError(f"a grid of {side}, {mosaics} mosaics and confidence {confidence} make no game; give 2, 1 and 0..1 at least.")
    network, size = panel.network, panel.network.geometry.size
    if network.geometry.width is not None:
        raise SettingsError(f"{network.name} takes no square inputs, so its images make no grid; choose another protocol.")
    larger = enlarged(panel, side * size) if scale != "squashed" else None
    full = larger is not None
    if scale == "full" and not full:
        raise SettingsError(f"{network.name} takes inputs of {size} px only; leave --mosaic-scale out or give squashed.")
    folders = open_class_folders(folder, network.classes)
    broken: list[str] = []
    looked: Counter[str] = Counter()

    def view(name: str) -> np.ndarray:
        return np.asarray(network.geometry.view(folders.images.open(name)))

    def usable(name: str, target: int) -> bool:
        try:
            f = network.class_probabilities(panel.look(to_input(view(name), network.geometry)).scores)[0]
        except ImageError as error:
            broken.append(str(error))
            return False
        good = int(f.argmax()) == target and float(f[target]) >= confidence
        looked["confident" if good else "not confident"] += 1
        return good

    classes = [index for index in folders.by_class if not any(panel.skip_reason(layer, index) for layer in panel.layers)]
    drawn = draw_mosaics(folders, usable, classes, side, mosaics, seed)
    scores: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    tallies, played = panel.tallies(), 0
    for _ in progress(range(mosaics)):
        mosaic = next(drawn, None)
        if mosaic is None:
            break
        played += 1
        picture = join([view(name) for name in mosaic.names], side)
        if not full:
            picture = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))
        _play(larger or panel, mosaic, picture, side, tallies, scores)
    if not played:
        raise DataError(
            f"fewer than {side * side} classes {folders.images.place} have a photograph that {network.name} recognises with probability {confidence}; give more photographs or a lower --confidence."
        )
    layers = {}
    groups = list(range(played))
    for layer in panel.layers:
        found = {method: np.array(scores[layer.name, method]) for method in panel.methods}
        methods = {m: {"grid_pointing": float(found[m].mean())} | tallies[layer.name].of(m) for m in panel.methods}
        statistics = {method: {"grid_pointing": bootstrap.mean(found[method].mean(1))} for method in panel.methods}
        for method, compared in bootstrap.compare(statistics, panel.baseline, groups, seed).items():
            methods[method]["difference"] = compared
        left_out = len(folders.by_class) - len(classes)
        layers[layer.name] = LayerResult(
            images=played, skipped=left_out, skipped_because={"classes without usable W": left_out} if left_out else {},
            weak_rows=sum(panel.importances[layer.name].evidence(c) == "weak" for c in classes) if panel.importances else 0,
            methods=methods,
        )  # fmt: skip
    return GridPointing(
        data_set="mosaics of class folders", grid=side, chance=1 / side**2, confidence=confidence, mosaic_size=side * size if full else size,
        mosaic_scale="full" if full else "squashed", mosaics=played, looked_at=dict(looked), classes=len(classes),
        unknown_folders=list(folders.unknown), images=len(folders.images), broken=broken, layers=layers,
    )  # fmt: skip


def _play(
    panel: MethodSet,
    mosaic: Mosaic,
    picture: np.ndarray,
    side: int,
    tallies: dict[str, Any],
    scores: dict[tuple[str, str], list[np.ndarray]],
) -> None:
    inputs = to_input(picture, panel.network.geometry)
    activations = panel.look(inputs)
    for layer in panel.layers:
        for method in panel.methods:
            own = []
            for cell, target in enumerate(mosaic.targets):
                raw = panel.raw_map(method, inputs, target, layer, activations, tallies[layer.name])
                own.append(shares(positive_map(raw, inputs.shape[-1]).numpy(), side)[cell])
            scores[layer.name, method].append(np.array(own))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags of the grid pointing game."""
    add = parser.add_argument
    add("--grid", type=whole_number, default=0, metavar="n", help="play the grid pointing game on n x n mosaics of class folders")
    add(
        "--mosaic", nargs="+", type=Path, default=(), metavar="IMAGE",
        help="play once with these four photographs, in reading order, instead of --data",
    )  # fmt: skip
    add(
        "--mosaic-classes", nargs="+", default=(), metavar="C",
        help="what each of them plays for (default: what the network takes it for)",
    )  # fmt: skip
    add("--raw", type=Path, default=None, metavar="NPZ", help="with --mosaic: the mosaic and every map, by name")
    add("--mosaics", type=whole_number, default=500, metavar="N", help="how many (default: %(default)s)")
    add("--confidence", type=float, default=0.99, metavar="P", help="of the photographs in a mosaic (default: %(default)s)")
    add(
        "--mosaic-scale", choices=get_args(Scale), default="auto",
        help="n times the input size, or squashed to it (default: %(default)s)",
    )  # fmt: skip


def _run(options: argparse.Namespace, panel: MethodSet, progress: ProgressOf) -> tuple[GridPointing, str]:
    mosaics = min(options.mosaics, options.limit) if options.limit else options.mosaics
    images = open_images(options.data)
    found = evaluate(panel, images, options.grid or 2, mosaics, options.confidence, options.seed, options.mosaic_scale, progress("mosaics"))
    return found, images.fingerprint


def _intro(result: dict[str, Any]) -> list[str]:
    size = f"{result['mosaic_size']} px ({result['mosaic_scale']})"
    return [f"{result['grid']} x {result['grid']} mosaics of {size}; chance is {100 * result['chance']:.1f}"]


PROTOCOL = register(Protocol(
    "grid", "grid pointing game (class folders); a part of `pointing`", _run,
    columns=(Column("grid", "grid_pointing"), SECONDS), main="grid_pointing", unit="mosaics", command=False, intro=_intro,
))  # fmt: skip
