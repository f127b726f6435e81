"""Shards that never meet give the W of one run; what is missing, doubled or foreign is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import chipcore
from chipcore.cli.main import main
from chipcore.errors import ChipError, DataError, SettingsError
from chipcore.fitting.distributed import Shard
from chipcore.fitting.pipeline import Progress
from chipcore.fitting.settings import FitSettings
from chipcore.fitting.shards import fit_shard, merge, shard_folder
from chipcore.fitting.status import statuses
from chipcore.importance import Importance
from chipcore.networks import load_network
from conftest import tiny_network

SETTINGS = FitSettings(gates=4, held_out=0.2)
LAYERS = ["early", "late"]
MEMORY = 1 << 10  # one layer a pass


def noise(root: Path, count: int, size: int = 8) -> Path:
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(root / f"{i:03}.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise(tmp_path_factory.mktemp("photographs"), 70)


@pytest.fixture(scope="module")
def three(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of a run, in one folder."""
    out = tmp_path_factory.mktemp("shards")
    for number in (3, 1, 2):
        fit_shard(tiny_network(), LAYERS, folder, SETTINGS, shard=Shard(number, 3), out=out, memory=MEMORY)
    return out


@pytest.fixture
def shards(three: Path, tmp_path: Path) -> Path:
    return shutil.copytree(three, tmp_path / "shards")


def assert_same(found: Importance, expected: Importance) -> None:
    torch.testing.assert_close(found.W, expected.W, rtol=0, atol=1e-6 * float(expected.W.abs().max()))
    assert expected.contrast_W is not None and found.contrast_W is not None
    torch.testing.assert_close(found.contrast_W, expected.contrast_W, rtol=0, atol=1e-6 * float(expected.contrast_W.abs().max()))
    torch.testing.assert_close(found.r2, expected.r2, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert torch.equal(found.images, expected.images)
    assert {**found.metadata, "date": ""} == {**expected.metadata, "date": ""}


@pytest.mark.parametrize("pooled_share", [0.0, 0.9])
@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_merged_shards_are_one_run(folder: Path, tmp_path: Path, count: int, pooled_share: float) -> None:
    """Of seven shards, two hold no images: 70 are five batches."""
    settings = replace(SETTINGS, pooled_share=pooled_share)
    whole = chipcore.fit(tiny_network(), LAYERS, folder, settings)
    assert float(whole["late"].W.abs().max()) > 0
    for number in range(1, count + 1):
        fit_shard(tiny_network(), LAYERS, folder, settings, shard=Shard(number, count), out=tmp_path, memory=MEMORY)
    merged = dict(merge([tmp_path]))
    assert list(merged) == LAYERS
    for layer, importance in merged.items():
        assert_same(importance, whole[layer])


def test_shards_in_folders_of_their_own_are_found(three: Path, tmp_path: Path) -> None:
    places = []
    for number in (1, 2, 3):
        source = shard_folder(three, Shard(number, 3))
        places.append(shutil.copytree(source, tmp_path / f"machine {number}" / source.name).parent)
    expected = dict(merge([three]))
    found = dict(merge([places[0], places[1] / "shard-2-of-3", places[2]]))
    assert torch.equal(found["late"].W, expected["late"].W)


def test_a_missing_shard_is_named(shards: Path) -> None:
    shutil.rmtree(shards / "shard-2-of-3")
    with pytest.raises(DataError, match=r"of 3 shards, 2 is missing"):
        list(merge([shards]))
    shutil.rmtree(shards / "shard-3-of-3")
    with pytest.raises(DataError, match=r"of 3 shards, 2, 3 are missing"):
        list(merge([shards]))


def test_a_doubled_shard_is_named(shards: Path) -> None:
    shutil.copytree(shards / "shard-2-of-3", shards / "copy")
    with pytest.raises(DataError, match=r"shard 2/3 is there 2 times .*copy"):
        list(merge([shards]))
    shutil.rmtree(shards / "copy")
    assert list(merge([shards, shards / "shard-2-of-3"])), "the same folder given twice is one shard"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": replace(SETTINGS, seed=1)}, "the settings"),
        ({"count": 4}, "the number of shards"),
        ({"classes": [0]}, "the classes"),
        ({"layers": ["late"]}, "the layers"),
        ({"seed": 1}, "the network's weights"),
        ({"images": 30}, "the photographs"),
    ],
)
def test_a_foreign_shard_is_named(shards: Path, folder: Path, tmp_path: Path, change: dict[str, object], words: str) -> None:
    shutil.rmtree(shards / "shard-3-of-3")
    given = {"settings": SETTINGS, "count": 3, "classes": (), "layers": LAYERS, "seed": 0, "images": 0, **change}
    images = noise(tmp_path / "others", 30) if given["images"] else folder
    fit_shard(
        tiny_network(given["seed"]), given["layers"], images, given["settings"], shard=Shard(3, given["count"]), out=shards,  # type: ignore[arg-type]
        classes=given["classes"],  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(DataError, match=rf"shard-3-of-. belongs to another run \(.*{words}.*differ"):
        list(merge([shards]))


def test_damage_is_named_and_never_in_w(shards: Path) -> None:
    path = shards / "shard-1-of-3" / "late.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"late\.npz is damaged"):
        list(merge([shards]))
    path.unlink()
    with pytest.raises(DataError, match="shard 1/3 in .* is not finished at late; run it again with --resume"):
        list(merge([shards]))
    (shards / "shard-2-of-3" / "shard.json").write_text("{")
    with pytest.raises(DataError, match=r"shard\.json is damaged"):
        list(merge([shards]))


def test_nothing_to_merge(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no shards"):
        list(merge([tmp_path]))
    with pytest.raises(DataError, match="is not a folder"):
        list(merge([tmp_path / "gone"]))


class Stop(Exception):
    pass


def test_an_interrupted_shard_says_how_far_it_is_and_resumes(folder: Path, shards: Path) -> None:
    expected = dict(merge([shards]))["late"].W
    place = shutil.rmtree(shards / "shard-1-of-3") or shards / "shard-1-of-3"
    given = {"shard": Shard(1, 3), "out": shards, "memory": MEMORY, "checkpoint_seconds": 0.0}

    def stop_at(batches: int) -> chipcore.fitting.pipeline.Report:
        left = [batches]

        def report(progress: Progress) -> None:
            left[0] -= progress.stage == "photographs"
            if left[0] < 0:
                raise Stop

        return report

    for batches, share in ((0, 0.0), (1, 0.25), (2, 0.5)):  # two batches a pass, two passes
        with pytest.raises(Stop):
            fit_shard(tiny_network(), LAYERS, folder, SETTINGS, progress=stop_at(batches), **given)  # type: ignore[arg-type]
        found, missing = statuses([shards])
        assert [one.shard for one in found] == ["1/3", "2/3", "3/3"] and not missing
        assert found[0].share == share and found[0].state == ("under way" if batches else "begun") and found[1].state == "finished"
        with pytest.raises(DataError, match="shard 1/3 .* is not finished"):
            list(merge([shards]))
    with pytest.raises(ChipError, match="the settings changed"):
        fit_shard(tiny_network(), LAYERS, folder, replace(SETTINGS, seed=1), resume=True, **given)  # type: ignore[arg-type]
    fit_shard(tiny_network(), LAYERS, folder, SETTINGS, resume=True, **given)  # type: ignore[arg-type]
    assert statuses([shards])[0][0].state == "finished" and not (place / "checkpoint").exists()
    assert torch.equal(dict(merge([shards]))["late"].W, expected)
    before = (place / "late.npz").stat().st_mtime_ns
    fit_shard(tiny_network(), LAYERS, folder, SETTINGS, resume=True, **given)  # type: ignore[arg-type]
    assert (place / "late.npz").stat().st_mtime_ns == before, "what is finished is not made again"


def test_shards_are_every_nth_batch() -> None:
    names = [f"{i}" for i in range(50)]
    assert Shard(1, 2).share(names) == tuple(names[:16] + names[32:48])
    assert Shard(2, 2).share(names) == tuple(names[16:32] + names[48:])
    assert sorted(name for number in range(1, 10) for name in Shard(number, 9).share(names)) == sorted(names)


def test_a_place_in_a_job_array(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Shard.parse("3/64") == Shard(3, 64)
    monkeypatch.delenv("SLURM_ARRAY_TASK_COUNT", raising=False)
    with pytest.raises(SettingsError, match="SLURM_ARRAY_TASK_COUNT"):
        Shard.parse("slurm")
    for variables, expected in (
        ({"ID": "0", "COUNT": "64", "MIN": "0"}, Shard(1, 64)), ({"ID": "64", "COUNT": "64", "MIN": "1"}, Shard(64, 64)),
        ({"ID": "14", "COUNT": "3", "MIN": "10", "STEP": "2"}, Shard(3, 3)),
    ):  # fmt: skip
        for name in ("ID", "COUNT", "MIN", "STEP"):
            monkeypatch.delenv(f"SLURM_ARRAY_TASK_{name}", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
        assert Shard.parse("slurm") == expected
    for bad in ("0/4", "5/4", "4", "a/b", "1/0", "1/9999999", "-1/4"):
        with pytest.raises(SettingsError):
            Shard.parse(bad)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(tmp_path / "photos", 20, size=40)
    (images / "019.png").write_bytes(b"no photograph")
    fit = ["fit", "--network", "vgg16_slim", "--layers", "pool5", "--images", str(images), "--gates", "2"]
    assert main([*fit, "--shard", "1/2"]) == 2
    assert "give --out" in capsys.readouterr().err
    out = tmp_path / "out"
    assert main([*fit, "--shard", "1/2", "--out", str(out)]) == 0
    assert "shard 1/2: moments of 16 photographs" in capsys.readouterr().out
    assert main(["merge", str(out), "--out", str(tmp_path / "w")]) == 2
    assert "of 2 shards, 2 is missing" in capsys.readouterr().err
    assert main(["status", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["missing"] == ["2/2"] and [one["state"] for one in told["runs"]] == ["finished"]
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
    assert main([*fit, "--shard", "slurm", "--out", str(out)]) == 0
    assert "019.png" in capsys.readouterr().err
    assert main(["status", str(out)]) == 0
    assert "vgg16_slim 2/2" in capsys.readouterr().out
    assert main(["merge", str(out), "--out", str(tmp_path / "w"), "--json"]) == 0
    captured = capsys.readouterr()
    assert "019.png" in captured.err and json.loads(captured.out)["layers"][0]["layer"] == "pool5"
    assert main([*fit, "--out", str(tmp_path / "one")]) == 0
    network = load_network("vgg16_slim")
    merged, whole = (chipcore.load_importance(network, "pool5", tmp_path / place) for place in ("w", "one"))
    assert_same(merged, whole)
    assert main(["status", str(tmp_path / "w")]) == 2
    assert "neither shards nor checkpoints" in capsys.readouterr().err


def test_merging_some_classes_leaves_an_earlier_w_alone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chipcore.fit(tiny_network(), ["late"], folder, SETTINGS)["late"].save(tmp_path / "w")
    fit_shard(tiny_network(), ["late"], folder, SETTINGS, shard=Shard(1, 1), out=tmp_path / "s", classes=[1])
    assert main(["merge", str(tmp_path / "s"), "--out", str(tmp_path / "w")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (chipcore.load_importance(tiny_network(), "late", tmp_path / "w").support > 0).sum() > 1
