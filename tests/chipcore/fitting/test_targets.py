"""What W is learned to predict: the probability as target, against Eq. 11's sums in plain loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chipcore.datasets.image_folder import find_images
from chipcore.fitting.accumulate import LayerSums, accumulate
from chipcore.fitting.planning import ClassSlice
from chipcore.fitting.settings import FitSettings
from chipcore.gating.gates import draw_uniform, generator
from chipcore.images import open_image
from chipcore.networks import Network

SETTINGS = FitSettings(gates=5, held_out=0.0, pooled_share=0.5, pooled_gates=0, own_evidence=0.5)


@pytest.mark.parametrize("target", ["score", "probability"])
def test_the_target_is_the_score_or_its_softmax_over_classes(target: str, tiny: Network, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    images = find_images(tmp_path)
    settings = replace(SETTINGS, target=target)
    sums = LayerSums.empty(ClassSlice(tiny.layer("late"), (0, 1, 2)), settings)
    accumulate(tiny, [sums], images, frozenset(), settings)

    cross = torch.zeros(3, 5, dtype=torch.float64)
    for name in images.names:
        inputs = tiny.input(open_image(tmp_path / name))
        for gate in torch.from_numpy(draw_uniform(settings.gates, 5, generator(0, "second", name))).float():
            gated: list[torch.Tensor] = []

            def close(_module: object, _inputs: object, output: torch.Tensor, gate: torch.Tensor = gate, gated: list[torch.Tensor] = gated) -> torch.Tensor:  # fmt: skip
                gated.append(output * gate[:, None, None])
                return gated[0].clone()

            handle = tiny.model.get_submodule("second").register_forward_hook(close)
            with torch.no_grad():
                scores = tiny.model(inputs)[0].double()
            handle.remove()
            g = scores if target == "score" else scores.exp() / scores.exp().sum()
            proximity = torch.exp(-(1 - gate).sum().double() / 5)
            cross += proximity * torch.outer(g, gated[0].mean((2, 3))[0].double())
    torch.testing.assert_close(sums.pooled.cross, cross, rtol=1e-4, atol=1e-6)
