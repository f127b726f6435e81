"""The VGG with fc6 to fc8 that ships: its parts, its classes, and that it still knows photographs it was not trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import chipcore
from chipcore.images import open_image
from chipcore.networks import Network, load_network
from chipcore.storage import ASSETS

FILE = ASSETS / "networks" / "vgg16_mini.safetensors"
HELD_OUT = Path(__file__).resolve().parents[2] / "benchmarks" / "vgg16_held_out.txt"


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network("vgg16_mini", download=False)


def test_it_ships_below_8_mb_with_the_papers_classes_and_vgg16s_depths(network: Network) -> None:
    assert FILE.stat().st_size < 8_000_000
    assert len(network.classes) == 64 == len(set(network.classes.synsets))
    wanted = {
        "zebra",
        "bullfrog",
        "tree frog",
        "lemon",
        "banana",
        "orange",
        "goldfish",
        "airliner",
        "cat",
        "elephant",
        "Chihuahua",
        "tench",
    }
    assert wanted <= set(network.classes.labels)
    assert network.classes.index("n02391049") == network.classes.index("zebra")
    assert [(at.name, at.channels, at.height, at.stride) for at in network.layers] == [
        ("pool1", 16, 64, 2), ("pool2", 32, 32, 4), ("pool3", 64, 16, 8), ("pool4", 128, 8, 16), ("conv5_3", 128, 8, 16), ("pool5", 128, 4, 32),
    ]  # fmt: skip
    kinds = [type(module) for module in network.model.modules()]
    assert kinds.count(nn.Conv2d) == 13 and kinds.count(nn.MaxPool2d) == 5 and kinds.count(nn.Linear) == 3
    assert not {nn.BatchNorm1d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d} & set(kinds)


def test_what_is_held_out_is_of_its_classes_and_nowhere_else(network: Network) -> None:
    names = HELD_OUT.read_text().splitlines()
    assert len(names) == len(set(names)) == 725
    assert all(name.startswith("classes/") for name in names), "fourteen/val judges besides, and is none of its folders"
    counts: dict[str, int] = {}
    for name in names:
        counts[name.split("/")[1]] = counts.get(name.split("/")[1], 0) + 1
    assert max(counts.values()) <= 14 and counts["n02391049"] == 14


def test_features_are_never_negative_and_every_cut_gives_the_whole_pass(network: Network, data: Path) -> None:
    photograph = open_image(sorted((data / "fourteen" / "val" / "zebra").iterdir())[0])
    with torch.inference_mode():
        passed = network.forward_prefix(network.input(photograph))
        whole = network.model(network.input(photograph))
    assert torch.allclose(passed.scores, whole, atol=1e-4)
    for at in network.layers:
        assert passed.features[at.path].min() >= 0 and passed.features[at.path].max() > 0, at.name


def test_top_1_on_a_third_of_the_held_out_photographs(network: Network, data: Path) -> None:
    """README has the figure of all; a third says that weights, order of classes and input still fit together."""
    names = [name for name in HELD_OUT.read_text().splitlines() if (data / name).is_file()][::3]
    known = {synset: index for index, synset in enumerate(network.classes.synsets)}
    right = []
    for start in range(0, len(names), 64):
        some = names[start : start + 64]
        inputs = torch.stack([network.geometry.tensor(open_image(data / name)) for name in some])
        for name, index in zip(some, network.probabilities(inputs).argmax(1).tolist(), strict=True):
            folder = name.split("/")[1]
            truth = "cat" if folder.startswith(("cat_", "n02123", "n02124")) else "elephant" if folder == "elephant_any" else None
            right.append(index == (known[folder] if truth is None else network.classes.index(truth)))
    published = json.loads((ASSETS / "results" / "vgg16_mini.json").read_text())["held_out"]["top1"]
    assert abs(sum(right) / len(right) - published) < 0.08, f"{sum(right)} of {len(right)}"


def test_the_published_figures_are_of_these_weights(network: Network) -> None:
    result = json.loads((ASSETS / "results" / "vgg16_mini.json").read_text())
    assert result["weights_sha256"] == network.weights_sha256
    confusion = torch.tensor(result["held_out"]["confusion"])
    assert confusion.sum() == 725 and confusion.shape == (64, 64)
    assert result["held_out"]["top1"] == round(float(confusion.diagonal().sum() / 725), 4)
    assert result["held_out"]["classes"] == list(network.classes.labels)
    assert result["fourteen"]["photographs"] == 1319
    assert result["bytes"] == FILE.stat().st_size
    low, high = result["held_out"]["interval"]
    assert low < result["held_out"]["top1"] < high


def test_w_ships_at_every_depth(network: Network) -> None:
    for at in network.layers:
        importance = chipcore.load_importance(network, at.name, ASSETS / "importance")
        assert (importance.support > 0).all(), at.name
        assert importance.W.shape == (64, at.channels)
