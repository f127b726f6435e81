"""What the tests share: the real data outside the repository, and tiny networks with weights set by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from chipcore.datasets.class_names import Classes
from chipcore.images import InputGeometry
from chipcore.networks import Network

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("CHIP_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images and networks; in CI it must be there."""
    if not (DATA / "classes").is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"no real data at {DATA}; CI must have it")
        pytest.skip(f"no real data at {DATA}; set CHIP_DATA to its folder")
    return DATA.resolve()  # CI may reach it by a link


@pytest.fixture(scope="session")
def squeezenet(data: Path) -> Network:
    """torchvision's SqueezeNet 1.0 with its real ImageNet weights."""
    from chipcore.networks import load_network

    return load_network("squeezenet1_0", checkpoint=data / "networks" / "squeezenet1_0.pth")


@pytest.fixture(scope="session")
def lite0() -> Network:
    """The bundled EfficientNet-Lite0."""
    from chipcore.networks import load_network

    return load_network("efficientnet_lite0")


@pytest.fixture(scope="session")
def slim() -> Network:
    """The bundled small VGG16."""
    from chipcore.networks import load_network

    return load_network("vgg16_slim")


@pytest.fixture(scope="session")
def fitted(lite0: Network) -> list[int]:
    """Classes with a row of W at every depth."""
    from chipcore.importance import load_importance

    supports = torch.stack([load_importance(lite0, layer.name).support > 0 for layer in lite0.layers])
    return [int(index) for index in supports.all(0).nonzero().flatten()]


class TinyNet(nn.Module):
    """Two convolutions, an in-place ReLU each, a residual branch, pooling and a linear map to three classes."""

    def __init__(self, channels: int = 5, classes: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)  # shared by both convolutions
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        y = self.second(x)
        y += x
        y = self.relu(y)
        return self.classifier(torch.flatten(self.pool(y), 1))


def tiny_network(seed: int = 0, channels: int = 5, classes: int = 3, size: int = 8) -> Network:
    torch.manual_seed(seed)
    model = TinyNet(channels, classes)
    return Network.wrap(
        model, name="tiny", layers=(("early", "first"), ("late", "second")),
        geometry=InputGeometry(size=size, resize=size, fit="squash"), classes=Classes(tuple(f"class {i}" for i in range(classes))),
    )  # fmt: skip


@pytest.fixture
def tiny() -> Network:
    return tiny_network()
