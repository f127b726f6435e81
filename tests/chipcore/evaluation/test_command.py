"""The commands end to end on a handful of real images, and one sentence for every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import chipcore
from chipcore.cli.main import main
from chipcore.datasets.ilsvrc import Ilsvrc
from chipcore.evaluation import localization
from chipcore.evaluation.benchmark import MethodSet

LITE0 = ["--network", "efficientnet_lite0", "--methods", "chip", "gradcam", "--layer", "head"]


def evaluate(kind: str, folder: Path, out: Path, *more: str) -> dict[str, Any]:
    assert main(["evaluate", kind, *LITE0, "--data", str(folder), "--json", str(out), *more]) == 0
    return json.loads(out.read_text())


def test_localization(data: Path, rivals: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate("localization", data / "ilsvrc_val_dev", tmp_path / "new" / "r.json", "--limit", "8", "--layer", "stage5")
    assert (
        set(found["layers"]) == {"head", "stage5"} and found["baseline"] == "gradcam" and found["network"].startswith("efficientnet_lite0-")
    )
    head = found["layers"]["head"]
    assert head["images"] + head["skipped"] == 8 and 0 < head["methods"]["chip"]["max_box_acc"] <= 1
    wanted = {
        "max_box_acc",
        "max_box_acc_v2",
        "threshold",
        "energy_pointing",
        "top1_loc_error",
        "top5_loc_error",
        "images",
        "seconds_per_image",
    }
    assert wanted <= set(head["methods"]["chip"]) and {"difference", "low", "high"} == set(
        head["methods"]["chip"]["difference"]["max_box_acc"]
    )
    assert {"date", "command", "fingerprint", "seed", "importance", "broken"} <= set(found) and found["importance"]["head"]["settings"]
    assert "MaxBoxAcc" in capsys.readouterr().out
    # The file has what the library gives for the same images: every figure, not only its range.
    network = chipcore.load_network("efficientnet_lite0")
    source = Ilsvrc(data / "ilsvrc_val_dev", network.classes, network.geometry)
    methods = MethodSet.of(network, ["head", "stage5"], ["chip", "gradcam"], options={"seed": 0})
    expected = json.loads(localization.evaluate(methods, source, limit=8).to_json())["layers"]
    for layers in (found["layers"], expected):
        for layer in layers.values():
            for method in layer["methods"].values():
                method.pop("seconds_per_image")
    assert found["layers"] == expected


def test_segmentation_and_pointing_on_coco(data: Path, rivals: None, tmp_path: Path) -> None:
    found = evaluate("segmentation", data / "coco128", tmp_path / "s.json", "--limit", "8")
    head = found["layers"]["head"]
    assert found["data_set"] == "COCO panoptic masks" and head["objects"] > 2 and 0 < head["methods"]["chip"]["iou"] < 1
    found = evaluate("pointing", data / "coco128", tmp_path / "p.json", "--limit", "8")
    assert 0 <= found["layers"]["head"]["methods"]["chip"]["pointing"] <= 1 and found["layers"]["head"]["objects"] == head["objects"]


def test_the_grid_on_class_folders(data: Path, rivals: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate("pointing", data / "classes", tmp_path / "g.json", "--grid", "2", "--limit", "2", "--confidence", "0.8")
    assert found["mosaics"] == 2 and found["mosaic_size"] == 448 and found["layers"]["head"]["methods"]["chip"]["grid_pointing"] > 0.5
    assert "chance is 25.0" in capsys.readouterr().out


def test_faithfulness(data: Path, rivals: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate("faithfulness", data / "classes", tmp_path / "f.json", "--limit", "2", "--steps", "4", "--channel-steps", "4")
    head = found["layers"]["head"]
    assert head["channels"]["W x activation"]["closing_auc"] < head["channels"]["random"]["closing_auc"]
    assert (
        head["methods"]["chip"]["sanity"]["last"]["spearman"] == pytest.approx(1)
        and head["methods"]["chip"]["sanity"]["all"]["spearman"] < 0.9
    )
    assert "closing channels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["localization", "--data", "DATA/classes", "--layer", "head", "--methods", "chip"], "not laid out like ILSVRC"),
        (["localization", "--data", "DATA/nowhere", "--layer", "head", "--methods", "chip"], "not a folder"),
        (["pointing", "--data", "DATA/classes", "--layer", "head", "--methods", "grandcam"], "there is no method"),
        (["pointing", "--data", "DATA/classes", "--layer", "tail", "--methods", "chip"], "there is no layer"),
        (["faithfulness", "--data", "DATA/classes", "--layer", "head", "--methods", "chip", "--json", "/"], "is a folder"),
        (["faithfulness", "--data", "DATA/classes", "--layer", "head", "--methods", "chip", "--limit", "-1"], "whole number"),
        (["localisation"], "invalid choice"),
    ],
)
def test_a_mistake_is_one_sentence(data: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = [one.replace("DATA", str(data)) for one in arguments]
    assert main(["evaluate", *given[:1], "--network", "efficientnet_lite0", *given[1:]]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("chipcore: ") and words in said and "\n" not in said
