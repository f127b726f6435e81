"""Photographs that EXIF turns, annotated on the pixels as stored or on the upright picture: the object is where it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from chipcore.datasets.annotations import AnnotatedObject, Source
from chipcore.datasets.class_names import imagenet
from chipcore.datasets.orientation import turn_box, turn_size
from chipcore.datasets.registry import open_dataset, open_mask_dataset
from chipcore.errors import DataError
from chipcore.images import InputGeometry, open_image

GEOMETRY = InputGeometry(size=60, resize=60, fit="squash")
SIZE, BOX = (40, 30), (5, 3, 19, 11)  # of the stored pixels
CAT = "n02124075"


def stored_mask() -> np.ndarray:
    mask = np.zeros(SIZE[::-1], dtype=bool)
    mask[BOX[1] : BOX[3] + 1, BOX[0] : BOX[2] + 1] = True
    return mask


def turned(picture: Image.Image, orientation: int) -> Image.Image:
    """By Pillow, which is what turns the photograph."""
    picture.getexif()[0x0112] = orientation
    return ImageOps.exif_transpose(picture)


def save_photo(path: Path, orientation: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, "gray").save(path, "JPEG", exif=exif)


def xml(size: tuple[int, int], *objects: tuple[str, tuple[int, ...]]) -> str:
    listed = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b in objects
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{listed}</annotation>"


def ilsvrc(folder: Path, orientation: int, size: tuple[int, int], box: tuple[int, ...], photo: tuple[int, int] = SIZE) -> Source:
    save_photo(folder / "Data/CLS-LOC/val/a.JPEG", orientation, photo)
    (folder / "Annotations/CLS-LOC/val").mkdir(parents=True)
    (folder / "Annotations/CLS-LOC/val/a.xml").write_text(xml(size, (CAT, box)))
    found = open_dataset(folder, imagenet(), GEOMETRY)
    assert found is not None
    return found


def panoptic(folder: Path, orientation: int, mask: np.ndarray) -> Source:
    save_photo(folder / "000000000001.jpg", orientation)
    Image.fromarray(np.stack([mask, 0 * mask, 0 * mask], -1).astype(np.uint8)).save(folder / "000000000001.png")
    (folder / "panoptic.json").write_text(json.dumps({
        "categories": [{"id": 17, "name": "cat"}],
        "annotations": [{"file_name": "000000000001.png", "segments_info": [{"id": 1, "category_id": 17}]}],
    }))  # fmt: skip
    (folder / "panoptic").mkdir()
    (folder / "000000000001.png").rename(folder / "panoptic" / "000000000001.png")
    return open_mask_dataset(folder, imagenet(), GEOMETRY)


def instances(folder: Path, orientation: int, mask: np.ndarray) -> Source:
    save_photo(folder / "000000000001.jpg", orientation)
    x, y = (int(np.flatnonzero(mask.any(axis))[0]) for axis in (0, 1))
    w, h = (int(mask.any(axis).sum()) for axis in (0, 1))
    (folder / "instances_val.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "000000000001.jpg", "width": mask.shape[1], "height": mask.shape[0]}],
        "categories": [{"id": 17, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 17, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}],
    }))  # fmt: skip
    return open_mask_dataset(folder, imagenet(), GEOMETRY)


def found_in(source: Source) -> AnnotatedObject:
    (name,) = source.images.names
    (one,) = source.objects(name, open_image(source.images.root / name), torch.zeros(1000))
    return one


def expected(orientation: int) -> np.ndarray:
    upright = turned(Image.fromarray(stored_mask().astype(np.uint8) * 255), orientation)
    return np.asarray(upright.resize((60, 60), Image.Resampling.NEAREST)) > 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_as_pixels_do(orientation: int) -> None:
    mask = np.asarray(turned(Image.fromarray(stored_mask()), orientation))
    x0, y0, x1, y1 = turn_box(BOX, SIZE, orientation)
    again = np.zeros(turn_size(SIZE, orientation)[::-1], dtype=bool)
    again[y0 : y1 + 1, x0 : x1 + 1] = True
    assert (again == mask).all()


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("made_on", ["stored", "upright"])
def test_where_the_sides_are_swapped_the_size_tells(orientation: int, made_on: str, tmp_path: Path) -> None:
    turn = orientation if made_on == "stored" else 1
    upright = np.asarray(turned(Image.fromarray(stored_mask()), orientation))
    mask = stored_mask() if made_on == "stored" else upright
    size, box = (SIZE, BOX) if turn != 1 else (turn_size(SIZE, orientation), turn_box(BOX, SIZE, orientation))
    of_boxes = found_in(ilsvrc(tmp_path / "boxes", orientation, size, box))
    assert of_boxes.mask is not None and (of_boxes.mask == expected(orientation)).mean() > 0.99
    for kind, make in (("panoptic", panoptic), ("instances", instances)):
        (tmp_path / kind).mkdir()
        found = found_in(make(tmp_path / kind, orientation, mask))
        assert found.mask is not None and (found.mask == expected(orientation)).all(), kind


Case = Callable[[Path], Source]


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda folder: ilsvrc(folder, 3, SIZE, BOX), "does not tell"),  # upside down: the size is the same
    (lambda folder: ilsvrc(folder, 6, (30, 30), BOX, (30, 30)), "does not tell"),
    (lambda folder: ilsvrc(folder, 1, SIZE[::-1], BOX), "does not say how it was turned"),
])  # fmt: skip
def test_where_nothing_tells_it_is_said(make: Case, sentence: str, tmp_path: Path) -> None:
    source = make(tmp_path)
    with pytest.raises(DataError, match=f"annotation of a.JPEG.*{sentence}|{sentence}"):
        found_in(source)


def test_of_several_objects_the_first_that_the_network_knows(tmp_path: Path) -> None:
    source = ilsvrc(tmp_path, 1, SIZE, BOX)
    file = tmp_path / "Annotations/CLS-LOC/val/a.xml"
    file.write_text(xml(SIZE, ("person", (0, 0, 3, 3)), (CAT, BOX), (CAT, (30, 20, 35, 25))))
    found = found_in(source)
    assert found.name == CAT and found.boxes is not None and len(found.boxes) == 2
