"""Tiny networks in the variants that trip explanation methods up, and requests for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from chipcore.datasets.class_names import Classes
from chipcore.images import InputGeometry
from chipcore.importance import Importance
from chipcore.methods import MethodInputs
from chipcore.networks import Network

SIZE = 16


class Functional(nn.Module):
    """functional.relu and in-place arithmetic, no rectifier module at all."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.classifier = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x), inplace=True)
        y = self.second(functional.max_pool2d(x, 2))
        y += functional.avg_pool2d(x, 2)
        y.relu_()
        return self.classifier(functional.adaptive_avg_pool2d(y, 1).flatten(1))


class Untraceable(Functional):
    """Control flow on values: torch.fx gives up."""

    def forward(self, x: Tensor) -> Tensor:
        if float(x.detach().abs().sum()) < 0:
            return self.classifier(x)
        return super().forward(x)


def modules(rectifier: nn.Module) -> nn.Module:
    """One rectifier shared by all layers, batch norm with scales of both signs, a VGG-like head."""
    norm = nn.BatchNorm2d(6)
    nn.init.normal_(norm.weight)
    norm.running_mean.normal_(0, 0.1)  # type: ignore[union-attr, operator]
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), rectifier, nn.Conv2d(6, 6, 3, padding=1, bias=False), norm, rectifier, nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(6 * 64, 8), rectifier, nn.Dropout(), nn.Linear(8, 3),
    )  # fmt: skip


def wrapped(kind: str) -> Network:
    torch.manual_seed(3)
    if kind in ("functional", "untraceable"):
        model, layers = (Functional() if kind == "functional" else Untraceable()), (("early", "first"), ("late", "second"))
    else:
        rectifier = {"in-place": nn.ReLU(inplace=True), "relu6": nn.ReLU6(inplace=True), "plain": nn.ReLU()}[kind]
        model, layers = modules(rectifier), (("early", "0"), ("late", "3"))  # type: ignore[assignment]
    return wrap(model, layers)


def wrap(model: nn.Module, layers: tuple[tuple[str, str], ...], size: int = SIZE) -> Network:
    geometry = InputGeometry(size=size, resize=size, fit="squash")
    classes = Classes(tuple(f"class {number}" for number in range(3)))
    return Network.wrap(model, name="tiny", layers=layers, geometry=geometry, classes=classes)


def example_image(size: int = SIZE) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(5))


def importance(channels: int, seed: int = 0) -> Importance:
    W = torch.randn(3, channels, generator=torch.Generator().manual_seed(seed))
    many = torch.full((3,), 20.0)
    return Importance(W, torch.zeros(3), torch.full((3,), channels, dtype=torch.int32), many.int(), many)


# Few samples: the tests are of behavior, not of quality.
QUICK = {
    "lime": {"samples": 20},
    "local_chip": {"gates": 30},
    "deepdraw": {"octaves": 2, "steps": 2},
    "occlusion": {"windows": 2},
    "integrated_gradients": {"steps": 4},
}


def request(network: Network, method: str, target: int = 1, inputs: Tensor | None = None) -> MethodInputs:
    early, late = network.layers
    return MethodInputs(
        network, example_image(network.geometry.size) if inputs is None else inputs, target, late, importance(late.channels),
        shallow_importance=importance(early.channels, 1), options=QUICK.get(method, {}),
    )  # fmt: skip
