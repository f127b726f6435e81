"""Top-1 accuracy of the two networks on the 650 ILSVRC validation images: ``python -m tests.benchmarks.top1 [DATA]``."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import torch

from chipcore.images import open_image
from chipcore.networks import load_network


def main(data: Path) -> None:
    with open(data / "ilsvrc_val_dev" / "LOC_val_solution.csv", newline="") as stream:
        truth = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(stream)}
    names = sorted(truth)
    for name, checkpoint in (("efficientnet_lite0", None), ("squeezenet1_0", data / "networks" / "squeezenet1_0.pth")):
        network = load_network(name, checkpoint=checkpoint)
        right = 0
        for start in range(0, len(names), 26):
            some = names[start : start + 26]
            images = [open_image(data / "ilsvrc_val_dev/Data/CLS-LOC/val" / f"{one}.JPEG") for one in some]
            predicted = network.probabilities(torch.stack([network.geometry.tensor(one) for one in images])).argmax(1)
            right += sum(network.classes.synsets[int(p)] == truth[one] for p, one in zip(predicted, some, strict=True))
        print(f"{name:<20} {right} of {len(names)} right, top-1 {right / len(names):.1%}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data"))
