"""A fit of networks whose outputs are no plain logits: rows from the right f^c, a reason where there are none, W z + b from the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

import chipcore
from chipcore.cli.main import main
from chipcore.errors import ImportanceError

NETS = """
import torch
from torch import nn

def build(end=nn.Sigmoid(), outputs=2, bias=0.0):
    torch.manual_seed(0)
    head = nn.Linear(6, outputs)
    nn.init.constant_(head.bias, bias)
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head, end)

def multilabel():
    return build()

def unseen():  # both answers are no, always
    return build(bias=-40.0)

def binary():
    return build(nn.Identity(), 1)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "nets_of_outputs.py").write_text(NETS)
    (tmp_path / "images").mkdir()
    random = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def run(*arguments: str) -> int:
    return main([*arguments, "--size", "16", "--device", "cpu"])


def test_multilabel_rows_are_weighted_by_the_sigmoid(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--network", "nets_of_outputs:multilabel", "--layers", "1", "--images", "images", "--gates", "20", "--json") == 0
    out, err = capsys.readouterr()
    assert "note: the sigmoid at the end of nets_of_outputs:multilabel is taken off" in err
    path = Path(json.loads(out)["layers"][0]["file"])
    network = chipcore.load_network("nets_of_outputs:multilabel", size=16)
    importance = chipcore.load_importance(network, "1")
    images = [network.input(Image.open(one)) for one in sorted((folder / "images").iterdir())]
    f = network.probabilities(torch.cat(images))
    assert f.sum(1).max() != pytest.approx(1.0) and path.is_file()
    assert float(importance.evidence_mass[0]) <= float(f[:, 0].sum()) + 1e-4, "held-out images are not counted"
    with pytest.raises(ImportanceError, match="outputs taken as multilabel"):
        chipcore.load_importance(chipcore.load_network("nets_of_outputs:multilabel", size=16, outputs="logits"), "1")


def test_a_fit_without_a_row_says_why_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("fit", "--network", "nets_of_outputs:unseen", "--layers", "1", "--images", "images", "--gates", "10", "--out", "W")
    assert run(*arguments, "--background", "0") == 2
    _out, err = capsys.readouterr()
    assert "no row of W could be learned: the photographs hold too little" in err and "Traceback" not in err
    assert not list((folder / "W").rglob("*.safetensors"))


def test_w_z_plus_b_from_the_file_alone(folder: Path) -> None:
    """Behind pooling and one linear map g is linear in z: W z + b is the score, and b the network's own bias."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    nn.init.constant_(model[4].bias, 3.0)
    network = chipcore.wrap(model, labels=["cat", "dog"], size=16)
    settings = chipcore.FitSettings(gates=200, intercept=True, lambda_ratio=1e-6)
    fitted = chipcore.fit(network, network.layers[0].name, folder / "images", settings)
    path = fitted[network.layers[0].name].save(str(folder / "W"))
    with safe_open(path, framework="np") as file:
        W, b = file.get_tensor("W"), file.get_tensor("intercept")
        told = json.loads(file.metadata()["chipcore"])
    assert told["class_names"] == ["cat", "dog"] and told["outputs"] == "logits"
    inputs = network.input(Image.open(folder / "images" / "0.png"))
    with torch.inference_mode():
        z, scores = model[:4](inputs)[0].numpy(), model(inputs)[0].numpy()
    np.testing.assert_allclose(W @ z + b, scores, rtol=0.02, atol=0.02)
    np.testing.assert_allclose(b, 3.0, rtol=0.05)
