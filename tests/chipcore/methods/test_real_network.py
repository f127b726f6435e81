"""What the registry claims, on a real network and a real image."""

from __future__ import annotations

import pytest
import skimage.data
import torch
from PIL import Image

from chipcore.methods import METHODS, MethodInputs
from chipcore.networks import Network

FEW = {
    "lime": {"samples": 20},
    "local_chip": {"gates": 40},
    "deepdraw": {"octaves": 1, "steps": 1},
    "occlusion": {"windows": 2, "overlap": 1},
}
TABBY, GOLDFISH = 281, 1


@pytest.mark.parametrize(
    "name", [name for name, method in METHODS.items() if method.properties.class_discriminative and not method.needs_importance]
)
def test_the_maps_of_two_classes_differ(name: str, squeezenet: Network) -> None:
    inputs = squeezenet.input(Image.fromarray(skimage.data.chelsea()))
    one, other = (
        METHODS[name](MethodInputs(squeezenet, inputs, target, squeezenet.layers[-1], options=FEW.get(name, {}))).raw.flatten().double()
        for target in (TABBY, GOLDFISH)
    )
    assert torch.isfinite(one).all() and float(one.abs().max()) > 0
    assert float(torch.cosine_similarity(one, other, 0)) < 0.995
