"""ADE20K in its three layouts, and the object that makes a scene what it is.

    2021            .../training/urban/street/ADE_train_00016869.jpg, _seg.png, .json
    2016            .../training/a/abbey/ADE_train_00000970.jpg, _seg.png
    SceneParse150   images/training/X.jpg, annotations/training/X.png, sceneCategories.txt

In ``_seg.png`` an object is (R // 10) * 256 + G, numbered alike in both releases; SceneParse150 numbers 150
objects from 1. Where a ``_seg.png`` of 2016 has no image beside it, one of the same name is looked for
anywhere below the folder. One image in several layouts counts once, in the order above.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from chipcore.datasets.annotations import AnnotatedObject, mask_to_view, visible_object
from chipcore.datasets.class_names import Classes
from chipcore.datasets.coco import read_rgb
from chipcore.datasets.image_folder import ImageFolder, existing_folder
from chipcore.datasets.orientation import upright_mask
from chipcore.datasets.registry import DataSet, register
from chipcore.errors import DataError
from chipcore.images import InputGeometry

# The object's number in SceneParse150 and in _seg.png (objectInfo150.csv, mapFromADE.txt); 0: only the JSON of 2021 knows it.
OBJECTS: dict[str, tuple[int, int]] = {
    "airplane": (91, 14), "bathtub": (38, 155), "bed": (8, 165), "bookcase": (63, 239), "bridge": (62, 294), "building": (2, 312),
    "bus": (81, 327), "car": (21, 401), "desk": (34, 724), "field": (30, 913), "fountain": (105, 1023), "house": (26, 1276),
    "lake": (129, 1393), "mountain": (17, 1610), "pool table": (57, 1948), "river": (61, 2128), "road": (7, 2131), "runway": (55, 2185),
    "sand": (47, 2212), "sea": (27, 2264), "skyscraper": (49, 2423), "sofa": (24, 2473), "stage": (102, 2526), "stairs": (54, 2530),
    "stairway": (60, 2531), "stove": (72, 2598), "swimming pool": (110, 2668), "table": (16, 2684), "tower": (85, 2828), "tree": (5, 2855),
    "valley": (0, 0), "waterfall": (114, 3016), "computer": (75, 591), "grandstand": (52, 1121), "shelf": (25, 2329), "toilet": (66, 2793),
}  # fmt: skip

# Scene (as Places365 calls it, spaces for signs) -> the objects without which it would be another scene; their union is the mask.
SCENES: dict[str, tuple[str, ...]] = {
    "airfield": ("airplane",), "bathroom": ("bathtub", "toilet"), "beach": ("sand", "sea"), "bedroom": ("bed",),
    "bookstore": ("bookcase", "shelf"), "bridge": ("bridge",), "building facade": ("building",), "bus station indoor": ("bus",),
    "castle": ("building",), "childs room": ("bed",), "church outdoor": ("building",), "classroom": ("desk",), "coast": ("sea",),
    "conference room": ("table",), "crosswalk": ("road",), "desert sand": ("sand",), "dining room": ("table",), "dorm room": ("bed",),
    "field cultivated": ("field",), "field road": ("road",), "field wild": ("field",), "forest broadleaf": ("tree",), "forest path": ("tree",),
    "forest road": ("road",), "fountain": ("fountain",), "highway": ("road",), "hotel room": ("bed",), "house": ("house",), "kitchen": ("stove",),
    "lake natural": ("lake",), "library indoor": ("bookcase", "shelf"), "living room": ("sofa",), "mountain": ("mountain",),
    "mountain path": ("mountain",), "mountain snowy": ("mountain",), "ocean": ("sea",), "office": ("desk", "computer"),
    "office building": ("building", "skyscraper"), "parking lot": ("car",), "recreation room": ("pool table",), "river": ("river",),
    "runway": ("runway",), "skyscraper": ("skyscraper",), "staircase": ("stairs", "stairway"), "street": ("road",),
    "swimming pool indoor": ("swimming pool",), "swimming pool outdoor": ("swimming pool",), "tower": ("tower",), "valley": ("valley",),
    "waterfall": ("waterfall",), "youth hostel": ("bed",),
}  # fmt: skip
_MISSPELT = {"aiport terminal": "airport terminal"}  # a folder of the 2016 release


def scene_key(name: str) -> str:
    """A scene's name in one spelling: ``/b/bedroom 52``, ``mountain_snowy`` and ``church/outdoor`` alike."""
    text = re.sub(r"^/?[a-z]/", "", name.strip().lower())
    text = " ".join(re.sub(r"[\s_/,-]+", " ", re.sub(r"\s+\d+$", "", text)).split())
    return _MISSPELT.get(text, text)


@dataclass(frozen=True)
class Item:
    """A image, the file of its objects, and its scene ('' where no file tells)."""

    layout: str
    image: Path | None
    segments: Path
    scene: str

    def mask(self, objects: tuple[str, ...]) -> np.ndarray:
        """The union of some objects' pixels, bool (h, w).

        Raises ``DataError`` where the file is broken.
        """
        colors = read_rgb(self.segments)
        if self.layout == "SceneParse150":
            return np.isin(colors[..., 0], [OBJECTS[name][0] for name in objects if OBJECTS[name][0]])
        numbers = {OBJECTS[name][1] for name in objects if OBJECTS[name][1]}
        if self.layout == "2021":
            numbers |= {number for number, names in _objects(_json_of(self.segments)) if names & set(objects)}
        return np.isin(colors[..., 0] // 10 * 256 + colors[..., 1], list(numbers))


@dataclass(frozen=True)
class Scenes:
    """The annotated scenes below a folder; ``items`` by image name."""

    images: ImageFolder
    items: dict[str, Item]
    broken: tuple[str, ...] = ()


def _json_of(segments: Path) -> Path:
    return segments.with_name(segments.name.replace("_seg.png", ".json"))


def _read_json(path: Path) -> dict[str, object]:
    try:
        # The release is Latin-1 in places.
        content = json.loads(path.read_bytes().decode("utf-8", errors="replace"))["annotation"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{path} is not a whole annotation of ADE20K 2021.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a whole annotation of ADE20K 2021.")
    return content


def _objects(path: Path) -> list[tuple[int, set[str]]]:
    """Number and names of the whole objects (not parts of others) in a JSON of 2021."""
    listed = _read_json(path).get("object")
    try:
        whole = [one for one in listed if int(one["parts"]["part_level"]) == 0] if isinstance(listed, list) else []
        return [(int(one["name_ndx"]), {name.strip() for name in str(one["name"]).split(",")}) for one in whole]
    except (KeyError, TypeError, ValueError, OverflowError):  # JSON may hold Infinity
        raise DataError(f"{path} is not a whole annotation of ADE20K 2021.") from None


def open_ade20k(folder: str | Path) -> Scenes:
    """Every annotated scene below a folder.

    Raises ``DataError`` where there is none. A scene whose JSON is broken or whose image is missing is
    named in ``broken``.
    """
    root = existing_folder(folder)
    images: dict[str, Path] = {}
    segments: list[Path] = []
    challenge: list[tuple[Path, Path]] = []
    for parent, below, files in os.walk(root):
        below.sort()
        here = Path(parent)
        for file in sorted(files):
            stem, ending = os.path.splitext(file)
            if ending.lower() in (".jpg", ".jpeg"):
                images.setdefault(stem, here / file)
                beside = _annotation_of(here / file)
                if beside is not None:
                    challenge.append((here / file, beside))
            elif file.endswith("_seg.png"):
                segments.append(here / file)
    items: dict[str, Item] = {}
    broken: list[str] = []
    for path in sorted(segments, key=lambda path: not _json_of(path).exists()):  # the 2021 layout first
        stem = path.name.removesuffix("_seg.png")
        own = path.with_name(f"{stem}.jpg")
        image = own if own.exists() else images.get(stem)
        if stem in items:
            continue
        if image is None:
            broken.append(f"{path} has no photograph {stem}.jpg.")
            continue
        try:
            newer = _json_of(path).exists()
            scene = _scene_of_json(_json_of(path)) if newer else _scene_of_folders(path.parent)
            items[stem] = Item("2021" if newer else "2016", image, path, scene)
        except DataError as error:
            broken.append(str(error))
    categories = _scene_categories(root)
    for image, path in challenge:
        items.setdefault(image.stem, Item("SceneParse150", image, path, categories.get(image.stem, "")))
    if not items and not broken:
        raise DataError(f"{folder} holds no scene of ADE20K; give a folder in the layout of 2021, 2016 or SceneParse150.")
    named = {str(item.image.relative_to(root)): item for item in items.values() if item.image is not None}
    return Scenes(ImageFolder(root, tuple(sorted(named))), named, tuple(broken))


def _annotation_of(image: Path) -> Path | None:
    """``annotations/training/X.png`` of ``images/training/X.jpg``; the same without ``training``."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, max(len(parts) - 4, 0), -1):
        if parts[place] == "images":
            path = Path(*parts[:place], "annotations", *parts[place + 1 :]).with_suffix(".png")
            return path if path.exists() else None
    return None


def _scene_of_json(path: Path) -> str:
    """The last word of ['urban', 'outdoor', 'street']; the order differs between files, so the general words go first."""
    listed = _read_json(path).get("scene")
    words = [scene_key(str(word)) for word in listed] if isinstance(listed, list) else []
    # images/ADE/training/urban/street: the folder is the scene, and every file of it agrees.
    folder = scene_key(path.parent.name)
    return folder if folder in words else next((word for word in reversed(words) if word), "")


def _scene_of_folders(folder: Path) -> str:
    """``.../training/c/church/outdoor`` is the scene 'church outdoor'."""
    parts = folder.parts
    for split in ("training", "validation"):
        if split in parts:
            below = parts[len(parts) - parts[::-1].index(split) :]
            return scene_key("/".join(below[1:] if len(below) > 1 and len(below[0]) == 1 else below))
    return scene_key(folder.name)


def _scene_categories(root: Path) -> dict[str, str]:
    """Scenes by image from ``sceneCategories.txt`` of SceneParse150, where it is there."""
    found: dict[str, str] = {}
    for file in sorted(root.rglob("sceneCategories.txt")):
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}.") from None
        for line in lines:
            stem, _, scene = line.strip().partition(" ")
            found[stem] = scene_key(scene)
    return found


class Ade20k:
    """Scenes; the class is the annotated scene, or the network's first where no file tells the scene."""

    layout = "ADE20K scenes"

    def __init__(self, folder: str | Path, classes: Classes, geometry: InputGeometry) -> None:
        self._data, self._geometry = open_ade20k(folder), geometry
        self.images, self.broken = self._data.images, self._data.broken
        self._keys = [scene_key(name) for name in classes.names]
        self._classes = {key: i for i, key in enumerate(self._keys) if key in SCENES}
        if not self._classes:
            raise DataError(
                f"this network knows none of the {len(SCENES)} scenes with a critical object; give a network trained on Places365."
            )

    def objects(self, name: str, image: Image.Image, probabilities: Tensor) -> Iterator[AnnotatedObject]:
        item = self._data.items[name]
        scene = item.scene if item.scene in self._classes else "" if item.scene else self._keys[int(probabilities.argmax())]
        if scene not in self._classes:
            yield AnnotatedObject(item.scene or scene, skip="scene without a known critical object")
            return
        upright = upright_mask(item.mask(SCENES[scene]), image, f"the annotation of {name}")
        mask = mask_to_view(upright, self._geometry)
        yield visible_object(f"{scene}: {' or '.join(SCENES[scene])}", self._classes[scene], mask)


def _is_ade20k(folder: Path) -> bool:
    try:
        open_ade20k(folder)
    except DataError:
        return False
    return True


register(DataSet("ADE20K", Ade20k, _is_ade20k, order=30, masks=True))
