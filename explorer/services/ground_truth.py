"""Where the object really is: boxes of the gallery, of an XML file, or drawn by the visitor. Pure functions, no Streamlit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chipcore.datasets.annotations import Box, box_to_view, boxes_in_view
from chipcore.datasets.class_names import Classes
from chipcore.datasets.coco import synsets_of
from chipcore.datasets.ilsvrc import Annotation, parse_annotation
from chipcore.errors import DataError
from chipcore.images import InputGeometry


@dataclass(frozen=True)
class Truth:
    """True boxes on a network's view, shape (m, 4), m >= 1, and what they are around."""

    boxes: np.ndarray
    what: str


# Drawn by hand around one object of each image of the gallery, in its own pixels, both ends inside.
GALLERY: dict[str, tuple[str, Annotation]] = {
    "cat": ("the cat", Annotation((451, 300), "n02124075", ((0, 0, 399, 299),))),
    "coffee": ("the cup", Annotation((600, 400), "n07920052", ((172, 16, 407, 304),))),
    "camera": ("the tripod with its camera", Annotation((512, 512), "n04485082", ((229, 138, 409, 511),))),
    "motorcycle": ("the motorcycle", Annotation((741, 500), "n03785016", ((93, 74, 684, 453),))),
    "rocket": ("the rocket", Annotation((640, 427), "n03773504", ((311, 132, 335, 405),))),
    "astronaut": ("the model shuttle", Annotation((512, 512), "n04266014", ((362, 0, 465, 284),))),
}


def from_gallery(name: str, geometry: InputGeometry) -> Truth | None:
    """The box that comes with a image of the gallery, on the network's view; None where there is none in view."""
    if name not in GALLERY:
        return None
    what, annotation = GALLERY[name]
    boxes = to_view(annotation, annotation.size, geometry)
    return Truth(boxes, what) if len(boxes) else None


def objects_in(content: bytes, name: str) -> list[str]:
    """The names of the objects in an XML, each once, in its order; raises as :func:`from_voc_xml`."""
    return list(parse_annotation(content, name).objects)


def object_of_class(names: Sequence[str], classes: Classes, target: int) -> str:
    """The one of an XML's objects that is of a class: by synset, by name, or as COCO's categories say; '' where none or several are."""
    synset = classes.synsets[target] if classes.synsets else ""
    told = f"{classes.names[target]}, {classes.labels[target]}".lower()
    words = {*(part.strip() for part in told.split(",")), *re.findall(r"\w+", told), synset}
    found = [name for name in names if name.lower() in words or (synset and synset in synsets_of(name.lower()))]
    return found[0] if len(found) == 1 else ""


def from_voc_xml(
    content: bytes, name: str, image: tuple[int, int], geometry: InputGeometry, *, orientation: int = 1, chosen: str = ""
) -> Truth:  # fmt: skip
    """The boxes of an XML in ILSVRC's or VOC's form for an upright image of size (width, height).

    ``orientation`` is EXIF's, by which the image was turned, and ``chosen`` the object where the XML has several. Raises
    ``DataError`` with one sentence where it is broken, where one of several objects has to be chosen, or where its boxes lie
    outside what the network sees.
    """
    annotation = parse_annotation(content, name).upright(image, orientation, name)
    if len(annotation.objects) > 1:
        if chosen not in annotation.objects:
            raise DataError(f"{name} has several objects ({', '.join(annotation.objects)}); choose one.")
        annotation = annotation.of(chosen)
    boxes = to_view(annotation, image, geometry)
    if not len(boxes):
        raise DataError(f"the boxes of {name} lie outside the part of the photograph that the network sees.")
    return Truth(boxes, f"{annotation.synset}, as {name} says")


def to_view(annotation: Annotation, image: tuple[int, int], geometry: InputGeometry) -> np.ndarray:
    """An annotation's boxes on the network's view, shape (m, 4); those outside a crop are left out."""
    return boxes_in_view(annotation.boxes, annotation.size, image, geometry)


def to_other_view(box: Box, image: tuple[int, int], drawn: InputGeometry, geometry: InputGeometry) -> Box | None:
    """A box that was drawn on one network's view, on another's; None where that one does not see it.

    Args:
        box: on the view it was drawn on, both ends inside.
        image: width and height of the image.
        drawn: how the image became that view.
        geometry: how it becomes the other one.
    """
    side = drawn.size
    if drawn.fit == "squash":
        return box_to_view(box, (side, side), image, geometry)
    cut = min(image) * drawn.size / drawn.resize  # pixels of the image on a side of the square that the crop keeps
    left, top = ((whole - cut) / 2 for whole in image)
    ends = [start + edge * cut / side for start, edge in ((left, box[0]), (top, box[1]), (left, box[2] + 1), (top, box[3] + 1))]
    x0, y0, x1, y1 = (round(end) for end in ends)
    return box_to_view((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), image, image, geometry)


def problem_of(box: Sequence[int], size: int) -> str:
    """What is wrong with a box on a view of ``size`` pixels; empty where nothing is."""
    x0, y0, x1, y1 = box
    if min(box) < 0 or max(box) >= size:
        return f"The box reaches outside the picture; its sides lie between 0 and {size - 1}."
    if x1 < x0 or y1 < y0:
        return "This box has no area: its right side must not lie left of its left one, nor its bottom above its top."
    return ""


def read_box(text: str, size: int) -> Box | None:
    """A box from a link, ``"x0,y0,x1,y1"``; None where it is none, or not inside a view of ``size`` pixels."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        return None
    x0, y0, x1, y1 = (int(part) for part in parts)
    return None if problem_of((x0, y0, x1, y1), size) else (x0, y0, x1, y1)


def from_drag(sent: Sequence[object], size: int) -> Box | None:
    """The box that a browser sent after a drag; None for anything else it may have sent."""
    if len(sent) != 4 or not all(isinstance(one, (int, float)) and 0 <= one < 1e6 for one in sent):
        return None
    return read_box(",".join(str(int(one)) for one in sent), size)  # type: ignore[call-overload]
