"""What the bundled VGG16 with fc6 to fc8 knows, and what its maps show, on photographs that it was not trained on.

``python -m tests.benchmarks.vgg16_mini [DATA] --folders DIR [--training RESULT] [--only PART ...]``, DIR as ``vgg16_data`` makes it. Every part
writes its file into ``assets/results``:

- ``knows`` (vgg16_mini.json): top-1 on ``DIR/held_out`` and on ``fourteen/val``, with the confusion of the former. A frog of
  the fourteen is right as bullfrog or as tree frog.
- ``channels`` (channels_mini.json): what bullfrog, tree frog and zebra share at every depth (Fig. 11), by W and by W times the mean activation.
- ``lemon`` (lemon_mini.json): Fig. 5 as a number: the share of the lemon's map on the lemon's half of lemon and banana side by side, and the other way round.
- ``boxes``: the boxed photographs of its classes, for ``chipcore evaluate localization --data DIR/boxes``.

``--training`` exports: the weights beside RESULT go to ``assets/networks`` in half precision, what RESULT says into vgg16_mini.json.
Boxes and grids are those of the command line: ``tests/benchmarks/vgg16_mini.sh`` has the calls.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import chipcore
from chipcore.analysis import paper_figures as paper
from chipcore.analysis.channel_overlap import TOP, above_sets, top_sets
from chipcore.datasets.coco import open_coco, read_rgb
from chipcore.datasets.ilsvrc import open_ilsvrc
from chipcore.datasets.image_folder import find_images
from chipcore.datasets.image_set import batches
from chipcore.maps import upsample
from chipcore.methods import explain_view
from chipcore.networks import Network, load_network
from chipcore.storage import ASSETS
from chipcore.training.evaluation import Evaluation
from chipcore.training.saved import write_json
from tests.benchmarks.judging import interval
from tests.benchmarks.tables import _xml
from tests.benchmarks.vgg16_data import BULLFROG, CATS, ELEPHANTS, FOURTEEN, TREE_FROG

NAME = "vgg16_mini"
WEIGHTS = ASSETS / "networks" / f"{NAME}.safetensors"
RESULTS = ASSETS / "results"
TRAINING = ("command", "photographs", "seconds", "cpu_seconds", "threads", "settings", "history")


def export(training: Path) -> None:
    """The trained weights in half precision, in their place."""
    weights = load_file(training.with_name(training.name.replace(".result.json", ".safetensors")))
    save_file({key: value.half().contiguous() for key, value in weights.items()}, WEIGHTS)
    WEIGHTS.chmod(0o644)  # safetensors writes for the owner alone


def predicted(network: Network, folder: Path) -> dict[str, torch.Tensor]:
    """The class that the network takes every photograph of a class folder for, by folder."""
    found = find_images(folder)
    taken: dict[str, list[int]] = {}
    for batch in batches(found, found.names, network.geometry, 64):
        for name, index in zip(batch.names, network.probabilities(network.geometry.normalize(batch.views)).argmax(1).tolist(), strict=True):
            taken.setdefault(Path(name).parts[0], []).append(index)
    return {name: torch.tensor(indices) for name, indices in taken.items()}


def knows(network: Network, data: Path, folders: Path, training: Path | None) -> None:
    count = len(network.classes)
    confusion = torch.zeros(count, count, dtype=torch.int64)
    for name, indices in predicted(network, folders / "held_out").items():
        confusion[network.classes.index(name)] += torch.bincount(indices, minlength=count)
    right: dict[str, list[bool]] = {}
    for name, indices in predicted(network, data / "fourteen" / "val").items():
        truth = [network.classes.index(one) for one in ((BULLFROG, TREE_FROG) if name == "frog" else (FOURTEEN[name],))]
        right[name] = [index in truth for index in indices.tolist()]
    every = [one for some in right.values() for one in some]
    held = torch.cat([torch.cat([torch.ones(int(row[i])), torch.zeros(int(row.sum() - row[i]))]) for i, row in enumerate(confusion)])
    path = RESULTS / f"{NAME}.json"
    how = (
        {key: value for key, value in json.loads(training.read_text()).items() if key in TRAINING}
        if training
        else json.loads(path.read_text())["training"]
    )
    measured = Evaluation(network.classes.labels, confusion, ()).as_dict()
    write_json(path, {
        "network": network.name, "weights_sha256": network.weights_sha256, "bytes": WEIGHTS.stat().st_size,
        "parameters": sum(p.numel() for p in network.model.parameters()),
        "command": f"python -m tests.benchmarks.{NAME} ../shared/data --folders DIR --only knows",
        "held_out": measured | {"interval": interval(held.numpy())},
        "fourteen": {
            "photographs": len(every), "top1": round(float(np.mean(every)), 4), "interval": interval(np.array(every, float)),
            "class_top1": {name: round(float(np.mean(some)), 4) for name, some in right.items()},
        },
        "training": how,
    })  # fmt: skip
    print(
        f"held out: {measured['photographs']} photographs, top-1 {measured['top1']:.1%}; fourteen/val: {len(every)}, {np.mean(every):.1%}"
    )
    print(", ".join(f"{name} {share:.0%}" for name, share in measured["class_top1"].items()))
    for one in measured["worst"]:
        print(f"{one['photographs']:>4} {one['is']} taken for {one['taken_for']}")


def channels(network: Network, data: Path, folders: Path) -> None:
    """How many important channels two classes share, by weight and by contribution (weight times mean activation on held-out photographs)."""
    indices = [network.classes.index(one) for one in paper.PAPER_CLASSES]
    inputs = []
    for synset in paper.PAPER_CLASSES:
        found = find_images(folders / "held_out" / synset)
        inputs.append(torch.cat([network.geometry.normalize(batch.views) for batch in batches(found, found.names, network.geometry, 64)]))
    with torch.inference_mode():
        features = [network.forward_prefix(one).features for one in inputs]
    told: dict[str, Any] = {}
    for layer in network.layers:
        importance = chipcore.load_importance(network, layer.name)
        W = importance.W[indices].float().numpy()
        active = np.stack([one[layer.path].mean((0, 2, 3)).numpy() for one in features])
        told[layer.name] = {}
        for kind, rows in (("weight", W), ("contribution", W * active)):
            ten, above = top_sets(rows, TOP), above_sets(rows, 1e-3)
            told[layer.name][kind] = {
                f"{a} and {b}": {"of ten": int((ten[i] & ten[j]).sum()), "above a thousandth": int((above[i] & above[j]).sum())}
                for i, a, j, b in ((0, "bullfrog", 1, "tree frog"), (1, "tree frog", 2, "zebra"), (0, "bullfrog", 2, "zebra"))
            } | {"above a thousandth": [int(one.sum()) for one in above]}
        print(layer.name, json.dumps(told[layer.name]["weight"]))
        print("   by contribution", json.dumps(told[layer.name]["contribution"]))
    write_json(RESULTS / "channels_mini.json", {"network": network.id, "classes": list(paper.PAPER_CLASSES), "layers": told})


def lemon(network: Network, data: Path, folders: Path, pairs: int = 60) -> None:
    """Grad-CAM's and CHIP's share inside the right half, for lemon and banana in a picture of both halves."""
    size = network.geometry.size
    lemons, bananas = (
        [network.geometry.view(Image.open(folders / "held_out" / one / name)) for name in find_images(folders / "held_out" / one).names]
        for one in ("n07749582", "n07753592")
    )
    random = np.random.default_rng(0)
    drawn = [(int(random.integers(len(lemons))), int(random.integers(len(bananas))), bool(random.random() < 0.5)) for _ in range(pairs)]
    told: dict[str, Any] = {}
    for layer in [one.name for one in network.layers if one.name in ("pool4", "conv5_3", "pool5")]:
        importance = chipcore.load_importance(network, layer)
        shares: dict[tuple[str, str], list[float]] = {}
        for first, second, swapped in drawn:
            picture = Image.new("RGB", (size, size))
            views = [lemons[first], bananas[second]]
            for place, view in enumerate(views[::-1] if swapped else views):
                picture.paste(view.crop((size // 4, 0, 3 * size // 4, size)), (place * size // 2, 0))
            for target, at in (("lemon", 0), ("banana", 1)):
                left = (at == 0) != swapped
                for method in ("gradcam", "chip"):
                    saliency = explain_view(network, picture, target, method, layer, importance if method == "chip" else None)
                    heat = upsample(saliency.raw.clamp(min=0), size)
                    inside = heat[:, : size // 2].sum() if left else heat[:, size // 2 :].sum()
                    shares.setdefault((target, method), []).append(float(inside / heat.sum()) if heat.sum() > 0 else 0.0)
        told[layer] = {}
        for target in ("lemon", "banana"):
            chip, cam = (np.array(shares[target, method]) for method in ("chip", "gradcam"))
            told[layer][target] = {
                "chip": float(chip.mean()),
                "gradcam": float(cam.mean()),
                "difference": float((chip - cam).mean()),
                "interval": interval(chip - cam),
            }
            print(layer, target, json.dumps(told[layer][target]))
    write_json(
        RESULTS / "lemon_mini.json", {"network": network.id, "pairs": pairs, "photographs": [len(lemons), len(bananas)], "layers": told}
    )


# COCO's categories that are one class of the network each; its dogs and birds are of many breeds.
OF_COCO = {
    "airplane": "n02690373", "banana": "n07753592", "cat": "n02121808", "elephant": "n02503517", "laptop": "n03642806", "orange": "n07747607",
    "sports ball": "n04254680", "umbrella": "n04507155", "zebra": "n02391049",
}  # fmt: skip


def boxes(network: Network, data: Path, folders: Path) -> None:
    """Every boxed photograph of its classes, in ILSVRC's layout in ``DIR/boxes``: ILSVRC's own, and COCO's by its masks."""
    pictures, annotations = folders / "boxes/Data/CLS-LOC/val", folders / "boxes/Annotations/CLS-LOC/val"
    pictures.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    above = dict.fromkeys(CATS, "n02121808") | dict.fromkeys(ELEPHANTS, "n02503517")

    def add(file: Path, name: str, size: tuple[int, int], synset: str, found: Any) -> None:
        link = pictures / name
        if not link.is_symlink():
            link.symlink_to(file.resolve())
        (annotations / name).with_suffix(".xml").write_text(_xml(size, synset, tuple(found)))

    ours = open_ilsvrc(data / "ilsvrc_val_dev")
    for name in ours.images.names:
        one = ours.annotation(name)
        synset = above.get(one.synset, one.synset)
        if synset in network.classes.synsets:
            add(ours.images.root / name, Path(name).name, one.size, synset, one.boxes)
    coco = open_coco(data / "coco128")
    for name in coco.images.names:
        ids = read_rgb(coco.masks[name]) @ np.array([1, 256, 65536])
        for category in sorted(set(OF_COCO) & set(coco.segments[name])):
            found = []
            for segment in coco.segments[name][category]:
                rows, columns = np.nonzero(ids == segment)
                if len(rows):
                    found.append((int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())))
            if found:
                size = (ids.shape[1], ids.shape[0])
                add(coco.images.root / name, f"{category.replace(' ', '_')}-{Path(name).name}", size, OF_COCO[category], found)
    print(f"{len(list(pictures.iterdir()))} boxed photographs in {folders / 'boxes'}")


PARTS = {"channels": channels, "lemon": lemon, "boxes": boxes}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])  # type: ignore[union-attr]
    parser.add_argument("data", nargs="?", type=Path, default=Path("../shared/data"))
    parser.add_argument("--folders", type=Path, required=True)
    parser.add_argument("--training", type=Path, default=None, metavar="RESULT")
    parser.add_argument("--only", nargs="+", choices=("knows", *PARTS), default=("knows", *PARTS))
    options = parser.parse_args()
    if options.training is not None:
        export(options.training)
    judged = load_network(NAME)
    if "knows" in options.only:
        knows(judged, options.data, options.folders, options.training)
    for part, measure in PARTS.items():
        if part in options.only:
            measure(judged, options.data, options.folders)
