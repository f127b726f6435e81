"""W against weights that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import chipcore
from chipcore.analysis.recovery import known_weights, recovery, recovery_of
from chipcore.datasets.class_names import numbered
from chipcore.errors import SettingsError
from chipcore.fitting.settings import FitSettings
from chipcore.images import InputGeometry
from chipcore.networks import Network


class PooledNet(nn.Module):
    """Features, global pooling, one linear map of fourteen channels to six classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 14, 3, padding=1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(14, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


@pytest.fixture
def pooled() -> Network:
    torch.manual_seed(0)
    model = PooledNet()
    nn.init.zeros_(model.classifier.bias)  # Eq. 11 has no constant, and beside these small scores it would be large
    return Network.wrap(
        model, name="pooled", layers=[("last", "features.1")], geometry=InputGeometry(size=8, resize=8, fit="squash"), classes=numbered(6)
    )  # fmt: skip


def test_the_default_fit_finds_the_known_weights_in_every_row(pooled: Network, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(30):  # smooth pictures of any color: noise would open all channels alike
        picture = Image.fromarray(rng.integers(0, 255, (3, 3, 3), dtype=np.uint8)).resize((8, 8))
        picture.save(tmp_path / f"{i}.png")
    fitted = chipcore.fit(pooled, ["last"], tmp_path, FitSettings(gates=60))["last"]
    found = recovery_of(pooled, pooled.layers[0], fitted)
    assert len(found.classes) == 6 and float(found.cosine.median()) >= 0.97 and float(found.shared.median()) >= 8
    assert found.summary()["rows"] == 6
    paper = chipcore.fit(pooled, ["last"], tmp_path, FitSettings(gates=60, lambda_ratio=0.3))["last"]
    assert recovery_of(pooled, pooled.layers[0], paper).cosine.median() < found.cosine.median()


def test_known_weights_are_the_classifier_s(pooled: Network, lite0: Network) -> None:
    torch.testing.assert_close(known_weights(pooled, pooled.layers[0]), pooled.model.classifier.weight.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        known_weights(lite0, lite0.layer("head")), lite0.model.state_dict()["classifier.weight"].float(), rtol=1e-3, atol=1e-4
    )


def test_cosine_and_shared_channels_are_those_of_their_definition() -> None:
    rng = np.random.default_rng(1)
    W, weights = rng.normal(size=(2, 5, 40))
    found = recovery(torch.from_numpy(W), torch.from_numpy(weights), [3, 1])
    for place, c in enumerate((3, 1)):
        assert float(found.cosine[place]) == pytest.approx(W[c] @ weights[c] / np.linalg.norm(W[c]) / np.linalg.norm(weights[c]))
        assert int(found.shared[place]) == len(set(np.argsort(-W[c])[:10]) & set(np.argsort(-weights[c])[:10]))


def test_a_layer_that_more_follows_is_refused(tiny: Network, lite0: Network) -> None:
    for network, layer in ((tiny, "early"), (lite0, "stage5")):
        with pytest.raises(SettingsError, match="not linear"):
            known_weights(network, network.layer(layer))
