"""What may follow the map to the classes for the scores of some classes to be had alone."""

from __future__ import annotations

import pytest
from torch import nn

from chipcore.gating.class_head import separates_classes


@pytest.mark.parametrize(
    ("tail", "shape", "separate"),
    [
        (nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 6, 3, 3), True),
        (nn.Identity(), (2, 6), True),
        (nn.Softmax(1), (2, 6), False),  # each class depends on all
        (nn.Flatten(), (2, 6, 2, 2), False),  # four scores a channel
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Unflatten(1, (6, 1)), nn.Flatten()), (2, 6, 2, 2), False),  # takes six and no fewer
    ],
)
def test_the_tail_is_tried_not_believed(tail: nn.Module, shape: tuple[int, ...], separate: bool) -> None:
    assert separates_classes(tail, shape) is separate
