"""The class folders that the bundled VGG16 is trained on, as links, and the photographs that are kept for judging it.

``python -m tests.benchmarks.vgg16_data [DATA] --out DIR`` makes ``DIR/train/<class>/``, ``DIR/train/unlabeled/`` and
``DIR/held_out/<class>/``. What is held out stands in ``vgg16_held_out.txt`` beside this file, a name a line; the list is made
anew only where it is missing.

- Classes: the folders of ``classes/`` with 25 photographs or more, and the fourteen. The same synset is the same class
  (Imagenette's ten, zebra); all cats are ``cat``, all elephants ``elephant``. The fourteen's frogs, of mixed species, go
  to bullfrog or tree frog where EfficientNet-Lite0 is decided between the two, else to ``unlabeled``.
- Held out: a fifth of every class folder, 14 at most, of photographs that have no near duplicate elsewhere.
- Judging only, never trained on: ``fourteen/val``, ``ilsvrc_val_dev``, ``coco128``, ``multi_object`` and ADE20K's annotated
  scenes. What is a near duplicate of one of them is not trained on either.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from chipcore.datasets.image_folder import find_images
from chipcore.datasets.image_set import batches
from chipcore.images import SUFFIXES
from chipcore.networks import load_network

HELD_OUT = Path(__file__).with_name("vgg16_held_out.txt")
FEWEST, SHARE, MOST = 25, 0.2, 14
ALIKE = 0.98  # correlation of two photographs at 16 x 16 pixels
FOURTEEN = {
    "cassette_player": "n02979186", "cat": "cat", "chain_saw": "n03000684", "church": "n03028079", "elephant": "elephant",
    "english_springer": "n02102040", "french_horn": "n03394916", "garbage_truck": "n03417042", "gas_pump": "n03425413",
    "golf_ball": "n03445777", "parachute": "n03888257", "tench": "n01440764", "zebra": "n02391049",
}  # fmt: skip
CATS = ("cat_any", "cat_bengal", "cat_tabby_picked", "n02123045", "n02123159", "n02123394", "n02123597", "n02124075")
ELEPHANTS = ("elephant_any", "n02504013", "n02504458")
BULLFROG, TREE_FROG, TAILED_FROG = "n01641577", "n01644373", "n01644900"


def class_of(folder: str) -> str:
    return "cat" if folder in CATS else "elephant" if folder in ELEPHANTS else folder


def candidates(data: Path) -> dict[str, str]:
    """Photographs below ``data`` that may be trained on, and the class of each (empty: none)."""
    folders = sorted(folder for folder in (data / "classes").iterdir() if folder.is_dir())
    sizes = Counter({folder.name: len(photographs(folder)) for folder in folders})
    classes = {class_of(name) for name, size in sizes.items() if size >= FEWEST} | set(FOURTEEN.values())
    found: dict[str, str] = {}

    def take(folder: Path, name: str) -> None:
        for file in photographs(folder):
            found[str(file.relative_to(data))] = name if name in classes else ""

    for folder in folders:
        take(folder, class_of(folder.name))
    for folder in sorted((data / "ilsvrc_train_1_per_class").iterdir()):
        take(folder, class_of(folder.name))
    for name, meant in FOURTEEN.items():
        take(data / "fourteen" / "train" / name, meant)
    take(data / "ade20k" / "train_photos", "")
    for name, meant in frogs(data / "fourteen" / "train" / "frog").items():
        found[str((data / "fourteen" / "train" / "frog" / name).relative_to(data))] = meant
    return found


def photographs(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)


def frogs(folder: Path) -> dict[str, str]:
    """Each frog's class where one of the two has seven tenths of their common probability, else none."""
    network = load_network("efficientnet_lite0")
    bullfrog, tree, tailed = (network.classes.index(synset) for synset in (BULLFROG, TREE_FROG, TAILED_FROG))
    found = find_images(folder)
    taken: dict[str, str] = {}
    for batch in batches(found, found.names, network.geometry, 32):
        shares = network.probabilities(network.geometry.normalize(batch.views))
        for name, share in zip(batch.names, shares, strict=True):
            of_tree = float(share[tree] / (share[tree] + share[bullfrog] + share[tailed]))
            taken[name] = TREE_FROG if of_tree >= 0.7 else BULLFROG if of_tree <= 0.3 else ""
    return taken


def thumbnails(data: Path, names: list[str]) -> np.ndarray:
    """Unit vectors (n, 256), whose inner product is the correlation of two photographs squashed to 16 x 16 grey pixels."""
    rows = np.zeros((len(names), 256), np.float32)
    for row, name in zip(rows, names, strict=True):
        with Image.open(data / name) as image:
            row[:] = np.asarray(image.convert("L").resize((16, 16), Image.Resampling.BOX), np.float32).ravel()
    rows -= rows.mean(1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def judging(data: Path) -> list[str]:
    ade = [file for file in photographs(data / "ade20k") if file.suffix == ".jpg" and "train_photos" not in file.parts]
    files = [file for folder in ("fourteen/val", "ilsvrc_val_dev", "coco128", "multi_object") for file in photographs(data / folder)]
    return [str(file.relative_to(data)) for file in [*files, *ade]]


def main(data: Path, out: Path, at_most: int = 0) -> None:
    data = data.resolve()
    classes = candidates(data)
    names = sorted(classes)
    ours, theirs = thumbnails(data, names), thumbnails(data, judging(data))
    leaks = torch.from_numpy(ours @ theirs.T).amax(1) > ALIKE
    alone = torch.cat([(torch.from_numpy(part @ ours.T) > ALIKE).sum(1) == 1 for part in np.array_split(ours, 16)])
    if not HELD_OUT.is_file():
        chosen: list[str] = []
        for name in sorted({name for name in classes.values() if name}):
            every = [file for file in names if classes[file] == name and file.startswith("classes/")]
            free = [file for file in every if alone[names.index(file)]]
            ranked = sorted(free, key=lambda file: hashlib.sha256(file.encode()).digest())
            chosen += sorted(ranked[: min(MOST, round(SHARE * len(every)))])
        HELD_OUT.write_text("".join(f"{name}\n" for name in chosen), encoding="utf-8")
    held_out = set(HELD_OUT.read_text(encoding="utf-8").splitlines())
    kept = 0
    ranks: Counter[str] = Counter()
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    for name, leak in ((names[i], bool(leaks[i])) for i in order):
        if name not in held_out:
            if leak or (at_most and ranks[classes[name]] >= (at_most if classes[name] else 4 * at_most)):
                continue
            ranks[classes[name]] += 1
        folder = out / "held_out" / classes[name] if name in held_out else out / "train" / (classes[name] or "unlabeled")
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / name.replace("/", "__")
        if not link.is_symlink():
            os.symlink(data / name, link)
        kept += 1
    print(f"{kept} of {len(names)} photographs, {len(held_out)} of them held out; {int(leaks.sum())} are like one that judges")
    print(", ".join(f"{name or 'unlabeled'} {count}" for name, count in sorted(ranks.items())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", nargs="?", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--at-most",
        type=int,
        default=0,
        metavar="N",
        help="photographs of a class to train on (default: all); four times as many without a class",
    )
    options = parser.parse_args()
    main(options.data, options.out, options.at_most)
