"""C = 1, K = 1, N = 1, one image, dead channels, huge and tiny activations: the right answer or a named refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import chipcore
from chipcore import Network
from chipcore.errors import ChipError, SettingsError
from chipcore.fitting.settings import FitSettings
from chipcore.methods import METHODS
from conftest import tiny_network
from method_nets import QUICK

SETTINGS = FitSettings(gates=12, held_out=0.25, lambda_ratio=1e-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(root / f"{i:02}.png")
    return root


def changed(scale: float = 1.0, offset: float = 0.0, **sizes: int) -> Network:
    """The tiny network with its first features times ``scale``, and its scores with an ``offset``."""
    network = tiny_network(**sizes)
    model = network.model
    with torch.no_grad():
        model.first.weight.mul_(scale)
        model.first.bias.mul_(scale)
        model.second.bias.mul_(scale)
        model.classifier.weight.div_(scale)
        model.classifier.bias.add_(offset)
    return Network.wrap(
        model, name="tiny", layers=(("early", "first"), ("late", "second")), geometry=network.geometry, classes=network.classes
    )


@pytest.mark.parametrize("sizes", [{"classes": 1}, {"channels": 1}, {"classes": 1, "channels": 1}])
@pytest.mark.parametrize("gates", [1, 12])
def test_one_of_everything(sizes: dict[str, int], gates: int, folder: Path, tmp_path: Path) -> None:
    network = tiny_network(**sizes)
    one = tmp_path / "one"
    one.mkdir()
    (one / "a.png").write_bytes((folder / "00.png").read_bytes())
    for images in (folder, one):
        for importance in chipcore.fit(network, ["early", "late"], images, FitSettings(gates=gates)).values():
            assert importance.W.shape == (sizes.get("classes", 3), sizes.get("channels", 5)) and torch.isfinite(importance.W).all()
            assert torch.equal(importance.support, (importance.W != 0).sum(1).int())
    importance = chipcore.fit(network, ["late"], folder, SETTINGS)["late"]
    for method in METHODS:
        if method in ("refined_chip",):
            continue  # needs W of both layers, see test_values.py
        options = QUICK.get(method, {})
        refused = ""
        try:
            found = chipcore.explain(network, folder / "00.png", 0, method, "late", importance, options=options)
            assert torch.isfinite(found.raw).all() and torch.isfinite(found.picture).all()
            assert found.probability == pytest.approx(1) or sizes.get("classes", 3) > 1
        except ChipError as error:
            refused = str(error)
        assert not refused or any(words in refused for words in ("does not react", "no fitted row", "CAM needs"))


@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1e6, 1e15])
def test_the_scale_of_the_activations_does_not_matter(scale: float, folder: Path) -> None:
    plain = chipcore.fit(tiny_network(), ["late"], folder, SETTINGS)["late"]
    scaled = chipcore.fit(changed(scale), ["late"], folder, SETTINGS)["late"]
    torch.testing.assert_close(scaled.W.double() * scale, plain.W.double(), rtol=2e-3, atol=2e-3 * float(plain.W.abs().max()))
    torch.testing.assert_close(scaled.r2, plain.r2, rtol=0, atol=2e-3, equal_nan=True)


def test_scores_that_are_the_same_everywhere(folder: Path) -> None:
    """A class whose score no gate changes has an empty row, not a division by zero."""
    network = tiny_network()
    with torch.no_grad():
        network.model.classifier.weight[1] = 0
        network.model.classifier.bias[1] = 0
    flat = Network.wrap(network.model, name="tiny", layers=(("late", "second"),), geometry=network.geometry, classes=network.classes)
    found = chipcore.fit(flat, ["late"], folder, SETTINGS)["late"]
    assert not found.W[1].any() and found.evidence(1) == "none" and torch.isfinite(found.W).all()


def test_dead_layers(folder: Path) -> None:
    """Where no channel is ever active there is nothing to learn, and the map says so."""
    network = tiny_network()
    with torch.no_grad():
        network.model.second.weight.zero_()
        network.model.second.bias.zero_()
    dead = Network.wrap(network.model, name="tiny", layers=(("late", "second"),), geometry=network.geometry, classes=network.classes)
    found = chipcore.fit(dead, ["late"], folder, SETTINGS)["late"]
    assert not found.W.any() and [found.evidence(c) for c in range(3)] == ["none"] * 3
    with pytest.raises(ChipError, match="no fitted row of W"):
        chipcore.explain(dead, folder / "00.png", 0, "chip", "late", found)
    with pytest.raises(ChipError, match="does not react"):
        chipcore.explain(dead, folder / "00.png", 0, "local_chip", "late")
    assert chipcore.explain(dead, folder / "00.png", 0, "gradcam", "late").state == "constant"


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_weights_that_overflow_are_named(half: torch.dtype, folder: Path) -> None:
    """Weights of 1e30 are finite, and what they make of a image is not."""
    network = tiny_network()
    with torch.no_grad():
        network.model.second.weight.mul_(1e30)
        network.model.classifier.weight.mul_(1e30)
    large = Network.wrap(network.model, name="tiny", layers=(("late", "second"),), geometry=network.geometry, classes=network.classes)
    with pytest.raises(ChipError, match=r"tiny gives NaN or infinity for \d\d.png"):
        chipcore.fit(large, ["late"], folder, SETTINGS)
    with pytest.raises(ChipError, match="gives NaN or infinity for this photograph"):
        chipcore.explain(large, folder / "00.png", 0, "gradcam")
    weights = {key: value.to(half) for key, value in network.model.state_dict().items()}
    if half is torch.float16:  # 1e30 does not fit into it: the checkpoint itself holds infinity
        model = nn.Module.__new__(type(network.model))
        model = type(network.model)()
        model.load_state_dict(weights)
        with pytest.raises(ChipError, match="hold NaN or infinity"):
            Network.wrap(model, name="tiny", layers=(("late", "second"),), geometry=network.geometry, classes=network.classes)


def test_overflow_only_behind_closed_gates_is_named(folder: Path) -> None:
    class Cancels(nn.Module):
        """Two large channels whose difference is small, as long as both are there."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 2, 1)
            nn.init.constant_(self.first.weight, 0)
            nn.init.constant_(self.first.bias, 1)
            self.classifier = nn.Linear(2, 2)
            nn.init.constant_(self.classifier.bias, 0)
            with torch.no_grad():
                self.classifier.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.exp(200 * self.classifier(self.first(x).mean((2, 3))))

    network = tiny_network()
    odd = Network.wrap(
        Cancels(), name="odd", layers=(("first", "first"),), geometry=network.geometry, classes=type(network.classes)(("a", "b"))
    )
    with pytest.raises(ChipError, match=r"odd gives NaN or infinity for \d\d.png with channels of first closed"):
        chipcore.fit(odd, ["first"], folder, SETTINGS)


def test_a_proximity_of_nothing_is_named(folder: Path) -> None:
    with pytest.raises(SettingsError, match="sigma\\^2 is so small that no gates drawn at late carry any weight"):
        chipcore.fit(tiny_network(channels=40), ["late"], folder, FitSettings(gates=1, sigma2=1e-4, held_out=0))


@pytest.mark.parametrize("draw", ["uniform", "importance", "stratified", "antithetic"])
def test_the_same_seed_gives_the_same_w_to_the_bit(draw: str, folder: Path) -> None:
    settings = FitSettings(gates=6, draw=draw, seed=3)  # type: ignore[arg-type]
    first, again = (chipcore.fit(tiny_network(), ["early", "late"], folder, settings) for _ in range(2))
    other = chipcore.fit(tiny_network(), ["early", "late"], folder, FitSettings(gates=6, draw=draw, seed=4))  # type: ignore[arg-type]
    for name in ("early", "late"):
        for field in ("W", "r2", "images", "evidence_mass"):
            assert torch.equal(getattr(first[name], field).nan_to_num(9), getattr(again[name], field).nan_to_num(9))
        assert not torch.equal(first[name].W, other[name].W)
