"""What rows of W share, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chipcore import Importance
from chipcore.analysis.channel_overlap import above_sets, arrays, top_sets
from chipcore.errors import SettingsError

W = torch.tensor([[4.0, 2.0, 0.002, -1.0], [3.0, 0.0, 5.0, 0.0], [0.0, 0.0, 0.0, 0.0]])


@pytest.fixture
def importance() -> Importance:
    support = (W != 0).sum(1)
    return Importance(W, torch.zeros(3), support, support, torch.full((3,), 20.0), {})


def test_important_channels_in_both_senses_of_fig_11(importance: Importance) -> None:
    assert top_sets(W.numpy(), 2).tolist() == [[True, True, False, False], [True, False, True, False], [False] * 4]
    # A thousandth of 4 is 0.004: channel 2 of the first row is below it.
    assert above_sets(W.numpy(), 1e-3).tolist() == [[True, True, False, False], [True, False, True, False], [False] * 4]
    assert above_sets(W.numpy(), 1e-4)[0].tolist() == [True, True, True, False]
    for row in range(3):
        assert np.flatnonzero(top_sets(W.numpy(), 2)[row]).tolist() == sorted(importance.top_channels(row, 2))
        assert np.flatnonzero(above_sets(W.numpy(), 1e-3)[row]).tolist() == importance.channels_above(row, 1e-3)


def test_what_two_classes_share(importance: Importance) -> None:
    found = arrays(importance, [1, 0], top=2)
    assert found["classes"].tolist() == [1, 0] and found["W"].tolist() == W[[1, 0]].tolist()
    assert found["shared"].tolist() == [[2, 1], [1, 2]]
    assert found["jaccard"] == pytest.approx(np.array([[1, 1 / 3], [1 / 3, 1]]))
    length = np.sqrt(4**2 + 2**2 + 0.002**2 + 1) * np.sqrt(3**2 + 5**2)
    assert found["cosine"][0, 1] == pytest.approx((4 * 3 + 0.002 * 5) / length)
    assert arrays(importance, [2])["jaccard"].tolist() == [[0.0]]


@pytest.mark.parametrize(("top", "share"), [(0, 0.1), (1, 1.0), (1, -0.1), (1, float("nan"))])
def test_out_of_range(importance: Importance, top: int, share: float) -> None:
    with pytest.raises(SettingsError):
        arrays(importance, [0], top, share)
