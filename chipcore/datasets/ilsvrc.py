"""ILSVRC's localization layout: images in ``Data/CLS-LOC``, their boxes in ``Annotations/CLS-LOC``.

    DIR/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG
    DIR/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml

Boxes are counted from 0 with both ends inside, in pixels of the XML's ``<size>``; images that were
resized since keep the XML of the original.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from chipcore.datasets.annotations import AnnotatedObject, boxes_in_view, mask_of_boxes, visible_object
from chipcore.datasets.class_names import Classes
from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.datasets.orientation import annotated_orientation, turn_box, turn_size
from chipcore.datasets.registry import DataSet, register
from chipcore.errors import DataError
from chipcore.images import InputGeometry, exif_orientation

_PHOTOGRAPHS, _ANNOTATIONS = Path("Data", "CLS-LOC"), Path("Annotations", "CLS-LOC")
_MOST_BYTES = 1 << 20  # the largest XML of ILSVRC has 30 kB
_MOST_PIXELS = 1 << 20  # on a side


@dataclass(frozen=True)
class Annotation:
    """What an XML says: the size (width, height) that its boxes refer to, the synset, and that synset's boxes.

    ``objects`` has the boxes by every name in the file, in its order; ``synset`` is the first.
    """

    size: tuple[int, int]
    synset: str
    boxes: tuple[tuple[int, int, int, int], ...]
    objects: dict[str, tuple[tuple[int, int, int, int], ...]] = field(default_factory=dict)

    def of(self, name: str) -> Annotation:
        """The same with the boxes of another of its objects."""
        return replace(self, synset=name, boxes=self.objects[name])

    def upright(self, image: tuple[int, int], orientation: int, name: str) -> Annotation:
        """As it lies on an upright image of this width and height, which EXIF had turned by ``orientation``.

        Raises ``DataError`` where the size does not tell whether it was made on the stored pixels.
        """
        turn = annotated_orientation(self.size, image, orientation, name)
        turned = {one: tuple(turn_box(box, self.size, turn) for box in boxes) for one, boxes in self.objects.items()}
        return Annotation(turn_size(self.size, turn), self.synset, tuple(turn_box(box, self.size, turn) for box in self.boxes), turned)


def root_of(folder: Path) -> Path | None:
    """Where the layout begins: the folder, or ``ILSVRC`` below it as Kaggle packs it; None where it is neither."""
    for place in (folder, folder / "ILSVRC"):
        if (place / _PHOTOGRAPHS).is_dir() and (place / _ANNOTATIONS).is_dir():
            return place
    return None


@dataclass(frozen=True)
class Localization:
    """The images of one split and where their annotations are."""

    images: ImageFolder
    annotations: Path

    def annotation(self, name: str) -> Annotation:
        """The annotation of a image.

        Raises ``DataError`` with one sentence that names the file where it is missing or broken.
        """
        return read_annotation((self.annotations / name).with_suffix(".xml"))


def open_ilsvrc(folder: str | Path, split: str = "val") -> Localization:
    """The images of a split of an ILSVRC folder; ``DataError`` where the layout is not there."""
    root = root_of(Path(folder))
    if root is None:
        raise DataError(f"{folder} is not laid out like ILSVRC; give the folder that holds {_PHOTOGRAPHS} and {_ANNOTATIONS}.")
    return Localization(find_images(root / _PHOTOGRAPHS / split), root / _ANNOTATIONS / split)


def read_annotation(path: Path) -> Annotation:
    """Size, synset and boxes of one XML file; see :func:`parse_annotation`."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:  # a zero byte in a name is a ValueError
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', error)}.") from None
    return parse_annotation(text, str(path))


def parse_annotation(text: bytes, path: str) -> Annotation:
    """Size, synset and boxes of an XML in ILSVRC's or VOC's form; ``path`` names it in what is said of it.

    Where an XML lists objects of several classes, the first object's class counts, for ILSVRC gives every image one;
    the others are in ``objects``. Raises ``DataError`` with one sentence where it is broken.
    """
    # A doctype is where entity bombs live, and no annotation has one; zero bytes would hide it in UTF-16.
    if len(text) > _MOST_BYTES or b"<!DOCTYPE" in text or b"<!ENTITY" in text or b"\0" in text:
        raise DataError(f"{path} is not an annotation of ILSVRC.")
    try:
        document = ET.fromstring(text)  # noqa: S314 (no doctype, see above)
    except (ET.ParseError, ValueError, LookupError):  # LookupError: an encoding that does not exist
        raise DataError(f"{path} is not whole XML.") from None

    def number(element: ET.Element, place: str) -> int:
        return int(float(element.findtext(place) or "missing"))

    try:
        size = number(document, "size/width"), number(document, "size/height")
        objects = [
            (one.findtext("name") or "", tuple(number(one, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")))
            for one in document.findall("object")
        ]
    except (ValueError, OverflowError):
        raise DataError(f"{path} lacks a number for its size or a box.") from None
    if min(size) < 1 or max(size) > _MOST_PIXELS:
        raise DataError(f"{path} gives the photograph a size of {size[0]} x {size[1]}.")
    if not objects or not objects[0][0]:
        raise DataError(f"{path} names no object.")
    by_name: dict[str, tuple[tuple[int, int, int, int], ...]] = {}
    for name, (x0, y0, x1, y1) in objects:
        if x1 < x0 or y1 < y0 or x1 < 0 or y1 < 0 or x0 >= size[0] or y0 >= size[1] or max(map(abs, (x0, y0, x1, y1))) > _MOST_PIXELS:
            raise DataError(f"{path} has a box {(x0, y0, x1, y1)} that is empty or outside {size[0]} x {size[1]} pixels.")
        by_name[name.strip()] = (*by_name.get(name.strip(), ()), (x0, y0, x1, y1))
    first = next(iter(by_name))
    return Annotation(size, first, by_name[first], by_name)


class Ilsvrc:
    """Boxes; the object is the image's one class."""

    layout = "ILSVRC boxes"
    broken: tuple[str, ...] = ()

    def __init__(self, folder: str | Path, classes: Classes, geometry: InputGeometry) -> None:
        self._data, self._classes, self._geometry = open_ilsvrc(folder), classes, geometry
        if not classes.synsets:
            raise DataError("the classes of this network have no WordNet synsets, by which ILSVRC names its objects.")
        self.images = self._data.images

    def objects(self, name: str, image: Image.Image, probabilities: Tensor) -> Iterator[AnnotatedObject]:
        annotation = self._data.annotation(name).upright(image.size, exif_orientation(image), f"the annotation of {name}")
        # Of several objects, as VOC lists them, the first that the network knows.
        known = next((one for one in annotation.objects if one in self._classes.synsets), None)
        annotation = annotation if known is None else annotation.of(known)
        if annotation.synset not in self._classes.synsets:
            yield AnnotatedObject(annotation.synset, skip="class unknown to the network")
            return
        boxes = boxes_in_view(annotation.boxes, annotation.size, image.size, self._geometry)
        target = self._classes.synsets.index(annotation.synset)
        yield visible_object(annotation.synset, target, mask_of_boxes(boxes, self._geometry.shape), boxes)


register(DataSet("ILSVRC", Ilsvrc, lambda folder: root_of(folder) is not None, order=10, masks=False))
