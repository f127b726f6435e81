"""Folders of images with nothing, little, too much or something else in them, through ``fit``."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from refusals import SLIM, load_once, said

from chipcore import Network, fit
from chipcore.cli.main import main
from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.datasets.image_set import batches
from chipcore.errors import DataError
from chipcore.fitting.pipeline import Progress
from chipcore.fitting.settings import FitSettings


@pytest.fixture(autouse=True)
def networks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chipcore.cli.common.load_network", load_once)


@pytest.fixture
def zebras(data: Path, tmp_path: Path) -> Path:
    """A flat folder of three zebras."""
    folder = tmp_path / "zebras"
    folder.mkdir()
    for file in sorted((data / "fourteen" / "val" / "zebra").iterdir())[:3]:
        shutil.copy(file, folder)
    return folder


def fitting(*folders: Path, out: Path) -> list[str]:
    return [str(one) for one in ("fit", *SLIM, "--layers", "pool5", "--gates", "4", "--out", out, "--images", *folders)]


def test_nothing_to_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, other, broken = (tmp_path / name for name in ("empty", "other", "broken"))
    for folder in (empty, other, broken):
        folder.mkdir()
    (other / "notes.txt").write_text("no photograph")
    (other / ".hidden.jpg").write_bytes(b"")
    (broken / "a.jpg").write_bytes(b"no")
    (broken / "b.png").write_bytes(b"")
    out = tmp_path / "w"
    for folder, sentence in (
        (empty, "holds no photographs"), (other, "holds no photographs"), (tmp_path / "none", "is not a folder"),
        (other / "notes.txt", "is not a folder"), (broken, "none of the 2 files"), (tmp_path / ("x" * 300), "is not a folder"), ("a\0b", "is not a folder"),
    ):  # fmt: skip
        assert sentence in said(fitting(Path(folder), out=out), capsys)
    assert not list(out.rglob("*.safetensors")) and not list(out.rglob("*.npz"))


def test_one_image_is_fitted_and_has_no_r2(zebras: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(next(zebras.iterdir()), one)
    assert main([*fitting(one, out=tmp_path / "w"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["photographs"] == 1 and result["layers"][0]["rows"] >= 1
    assert result["layers"][0]["median_r2"] is None and result["layers"][0]["rows"] == 14, (
        "every class has a row from the sums of all images"
    )


def test_what_cannot_be_read_is_skipped_counted_and_listed_at_the_end(
    zebras: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [*fitting(zebras, out=tmp_path / "alone"), "--json"]
    assert main(alone) == 0
    good = json.loads(capsys.readouterr().out)
    mixed = tmp_path / "mixed"
    shutil.copytree(zebras, mixed)
    (mixed / "broken.jpg").write_bytes(b"\xff\xd8 no")
    (mixed / "nothing.png").write_bytes(b"")
    (mixed / "link.jpg").symlink_to(tmp_path / "gone")
    (mixed / "folder.jpg").mkdir()
    (mixed / "notes.txt").write_text("hello")
    os.mkfifo(mixed / "pipe.jpg")
    with open(os.path.join(os.fsencode(mixed), b"\xff\xfe.jpg"), "wb") as latin:  # a name that is no UTF-8
        latin.write(b"no")
    (mixed / "locked").mkdir()
    real = os.scandir

    def scandir(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("locked"):  # the tests may run as root, who may read everything
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert main([*fitting(mixed, out=tmp_path / "mixed_w"), "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    told = err.splitlines()
    assert len(result["unreadable"]) == 6 and sum("left out" in line for line in told) == 6
    assert all("left out" in line for line in told[-6:]), "at the end"
    for name in ("broken.jpg", "nothing.png", "link.jpg", "pipe.jpg", "locked"):
        assert any(name in line for line in told[-6:])
    assert result["layers"][0]["rows"] == good["layers"][0]["rows"]
    assert main(fitting(mixed, out=tmp_path / "again")) == 0
    assert "3 photographs x 4 gates" in (said_last := capsys.readouterr().out) and "6 unreadable" in said_last


def test_a_hundred_thousand_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Listed, fingerprinted and held out in seconds; the disk is faked, the work on the names is not."""
    listing = [(str(tmp_path / f"{c:03}"), [], [f"{i:04}.jpg" for i in range(1000)]) for c in range(100)]
    monkeypatch.setattr(os, "walk", lambda root, **_named: iter(listing))
    found = find_images(tmp_path)
    assert len(found) == 100_000 and len(found.fingerprint) == 64
    assert len(found.held_out(0.1)) == 10_000 and len(found.per_folder(3)) == 300


def test_a_image_that_goes_away_meanwhile(zebras: Path) -> None:
    found = find_images(zebras)
    gone = ImageFolder(found.root, (*found.names, "gone.jpg"))
    network: Network = load_once("vgg16_slim")
    [batch] = batches(gone, gone.names, network.geometry, 16)
    assert len(batch.names) == 3 and len(batch.unreadable) == 1 and "gone.jpg does not exist" in batch.unreadable[0]
    assert len(gone.fingerprint) == 64
    told: list[Progress] = []
    W = fit(network, ["pool5"], gone, FitSettings(gates=4, held_out=0), progress=told.append)["pool5"].W
    assert sum(len(one.unreadable) for one in told) == 1
    assert torch.equal(W, fit(network, ["pool5"], found, FitSettings(gates=4, held_out=0))["pool5"].W)


def test_every_image_of_every_kind_is_read_from_a_folder(tmp_path: Path) -> None:
    picture = Image.radial_gradient("L")
    for name, mode in (("a.jpg", "CMYK"), ("b.png", "LA"), ("c.gif", "P"), ("d.bmp", "RGB"), ("e.tiff", "L"), ("f.webp", "RGBA")):
        picture.convert("RGB" if mode == "P" else mode).convert(mode).save(tmp_path / name)
    found = find_images(tmp_path)
    [batch] = batches(found, found.names, load_once("vgg16_slim").geometry, 16)
    assert batch.names == ("a.jpg", "b.png", "c.gif", "d.bmp", "e.tiff", "f.webp") and not batch.unreadable
    spread = (batch.views.float() - batch.views[4].float()).abs().mean((1, 2, 3))
    assert float(spread[1:].max()) < 6, "the same picture whatever the file"


def test_no_folder_at_all() -> None:
    with pytest.raises(DataError, match="no folder"):
        find_images([])


def test_links_to_folders_are_followed_once_and_links_in_a_circle_end(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8))
    for folder in ("store/cat", "set/dog"):
        (tmp_path / folder).mkdir(parents=True)
        picture.save(tmp_path / folder / "a.png")
    root = tmp_path / "set"
    (root / "cat").symlink_to(tmp_path / "store" / "cat")  # a class folder that lies elsewhere
    (root / "cat_again").symlink_to(tmp_path / "store" / "cat")
    (root / "dog_again").symlink_to(root / "dog")
    (root / "round").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (tmp_path / "store" / "cat" / "back").symlink_to(tmp_path / "store")
    found = find_images(root)
    assert found.names == ("cat/a.png", "dog/a.png"), "each photograph once"


def test_kinds_that_are_not_read_are_counted_and_named(
    zebras: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # installed or not
    picture = Image.open(next(zebras.iterdir())).convert("RGB")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    picture.save(mixed / "a.jfif", "JPEG")
    picture.save(mixed / "b.AVIF", "AVIF")
    picture.save(mixed / "c.mpo", "MPO", save_all=True, append_images=[picture])
    for name in ("d.heic", "e.HEIC", "f.cr2", "g.svg", "notes.txt", ".hidden.heic"):
        (mixed / name).write_bytes(b"something else")
    found = find_images(mixed)
    assert found.names == ("a.jfif", "b.AVIF", "c.mpo")
    (sentence,) = found.closed
    assert "1 .cr2 (f.cr2), 2 .heic (d.heic, e.HEIC), 1 .svg (g.svg)" in sentence and "pip install pillow-heif" in sentence
    assert main(fitting(mixed, out=tmp_path / "w")) == 0
    assert "2 .heic (d.heic, e.HEIC)" in capsys.readouterr().err
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "x.heic").write_bytes(b"?")
    with pytest.raises(DataError, match="1 .heic"):
        find_images(tmp_path / "only")
