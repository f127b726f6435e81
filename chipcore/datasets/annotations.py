"""What a image shows and where: a class of the network with the mask of that object, from any of our data sets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from chipcore.datasets import ade20k, coco, ilsvrc
from chipcore.datasets.image_folder import ImageFolder
from chipcore.errors import DataError
from chipcore.images import InputGeometry
from chipcore.networks import Network


@dataclass(frozen=True)
class AnnotatedObject:
    """An object in a image: its name, the class whose map should find it, and its mask on the network's view.

    ``skip`` says why it can't be evaluated, where that is so.
    """

    name: str
    target: int = -1
    mask: np.ndarray | None = None
    skip: str = ""


class Source(Protocol):
    """Annotated images. ``layout`` names the data set; ``broken`` what was found broken on opening."""

    layout: str
    images: ImageFolder
    broken: tuple[str, ...]

    def shown(self, name: str, image: Image.Image, probabilities: Tensor) -> Iterator[AnnotatedObject]:
        """The objects of one image, given f (C,); raises ``DataError`` where its annotation is broken."""


def _seen(name: str, target: int, mask: np.ndarray) -> AnnotatedObject:
    return AnnotatedObject(name, target, mask) if mask.any() else AnnotatedObject(name, skip="object not in view")


class Ilsvrc:
    """Boxes; the object is the image's one class."""

    layout = "ILSVRC boxes"
    broken: tuple[str, ...] = ()

    def __init__(self, folder: Path, network: Network) -> None:
        self._data, self._network = ilsvrc.open_ilsvrc(folder), network
        self.images = self._data.images
        if not network.classes.synsets:
            raise DataError(f"the classes of {network.name} have no WordNet synsets, by which ILSVRC names its objects.")

    def shown(self, name: str, image: Image.Image, probabilities: Tensor) -> Iterator[AnnotatedObject]:
        annotation = self._data.annotation(name)
        if annotation.synset not in self._network.classes.synsets:
            yield AnnotatedObject(annotation.synset, skip="class unknown to the network")
            return
        geometry = self._network.geometry
        found = [box_to_view(box, annotation.size, image.size, geometry) for box in annotation.boxes]
        kept = [box for box in found if box is not None]
        target = self._network.classes.synsets.index(annotation.synset)
        yield _seen(annotation.synset, target, mask_of_boxes(np.array(kept) if kept else NO_BOXES, geometry.size))


class Coco:
    """Panoptic masks; an object's class is the most probable of the ImageNet classes that are kinds of it."""

    layout = "COCO panoptic masks"
    broken: tuple[str, ...] = ()

    def __init__(self, folder: Path, network: Network) -> None:
        self._data, self._network = coco.open_coco(folder), network
        self.images = self._data.images
        if not network.classes.synsets:
            raise DataError(f"the classes of {network.name} have no WordNet synsets, which COCO's categories are matched with.")
        places = {synset: i for i, synset in enumerate(network.classes.synsets)}
        self._classes = {name: [places[s] for s in coco.synsets_of(name) if s in places] for name in coco.CATEGORIES}

    def shown(self, name: str, image: Image.Image, probabilities: Tensor) -> Iterator[AnnotatedObject]:
        masks = self._data.masks_of(name)
        for category, mask in masks.items():
            classes = self._classes.get(category)
            if classes:
                target = max(classes, key=lambda index: float(probabilities[index]))
                yield _seen(category, target, mask_to_view(mask, self._network.geometry))


class Ade20k:
    """Scenes; the class is the annotated scene, or the network's first where no file tells the scene."""

    layout = "ADE20K scenes"

    def __init__(self, folder: Path, network: Network) -> None:
        self._data, self._network = ade20k.open_ade20k(folder), network
        self.images, self.broken = self._data.images, self._data.broken
        keys = [ade20k.scene_key(name) for name in network.classes.names]
        self._keys = keys
        self._classes = {key: i for i, key in enumerate(keys) if key in ade20k.SCENES}
        if not self._classes:
            raise DataError(
                f"{network.name} knows none of the {len(ade20k.SCENES)} scenes that we know the critical object of; give a network trained on Places365."
            )

    def shown(self, name: str, image: Image.Image, probabilities: Tensor) -> Iterator[AnnotatedObject]:
        item = self._data.items[name]
        scene = item.scene if item.scene in self._classes else "" if item.scene else self._keys[int(probabilities.argmax())]
        if scene not in self._classes:
            yield AnnotatedObject(item.scene or scene, skip="scene without a known critical object")
            return
        mask = mask_to_view(item.mask(ade20k.SCENES[scene]), self._network.geometry)
        yield _seen(f"{scene}: {' or '.join(ade20k.SCENES[scene])}", self._classes[scene], mask)


def open_mask_dataset(folder: Path, network: Network) -> Source:
    """COCO or ADE20K, whichever the folder holds; what ``evaluate segmentation`` reads."""
    _must_be_folder(folder)
    return Coco(folder, network) if coco.panoptic_files(folder) else Ade20k(folder, network)


def open_dataset(folder: Path, network: Network) -> Source | None:
    """ILSVRC, COCO or ADE20K, whichever the folder holds; None for a folder without annotations."""
    _must_be_folder(folder)
    if ilsvrc.root_of(folder):
        return Ilsvrc(folder, network)
    if coco.panoptic_files(folder):
        return Coco(folder, network)
    try:
        ade20k.open_ade20k(folder)
    except DataError:
        return None
    return Ade20k(folder, network)


def _must_be_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder of a data set.")


Box = tuple[int, int, int, int]


NO_BOXES = np.empty((0, 4), dtype=np.int64)


def _crop(size: tuple[int, int], geometry: InputGeometry) -> tuple[float, float, float, float]:
    """The part of a picture (width, height) that is the network's view: left, top, width, height in its pixels."""
    width, height = size
    if geometry.fit == "squash":
        return 0.0, 0.0, float(width), float(height)
    side = min(size) * geometry.size / geometry.resize
    return (width - side) / 2, (height - side) / 2, side, side


def box_to_view(box: Box, annotated: tuple[int, int], image: tuple[int, int], geometry: InputGeometry) -> Box | None:
    """A box of an annotation on the network's view.

    Args:
        box: pixels of the annotated picture, both ends inside.
        annotated: width and height of the picture that the annotation was made on (the XML's ``<size>``).
        image: width and height of the picture on disk, which may have been resized since.
        geometry: how the picture becomes the view; it is squashed or cropped.

    Returns:
        The box in pixels of the view, cut off at its borders and at least one pixel wide and high; None
        where nothing of it is in view.
    """
    left, top, width, height = _crop(image, geometry)
    ends: list[int] = []
    for low, high, of, on, start, extent in (
        (box[0], box[2], annotated[0], image[0], left, width), (box[1], box[3], annotated[1], image[1], top, height),
    ):  # fmt: skip
        # A pixel p covers [p, p + 1): scale the edges, not the pixels' numbers.
        first, last = ((edge * on / of - start) / extent * geometry.size for edge in (low, high + 1))
        if last <= 0 or first >= geometry.size:
            return None
        begin = min(max(math.floor(first + 0.5), 0), geometry.size - 1)
        end = min(max(math.floor(last + 0.5), begin + 1), geometry.size)
        ends += [begin, end - 1]
    return ends[0], ends[2], ends[1], ends[3]


def mask_to_view(mask: np.ndarray, geometry: InputGeometry) -> np.ndarray:
    """A mask (h, w) of the picture, at any resolution, on the network's view: bool (size, size), nearest pixel."""
    left, top, width, height = _crop((mask.shape[1], mask.shape[0]), geometry)
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    view = picture.resize((geometry.size, geometry.size), Image.Resampling.NEAREST, box=(left, top, left + width, top + height))
    return np.asarray(view) > 0


def mask_of_boxes(boxes: np.ndarray, size: int) -> np.ndarray:
    """The union of boxes (n, 4) as a mask, bool (size, size)."""
    mask = np.zeros((size, size), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def extent(mask: np.ndarray) -> Box:
    """The box of a mask (h, w) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
