"""Weights and labels that do not fit, are damaged, or want to run code."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch
from PIL import Image
from refusals import files_below, said
from safetensors.torch import save_file

from chipcore.networks.architectures.efficientnet_lite import EfficientNetLite, convert_published
from chipcore.networks.architectures.vgg_slim import VGGSlim


class Trap:
    """What an attacker's pickle does."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.place,)


def weights(**more: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    return {**VGGSlim(14).state_dict(), **more}


def with_nan() -> dict[str, Any]:
    spoilt = weights()
    spoilt["hidden.weight"][3, 3] = torch.nan
    return spoilt


def published_names_of_a_larger_network() -> dict[str, Any]:
    return {
        "_blocks.99._expand_conv.weight": torch.zeros(1),
        "_blocks.99._bn0.conv.bn.weight": torch.zeros(1),
        "_conv_stem.weight": torch.zeros(1),
    }


# name: (what is saved, the network, the sentence)
SAVED: dict[str, tuple[Callable[[], object], str, str]] = {
    "another_network.pth": (lambda: EfficientNetLite(classes=14).state_dict(), "vgg16_slim", "does not fit vgg16_slim: it lacks"),
    "another_width.pth": (lambda: VGGSlim(14, 8).state_dict(), "vgg16_slim", "does not fit vgg16_slim: it has other shapes"),
    "other_classes.pth": (lambda: VGGSlim(5).state_dict(), "vgg16_slim", "it seems to have 5 classes, not 14: give their names with --labels"),
    "with_nan.pth": (with_nan, "vgg16_slim", "hold NaN or infinity in 'hidden.weight'; give another checkpoint"),
    "with_inf.pth": (lambda: weights(**{"hidden.bias": torch.full((256,), torch.inf)}), "vgg16_slim", "hold NaN or infinity"),
    "larger_network.pth": (published_names_of_a_larger_network, "efficientnet_lite0", "does not fit efficientnet_lite0: it lacks"),
    "empty.pth": (dict, "vgg16_slim", "holds no state_dict"),
    "list.pth": (lambda: [torch.zeros(3)], "vgg16_slim", "holds no state_dict"),
    "tensor.pth": (lambda: torch.zeros(3), "vgg16_slim", "holds no state_dict"),
    "numbers.pth": (lambda: {"a": 1, "b": "two"}, "vgg16_slim", "holds no state_dict"),
    "keys.pth": (lambda: {1: torch.zeros(3)}, "vgg16_slim", "holds no state_dict"),
    "sparse.pth": (lambda: weights(**{"hidden.weight": torch.zeros(256, 128).to_sparse()}), "vgg16_slim", "holds no state_dict"),
    "complex.pth": (lambda: weights(**{"hidden.bias": torch.zeros(256, dtype=torch.complex64)}), "vgg16_slim", "holds no state_dict"),
    "whole_model.pth": (lambda: torch.nn.Linear(2, 2), "vgg16_slim", "holds pickled code (torch.nn.modules.linear.Linear), which is not loaded"),
}  # fmt: skip


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    Image.fromarray(skimage.data.chelsea()).resize((150, 100)).save(path)
    return path


def explaining(photo: Path, checkpoint: Path, *more: str | Path, network: str = "vgg16_slim") -> list[str | Path]:
    out = photo.with_name("map.png")
    return ["explain", photo, "--network", network, "--class", "0", "--method", "gradcam", "--out", out, "--checkpoint", checkpoint, *more]


@pytest.mark.parametrize("name", SAVED)
def test_checkpoints_that_are_refused(name: str, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, network, sentence = SAVED[name]
    checkpoint = photo.with_name(name)
    torch.save(make(), checkpoint)
    assert sentence in said(explaining(photo, checkpoint, network=network), capsys)
    assert files_below(photo.parent) == sorted(["cat.png", name])


def test_pickled_code_does_not_run(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trap = photo.with_name("sprung")
    for name, content in (
        ("zip.pth", lambda path: torch.save({"a": Trap(str(trap))}, path)),
        ("legacy.pth", lambda path: torch.save({"a": Trap(str(trap))}, path, _use_new_zipfile_serialization=False)),
        ("plain.pkl", lambda path: path.write_bytes(pickle.dumps(Trap(str(trap))))),
        ("plain.pth", lambda path: path.write_bytes(pickle.dumps(Trap(str(trap))))),
        ("named.safetensors", lambda path: path.write_bytes(pickle.dumps(Trap(str(trap))))),
    ):
        checkpoint = photo.with_name(name)
        content(checkpoint)
        told = said(explaining(photo, checkpoint), capsys)
        assert "not loaded" in told or "not a checkpoint" in told
        assert not trap.exists(), name


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_truncated_files(ending: str, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = photo.with_name(f"w{ending}")
    if ending == ".pth":
        torch.save(weights(), checkpoint)
    else:
        save_file(weights(), checkpoint)
    whole = checkpoint.read_bytes()
    for length in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1):
        checkpoint.write_bytes(whole[:length])
        assert "cut short" in said(explaining(photo, checkpoint), capsys)
    checkpoint.unlink()
    assert "no checkpoint file" in said(explaining(photo, checkpoint), capsys)
    checkpoint.mkdir()
    assert "no checkpoint file" in said(explaining(photo, checkpoint), capsys)


LABELS: dict[str, tuple[str, bytes, str]] = {
    "too few": ("l.txt", b"\n".join(b"name %d of few" % i for i in range(13)), "does not fit vgg16_slim"),
    "too many": ("l.txt", b"\n".join(b"class no. %d x" % i for i in range(15)), "does not fit vgg16_slim"),
    "twice": ("l.txt", b"cat\ndog\ncat\n", "names 'cat' more than once"),
    "Latin-1": ("l.txt", "Löwe\nBär\n".encode("latin-1"), "is not UTF-8 text"),
    "binary": ("l.txt", bytes(range(256)), "is not UTF-8 text"),
    "empty": ("l.txt", b" \n\n", "holds no labels"),
    "no JSON": ("l.json", b'["cat", ', "holds no labels we can read"),
    "deep JSON": ("l.json", b"[" * 100_000, "holds no labels we can read"),
    "numbers": ("l.json", b"[1, 2]", "holds no labels we can read"),
    "gaps": ("l.json", json.dumps({"0": "cat", "7": "dog"}).encode(), "indices are not 0 to 1"),
    "huge index": ("l.json", b'{"' + b"9" * 5000 + b'": "cat"}', "holds no labels we can read"),
    "ragged": ("l.csv", b"name,index\ncat,0\ndog\n", "differ in length"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_that_are_refused(case: str, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, content, sentence = LABELS[case]
    checkpoint, labels = photo.with_name("w.pth"), photo.with_name(name)
    torch.save(weights(), checkpoint)
    labels.write_bytes(content)
    assert sentence in said(explaining(photo, checkpoint, "--labels", labels), capsys)


SHEETS = {
    "nan": ("mean = [nan, 0.5, 0.5]", "mean of the normalisation"),
    "inf": ("std = [inf, 1.0, 1.0]", "std of the normalisation"),
    "zero": ("std = [0.0, 1.0, 1.0]", "std of the normalisation"),
    "huge": ("size = 100000", "too large"),
    "negative": ("size = -3", "size is -3"),
    "resize": ("resize = 3", "do not fit"),
    "code": ('network = "os:system"', "may not name code to import"),
    "typo": ("sise = 3", "has the key 'sise'"),
    "no TOML": ("[[[", "is not TOML we can read"),
    "layer": ('[layers]\nlast = "features.nowhere"', "there is no module 'features.nowhere'"),
    "labels": ('labels = "none.txt"', "no file of labels"),
}


@pytest.mark.parametrize("case", SHEETS)
def test_sheets_that_are_refused(case: str, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, sentence = SHEETS[case]
    checkpoint = photo.with_name("w.pth")
    torch.save(weights(), checkpoint)
    checkpoint.with_suffix(".toml").write_text(text)
    assert sentence in said(explaining(photo, checkpoint), capsys)


def test_names_that_are_misspelt(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = photo.with_name("map.png")

    def asked(network: str = "vgg16_slim", layer: str = "pool5", target: str = "cat", method: str = "chip") -> list[str | Path]:
        return ["explain", photo, "--network", network, "--layer", layer, "--class", target, "--method", method, "--out", out]

    for arguments, sentence in (
        (asked(network="vgg16slim"), "did you mean vgg16_slim"), (asked(network=""), "there is no network ''"), (asked(network="x:y"), "no module 'x'"),
        (asked(network=":"), "failed"), (asked(layer="pool6"), "did you mean pool5"), (asked(layer=""), "there is no layer ''"),
        (asked(layer="features.conv9"), "offers pool1"), (asked(target="kat"), "did you mean cat"), (asked(target="14"), "has classes 0 to 13"),
        (asked(target="-1"), "has classes 0 to 13"), (asked(target="--2" + "0" * 9), "there is no class"), (asked(target="²"), "there is no class '²'"),
        (asked(target="9" * 5000), "out of range"), (asked(target=""), "there is no class ''"), (asked(method="chipp"), "invalid choice: 'chipp'"),
        (asked(target="n02391049"), "there is no class 'n02391049'"),
    ):  # fmt: skip
        if "--2" in str(arguments):
            arguments[arguments.index("--class") : arguments.index("--class") + 2] = [f"--class=--2{'0' * 9}"]
        assert sentence in said(arguments, capsys), arguments
    assert files_below(photo.parent) == ["cat.png"]


def test_a_larger_networks_keys_stay_what_they_are() -> None:
    given = published_names_of_a_larger_network()
    assert set(convert_published(given, EfficientNetLite(classes=2))) == {
        "blocks.99.expand.conv.weight", "blocks.99.expand.bn.conv.bn.weight", "stem.1.weight"
    }  # fmt: skip
