"""`explain` and `explain_many` take images as people hold them, and a map shows and saves itself."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import chipcore
from chipcore.errors import ChipError
from chipcore.methods import METHODS
from chipcore.networks import Network
from method_nets import SIZE, importance, wrapped


@pytest.fixture(scope="module")
def network() -> Network:
    return wrapped("plain")


def photo(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_one_image_in_every_form_has_one_map(network: Network, tmp_path: Path) -> None:
    image = photo()
    array = np.asarray(image)
    (tmp_path / "a.png").write_bytes(png(image))
    tensor = torch.from_numpy(array.copy()).movedim(-1, 0)
    forms = [
        tmp_path / "a.png", str(tmp_path / "a.png"), png(image), image, image.convert("RGBA"), array, array / 255, (array / 255).astype(np.float32),
        tensor, tensor / 255, tensor[None], array[None],
    ]  # fmt: skip
    maps = [chipcore.explain(network, form, 1, "gradcam").raw for form in forms]
    assert all(torch.equal(one, maps[0]) for one in maps)


@pytest.mark.parametrize(("given", "sentence"), [
    (3, "give a path, a PIL image, an array or a tensor"), (np.zeros((4, 5, 7)), "give an array"), (torch.randn(3, 16, 16), "before normalization"),
    (torch.zeros(2, 3, 16, 16), "batch of 2 images; give one, or all of them to chipcore.explain_many"),
])  # fmt: skip
def test_what_is_no_image_is_told_what_is(given: object, sentence: str, network: Network) -> None:
    with pytest.raises(ChipError, match=sentence):
        chipcore.explain(network, given, 1, "gradcam")


def test_without_a_target_the_networks_first_class_is_explained(network: Network) -> None:
    first = int(network.probabilities(network.geometry.tensor(photo())[None])[0].argmax())
    found = chipcore.explain(network, photo(), method="gradcam")
    assert found.target == first and torch.equal(found.raw, chipcore.explain(network, photo(), first, "gradcam").raw)


@pytest.mark.parametrize("name", ["chip", "refined_chip", "guided_chip", "gradcam", "layercam", "backprop"])
def test_many_images_have_the_maps_of_each(name: str, network: Network, tmp_path: Path) -> None:
    early, late = network.layers
    W, shallow = importance(late.channels), importance(early.channels, 1)
    images = [photo(seed) for seed in range(5)]
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    arrays = np.stack([np.asarray(image) for image in images])
    one_by_one = [chipcore.explain(network, image, None, name, "late", W, shallow_importance=shallow) for image in images]
    told: list[tuple[int, int]] = []
    for given in (images, iter(images), tmp_path, arrays, torch.from_numpy(arrays).movedim(-1, 1)):
        many = chipcore.explain_many(
            network, given, None, name, "late", W, shallow_importance=shallow, batch=2, progress=lambda *at: told.append(at)
        )
        assert [one.target for one in many] == [one.target for one in one_by_one]
        for one, other in zip(many, one_by_one, strict=True):
            torch.testing.assert_close(one.raw, other.raw, rtol=1e-4, atol=1e-5)
    assert told[:3] == [(2, 5), (4, 5), (5, 5)]
    each = chipcore.explain_many(network, images[:2], [0, 2], name, "late", W, shallow_importance=shallow)
    assert [one.target for one in each] == [0, 2]
    with pytest.raises(ChipError, match="5 images but 2 targets"):
        chipcore.explain_many(network, images, [0, 2], name, "late", W, shallow_importance=shallow)


def test_chip_of_many_takes_a_pass_a_batch(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = Network.forward_prefix

    def counted(self: Network, images: torch.Tensor, *more: object) -> object:
        sizes.append(len(images))
        return real(self, images, *more)

    monkeypatch.setattr(Network, "forward_prefix", counted)
    chipcore.explain_many(network, [photo(seed) for seed in range(5)], 1, "chip", "late", importance(network.layers[1].channels), batch=4)
    assert sizes == [4, 1]


def test_a_map_shows_and_saves_itself(network: Network, tmp_path: Path) -> None:
    found = chipcore.explain(network, photo(), 1, "gradcam")
    assert repr(found).startswith("<Saliency: gradcam of class 1 (p = 0.") and len(repr(found)) < 120
    shown = Image.open(io.BytesIO(found._repr_png_()))
    assert shown.size == (SIZE, SIZE) and np.array_equal(np.asarray(shown), np.asarray(found.overlay()))
    assert np.array_equal(np.load(found.save(tmp_path / "a.npy")), found.numpy())
    assert np.array_equal(np.asarray(Image.open(found.save(tmp_path / "a.png"))), np.asarray(shown))
    with np.load(found.save(tmp_path / "a.npz")) as whole:
        assert np.array_equal(whole["raw"], found.numpy()) and '"method": "gradcam"' in str(whole["about"])
    with pytest.raises(ChipError, match=r"\.png, \.npy or \.npz"):
        found.save(tmp_path / "a.gif")
    assert {"gradcam_pp", "layercam", "scorecam", "finercam", "integrated_gradients"} <= set(METHODS)
