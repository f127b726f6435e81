"""Which draw of gates needs the fewest of them: seed-to-seed agreement of W against N, on SqueezeNet.

    python -m tests.benchmarks.draws [--json FILE] [--quick]

W of some classes is fitted on the same images with several seeds, for every draw and N. What is
compared: the Pearson correlation of a class's rows between two seeds, and how many of the ten most important
channels two seeds share; medians over classes and pairs of seeds. The same W is also compared with one from
many more gates ("reference"), since a draw could agree with itself and be wrong, and with one in bfloat16.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chipcore import load_network
from chipcore.datasets.image_folder import find_images
from chipcore.datasets.image_set import batches
from chipcore.fitting.moments import Moments
from chipcore.fitting.regression import solve_rows
from chipcore.fitting.settings import FitSettings
from chipcore.gating.gates import Draw, draw, generator
from chipcore.gating.perturbation import Precision, batch_size, perturbed_scores
from chipcore.gating.suffix import Activations
from chipcore.importance import Importance
from chipcore.networks import Layer, Network

DRAWS: tuple[Draw, ...] = ("uniform", "importance", "stratified", "antithetic")
DATA = Path(os.environ.get("CHIP_DATA") or "../shared/data")
SEEDS = 3
FOLDERS = (
    "n02391049", "n01641577", "n01644373", "n02129604", "n07753592", "n03028079", "n03000684", "n02123394", "n04507155", "n01537544",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    options = parser.parse_args()
    network = load_network("squeezenet1_0", checkpoint=DATA / "networks/squeezenet1_0.pth")
    plans = (("fire9", 10, 14, (10, 20, 40, 80), 200), ("fire4", 6, 10, (5, 10, 20, 40), 100))
    results = [study(network, *(plan if not options.quick else (plan[0], 3, 3, plan[3][:2], 40))) for plan in plans]
    for result in results:
        print(table(result), end="\n\n")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


def study(network: Network, name: str, folders: int, images: int, counts: tuple[int, ...], many: int) -> dict[str, Any]:
    """Fit every draw, N and seed at one layer; returns agreement by draw and N."""
    start = time.perf_counter()
    layer = network.layer(name)
    there = [DATA / "classes" / folder for folder in FOLDERS if (DATA / "classes" / folder).is_dir()][:folders]
    found = find_images(there).per_folder(images)
    classes = [network.classes.index(folder.name) for folder in there]
    with torch.inference_mode():
        seen = [
            (batch.names, network.forward_prefix(network.geometry.normalize(batch.views), (layer,)))
            for batch in batches(found, found.names, network.geometry, 16)
        ]

        def fitted(how: Draw, count: int, seed: int, precision: Precision = "float32") -> Tensor:
            print(f"\r{name} {how} {count} {seed} {precision}   ", end="", file=sys.stderr, flush=True)
            return _fit(network, layer, seen, classes, how, count, seed, precision)

        rows = {(how, count, seed): fitted(how, count, seed) for how in DRAWS for count in counts for seed in range(SEEDS)}
        # Another seed than any other's, or it would hold the very gates it is compared with.
        reference = fitted("uniform", many, 99)
        low = fitted("uniform", counts[-1], 0, "bfloat16")
    pairs = list(itertools.combinations(range(SEEDS), 2))
    return {
        "network": network.name, "layer": layer.path, "channels": layer.channels, "classes": len(classes), "photographs": len(found),
        "counts": list(counts), "reference_gates": many, "seconds": round(time.perf_counter() - start, 1),
        "draws": {
            how: [
                {
                    "gates": count,
                    "correlation": _median([correlation(rows[how, count, a], rows[how, count, b]) for a, b in pairs]),
                    "top10": _median([overlap(rows[how, count, a], rows[how, count, b]) for a, b in pairs]),
                    "correlation_with_reference": _median([correlation(rows[how, count, a], reference) for a in range(SEEDS)]),
                }
                for count in counts
            ]
            for how in DRAWS
        },
        "bfloat16": {
            "gates": counts[-1],
            "correlation": _median([correlation(low, rows["uniform", counts[-1], 0])]),
            "top10": _median([overlap(low, rows["uniform", counts[-1], 0])]),
        },
    }  # fmt: skip


def _fit(
    network: Network, layer: Layer, seen: list[tuple[tuple[str, ...], Activations]], classes: list[int],
    how: Draw, count: int, seed: int, precision: Precision,
) -> Tensor:  # fmt: skip
    """W (classes, K), from activations that every fit shares."""
    settings = FitSettings()
    suffix = network.suffix(layer, (layer,))
    moments = Moments.zeros(classes, layer.channels)
    for names, activations in seen:
        features = activations.features[layer.path]
        drawn = [draw(how, count, layer.channels, layer.channels, generator(seed, layer.path, one)) for one in names]
        gates = torch.from_numpy(np.stack([one for one, _ in drawn])).to(features)
        weight = torch.from_numpy(np.stack([one for _, one in drawn])).to(features)
        scores = perturbed_scores(
            suffix, features, activations.side_inputs[layer.path], gates, batch_size(suffix.peak, network.device), precision
        )
        moments.add(gates * features.mean((2, 3))[:, None], weight, activations.scores.softmax(1), scores, settings.cutoff)
    return solve_rows(moments, torch.arange(len(classes)), settings)[0]


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of every row of a (M, K) with that of b, shape (M,)."""
    a, b = (value - value.mean(1, keepdim=True) for value in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """How many of the ten most important channels of every row two W share, shape (M,)."""

    def top(W: Tensor, row: int) -> set[int]:
        none = torch.zeros(len(W))
        return set(Importance(W, none, none, none, none).top_channels(row, 10))

    return torch.tensor([float(len(top(a, row) & top(b, row))) for row in range(len(a))])


def _median(values: list[Tensor]) -> float:
    return round(float(torch.cat(values).median()), 4)


def table(result: dict[str, Any]) -> str:
    """The result as text: correlation between seeds / top-10 overlap / correlation with the reference."""
    lines = [
        f"{result['network']} {result['layer']}, {result['classes']} classes, {result['photographs']} photographs, {result['seconds']:.0f} s",
        "correlation of W between seeds, of the top 10 shared, correlation with W from " + f"{result['reference_gates']} gates",
        f"{'draw':<14}" + "".join(f"{f'N = {count}':>22}" for count in result["counts"]),
    ]
    for how, cells in result["draws"].items():
        lines.append(
            f"{how:<14}" + "".join(f"{c['correlation']:>10.3f}{c['top10']:>5.0f}{c['correlation_with_reference']:>7.3f}" for c in cells)
        )
    low = result["bfloat16"]
    lines.append(
        f"bfloat16 against float32, same gates, N = {low['gates']}: correlation {low['correlation']:.4f}, top 10 {low['top10']:.0f}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
