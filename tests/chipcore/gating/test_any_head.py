"""Cuts of networks whose heads and blocks hold more than layers in a row; every one against a hooked full pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import chipcore
from chipcore.gating.split import SplitModel

IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))


class Base(nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.weight = nn.Parameter(torch.randn(classes, 8))

    def features(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()).relu()


class Cosine(Base):
    """A normalized head of two classes: its weight has two rows, as a batch of two has."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.normalize(self.features(x).mean((2, 3)), dim=1)
        return 10 * pooled @ functional.normalize(self.weight, dim=1).t()


class ZeroShot(Base):
    """Scores against text embeddings that are worked out in every pass, and a learned temperature."""

    def __init__(self) -> None:
        super().__init__(5)
        self.text, self.temperature = nn.Linear(8, 8), nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        texts = self.text(self.weight)
        texts = texts / texts.norm(dim=-1, keepdim=True)
        return self.temperature.exp() * self.features(x).mean((2, 3)) @ texts.T


class LayerScale(Base):
    """ConvNeXt's: a block's branch times a learned vector, beside the block's input; and counts of the batch from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.block, self.head = nn.Parameter(torch.randn(8)), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8 * 16, 2)
        self.end = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[0]
        x = self.features(x)
        x = x + self.block(x) * self.gamma.reshape(1, -1, 1, 1)
        return self.head(x.reshape(count, -1))


class Views(Base):
    """Flattens with ``view``, which wants each channel's values side by side in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.head(x.view(x.size(0), -1))


def full_pass(model: nn.Module, path: str, gates: Tensor) -> Tensor:
    handle = model.get_submodule(path).register_forward_hook(lambda _m, _i, output: output * gates[..., None, None])
    try:
        with torch.inference_mode():
            return model(IMAGES)
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", [Cosine, ZeroShot, LayerScale, Views])
@pytest.mark.parametrize("path", ["first", "second"])
def test_gated_scores_are_those_of_a_full_pass(kind: type[Base], path: str) -> None:
    model = kind().eval()
    network = chipcore.wrap(model, size=16, layers=[path])
    gates = (torch.rand(3, 4, network.layers[0].channels, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    with torch.inference_mode():
        seen = network.forward_prefix(IMAGES)
        suffix = network.suffix(network.layers[0])
        assert not seen.side_inputs[path], "what is made of parameters and counts alone crosses no cut"
        got = suffix.scores(suffix.prepare(seen.features[path]), seen.side_inputs[path], gates)
    for number in range(4):
        torch.testing.assert_close(got[:, number], full_pass(model, path, gates[:, number]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Cosine, ZeroShot, LayerScale, Views])
def test_layers_are_offered_and_classes_have_maps_of_their_own(kind: type[Base]) -> None:
    network = chipcore.wrap(kind(), size=16)
    assert [layer.name for layer in network.layers] == ["stride2", "stride4"]
    maps = [chipcore.explain(network, _image(), target, "gradcam", "stride4").raw for target in (0, 1)]
    assert not torch.allclose(maps[0], maps[1], rtol=1e-2)


def _image() -> object:
    from PIL import Image

    return Image.effect_noise((16, 16), 90).convert("RGB")


class Remembers(Base):
    """Divides by a number that tracing takes for a constant."""

    def forward(self, x: Tensor) -> Tensor:
        scale = x.abs().max().item()
        return self.second(self.first(x).relu()).mean((2, 3)) @ self.weight.t() / scale


def test_a_cut_that_differs_from_the_network_is_noticed_and_not_used() -> None:
    model = Remembers().eval()
    with pytest.warns(UserWarning, match="gives other scores"):
        cut = SplitModel(model, ["second"], IMAGES[:1])
    assert not cut.traced
    gates = (torch.rand(3, 1, 8, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    with torch.inference_mode():
        seen = cut.forward_prefix(IMAGES)
        got = cut.suffixes["second"].scores(seen.features["second"], seen.side_inputs["second"], gates)[:, 0]
    torch.testing.assert_close(got, full_pass(model, "second", gates[:, 0]))


class Twice(Base):
    """Calls a rectifier twice, on maps of two sizes; nothing traces it."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max() > 1e9:
            return x
        return self.relu(self.second(self.relu(self.first(x)))).mean((2, 3)) @ self.weight.t()


@pytest.mark.filterwarnings("ignore:.*cannot be traced")
def test_a_module_that_is_called_twice_counts_where_it_is_called_last() -> None:
    model = Twice().eval()
    cut = SplitModel(model, ["relu"], IMAGES[:1])
    gates = (torch.rand(3, 1, 8, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    with torch.inference_mode():
        seen = cut.forward_prefix(IMAGES)
        got = cut.suffixes["relu"].scores(seen.features["relu"], seen.side_inputs["relu"], gates)[:, 0]
        expected = (model.second(model.first(IMAGES).relu()).relu() * gates[:, 0, :, None, None]).mean((2, 3)) @ model.weight.t()
    torch.testing.assert_close(got, expected)
