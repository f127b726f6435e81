"""ILSVRC's localization layout: images in ``Data/CLS-LOC``, their boxes in ``Annotations/CLS-LOC``.

    DIR/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG
    DIR/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml

Boxes are counted from 0 with both ends inside, in pixels of the XML's ``<size>``; images that were
resized since keep the XML of the original.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.errors import DataError

_PHOTOGRAPHS, _ANNOTATIONS = Path("Data", "CLS-LOC"), Path("Annotations", "CLS-LOC")
_MOST_BYTES = 1 << 20  # the largest XML of ILSVRC has 30 kB
_MOST_PIXELS = 1 << 20  # on a side


@dataclass(frozen=True)
class Annotation:
    """What an XML says: the size (width, height) that its boxes refer to, the synset, and that synset's boxes."""

    size: tuple[int, int]
    synset: str
    boxes: tuple[tuple[int, int, int, int], ...]


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

    Where an XML lists objects of several classes, those of the first object's class count: ILSVRC gives every
    image one class. Raises ``DataError`` with one sentence where it is broken.
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
    synset = objects[0][0].strip()
    boxes = tuple((x0, y0, x1, y1) for name, (x0, y0, x1, y1) in objects if name.strip() == synset)
    for x0, y0, x1, y1 in boxes:
        if x1 < x0 or y1 < y0 or x1 < 0 or y1 < 0 or x0 >= size[0] or y0 >= size[1] or max(map(abs, (x0, y0, x1, y1))) > _MOST_PIXELS:
            raise DataError(f"{path} has a box {(x0, y0, x1, y1)} that is empty or outside {size[0]} x {size[1]} pixels.")
    return Annotation(size, synset, boxes)
