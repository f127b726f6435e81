"""Maps that are kept, and why a map is blank."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image

import chipcore
from chipcore import Importance, Layer, Network, Saliency
from chipcore.methods import METHODS, explain_view
from chipcore.methods.base import Explanation, MethodInputs
from explorer.services import gallery, saliency_cache
from explorer.services.saliency_cache import MapCache, MapKey


def saliency(raw: torch.Tensor, method: str = "gradcam") -> Saliency:
    view = Image.new("RGB", (raw.shape[1], raw.shape[0]))
    return Saliency(method, "net", "last", 0, "zebra", 0.5, raw, view, 0.1, 1)


def test_the_oldest_unused_map_goes_first() -> None:
    kept = MapCache(2.5 * saliency_cache.size(saliency(torch.ones(2, 2))) / 2**20)
    first, second, third = (MapKey("net", "photo", "chip", "last", target) for target in range(3))
    one = saliency(torch.ones(2, 2))
    kept.put(first, one)
    kept.put(second, one)
    assert kept.get(first) is one  # used: now the second is the oldest
    kept.put(third, one)
    assert kept.get(second) is None
    assert kept.get(first) is one and kept.get(third) is one


def test_a_method_that_pays_no_heed_to_the_layer_is_asked_once(lite0: Network) -> None:
    for name, method in METHODS.items():
        first, last = (MapKey.of(lite0, "photo", name, layer, 3) for layer in (lite0.layers[0], lite0.layers[-1]))
        assert (first == last) == (not method.uses_layer), name
    assert len({MapKey.of(lite0, "photo", "chip", layer, 3).key for layer in lite0.layers}) == len(lite0.layers)


def test_an_answer_is_what_chipcore_explains(lite0: Network) -> None:
    image = gallery.image("cat")
    view = lite0.geometry.view(image.open())
    for method in ("chip", "gradcam", "refined_chip"):
        question = MapKey.of(lite0, image.sha256, method, lite0.layers[-1], 285)
        mine = saliency_cache.compute_map(
            lite0, view, question, lite0.layers[-1], lambda layer: chipcore.load_importance(lite0, layer.name)
        )
        theirs = chipcore.explain(lite0, image.open(), 285, method, lite0.layers[-1].name)
        assert torch.equal(mine.raw, theirs.raw), method
        assert mine.passes == theirs.passes and mine.layer == theirs.layer


def test_a_cropping_network_does_not_crop_its_own_view_again(lite0: Network) -> None:
    geometry = dataclasses.replace(lite0.geometry, fit="crop", resize=256)
    cropping = dataclasses.replace(lite0, geometry=geometry)
    image = gallery.image("coffee").open()
    view = geometry.view(image)
    assert torch.equal(explain_view(cropping, view, 967, "gradcam").raw, chipcore.explain(cropping, image, 967, "gradcam").raw)


@pytest.mark.parametrize(
    ("method", "raw", "said"),
    [
        ("gradcam", torch.tensor([[0.0, 1.0]]), ""),
        ("gradcam", torch.tensor([[-2.0, -1.0]]), "speaks against"),
        ("occlusion", torch.tensor([[-2.0, -1.0]]), "no place in this photograph"),
        ("gradcam", torch.tensor([[2.0, 2.0]]), "same value everywhere"),
        ("gradcam", torch.tensor([[float("nan"), 1.0]]), "NaN"),
        ("deconvolution", torch.zeros(2, 2), "none of it reaches the pixels"),
        ("guided_backprop", torch.zeros(2, 2), "none of it reaches the pixels"),
        ("guided_gradcam", torch.zeros(2, 2), "Grad-CAM map, which has no positive place"),
        ("guided_chip", torch.zeros(2, 2), "CHIP map, which has no positive place"),
    ],
)
def test_a_blank_map_says_why(method: str, raw: torch.Tensor, said: str) -> None:
    found = saliency_cache.blank_reason(saliency(raw, method))
    assert said in found
    assert bool(found) == bool(said)


def test_deconvolution_of_squeezenet_is_blank_and_says_why(squeezenet: Network) -> None:
    found = explain_view(squeezenet, squeezenet.geometry.view(gallery.image("cat").open()), 281, "deconvolution")
    assert not bool(found.raw.any())
    assert "none of it reaches the pixels" in saliency_cache.blank_reason(found)


def test_gradients_at_the_pixels_are_drawn_up_to_what_one_in_a_hundred_exceeds() -> None:
    raw = torch.arange(10_000.0).reshape(100, 100)
    raw[0, 0] = 1e6
    assert saliency_cache.is_saturated(saliency(raw, "backprop"))
    assert 9_890 < saliency_cache.visible_peak(saliency(raw, "backprop")) < 9_910
    coarse = dataclasses.replace(saliency(raw, "gradcam"), view=Image.new("RGB", (700, 700)))
    assert saliency_cache.visible_peak(coarse) == 1e6


def test_the_time_of_a_first_map_leaves_out_the_setting_up(slim: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method's first map on a network is made twice, of which the second counts; every further one once."""
    made: list[int] = []
    real = METHODS["gradcam"]

    def counted(request: MethodInputs) -> Explanation:
        made.append(request.target)
        return dataclasses.replace(real.compute(request), passes=len(made))

    monkeypatch.setitem(METHODS, "gradcam", dataclasses.replace(real, compute=counted))
    network = dataclasses.replace(slim, variant="-never-seen-before")
    view = network.geometry.view(gallery.image("cat").open())

    def ask(target: int) -> Saliency:
        layer = network.layers[-1]
        return saliency_cache.compute_map(network, view, MapKey.of(network, "cat", "gradcam", layer, target), layer, no_importance)

    assert ask(3).passes == 2 and ask(5).passes == 3 and made == [3, 3, 5]


def test_classes_share_the_passes_of_lime_and_occlusion(slim: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "lime", dataclasses.replace(METHODS["lime"], options={**METHODS["lime"].options, "samples": 40}))
    view, layer = slim.geometry.view(gallery.image("cat").open()), slim.layers[-1]
    for method in ("lime", "occlusion"):
        maps = [saliency_cache.compute_map(slim, view, MapKey.of(slim, f"shared-{method}", method, layer, target), layer, no_importance) for target in (3, 5)]  # fmt: skip
        assert maps[0].passes > 30 and maps[1].passes == 0
        for found in maps:
            alone = explain_view(slim, view, found.target, method)
            assert torch.equal(found.raw, alone.raw) and alone.passes == maps[0].passes
        assert not torch.equal(maps[0].raw, maps[1].raw)


def no_importance(_layer: Layer) -> Importance:
    raise AssertionError("not asked for W")
