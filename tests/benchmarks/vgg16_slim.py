"""Top-1 and confusion matrix of the bundled VGG on ``fourteen/val``, into ``assets/results/vgg16_slim.json``.

``python -m tests.benchmarks.vgg16_slim [DATA] [--training FILE]``; FILE is the ``.result.json`` that ``python -m
chipcore train`` left beside the weights, and says how they came about. Without it, what the present results say is kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from chipcore.networks import load_network
from chipcore.storage import ASSETS
from chipcore.training.evaluation import evaluate
from chipcore.training.saved import write_json

RESULTS = ASSETS / "results" / "vgg16_slim.json"
TRAINING = ("command", "photographs", "seconds", "cpu_seconds", "threads", "settings", "history")


def main(data: Path, training: Path | None) -> None:
    network = load_network("vgg16_slim")
    folders = tuple(sorted(folder.name for folder in (data / "fourteen" / "val").iterdir()))
    if [network.classes.index(name) for name in folders] != list(range(len(network.classes))):
        raise SystemExit("the folders are not in the order of the network's classes")
    measured = evaluate(network, data / "fourteen" / "val", folders)
    if training is None:
        how = json.loads(RESULTS.read_text())["training"]
    else:
        facts = json.loads(training.read_text())
        how = {key: facts[key] for key in TRAINING}
    write_json(RESULTS, {
        "network": network.name, "weights_sha256": network.weights_sha256, "bytes": (ASSETS / "networks" / "vgg16_slim.safetensors").stat().st_size,
        "parameters": sum(p.numel() for p in network.model.parameters()), "command": "python -m tests.benchmarks.vgg16_slim ../shared/data",
        "validation": measured.as_dict(), "training": how,
    })  # fmt: skip
    print(f"top-1 on {int(measured.confusion.sum())} photographs: {measured.top1:.1%}")
    for true, taken, count in measured.worst():
        print(f"{count:>4} {true} taken for {taken}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, default=Path("../shared/data"))
    parser.add_argument("--training", type=Path, default=None, metavar="FILE")
    options = parser.parse_args()
    main(options.data, options.training)
