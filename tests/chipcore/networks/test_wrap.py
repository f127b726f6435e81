"""Any module: what it takes and gives is found, said, and right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import chipcore
from chipcore.errors import ChipError, SettingsError
from chipcore.networks.preprocessing import CallableGeometry

NOISE = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))


class Small(nn.Module):
    """Two convolutions, pooling and a linear map; what ends it is given."""

    def __init__(self, outputs: int = 4, end: Callable[[Tensor], object] | None = None, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(channels, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.head = nn.Linear(8, outputs)
        self.end = end

    def features(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(functional.relu(self.first(x))))

    def forward(self, x: Tensor) -> object:
        scores = self.head(self.features(x).mean((2, 3)))
        return scores if self.end is None else self.end(scores)


# --- outputs ----------------------------------------------------------------------------------------------

ENDS: dict[str, tuple[int, Callable[[Tensor], object] | None, str, Callable[[Tensor], Tensor]]] = {
    "nothing": (4, None, "logits", lambda y: y.softmax(1)),
    "log_softmax": (4, nn.LogSoftmax(1), "logits", lambda y: y.softmax(1)),
    "softmax module": (4, nn.Softmax(1), "probabilities", lambda y: y.softmax(1)),
    "softmax function": (4, lambda y: functional.softmax(y, -1), "probabilities", lambda y: y.softmax(1)),
    "softmax by hand": (4, lambda y: y.exp() / y.exp().sum(1, keepdim=True), "probabilities", lambda y: y.softmax(1)),
    "sigmoid module": (4, nn.Sigmoid(), "multilabel", lambda y: y.sigmoid()),
    "sigmoid method": (4, lambda y: y.sigmoid(), "multilabel", lambda y: y.sigmoid()),
    "sigmoid by hand": (4, lambda y: 1 / (1 + (-y).exp()), "multilabel", lambda y: y.sigmoid()),
    "one logit": (1, None, "binary", lambda y: y.sigmoid()),
    "one sigmoid": (1, nn.Sigmoid(), "binary", lambda y: y.sigmoid()),
    "one logit, squeezed": (1, lambda y: y.squeeze(1), "binary", lambda y: y.sigmoid()),
    "one sigmoid, squeezed": (1, lambda y: torch.sigmoid(y).squeeze(1), "binary", lambda y: y.sigmoid()),
    "mapping": (4, lambda y: {"logits": y, "hidden": y[None]}, "logits", lambda y: y.softmax(1)),
    "tuple": (4, lambda y: (y, None), "logits", lambda y: y.softmax(1)),
    "maps of 1 x 1": (4, lambda y: y[..., None, None], "logits", lambda y: y.softmax(1)),
}


@pytest.mark.parametrize("case", ENDS)
def test_outputs_are_recognized_and_f_is_right(case: str) -> None:
    outputs, end, kind, f = ENDS[case]
    model = Small(outputs, end).eval()
    network = chipcore.wrap(model, size=16)
    with torch.inference_mode():
        expected = f(model.head(model.features(NOISE).mean((2, 3))))
    assert network.outputs == kind
    torch.testing.assert_close(network.probabilities(NOISE), expected, rtol=1e-4, atol=1e-5)
    assert bool(network.notes) == (case not in ("nothing", "log_softmax", "one logit, squeezed", "maps of 1 x 1") or kind == "binary")


def test_scores_of_a_saturated_softmax_module_are_the_logits() -> None:
    model = Small(4, nn.Softmax(1))
    with torch.no_grad():
        model.head.weight.mul_(1e4)
    network = chipcore.wrap(model, size=16)
    with torch.inference_mode():
        torch.testing.assert_close(
            network.forward_prefix(NOISE).scores, model.head(model.features(NOISE).mean((2, 3))), rtol=1e-4, atol=1e-2
        )


@pytest.mark.parametrize(
    ("outputs", "end", "asked", "sentence"),
    [
        (4, None, "probabilities", "do not add up to 1"),
        (4, None, "binary", "has 4 outputs"),
        (1, None, "logits", "softmax is 1 for every image"),
        (4, nn.Softmax(1), "multilabel", "exclude each other"),
        (4, None, "scores", "give auto, logits"),
    ],
)
def test_outputs_that_contradict_the_network_are_refused(outputs: int, end: nn.Module | None, asked: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        chipcore.wrap(Small(outputs, end), size=16, outputs=asked)


def test_multilabel_as_asked_of_plain_scores() -> None:
    network = chipcore.wrap(Small(), size=16, outputs="multilabel")
    scores = network.forward_prefix(NOISE).scores
    torch.testing.assert_close(network.probabilities(NOISE), scores.sigmoid())
    assert "question of its own" in network.notes[0]


# --- answers ----------------------------------------------------------------------------------------------


def test_a_network_that_answers_twice_differently_is_said_to() -> None:
    noisy = chipcore.wrap(Small(4, lambda y: functional.dropout(y, 0.5, True)), size=16)
    assert any("gives other scores every time" in note for note in noisy.notes)
    assert not chipcore.wrap(Small(4, nn.Dropout(0.5)).train(), size=16).notes


class OneAtATime(Small):
    def forward(self, x: Tensor) -> object:
        assert len(x) == 1, "one image"
        return super().forward(x)


def test_networks_that_cannot_run_in_batches_are_refused_with_the_reason() -> None:
    with pytest.raises(ChipError, match="one image at a time .AssertionError: one image"):
        chipcore.wrap(OneAtATime(), size=16)
    mixing = Small(4, lambda y: y - y.mean(0, keepdim=True) * (len(y) > 1))
    with pytest.raises(ChipError, match="when another image is beside it"):
        chipcore.wrap(mixing, size=16)


# --- inputs -----------------------------------------------------------------------------------------------


def test_one_channel_and_rectangles_throughout() -> None:
    class Wide(Small):
        def forward(self, x: Tensor) -> object:
            return self.flat(torch.relu(self.second(torch.relu(self.first(x)))).flatten(1))

    model = Wide(channels=1)
    model.flat = nn.Linear(8 * 4 * 8, 3)
    network = chipcore.wrap(model, size=(16, 32), labels=["a", "b", "c"], mean=0.5, std=0.25)
    assert network.geometry.channels == 1 and [(at.height, at.width) for at in network.layers] == [(8, 16), (4, 8)]
    assert "takes one channel" in network.notes[0]
    colors = np.zeros((40, 60, 3), dtype=np.uint8)
    colors[..., 0] = 200
    image = Image.fromarray(colors)
    inputs = network.input(image)
    gray = np.asarray(image.convert("L"))[0, 0] / 255
    assert inputs.shape == (1, 1, 16, 32)
    torch.testing.assert_close(inputs, torch.full_like(inputs, (gray - 0.5) / 0.25))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    options: dict[str, dict[str, int]] = {"lime": {"samples": 20}, "deepdraw": {"steps": 1, "octaves": 2}}
    for method in ("local_chip", "gradcam", "guided_gradcam", "backprop", "occlusion", "lime", "deepdraw", "cmwp"):
        saliency = chipcore.explain(network, noise, 1, method, network.layers[-1].name, options=options.get(method))
        assert saliency.picture.shape == (16, 32), method


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (nn.Sequential(nn.Conv3d(3, 4, 3), nn.Flatten()), "volumes or videos"),
        (nn.Sequential(nn.Conv2d(4, 4, 3), nn.Flatten()), "takes 4 channels"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(9, 2)), "--size"),
        (torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), "TorchScript"),
        (torch.ao.quantization.quantize_dynamic(Small(), {nn.Linear}, dtype=torch.qint8), "quantized"),
        (nn.Conv2d(3, 4, 3, padding=1), "one score for every pixel"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_the_reason(model: nn.Module, sentence: str) -> None:
    with pytest.raises(ChipError, match=sentence):
        chipcore.wrap(model, size=16)


def test_a_forward_of_more_than_the_image_is_named() -> None:
    class Two(Small):
        def forward(self, x: Tensor, meta: Tensor) -> object:  # type: ignore[override]
            return super().forward(x)

    with pytest.raises(ChipError, match="its forward takes 'meta' too"):
        chipcore.wrap(Two(), size=16)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("changed", ["half", "bfloat16", "weight_norm", "DataParallel", "compile"])
def test_what_training_leaves_around_a_network_comes_off(changed: str) -> None:
    model, plain = Small(), Small().eval()
    given: nn.Module = model
    if changed in ("half", "bfloat16"):
        getattr(model, changed)(), getattr(plain, changed)().float()
    elif changed == "weight_norm":
        nn.utils.weight_norm(model.second)
    else:
        given = nn.DataParallel(model) if changed == "DataParallel" else torch.compile(model)
    network = chipcore.wrap(given, size=16)
    with torch.inference_mode():
        torch.testing.assert_close(network.forward_prefix(NOISE).scores, plain(NOISE), rtol=1e-4, atol=1e-5)
    assert network.name == "Small" and model.training and all(one.requires_grad for one in model.parameters() if one.is_leaf)


# --- preprocessing ----------------------------------------------------------------------------------------


def presets(size: int, resize: int, crop: bool) -> Callable[[Image.Image], Tensor]:
    def preprocess(image: Image.Image) -> Tensor:
        if crop:
            scale = resize / min(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
            left, top = (image.width - size) // 2, (image.height - size) // 2
            image = image.crop((left, top, left + size, top + size))
        else:
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        return (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - 0.4) / torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)

    return preprocess


def test_a_preprocessing_function_gives_size_normalization_and_rule() -> None:
    for crop in (False, True):
        geometry = chipcore.wrap(Small(), preprocess=presets(48, 64, crop)).geometry
        assert (geometry.shape, geometry.fit) == ((48, 48), "crop" if crop else "squash") and type(geometry) is not CallableGeometry
        assert geometry.std == pytest.approx((0.2, 0.25, 0.3), rel=1e-3) and geometry.mean == pytest.approx((0.4,) * 3, rel=1e-3)
        assert not crop or abs(geometry.resize - 64) <= 1


def test_a_preprocessing_function_of_its_own_kind_is_kept() -> None:
    def mirrored(image: Image.Image) -> Tensor:
        return presets(32, 32, False)(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))

    network = chipcore.wrap(Small(), preprocess=mirrored)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    torch.testing.assert_close(network.input(image)[0], mirrored(image), rtol=0, atol=1e-5)
    assert network.geometry.view(image).size == (32, 32)
    for wrong in (lambda image: torch.zeros(3, 4), lambda image: 1 / 0, lambda image: presets(8, 8, False)(image).square()):
        with pytest.raises(SettingsError, match="preprocess"):
            chipcore.wrap(Small(), preprocess=wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="give it alone"):
        chipcore.wrap(Small(), preprocess=mirrored, size=32)


# --- layers -----------------------------------------------------------------------------------------------


def test_layers_by_path_module_and_name() -> None:
    model = Small()
    assert [at.name for at in chipcore.wrap(model, size=16, layers=["second", model.first]).layers] == ["second", "first"]
    assert [(at.name, at.path) for at in chipcore.wrap(model, size=16, layers={"deep": model.second}).layers] == [("deep", "second")]
    with pytest.raises(ChipError, match="no part of the model"):
        chipcore.wrap(model, size=16, layers=[nn.Conv2d(3, 3, 1)])


class Tokens(nn.Module):
    """A patch embedding, a class token and one block of attention; scores from the class token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.mix, self.head = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        return self.head(self.mix(self.block(x))[:, 0])


@pytest.mark.filterwarnings("ignore:.*cannot be traced")
@pytest.mark.parametrize("reshape", ["tokens", lambda output: output[:, 1:].transpose(1, 2).unflatten(2, (4, 4))])
def test_patch_tokens_are_maps_where_they_are_asked_for(reshape: object) -> None:
    model = Tokens().eval()
    with pytest.raises(ChipError, match="as a transformer does"):
        chipcore.wrap(model, size=16, layers=["block"])
    network = chipcore.wrap(model, size=16, layers=["block"], reshape=reshape)  # type: ignore[arg-type]
    layer = network.layers[0]
    assert (layer.channels, layer.height, layer.width) == (8, 4, 4)
    gates = (torch.rand(3, 1, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    with torch.inference_mode():
        seen = network.forward_prefix(NOISE)
        suffix = network.suffix(layer, network.layers)
        got = suffix.scores(suffix.prepare(seen.features["block"]), seen.side_inputs["block"], gates)[:, 0]
        x = model.patch(NOISE).flatten(2).transpose(1, 2)
        x = model.block(torch.cat([model.token.expand(3, -1, -1), x], 1))
        x[:, 1:] *= gates  # the patches' dimensions; the class token is no place of the image
        torch.testing.assert_close(got, model.head(model.mix(x)[:, 0]), rtol=1e-4, atol=1e-5)


def test_a_network_that_no_command_can_load_is_told_the_call() -> None:
    with pytest.raises(chipcore.ImportanceNotFitted, match=r"chipcore.fit\(network, \['stride4'\]"):
        chipcore.load_importance(chipcore.wrap(Small(), size=16), "stride4")


def test_captums_own_networks_load() -> None:
    models = pytest.importorskip("captum.testing.helpers.basic_models")
    model = models.BasicModel_ConvNet()
    network = chipcore.wrap(model, size=10, layers=["relu1"])
    assert network.outputs == "probabilities" and network.geometry.channels == 1
    noise = torch.randn(2, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network.probabilities(noise), model(noise))
    saliency = chipcore.explain(network, Image.new("L", (10, 10), 90), 0, "gradcam", "relu1")
    assert saliency.raw.shape == (8, 8)
