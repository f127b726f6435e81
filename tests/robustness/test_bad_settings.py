"""Settings out of range, on the command line and in the library; every method, every evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data
from PIL import Image
from refusals import SLIM, files_below, load_once, said

from chipcore.errors import SettingsError
from chipcore.fitting.settings import FitSettings
from chipcore.images import InputGeometry
from chipcore.methods import METHODS
from chipcore.training.settings import TrainSettings


@pytest.fixture(autouse=True)
def networks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chipcore.cli.common.load_network", load_once)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "cat.png"
    path.parent.mkdir()
    Image.fromarray(skimage.data.chelsea()).resize((150, 100)).save(path)
    return path


NUMBERS = ("nan", "inf", "-inf", "-1", "0", "many", "1e999", "")

FIT = [
    *((["--gates", one], "gates") for one in ("0", "-5", "nan", "1.5", "many", "", "9" * 20)),
    *((["--sigma2", one], "sigma2") for one in NUMBERS),
    *((["--lambda-ratio", one], "lambda") for one in ("nan", "inf", "-1", "much")),
    *((["--memory", one], "memory") for one in (*NUMBERS, "1e300", "0.01")),
    *((["--seed", one], "seed") for one in ("1.5", "nan", "")),
    *((["--photos-per-class", one], "photos-per-class") for one in ("0", "-1", "x", "²")),
    (["--target", "logit"], "target"), (["--precision", "float16"], "precision"), (["--draw", "gaussian"], "draw"), (["--device", "tpu"], "device"),
    (["--layers", "pool5", "pool5", "pool9"], "there is no layer 'pool9'"), (["--layers"], "--layers"), (["--classes", "cat", "kat"], "did you mean cat"),
    *((["--size", one], "size") for one in ("0", "-3", "9", "1000000000", "x")),
    *((["--mean", *one.split()], "mean") for one in ("nan", "inf 0 0", "0 0", "0 0 0 0")),
    *((["--std", *one.split()], "std") for one in ("nan", "0", "-1 1 1", "inf", "1 1")),
]  # fmt: skip


@pytest.mark.parametrize(("more", "word"), FIT, ids=lambda one: " ".join(one) if isinstance(one, list) else None)
def test_fit(more: list[str], word: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(["fit", *SLIM, "--layers", "pool5", "--images", photo.parent, "--gates", "4", "--out", tmp_path / "w", *more], capsys)
    assert word in told.replace("lambda_ratio", "lambda").replace("GB are too little", "memory")
    assert files_below(tmp_path) == ["photos/cat.png"]


EXPLAIN = [
    *((["--opacity", one], "opacity") for one in ("nan", "inf", "-0.1", "1.1", "x")),
    (["--colour-map", "rainbow"], "colour-map"), (["--method", "psychic"], "method"), (["--out", "map.jpg"], "ends in .png"),
    *((["--method", "lime", "--option", one], "samples") for one in ("samples=0", "samples=-1", "samples=nan", "samples=1e9", "samples=10.5", f"samples={10**30}")),
    *((["--method", "lime", "--option", one], "seed") for one in ("seed=-1", "seed=0.5", f"seed={2**32}")),
    *((["--method", "lime", "--option", one], "NAME=NUMBER") for one in ("samples", "samples=", "samples=x", "=", "samples=²")),
    *((["--method", "deepdraw", "--option", one], "step") for one in ("step=nan", "step=-1", "step=inf")),
    (["--method", "occlusion", "--option", "windows=0"], "windows"), (["--method", "local_chip", "--option", "gates=0"], "gates"),
    (["--method", "chip", "--option", "gates=3"], "no option of chip 'gates'"), (["--method", "refined_chip", "--layer", "pool1"], "choose another layer"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "word"), EXPLAIN, ids=lambda one: " ".join(one)[:60] if isinstance(one, list) else None)
def test_explain(more: list[str], word: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert word in said(["explain", photo, *SLIM, "--class", "cat", "--out", tmp_path / "map.png", *more], capsys)
    assert files_below(tmp_path) == ["photos/cat.png"]


MORE = [
    *((["explain", "photos/cat.png", "--class", "cat", "--out", "m.png", *more], word) for more, word in (
        (["--channels", "999"], "channels 0 to 127"), (["--channels", "-1"], "channels 0 to 127"), (["--channels", "1", "--method", "gradcam"], "no sum over channels"),
        (["--local", "pool5", "--method", "gradcam"], "leave --local out"), (["--local", "pool9"], "no layer 'pool9'"), (["--threshold", "nan"], "threshold"),
        (["--threshold", "1"], "threshold"), (["--true-box", "1", "2", "3", "4"], "give --threshold"), (["--mask", "m.npy"], "give --threshold"),
        (["--threshold", "0.1", "--true-box", "9", "9", "3", "4"], "true-box"), (["--threshold", "0.1", "--true-box", "0", "0", "3", "160"], "160 x 160"),
        (["--threshold", "0.1", "--mask", "photos/cat.png"], "the photograph itself"), (["--option", "lambda_ratio=-1", "--method", "local_chip"], "lambda_ratio"),
    )),
    *((["gate", "photos/cat.png", *more], word) for more, word in (
        (["--close", "128"], "0 to 127"), (["--close", "-1"], "0 to 127"), (["--features", "128"], "0 to 127"), (["--random", "-1"], "random"),
        (["--random", "9999"], "random"), (["--sigma2", "0"], "sigma2"), (["--sigma2", "nan"], "sigma2"), (["--layer", "pool9"], "no layer 'pool9'"),
        (["--out", "g.txt"], ".npz"), (["--out", "photos/cat.png"], "the photograph itself"),
    )),
    *((["rows", *more], word) for more, word in (
        (["--top", "0"], "top"), (["--above", "1"], "above"), (["--above", "nan"], "above"), (["--classes", "psychic"], "no class 'psychic'"),
        (["--out", "r.json"], ".npz"), (["--importance", "photos"], "not fitted"),
    )),
    *((["evaluate", "pointing", "--layer", "pool5", "--methods", "gradcam", *more], word) for more, word in (
        ([], "give --data"), (["--mosaic", "photos/cat.png"], "4 photographs"), (["--data", "photos", "--mosaic", "photos/cat.png"], "one of them"),
        (["--data", "photos", "--raw", "m.npz"], "go with --mosaic"), (["--mosaic", *["photos/cat.png"] * 4, "--mosaic-classes", "1"], "as many classes"),
        (["--mosaic", *["photos/cat.png"] * 3, "photos/dog.png"], "dog.png"), (["--mosaic", *["photos/cat.png"] * 4, "--raw", "m.png"], ".npz"),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "word"), MORE, ids=lambda one: " ".join(one) if isinstance(one, list) else None)
def test_commands_of_the_views(
    arguments: list[str], word: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert word in said([*arguments, *SLIM], capsys)
    assert files_below(tmp_path) == ["photos/cat.png"]


EVALUATE = [
    (["localization"], "is not laid out like ILSVRC"), (["segmentation"], "holds no scene"),
    (["faithfulness", "--steps", "0"], "steps"), (["faithfulness", "--channel-steps", "0"], "steps"), (["faithfulness", "--parts", "x"], "parts"),
    (["pointing", "--grid", "2"], "no folder named after a class"), (["pointing", "--grid", "99999"], "grid"), (["pointing", "--tolerance", "-1"], "tolerance"),
    *((["pointing", "--grid", "2", "--confidence", one], "confidence") for one in ("nan", "-1", "2", "x")),
    (["faithfulness", "--limit", "-1"], "limit"), (["faithfulness", "--seed", "-1"], "seed"), (["faithfulness", "--methods", "psychic"], "no method 'psychic'"),
    (["faithfulness", "--methods", "gradcam", "gradcam"], "named twice"), (["faithfulness", "--layer", "pool9"], "no layer 'pool9'"),
    (["faithfulness", "--data", "/nowhere"], "not a folder"), (["faithfulness", "--lime-samples", "999999999", "--methods", "lime"], "samples"),
    (["faithfulness", "--json", "/proc/nowhere/x.json"], "cannot write"), (["faithfulness", "--methods", "deepdraw"], "makes a picture"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "word"), EVALUATE, ids=lambda one: " ".join(one) if isinstance(one, list) else None)
def test_evaluate(arguments: list[str], word: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["--methods", "gradcam", "--layer", "pool5"] if "--layer" not in arguments else ["--methods", "gradcam"]
    told = said(["evaluate", arguments[0], *SLIM, *base, "--data", photo.parent, "--json", tmp_path / "r.json", *arguments[1:]], capsys)
    assert word in told
    assert files_below(tmp_path) == ["photos/cat.png"]


TRAIN = [
    *((["--epochs", one], "epochs") for one in ("0", "-1", "nan")),
    *((["--size", one], "size") for one in ("1", "100000", "x")),
    *((["--width", one], "width") for one in ("0", "65")),
    *((["--batch", one], "batch") for one in ("1", "-1")),
    (["--teacher", "nobody"], "nobody"), (["--images", "/nowhere"], "not a folder"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "word"), TRAIN, ids=lambda one: " ".join(one) if isinstance(one, list) else None)
def test_train(more: list[str], word: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["train", "--images", photo.parent, "--validation", photo.parent, "--out", tmp_path / "trained", *more]
    assert word in said(given, capsys)
    assert files_below(tmp_path) == ["photos/cat.png"]


WRONG = (float("nan"), float("inf"), -float("inf"), -1.0)


@pytest.mark.parametrize("name", ["gates", "sigma2", "lambda_ratio", "cutoff", "held_out", "min_evidence"])
@pytest.mark.parametrize("value", WRONG)
def test_library_settings(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=name.replace("_ratio", "")):
        FitSettings(**{name: value})


@pytest.mark.parametrize("value", WRONG)
def test_geometry_and_training(value: float) -> None:
    with pytest.raises(SettingsError):
        InputGeometry(std=(value, 1.0, 1.0))
    if value != -1.0:
        with pytest.raises(SettingsError):
            InputGeometry(mean=(value, 0.0, 0.0))
    with pytest.raises(SettingsError):
        TrainSettings(learning_rate=value)


@pytest.mark.parametrize("name", METHODS)
def test_every_option_of_every_method(name: str) -> None:
    method = METHODS[name]
    for option in method.options:
        for value in (*WRONG, True, "3", None, 10**12):
            with pytest.raises(SettingsError, match=option):
                method._checked({option: value})
