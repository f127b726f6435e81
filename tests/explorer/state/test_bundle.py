"""Every bundle's command, run in the folder that the bundle was unpacked to, makes the arrays that the bundle holds."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from chipcore import Importance, Network
from chipcore.cli import common
from chipcore.cli.main import main
from explorer.components import downloads
from explorer.components.downloads import Export
from explorer.state import queues

OpenApp = Callable[..., AppTest]
ROOT = Path(__file__).resolve().parent.parent.parent.parent
SLIM = {"model": "vgg16_slim", "class": "12", "layer": "pool5"}  # class 12 is elephant, not in the image


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], Export]]:
    """What the download buttons of the page would give, by their key."""
    found: dict[str, Callable[[], Export]] = {}

    def offer(key: str, stem: str, take: Callable[[], Export], *, table: bool = False, folded: str = "") -> None:
        found[key] = take

    monkeypatch.setattr(downloads, "offer", offer)
    return found


@pytest.fixture
def repeat(takes: dict[str, Callable[[], Export]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Unpacks a bundle, runs its commands there, and gives its arrays and a reader of what the commands wrote."""

    real = common.load_network
    loaded: dict[str, Network] = {}

    def load(name: str, **more: Any) -> Network:  # once for all lines of a bundle
        key = repr((name, more))
        loaded[key] = loaded.get(key) or real(name, **more)
        return loaded[key]

    monkeypatch.setattr(common, "load_network", load)

    def run(key: str, *, shell: bool = False) -> tuple[dict[str, np.ndarray], Callable[[str], Any], dict[str, Any]]:
        folder = tmp_path / key
        folder.mkdir(exist_ok=True)
        taken = takes[key]()
        with zipfile.ZipFile(io.BytesIO(downloads.bundle(taken))) as archive:
            archive.extractall(folder)
        about = json.loads((folder / "about.json").read_text())
        assert about["command"] and about["settings"]["weights_sha256"]
        with Image.open(folder / "picture.png") as picture:
            assert min(picture.size) > 100
        monkeypatch.chdir(folder)
        for line in about["command"].splitlines():
            words = shlex.split(line)
            assert words[:3] == ["python", "-m", "chipcore"]
            if shell:
                done = subprocess.run(
                    line.replace("python", shlex.quote(sys.executable), 1), shell=True, cwd=folder, capture_output=True, text=True,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                )  # fmt: skip
                assert done.returncode == 0, done.stderr
            else:
                assert main(words[3:]) == 0, line
        with np.load(folder / "arrays.npz") as arrays:
            return {name: arrays[name] for name in arrays.files}, lambda name: np.load(folder / name), about

    return run


def same(one: np.ndarray, other: np.ndarray) -> bool:
    scale = max(1e-6, float(np.abs(one).max()))
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-4, atol=1e-4 * scale))


def finished(app: AppTest) -> AppTest:
    for job in queues.slow_maps().jobs():
        assert job.finished.wait(120) and job.state == "done", job.error
    return app.run()


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# --- Explore --------------------------------------------------------------------------------------------------


def test_strip_with_refined_and_guided(open_app: OpenApp, takes: dict[str, Any], repeat: Any) -> None:
    open_app(**SLIM, also=["Refined CHIP", "Guided CHIP"])
    arrays, wrote, about = repeat("strip")
    methods = {name.split("-")[0] for name in arrays}
    assert methods == {"chip", "refined_chip", "guided_chip"} and len(arrays) == 17
    assert all(same(array, wrote(f"{name}.npy")) for name, array in arrays.items())
    assert about["settings"]["photograph_sha256"] == about["sha256"]["photograph.png"]


def test_maps_and_products_of_a_local_row(
    open_app: OpenApp, takes: dict[str, Any], repeat: Any, change_w: Callable[[Callable[[Importance, str], Importance]], None]
) -> None:
    """W has no row at pool5, so the map there is local; Refined and Guided CHIP are made from it."""

    def rowless(found: Importance, layer: str) -> Importance:
        return replace(found, W=found.W * 0, support=found.support * 0) if layer == "pool5" else found

    change_w(rowless)
    app = open_app(**{**SLIM, "class": "1"})
    finished(app)
    app.button_group(key="also").set_value(["Refined CHIP", "Guided CHIP"]).run()
    assert not app.exception
    arrays, wrote, about = repeat("strip")
    assert {"local_chip-pool5", "refined_chip-pool5", "guided_chip-pool5", "chip-pool4"} <= set(arrays)
    assert all(same(array, wrote(f"{name}.npy")) for name, array in arrays.items())
    refined = next(line for line in about["command"].splitlines() if "refined_chip-pool5" in line)
    assert "--local pool5" in refined
    assert np.abs(arrays["guided_chip-pool5"]).max() > 0
    added, wrote, _about = repeat("take-sum")
    assert all(same(added[name], wrote(f"{name}.npy")) for name in ("sum", "last", "whole"))


def test_the_sum_as_it_forms(open_app: OpenApp, takes: dict[str, Any], repeat: Any) -> None:
    open_app(**SLIM, added="3")
    arrays, wrote, _about = repeat("take-sum")
    assert all(same(arrays[name], wrote(f"{name}.npy")) for name in ("sum", "last", "whole"))
    assert not same(arrays["sum"], arrays["whole"])
    table = lines_of(takes["take-sum"]().table)
    assert [int(line["channel"]) for line in table] == arrays["order"].tolist()
    assert float(table[0]["contribution"]) == pytest.approx(float(arrays["contributions"][arrays["order"][0]]), rel=1e-5)


def test_one_channel(open_app: OpenApp, takes: dict[str, Any], repeat: Any) -> None:
    open_app(**SLIM, look="One channel", channel="7")
    arrays, wrote, _about = repeat("take-channel")
    written, rows = wrote("channel-7.npz"), wrote("rows.npz")
    assert same(arrays["features"], written["features"]) and written["channels"].tolist() == [7]
    assert rows["classes"].tolist() == arrays["classes"].tolist() and same(arrays["weights"], rows["W"][:, 7])
    table = lines_of(takes["take-channel"]().table)
    assert len(table) == 14 and [float(line["weight"]) for line in table] == sorted((float(line["weight"]) for line in table), reverse=True)


def test_closed_channels(open_app: OpenApp, takes: dict[str, Any], repeat: Any) -> None:
    open_app(**SLIM, look="Close channels", many="20")
    arrays, wrote, _about = repeat("take-closed")
    written = wrote("closed.npz")
    assert np.flatnonzero(~written["gates"][0]).tolist() == arrays["closed"].tolist() and len(arrays["closed"]) == 20
    assert same(arrays["probabilities"], written["probabilities"]) and len(written["probabilities"]) == 6, "the random ones, too"
    assert same(arrays["probabilities_all_open"], written["probabilities_all_open"])
    table = lines_of(takes["take-closed"]().table)
    assert len(table) == 14
    first = int(table[0]["class"])
    assert float(table[0]["closed"]) == pytest.approx(float(arrays["probabilities"][0, first]), rel=1e-4)
    assert float(table[0]["random_mean"]) == pytest.approx(float(arrays["probabilities"][1:, first].mean()), rel=1e-4)


# --- the other views ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("query", "key", "count"), [
    ({"methods": ["CHIP", "Grad-CAM", "Guided Backprop"], "with": "13"}, "take-compare", 6), ({"compare": "At every depth"}, "take-every-depth", 12),
])  # fmt: skip
def test_compared_maps(open_app: OpenApp, takes: dict[str, Any], repeat: Any, query: dict[str, Any], key: str, count: int) -> None:
    open_app("compare", **SLIM, **query)
    arrays, wrote, _about = repeat(key)
    maps = {name: array for name, array in arrays.items() if name not in ("pearson", "rank", "correlated")}
    assert len(maps) == count
    assert all(same(array, wrote(f"{name}.npy")) for name, array in maps.items())


def test_heat_map_venn_and_neighbors(open_app: OpenApp, takes: dict[str, Any], repeat: Any, slim: Network) -> None:
    app = open_app("channels", **SLIM, topk="12", share="1/10")
    app.session_state["channels-painted"] = True  # as the browser says; downloads and what is below come afterwards
    app.run()
    arrays, wrote, _about = repeat("channels")
    assert same(arrays["W"], wrote("rows.npz")["W"]) and wrote("rows.npz")["classes"].tolist() == arrays["classes"].tolist()
    arrays, wrote, _about = repeat("take-venn")
    assert all((arrays[name] == wrote("venn.npz")[name]).all() for name in ("classes", "top", "above"))
    assert arrays["top"].sum(1).max() == 12
    table = lines_of(takes["take-venn"]().table)
    everything = [int(k) for line in table if line["diagram"].startswith("the 12") for k in line["channels"].split()]
    assert sorted(everything) == np.flatnonzero(arrays["top"].any(0)).tolist(), "every channel in exactly one region"
    arrays, wrote, about = repeat("take-near")
    whole = wrote("all.npz")
    target = whole["classes"].tolist().index(12)
    for name in ("shared", "jaccard", "cosine"):
        told = dict(zip(whole["classes"].tolist(), whole[name][target].tolist(), strict=True))
        assert arrays[name] == pytest.approx(np.array([told[index] for index in arrays["classes"]]), abs=1e-5), name
    assert same(arrays["tree_cosine"], wrote("tree.npz")["cosine"])
    assert about["settings"]["nearest_to"] == slim.classes.labels[12]


def test_mask_box_and_curves(open_app: OpenApp, takes: dict[str, Any], repeat: Any, capsys: pytest.CaptureFixture[str]) -> None:
    open_app("localize", model="vgg16_slim", layer="pool5", located=["CHIP", "Grad-CAM"], threshold="30", box="40,10,120,110")
    arrays, wrote, about = repeat("take-boxes")
    told = capsys.readouterr().out
    answers = [json.loads(part + "}") for part in told.split("\n}\n") if part.strip()]
    assert len(answers) == 2 and answers[0]["box"] == arrays["box"].tolist() and answers[0]["threshold"] == 0.3
    assert (wrote("chip_mask.npy") == arrays["mask"]).all() and arrays["mask"].any()
    for name, answer in zip(("chip", "gradcam"), answers, strict=True):
        assert same(arrays[f"{name}_raw"], wrote(f"{name}_raw.npy"))
        assert answer["iou_at_every_hundredth"] == pytest.approx(arrays[f"{name}_iou"].tolist(), abs=1e-5)
    assert answers[0]["iou"] == pytest.approx(float(arrays["chip_iou"][30]), abs=1e-5)
    assert about["settings"]["true_boxes"] == [[40, 10, 120, 110]]


def test_the_grid_game_in_a_shell(open_app: OpenApp, takes: dict[str, Any], repeat: Any) -> None:
    """The visitor's four images in the visitor's order."""
    app = open_app(
        "localize", model="vgg16_slim", layer="pool5", located=["CHIP", "Grad-CAM"], tiles=["rocket", "cat", "coffee", "astronaut"]
    )
    app.button(key="play").click().run()
    finished(app)
    arrays, wrote, about = repeat("take-grid", shell=True)
    written = wrote("grid.npz")
    assert set(arrays) == set(written.files) and len(arrays) == 9
    assert (arrays["mosaic"] == written["mosaic"]).all(), "the same photographs at the same places"
    assert all(same(arrays[name], written[name]) for name in arrays)
    assert [one["name"] for one in about["settings"]["photographs"]] == list(app.pills(key="tiles").value)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6])
def test_lessons(open_app: OpenApp, takes: dict[str, Any], repeat: Any, step: int) -> None:
    app = open_app("learn", **{**SLIM, "class": "11"}, step=str(step), open="40", sigma="1/4", **{"lambda": "0.02", "sum-of": "4"})
    finished(app)
    assert not app.exception
    assert [one.label for one in app.expander].count("What you should see") == 1
    arrays, wrote, about = repeat("learn")
    assert about["settings"]["lesson"] and "photograph.png" in about["sha256"]
    if step <= 3:
        written = wrote("gate.npz")
        assert (written["gates"][0] == arrays["gate"].astype(bool)).all() and arrays["gate"].sum() == 51
    if step == 1:
        assert same(arrays["z"], written["z"][0])
    elif step == 2:
        assert same(arrays["scores_gated"], written["scores"][0]) and same(arrays["scores_all_open"], written["scores_all_open"])
    elif step == 3:
        assert float(written["proximity"][0]) == pytest.approx(float(arrays["proximity"]))
    elif step == 4:
        # Two ways to the same minimum: the lesson goes along the whole path of lambda.
        ours, theirs = torch.tensor(arrays["map"]).flatten(), torch.tensor(wrote("map.npy")).flatten()
        assert float(torch.corrcoef(torch.stack([ours, theirs]))[0, 1]) > 0.999
    else:
        names = ("part", "whole") if step == 5 else ("chip", "gradcam", "local_chip")
        assert all(same(arrays[name], wrote(f"{name}.npy")) for name in names)
