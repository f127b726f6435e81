"""A map as colors and on its image: each pixel by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from chipcore.visualization import COLORMAPS, SIGNED_COLORMAP, colorize, overlay

WHITE = Image.new("RGB", (3, 1), "white")


@pytest.mark.parametrize(
    ("colormap", "low", "high"),
    [("inferno", (0, 0, 3), (252, 254, 164)), ("viridis", (68, 1, 84), (253, 231, 36)), ("jet", (0, 0, 127), (127, 0, 0))],
)
def test_colors_are_those_of_the_published_map(colormap: str, low: tuple[int, ...], high: tuple[int, ...]) -> None:
    found = colorize(np.array([[0.0, 1.0]]), colormap)
    assert found.dtype == np.uint8 and found.shape == (1, 2, 3)
    assert tuple(found[0, 0]) == low and tuple(found[0, 1]) == high and colormap in COLORMAPS


def test_signed_maps_are_red_for_and_blue_against_and_light_between() -> None:
    against, nothing, for_it = colorize(np.array([[-1.0, 0.0, 1.0]]), SIGNED_COLORMAP)[0].astype(int)
    assert against[2] > 90 and against[2] > against[0] + 50, "blue"
    assert for_it[0] > 90 and for_it[0] > for_it[2] + 50, "red"
    assert nothing.min() > 230


def test_a_map_of_zero_only_darkens_its_image_and_a_map_of_one_hides_it() -> None:
    shown = np.asarray(overlay(WHITE, np.array([[0.0, 0.5, 1.0]]), colormap="viridis", opacity=1.0)).astype(int)[0]
    alpha = 0.35  # of a map of zero: see overlay
    assert np.abs(shown[0] - (255 * (1 - alpha) + alpha * np.array([68, 1, 84]))).max() <= 2
    assert np.abs(shown[2] - np.array([253, 231, 36])).max() <= 2
    middle = (0.35 + 0.65 * 0.5) * np.array([32, 144, 140]) + (1 - 0.35 - 0.65 * 0.5) * 255
    assert np.abs(shown[1] - middle).max() <= 3


def test_both_ends_of_a_signed_map_hide_the_image_alike() -> None:
    dark = Image.new("RGB", (3, 1), "black")
    against, nothing, for_it = np.asarray(overlay(dark, np.array([[-1.0, 0.0, 1.0]]), colormap=SIGNED_COLORMAP, opacity=1.0)).astype(int)[0]
    assert np.abs(against - colorize(np.array([[-1.0]]), SIGNED_COLORMAP)[0, 0]).max() <= 2
    assert np.abs(for_it - colorize(np.array([[1.0]]), SIGNED_COLORMAP)[0, 0]).max() <= 2
    assert nothing.max() < 0.4 * 255


def test_opacity_zero_leaves_the_image() -> None:
    assert overlay(WHITE, np.array([[0.0, 0.5, 1.0]]), opacity=0.0).tobytes() == WHITE.tobytes()
