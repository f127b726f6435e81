"""The VGG that ships: its architecture, its depths, and that it still knows its fourteen classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from chipcore.images import open_image
from chipcore.networks import Network, load_network, torchvision_import
from chipcore.networks.architectures.vgg_slim import VGGSlim
from chipcore.storage import ASSETS

FILE = ASSETS / "networks" / "vgg16_slim.safetensors"


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network("vgg16_slim", download=False)


def test_it_is_vgg16_at_a_quarter_of_the_width() -> None:
    with torch.device("meta"):  # no memory and no random numbers for 138 million weights
        features = torchvision_import.models.vgg16(weights=None).features
        full = VGGSlim(1000, 64)
    slim = VGGSlim(14)
    published = [(m.in_channels, m.out_channels) for m in features if isinstance(m, nn.Conv2d)]
    convolutions = [m for m in slim.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in full.modules() if isinstance(m, nn.Conv2d)] == published
    assert [m.out_channels for m in convolutions] == [outputs // 4 for _inputs, outputs in published]
    kinds = [{"conv": "C", "pool": "P"}[name[:4]] for name, _part in slim.features.named_children()]
    assert "".join(kinds) == "CCPCCPCCCPCCCPCCCP"
    assert slim(torch.zeros(2, 3, 96, 130)).shape == (2, 14), "any size from 32 px"


def test_it_ships_small_with_fourteen_classes_and_six_depths(network: Network) -> None:
    assert FILE.stat().st_size < 5_000_000
    assert len(network.classes) == 14
    assert {"zebra", "elephant", "cat", "frog", "cassette player", "English springer"} <= set(network.classes.labels)
    assert network.classes.index("english_springer") == 5, "a class folder's name finds its class"
    assert [(at.name, at.channels, at.height, at.stride) for at in network.layers] == [
        ("pool1", 16, 80, 2), ("pool2", 32, 40, 4), ("pool3", 64, 20, 8), ("pool4", 128, 10, 16), ("conv5_3", 128, 10, 16), ("pool5", 128, 5, 32),
    ]  # fmt: skip
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.model.modules())


def test_features_are_never_negative_and_every_cut_gives_the_whole_pass(network: Network, data: Path) -> None:
    image = open_image(sorted((data / "fourteen" / "val" / "zebra").iterdir())[0])
    with torch.inference_mode():
        passed = network.forward_prefix(network.input(image))
        whole = network.model(network.input(image))
        assert torch.allclose(passed.scores, whole, atol=1e-4)
        for at in network.layers:
            features = passed.features[at.path]
            assert features.min() >= 0 and features.max() > 0, at.name


def test_top_1_on_ten_validation_images_of_every_class(network: Network, data: Path) -> None:
    """README has the figure of all 1,319; ten of each class say that weights, order of classes and input still fit together."""
    right = []
    for folder in sorted((data / "fourteen" / "val").iterdir()):
        files = sorted(folder.iterdir())[::5][:10]
        inputs = torch.stack([network.geometry.tensor(open_image(file)) for file in files])
        right += (network.probabilities(inputs).argmax(1) == network.classes.index(folder.name)).tolist()
    assert len(right) == 140
    assert sum(right) / 140 >= 0.80, f"{sum(right)} of 140"


def test_the_published_figures_are_of_these_weights(network: Network) -> None:
    result = json.loads((ASSETS / "results" / "vgg16_slim.json").read_text())
    assert result["weights_sha256"] == network.weights_sha256
    confusion = torch.tensor(result["validation"]["confusion"])
    assert confusion.sum() == 1319 and confusion.shape == (14, 14)
    assert result["validation"]["top1"] == round(float(confusion.diagonal().sum() / 1319), 4)
    assert [network.classes.index(name) for name in result["validation"]["classes"]] == list(range(14))
    assert result["bytes"] == FILE.stat().st_size
    assert result["training"]["command"].startswith("python -m chipcore train")
