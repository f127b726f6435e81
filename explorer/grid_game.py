"""The grid game: four photographs in a mosaic, and how much of a map lies on the right one. Pure functions, no Streamlit.

The game of ``chipcore.evaluation.grid`` on photographs that a visitor picks, with the same mosaic, size and score.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from chipcore import ChipError, Importance, Layer, Network, maps
from chipcore.evaluation import grid
from chipcore.evaluation.panel import Panel
from chipcore.evaluation.photographs import as_input
from chipcore.methods import METHODS, Request

SIDE = 2
CHANCE = 1 / SIDE**2


@dataclass(frozen=True)
class Tile:
    """One of the four: a photograph as the network sees it alone, and the class that it then takes it for."""

    name: str
    sha256: str
    view: Image.Image
    target: int
    probability: float


def board(network: Network, layer: Layer) -> tuple[Network, Layer, bool]:
    """The network for mosaics of twice its input's side, the layer there, and whether it takes that size.

    Where it does not, the network as it is: the mosaic is squashed to its input.
    """
    larger = grid.enlarged(Panel(network, (layer,), (), {}), SIDE * network.geometry.size)
    return (larger.network, larger.layers[0], True) if larger is not None else (network, layer, False)


def mosaic(tiles: Sequence[Tile], size: int) -> Image.Image:
    """Four views joined in reading order, (size, size): at their own size, or squashed."""
    joined = Image.fromarray(grid.join([np.asarray(tile.view) for tile in tiles], SIDE))
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
    report: Callable[[int, int, str], None] = lambda done, total, stage: None,
) -> tuple[Score, ...]:  # fmt: skip
    """One method on the class of every tile.

    Args:
        network: from :func:`board`, as is ``layer``.
        tiles: four, in reading order.
        load: gives W of a layer of that name, or raises ``ChipError``.
        report: told (done, total, stage) in hundredths of a cell; may raise to end the game.
    """
    size = network.geometry.size
    inputs = as_input(np.asarray(mosaic(tiles, size)), network.geometry)
    one = METHODS[method]
    report(0, 100, "looking at the mosaic")
    with torch.no_grad():
        activations = network.trunk(inputs, one.layers(network, layer))
    found: list[Score] = []
    for cell, tile in enumerate(tiles):
        stage = f"{one.title}, {network.classes.labels[tile.target]}"

        def progress(done: int, total: int, cell: int = cell, stage: str = stage) -> None:
            report(100 * cell + 100 * done // max(1, total), 100 * len(tiles), stage)

        progress(0, 1)
        try:
            importance = load(layer) if one.needs_importance else None
            shallow = load(network.layers[0]) if one.needs_shallow and layer.path != network.layers[0].path else None
            raw = one(Request(network, inputs, tile.target, layer, importance, activations, shallow, progress=progress)).raw.detach().cpu()
        except ChipError as error:
            found.append(Score(cell, None, (), str(error)))
            continue
        if maps.state(raw) == "not finite":
            raw = torch.zeros_like(raw)
        found.append(Score(cell, raw, tuple(float(share) for share in grid.shares(maps.upsample(raw, size).numpy(), SIDE))))
    return tuple(found)


def mean(scores: Sequence[Score]) -> float:
    """Mean over the classes that there is a map of; NaN where there is none."""
    known = [score.right for score in scores if score.shares]
    return sum(known) / len(known) if known else math.nan


def table(network: Network, tiles: Sequence[Tile], scores: Mapping[str, Sequence[Score]]) -> str:
    """A line a method and class as CSV: the share of the map in every cell, and in the right one."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("method", "photograph", "class", "index", "right_cell", *(f"cell_{number}" for number in range(1, 5)), "score"))
    for method, several in scores.items():
        for tile, score in zip(tiles, several, strict=True):
            shares = [f"{share:.4f}" for share in score.shares] or ["", "", "", ""]
            writer.writerow((
                method, tile.name, network.classes.labels[tile.target], tile.target, score.cell + 1, *shares, "" if not score.shares else f"{score.right:.4f}",
            ))  # fmt: skip
    return stream.getvalue()
