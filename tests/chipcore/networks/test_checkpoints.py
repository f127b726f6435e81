"""What training programs write: state_dicts in wrappers, with prefixes, beside numbers and settings."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from chipcore.errors import CheckpointError
from chipcore.networks.weights import load_strictly, read_state_dict
from conftest import TinyNet

torch.manual_seed(0)
STATE = TinyNet().state_dict()


def under(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in STATE.items()}


WRITTEN: dict[str, Any] = {
    "plain": STATE,
    "DataParallel": {"epoch": 3, "state_dict": under("module.")},
    "Lightning": {"state_dict": {**under("model."), "criterion.weight": torch.ones(3)}, "hyper_parameters": {"lr": 1e-3}, "callbacks": {}},
    "compile": under("_orig_mod."),
    "DDP around compile": {"model": under("module._orig_mod.")},
    "SWA": {**under("module."), "n_averaged": torch.tensor(5)},
    "EMA beside the weights": {"model": STATE, "model_ema": {key: value + 1 for key, value in STATE.items()}},
    "EMA alone": {"ema": under("ema_model."), "step": 3},
    "params": {"params": STATE},
    "net": {"net": STATE, "acc": 93.1},
    "a backbone's own name": under("backbone.body."),
    "numpy and settings": {
        "model": STATE, "best": np.float64(0.9), "history": np.zeros(3), "args": argparse.Namespace(lr=0.1), "folder": pathlib.PurePosixPath("runs").name,
    },
    "thop": {**STATE, "total_ops": torch.zeros(1), "first.total_params": torch.zeros(1)},
}  # fmt: skip


@pytest.mark.parametrize(
    ("written", "suffix"),
    [*((written, ".pth") for written in WRITTEN), ("Lightning", ".ckpt"), ("net", ".bin"), ("DataParallel", ".pth.tar")],
)
def test_the_weights_are_found_and_loaded(written: str, suffix: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / f"w{suffix}"
    torch.save(WRITTEN[written], path)
    model = TinyNet()
    load_strictly(model, read_state_dict(path), "tiny", str(path))
    for key, value in model.state_dict().items():
        assert torch.equal(value, STATE[key]), key


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"optimizer": {"lr": 1}, "epoch": 3}, "holds no state_dict .*, but optimizer, epoch"),
        ({f"model.{key}": value for key, value in STATE.items() if key != "first.bias"}, "lacks first.bias; it holds|lacks first.bias"),
        ({"encoder.weight": torch.ones(2), "decoder.weight": torch.ones(2)}, "it holds decoder.weight, encoder.weight"),
        ({"model": torch.nn.Linear(2, 2)}, r"holds pickled code \(torch.nn.modules.linear.Linear\)"),
    ],
)
def test_what_was_found_is_named_where_it_does_not_fit(content: Any, sentence: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=sentence):
        load_strictly(TinyNet(), read_state_dict(path), "tiny", str(path))
