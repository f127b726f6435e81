"""The benchmarks' arithmetic on a tiny network; what they measure is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from chipcore.benchmarks import app, processes, timing
from chipcore.benchmarks import fit as bench
from chipcore.cli.main import main
from chipcore.networks import Network
from conftest import ROOT


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tiny: Network) -> None:
    monkeypatch.setattr(bench, "_SUFFICIENT", 0.0)
    monkeypatch.setattr(bench, "load_network", lambda _name: tiny)
    monkeypatch.setattr(bench, "best_matrix_product", lambda *_: 1e9)


@pytest.mark.usefixtures("quick")
def test_bench_fit_compares_the_same_predictions() -> None:
    result = bench.run(["tiny"], gates=40, turns=1)
    assert [row["layer"] for row in result["layers"]] == ["early", "late"]
    for row in result["layers"]:
        assert row["largest_difference"] < 1e-5
        assert row["ratio"] == pytest.approx(row["ours_per_second"] / row["plain_per_second"])
        assert row["bound"] > 1, "a suffix holds less than the network"
        assert row["share_of_matrix_product"] == pytest.approx(row["suffix_gflop"] * row["ours_per_second"])  # of a product at 1 GFLOP/s
        assert row["plain_batch"] <= 32
    late = result["layers"][1]
    # One gate at the last layer: a 3 x 3 convolution is behind it, the rest is a linear map of 5 features to 3 classes.
    assert late["suffix_gflop"] < result["layers"][0]["suffix_gflop"]
    text = bench.table(result)
    assert "tiny" in text and "bound" in text and len(text.splitlines()) == 4


@pytest.mark.usefixtures("quick")
def test_the_command_writes_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "b.json"
    assert main(["bench", "fit", "--networks", "tiny", "--gates", "8", "--data", str(tmp_path), "--json", str(file)]) == 0
    printed = capsys.readouterr()
    assert "plain/s" in printed.out and "no photographs" in printed.err
    assert json.loads(file.read_text())["gates"] == 8


def test_flops_of_onednns_product_are_counted() -> None:
    """torch's counter does not know the operator; a share of the peak without it would be a lie."""
    from chipcore.gating.linear_ops import linear

    with torch.inference_mode(), timing.counting() as counted:
        linear(torch.ones(3, 5), torch.ones(7, 5))
    assert counted.get_total_flops() == 2 * 3 * 5 * 7


def test_one_process_measures_what_the_other_does(data: Path, tmp_path: Path) -> None:
    """The scaling worker alone and in a team of two: every image is perturbed once, and the moments agree."""
    one, two = (processes._start(["scaling", str(data / "classes"), "6"], count, 1) for count in (1, 2))
    assert one["moments"] == pytest.approx(two["moments"], rel=1e-6)
    assert one["photographs_per_second"] > 0 and two["seconds_adding_up"] > 0


def test_a_benchmark_without_its_data_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chipcore", "bench", "solve", "--data", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and "synset_words.txt" in done.stderr and "Traceback" not in done.stderr


def test_a_benchmark_of_no_gates_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "fit", "--gates", "0"]) == 2
    assert "give at least 1" in capsys.readouterr().err


def test_bench_app_without_a_browser_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CHIP_CHROMIUM", "/no/such/browser")
    assert main(["bench", "app"]) == 2
    assert "needs Chromium or Chrome" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    assert main(["bench", "app"]) == 2
    assert "pip install playwright" in capsys.readouterr().err


def test_bench_app_says_what_was_met_missed_and_not_measured() -> None:
    seconds = {"server_up": [3.0], "ready": [2.0], "change": [0.3, 0.9], "heatmap": [], "heatmap_link": [4.0]}
    summary = {"ready": 2.0, "change_median": 0.6, "change_95": 0.9, "heatmap": None, "heatmap_link": 4.0}
    text = app.table({"network": "n", "processors": 2, "seconds": seconds, "summary": summary, "targets": app.TARGETS})
    assert ["meets" in line for line in text.splitlines()[1:4]] == [True, False, True]
    assert "MISSES 0.5" in text and "not measured" in text
