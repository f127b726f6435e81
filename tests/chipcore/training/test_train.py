"""Real training runs, small ones: they learn, they can be interrupted, and mistakes are told in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from chipcore.cli.main import main
from chipcore.errors import ChipError
from chipcore.training import TrainSettings, load_trained, train
from chipcore.training.evaluation import evaluate
from chipcore.training.trainer import Progress

CLASSES = ("church", "frog", "zebra")
TINY = TrainSettings(epochs=3, size=64, width=4, batch=8, warmup=0, learning_rate=0.03)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over several threads may round differently from run to run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of each of three classes to train on, and 8 others of each for validation."""
    root = tmp_path_factory.mktemp("few")
    for name in CLASSES:
        files = sorted((data / "fourteen" / "train" / name).iterdir())[:32]
        for part, some in (("train", files[:24]), ("val", files[24:])):
            (root / part / name).mkdir(parents=True)
            for file in some:
                (root / part / name / file.name).symlink_to(file)
    return root


def weights(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_small_run_learns_and_what_it_wrote_can_be_read(folders: Path, tmp_path: Path) -> None:
    settings = TrainSettings(epochs=12, size=64, width=8, batch=8, learning_rate=0.03)
    trained = train(folders / "train", settings, tmp_path)
    history = trained.facts["history"]
    assert [facts["crop"] for facts in history] == [32] * 7 + [64] * 5
    assert history[-1]["loss"] < 0.85 * history[0]["loss"], history
    measured = evaluate(trained.network, folders / "train", CLASSES)
    assert measured.top1 > 0.6, measured.confusion
    assert measured.confusion.sum(1).tolist() == [24, 24, 24]
    again = load_trained(tmp_path / "vgg16_slim.safetensors")
    assert again.weights_sha256 == trained.network.weights_sha256
    assert again.classes.names == CLASSES and again.geometry.size == 64
    assert torch.equal(evaluate(again, folders / "train", CLASSES).confusion, measured.confusion)


class Stop(Exception):
    pass


def interrupted(images: Path, settings: TrainSettings, out: Path, epoch: int) -> None:
    """A run that dies in the middle of an epoch."""

    def die(progress: Progress) -> None:
        if progress.stage == f"epoch {epoch}" and progress.done == 2:
            raise Stop

    with pytest.raises(Stop):
        train(images, settings, out, progress=die)


def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(folders: Path, tmp_path: Path) -> None:
    images = folders / "train"
    whole = weights(train(images, TINY, tmp_path / "whole").weights)
    interrupted(images, TINY, tmp_path / "broken", 3)
    lines: list[Progress] = []
    resumed = train(images, TINY, tmp_path / "broken", resume=True, progress=lines.append)
    assert [line.done for line in lines if line.line] == [3], "only the third epoch was left to do"
    assert len(resumed.facts["history"]) == 3
    assert same(weights(resumed.weights), whole)


def test_a_run_in_its_flat_part_may_be_given_another_number_of_epochs(folders: Path, tmp_path: Path) -> None:
    images = folders / "train"
    whole = weights(train(images, TINY, tmp_path / "whole").weights)
    longer = TrainSettings(**{**TINY.as_dict(), "epochs": 20})
    interrupted(images, longer, tmp_path / "longer", 3)
    assert same(weights(train(images, TINY, tmp_path / "longer", resume=True).weights), whole)
    with pytest.raises(ChipError, match="cannot resume: epochs changed"):  # it stands at epoch 3 of 3, beyond the flat part
        train(images, longer, tmp_path / "longer", resume=True)


def test_the_seed_decides_everything_and_leaves_the_callers_generator_alone(folders: Path, tmp_path: Path) -> None:
    images = folders / "train"
    one = TrainSettings(**{**TINY.as_dict(), "epochs": 1})
    state = torch.get_rng_state()
    first = weights(train(images, one, tmp_path / "1").weights)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert same(weights(train(images, one, tmp_path / "2").weights), first)
    other = TrainSettings(**{**one.as_dict(), "seed": 1})
    assert not same(weights(train(images, other, tmp_path / "3").weights), first)


def test_the_command_trains_measures_and_resumes(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "train",
        "--images",
        str(folders / "train"),
        "--validation",
        str(folders / "val"),
        "--epochs",
        "1",
        "--size",
        "64",
        "--width",
        "4",
    ]
    words += ["--batch", "8", "--device", "cpu", "--name", "lesson", "--out", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert "epoch 1" in captured.err and "Traceback" not in captured.err
    assert result["photographs"] == 72 and result["validation"]["photographs"] == 24
    assert sum(map(sum, result["validation"]["confusion"])) == 24
    assert result["validation"]["top1"] == round(sum(result["validation"]["confusion"][i][i] for i in range(3)) / 24, 4)
    assert json.loads((tmp_path / "lesson.result.json").read_text()) == result
    assert load_trained(tmp_path / "lesson.safetensors").name == "lesson"
    assert main([*words, "--resume"]) == 0
    assert "top-1 on 24 photographs" in capsys.readouterr().out


def test_a_teacher_is_asked_once_and_helps(folders: Path, tmp_path: Path) -> None:
    settings = TrainSettings(**{**TINY.as_dict(), "epochs": 2, "teacher": "efficientnet_lite0"})
    stages: list[str] = []
    first = train(folders / "train", settings, tmp_path, progress=lambda progress: stages.append(progress.stage))
    assert "teacher" in stages
    stages.clear()
    again = train(folders / "train", settings, tmp_path, progress=lambda progress: stages.append(progress.stage))
    assert "teacher" not in stages, "its maps were kept"
    assert same(weights(first.weights), weights(again.weights))
    assert not any("imitate" in key for key in weights(first.weights)), "what served imitation only is not shipped"
    assert not any("norm" in key for key in weights(first.weights))


def test_an_unreadable_image_is_left_out_and_named(folders: Path, tmp_path: Path) -> None:
    for name in CLASSES[:2]:
        (tmp_path / "train" / name).mkdir(parents=True)
        for file in sorted((folders / "train" / name).iterdir())[:5]:
            (tmp_path / "train" / name / file.name).symlink_to(file.resolve())
    (tmp_path / "train" / CLASSES[0] / "broken photo.jpg").write_bytes(b"not a photograph")
    trained = train(tmp_path / "train", TrainSettings(**{**TINY.as_dict(), "epochs": 1, "batch": 10}), tmp_path / "out")
    assert trained.facts["photographs"] == 10
    assert len(trained.facts["unreadable"]) == 1 and "broken photo.jpg" in trained.facts["unreadable"][0]
    measured = evaluate(trained.network, tmp_path / "train", CLASSES[:2])
    assert measured.confusion.sum() == 10 and len(measured.unreadable) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--images", "{few}/train/zebra"], "lies outside the class folders"),
        (["--images", "{one}"], "only the class 'zebra'; give at least two"),
        (["--images", "{few}/none"], "is not a folder"),
        (["--images", "{few}/train", "--validation", "{few}"], "class folders that the training set lacks: train, val"),
        (["--images", "{few}/train", "--size", "40"], "size is 40 px; give 64 to 512"),
        (["--images", "{few}/train", "--epochs", "0"], "epochs is 0"),
        (["--images", "{few}/train", "--width", "0"], "width is 0"),
        (["--images", "{few}/train", "--batch", "1"], "batch norm needs at least 2"),
        (["--images", "{few}/train", "--batch", "73"], "fewer than a batch of 73"),
        (["--images", "{few}/train", "--learning-rate", "0"], "above 0"),
        (["--images", "{few}/train", "--learning-rate", "1e9", "--batch", "8", "--size", "64", "--width", "2"], "the loss became infinite"),
        (["--images", "{few}/train", "--teacher", "squeezenet1_00"], "invalid choice"),
        (["--images", "{few}/train", "--name", "../x"], "file name without folders"),
        (["--images", "{few}/train", "--resume", "--out", "{damaged}"], "is damaged; leave --resume out"),
    ],
)
def test_mistakes_cost_one_sentence_and_status_2(
    words: list[str], sentence: str, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "zebra").symlink_to(folders / "train" / "zebra")
    (tmp_path / "one" / "zebra").unlink()
    (tmp_path / "one" / "zebra").mkdir()
    (tmp_path / "one" / "zebra" / "1.jpg").symlink_to(next((folders / "train" / "zebra").iterdir()).resolve())
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "vgg16_slim.checkpoint.pt").write_bytes(b"half a file")
    places = {"few": folders, "one": tmp_path / "one", "damaged": tmp_path / "damaged"}
    filled = [word.format(**places) for word in words]
    assert main(["train", *([] if "--out" in words else ["--out", str(tmp_path / "out")]), *filled, "--device", "cpu"]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_a_checkpoint_of_other_images_or_settings_is_refused(folders: Path, tmp_path: Path) -> None:
    interrupted(folders / "train", TINY, tmp_path, 2)
    for images, settings, words in (
        (folders / "val", TINY, "the photographs"),
        (folders / "train", TrainSettings(**{**TINY.as_dict(), "seed": 5, "width": 8}), "width, seed"),
    ):
        with pytest.raises(ChipError, match=f"cannot resume: .*{words} changed"):
            train(images, settings, tmp_path, resume=True)
