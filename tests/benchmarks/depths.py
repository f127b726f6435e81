"""Which feature map stands for a stride: ``python -m tests.benchmarks.depths [DATA]``.

For every stride of EfficientNet-Lite0, a block's linear output against the last ReLU6 output before the
next stride: W from 12 images a class and 8 gates, its held-out R2, and the share of each map's positive
part that falls into the boxes of ILSVRC validation images (energy pointing).
"""

from __future__ import annotations

import csv
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import torch

import chipcore
from chipcore.datasets.image_folder import find_images
from chipcore.images import open_image
from chipcore.maps import chip_map, positive_map

CANDIDATES = {
    2: ("blocks.0", "blocks.1.expand"),
    4: ("blocks.2", "blocks.3.expand"),
    8: ("blocks.4", "blocks.5.expand"),
    16: ("blocks.10", "blocks.11.expand"),
    32: ("blocks.15", "blocks.15.depthwise"),
}


def boxes(file: Path, size: int) -> np.ndarray:
    """The mask (size, size) of all boxes of an annotation, scaled from the size that it states."""
    root = ET.parse(file).getroot()
    wide, high = (float(root.findtext(f"size/{side}", "1")) for side in ("width", "height"))
    mask = np.zeros((size, size), bool)
    for one in root.iter("object"):
        left, top, right, bottom = (float(one.findtext(f"bndbox/{key}", "0")) for key in ("xmin", "ymin", "xmax", "ymax"))
        mask[int(top / high * size) : int(bottom / high * size) + 1, int(left / wide * size) : int(right / wide * size) + 1] = True
    return mask


def main(data: Path) -> None:
    network = chipcore.load_network("efficientnet_lite0")
    synsets = sorted(one.name for one in (data / "classes").iterdir() if one.name in network.classes.synsets)
    paths = [path for pair in CANDIDATES.values() for path in pair]
    images = find_images(data / "classes").per_folder(12)
    settings = chipcore.FitSettings(gates=8, precision="bfloat16")
    fitted = chipcore.fit(network, paths, images, settings, classes=synsets)
    layers = [network.layer(path) for path in paths]
    with open(data / "ilsvrc_val_dev" / "LOC_val_solution.csv", newline="") as stream:
        truth = [(row["ImageId"], network.classes.synsets.index(row["PredictionString"].split()[0])) for row in csv.DictReader(stream)]
    shares: dict[str, list[float]] = {layer.name: [] for layer in layers}
    for name, index in truth:
        if any(one.evidence_mass[index] < 5 for one in fitted.values()):
            continue
        mask = boxes(data / "ilsvrc_val_dev/Annotations/CLS-LOC/val" / f"{name}.xml", network.geometry.size)
        with torch.inference_mode():
            features = network.forward_prefix(
                network.input(open_image(data / "ilsvrc_val_dev/Data/CLS-LOC/val" / f"{name}.JPEG")), layers
            ).features
        for layer in layers:
            positive = positive_map(chip_map(fitted[layer.name].W[index], features[layer.path][0]), network.geometry.size).numpy()
            shares[layer.name].append(float(positive[mask].sum() / max(positive.sum(), 1e-12)))
    print(f"{'stride':>6}  {'layer':<22}{'channels':>9}{'median R2':>11}{'energy':>8}   of {len(next(iter(shares.values())))} photographs")
    for stride, pair in CANDIDATES.items():
        for layer in (network.layer(path) for path in pair):
            one = fitted[layer.name]
            r2 = float(one.r2[one.evidence_mass >= 5].nanmedian())
            print(f"{stride:>6}  {layer.path:<22}{layer.channels:>9}{r2:>11.3f}{np.mean(shares[layer.name]):>8.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data"))
