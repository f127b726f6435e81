"""Boxes from an XML file (turned by EXIF; of the chosen class), and a box that was drawn on one network's view, on another's."""

from __future__ import annotations

import numpy as np
import pytest

from chipcore.datasets.class_names import Classes, imagenet
from chipcore.errors import DataError
from chipcore.images import InputGeometry
from explorer.services import ground_truth
from explorer.services.ground_truth import to_other_view

GEOMETRY = InputGeometry(size=300, resize=300, fit="squash")


def xml(size: tuple[int, int], *objects: tuple[str, tuple[int, ...]]) -> bytes:
    listed = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b in objects
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{listed}</annotation>".encode()


def test_stored_and_upright_annotations_give_the_same_box() -> None:
    """The cat's face of ``turned_by_exif.jpg``: 200 x 300 as stored, 300 x 200 as seen."""
    stored = xml((200, 300), ("cat", (10, 79, 170, 199)))
    upright = xml((300, 200), ("cat", (100, 10, 220, 170)))
    boxes = [ground_truth.from_voc_xml(one, "it.xml", (300, 200), GEOMETRY, orientation=6).boxes for one in (stored, upright)]
    assert boxes[0].tolist() == boxes[1].tolist() == [[100, 15, 220, 256]]
    with pytest.raises(DataError, match="does not tell"):
        ground_truth.from_voc_xml(upright, "it.xml", (300, 200), GEOMETRY, orientation=3)


def test_of_several_objects_the_chosen_class_counts_or_is_asked_for() -> None:
    content = xml((300, 200), ("person", (0, 0, 60, 199)), ("cat", (100, 10, 220, 170)), ("dog", (0, 0, 9, 9)))
    names = ground_truth.objects_in(content, "two.xml")
    assert names == ["person", "cat", "dog"]
    with pytest.raises(DataError, match=r"several objects \(person, cat, dog\); choose one"):
        ground_truth.from_voc_xml(content, "two.xml", (300, 200), GEOMETRY)
    assert np.array_equal(ground_truth.from_voc_xml(content, "two.xml", (300, 200), GEOMETRY, chosen="cat").boxes, [[100, 15, 220, 256]])
    classes = imagenet()
    for wanted, expected in (("tabby", "cat"), ("n02123045", "cat"), ("beagle", "dog"), ("zebra", "")):
        assert ground_truth.object_of_class(names, classes, classes.index(wanted)) == expected
    own = Classes(("Cat", "traffic light", "sign"))
    assert ground_truth.object_of_class(names, own, 0) == "cat"
    assert ground_truth.object_of_class(["stop sign", "sign"], own, 2) == "sign"
    assert ground_truth.object_of_class(["cat", "Cat"], own, 0) == "", "two that fit: ask"


SQUASH, SMALL, CROP = InputGeometry(224, "squash", 224), InputGeometry(112, "squash", 112), InputGeometry(200, "crop", 250)


def test_a_drawn_box_scales_with_the_view() -> None:
    assert to_other_view((40, 20, 99, 199), (640, 480), SQUASH, SMALL) == (20, 10, 49, 99)
    assert to_other_view((40, 20, 99, 199), (640, 480), SQUASH, SQUASH) == (40, 20, 99, 199)


def test_a_cropping_network_sees_its_part_of_the_box() -> None:
    # 500 x 250 pixels: the crop keeps the middle 200 x 200, x from 150 to 350 and y from 25 to 225.
    squash = InputGeometry(250, "squash", 250)
    assert to_other_view((0, 0, 249, 249), (500, 250), squash, CROP) == (0, 0, 199, 199)
    assert to_other_view((0, 0, 19, 19), (500, 250), squash, CROP) is None, "left of the crop"
    assert to_other_view((50, 0, 99, 59), (500, 250), CROP, squash) == (100, 25, 124, 84)


@pytest.mark.parametrize("image", [(640, 480), (301, 1003)])
def test_there_and_back_is_the_same_box_to_a_pixel(image: tuple[int, int]) -> None:
    there = to_other_view((60, 70, 120, 150), image, CROP, SQUASH)
    assert there is not None
    back = to_other_view(there, image, SQUASH, CROP)
    assert back is not None and np.abs(np.subtract(back, (60, 70, 120, 150))).max() <= 2
