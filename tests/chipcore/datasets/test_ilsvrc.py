"""ILSVRC's layout: what a good annotation says, and one sentence for every bad one."""

from __future__ import annotations

from pathlib import Path

import pytest
from color_world import xml

from chipcore.datasets.ilsvrc import open_ilsvrc, read_annotation
from chipcore.errors import DataError


def test_an_annotation_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(xml("n01", [(0, 1, 2, 3), (4, 5, 6, 7)], size=(500, 375)))
    found = read_annotation(path)
    assert found.size == (500, 375) and found.synset == "n01" and found.boxes == ((0, 1, 2, 3), (4, 5, 6, 7))


def test_only_boxes_of_the_first_class_count(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(xml("n01", [(0, 0, 1, 1)]).replace("</annotation>", xml("n02", [(0, 0, 1, 1)]).split("</size>")[1]))
    assert len(read_annotation(path).boxes) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not whole XML"), ("<annotation>", "not whole XML"), ("<annotation/>", "lacks a number"),
        (xml("n01", []), "names no object"), (xml("", [(0, 0, 1, 1)]), "names no object"), (xml("n01", [(5, 0, 1, 1)]), "is empty or outside"),
        (xml("n01", [(90, 0, 95, 5)]), "is empty or outside"), (xml("n01", [(0, 0, 1, 1)], size=(0, 5)), "a size of 0 x 5"),
        (xml("n01", [(0, 0, 1, 1)]).replace("<xmax>1", "<xmax>wide"), "lacks a number"), ("<!DOCTYPE a><annotation/>", "not an annotation"),
        (xml("n01", [(0, 0, 1, 1)]).replace("<xmax>1", "<xmax>inf"), "lacks a number"),
    ],
)  # fmt: skip
def test_a_broken_annotation_is_one_sentence_with_its_name(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as error:
        read_annotation(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_annotation_and_another_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        read_annotation(tmp_path / "a.xml")
    with pytest.raises(DataError, match="not laid out like ILSVRC"):
        open_ilsvrc(tmp_path)


def test_the_real_images_have_boxes_of_one_class(data: Path) -> None:
    found = open_ilsvrc(data / "ilsvrc_val_dev")
    assert len(found.images) == 650
    first = found.annotation("ILSVRC2012_val_00000347.JPEG")
    assert first.size == (500, 375) and first.synset == "n02951358" and len(first.boxes) == 8 and first.boxes[0] == (20, 175, 111, 292)
    assert all(found.annotation(name).boxes for name in found.images.names[::50])
