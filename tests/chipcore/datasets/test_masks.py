"""ADE20K's three layouts and COCO's panoptic masks, made by hand and as they really come."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from color_world import RED, patch, save_png

from chipcore.datasets.ade20k import OBJECTS, SCENES, open_ade20k, scene_key
from chipcore.datasets.class_names import imagenet
from chipcore.datasets.coco import CATEGORIES, open_coco, synsets_of
from chipcore.errors import DataError


def image(path: Path) -> None:
    save_png(patch(RED, (0, 0, 3, 3)), path.with_suffix(".png.png"))
    path.with_suffix(".png.png").rename(path)


def segments(number: int, box: tuple[int, int, int, int]) -> np.ndarray:
    inside = patch(RED, box)[..., 0] > 0
    colors = np.zeros((16, 16, 3), np.uint8)
    colors[inside] = (number // 256 * 10 + 3, number % 256, 77)  # R has room for what is not the number, B is the instance
    return colors


def test_scenes_in_one_spelling() -> None:
    assert scene_key("/b/bedroom 52") == scene_key("bedroom") == "bedroom"
    assert scene_key("/c/church/outdoor 91") == scene_key("church/outdoor") == "church outdoor"
    assert scene_key("mountain_snowy") == "mountain snowy" and scene_key("aiport_terminal") == "airport terminal"


def test_the_table_names_objects_that_we_have_numbers_for(data: Path) -> None:
    assert all(name in OBJECTS for objects in SCENES.values() for name in objects)
    places = {scene_key(line) for line in (data / "networks/categories_places365.txt").read_text().splitlines()}
    assert set(SCENES) <= places
    # The numbers are those of the releases.
    lines = [line.split() for line in (data / "ade20k/sceneparsing/convertFromADE/mapFromADE.txt").read_text().splitlines()]
    released = {(int(line[0]), int(line[1])) for line in lines if len(line) == 2}
    assert {numbers for numbers in OBJECTS.values() if numbers != (0, 0)} <= released
    names = dict(line.split(",", 1) for line in (data / "ade20k/sceneparsing/objectInfo150.csv").read_text().splitlines())
    for name, (number, _full) in OBJECTS.items():
        if number:
            assert name.split()[0] in names[str(number)], name


def test_the_2016_layout(tmp_path: Path) -> None:
    folder = tmp_path / "images/training/c/church/outdoor"
    image(folder / "ADE_train_1.jpg")
    save_png(segments(OBJECTS["building"][1], (1, 2, 4, 3)), folder / "ADE_train_1_seg.png")
    save_png(segments(1, (0, 0, 1, 1)), folder / "ADE_train_2_seg.png")  # its image is lost
    found = open_ade20k(tmp_path)
    (item,) = found.items.values()
    assert item.layout == "2016" and item.scene == "church outdoor" and len(found.broken) == 1 and "ADE_train_2" in found.broken[0]
    assert item.mask(("building",)).sum() == 8 and not item.mask(("bed",)).any()


def test_the_2021_layout_finds_objects_by_name_too(tmp_path: Path) -> None:
    folder = tmp_path / "images/ADE/training/nature/valley"
    image(folder / "ADE_train_1.jpg")
    save_png(segments(3000, (1, 2, 4, 3)), folder / "ADE_train_1_seg.png")
    objects = [
        {"name": "valley, vale", "name_ndx": 3000, "parts": {"part_level": 0}},
        {"name": "valley", "name_ndx": 0, "parts": {"part_level": 1}},
    ]
    (folder / "ADE_train_1.json").write_text(json.dumps({"annotation": {"scene": ["outdoor", "valley"], "object": objects}}))
    image(folder / "ADE_train_2.jpg")
    save_png(segments(3000, (1, 2, 4, 3)), folder / "ADE_train_2_seg.png")
    (folder / "ADE_train_2.json").write_text('{"annotation": ')
    found = open_ade20k(tmp_path)
    (item,) = found.items.values()
    assert item.layout == "2021" and item.scene == "valley" and item.mask(("valley",)).sum() == 8
    assert len(found.broken) == 1 and "ADE_train_2.json" in found.broken[0]


def test_sceneparse150(tmp_path: Path) -> None:
    image(tmp_path / "images/validation/ADE_val_1.jpg")
    save_png((patch(RED, (0, 0, 1, 0))[..., 0] > 0).astype(np.uint8) * 8, tmp_path / "annotations/validation/ADE_val_1.png")
    (item,) = open_ade20k(tmp_path).items.values()
    assert item.layout == "SceneParse150" and item.scene == "" and item.mask(("bed",)).sum() == 2 and not item.mask(("valley",)).any()
    (tmp_path / "annotations/validation/ADE_val_1.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="not a whole PNG"):
        item.mask(("bed",))


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    for opener in (open_ade20k, open_coco):
        with pytest.raises(DataError):
            opener(tmp_path)


def test_the_real_scenes(data: Path) -> None:
    found = open_ade20k(data / "ade20k")
    by_name = {Path(name).stem: item for name, item in found.items.items()}
    street = by_name["ADE_train_00016869"]
    assert street.layout == "2021" and street.scene == "street" and street.mask(("road",)).mean() == pytest.approx(0.367, abs=0.001)
    assert by_name["ADE_train_00000001"].scene == "airport terminal" and by_name["ADE_val_00000001"].scene == "abbey"
    assert by_name["ADE_val_00000003"].layout == "SceneParse150" and by_name["ADE_val_00000003"].mask(("road",)).mean() > 0.2


def test_coco_categories_are_classes_of_imagenet() -> None:
    assert all(synset in imagenet().synsets for name in CATEGORIES for synset in synsets_of(name))
    assert len(synsets_of("dog")) == 118 and len(synsets_of("bird")) == 59 and len(synsets_of("cat")) == 5 and synsets_of("person") == ()
    # A class is a kind of one thing only.
    every = [synset for name in CATEGORIES for synset in synsets_of(name)]
    assert len(every) == len(set(every))


def coco_folder(root: Path) -> Path:
    image(root / "images/coco_000000000007.jpg")
    image(root / "images/coco_000000000008.jpg")  # without a mask
    colors = np.zeros((16, 16, 3), np.uint8)
    colors[0, :4] = (1, 2, 3)
    colors[1, :2] = (9, 0, 0)
    save_png(colors, root / "panoptic_train/coco_000000000007.png")
    segments_info = [{"id": 1 + 2 * 256 + 3 * 65536, "category_id": 24}, {"id": 9, "category_id": 24}]
    annotation = {"image_id": 7, "file_name": "000000000007.png", "segments_info": segments_info}
    (root / "json").mkdir()
    (root / "json/coco_panoptic_train.json").write_text(
        json.dumps({"categories": [{"id": 24, "name": "zebra"}], "annotations": [annotation]})
    )
    return root


def test_segments_of_one_category_are_one_mask(tmp_path: Path) -> None:
    found = open_coco(coco_folder(tmp_path))
    assert found.images.names == ("images/coco_000000000007.jpg",)
    assert found.masks_of(found.images.names[0])["zebra"].sum() == 6


def test_a_broken_panoptic_json(tmp_path: Path) -> None:
    (coco_folder(tmp_path) / "json/coco_panoptic_train.json").write_text("{}")
    with pytest.raises(DataError, match="not a whole panoptic annotation"):
        open_coco(tmp_path)


def test_the_real_coco_images(data: Path) -> None:
    found = open_coco(data / "coco128")
    assert len(found.images) == 100
    masks = found.masks_of("images/coco_000000000034.jpg")
    assert masks["zebra"].mean() == pytest.approx(0.3415, abs=1e-3)
