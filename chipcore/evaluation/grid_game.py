"""The grid game on four given images: the mosaic, size and score of ``chipcore.evaluation.grid_pointing``, with nothing drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from chipcore import maps
from chipcore.analysis.tables import to_csv
from chipcore.errors import ChipError, SettingsError
from chipcore.evaluation import grid_pointing
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.images import Progress, no_progress, to_input
from chipcore.evaluation.results import LayerResult, Result
from chipcore.images import open_image
from chipcore.importance import Importance, load_importance
from chipcore.methods import METHODS, MethodInputs
from chipcore.networks import Layer, Network

SIDE = 2
CHANCE = 1 / SIDE**2


@dataclass(frozen=True)
class Tile:
    """One of the four: a image as the network sees it alone, and the class that it then takes it for."""

    name: str
    sha256: str
    view: Image.Image
    target: int
    probability: float


def board(network: Network, layer: Layer) -> tuple[Network, Layer, bool]:
    """The network for mosaics of twice its input's side, the layer there, and whether it takes that size.

    Where it does not, the network as it is: the mosaic is squashed to its input.
    """
    larger = grid_pointing.enlarged(MethodSet(network, (layer,), (), {}), SIDE * network.geometry.size)
    return (larger.network, larger.layers[0], True) if larger is not None else (network, layer, False)


def mosaic(tiles: Sequence[Tile], size: int) -> Image.Image:
    """Four views joined in reading order, (size, size): at their own size, or squashed."""
    joined = Image.fromarray(grid_pointing.join([np.asarray(tile.view) for tile in tiles], SIDE))
    return joined if joined.width == size else joined.resize((size, size), Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Score:
    """One method on one class of the mosaic: its raw map, and the share of its positive mass in every cell.

    ``problem`` is the sentence that stands in place of a map.
    """

    cell: int
    raw: Tensor | None
    shares: tuple[float, ...]
    problem: str = ""

    @property
    def right(self) -> float:
        """The share inside the right cell; NaN where there is no map. A blank map has 0."""
        return self.shares[self.cell] if self.shares else math.nan


def play(
    network: Network, layer: Layer, method: str, tiles: Sequence[Tile], load: Callable[[Layer], Importance],
    report: Callable[[int, int, str], None] = lambda done, total, stage: None, options: Mapping[str, Any] | None = None,
) -> tuple[Score, ...]:  # fmt: skip
    """One method on the class of every tile.

    Args:
        network: from :func:`board`, as is ``layer``.
        tiles: four, in reading order.
        load: gives W of a layer of that name, or raises ``ChipError``.
        report: told (done, total, stage) in hundredths of a cell; may raise to end the game.
        options: the method's own settings.
    """
    size = network.geometry.size
    inputs = to_input(np.asarray(mosaic(tiles, size)), network.geometry)
    one = METHODS[method]
    report(0, 100, "looking at the mosaic")
    with torch.no_grad():
        activations = network.forward_prefix(inputs, one.layers(network, layer))
    found: list[Score] = []
    for cell, tile in enumerate(tiles):
        stage = f"{one.title}, {network.classes.labels[tile.target]}"

        def progress(done: int, total: int, cell: int = cell, stage: str = stage) -> None:
            report(100 * cell + 100 * done // max(1, total), 100 * len(tiles), stage)

        progress(0, 1)
        try:
            importance = load(layer) if one.needs_importance else None
            shallow = load(network.layers[0]) if one.needs_shallow and layer.path != network.layers[0].path else None
            raw = (
                one(MethodInputs(network, inputs, tile.target, layer, importance, activations, shallow, options or {}, progress))
                .raw.detach()
                .cpu()
            )
        except ChipError as error:
            found.append(Score(cell, None, (), str(error)))
            continue
        if maps.state(raw) == "not finite":
            raw = torch.zeros_like(raw)
        found.append(Score(cell, raw, tuple(float(share) for share in grid_pointing.shares(maps.positive_map(raw, size).numpy(), SIDE))))
    return tuple(found)


def mean(scores: Sequence[Score]) -> float:
    """Mean over the classes that there is a map of; NaN where there is none."""
    known = [score.right for score in scores if score.shares]
    return sum(known) / len(known) if known else math.nan


def scores_csv(network: Network, tiles: Sequence[Tile], scores: Mapping[str, Sequence[Score]]) -> str:
    """A line a method and class as CSV: the share of the map in every cell, and in the right one; empty where there is no map."""
    lines = [
        {
            "method": method, "photograph": tile.name, "class": network.classes.labels[tile.target], "index": tile.target, "right_cell": score.cell + 1,
            **{f"cell_{number + 1}": score.shares[number] if score.shares else math.nan for number in range(SIDE**2)}, "score": score.right,
        }
        for method, cells in scores.items() for tile, score in zip(tiles, cells, strict=True)
    ]  # fmt: skip
    return to_csv(pd.DataFrame(lines), digits=4)


def tile(network: Network, path: Path, target: int | None = None) -> Tile:
    """A image for the game, and the class it plays for: the one that is given, or that the network takes it for alone."""
    view = network.geometry.view(open_image(path))
    with torch.no_grad():
        probabilities = network.probabilities(to_input(np.asarray(view), network.geometry).to(network.device))[0]
    chosen = int(probabilities.argmax()) if target is None else target
    return Tile(path.name, "", view, chosen, float(probabilities[chosen]))


@dataclass(frozen=True)
class MosaicGame(Result):
    """The grid pointing game on one mosaic; ``cells`` says what each image plays for, ``arrays`` has the mosaic and every map."""

    json_order: ClassVar[tuple[str, ...]] = (
        "data_set", "grid", "chance", "mosaic_size", "mosaic_scale", "mosaics", "cells", "broken", "layers",
    )  # fmt: skip

    grid: int
    chance: float
    mosaic_size: int
    mosaic_scale: str
    cells: list[dict[str, Any]]
    arrays: Mapping[str, np.ndarray]
    data_set: str = "one mosaic of given photographs"
    mosaics: int = 1


def evaluate(
    panel: MethodSet,
    images: Sequence[Path],
    classes: Sequence[str] = (),
    importance: str | Path | None = None,
    progress: Progress = no_progress,
) -> MosaicGame:
    """Play once with four images in their order.

    Args:
        panel: network, layers and methods.
        images: four files, in reading order.
        classes: what each plays for; by default what the network takes it for.
        importance: where W is.

    Returns:
        A result like that of :func:`chipcore.evaluation.grid_pointing.evaluate`. Its ``arrays`` are ``mosaic`` and every
        map as ``method-cell``, with the layer before it where there are several.

    Raises:
        SettingsError: not four images, or not as many classes.
    """
    network = panel.network
    if len(images) != SIDE**2 or len(classes) not in (0, SIDE**2):
        raise SettingsError(
            f"a mosaic takes {SIDE**2} photographs and as many classes, or none; you gave {len(images)} and {len(classes)}."
        )
    targets: list[int | None] = [network.classes.index(one) for one in classes]
    targets = targets or [None] * SIDE**2
    tiles = [tile(network, path, target) for path, target in zip(images, targets, strict=True)]
    report: dict[str, LayerResult] = {}
    arrays: dict[str, np.ndarray] = {}
    full, size = True, network.geometry.size
    for asked in panel.layers:
        larger, layer, full = board(network, asked)
        size = larger.geometry.size
        arrays["mosaic"] = np.asarray(mosaic(tiles, size))
        methods = {}
        for method in progress(panel.methods):
            options = {name: value for name, value in panel.options.items() if name in METHODS[method].options}
            scores = play(larger, layer, method, tiles, lambda at: load_importance(network, at.name, importance), options=options)
            found = mean(scores)
            methods[method] = {
                "grid_pointing": None if math.isnan(found) else found, "cells": [list(score.shares) for score in scores],
                "problems": [score.problem for score in scores], "blank_maps": sum(bool(score.shares) and not sum(score.shares) for score in scores),
            }  # fmt: skip
            lead = f"{asked.name}-" if len(panel.layers) > 1 else ""
            arrays |= {f"{lead}{method}-{score.cell + 1}": score.raw.numpy() for score in scores if score.raw is not None}
        report[asked.name] = LayerResult(images=1, skipped=0, skipped_because={}, weak_rows=None, methods=methods)
    told = [
        {"photograph": str(path), "class": one.target, "label": network.classes.labels[one.target], "probability": one.probability}
        for path, one in zip(images, tiles, strict=True)
    ]
    return MosaicGame(
        grid=SIDE, chance=CHANCE, mosaic_size=size, mosaic_scale="full" if full else "squashed", cells=told, images=None, broken=[],
        layers=report, arrays=arrays,
    )  # fmt: skip
