"""A box that was drawn on one network's view, on another's."""

from __future__ import annotations

import numpy as np
import pytest

from chipcore.images import InputGeometry
from explorer.services.ground_truth import to_other_view

SQUASH, SMALL, CROP = InputGeometry(224, "squash", 224), InputGeometry(112, "squash", 112), InputGeometry(200, "crop", 250)


def test_a_drawn_box_scales_with_the_view() -> None:
    assert to_other_view((40, 20, 99, 199), (640, 480), SQUASH, SMALL) == (20, 10, 49, 99)
    assert to_other_view((40, 20, 99, 199), (640, 480), SQUASH, SQUASH) == (40, 20, 99, 199)


def test_a_cropping_network_sees_its_part_of_the_box() -> None:
    # 500 x 250 pixels: the crop keeps the middle 200 x 200, x from 150 to 350 and y from 25 to 225.
    squash = InputGeometry(250, "squash", 250)
    assert to_other_view((0, 0, 249, 249), (500, 250), squash, CROP) == (0, 0, 199, 199)
    assert to_other_view((0, 0, 19, 19), (500, 250), squash, CROP) is None, "left of the crop"
    assert to_other_view((50, 0, 99, 59), (500, 250), CROP, squash) == (100, 25, 124, 84)


@pytest.mark.parametrize("image", [(640, 480), (301, 1003)])
def test_there_and_back_is_the_same_box_to_a_pixel(image: tuple[int, int]) -> None:
    there = to_other_view((60, 70, 120, 150), image, CROP, SQUASH)
    assert there is not None
    back = to_other_view(there, image, SQUASH, CROP)
    assert back is not None and np.abs(np.subtract(back, (60, 70, 120, 150))).max() <= 2
