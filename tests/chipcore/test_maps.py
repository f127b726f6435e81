"""Eq. 10 by hand, and from a raw map to a picture."""

from __future__ import annotations

import itertools

import pytest
import torch

from chipcore import maps
from chipcore.maps import chip_map, picture, state, upsample


def test_map_is_equation_10_by_hand() -> None:
    features = torch.tensor([[[1.0, 2.0], [0.0, -1.0]], [[10.0, 0.0], [5.0, 1.0]], [[7.0, 7.0], [7.0, 7.0]]])
    row = torch.tensor([2.0, -1.0, 0.0])
    expected = torch.tensor([[2 * 1 - 10.0, 2 * 2 - 0.0], [0 - 5.0, -2 - 1.0]])
    assert torch.equal(chip_map(row, features), expected)


@pytest.mark.parametrize("seed", range(3))
def test_map_equals_a_float64_sum_over_channels(seed: int) -> None:
    torch.manual_seed(seed)
    features, row = torch.randn(37, 7, 9), torch.randn(37)
    slow = torch.zeros(7, 9, dtype=torch.float64)
    for k in range(37):
        slow += float(row[k]) * features[k].double()
    torch.testing.assert_close(chip_map(row, features).double(), slow, rtol=1e-5, atol=1e-5)


def test_states() -> None:
    assert state(torch.tensor([[0.0, 1.0]])) == "ok"
    assert state(torch.tensor([[0.0, -1.0]])) == "no positive part"
    assert state(torch.zeros(2, 2)) == "constant"
    assert state(torch.tensor([[0.0, float("nan")]])) == "not finite"


def test_picture_scales_from_zero_to_the_maximum_and_drops_the_negative_part() -> None:
    raw = torch.tensor([[-4.0, -4.0], [2.0, 2.0]])
    drawn = picture(raw, 8)
    assert drawn.shape == (8, 8) and float(drawn.min()) == 0 and float(drawn.max()) == 1
    # Bilinear, half-pixel centers: rows 0, 1 are -4; row 2 is -4 + 6 * 0.125.
    assert float(upsample(raw, 8)[2, 0]) == pytest.approx(-3.25)
    assert float(picture(raw, 8, signed=True).min()) == -1
    assert float(picture(raw, 8, signed=True).max()) == pytest.approx(0.5)
    assert float(picture(raw, 8, maximum=4.0).max()) == pytest.approx(0.5)


def test_maps_with_nothing_to_show_give_zeros_not_nan() -> None:
    for raw in (torch.zeros(2, 2), -torch.ones(2, 2), torch.full((2, 2), float("nan")), torch.tensor([[float("inf"), 0.0]])):
        assert torch.equal(picture(raw, 4), torch.zeros(4, 4))


def test_smoothing_is_for_the_eye_and_never_leaves_the_scale() -> None:
    raw = torch.tensor([[0.0, 1.0, 0.0], [0.2, 0.0, -0.5], [0.0, 0.4, 1.0]])
    pictures = {smoothing: maps.picture(raw, 12, smoothing=smoothing) for smoothing in maps.SMOOTHING}
    assert torch.equal(pictures["bilinear"], maps.picture(raw, 12)), "as everything is computed"
    assert torch.equal(pictures["nearest"], raw.clamp(min=0).repeat_interleave(4, 0).repeat_interleave(4, 1))
    for one, other in itertools.combinations(pictures.values(), 2):
        assert not torch.equal(one, other)
    assert all(float(picture.min()) >= 0 and float(picture.max()) == 1 for picture in pictures.values())
