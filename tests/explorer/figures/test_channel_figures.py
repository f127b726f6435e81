"""The heat map and the Venn diagrams of Channels: rows, columns, colors and numbers stand where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

from chipcore.analysis.class_channels import regions
from explorer.figures import heatmap, venn
from explorer.figures.theme import Theme

THEME = Theme(paper="#ffffff", ink="#000000", quiet="#666666", colors=("#ff0000", "#00ff00", "#0000ff"))


def cells(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The color in the middle of every cell, int (rows, columns, 3), of :func:`heatmap_picture` without its margins."""
    height, width = picture.shape[:2]
    rows, columns = shape
    # As heatmap_picture lays it out: 16% to 98% across, and rows of equal height 60 px above the lower edge of a figure
    # that is 140 px higher than they are.
    scale = width / 1400
    top, tall = height - (60 * scale) - (height - 140 * scale), (height - 140 * scale) / rows
    ys = (top + tall * (np.arange(rows) + 0.5)).astype(int)
    xs = (width * (0.16 + 0.82 * (np.arange(columns) + 0.5) / columns)).astype(int)
    return picture[ys][:, xs].astype(int)


@pytest.mark.parametrize("signed", [False, True])
def test_the_heat_map_has_every_weight_in_its_cell(signed: bool) -> None:
    W = np.zeros((4, 6), dtype=np.float32)
    W[2, 5], W[2, 1], W[0, 1] = 4.0, -4.0, 1.0
    shown = heatmap.heatmap_picture(W, [2, 0], ["two", "zero"], [1, 3, 5], "title", THEME, signed=signed, each=False)
    found = cells(np.asarray(shown), (2, 3))
    zero = np.array([0xF4, 0xF1, 0xEC])
    red, blue = np.array([0xBE, 0x36, 0x06]), np.array([0x10, 0x58, 0xA8])
    assert np.abs(found[0, 2] - red).max() <= 3, "class 2, channel 5 is the largest"
    assert np.abs(found[0, 0] - (blue if signed else zero)).max() <= 3, "class 2, channel 1 is below zero"
    half = (red + zero) / 2  # the square root of a quarter
    assert np.abs(found[1, 0] - half).max() <= 4, "class 0, channel 1 is a quarter of the largest"
    assert np.abs(found[[0, 1, 1], [1, 1, 2]] - zero).max() <= 3


def test_each_row_on_its_own_scale_reaches_full_color() -> None:
    W = np.array([[1.0, 0.0], [0.0, 100.0]])
    found = cells(np.asarray(heatmap.heatmap_picture(W, [0, 1], ["a", "b"], [0, 1], "t", THEME, signed=False, each=True)), (2, 2))
    assert np.abs(found[0, 0] - found[1, 1]).max() <= 2


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[float, float]]:
    """Every text of a figure that is drawn, with its place."""
    found: dict[str, tuple[float, float]] = {}
    draw = Axes.draw

    def watching(self: Axes, *arguments: object, **options: object) -> None:
        found.update({text.get_text(): text.get_position() for text in self.findobj(Text) if text.get_text()})
        draw(self, *arguments, **options)

    monkeypatch.setattr(Axes, "draw", watching)
    return found


def test_two_circles_have_their_own_channels_outside_and_the_shared_ones_between(written: dict[str, tuple[float, float]]) -> None:
    venn.venn_picture(regions([[1, 2, 3, 4], [4, 5]]), ["zebra", "tiger"], THEME)
    assert {"zebra", "tiger", "3", "1"} <= set(written)
    # zebra alone has three, tiger alone one and both one: the text '1' is written twice, so compare the classes' sides.
    assert written["zebra"][0] < written["tiger"][0] and written["3"][0] < 0


def test_three_circles_have_seven_numbers_in_their_places(written: dict[str, tuple[float, float]]) -> None:
    sets = [list(range(100)), list(range(60, 130)), [*range(90, 95), *range(120, 160)]]
    parts = regions(sets)
    counts = {region.name: len(region.channels) for region in parts}
    a, b, c = (set(one) for one in sets)
    assert counts == {
        "100": len(a - b - c), "010": len(b - a - c), "110": len(a & b - c), "001": len(c - a - b), "101": len(a & c - b),
        "011": len(b & c - a), "111": len(a & b & c),
    }  # fmt: skip
    venn.venn_picture(parts, ["zebra", "tiger", "cat"], THEME)
    assert {str(count) for count in counts.values()} <= set(written)
    alone_a, alone_b, alone_c = (written[str(counts[name])] for name in ("100", "010", "001"))
    shared = written[str(counts["110"])]
    assert alone_a[0] < shared[0] < alone_b[0], "zebra on the left, tiger on the right, what they share between"
    assert alone_c[1] < min(alone_a[1], alone_b[1]), "cat below"
    assert written["zebra"][0] < 0 < written["tiger"][0] and written["cat"][1] < 0
