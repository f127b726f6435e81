"""COCO's panoptic masks, and which ImageNet classes are one of its categories.

    DIR/**/*panoptic*.json            segments and categories of every picture
    DIR/**/...panoptic.../*.png       a picture's segments: id = R + 256 G + 65536 B
    DIR/**/*.jpg                      the images

Files of one picture share the number at the end of their name (``000000000073.jpg``,
``coco_000000000073.png``), so COCO's own download and subsets of it are read alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from chipcore.datasets.annotations import AnnotatedObject, mask_to_view, visible_object
from chipcore.datasets.class_names import Classes, imagenet
from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.datasets.orientation import upright_mask
from chipcore.datasets.registry import DataSet, register
from chipcore.errors import DataError
from chipcore.images import MAX_PIXELS, InputGeometry

# COCO category -> ImageNet synsets that are kinds of it ("first-last": every class between, in ILSVRC's order).
# Categories without a class that is plainly the same thing (person, handbag, plants, most furniture parts) are left out.
CATEGORIES: dict[str, tuple[str, ...]] = {
    "airplane": ("n02690373",),  # airliner
    "backpack": ("n02769748",),
    "banana": ("n07753592",),
    "bear": ("n02132136", "n02133161", "n02134084", "n02134418"),  # brown, American black, ice, sloth
    "bench": ("n03891251",),  # park bench
    "bicycle": ("n03792782", "n02835271"),  # mountain bike, tandem
    "bird": (
        "n01514668-n01622779",
        "n01795545-n01860187",
        "n02002556-n02058221",
    ),  # cock to great gray owl, grouse to black swan, stork to albatross
    "boat": ("n04273569", "n03662601", "n02951358", "n03447447", "n02981792", "n04612504", "n03344393", "n04483307"),
    "bottle": ("n04591713", "n02823428", "n04557648", "n03983396"),  # wine, beer, water, pop
    "broccoli": ("n07714990",),
    "bus": ("n04146614", "n04487081", "n03769881"),  # school bus, trolleybus, minibus
    "car": ("n04285008", "n03100240", "n03670208", "n02930766", "n02814533", "n03594945", "n03770679", "n04037443", "n03777568"),
    "cat": ("n02123045-n02124075",),  # tabby to Egyptian cat
    "cell phone": ("n02992529",),
    "chair": ("n04099969", "n03376595", "n02791124"),  # rocking, folding, barber chair
    "clock": ("n02708093", "n04548280", "n03196217"),  # analog, wall, digital
    "couch": ("n04344873",),  # studio couch
    "cow": ("n02403003",),  # ox
    "cup": ("n07930864", "n03063599"),  # cup, coffee mug
    "dining table": ("n03201208",),
    "dog": ("n02085620-n02113978",),  # Chihuahua to Mexican hairless
    "elephant": ("n01871265", "n02504013", "n02504458"),  # tusker, Indian, African
    "hair drier": ("n03483316",),
    "horse": ("n02389026",),  # sorrel
    "hot dog": ("n07697537",),
    "keyboard": ("n03085013",),
    "laptop": ("n03642806", "n03832673"),  # laptop, notebook
    "microwave": ("n03761084",),
    "motorcycle": ("n03785016", "n03791053"),  # moped, motor scooter
    "mouse": ("n03793489",),
    "orange": ("n07747607",),
    "parking meter": ("n03891332",),
    "pizza": ("n07873807",),
    "refrigerator": ("n04070727",),
    "remote": ("n04074963",),
    "sheep": ("n02412080", "n02415577"),  # ram, bighorn
    "sports ball": ("n04254680", "n02802426", "n02799071", "n04409515", "n04118538", "n04540053"),
    "stop sign": ("n06794110",),  # street sign
    "teddy bear": ("n04399382",),
    "tie": ("n04591157", "n02883205"),  # Windsor tie, bow tie
    "toaster": ("n04442312",),
    "toilet": ("n04447861",),
    "traffic light": ("n06874185",),
    "train": ("n02917067", "n04310018", "n03272562", "n03895866"),  # bullet train, steam, electric, passenger coach
    "truck": ("n03930630", "n03417042", "n03345487", "n03796401", "n04461696", "n04467665"),
    "tv": ("n04404412",),
    "umbrella": ("n04507155",),
    "vase": ("n04522168",),
    "zebra": ("n02391049",),
}


@cache
def synsets_of(category: str) -> tuple[str, ...]:
    """The ImageNet synsets of a COCO category, ranges written out; empty for a category that has none."""
    order = imagenet().synsets
    found: list[str] = []
    for entry in CATEGORIES.get(category, ()):
        first, _, last = entry.partition("-")
        found += order[order.index(first) : order.index(last or first) + 1]
    return tuple(found)


@dataclass(frozen=True)
class Panoptic:
    """Images with panoptic masks: for each its PNG, and its segments' ids by category."""

    images: ImageFolder
    masks: dict[str, Path]
    segments: dict[str, dict[str, tuple[int, ...]]]

    def masks_of(self, name: str) -> dict[str, np.ndarray]:
        """The mask of every category in a image, bool (h, w).

        Raises ``DataError`` where the PNG is broken.
        """
        path = self.masks[name]
        ids = read_rgb(path) @ np.array([1, 256, 65536])
        return {category: np.isin(ids, some) for category, some in sorted(self.segments[name].items())}


def read_rgb(path: Path) -> np.ndarray:
    """A PNG whose colors are numbers, int64 (h, w, 3); ``DataError`` where it is missing or broken."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path} has {image.width} x {image.height} pixels; that is no annotation.")
            return np.asarray(image.convert("RGB")).astype(np.int64)
    except DataError:
        raise
    except Exception:  # Pillow's readers raise whatever comes up in a damaged file
        raise DataError(f"{path} is not a whole PNG.") from None


def panoptic_files(folder: Path) -> list[Path]:
    """The panoptic annotations below a folder."""
    return sorted(folder.rglob("*panoptic*.json"))


def open_coco(folder: str | Path) -> Panoptic:
    """Every image below a folder that has a panoptic mask; ``DataError`` where there is none."""
    root = Path(folder)
    found = find_images(root)
    by_number = {_number(name): name for name in found.names if name.lower().endswith((".jpg", ".jpeg"))}
    pngs = {_number(path.name): path for path in sorted(root.rglob("*.png")) if "panoptic" in path.parent.name}
    masks: dict[str, Path] = {}
    segments: dict[str, dict[str, tuple[int, ...]]] = {}
    for file in panoptic_files(root):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            categories = {int(one["id"]): str(one["name"]) for one in content["categories"]}
            for annotation in content["annotations"]:
                number = _number(annotation["file_name"])
                if number not in by_number or number not in pngs:
                    continue
                name = by_number[number]
                listed: dict[str, tuple[int, ...]] = {}
                for segment in annotation["segments_info"]:
                    category = categories[int(segment["category_id"])]
                    listed[category] = (*listed.get(category, ()), _color(segment["id"]))
                masks[name], segments[name] = pngs[number], listed
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise DataError(f"{file} is not a whole panoptic annotation of COCO.") from None
    if not masks:
        raise DataError(
            f"{folder} holds no photograph with a panoptic mask of COCO; give the folder of photographs, masks and panoptic JSON."
        )
    return Panoptic(ImageFolder(found.root, tuple(name for name in found.names if name in masks), found.closed), masks, segments)


def _color(segment: Any) -> int:
    """A segment's id, which is a color: R + 256 G + 65536 B."""
    number = int(segment)
    if not 0 <= number < 1 << 24:
        raise ValueError(f"{number} is no colour")
    return number


def _number(name: str) -> int:
    digits = re.findall(r"\d+", Path(name).stem)
    return int(digits[-1]) if digits else -1


class MaskedImages(Protocol):
    """Images, and for each the mask of every category that it shows."""

    @property
    def images(self) -> ImageFolder: ...

    def masks_of(self, name: str) -> dict[str, np.ndarray]: ...


class Coco:
    """Panoptic masks; an object's class is the most probable of the ImageNet classes that are kinds of it."""

    layout = "COCO panoptic masks"
    broken: tuple[str, ...] = ()

    def __init__(self, folder: str | Path, classes: Classes, geometry: InputGeometry) -> None:
        if not classes.synsets:
            raise DataError("the classes of this network have no WordNet synsets, which COCO's categories are matched with.")
        self._data, self._geometry = self._read(folder), geometry
        self.images = self._data.images
        places = {synset: i for i, synset in enumerate(classes.synsets)}
        self._classes = {name: [places[s] for s in synsets_of(name) if s in places] for name in CATEGORIES}

    def _read(self, folder: str | Path) -> MaskedImages:
        return open_coco(folder)

    def objects(self, name: str, image: Image.Image, probabilities: Tensor) -> Iterator[AnnotatedObject]:
        for category, mask in self._data.masks_of(name).items():
            classes = self._classes.get(category)
            if classes:
                target = max(classes, key=lambda index: float(probabilities[index]))
                upright = upright_mask(mask, image, f"the annotation of {name}")
                yield visible_object(category, target, mask_to_view(upright, self._geometry))


register(DataSet("COCO", Coco, lambda folder: bool(panoptic_files(folder)), order=20, masks=True))
