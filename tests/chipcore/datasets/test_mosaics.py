"""Mosaics are drawn by seed, from distinct classes, and look at no more images than they need."""

from __future__ import annotations

from pathlib import Path

import pytest
from color_world import RED, patch, save_png

from chipcore.datasets.class_names import Classes
from chipcore.datasets.mosaics import ClassFolders, draw_mosaics, open_class_folders
from chipcore.errors import DataError

CLASSES = Classes(tuple(f"class {i}" for i in range(6)))


@pytest.fixture
def folders(tmp_path: Path) -> ClassFolders:
    for i in range(6):
        for number in range(3):
            save_png(patch(RED, (0, 0, 1, 1)), tmp_path / f"class_{i}" / f"{number}.png")
    save_png(patch(RED, (0, 0, 1, 1)), tmp_path / "unheard of" / "0.png")
    return open_class_folders(tmp_path, CLASSES)


def test_folders_are_classes_by_name(folders: ClassFolders, tmp_path: Path) -> None:
    assert set(folders.by_class) == set(range(6)) and folders.unknown == ("unheard of",)
    with pytest.raises(DataError, match="no folder named after a class"):
        open_class_folders(tmp_path / "unheard of", CLASSES)


def test_mosaics_have_distinct_classes_and_only_usable_images(folders: ClassFolders) -> None:
    looked: list[str] = []

    def usable(name: str, index: int) -> bool:
        looked.append(name)
        return not name.endswith("1.png") and index != 5

    mosaics = list(draw_mosaics(folders, usable, range(6), 2, 40, seed=3))
    assert len(mosaics) == 40
    for mosaic in mosaics:
        assert len(set(mosaic.targets)) == 4 and 5 not in mosaic.targets and not any(name.endswith("1.png") for name in mosaic.names)
        assert all(name in folders.by_class[target] for name, target in zip(mosaic.names, mosaic.targets, strict=True))
    assert len(looked) == len(set(looked))  # each is asked about once
    again = list(draw_mosaics(folders, lambda name, index: not name.endswith("1.png") and index != 5, range(6), 2, 40, seed=3))
    assert again == mosaics


def test_one_mosaic_looks_at_four_images(folders: ClassFolders) -> None:
    looked: list[str] = []
    next(draw_mosaics(folders, lambda name, _index: looked.append(name) is None, range(6), 2, 500, seed=0))
    assert len(looked) == 4


def test_too_few_classes_give_no_mosaic(folders: ClassFolders) -> None:
    assert list(draw_mosaics(folders, lambda _name, index: index < 3, range(6), 2, 5, seed=0)) == []
