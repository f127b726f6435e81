"""The command line as a person would use it; wrong use gives one line on standard error and status 2."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from chipcore.cli.main import main
from conftest import ROOT

WEIGHTS = ("networks", "squeezenet1_0.pth")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from skimage import data as skimage_data

    path = tmp_path_factory.mktemp("photo") / "chelsea.png"
    Image.fromarray(skimage_data.chelsea()).save(path)
    return path


def test_networks_as_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["networks"]) == 0
    assert "stage5" in capsys.readouterr().out
    assert main(["networks", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert [layer["name"] for layer in listed["efficientnet_lite0"]["layers"]][-1] == "head"
    assert listed["efficientnet_lite0"]["layers"][-1]["channels"] == 1280


def test_fit_then_explain_on_real_images(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    for synset in ("n02391049", "n01644373"):
        (images / synset).mkdir(parents=True)
        for file in sorted((data / "classes" / synset).iterdir())[:6]:
            shutil.copy(file, images / synset)
    (images / "n02391049" / "broken.jpg").write_bytes(b"\xff\xd8 no")
    squeezenet = ["--network", "squeezenet1_0", "--checkpoint", str(data.joinpath(*WEIGHTS))]
    assert (
        main(
            [
                "fit",
                *squeezenet,
                "--layers",
                "features.12",
                "--images",
                str(images),
                "--gates",
                "8",
                "--classes",
                "zebra",
                "31",
                "--out",
                str(tmp_path / "w"),
                "--json",
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["layers"][0]["layer"] == "fire9" and result["layers"][0]["rows"] == 2 and Path(result["layers"][0]["file"]).is_file()
    assert len(result["unreadable"]) == 1 and "broken.jpg" in err
    shot, raw = tmp_path / "zebra.png", tmp_path / "zebra.npy"
    zebra = next((images / "n02391049").glob("[!b]*"))
    assert main(["explain", str(zebra), *squeezenet, "--layer", "fire9", "--class", "zebra", "--importance", str(tmp_path / "w"),
                 "--out", str(shot), "--raw", str(raw), "--json"]) == 0  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    assert said["label"] == "zebra" and said["state"] == "ok" and said["evidence"] == "pooled"
    assert np.load(raw).shape == (13, 13) and float(np.load(raw).max()) == pytest.approx(said["maximum"])
    with Image.open(shot) as image:
        assert image.size == (224, 224) and image.format == "PNG"
    # Fitting one class again leaves the other one's row in place.
    before = load_file(result["layers"][0]["file"])["W"]
    assert (
        main(
            [
                "fit",
                *squeezenet,
                "--layers",
                "fire9",
                "--images",
                str(images),
                "--gates",
                "6",
                "--classes",
                "zebra",
                "--out",
                str(tmp_path / "w"),
            ]
        )
        == 0
    )
    after = load_file(result["layers"][0]["file"])["W"]
    assert (before[31] != 0).any() and (after[31] == before[31]).all() and (after[340] != before[340]).any()


def test_explain_with_the_bundled_network_and_w(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path / "cache"))
    for layer in ("stage1", "stage5", "head"):
        assert (
            main(
                [
                    "explain",
                    str(photo),
                    "--network",
                    "efficientnet_lite0",
                    "--layer",
                    layer,
                    "--class",
                    "tabby",
                    "--out",
                    str(tmp_path / f"{layer}.png"),
                ]
            )
            == 0
        )
        assert "chip of tabby (p = 0." in capsys.readouterr().out
        assert (tmp_path / f"{layer}.png").is_file()


LITE0 = ["--network", "efficientnet_lite0"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "required: COMMAND"),
        (["dance"], "invalid choice"),
        (["fit", *LITE0, "--layers", "head"], "--images"),
        (["fit", *LITE0, "--layers", "head", "--images", "/nowhere"], "not a folder"),
        (["fit", *LITE0, "--layers", "tail", "--images", "PHOTOS"], "there is no layer 'tail'"),
        (["fit", *LITE0, "--layers", "head", "--images", "PHOTOS", "--gates", "0"], "gates is 0"),
        (["fit", *LITE0, "--layers", "head", "--images", "PHOTOS", "--gates", "many"], "invalid int value"),
        (["fit", *LITE0, "--layers", "head", "--images", "PHOTOS", "--classes", "zebbra"], "there is no class 'zebbra'"),
        (["fit", *LITE0, "--layers", "head", "--images", "PHOTOS", "--photos-per-class", "0"], "whole number above 0"),
        (["fit", "--network", "efficientnet", "--layers", "head", "--images", "PHOTOS"], "did you mean efficientnet_"),
        (["explain", "PHOTO", *LITE0, "--class", "crane", "--out", "x.png"], "names 2 classes"),
        (["explain", "PHOTO", *LITE0, "--class", "zebra", "--out", "x.jpg"], "ends in .png"),
        (["explain", "PHOTO", *LITE0, "--class", "zebra", "--out", "x.png", "--opacity", "3"], "opacity is 3.0"),
        (["explain", "PHOTO", *LITE0, "--class", "zebra", "--out", "/proc/nowhere/x.png"], "cannot write"),
        (["explain", "README", *LITE0, "--class", "zebra", "--out", "x.png"], "not a photograph"),
        (["explain", "/nowhere.jpg", *LITE0, "--class", "zebra", "--out", "x.png"], "does not exist"),
        (["explain", "PHOTO", *LITE0, "--layer", "blocks.0.depthwise.0", "--class", "zebra", "--out", "x.png"], "not fitted"),
        (["explain", "PHOTO", *LITE0, "--layer", "classifier", "--class", "zebra", "--out", "x.png"], "not feature maps"),
        (["explain", "PHOTO", *LITE0, "--class", "zebra", "--out", "x.png", "--device", "cuda"], "no cuda device"),
    ],
)
def test_mistakes_get_one_line_and_status_2(arguments: list[str], sentence: str, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    places = {"PHOTO": str(photo), "PHOTOS": str(photo.parent), "README": str(ROOT / "README.md")}
    assert main([places.get(one, one) for one in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("chipcore: ") and sentence in err


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "chipcore", "explain"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
