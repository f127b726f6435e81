"""A cut network against a full forward pass with a gating hook."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from chipcore.errors import ChipError
from chipcore.gating.split import SplitModel
from chipcore.networks import REGISTRY, torchvision_import
from conftest import TinyNet

# One of every family, at layers inside and outside branches.
FAMILIES = {
    "resnet18": ("relu", "layer1", "layer2.0.conv1", "layer4"),
    "googlenet": ("inception3b", "inception5b"),
    "densenet121": ("features.transition1", "features.denseblock4"),
    "mobilenet_v3_small": ("features.1", "features.4.block.1", "features.12"),
    "convnext_tiny": ("features.1", "features.7"),
    "vgg11_bn": ("features.0", "features.3", "features.28"),
    "vgg11": ("features.10", "features.20", "avgpool"),
    "squeezenet1_0": ("features.2", "features.11", "features.12"),
}


def full_pass(model: nn.Module, path: str, images: Tensor, gates: Tensor) -> Tensor:
    """The plain way: gate with a hook, run everything. Gates (B, K)."""
    handle = model.get_submodule(path).register_forward_hook(lambda _m, _i, output: output * gates[..., None, None])
    try:
        return model(images)
    finally:
        handle.remove()


def calibrate(model: nn.Module, size: int = 96) -> None:
    """Batch norms of random weights take the statistics of random images; else signals die on the way."""
    for key, value in model.named_parameters():
        if key.endswith("bias"):
            nn.init.normal_(value, std=0.1)  # torchvision starts them at zero, where a lost one goes unseen
        elif value.ndim == 4:
            nn.init.kaiming_normal_(value, nonlinearity="relu")  # the default halves a signal at every layer
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.inference_mode():
        model(torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(2)))
    model.eval()


def gated_scores(cut: SplitModel, path: str, features: Tensor, side_inputs: tuple[Tensor, ...], gates: Tensor) -> Tensor:
    suffix = cut.suffixes[path]
    return suffix.scores(suffix.prepare(features), side_inputs, gates)


def compare(model: nn.Module, paths: tuple[str, ...], size: int, tolerance: float) -> SplitModel:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    cut = SplitModel(model, paths, images[:1])
    with torch.inference_mode():
        activations = cut.forward_prefix(images)
        torch.testing.assert_close(activations.scores, model(images), rtol=tolerance, atol=tolerance)
        for path in paths:
            features = activations.features[path]
            gates = (torch.rand(2, 3, features.shape[1], generator=torch.Generator().manual_seed(1)) < 0.5).to(features)
            got = gated_scores(cut, path, features, activations.side_inputs[path], gates)
            for n in range(3):
                expected = full_pass(model, path, images, gates[:, n])
                scale = float(expected.std())
                assert float((got[:, n] - expected).abs().max()) <= tolerance * max(scale, 1e-3), path
                assert float((got[:, n] - activations.scores).abs().max()) > 10 * tolerance * scale, "the gate changed nothing"
    return cut


@pytest.mark.parametrize("name", FAMILIES)
def test_gated_prediction_equals_a_full_pass(name: str) -> None:
    torch.manual_seed(0)
    options = {"init_weights": True, "aux_logits": True} if name == "googlenet" else {}
    model = torchvision_import.models.get_model(name, weights=None, **options).eval()
    calibrate(model)
    assert compare(model, FAMILIES[name], 96, 2e-4).traced


NAMED = ("vgg16", "inception_v3", "resnet50", "squeezenet1_0", "mobilenet_v3_large", "densenet121", "convnext_tiny")


@pytest.mark.parametrize("name", NAMED)
def test_gated_prediction_equals_a_full_pass_at_every_named_depth(name: str) -> None:
    torch.manual_seed(0)
    model = REGISTRY[name].build(classes=20).eval()
    size = 139 if name == "inception_v3" else 96
    calibrate(model, size)
    assert compare(model, tuple(at.path for at in REGISTRY[name].depths), size, 2e-4).traced


def test_lite0_at_all_its_depths(lite0) -> None:
    compare(lite0.model, tuple(layer.path for layer in lite0.layers), 224, 2e-4)


def test_contributions_are_gated_where_a_linear_map_follows() -> None:
    torch.manual_seed(0)
    vgg = torchvision_import.models.vgg11().eval()
    cut = SplitModel(vgg, ["features.19", "features.20"], torch.zeros(1, 3, 64, 64))
    assert cut.suffixes["features.20"]._front is not None
    assert cut.suffixes["features.19"]._front is None, "a ReLU and a pool come first"
    prepared = cut.suffixes["features.20"].prepare(torch.randn(2, 512, 2, 2))
    assert prepared.shape == (2, 512, 4096)


def test_residual_branch_is_carried_not_recomputed() -> None:
    torch.manual_seed(0)
    cut = SplitModel(TinyNet().eval(), ["second"], torch.zeros(1, 3, 8, 8))
    assert len(cut.forward_prefix(torch.zeros(1, 3, 8, 8)).side_inputs["second"]) == 1
    assert not [name for name, _ in cut.suffixes["second"]._module.named_modules() if "first" in name]


def test_in_place_operations_leave_features_and_model_alone() -> None:
    torch.manual_seed(0)
    model = TinyNet().eval()
    images = torch.randn(2, 3, 8, 8)
    cut = SplitModel(model, ["first", "second"], images[:1])
    with torch.inference_mode():
        activations = cut.forward_prefix(images)
        expected = model.first(images)
        torch.testing.assert_close(activations.features["first"], expected)
        assert (expected < 0).any(), "the features are those before the in-place ReLU"
        given = (cut, "second", activations.features["second"], activations.side_inputs["second"], torch.ones(2, 4, 5))
        torch.testing.assert_close(gated_scores(*given), gated_scores(*given), rtol=0, atol=0)
    assert model.relu.inplace
    assert not model.first._forward_hooks


class Untraceable(TinyNet):
    """Control flow on values, which torch.fx can't follow."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.mean() > -1e9 else -x)


def test_untraceable_network_falls_back_to_full_passes_with_a_warning() -> None:
    torch.manual_seed(0)
    model = Untraceable().eval()
    with pytest.warns(UserWarning, match="cannot be traced"):
        cut = compare(model, ("first", "second"), 8, 1e-5)
    assert not cut.traced
    assert not any(module._forward_hooks for module in model.modules())


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Flatten(2)
        self.norm = nn.LayerNorm(64)
        self.unused = nn.Conv2d(3, 3, 1)
        self.classifier = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.norm(self.embed(x)).mean(1))


@pytest.mark.parametrize(
    ("path", "sentence"), [("norm", "not feature maps"), ("unused", "takes no part"), ("nowhere", "there is no module")]
)
def test_layers_that_cannot_be_gated_are_refused_with_the_reason(path: str, sentence: str) -> None:
    with pytest.raises(ChipError, match=sentence):
        SplitModel(Tokens().eval(), [path], torch.zeros(1, 3, 8, 8))


class DropsWhatInPlaceReturns(nn.Module):
    """Works in place and goes on with its input, by a method, a module and a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(channels, 4, 3, padding=1) for channels in (3, 4, 4))
        self.relu, self.classifier = nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x.relu_()
        x = self.second(x)
        self.relu(x)
        x = self.third(x)
        nn.functional.relu(x, inplace=True)
        return self.classifier(x.mean((2, 3)))


def test_in_place_results_that_are_dropped_are_not_lost() -> None:
    torch.manual_seed(0)
    model, images, gates = DropsWhatInPlaceReturns().eval(), torch.randn(1, 3, 8, 8), torch.ones(1, 1, 4)
    cut = SplitModel(model, ("first", "second", "third"), images)
    with torch.inference_mode():
        expected, found = model(images.clone()), cut.forward_prefix(images)
        torch.testing.assert_close(found.scores, expected)
        for path in cut.paths:
            suffix = cut.suffixes[path]
            scores = suffix.scores(suffix.prepare(found.features[path]), found.side_inputs[path], gates)[0]
            torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize(
    ("name", "path", "selects"),
    [
        ("squeezenet1_0", "features.12", True),  # convolution, ReLU, pooling
        ("vgg11", "features.20", True),  # contributions are gated at the front, classes selected at the head
        ("vgg11", "features.10", True),
        ("resnet18", "layer4", True),  # one linear map is front and head
        ("mobilenet_v3_small", "features.4.block.1", True),
    ],
)
def test_scores_of_some_classes_are_those_among_all(name: str, path: str, selects: bool) -> None:
    torch.manual_seed(0)
    model = torchvision_import.models.get_model(name, weights=None).eval()
    calibrate(model)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    cut = SplitModel(model, (path,), images[:1])
    suffix, some = cut.suffixes[path], torch.tensor([7, 3, 999])
    with torch.inference_mode():
        activations = cut.forward_prefix(images)
        features, side_inputs = activations.features[path], activations.side_inputs[path]
        gates = (torch.rand(2, 3, features.shape[1], generator=torch.Generator().manual_seed(1)) < 0.5).to(features)
        every = suffix.scores(suffix.prepare(features), side_inputs, gates)
        got = suffix.scores(suffix.prepare(features), side_inputs, gates, some)
    assert suffix.selects_classes == selects
    assert got.shape == (2, 3, 3)
    torch.testing.assert_close(got, every[..., some], rtol=1e-4, atol=1e-4 * float(every.std()))


class Coupled(TinyNet):
    """Scores that depend on one another: no class can be had alone."""

    def forward(self, x: Tensor) -> Tensor:
        scores = super().forward(x)
        return scores - scores.mean(1, keepdim=True)


def test_classes_that_depend_on_one_another_are_computed_together() -> None:
    torch.manual_seed(0)
    model = Coupled().eval()
    images = torch.randn(2, 3, 8, 8)
    cut = SplitModel(model, ("second",), images[:1])
    suffix = cut.suffixes["second"]
    assert not suffix.selects_classes
    with torch.inference_mode():
        activations = cut.forward_prefix(images)
        prepared, side_inputs = suffix.prepare(activations.features["second"]), activations.side_inputs["second"]
        every = suffix.scores(prepared, side_inputs, torch.ones(2, 4, 5))
        torch.testing.assert_close(suffix.scores(prepared, side_inputs, torch.ones(2, 4, 5), torch.tensor([2, 0])), every[..., [2, 0]])
