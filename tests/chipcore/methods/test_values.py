"""Every method against values worked out by hand, a slow reference from its definition, or captum."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
from captum.attr import Deconvolution, GuidedBackprop, Occlusion, Saliency
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from chipcore.errors import ChipError
from chipcore.maps import chip_map, state, upsample
from chipcore.methods import METHODS, MethodInputs
from chipcore.methods.backpropagation import input_gradient
from chipcore.methods.lime import fit_coefficients, mean_colors, superpixels
from chipcore.networks import Layer, Network
from method_nets import SIZE, example_image, request, wrap, wrapped


def conv1x1(rows: list[list[float]]) -> nn.Conv2d:
    layer = nn.Conv2d(len(rows[0]), len(rows), 1, bias=False)
    layer.weight.data = torch.tensor(rows, dtype=torch.float32)[:, :, None, None]
    return layer


def linear(rows: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows, dtype=torch.float32)
    return layer


# --- back-propagation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "expected"), [(None, [2.0, 0, -4, 0]), ("guided", [2.0, 0, 0, 0]), ("deconvolution", [2.0, -5, 0, 7])])
def test_rules_by_hand(rule: str | None, expected: list[float]) -> None:
    """Units 1, 0 (its input is -2), 3 and 6 (its input is 9, ReLU6 clips it) with top-down signals 2, 5, -4 and 7."""
    model = nn.Sequential(
        conv1x1([[1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, 3]]), nn.ReLU6(), nn.Flatten(), linear([[2, 5, -4, 7], [0] * 4, [0] * 4])
    )
    network = wrap(model, (("only", "0"),), size=1)
    first, second, third, fourth = expected
    by_pixel = torch.tensor([first, second, third + 3 * fourth])
    assert torch.equal(input_gradient(network, torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1), 0, rule).flatten(), by_pixel)  # type: ignore[arg-type]


def captums_network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(125, 7), nn.ReLU(), nn.Linear(7, 3)
    ).eval()  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("rule", "reference"), [(None, Saliency), ("guided", GuidedBackprop), ("deconvolution", Deconvolution)])
def test_back_propagation_agrees_with_captum(rule: str | None, reference: type) -> None:
    model = captums_network()
    network = wrap(model, (("early", "0"), ("late", "3")))
    x = example_image().requires_grad_()
    options = {"abs": False} if reference is Saliency else {}
    expected = reference(model).attribute(x, target=2, **options)[0]
    torch.testing.assert_close(input_gradient(network, example_image(), 2, rule), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["guided", "deconvolution"])
def test_every_way_to_call_a_rectifier_is_met(rule: str) -> None:
    class Calls(nn.Module):
        def __init__(self, call: object) -> None:
            super().__init__()
            self.first, self.second, self.call = conv1x1([[1, -1, 1], [-1, 1, 1]]), linear([[1, -1], [2, 1], [0, 0]]), call

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            result = self.call(y)  # type: ignore[operator]
            return self.second((y if result is None else result).flatten(1))

    def dropped(y: Tensor) -> None:
        y.relu_()

    calls = [
        nn.ReLU(), nn.ReLU(inplace=True), functional.relu, lambda y: functional.relu(y, inplace=True), lambda y: functional.relu(y, True),
        torch.relu, torch.relu_, functional.relu_, lambda y: y.relu(), lambda y: y.relu_(), dropped,
    ]  # fmt: skip
    bounded = [
        nn.ReLU6(), nn.ReLU6(inplace=True), functional.relu6, lambda y: functional.relu6(y, inplace=True),
        lambda y: functional.hardtanh(y, 0.0, 6.0), lambda y: functional.hardtanh(y, 0.0, 6.0, True), nn.Hardtanh(0.0, 6.0), lambda y: functional.hardtanh_(y, 0.0, 6.0),
    ]  # fmt: skip
    x = torch.tensor([1.0, 4, 2]).view(1, 3, 1, 1)  # units -1 and 5
    expected = {"guided": torch.zeros(3), "deconvolution": torch.tensor([1.0, -1, 1])}[rule]  # signals 1 and -1
    for call in calls + bounded:
        network = wrap(Calls(call), (("only", "first"),), size=1)
        assert torch.equal(input_gradient(network, x, 0, rule).flatten(), expected), call  # type: ignore[arg-type]
    other = wrap(Calls(nn.Hardtanh()), (("only", "first"),), size=1)  # no rectifier: its gradient stays
    assert torch.equal(input_gradient(other, x, 0, rule), input_gradient(other, x, 0))  # type: ignore[arg-type]


# --- Grad-CAM, CAM, CHIP ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["in-place", "relu6", "functional"])
@pytest.mark.parametrize("layer", [0, 1])
def test_gradcam_is_its_definition_in_float64(kind: str, layer: int) -> None:
    network = wrapped(kind)
    at = network.layers[layer]
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()  # what follows may work in place

    model = copy.deepcopy(network.model).double().requires_grad_(True)
    model.get_submodule(at.path).register_forward_hook(keep)
    score = model(example_image().double())[0, 2]
    gradient = torch.autograd.grad(score, kept[0])[0][0]
    features = kept[0][0].detach()
    slow = sum((gradient[k].sum() / gradient[k].numel() * features[k] for k in range(at.channels)), torch.zeros(()))
    found = METHODS["gradcam"](replace(request(network, "gradcam", target=2), layer=at))
    torch.testing.assert_close(found.raw.double(), slow, rtol=1e-4, atol=1e-6)
    assert found.passes == 3


def pooled_network() -> Network:
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(6, 3, bias=False)
    )
    return wrap(model, (("early", "0"), ("late", "1")))


def test_cam_is_the_classifiers_weights_and_gradcam_is_proportional_to_it() -> None:
    network = pooled_network()
    asked = request(network, "cam")
    features = network.model[:2](example_image())[0]  # type: ignore[index]
    found = METHODS["cam"](asked).raw
    torch.testing.assert_close(found, chip_map(network.model[5].weight[1], features))  # type: ignore[index]
    torch.testing.assert_close(METHODS["gradcam"](asked).raw * SIZE * SIZE, found)


def test_cam_takes_class_maps_that_are_pooled_and_refuses_other_heads() -> None:
    torch.manual_seed(2)
    fully = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = wrap(fully, (("early", "0"), ("late", "1")))
    assert torch.equal(METHODS["cam"](request(network, "cam")).raw, network.model[:4](example_image())[0, 1])  # type: ignore[index]
    twice = nn.Sequential(*pooled_network().model[:5], nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))  # type: ignore[index]
    quarters = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3))
    for head in (twice, quarters):
        network = wrap(head, (("early", "0"), ("late", "1")))
        with pytest.raises(ChipError, match=r"ends in global average pooling and one linear map, and tiny does not; use Grad-CAM\.$"):
            METHODS["cam"](request(network, "cam"))


def test_refined_and_guided_chip_are_their_products() -> None:
    network = wrapped("in-place")
    asked = request(network, "refined_chip")
    features = network.forward_prefix(example_image()).features
    early, late = network.layers
    deep = METHODS["chip"](asked).raw
    assert torch.equal(deep, chip_map(asked.importance.W[1], features[late.path][0])) and (deep < 0).any()  # type: ignore[union-attr]
    shallow = chip_map(asked.shallow_importance.W[1], features[early.path][0])  # type: ignore[union-attr]
    where = functional.interpolate(deep[None, None].clamp(min=0), (SIZE, SIZE), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(METHODS["refined_chip"](asked).raw, shallow * where)
    gradient = input_gradient(network, example_image(), 1, "guided")
    torch.testing.assert_close(METHODS["guided_chip"](asked).raw, gradient.abs().amax(0) * where)


def test_local_chip_finds_the_weights_of_a_network_that_is_linear_in_its_channels() -> None:
    network = pooled_network()
    found = METHODS["local_chip"](replace(request(network, "local_chip"), options={"gates": 300, "contrast": 0.0}))
    expected = METHODS["cam"](request(network, "cam")).raw  # g^c = sum_k w_k z_k is what Eq. 11 fits
    torch.testing.assert_close(found.raw, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
    assert found.passes == 301


def test_chip_without_a_row_points_to_local_chip() -> None:
    network = wrapped("plain")
    asked = request(network, "chip")
    empty = replace(asked.importance, support=torch.zeros(3, dtype=torch.int32))  # type: ignore[type-var]
    for name in ("chip", "refined_chip", "guided_chip"):
        with pytest.raises(ChipError, match="no fitted row of W at late.*local_chip"):
            METHODS[name](replace(asked, importance=empty))
        with pytest.raises(ChipError, match="needs W.*local_chip"):
            METHODS[name](replace(asked, importance=None))
    assert METHODS["local_chip"](replace(asked, importance=None)).raw.shape == (SIZE, SIZE)


# --- c-MWP --------------------------------------------------------------------------------------------------


def cmwp_of(model: nn.Module, x: Tensor, layer: str, target: int = 0) -> Tensor:
    network = wrap(model, (("early", "0"), ("late", layer)), size=x.shape[-1])
    return METHODS["cmwp"](MethodInputs(network, x, target, network.layers[1])).raw


def test_cmwp_by_hand() -> None:
    """Two units of 1 and 2. The class's weights 3 and -1 excite it through the first, those of its dual through the second;
    with 3 and 1 the class's signal is 3/5 and 2/5 and nothing excites the dual."""
    x = torch.tensor([1.0, 2, 0]).view(1, 3, 1, 1)
    for weights, expected in (([3.0, -1], [1.0, -1]), ([3.0, 1], [0.6, 0.4])):
        model = nn.Sequential(conv1x1([[1, 0, 0], [0, 1, 0]]), nn.ReLU(), nn.Flatten(), linear([weights, [0, 0], [0, 0]]))
        assert float(cmwp_of(model, x, "1")) == pytest.approx(sum(expected), abs=1e-6)
    # One step further down the first pixel alone feeds the first unit, the second the second.
    spread = nn.Sequential(nn.Identity(), conv1x1([[1, 0, 0], [0, 1, 0]]), nn.Flatten(), linear([[3, -1, 3, -1], [0] * 4, [0] * 4]))
    pixels = torch.tensor([[[[1.0, 0], [0, 0]], [[0, 2.0], [0, 0]], [[0, 0], [0, 0]]]])
    spread[3] = linear([[3, 0, 0, 0, 0, -1, 0, 0], [0] * 8, [0] * 8])
    assert torch.allclose(cmwp_of(spread, pixels, "0"), torch.tensor([[1.0, -1], [0, 0]]))


def rule(signal: Tensor, a: Tensor, weight: Tensor) -> Tensor:
    """Eq. 10 of Zhang et al. written out, with (a_j w_ji)^+ in place of a_j w_ji^+."""
    below = torch.zeros_like(a)
    for i in range(len(signal)):
        total = sum(max(0.0, float(a[k] * weight[i, k])) for k in range(len(a)))
        for j in range(len(a)):
            if total > 0:
                below[j] += signal[i] * max(0.0, float(a[j] * weight[i, j])) / total
    return below


def matrix(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """A layer without its bias as a matrix."""
    count = int(np.prod(shape))
    basis = torch.eye(count, dtype=torch.float64).view(count, *shape)
    return (layer(basis) - layer(torch.zeros(1, *shape, dtype=torch.float64))).flatten(1).T


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_cmwp_is_its_definition_in_float64(seed: int, signed: bool) -> None:
    """Below the layer: convolution, batch norm with scales of both signs, ReLU, pooling and two linear maps."""
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.weight)
    first = nn.Identity() if signed else nn.ReLU()
    model = nn.Sequential(
        nn.Conv2d(3, 3, 1), first, nn.Conv2d(3, 4, 3, padding=1), norm, nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3)
    ).eval()  # fmt: skip
    x = torch.randn(1, 3, 4, 4)
    slow = copy.deepcopy(model).double()
    values = [x.double()]
    with torch.no_grad():
        for layer in slow:
            values.append(layer(values[-1]))
        top = slow[9].weight[:1]
        signal = rule(torch.ones(1), values[9][0], top) - rule(torch.ones(1), values[9][0], -top)
        signal = rule(signal, values[7].flatten(), slow[7].weight)
        signal = rule(signal, values[5].flatten(), matrix(slow[5], (4, 4, 4)))
        signal = rule(signal, values[2].flatten(), matrix(nn.Sequential(slow[2], slow[3]), (3, 4, 4)))
    torch.testing.assert_close(cmwp_of(model, x, "1").double(), signal.view(3, 4, 4).sum(0), rtol=1e-4, atol=1e-6)


def test_cmwp_passes_a_leaky_rectifier_as_a_rectifier() -> None:
    def of(make: Callable[[], nn.Module]) -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), make(), nn.Conv2d(4, 4, 1), make(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )
        return cmwp_of(model, torch.randn(1, 3, 6, 6), "1")

    plain = of(nn.ReLU)
    assert plain.abs().max() > 0
    torch.testing.assert_close(of(lambda: nn.LeakyReLU(0.0)), plain)
    assert not torch.allclose(of(lambda: nn.LeakyReLU(0.3)), plain)


def test_cmwp_names_what_it_has_no_rule_for() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    with pytest.raises(ChipError, match="no rule for SiLU.*use Grad-CAM"):
        cmwp_of(model, example_image(), "1")
    fully = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ChipError, match="choose an earlier layer"):
        cmwp_of(fully, example_image(), "2")


# --- LIME, occlusion, DeepDraw ------------------------------------------------------------------------------


def test_limes_weights_are_the_weighted_ridge_written_out() -> None:
    random = np.random.default_rng(0)
    visible = random.integers(0, 2, (60, 7))
    visible[0], visible[1] = 1, 0
    predictions = random.random(60)
    weight = np.empty(60)
    for n, row in enumerate(visible):
        cosine = row.sum() / (np.linalg.norm(row) * np.sqrt(7)) if row.any() else 0.0
        weight[n] = np.sqrt(np.exp(-((1 - cosine) ** 2) / 0.25**2))
    x, y = visible - np.average(visible, 0, weight), predictions - np.average(predictions, weights=weight)
    direct = np.linalg.solve(x.T @ (weight[:, None] * x) + np.eye(7), x.T @ (weight * y))
    np.testing.assert_allclose(fit_coefficients(visible, predictions), direct, rtol=1e-9, atol=1e-12)


def test_lime_shows_at_most_five_superpixels_and_labels_start_at_0() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96, 3))
    network = wrap(model, (("early", "0"), ("late", "1")), size=96)
    asked = replace(request(network, "lime", inputs=network.input(Image.fromarray(skimage.data.chelsea()))), options={"samples": 40})
    labels = superpixels(asked, 0)
    assert labels.min() == 0 and set(np.unique(labels)) == set(range(labels.max() + 1)) and labels.max() >= 6
    raw = METHODS["lime"](asked).raw
    shown = [label for label in range(labels.max() + 1) if float(raw[torch.from_numpy(labels == label)].abs().max()) > 0]
    assert 1 <= len(shown) <= 5 and float(raw.min()) == 0
    assert all(len(raw[torch.from_numpy(labels == label)].unique()) == 1 for label in shown)
    hidden = mean_colors(asked.inputs[0], torch.from_numpy(labels), labels.max() + 1)
    place = torch.from_numpy(labels == 2)
    torch.testing.assert_close(hidden[:, place][:, 0], asked.inputs[0][:, place].mean(1))
    assert not torch.equal(raw, METHODS["lime"](replace(asked, options={"samples": 40, "seed": 1})).raw)


def test_occlusion_agrees_with_captum() -> None:
    network = wrapped("plain")
    found = METHODS["occlusion"](replace(request(network, "occlusion"), options={"windows": 4, "overlap": 2}))
    reference = Occlusion(network.probabilities).attribute(example_image(), (3, 4, 4), strides=(3, 2, 2), target=1, baselines=0)
    torch.testing.assert_close(found.raw, reference[0, 0].float(), rtol=1e-4, atol=1e-6)
    assert found.passes == 1 + 7 * 7


def test_deepdraw_climbs_and_reports() -> None:
    network, seen = pooled_network(), list[tuple[int, int]]()
    asked = replace(
        request(network, "deepdraw"), options={"octaves": 2, "steps": 6}, progress=lambda done, total: seen.append((done, total))
    )
    drawn = METHODS["deepdraw"](asked)
    assert seen == [(number, 12) for number in range(1, 13)] and drawn.passes == 24
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (network.geometry.mean, network.geometry.std))
    gray, image = network.model(torch.zeros(1, 3, SIZE, SIZE)), network.model((drawn.image[None] - mean) / std)  # type: ignore[index]
    assert float(image[0, 1] - gray[0, 1]) > 0.1
    other = METHODS["deepdraw"](replace(asked, inputs=example_image() + 1, progress=None))
    assert torch.equal(other.image, drawn.image), "the photograph plays no part"  # type: ignore[arg-type]


# --- rivals -------------------------------------------------------------------------------------------------


def slow_gradient(network: Network, layer: Layer, target: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, gradient (K, u, v) and scores (C,) in float64, by a hook on a copy."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    model = copy.deepcopy(network.model).double().requires_grad_(True)
    model.get_submodule(layer.path).register_forward_hook(keep)
    scores = model(example_image().double())[0]
    return kept[0][0].detach(), torch.autograd.grad(scores[target], kept[0], retain_graph=True)[0][0], scores.detach()


@pytest.mark.parametrize("kind", ["in-place", "functional"])
@pytest.mark.parametrize("layer", [0, 1])
def test_gradcam_pp_and_layercam_are_their_definitions_in_float64(kind: str, layer: int) -> None:
    network = wrapped(kind)
    at = network.layers[layer]
    features, gradient, _scores = slow_gradient(network, at, 2)
    sharp, fine = torch.zeros(features.shape[1:]).double(), torch.zeros(features.shape[1:]).double()
    for A, g in zip(features, gradient, strict=True):
        weight = 0.0
        for i in range(A.shape[0]):
            for j in range(A.shape[1]):
                below = 2 * g[i, j] ** 2 + A.sum() * g[i, j] ** 3
                weight += float(g[i, j] ** 2 / below * max(g[i, j], 0)) if below != 0 else 0.0
                fine[i, j] += max(g[i, j], 0) * A[i, j]
        sharp += weight * A
    for name, slow in (("gradcam_pp", sharp), ("layercam", fine)):
        found = METHODS[name](replace(request(network, name, target=2), layer=at))
        torch.testing.assert_close(found.raw.double(), slow, rtol=1e-3, atol=1e-5 * float(slow.abs().max()))


def test_finercam_is_gradcam_of_the_contrast() -> None:
    network = wrapped("plain")
    at = network.layers[1]
    features, own, scores = slow_gradient(network, at, 1)
    near = sorted((c for c in range(3) if c != 1), key=lambda c: abs(float(scores[c] - scores[1])))
    for count, alpha in ((1, 0.6), (2, 0.6), (3, 0.3), (1, 0.0)):
        chosen = near[:count]
        share = scores.softmax(0)[chosen] / scores.softmax(0)[chosen].sum()
        gradient = own - alpha * sum(p * slow_gradient(network, at, c)[1] for p, c in zip(share, chosen, strict=True))
        slow = (gradient.mean((1, 2))[:, None, None] * features).sum(0)
        found = METHODS["finercam"](replace(request(network, "finercam"), options={"comparisons": count, "alpha": alpha}))
        torch.testing.assert_close(found.raw.double(), slow, rtol=1e-3, atol=1e-5)


def test_scorecam_is_its_definition() -> None:
    network = wrapped("plain")
    asked = request(network, "scorecam")
    features = asked.known_activations().features[asked.layer.path][0].clone()
    weights = []
    for channel in features:
        mask = upsample(channel, 16)
        weights.append(network.model(asked.inputs * (mask - mask.min()) / (mask.max() - mask.min()))[0, 1])
    slow = (torch.stack(weights).softmax(0)[:, None, None] * features).sum(0)
    found = METHODS["scorecam"](asked)
    torch.testing.assert_close(found.raw, slow.detach(), rtol=1e-4, atol=1e-6)
    assert found.passes == 1 + len(features)


def test_integrated_gradients_are_their_definition_and_complete() -> None:
    network = wrapped("plain")
    asked = replace(request(network, "integrated_gradients"), options={"steps": 64})
    model, x = copy.deepcopy(network.model).double(), example_image().double()
    slow = torch.zeros_like(x)
    for step in range(2000):
        point = (x * (step + 0.5) / 2000).requires_grad_()
        slow += torch.autograd.grad(model(point)[0, 1], point)[0] * x / 2000
    found = METHODS["integrated_gradients"](asked)
    torch.testing.assert_close(found.raw.double(), slow.sum(1)[0], rtol=2e-2, atol=2e-2 * float(slow.abs().max()))
    difference = float(network.model(asked.inputs)[0, 1] - network.model(0 * asked.inputs)[0, 1])
    assert abs(float(found.raw.sum()) - difference) < 0.02 * max(abs(difference), 0.1)


class Deaf(nn.Module):
    """Sees of an image what rounding would leave of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.second = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return 1 + 1e-7 * self.second(self.first(x)).mean((2, 3))


@pytest.mark.parametrize("name", ["lime", "occlusion"])
def test_rounding_is_no_map(name: str) -> None:
    network = wrap(Deaf(), (("early", "first"), ("late", "second")))
    assert state(METHODS[name](request(network, name)).raw) == "constant"
