"""Which paths of this machine the browser may name: only those in allowed folders, whatever they are spelt like."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from chipcore.errors import DataError
from explorer.services import allowed_paths


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An allowed folder with one below it, beside a secret one; links lead out of it."""
    for folder in ("shop/cats", "shop-secret", "secret"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "one.png")
    (tmp_path / "secret" / "w.pth").write_bytes(b"")
    (tmp_path / "shop" / "w.pth").write_bytes(b"")
    (tmp_path / "shop" / "way-out").symlink_to(tmp_path / "secret")
    (tmp_path / "shop" / "cats" / "linked.png").symlink_to(tmp_path / "secret" / "one.png")
    monkeypatch.setenv(allowed_paths.FOLDERS, f"{tmp_path / 'shop'}{os.pathsep}{tmp_path / 'gone'}")
    return tmp_path / "shop"


def test_what_is_inside_is_found_by_any_of_its_names(shop: Path) -> None:
    for name in (str(shop / "cats"), "cats", "shop/cats", f"{shop}/cats/../cats", " cats "):
        assert allowed_paths.resolve(name) == shop / "cats"
    assert allowed_paths.folders() == [str(shop), str(shop / "cats")]
    assert allowed_paths.short(str(shop / "cats")) == "shop/cats"
    assert allowed_paths.files((".pth",)) == [str(shop / "w.pth")]


@pytest.mark.parametrize(
    "name",
    [
        "/",
        "/etc/passwd",
        "../secret",
        "{shop}/../secret",
        "{shop}-secret",
        "{shop}/way-out",
        "way-out/w.pth",
        "",
        "~",
        "a\0b",
        "x" * 9000,
        "none",
    ],
)
def test_what_is_outside_is_refused_like_what_does_not_exist(shop: Path, name: str) -> None:
    with pytest.raises(DataError, match="not in the folders that this app may read"):
        allowed_paths.resolve(name.format(shop=shop))


def test_links_to_images_outside_are_left_out(shop: Path) -> None:
    assert allowed_paths.images("cats").names == ("one.png",)
    (shop / "cats" / "one.png").unlink()
    with pytest.raises(DataError, match="no photographs that this app may read"):
        allowed_paths.images("cats")
    with pytest.raises(DataError, match=r"not a file that ends in \.txt"):
        allowed_paths.file("w.pth", (".txt",))


def test_nothing_is_allowed_unless_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for value in (None, "", os.pathsep, str(tmp_path / "gone")):
        monkeypatch.delenv(allowed_paths.FOLDERS, raising=False) if value is None else monkeypatch.setenv(allowed_paths.FOLDERS, value)
        assert allowed_paths.roots() == [] == allowed_paths.folders()
        with pytest.raises(DataError):
            allowed_paths.resolve(str(tmp_path))
