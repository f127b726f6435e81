"""The README's tables of what the methods are worth: ``python -m tests.benchmarks.tables WORK [--only NAME ...]``.

Fits W of SqueezeNet, EfficientNet-Lite0 and the Places365 network below WORK, measures with ``python -m chipcore
evaluate``, and leaves each result as JSON in ``assets/results/``. ``--print`` shows the tables of what is there.
Every step is one command line, printed before it runs; a W that is in WORK already is not fitted again.

Images that W is fitted on and those it is measured on are kept apart: at most 40 a class of ``classes`` and
``fourteen`` are for fitting, the rest of ``classes`` makes the mosaics, and the six images of ``ilsvrc_val_dev``
that are also among the other folders (found by their pixels) are measured on by nobody.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from chipcore.datasets.coco import open_coco, read_rgb
from chipcore.datasets.ilsvrc import open_ilsvrc
from chipcore.evaluation.report import table

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = Path(os.environ.get("CHIP_DATA") or ROOT / "../shared/data").resolve()
RESULTS = ROOT / "assets" / "results"
EACH = 40  # images of a class folder that W is fitted on
TWICE = {f"ILSVRC2012_val_{number:08d}" for number in (12484, 12870, 29918, 12504, 15787, 24327)}

SQUEEZENET = ["--network", "squeezenet1_0", "--checkpoint", str(DATA / "networks/squeezenet1_0.pth")]
SQUEEZENET_POOLS = ("pool1", "features.6", "features.11")
LITE0 = ["--network", "efficientnet_lite0"]
SLIM = ["--network", "vgg16_slim"]
PLACES = [
    "--network", "places_squeezenet:build", "--checkpoint", str(DATA / "networks/squeezenet_places365.pth"),
    "--labels", str(DATA / "networks/categories_places365.txt"), "--fit", "squash",
]  # fmt: skip
RIVALS = ["chip", "gradcam", "cmwp", "backprop"]


def fits(work: Path) -> dict[str, list[str]]:
    """Command lines that fit W, by the folder below WORK that it goes to."""
    images = [str(work / "fit" / name) for name in ("classes", "one", "fourteen")]
    some = ["--photos-per-class", "15"]  # a gate at a shallow layer costs as much as a whole pass
    return {
        "squeezenet": [*SQUEEZENET, "--layers", "features.12", "--images", *images, "--gates", "50"],
        "squeezenet-depths": [*SQUEEZENET, "--layers", *SQUEEZENET_POOLS, "--images", *images, *some, "--gates", "12", "--precision", "bfloat16"],
        "lite0": [*LITE0, "--layers", "head", "stage5", "--images", *images, "--gates", "50"],
        "lite0-depths": [*LITE0, "--layers", "stage1", "stage2", "stage3", "stage4", "--images", *images, *some, "--gates", "12", "--precision", "bfloat16"],
        "slim": [*SLIM, "--layers", "all", "--images", str(DATA / "fourteen/train"), "--gates", "16", "--precision", "bfloat16"],
        "places": [*PLACES, "--layers", "stride16", "--images", str(DATA / "ade20k/train_photos"), "--gates", "100"],
    }  # fmt: skip


def measurements(work: Path) -> dict[str, tuple[str, list[str]]]:
    """By the name of the result: the folder of its W, and the rest of the command line."""
    boxes, unseen = ["--data", str(work / "ilsvrc")], str(work / "unseen")
    grid = ["pointing", "--data", unseen, "--grid", "2", "--mosaics", "100", "--confidence", "0.9"]
    lime = ["--limit", "50", "--lime-samples", "100"]
    found: dict[str, tuple[str, list[str]]] = {}
    for name, network, last, depths in (
        ("squeezenet", SQUEEZENET, "features.12", list(SQUEEZENET_POOLS)),
        ("lite0", LITE0, "head", ["stage1", "stage2", "stage3", "stage4"]),
    ):
        found[f"localization_{name}"] = (name, ["localization", *network, "--layer", last, "--methods", *RIVALS, *boxes])
        found[f"localization_{name}_good"] = (
            name, ["localization", *network, "--layer", last, "--methods", *RIVALS, *boxes, "--evidence", "good"],
        )  # fmt: skip
        found[f"localization_{name}_lime"] = (
            name, ["localization", *network, "--layer", last, "--methods", "chip", "gradcam", "local_chip", "lime", *boxes, *lime],
        )  # fmt: skip
        found[f"depths_{name}"] = (
            f"{name}-depths", ["localization", *network, "--layer", *depths, "--methods", "chip", "gradcam", *boxes, "--limit", "300"],
        )  # fmt: skip
        found[f"grid_{name}"] = (name, [*grid[:1], *network, "--layer", last, "--methods", *RIVALS, *grid[1:]])
        found[f"coco_{name}"] = (
            name, ["segmentation", *network, "--layer", last, "--methods", *RIVALS, "--data", str(DATA / "coco128")],
        )  # fmt: skip
        found[f"channels_{name}"] = (
            name,
            ["faithfulness", *network, "--layer", last, "--methods", "chip", "gradcam", "--data", unseen, "--limit", "60", "--parts", "channels"],
        )  # fmt: skip
    found["localization_slim"] = (
        "slim", ["localization", *SLIM, "--labels", str(work / "slim/labels.txt"), "--layer", "all", "--methods", *RIVALS, "--data", str(work / "slim")],
    )  # fmt: skip
    found["grid_slim"] = (
        "slim", ["pointing", *SLIM, "--layer", "all", "--methods", "chip", "gradcam", "--data", str(DATA / "fourteen/val"), "--grid", "2", "--mosaics", "30",
                 "--confidence", "0.9"],
    )  # fmt: skip
    found["depths_lite0_stage5"] = (
        "lite0",
        ["localization", *LITE0, "--layer", "stage5", "--methods", "chip", "gradcam", *boxes, "--limit", "300"],
    )
    # Ten annotated scenes are all there is, seven of them with a image and five with an object: rows are fitted on each itself.
    found["scenes_places365"] = (
        "places", ["segmentation", *PLACES, "--layer", "stride16", "--methods", "local_chip", "gradcam", "backprop", "--data", str(DATA / "ade20k")],
    )  # fmt: skip
    return found


def prepare(work: Path) -> None:
    """Links to the images, sorted into those to fit on and those to measure on."""
    if (work / "fit").exists():
        return
    for name, source in (("classes", DATA / "classes"), ("one", DATA / "ilsvrc_train_1_per_class"), ("fourteen", DATA / "fourteen/train")):
        for folder in sorted(one for one in source.iterdir() if one.is_dir()):
            files = [one for one in sorted(folder.iterdir()) if not any(known in one.name for known in TWICE)]
            _link(files[:EACH], work / "fit" / name / folder.name)
            if name == "classes":
                _link(files[EACH:], work / "unseen" / folder.name)
    source = DATA / "ilsvrc_val_dev"
    for part in ("Data/CLS-LOC/val", "Annotations/CLS-LOC/val"):
        _link([one for one in sorted((source / part).iterdir()) if one.stem not in TWICE], work / "ilsvrc" / part)
    lines = (source / "LOC_val_solution.csv").read_text().splitlines(keepends=True)
    (work / "ilsvrc/LOC_val_solution.csv").write_text("".join(line for line in lines if line.split(",")[0] not in TWICE))


# The classes of vgg16_slim by a synset each, in its order, and which others are the same thing to it.
SLIM_CLASSES = {
    "n02979186": "cassette player", "n02123045": "cat", "n03000684": "chain saw", "n03028079": "church", "n02504013": "elephant",
    "n02102040": "English springer", "n03394916": "French horn", "n01641577": "frog", "n03417042": "garbage truck", "n03425413": "gas pump",
    "n03445777": "golf ball", "n03888257": "parachute", "n01440764": "tench", "n02391049": "zebra",
}  # fmt: skip
SAME = {
    "n02123159": "n02123045", "n02123394": "n02123045", "n02123597": "n02123045", "n02124075": "n02123045", "n01871265": "n02504013",
    "n02504458": "n02504013", "n01644373": "n01641577", "n01644900": "n01641577",
}  # fmt: skip
OF_COCO = {"cat": "n02123045", "elephant": "n02504013", "zebra": "n02391049"}


def prepare_slim(work: Path) -> None:
    """Every boxed image of vgg16_slim's classes that it has not seen, in ILSVRC's layout: ILSVRC's own, and COCO's by its masks."""
    root = work / "slim"
    if root.exists():
        return
    pictures, annotations = root / "Data/CLS-LOC/val", root / "Annotations/CLS-LOC/val"
    pictures.mkdir(parents=True)
    annotations.mkdir(parents=True)
    (root / "labels.txt").write_text("".join(f"{synset} {name}\n" for synset, name in SLIM_CLASSES.items()))
    data = open_ilsvrc(work / "ilsvrc")
    for name in data.images.names:
        found = data.annotation(name)
        synset = SAME.get(found.synset, found.synset)
        if synset in SLIM_CLASSES:
            (pictures / name).symlink_to((data.images.root / name).resolve())
            (annotations / name).with_suffix(".xml").write_text(_xml(found.size, synset, found.boxes))
    coco = open_coco(DATA / "coco128")
    for name in coco.images.names:
        ids = read_rgb(coco.masks[name]) @ np.array([1, 256, 65536])
        for category in set(OF_COCO) & set(coco.segments[name]):
            boxes = []
            for one in coco.segments[name][category]:
                rows, columns = np.nonzero(ids == one)
                if len(rows):
                    boxes.append((int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())))
            if boxes:
                (pictures / f"{category}-{Path(name).name}").symlink_to((coco.images.root / name).resolve())
                xml = _xml((ids.shape[1], ids.shape[0]), OF_COCO[category], tuple(boxes))
                (annotations / f"{category}-{Path(name).stem}.xml").write_text(xml)


def _xml(size: tuple[int, int], synset: str, boxes: tuple[tuple[int, int, int, int], ...]) -> str:
    sides = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{synset}</name><bndbox>"
        + "".join(f"<{s}>{v}</{s}>" for s, v in zip(sides, box, strict=True))
        + "</bndbox></object>"
        for box in boxes
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{objects}</annotation>"


def _link(files: list[Path], folder: Path) -> None:
    if files:
        folder.mkdir(parents=True)
        for file in files:
            (folder / file.name).symlink_to(file.resolve())


def run(arguments: list[str]) -> None:
    """One command line of chipcore; its words go to the terminal."""
    print("python -m chipcore " + " ".join(arguments), flush=True)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests/helpers/somebody")])
    subprocess.run([sys.executable, "-m", "chipcore", *arguments], check=True, env={**os.environ, "PYTHONPATH": path}, cwd=ROOT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", default=None, help="these results; all by default")
    parser.add_argument("--fit", action="store_true", help="fit W only")
    parser.add_argument("--fit-again", action="store_true")
    parser.add_argument("--print", action="store_true", help="show the tables of the results that are there")
    options = parser.parse_args()
    work = options.work.resolve()
    todo = {name: one for name, one in measurements(work).items() if options.only is None or name in options.only}
    if not options.print:
        prepare(work)
        prepare_slim(work)
        for name in dict.fromkeys(w for w, _arguments in todo.values()):
            if options.fit_again:
                shutil.rmtree(work / "w" / name, ignore_errors=True)
            if not any((work / "w" / name).glob("*/*.safetensors")):  # a fit that was broken off left its checkpoints
                run(["fit", *fits(work)[name], "--out", str(work / "w" / name), "--memory", "11"])
    for name, (w, arguments) in todo.items() if not options.fit else ():
        file = RESULTS / f"{name}.json"
        if not options.print:
            run(["evaluate", *arguments, "--importance", str(work / "w" / w), "--json", str(file)])
        elif file.exists():
            result: dict[str, Any] = json.loads(file.read_text())
            print(f"\n{name}\n{table(result)}")


if __name__ == "__main__":
    main()
