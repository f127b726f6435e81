"""COCO's instance annotations: polygons, run lengths or boxes of every object in one JSON.

    DIR/**/*instances*.json           images, categories, and an annotation for every object
    DIR/**/*.jpg                      the images, found by their file's name

Many tools export this form, some as ``_annotations.coco.json``. Objects of one category make one mask.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chipcore.datasets.coco import Coco, MaskedImages
from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.datasets.registry import DataSet, register
from chipcore.errors import DataError
from chipcore.images import MAX_PIXELS


@dataclass(frozen=True)
class Instances:
    """Images with instance annotations: for each its size (width, height) and the shapes by category."""

    images: ImageFolder
    sizes: dict[str, tuple[int, int]]
    shapes: dict[str, dict[str, tuple[dict[str, Any], ...]]]

    def masks_of(self, name: str) -> dict[str, np.ndarray]:
        """The mask of every category in an image, bool (h, w); ``DataError`` where an annotation is broken."""
        found = {}
        try:
            for category, annotations in sorted(self.shapes[name].items()):
                found[category] = np.any([object_mask(one, self.sizes[name]) for one in annotations], axis=0)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError):
            raise DataError(f"an annotation of {name} is not whole.") from None
        return found


def object_mask(annotation: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The pixels of one object, bool (h, w): of its polygons or run lengths, or else of its box.

    Parameters
    ----------
    annotation
        With ``segmentation`` (polygons as [x, y, x, y, ...], or run lengths down the columns) or ``bbox`` (x, y, width, height).
    size
        Width and height of the image.

    Examples
    --------
    >>> object_mask({"bbox": [1, 0, 2, 1]}, (4, 2)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    from skimage.draw import polygon

    width, height = size
    mask = np.zeros((height, width), dtype=bool)
    shape = annotation.get("segmentation")
    if isinstance(shape, dict):
        counts = shape["counts"]
        lengths = _unpack(counts) if isinstance(counts, str) else [int(one) for one in counts]
        if list(shape.get("size", (height, width))) != [height, width] or min(lengths, default=0) < 0 or sum(lengths) != height * width:
            raise ValueError("run lengths of another image")
        return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T
    if not shape:
        left, top, wide, high = (float(one) for one in annotation["bbox"])
        shape = [[left, top, left + wide, top, left + wide, top + high, left, top + high]]
    for points in shape:
        if len(points) < 6 or len(points) % 2:
            raise ValueError("no polygon")
        x, y = (np.array(points[start::2], dtype=float) - 0.5 for start in (0, 1))  # a pixel p covers [p, p + 1)
        mask[polygon(y, x, mask.shape)] = True
    return mask


def _unpack(text: str) -> list[int]:
    """Run lengths as COCO packs them: six bits a character, from the third on as differences to the last but one."""
    lengths: list[int] = []
    place = 0
    while place < len(text):
        value, digit, more = 0, 0, True
        while more:
            bits = ord(text[place]) - 48
            value |= (bits & 31) << 5 * digit
            more = bool(bits & 32)
            place, digit = place + 1, digit + 1
            if not more and bits & 16:
                value |= -1 << 5 * digit
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
    return lengths


def instance_files(folder: Path) -> list[Path]:
    """The instance annotations below a folder."""
    return sorted({*folder.rglob("*instances*.json"), *folder.rglob("*_annotations.coco.json")})


def open_instances(folder: str | Path) -> Instances:
    """Every image below a folder that an instance annotation is about; ``DataError`` where there is none."""
    found = find_images(folder)
    by_file = {Path(name).name: name for name in found.names}
    sizes: dict[str, tuple[int, int]] = {}
    shapes: dict[str, dict[str, tuple[dict[str, Any], ...]]] = {}
    for file in instance_files(Path(folder)):
        try:
            content = json.loads(file.read_bytes())
            categories = {int(one["id"]): str(one["name"]) for one in content["categories"]}
            names: dict[int, str] = {}
            for one in content["images"]:
                name = by_file.get(Path(str(one["file_name"])).name)
                if name is not None:
                    names[int(one["id"])] = name
                    sizes[name] = _size(one)
            for one in content["annotations"]:
                name = names.get(int(one["image_id"]))
                if name is not None:
                    of_image = shapes.setdefault(name, {})
                    category = categories[int(one["category_id"])]
                    of_image[category] = (*of_image.get(category, ()), dict(one))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise DataError(f"{file} is not a whole instance annotation of COCO.") from None
    if not shapes:
        raise DataError(f"{folder} holds no photograph that its instance annotations name; give the folder of photographs and JSON.")
    return Instances(ImageFolder(found.root, tuple(name for name in found.names if name in shapes), found.closed), sizes, shapes)


def _size(image: dict[str, Any]) -> tuple[int, int]:
    width, height = int(image["width"]), int(image["height"])
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise ValueError("no size of an image")
    return width, height


class CocoInstances(Coco):
    """Instance masks; an object's class is found as for panoptic ones."""

    layout = "COCO instance masks"

    def _read(self, folder: str | Path) -> MaskedImages:
        return open_instances(folder)


register(DataSet("COCO instances", CocoInstances, lambda folder: bool(instance_files(folder)), order=25, masks=True))
