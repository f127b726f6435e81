"""One table for all methods: nothing is left behind, nothing is changed, and the registry says what is so."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import chipcore
from chipcore.errors import ChipError, UnknownName
from chipcore.gating import graph
from chipcore.methods import METHODS, Explanation, MethodInputs, Properties, register
from chipcore.networks import Network
from method_nets import QUICK, example_image, request, wrapped

KINDS = ("in-place", "relu6", "functional", "untraceable")
NEEDS_GRAPH = ("cmwp", "cam")


def state(network: Network) -> list[object]:
    """Whatever a method could leave behind in a model."""
    found: list[object] = [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch._C._len_torch_function_stack()]
    for name, module in network.model.named_modules():
        hooks = sum(len(value) for key, value in vars(module).items() if key.endswith("_hooks"))
        found.append((name, type(module), hooks, module.training, getattr(module, "inplace", None)))
    found += [(name, value.requires_grad, value.grad is None, value.sum().item()) for name, value in network.model.named_parameters()]
    return found


@pytest.fixture(scope="module", params=KINDS)
def network(request: pytest.FixtureRequest) -> Network:
    with pytest.warns(UserWarning, match="cannot be traced") if request.param == "untraceable" else nullcontext():
        return wrapped(request.param)


def can(network: Network, method: str) -> bool:
    """CAM wants a pooled head, and both CAM and c-MWP a graph."""
    if "control flow" in str(type(network.model).__doc__).lower():
        return method not in NEEDS_GRAPH
    return method != "cam" or hasattr(network.model, "classifier")


@pytest.mark.filterwarnings("ignore:.*cannot be traced")
@pytest.mark.parametrize("name", METHODS)
def test_a_method_leaves_everything_as_it_was_and_repeats_itself(name: str, network: Network) -> None:
    before, inputs = state(network), example_image()
    kept = inputs.clone()
    if not can(network, name):
        with pytest.raises(ChipError, match="use Grad-CAM"):
            METHODS[name](request(network, name))
        assert state(network) == before
        return
    first = METHODS[name](request(network, name, inputs=inputs))
    assert first.raw.ndim == 2 and torch.isfinite(first.raw).all() and not first.raw.requires_grad and first.passes >= 1
    assert first.image is None or (first.image.ndim == 3 and float(first.image.min()) >= 0 and float(first.image.max()) <= 1)
    assert (first.image is not None) or not METHODS[name].is_image
    with pytest.raises(ChipError, match="out of range"):
        METHODS[name](request(network, name, target=3))
    with pytest.raises(ChipError, match="one photograph at a time"):
        METHODS[name](request(network, name, inputs=inputs.repeat(2, 1, 1, 1)))
    with torch.inference_mode():
        again = METHODS[name](request(network, name, inputs=inputs.clone()))
    assert torch.equal(again.raw, first.raw) and again.passes == first.passes and not again.raw.is_inference()
    assert state(network) == before and torch.equal(inputs, kept)


@pytest.mark.parametrize("name", METHODS)
def test_a_failure_inside_the_network_leaves_nothing_behind(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = wrapped("functional")
    expected = METHODS[name](request(network, name)).raw
    before = state(network)

    def fail(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Linear, "forward", fail)
        patch.setattr(torch.nn.Conv2d, "forward", fail)
        with pytest.raises(RuntimeError, match="broken"):
            METHODS[name](request(network, name))
    assert state(network) == before
    assert torch.equal(METHODS[name](request(network, name)).raw, expected)


def test_two_visitors_may_use_one_network() -> None:
    network = wrapped("functional")
    alone = {name: METHODS[name](request(network, name)).raw for name in METHODS}
    start = threading.Barrier(2)

    def visit(names: list[str]) -> dict[str, torch.Tensor]:
        start.wait()
        return {name: METHODS[name](request(network, name)).raw for name in names}

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(visit, (list(METHODS), list(reversed(METHODS)))):
            assert all(torch.equal(found[name], alone[name]) for name in METHODS)


def test_tracing_one_network_leaves_another_threads_passes_alone() -> None:
    """fx replaces nn.Module.__call__ while it traces; a network in use met that and failed."""
    network, inputs, over = wrapped("plain"), example_image(), threading.Event()
    expected, errors = network.model(inputs), list[Exception]()

    def use() -> None:
        while not over.is_set():
            try:
                assert torch.equal(network.model(inputs), expected)
            except Exception as error:
                errors.append(error)

    def trace_often() -> None:
        for _ in range(6):
            graph.trace(network.model)

    user = threading.Thread(target=use)
    user.start()
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(trace_often) for _ in range(2)]:
            future.result()
    over.set()
    user.join()
    assert not errors and torch.nn.Module.__call__ is torch.nn.Module._wrapped_call_impl


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("lime", {"samples": 0}, "samples of lime is 0; give a whole number above 0"),
        ("lime", {"samples": 2.5}, "give a whole number"),
        ("lime", {"seed": -1}, "of 0 or more"),
        ("lime", {"sample": 3}, "no option of lime 'sample'; did you mean samples"),
        ("deepdraw", {"step": "far"}, "step of deepdraw is 'far'; give a number"),
        ("chip", {"samples": 3}, "no option of chip"),
    ],
)
def test_options_are_checked(name: str, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ChipError, match=sentence):
        METHODS[name](replace(request(wrapped("plain"), name), options=options))


def test_the_registry_is_the_papers_table() -> None:
    table = {name: method.properties for name, method in METHODS.items()}
    assert {p.row for p in table.values()} == {
        None, "Deconvolution", "Guided Backpropagation", "CAM", "Grad-CAM", "Guided Grad-CAM", "LIME", "DeepDraw", "Guided CHIP", "CHIP & Refined CHIP",
    }  # fmt: skip
    assert [name for name, p in table.items() if not p.post_hoc] == ["cam"]
    assert [name for name, p in table.items() if p.row and not p.class_discriminative] == ["guided_backprop", "deconvolution"]
    assert {name for name, p in table.items() if p.general} == {"chip", "refined_chip", "guided_chip", "deepdraw"}
    assert {name for name, p in table.items() if p.row and p.multi_layer} == {"chip", "refined_chip", "guided_chip", "deconvolution"}
    assert all(bool(p.instance) != METHODS[name].is_image for name, p in table.items())
    assert set(QUICK) <= set(METHODS)


def test_the_order_in_which_people_are_offered_the_methods() -> None:
    known = (
        "chip", "refined_chip", "guided_chip", "local_chip", "gradcam", "guided_gradcam", "guided_backprop", "backprop", "lime", "cmwp",
        "cam", "deconvolution", "occlusion", "deepdraw",
    )  # fmt: skip
    assert tuple(name for name in METHODS if name in known) == known


def test_a_new_method_is_one_call_of_register() -> None:
    @register("brightness", "Brightness", "this test", Properties(instance=("gradient",)), order=15, options={"power": 2})
    def brightness(asked: MethodInputs) -> Explanation:
        return Explanation(asked.inputs[0].mean(0) ** asked.options["power"], passes=0)

    try:
        assert list(METHODS)[:3] == ["chip", "brightness", "refined_chip"]
        image = Image.fromarray(np.full((20, 20, 3), 128, dtype=np.uint8))
        network = wrapped("plain")
        found = chipcore.explain(network, image, 1, "brightness", options={"power": 1})
        assert torch.equal(found.raw, network.geometry.tensor(image).mean(0))
        with pytest.raises(UnknownName, match="powr"):
            chipcore.explain(network, image, 1, "brightness", options={"powr": 1})
    finally:
        del METHODS["brightness"]


# Sixteen pixels of noise are a single super-pixel; LIME's claim is tested on a image, in test_real_network.py.
CLAIMS = [name for name, method in METHODS.items() if method.properties.class_discriminative and name != "lime"]


@pytest.mark.parametrize("name", CLAIMS)
def test_what_claims_to_discriminate_classes_changes_its_map_with_the_class(name: str) -> None:
    network = wrapped("functional")
    one, other = (METHODS[name](request(network, name, target)).raw for target in (1, 2))
    close = 2e-3 if name == "scorecam" else 1e-2  # it weighs by a softmax of scores, which lie close together in a tiny network
    assert not torch.allclose(one / one.abs().max().clamp(min=1e-12), other / other.abs().max().clamp(min=1e-12), rtol=close, atol=close)


@pytest.mark.parametrize("name", METHODS)
def test_uses_layer_says_whether_the_map_depends_on_the_layer(name: str) -> None:
    network = wrapped("functional")
    early = network.layers[0]
    asked = request(network, name)
    late = METHODS[name](asked).raw
    if name == "refined_chip":
        with pytest.raises(ChipError, match="choose another layer than early"):
            METHODS[name](replace(asked, layer=early, importance=asked.shallow_importance))
        return
    at_early = METHODS[name](replace(asked, layer=early)).raw
    assert METHODS[name].uses_layer != (at_early.shape == late.shape and torch.equal(at_early, late))
