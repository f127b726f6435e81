"""The pattern of the paper's Fig. 11: ``python -m tests.benchmarks.overlaps NETWORK LAYER [--classes C ...] [--importance DIR]``.

How many of their ten most important channels every two classes share, and how many of those above a thousandth of the largest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import chipcore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("network")
    parser.add_argument("layer")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--classes", nargs="+")
    parser.add_argument("--importance", type=Path)
    options = parser.parse_args()
    network = chipcore.load_network(options.network, checkpoint=options.checkpoint)
    importance = chipcore.load_importance(network, options.layer, options.importance)
    classes = [network.classes.index(one) for one in options.classes or range(len(network.classes))]
    labels = [network.classes.labels[index] for index in classes]
    wide = max(map(len, labels))
    ten = [set(importance.top_channels(index, 10)) for index in classes]
    above = [set(importance.channels_above(index, 1e-3)) for index in classes]
    print(f"{network.title}, {options.layer}: shared of the ten most important channels / of those above 1/1000 of the largest")
    for row, label in enumerate(labels):
        cells = (f"{len(ten[row] & ten[k])}/{len(above[row] & above[k])}" for k in range(len(labels)))
        print(f"{label:<{wide}}  " + " ".join(f"{cell:>7}" for cell in cells))


if __name__ == "__main__":
    main()
