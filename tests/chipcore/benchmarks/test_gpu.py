"""``bench gpu`` in miniature on a tiny network: every part runs, in order, and says so where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from chipcore.benchmarks import agreement, gpu
from chipcore.cli.main import main
from conftest import tiny_network

PARTS = ["agreement", "predictions", "fit", "admm", "memory", "paper"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "load_network", lambda _name: tiny_network())
    monkeypatch.setattr(gpu, "_random_network", lambda _name: tiny_network())
    tiny = gpu.Plan((("tiny", ("early", "late")),), ("tiny", ("early", "late")), 3, 4, 6, 4, ((3, 8),), 1, 0.0)
    monkeypatch.setattr(gpu, "MINIATURE", tiny)


def test_every_part_runs_in_order_and_is_written_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written: list[list[str]] = []
    result = gpu.run(torch.device("cpu"), done=lambda so_far: written.append(list(so_far["parts"])))
    assert written == [PARTS[: count + 1] for count in range(6)]
    assert result["miniature"] and not [part for part in result["parts"].values() if "failed" in part]
    rows = {name: part["rows"] for name, part in result["parts"].items()}
    assert all(row["agrees"] for row in rows["agreement"]) and {row["numbers"] for row in rows["agreement"]} == set(agreement.TOLERANCES)
    assert max(row["difference"] for row in rows["agreement"] if row["numbers"] == "bfloat16") > 0, "bfloat16 was really used"
    assert [(row["layer"], row["numbers"]) for row in rows["predictions"]] == [
        (layer, kind) for layer in ("early", "late") for kind in ("tf32", "bfloat16")
    ]
    assert all(row["images"] == 3 and row["images_per_second"] == pytest.approx(3 / row["seconds"]) for row in rows["fit"])
    assert {"admm_cpu", "shared_cpu"} <= rows["admm"][0].keys()
    short = rows["memory"][1]
    assert short["halved"] and short["agrees"] and not short["real"] and short["batches_tried"][0] > short["batches_tried"][-1]
    for row, fitted in zip(rows["paper"], rows["fit"], strict=True):
        assert row["hours_on_1"] == pytest.approx(1_281_167 / fitted["images_per_second"] / 3600) == 8 * row["hours_on_8"]
    assert "in miniature: no figure means anything" in gpu.table(result)
    file = tmp_path / "gpu.json"
    assert main(["bench", "gpu", "--device", "cpu", "--json", str(file)]) == 0
    assert list(json.loads(file.read_text())["parts"]) == PARTS
    assert "hours_on_8" in capsys.readouterr().out


def test_a_part_that_fails_says_so_and_leaves_the_others_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_given: Any, **_named: Any) -> Any:
        raise RuntimeError("no kernel image\nand more")

    monkeypatch.setattr(gpu, "solve_shared", broken)
    file = tmp_path / "gpu.json"
    assert main(["bench", "gpu", "--device", "cpu", "--json", str(file)]) == 2
    parts = json.loads(file.read_text())["parts"]
    assert parts["admm"]["failed"] == "RuntimeError: no kernel image"
    assert list(parts) == PARTS and "rows" in parts["memory"] and "rows" in parts["paper"]
    captured = capsys.readouterr()
    assert "admm could not be measured" in captured.err and "failed, RuntimeError" in captured.out


def test_wrong_scores_on_the_device_are_found(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real, runs = agreement.perturbed_scores, [0]

    def skewed(*given: Any, **named: Any) -> torch.Tensor:
        runs[0] += 1
        return real(*given, **named) * (1 if runs[0] == 1 else 1.001)  # the first is the reference

    monkeypatch.setattr(agreement, "perturbed_scores", skewed)
    result = gpu.run(torch.device("cpu"))
    rows = {(row["what"], row["numbers"]): row for row in result["parts"]["agreement"]["rows"]}
    assert not rows["scores", "float32"]["agrees"] and rows["scores", "float32"]["difference"] == pytest.approx(1e-3, rel=0.05)
    runs[0] = 0
    assert main(["bench", "gpu", "--device", "cpu"]) == 2
    assert "scores (float32) differ from the CPU's" in capsys.readouterr().err
    assert rows["scores", "tf32"]["agrees"] and rows["gates", "float32"]["agrees"]


def test_the_kind_of_products_is_restored_afterwards() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    def fail() -> None:
        with gpu.numbers("tf32"):
            assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
