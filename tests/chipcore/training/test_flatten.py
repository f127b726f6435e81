"""What the VGG that flattens needs: folding behind linear layers, drawing by class, photographs without a class, a trained start."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from chipcore.cli.main import main
from chipcore.datasets.class_names import Classes
from chipcore.errors import ChipError
from chipcore.images import InputGeometry
from chipcore.networks import Network, load_network
from chipcore.networks.architectures.vgg_slim import LAYERS, VGG, fold_batch_norm
from chipcore.training import TrainSettings, load_trained, train
from chipcore.training.evaluation import evaluate
from chipcore.training.photographs import find_classes
from chipcore.training.start import start_from
from chipcore.training.teacher import mixed_precision
from chipcore.training.trainer import _order


def test_folding_batch_norm_behind_linear_layers_changes_no_score() -> None:
    torch.manual_seed(0)
    model = VGG(5, 2, 64, batch_norm=True).double()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.01, 4)  # type: ignore[union-attr]
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    plain = VGG(5, 2, 64).double()
    plain.load_state_dict(fold_batch_norm(model.state_dict()))
    x = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected, got = model.eval()(x), plain.eval()(x)
    assert torch.allclose(expected, got, rtol=1e-12, atol=1e-12) and expected.std() > 1e-3


def test_it_has_vgg16s_parts_and_stays_below_four_million_weights() -> None:
    model = VGG(64)
    linear = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert linear == [(128 * 4 * 4, 960), (960, 960), (960, 64)]
    assert sum(isinstance(m, torch.nn.Conv2d) for m in model.modules()) == 13
    assert sum(isinstance(m, torch.nn.MaxPool2d) for m in model.modules()) == 5
    assert not any(isinstance(m, torch.nn.AdaptiveAvgPool2d) for m in model.modules())
    assert sum(p.numel() for p in model.parameters()) < 4_000_000


@pytest.mark.parametrize("depth", ["pool5", "conv5_3", "pool1"])
def test_gates_close_channels_before_the_flattening(depth: str) -> None:
    """The gated suffix against the definition: the whole head on maps some of whose channels are zeros."""
    torch.manual_seed(1)
    model = VGG(4, 4, 64).eval()
    network = Network.wrap(
        model, name="small", layers=LAYERS, geometry=InputGeometry(64, "squash", 64), classes=Classes(("one", "two", "three", "four"))
    )
    layer = network.layer(depth)
    x = torch.rand(2, 3, 64, 64)
    gates = (torch.rand(2, 5, layer.channels) < 0.5).float()
    with torch.inference_mode():
        passed = network.forward_prefix(x)
        suffix = network.suffix(layer)
        features = passed.features[layer.path]
        got = suffix.scores(suffix.prepare(features), passed.side_inputs[layer.path], gates)
        name = layer.path.split(".")[-1]
        names = [key for key, _part in model.features.named_children()]
        rest = model.features[names.index(name) + 1 :]
        expected = torch.stack([model.head(rest(features * gates[:, n, :, None, None])) for n in range(5)], 1)
    assert torch.allclose(got, expected, atol=1e-4) and expected.std() > 1e-3


def test_a_network_starts_with_another_ones_convolutions_and_computes_the_same() -> None:
    source = load_network("vgg16_slim", download=False).model
    model = VGG(3, 16, 64, batch_norm=True)
    torch.manual_seed(0)
    x = torch.randn(8, 3, 64, 64)
    start_from("vgg16_slim", model, x)
    with torch.no_grad():
        expected = source.features(x)
        assert torch.allclose(model.eval().features(x), expected, atol=1e-4)
        assert torch.allclose(model.train().features(x), expected, atol=1e-3), "the statistics are those of these inputs"
    assert expected.max() > 0.1
    with pytest.raises(ChipError, match="other widths"):
        start_from("vgg16_slim", VGG(3, 4, 64, batch_norm=True), x)
    with pytest.raises(ChipError, match="no VGG of ours"):
        start_from("efficientnet_lite0", model, x)


def test_a_network_that_flattens_goes_on_from_one_that_does() -> None:
    source = load_network("vgg16_mini", download=False).model
    torch.manual_seed(0)
    x = torch.randn(16, 3, 128, 128)
    model = VGG(64, 16, 128, batch_norm=True)
    start_from("vgg16_mini", model, x)
    with torch.no_grad():
        expected = source(x)
        assert torch.allclose(model.eval()(x), expected, atol=1e-3)
    assert expected.std() > 0.1
    fewer = VGG(5, 16, 128, batch_norm=True)
    before = fewer.fc8.weight.clone()
    start_from("vgg16_mini", fewer, x)
    assert torch.equal(fewer.fc8.weight, before), "other classes keep the weights they were drawn with"
    smaller = VGG(64, 16, 64, batch_norm=True)
    start_from("vgg16_mini", smaller, x[:, :, :64, :64])
    assert torch.allclose(smaller.eval().features(x), source.features(x), atol=1e-1)


def test_classes_are_drawn_by_the_power_of_their_size() -> None:
    labels = torch.tensor([0] * 900 + [1] * 100 + [-1] * 50)
    readable = torch.arange(1050)
    drawn = torch.cat(
        [labels[_order(labels, readable, TrainSettings(balance=0.5, unlabeled=0.2), np.random.default_rng(i))] for i in range(20)]
    )
    share = [float((drawn == c).float().mean()) for c in (0, 1, -1)]
    # 900 ** 0.5 to 100 ** 0.5 is 3 to 1, of the 0.8 that have a class.
    assert share == pytest.approx([0.6, 0.2, 0.2], abs=0.015)
    once = _order(labels[:1000], readable[:1000], TrainSettings(), np.random.default_rng(0))
    assert sorted(once.tolist()) == list(range(1000)), "balance 1: every photograph once"


def test_photographs_without_a_class_take_part_and_are_no_class(data: Path, tmp_path: Path) -> None:
    for folder, source in (
        ("zebra", "fourteen/train/zebra"), ("church", "fourteen/train/church"), ("unlabeled", "ade20k/train_photos"),
    ):  # fmt: skip
        (tmp_path / "train" / folder).mkdir(parents=True)
        for file in sorted((data / source).iterdir())[:16]:
            (tmp_path / "train" / folder / file.name).symlink_to(file)
    found = find_classes(tmp_path / "train")
    assert found.classes == ("church", "zebra")
    assert sorted(found.labels.unique().tolist()) == [-1, 0, 1]
    words = [
        "train", "--images", str(tmp_path / "train"), "--epochs", "2", "--size", "64", "--width", "4", "--batch", "12", "--flatten",
        "--dropout", "0.3", "--balance", "0.5", "--unlabeled", "0.3", "--teacher", "efficientnet_lite0", "--device", "cpu",
        "--name", "flat", "--out", str(tmp_path / "out"), "--json",
    ]  # fmt: skip
    assert main(words) == 0
    facts = json.loads((tmp_path / "out" / "flat.json").read_text())
    assert facts["architecture"] == "vgg" and facts["classes"] == ["church", "zebra"] and facts["photographs"] == 48
    assert [line["crop"] for line in facts["history"]] == [64, 64], "three quarters of 64 px, in steps of 32"
    result = json.loads((tmp_path / "out" / "flat.result.json").read_text())
    assert "--flatten" in result["command"] and "--balance 0.5" in result["command"]
    network = load_trained(tmp_path / "out" / "flat.safetensors")
    assert isinstance(network.model, VGG) and network.geometry.size == 64
    (tmp_path / "train" / "unlabeled").rename(tmp_path / "apart")
    assert int(evaluate(network, tmp_path / "train", network.classes.names).confusion.sum()) == 32


def test_flattening_wants_a_size_in_steps_of_32() -> None:
    with pytest.raises(ChipError, match="multiple of 32"):
        TrainSettings(size=100, flatten=True)
    with pytest.raises(ChipError, match="balance is 2"):
        TrainSettings(balance=2)


def test_a_flattening_network_learns_three_classes(data: Path, tmp_path: Path) -> None:
    for name in ("church", "frog", "zebra"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for file in sorted((data / "fourteen" / "train" / name).iterdir())[:24]:
            (tmp_path / "train" / name / file.name).symlink_to(file)
    settings = TrainSettings(epochs=6, size=64, batch=12, learning_rate=0.005, flatten=True, start="vgg16_slim")
    trained = train(tmp_path / "train", settings, tmp_path / "out")
    measured = evaluate(trained.network, tmp_path / "train", ("church", "frog", "zebra"))
    assert measured.top1 > 0.8, (measured.confusion, trained.facts["history"])


def test_frozen_blocks_keep_what_they_compute_and_the_others_learn(data: Path, tmp_path: Path) -> None:
    for name in ("church", "zebra"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for file in sorted((data / "fourteen" / "train" / name).iterdir())[:12]:
            (tmp_path / "train" / name / file.name).symlink_to(file)
    settings = TrainSettings(epochs=2, size=64, batch=12, flatten=True, start="vgg16_slim", frozen=3)
    trained = train(tmp_path / "train", settings, tmp_path / "out").network.model
    source = load_network("vgg16_slim", download=False).model
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        kept, expected = ([part for _name, part in model.features.named_children()][:10] for model in (trained, source))
        assert torch.allclose(torch.nn.Sequential(*kept)(x), torch.nn.Sequential(*expected)(x), atol=1e-4)
        assert not torch.allclose(trained.features(x), source.features(x), atol=1e-2)
    with pytest.raises(ChipError, match="give 0 to 4"):
        TrainSettings(start="vgg16_slim", frozen=5)
    with pytest.raises(ChipError, match="give --start"):
        TrainSettings(frozen=1)


def test_bfloat16_is_used_only_where_the_processor_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 2)
    for capabilities, kind in (({"avx2": True}, torch.float32), ({"avx2": True, "amx_bf16": True}, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=capabilities: known)
        with mixed_precision(torch.device("cpu")):
            assert (x @ x).dtype == kind
