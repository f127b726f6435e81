"""Every file reader, given spoilt files: a result or a ``ChipError``, never anything else."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from color_world import xml
from fuzzing import anything, cases, spoilt
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as safetensors_bytes

from chipcore.datasets.ade20k import open_ade20k, scene_key
from chipcore.datasets.annotations import box_to_view
from chipcore.datasets.coco import open_coco, read_rgb
from chipcore.datasets.ilsvrc import read_annotation
from chipcore.datasets.image_folder import find_images
from chipcore.datasets.label_files import read_labels
from chipcore.errors import ChipError
from chipcore.fitting.accumulate import LayerSums
from chipcore.fitting.checkpoint import Checkpoint, Cursor
from chipcore.fitting.planning import ClassSlice
from chipcore.fitting.settings import FitSettings
from chipcore.images import InputGeometry, open_image
from chipcore.importance import Importance, describe, read_importance
from chipcore.networks.checkpoint_config import read_sheet
from chipcore.networks.weights import load_strictly, read_state_dict
from chipcore.training.saved import load_trained
from conftest import TinyNet, tiny_network

GEOMETRY = InputGeometry(size=16, resize=20)


@contextmanager
def file(content: bytes, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        yield path


def picture(mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (9, 13, 3), dtype=np.uint8)).convert(mode)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def images() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.arange(100, dtype=np.uint16).reshape(10, 10) * 600)
    return [
        encoded(picture(), "JPEG"), encoded(picture(), "JPEG", exif=exif, progressive=True), encoded(picture("CMYK"), "JPEG"),
        encoded(picture(), "PNG", exif=exif), encoded(picture("RGBA"), "PNG"), encoded(picture("P"), "PNG", transparency=3), encoded(deep, "PNG"),
        encoded(picture("P"), "GIF", save_all=True, append_images=[picture("P").rotate(90)]), encoded(picture(), "BMP"),
        encoded(picture(), "WEBP", exif=exif), encoded(picture(), "TIFF", exif=exif), encoded(deep, "TIFF"), encoded(picture("LAB"), "TIFF"),
        encoded(picture(), "TIFF", compression="tiff_lzw"), encoded(picture("1"), "TIFF", compression="group4"),
    ]  # fmt: skip


@cases(150)
@given(spoilt(images()))
def test_images(content: bytes) -> None:
    with suppress(ChipError):
        image = open_image(content)
        assert image.mode == "RGB" and GEOMETRY.view(image).size == (16, 16)


@cases(60)
@given(spoilt([encoded(picture(), "PNG"), encoded(picture("P"), "PNG"), encoded(picture("LA"), "PNG")]))
def test_annotations_that_are_pictures(content: bytes) -> None:
    with file(content, "a.png") as path, suppress(ChipError):
        assert read_rgb(path).ndim == 3


TEXT = [
    b"/a/airfield 0\n/a/alley 1\n",
    b"n01440764 tench, Tinca tinca\nn01443537 goldfish\n",
    "Löwe\nBär\n".encode(),
    b"\xef\xbb\xbfcat\ndog",
]
JSON = [
    b'["cat", "dog"]',
    b'{"0": "cat", "1": "dog"}',
    b'{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}',
    b'{"cat": 0, "dog": 1}',
]
CSV = [b"index,name\n0,cat\n1,dog\n", b"name;synset\ncat;n02123045\ndog;n02084071\n", b"cat\tx\ndog\ty\n", b'"a ""b""",1\nc,0\n']


@pytest.mark.parametrize(("ending", "valid"), [(".txt", TEXT), (".json", JSON), (".csv", CSV)])
def test_labels(ending: str, valid: list[bytes]) -> None:
    @cases(80)
    @given(spoilt(valid) | anything.map(lambda value: json.dumps(value).encode()))
    def check(content: bytes) -> None:
        with file(content, f"labels{ending}") as path, suppress(ChipError):
            classes = read_labels(path)
            assert len(classes) >= 1 and len(set(classes.labels)) >= 1
            for wanted in (0, classes.names[0], "²", "-", ""):
                with suppress(ChipError):
                    assert 0 <= classes.index(wanted) < len(classes)

    check()


SHEET = b"""network = "vgg16"
labels = "names.txt"
size = 299
fit = "crop"
resize = 342
mean = [0.5, 0.5, 0.5]
std = [0.5]
interpolation = "bilinear"
[layers]
last = "features.30"
"""
KEYS = ("network", "labels", "size", "fit", "resize", "mean", "std", "interpolation", "layers")


@cases(80)
@given(spoilt([SHEET]) | st.dictionaries(st.sampled_from(KEYS), anything, max_size=4).map(lambda d: "\n".join(f"{k} = {json.dumps(v)}" for k, v in d.items()).encode()))  # fmt: skip
def test_sheets(content: bytes) -> None:
    with file(content, "w.toml") as path, suppress(ChipError):
        geometry = read_sheet(path.with_suffix(".pth")).geometry(InputGeometry())
        assert geometry.size >= 1 and len(geometry.mean) == 3
        if geometry.size < 1000:
            assert geometry.view(picture()).size == (geometry.size, geometry.size)


@cases(80)
@given(st.integers(1, 64), st.integers(0, 8192), st.integers(1, 40), st.integers(1, 40), st.sampled_from(("crop", "squash")))
def test_views_of_any_size(size: int, more: int, width: int, height: int, fit: str) -> None:
    geometry = InputGeometry(size=size, resize=min(8192, size + more), fit=fit)  # type: ignore[arg-type]
    assert geometry.tensor(Image.new("RGB", (width, height))).shape == (3, size, size)


@cache
def saved_w() -> bytes:
    network = tiny_network()
    at = network.layer("late")
    W = torch.arange(15.0).reshape(3, 5)
    rows = [torch.ones(3), torch.full((3,), 5, dtype=torch.int32), torch.ones(3, dtype=torch.int32), torch.ones(3)]
    with tempfile.TemporaryDirectory() as folder:
        return Importance(W, *rows, describe(network, at, settings={})).save(Path(folder)).read_bytes()


def test_w() -> None:
    network = tiny_network()
    layer, true = network.layer("late"), torch.arange(15.0).reshape(3, 5)

    @cases(120)
    @given(spoilt([saved_w()]))
    def check(content: bytes) -> None:
        with file(content, "late.safetensors") as path, suppress(ChipError):
            assert torch.equal(read_importance(path, network, layer).W, true), "never a silently wrong W"

    check()


def state_dicts() -> dict[str, bytes]:
    weights = TinyNet().state_dict()
    found = {".safetensors": safetensors_bytes(weights)}
    for ending, new in ((".pth", True), (".pt", False)):
        stream = io.BytesIO()
        torch.save({"state_dict": weights}, stream, _use_new_zipfile_serialization=new)
        found[ending] = stream.getvalue()
    return found


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])
def test_state_dicts(ending: str) -> None:
    model = TinyNet()

    @cases(80)
    @given(spoilt([state_dicts()[ending]]))
    def check(content: bytes) -> None:
        with file(content, f"w{ending}") as path, suppress(ChipError):
            load_strictly(model, read_state_dict(path), "tiny", str(path))

    check()


def test_checkpoints_of_a_fit() -> None:
    settings, part = FitSettings(gates=2), ClassSlice(tiny_network().layer("late"), (0, 1))

    def empty() -> LayerSums:
        return LayerSums.empty(part, settings)

    sums, channels = empty(), part.layer.channels
    sums.samples.add(
        [0], torch.tensor([False]), torch.ones(1, channels), np.ones((1, 2, channels), bool), torch.ones(1, 2), torch.tensor([[0.5, 0.5]]),
        torch.ones(1, 2, 2), torch.ones(1, 2), 0.1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        writer = Checkpoint(Path(folder), {"network": "tiny"})
        writer.write(Cursor(batches=2), [sums], {"late/W": np.ones((3, channels))})
        valid = writer.path(0).read_bytes()
    expected = sums.moments(torch.arange(2)).gram
    assert expected.any()

    @cases(80)
    @given(spoilt([valid]))
    def check(content: bytes) -> None:
        with file(content, "moments-0-0.npz") as path, suppress(ChipError):
            reader = Checkpoint(path.parent, {"network": "tiny"})
            assert reader.last_pass() == 0
            _cursor, _rows, stored = reader.read(0)
            into = empty()
            stored.restore(0, into)
            assert torch.equal(into.moments(torch.arange(2)).gram, expected), "never silently wrong moments"

    check()


@cases(150)
@given(
    spoilt(
        [xml("n01440764", [(1, 2, 5, 6), (0, 0, 15, 15)]).encode(), b"<a>" * 50 + b"</a>" * 50, xml("n0", [(0, 0, 10**300, 3)]).encode()]
    )
)
def test_boxes(content: bytes) -> None:
    with file(content, "a.xml") as path, suppress(ChipError):
        found = read_annotation(path)
        for box in found.boxes:
            view = box_to_view(box, found.size, (33, 17), GEOMETRY)
            assert view is None or (0 <= view[0] <= view[2] < 16 and 0 <= view[1] <= view[3] < 16)


def test_deep_xml_and_hidden_entities(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "' + "c" * 50 + '">]><a>' + "&b;" * 1000 + "</a>"
    for content in (b"<a>" * 200_000, bomb.encode(), bomb.encode("utf-16"), bomb.encode("utf-16-le")):
        (tmp_path / "a.xml").write_bytes(content)
        with pytest.raises(ChipError):
            read_annotation(tmp_path / "a.xml")


ADE = {"annotation": {"scene": ["outdoor", "valley"], "object": [{"name": "valley, vale", "name_ndx": 3000, "parts": {"part_level": 0}}]}}


@cases(80)
@given(spoilt([json.dumps(ADE).encode()]) | anything.map(lambda one: json.dumps({"annotation": {"scene": one, "object": [one]}}).encode())
       | anything.map(lambda one: json.dumps({"annotation": {"object": [{"name": one, "name_ndx": one, "parts": {"part_level": 0}}]}}).encode()))  # fmt: skip
def test_scenes(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as root, suppress(ChipError):
        folder = Path(root, "images/ADE/training/nature/valley")
        folder.mkdir(parents=True)
        (folder / "ADE_1.jpg").write_bytes(b"")
        (folder / "ADE_1.json").write_bytes(content)
        (folder / "ADE_1_seg.png").write_bytes(encoded(picture(), "PNG"))
        for item in open_ade20k(root).items.values():
            assert item.mask(("valley",)).shape == (9, 13)


@cases(60)
@given(st.text(max_size=30))
def test_scene_names(name: str) -> None:
    assert scene_key(scene_key(name)) is not None


COCO = {
    "categories": [{"id": 24, "name": "zebra"}],
    "annotations": [{"file_name": "000000000007.png", "segments_info": [{"id": 9, "category_id": 24}]}],
}


@cases(80)
@given(spoilt([json.dumps(COCO).encode()]) | anything.map(lambda one: json.dumps({**COCO, "annotations": [{"file_name": "7.png", "segments_info": [{"id": one, "category_id": 24}]}]}).encode())
       | anything.map(lambda one: json.dumps({**COCO, "categories": one}).encode()) | anything.map(lambda one: json.dumps({**COCO, "annotations": one}).encode()))  # fmt: skip
def test_panoptic_masks(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as root, suppress(ChipError):
        Path(root, "panoptic").mkdir()
        Path(root, "a_7.jpg").write_bytes(b"")
        Path(root, "panoptic", "7.png").write_bytes(encoded(picture(), "PNG"))
        Path(root, "panoptic.json").write_bytes(content)
        found = open_coco(root)
        for name in found.images.names:
            for mask in found.masks_of(name).values():
                assert mask.shape == (9, 13)


@cases(40)
@given(
    spoilt([b'{"geometry": {"size": 64}, "classes": ["a", "b"], "width": 1, "name": "x"}'])
    | anything.map(lambda one: json.dumps(one).encode())
)
def test_facts_about_a_trained_network(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as root, suppress(ChipError):
        Path(root, "w.json").write_bytes(content)
        Path(root, "w.safetensors").write_bytes(state_dicts()[".safetensors"])
        load_trained(Path(root, "w.safetensors"))


@cases(60)
@given(
    st.lists(
        st.binary(min_size=1, max_size=12).filter(lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")),
        max_size=5,
    )
)
def test_names_of_files(names: list[bytes]) -> None:
    """Any bytes that Linux takes as a name."""
    with tempfile.TemporaryDirectory() as root:
        for name in names:
            with open(root.encode() + b"/" + name + b".jpg", "wb") as made:
                made.write(b"x")
        with suppress(ChipError):
            found = find_images(root)
            assert len(found.fingerprint) == 64 and len(found.held_out(0.5)) <= len(found) <= len(names)
        shutil.rmtree(root)
        Path(root).mkdir()


READERS: list[Callable[..., Any]] = [read_labels, read_state_dict, open_image, find_images, open_ade20k, open_coco, read_annotation]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("path", ["", "a\0b", "x" * 300, "/dev/null", "/proc/self/mem", ".", "\udcff", "~", "\n"])
def test_odd_paths(read: Callable[..., Any], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ChipError):
        read(Path(path))
