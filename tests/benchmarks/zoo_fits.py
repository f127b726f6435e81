"""How long ``fit`` takes per network: ``python -m tests.benchmarks.zoo_fits [--networks N...] [--json FILE]``.

For every network of the registry, at its middle and its last depth: one batch of images with few gates through
the code of a fit, with one gate and with some more, in CPU time of all cores. What a fit of 1,000 images with
40 gates each takes is reckoned from that, not measured; reading images and solving for W are not in it. Where
weights can't be had they are random; every image counts for five classes, whatever the network says of it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from chipcore import FitSettings, Layer, Network, load_network
from chipcore.datasets.image_set import Batch
from chipcore.errors import CheckpointError
from chipcore.fitting.accumulate import LayerSums, add_batch
from chipcore.fitting.planning import ClassSlice
from chipcore.networks import REGISTRY
from chipcore.storage import ASSETS, write_whole

PHOTOGRAPHS, GATES = 1000, 40  # what is reckoned
TRIED, FEW = 4, 8  # images and gates that are measured
CLASSES = 5  # that a image speaks for


def network_of(name: str) -> tuple[Network, bool]:
    """The network, and whether its weights are random."""
    entry = REGISTRY[name]
    try:
        return load_network(name, download=False), False
    except CheckpointError:
        torch.manual_seed(0)
        model = entry.build()
        return Network.wrap(
            model, name=name, title=entry.title, layers=entry.layers, geometry=entry.geometry, classes=entry.classes()
        ), True  # fmt: skip


def cpu_seconds(network: Network, layer: Layer, gates: int, sums: LayerSums) -> float:
    views = torch.randint(
        0, 256, (TRIED, network.geometry.size, network.geometry.size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    batch = Batch(tuple(f"{number}.jpg" for number in range(TRIED)), views, ())
    # Any class counts that is among the first: what a class is worth changes nothing in the time it takes.
    settings = FitSettings(gates=gates, cutoff=1e-12)
    started = time.process_time()
    with torch.inference_mode():
        add_batch(network, [sums], batch, frozenset(), settings)
    return time.process_time() - started


def measure(network: Network, layer: Layer) -> dict[str, Any]:
    part = ClassSlice(layer, tuple(range(min(CLASSES, len(network.classes)))))

    def sums(gates: int) -> LayerSums:
        return LayerSums.empty(part, FitSettings(gates=gates))

    cpu_seconds(network, layer, 1, sums(1))  # cuts the network
    one = min(cpu_seconds(network, layer, 1, sums(1)) for _ in range(2))
    few = min(cpu_seconds(network, layer, FEW, sums(FEW)) for _ in range(2))
    each = max(0.0, few - one) / (FEW - 1) / TRIED
    image = one / TRIED - each
    return {
        "layer": layer.name, "channels": layer.channels, "size": layer.height,
        "cpu_seconds_per_photograph": round(max(0.0, image), 5), "cpu_seconds_per_gate": round(each, 6),
        "extrapolated_cpu_minutes": round((max(0.0, image) + GATES * each) * PHOTOGRAPHS / 60, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=tuple(REGISTRY), default=list(REGISTRY), metavar="N")
    parser.add_argument("--json", type=Path, default=ASSETS / "results" / "zoo_fits.json", metavar="FILE")
    options = parser.parse_args()
    rows = []
    print(
        f"extrapolated CPU minutes for {PHOTOGRAPHS:,} photographs x {GATES} gates, from {TRIED} photographs x {FEW} gates, {torch.get_num_threads()} threads"
    )
    print(f"{'network':<22}{'middle depth':<14}{'minutes':>9}   {'last depth':<14}{'minutes':>9}")
    for name in options.networks:
        network, random = network_of(name)
        middle, last = (measure(network, network.layers[at]) for at in (len(network.layers) // 2, -1))
        rows.append({"network": name, "random_weights": random, "input": network.geometry.size, "middle": middle, "last": last})
        print(
            f"{name:<22}{middle['layer']:<14}{middle['extrapolated_cpu_minutes']:>9.1f}   {last['layer']:<14}{last['extrapolated_cpu_minutes']:>9.1f}",
            flush=True,
        )
    content = {
        "bench": "zoo_fits", "photographs": PHOTOGRAPHS, "gates": GATES, "measured_photographs": TRIED, "measured_gates": FEW, "classes_a_photograph": CLASSES,
        "threads": torch.get_num_threads(), "extrapolated": True, "networks": rows,
    }  # fmt: skip
    write_whole(options.json, lambda path: path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"))


if __name__ == "__main__":
    main()
