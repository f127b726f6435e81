"""Files of W that are damaged, edited or of something else; never a silently wrong map."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import skimage.data
import torch
from PIL import Image
from refusals import SLIM, files_below, load_once, said
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import chipcore
from chipcore.cli.main import main
from chipcore.errors import ImportanceError
from chipcore.importance import Importance, load_importance, read_importance
from chipcore.storage import BUNDLED_IMPORTANCE, fitted_importance


@pytest.fixture(autouse=True)
def networks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chipcore.cli.common.load_network", load_once)


@pytest.fixture
def network() -> chipcore.Network:
    return load_once("vgg16_slim")


@pytest.fixture
def saved(network: chipcore.Network, tmp_path: Path) -> Path:
    """W of pool5 in ``<tmp_path>/w``, with a checksum."""
    return load_importance(network, "pool5", BUNDLED_IMPORTANCE).save(tmp_path / "w")


def explaining(saved: Path, *more: str) -> list[str | Path]:
    folder = saved.parent.parent.parent
    photo = folder / "cat.png"
    if not photo.exists():
        Image.fromarray(skimage.data.chelsea()).resize((150, 100)).save(photo)
    return ["explain", photo, *SLIM, "--class", "cat", "--layer", "pool5", "--importance", folder / "w", "--out", folder / "map.png", *more]


def test_truncated(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = saved.read_bytes()
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        assert "is not a whole file of W; fit it again" in said(explaining(saved), capsys)
    assert "map.png" not in files_below(saved.parent.parent.parent)


def test_edited_by_one_byte(saved: Path, network: chipcore.Network) -> None:
    """At any place: refused, or (in what is only padding) the same W."""
    whole, layer = saved.read_bytes(), network.layer("pool5")
    true = read_importance(saved, network, layer)
    dice, refused = random.Random(0), 0
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(0, 8), *dice.sample(range(8, header), 150), *dice.sample(range(header, len(whole)), 150)]
    for place in places:
        edited = bytearray(whole)
        edited[place] ^= 1 << dice.randrange(8)
        saved.write_bytes(edited)
        try:
            found = read_importance(saved, network, layer)
        except ImportanceError:
            refused += 1
        else:
            assert all(torch.equal(getattr(found, name), getattr(true, name)) for name in ("W", "support", "evidence_mass"))
            assert found.metadata == true.metadata and place < header
    assert refused > len(places) - 40


def test_an_edited_number_is_named(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited = bytearray(saved.read_bytes())
    edited[-300] ^= 1
    saved.write_bytes(edited)
    assert "was changed since it was written" in said(explaining(saved), capsys)


def test_w_from_before_there_were_checksums_is_read(saved: Path, network: chipcore.Network) -> None:
    with safe_open(saved, framework="pt") as file:
        header = file.metadata()
    assert set(header) == {"chipcore", "sha256"}
    save_file(load_file(saved), saved, metadata={"chipcore": header["chipcore"]})
    assert torch.equal(read_importance(saved, network, network.layer("pool5")).W, load_importance(network, "pool5", BUNDLED_IMPORTANCE).W)


def test_w_of_something_else(saved: Path, network: chipcore.Network, capsys: pytest.CaptureFixture[str]) -> None:
    importance = load_importance(network, "pool5", BUNDLED_IMPORTANCE)

    def written(**changes: object) -> None:
        file = replace(importance, metadata={**importance.metadata, **changes}).save(saved.parent.parent.parent / "other")
        shutil.copy(file, saved)

    for changes, sentence in (
        ({"format": 2}, "was fitted with format 2, but here it is 1"),
        ({"network": "vgg16"}, "was fitted with network 'vgg16', but here it is 'vgg16_slim'"),
        ({"weights_sha256": "0" * 64}, "was fitted with weights_sha256"),
        ({"path": "features.pool4"}, "was fitted with path 'features.pool4'"),
        ({"channels": 64}, "was fitted with channels 64"),
        ({"classes": 13}, "was fitted with classes 13"),
        ({"geometry": {**importance.metadata["geometry"], "size": 96}}, "was fitted with an input size of 96, but here it is 160"),
        ({"geometry": {**importance.metadata["geometry"], "mean": [0, 0, 0]}}, "was fitted with an input mean"),
    ):
        written(**changes)
        assert sentence in said(explaining(saved), capsys)
    other = next((BUNDLED_IMPORTANCE / network.id).glob("pool4*"))
    shutil.copy(other, saved)
    assert "was fitted with path 'features.pool4'" in said(explaining(saved), capsys)
    wrong = Importance(torch.zeros(14, 99), *(torch.zeros(14) for _ in range(4)), importance.metadata)
    wrong.save(saved.parent.parent)
    assert "does not hold a finite W of 14 classes x 128 channels" in said(explaining(saved), capsys)
    replace(importance, W=importance.W.int()).save(saved.parent.parent)
    assert "does not hold a finite W" in said(explaining(saved), capsys)


def test_another_input_size_asks_for_its_own_w(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "input size of 160, but here it is 128" in said(explaining(saved, "--size", "128"), capsys)


def test_a_fit_at_another_size_does_not_stand_before_what_is_bundled(
    saved: Path, network: chipcore.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path / "cache"))
    bundled = load_importance(network, "pool5")
    replace(bundled, W=bundled.W + 1, metadata={**bundled.metadata, "geometry": {**bundled.metadata["geometry"], "size": 96}}).save(
        fitted_importance()
    )
    assert torch.equal(load_importance(network, "pool5").W, bundled.W)


def test_headers_that_are_no_headers(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(saved)
    for header in (
        {},
        {"chipcore": "[]"},
        {"chipcore": "{"},
        {"chipcore": "[" * 5000},
        {"chipcore": json.dumps({"format": 1}), "more": "x"},
    ):
        save_file(tensors, saved, metadata=header)
        assert "is not a whole file of W" in said(explaining(saved), capsys)
    saved.unlink()
    saved.mkdir()
    assert "is not fitted for these weights" in said(explaining(saved), capsys)


def test_what_is_whole_is_drawn(saved: Path) -> None:
    assert main([str(one) for one in explaining(saved)]) == 0
