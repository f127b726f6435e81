"""The positive part first, then the up-sampling: what every method's map goes through, against captum's finished maps and by hand.

torch-cam and pytorch-grad-cam aren't installed here; their last steps are written out below from their definitions.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor
from torch.nn import functional

from chipcore import maps
from chipcore.evaluation.benchmark import MethodSet, RunStats
from chipcore.evaluation.cutting import relative
from chipcore.evaluation.faithfulness import pixel_order
from chipcore.evaluation.grid_pointing import shares
from chipcore.methods import METHODS, MethodInputs
from method_nets import SIZE, example_image, importance, wrapped
from method_nets import request as ask

# Alternating signs, as shallow layers have them.
CHECKS = torch.tensor([[1.0, -3.0], [-3.0, 1.0]])


def test_positive_part_then_upsampling_by_hand() -> None:
    """max(0, CHECKS) is the identity; bilinear with half-pixel centers, the weights along a side are 1, 3/4, 1/4, 0."""
    first, second = np.array([1, 0.75, 0.25, 0]), np.array([0, 0.25, 0.75, 1])
    expected = np.outer(first, first) + np.outer(second, second)
    assert maps.positive_map(CHECKS, 4).tolist() == expected.tolist()
    # What cutting after the up-sampling would leave: 1 at the two corners, 1 - 4 * 1/4 = 0 beside them, nothing else.
    torn = maps.upsample(CHECKS, 4).clamp(min=0)
    assert torn.nonzero().tolist() == [[0, 0], [3, 3]]
    assert maps.picture(CHECKS, 4).tolist() == expected.tolist()
    assert maps.picture(CHECKS, 4, signed=True)[0].tolist() == pytest.approx([1 / 3, 0, -2 / 3, -1])  # both signs up-sampled together
    assert relative(CHECKS, 4).tolist() == expected.tolist()
    assert maps.positive_map(torch.tensor([[2.0, -2.0]]), (1, 4)).tolist() == [[2, 1.5, 0.5, 0]]


def test_mass_of_a_cell_is_that_of_the_finished_map() -> None:
    """Up-sampled to 4 x 4 the rows of (1, -3; 1, -3) are 1, 3/4, 1/4, 0: 7/8 of the mass on the left, not all of it."""
    raw = torch.tensor([[1.0, -3.0], [1.0, -3.0]])
    assert shares(maps.positive_map(raw, 4).numpy(), 2).tolist() == pytest.approx([7 / 16, 1 / 16, 7 / 16, 1 / 16])


def test_pixels_go_by_the_finished_map_and_below_it_by_the_sign() -> None:
    raw = torch.tensor([[1.0, -3.0, -1.0]])
    assert pixel_order(raw.expand(3, 3), 3, 0).reshape(3, 3).__mod__(3).tolist() == [[0, 0, 0], [2, 2, 2], [1, 1, 1]]


@pytest.mark.parametrize("kind", ["plain", "in-place", "relu6", "functional"])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.filterwarnings("ignore")
def test_gradcam_is_captums_finished_map(kind: str, layer: int) -> None:
    network = wrapped(kind)
    at = network.layers[layer]
    inputs = example_image()
    inner = network.model.get_submodule(at.path)
    explained = LayerGradCam(network.model, inner).attribute(inputs.clone().requires_grad_(), target=1, relu_attributions=True)
    expected = LayerAttribution.interpolate(explained, (SIZE, SIZE), "bilinear")[0, 0].detach()
    panel = MethodSet.of(network, [at.path], ["gradcam"])
    raw = panel.raw_map("gradcam", inputs, 1, panel.layers[0], panel.look(inputs), RunStats())
    torch.testing.assert_close(maps.positive_map(raw, SIZE), expected, rtol=1e-4, atol=1e-6)


def torchcam(raw: Tensor, size: int) -> Tensor:
    """torch-cam's: ``_normalize`` of relu(sum) is min-max, and ``overlay_mask`` resizes the finished map (here bilinearly)."""
    cam = functional.relu(raw)
    cam = (cam - cam.min()) / (cam.max() - cam.min())
    return functional.interpolate(cam[None, None], (size, size), mode="bilinear")[0, 0]


def pytorch_gradcam(raw: Tensor, size: int) -> Tensor:
    """pytorch-grad-cam's: ``compute_cam_per_layer`` sets cam[cam < 0] = 0, ``scale_cam_image`` then scales and resizes."""
    cam = raw.clone()
    cam[cam < 0] = 0
    cam = cam - cam.min()
    return functional.interpolate((cam / (1e-7 + cam.max()))[None, None], (size, size), mode="bilinear")[0, 0]


@pytest.mark.parametrize("peer", [torchcam, pytorch_gradcam])
@pytest.mark.parametrize("seed", range(3))
def test_picture_is_that_of_the_peers(peer: object, seed: int) -> None:
    """Up to the scale: where the coarse map has a negative cell, its finished minimum is 0 for all."""
    raw = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed))
    theirs = peer(raw, 40)  # type: ignore[operator]
    torch.testing.assert_close(maps.picture(raw, 40), theirs / theirs.max(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["guided_gradcam", "guided_chip", "refined_chip"])
def test_products_take_the_finished_coarse_map(method: str) -> None:
    """A product with a coarse map is zero exactly where that one's finished map (or the other factor) is."""
    network = wrapped("functional")  # its later layer has half the resolution
    asked = ask(network, method)
    coarse = METHODS["gradcam" if method == "guided_gradcam" else "chip"](
        MethodInputs(network, asked.inputs, 1, network.layers[1], importance(network.layers[1].channels))
    ).raw
    found = METHODS[method](asked).raw
    assert (coarse < 0).any() and (coarse > 0).any()
    where = maps.positive_map(coarse, (found.shape[0], found.shape[1]))
    assert not bool((found.abs() > 0)[where == 0].any())
    torn = maps.upsample(coarse, (found.shape[0], found.shape[1])).clamp(min=0)
    assert bool((found.abs() > 0)[(torn == 0) & (where > 0)].any())
