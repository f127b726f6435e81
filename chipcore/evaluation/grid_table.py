"""The grid game of the page Localize: ``chipcore.evaluation.grid_game`` on images that a visitor picks. Pure functions, no Streamlit."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from chipcore import Network
from chipcore.evaluation.grid_game import CHANCE, SIDE, Score, Tile, board, mean, mosaic, play

__all__ = ["CHANCE", "SIDE", "Score", "Tile", "board", "mean", "mosaic", "play", "table"]


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
