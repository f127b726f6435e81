"""Are related classes near each other in W? ``python -m tests.benchmarks.neighbors [--importance DIR] [--json FILE]``.

For every class of eight groups of ImageNet classes: whether the class that shares most of its ten most important channels (then
the larger cosine) is of the same group, with channels ranked by weight and by contribution.
"""

from __future__ import annotations

import argparse
import json
from itertools import chain
from pathlib import Path

import numpy as np

import chipcore
from chipcore.analysis.channel_overlap import TOP, cosines, top_sets
from chipcore.importance import load_importance

GROUPS = {
    "dogs": range(151, 269),
    "cats": range(281, 286),
    "big cats": range(286, 294),
    "birds": [*range(7, 25), *range(80, 101), *range(127, 147)],
    "snakes": range(52, 69),
    "fish": [*range(7), *range(389, 398)],
    "fruit": range(948, 958),
    "vehicles": [407, 436, 468, 511, 555, 569, 609, 627, 654, 656, 661, 665, 675, 717, 734, 751, 779, 803, 817, 864, 867, 874],
}


def same_group(rows: np.ndarray) -> dict[str, int]:
    """By group, how many of its classes have their nearest class in it; rows (1000, K) of weights or contributions."""
    group = np.full(len(rows), -1)
    for number, classes in enumerate(GROUPS.values()):
        group[list(classes)] = number
    sets = top_sets(rows, TOP).astype(np.float32)
    near = sets @ sets.T + (cosines(rows, rows) + 1) / 4  # the shared channels first
    np.fill_diagonal(near, -1)
    nearest = near.argmax(1)
    return {name: int((group[nearest[list(classes)]] == number).sum()) for number, (name, classes) in enumerate(GROUPS.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--importance", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    network = chipcore.load_network("efficientnet_lite0")
    total = len(list(chain.from_iterable(GROUPS.values())))
    found: dict[str, dict[str, dict[str, int]]] = {}
    for layer in network.layers:
        importance = load_importance(network, layer.name, options.importance)
        ways = {"weight": importance.W} | ({"contribution": importance.contribution(1.0)} if importance.activation is not None else {})
        found[layer.name] = {way: same_group(rows.numpy()) for way, rows in ways.items()}
        print(layer.name, ", ".join(f"by {way} {sum(one.values())} of {total}" for way, one in found[layer.name].items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"classes": total, "layers": found}, indent=2))


if __name__ == "__main__":
    main()
