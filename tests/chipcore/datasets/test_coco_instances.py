"""COCO's instance annotations: polygons, run lengths and boxes become the same pixels as counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chipcore.datasets.coco_instances import object_mask, open_instances
from chipcore.errors import DataError


def pack(lengths: list[int]) -> str:
    """Run lengths as pycocotools packs them, after its C code."""
    text = ""
    for place, length in enumerate(lengths):
        x = length - lengths[place - 2] if place > 2 else length
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = x != -1 if c & 0x10 else x != 0
            text += chr((c | 0x20 if more else c) + 48)
    return text


def lengths_of(mask: np.ndarray) -> list[int]:
    """Down the columns, beginning with the number of zeros."""
    runs, current = [0], False
    for value in mask.T.flatten():
        if value != current:
            runs.append(0)
            current = value
        runs[-1] += 1
    return runs


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("packed", [False, True])
def test_run_lengths(seed: int, packed: bool) -> None:
    mask = np.random.default_rng(seed).random((37, 61)) < (0.5, 0.02, 0.98, 0)[seed]
    counts = lengths_of(mask)
    shape = {"size": [37, 61], "counts": pack(counts) if packed else counts}
    assert (object_mask({"segmentation": shape}, (61, 37)) == mask).all()


def test_polygons_and_boxes() -> None:
    expected = np.zeros((20, 30), dtype=bool)
    expected[2:9, 4:14] = True
    assert (object_mask({"segmentation": [[4, 2, 14, 2, 14, 9, 4, 9]]}, (30, 20)) == expected).all()
    assert (object_mask({"segmentation": [], "bbox": [4, 2, 10, 7]}, (30, 20)) == expected).all()
    expected[15:20, 25:30] = True  # a second piece, cut off at the border
    both = {"segmentation": [[4, 2, 14, 2, 14, 9, 4, 9], [25, 15, 99, 15, 99, 99, 25, 99]]}
    assert (object_mask(both, (30, 20)) == expected).all()


@pytest.mark.parametrize("shape", [
    {"counts": [3, 4], "size": [20, 30]}, {"counts": [-1, 601], "size": [20, 30]}, {"counts": [600], "size": [30, 20]}, [["a", "b"]], {"size": 1},
    {"counts": "\x00\x01"}, [[1, 2, 3]],
])  # fmt: skip
def test_what_is_not_whole_is_named(shape: object, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg")
    (tmp_path / "instances.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "x/a.jpg", "width": 30, "height": 20}], "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": shape}],
    }))  # fmt: skip
    with pytest.raises(DataError, match=r"a\.jpg is not whole"):
        open_instances(tmp_path).masks_of("a.jpg")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"images": [{"id": "x"}], "categories": [], "annotations": []}'])
def test_broken_files_are_named(text: str, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg")
    (tmp_path / "instances_val.json").write_text(text)
    with pytest.raises(DataError, match="not a whole instance annotation"):
        open_instances(tmp_path)
