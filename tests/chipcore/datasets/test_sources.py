"""Images from folders, tar shards, data sets in memory and on disk: the same names, the same pixels, the same W."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset

import chipcore
from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.datasets.image_set import batches
from chipcore.datasets.sources import open_images
from chipcore.datasets.tar_shards import expand_braces
from chipcore.errors import DataError, ImageError
from chipcore.fitting.settings import FitSettings
from chipcore.networks import Network
from chipcore.networks.torchvision_import import torchvision

SETTINGS = FitSettings(gates=6, held_out=0.25)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Noise in two class folders."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(9):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> str:
    """The folder in three tar files, with the label beside every image, as WebDataset has it."""
    found = find_images(folder)
    for number in range(3):
        files: dict[str, bytes] = {}
        for name in found.names[6 * number : 6 * number + 6]:
            files[f"./{name}"] = (folder / name).read_bytes()
            files[f"./{Path(name).with_suffix('.cls')}"] = b"0"
        pack(tmp_path / f"shard-{number:03}.tar", files)
    return str(tmp_path / "shard-{000..002}.tar")


class Pairs(Dataset[Any]):
    """A map-style dataset of (image, name)."""

    def __init__(self, folder: Path) -> None:
        self.folder = find_images(folder)

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> Any:
        if index >= len(self):
            raise IndexError
        name = self.folder.names[index]
        return torch.from_numpy(np.asarray(self.folder.open(name)).copy()).movedim(2, 0) / 255, name


def assert_same_fit(network: Network, folder: Path, given: Any) -> None:
    expected, found = (chipcore.fit(network, ["late"], images, SETTINGS)["late"] for images in (folder, given))
    assert float(expected.W.abs().max()) > 0
    torch.testing.assert_close(found.W, expected.W, rtol=0, atol=1e-6 * float(expected.W.abs().max()))
    torch.testing.assert_close(found.r2, expected.r2, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert torch.equal(found.images, expected.images)


def test_w_is_the_same_from_a_folder_and_from_tar_shards(tiny: Network, folder: Path, shards: str) -> None:
    assert open_images(shards).names == find_images(folder).names
    assert_same_fit(tiny, folder, shards)


def test_w_is_the_same_from_datasets(tiny: Network, folder: Path) -> None:
    pairs = Pairs(folder)
    assert_same_fit(tiny, folder, pairs)
    assert_same_fit(tiny, folder, iter([(image, name) for image, name in pairs]))
    assert_same_fit(tiny, folder, torchvision.datasets.ImageFolder(folder, transform=lambda _image: None))


@pytest.mark.parametrize("kind", ["path", "bytes", "PIL", "uint8 array", "float array", "uint8 tensor", "float tensor"])
def test_images_of_every_kind_have_the_pixels_of_the_file(folder: Path, kind: str) -> None:
    path = folder / "a" / "0.png"
    expected = np.asarray(Image.open(path))
    given: dict[str, Any] = {
        "path": str(path), "bytes": path.read_bytes(), "PIL": Image.open(path), "uint8 array": expected, "float array": expected / 255,
        "uint8 tensor": torch.from_numpy(expected.copy()).movedim(2, 0), "float tensor": torch.from_numpy(expected / 255).movedim(2, 0),
    }  # fmt: skip
    found = open_images([(given[kind], "one")])
    assert np.array_equal(np.asarray(found.open("one")), expected)


def test_subset_loader_and_generator_keep_names_and_order(folder: Path) -> None:
    expected = find_images(folder)
    some = Subset(torchvision.datasets.ImageFolder(folder), [3, 10])
    assert open_images(some).names == (expected.names[3], expected.names[10])
    assert open_images(DataLoader(Pairs(folder), batch_size=4)).names == expected.names

    def generated() -> Iterator[tuple[Image.Image, str]]:
        yield from ((expected.open(name), name) for name in reversed(expected.names))

    spooled = open_images(generated())
    assert spooled.names == tuple(reversed(expected.names))
    assert all(np.array_equal(np.asarray(spooled.open(name)), np.asarray(expected.open(name))) for name in expected.names)
    assert spooled.select(expected.names[:2]).names == expected.names[:2]
    assert spooled.fingerprint != spooled.select(expected.names[:2]).fingerprint


def test_unnamed_items_are_named_by_their_number(folder: Path) -> None:
    labeled = [(np.asarray(Image.open(folder / "a" / f"{i}.png")), i % 2) for i in range(3)]
    assert open_images(labeled).names == ("00000000", "00000001", "00000002")
    assert open_images([image for image, _label in labeled]).names == ("00000000", "00000001", "00000002")


def test_groups_are_held_out_and_limited_alike(folder: Path, shards: str) -> None:
    from_folder, from_tar = find_images(folder), open_images(shards)
    assert from_tar.held_out(0.25) == from_folder.held_out(0.25) != frozenset()
    assert from_tar.per_folder(2).names == from_folder.per_folder(2).names == ("a/0.png", "a/1.png", "b/0.png", "b/1.png")
    assert from_tar.per_folder(0, ["b"]).names == from_folder.per_folder(0, ["b"]).names
    assert from_tar.fingerprint == from_folder.fingerprint


def test_shards_that_count_from_zero_each_are_told_apart(folder: Path, tmp_path: Path) -> None:
    image = (folder / "a" / "0.png").read_bytes()
    for shard in ("x", "y"):
        pack(tmp_path / f"{shard}.tar", {"0.png": image, f"only-{shard}.png": image})
    assert open_images(str(tmp_path / "[xy].tar")).names == ("x/0.png", "only-x.png", "y/0.png", "only-y.png")
    with pytest.raises(DataError, match=r"0\.png is twice"):
        open_images(pack(tmp_path / "z.tar", {"0.png": image, "./0.png": image}))


def test_a_damaged_image_in_a_shard_is_named_and_left_out(tiny: Network, folder: Path, tmp_path: Path) -> None:
    path = pack(tmp_path / "s.tar", {"good.png": (folder / "a" / "0.png").read_bytes(), "bad.png": b"no image", ".hidden.png": b"x"})
    found = open_images(path)
    [batch] = batches(found, found.names, tiny.geometry, 4)
    assert batch.names == ("good.png",)
    assert len(batch.unreadable) == 1 and "s.tar:bad.png is not a photograph" in batch.unreadable[0]
    path.unlink()
    with pytest.raises(ImageError, match="can't be read"):
        found.open("good.png")


def test_tar_files_that_cannot_be_used_are_refused_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    whole = pack(tmp_path / "whole.tar", {"0.png": (folder / "a" / "0.png").read_bytes()})
    (tmp_path / "packed.tar.gz").write_bytes(gzip.compress(whole.read_bytes()))
    (tmp_path / "disguised.tar").write_bytes(gzip.compress(whole.read_bytes()))
    (tmp_path / "text.tar").write_text("no archive")
    (tmp_path / "empty.tar").write_bytes(b"")
    for given, sentence in (
        ("gone-{0..1}.tar", "there is no file"), ("*.none.tar", "there is no file"), ("packed.tar.gz", "is compressed"),
        ("disguised.tar", "not a whole, uncompressed tar"), ("text.tar", "not a whole, uncompressed tar"), ("{9..1}.tar", "smaller number first"),
        ("empty.tar", "not a whole, uncompressed tar"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=sentence):
            open_images(str(tmp_path / given))
    with pytest.raises(DataError, match="holds no photographs"):
        open_images(pack(tmp_path / "labels.tar", {"0.cls": b"0"}))
    with pytest.raises(DataError, match="can't be mixed"):
        open_images([str(whole), folder])
    with pytest.raises(DataError, match="not a file"):
        open_images("http://somewhere/shards.tar")


def test_braces_expand_as_a_shell_does() -> None:
    assert expand_braces("a{1..3}") == ["a1", "a2", "a3"]
    assert expand_braces("{x,y}{09..10}") == ["x09", "x10", "y09", "y10"]
    assert expand_braces("no{braces}.tar") == ["no{braces}.tar"]


def test_what_holds_no_named_images_is_refused(folder: Path) -> None:
    image = Image.new("RGB", (8, 8))
    for given, sentence in (
        ([(image, "same"), (image, "same")], "as another one is"), ([(image, "a"), (image, 3)], "item 1 is no pair"), ([], "no folder"),
        (iter([]), "gave no images"), (iter([image]), "item 0 is no pair"), (3, "a int holds no images"), ({"a": image}, "a dict holds no images"),
        (Subset(Pairs(folder), []), "holds no images"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=sentence):
            open_images(given)
    for bad, sentence in (
        (np.zeros((4, 4, 2)), "shape"), (np.full((4, 4, 3), 2.0), "outside 0 to 1"), (np.full((4, 4, 3), np.nan), "outside 0 to 1"),
        (np.zeros((4, 4, 3), np.int64), "int64"), (object(), "object"),
    ):  # fmt: skip
        with pytest.raises(ImageError, match=sentence):
            open_images([(bad, "one")]).open("one")


class FakeDatasets(types.ModuleType):
    """What we use of Hugging Face's library, over rows in a JSON file; the real one was tried by hand (datasets 4.8.5)."""

    class Image:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    class ClassLabel:
        names = ("a", "b")

    class Value:
        pass

    def __init__(self) -> None:
        super().__init__("datasets")

    def load_from_disk(self, place: str) -> FakeRows:
        rows = json.loads(Path(place, "rows.json").read_text())
        kinds = {"image": self.Image(), "label": self.ClassLabel()}
        return FakeRows(rows, {name: kinds.get(name, self.Value()) for name in rows[0]}, Path(place))


class FakeRows:
    def __init__(self, rows: list[dict[str, Any]], features: dict[str, Any], place: Path) -> None:
        self.rows, self.features, self.place = rows, features, place

    def __len__(self) -> int:
        return len(self.rows)

    def cast_column(self, column: str, kind: Any) -> FakeRows:
        return FakeRows(self.rows, {**self.features, column: kind}, self.place)

    def select_columns(self, columns: list[str]) -> FakeRows:
        return FakeRows([{name: row[name] for name in columns} for row in self.rows], self.features, self.place)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return {name: [row[name] for row in self.rows[at]] for name in self.rows[0]}
        row = dict(self.rows[at])
        assert not self.features["image"].decode
        path = self.place / row["image"]
        return {**row, "image": {"bytes": path.read_bytes() if path.is_file() else None, "path": None}}

    def with_format(self, _name: str) -> FakeRows:
        return self

    def iter(self, batch_size: int) -> Iterator[Any]:
        for start in range(0, len(self), batch_size):
            paths = [row["image"] for row in self.rows[start : start + batch_size]]
            column = types.SimpleNamespace(
                combine_chunks=lambda p=paths: types.SimpleNamespace(field=lambda _n: types.SimpleNamespace(to_pylist=lambda: p))
            )
            yield {"image": column}


def saved(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for name in ("state.json", "dataset_info.json"):
        (folder / name).write_text("{}")
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder


def test_a_data_set_of_hugging_face_is_read_by_name(tiny: Network, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets())
    by_file = [{"image": name, "label": "ab".index(name[0])} for name in find_images(folder).names]
    found = open_images(saved(folder, by_file))
    assert found.names == find_images(folder).names, "class, slash and file name, as in the folder"
    expected = ImageFolder(folder, found.names)
    assert np.array_equal(np.asarray(found.open("b/3.png")), np.asarray(expected.open("b/3.png")))
    assert_same_fit(tiny, expected, found)  # type: ignore[arg-type]
    saved(folder, [{"image": "a/0.png", "id": 7}, {"image": "a/1.png", "id": 8}])
    assert open_images(folder).names == ("7", "8")
    saved(folder, [{"image": "a/0.png", "id": 7}, {"image": "a/0.png", "id": 7}])
    assert open_images(folder).names == ("00000000", "00000001")
    saved(folder, [{"image": "gone"}])
    with pytest.raises(ImageError, match="is empty"):
        open_images(folder).open("gone")
    saved(folder, [{"label": 0}])
    with pytest.raises(DataError, match="no column of images"):
        open_images(folder)
    with pytest.raises(DataError, match="of which one"):
        open_images([folder, tmp_path])


def test_without_the_library_or_with_splits_one_sentence_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'chipcore\[datasets\]'"):
        open_images(saved(folder, [{"image": "a/0.png"}]))
    (folder / "dataset_dict.json").write_text("{}")
    (folder / "train").mkdir()
    (folder / "train" / "state.json").write_text("{}")
    with pytest.raises(DataError, match="several splits; give one of them: .*train"):
        open_images(folder)
