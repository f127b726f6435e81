"""Pictures, sums and sentences, each by hand."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from chipcore import Importance, Layer, Network, maps
from chipcore.analysis import layer_maps
from chipcore.images import InputGeometry
from explorer import figures
from explorer.text import percent, plain, readable
from explorer.views.explore import notes

GRAY = Image.new("RGB", (32, 32), (120, 120, 120))
LAYER = Layer("late", "second", 3, 2, 2, 4)


def w(rows: list[list[float]], loyalty: float = 20.0) -> Importance:
    W = torch.tensor(rows)
    count = len(rows)
    return Importance(W, torch.zeros(count), (W != 0).sum(1), torch.ones(count), torch.full((count,), loyalty))


def test_map_is_brightest_where_it_is_largest() -> None:
    raw = torch.zeros(4, 4)
    raw[3, 0] = 2.0
    picture = np.asarray(figures.chip_picture(figures.enlarged(GRAY, 128), raw, 32)).astype(int).sum(-1)
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert row > 96
    assert column < 32


def test_opacity_none_leaves_the_image() -> None:
    image = figures.enlarged(GRAY, 64)
    assert figures.chip_picture(image, torch.rand(3, 3), 32, opacity=0.0).tobytes() == image.tobytes()


def test_one_scale_dims_the_weaker_map() -> None:
    image, raw = figures.enlarged(GRAY, 64), torch.eye(4)
    own, shared = (np.asarray(figures.chip_picture(image, raw, 32, maximum=top)).max() for top in (None, 50.0))
    assert own > shared


def test_ring_marks_its_cell_only() -> None:
    marked = np.asarray(figures.circled(Image.new("RGB", (200, 200), "grey"), 1, 3, (4, 5))).astype(int)
    ys, xs = np.nonzero((marked != marked[0, 0]).any(-1))
    assert abs(ys.mean() - 75) < 1
    assert abs(xs.mean() - 140) < 1
    assert 15 < np.ptp(xs) < 40


def test_strip_holds_every_panel() -> None:
    panels = [figures.FigurePanel(Image.new("RGB", (10, 10), color), color, "a line") for color in ("red", "lime")]
    sheet = np.asarray(figures.strip(panels, "title", side=100)).reshape(-1, 3)
    for color in ((255, 0, 0), (0, 255, 0)):
        assert (sheet == color).all(1).sum() == 100 * 100


def test_files_can_be_read_back() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))
    assert Image.open(io.BytesIO(figures.png(noise))).tobytes() == noise.tobytes()
    assert Image.open(io.BytesIO(figures.jpeg(noise))).size == (20, 20)
    head, body = figures.data_uri(noise).split(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(body))).size == (20, 20)


def test_legend_runs_through_the_color_map() -> None:
    assert figures.gradient("viridis", 3) == "linear-gradient(90deg, #440154, #20908c, #fde724)"


def test_sum_is_eq_10_at_the_strongest_place() -> None:
    features = torch.tensor([[[1.0, 2.0], [0.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [5.0, 1.0]]])
    found = layer_maps.layer_map(LAYER, 0, features, lambda: w([[2.0, -1.0, 0.5]]))
    assert found.raw is not None
    assert found.raw.tolist() == [[1.0, 3.0], [1.5, 5.5]]
    total = layer_maps.strongest_sum(found, features, count=2)
    assert (total.row, total.column, total.total) == (1, 1, 5.5)
    assert [(term.channel, term.value) for term in total.terms] == [(0, 6.0), (1, -1.0)]
    assert (total.others, total.rest) == (1, 0.5)


@pytest.mark.parametrize(
    ("row", "blank"), [([0.0, 1.0, 0.0], "constant"), ([-1.0, 0.0, 0.0], "no positive part"), ([float("nan"), 0.0, 0.0], "not finite")]
)
def test_depth_names_the_state_of_a_blank_map(row: list[float], blank: str) -> None:
    features = torch.ones(3, 2, 2)
    features[0, 0, 0] = 2.0
    found = layer_maps.layer_map(LAYER, 0, features, lambda: w([row]))
    assert found.blank == maps.STATES[blank]
    assert not found.shown
    assert found.maximum == 0


def test_evidence_is_the_best_of_all_depths() -> None:
    weak, good = w([[1.0], [1.0], [0.0]], 3.0), w([[0.0], [1.0], [0.0]], 30.0)
    assert layer_maps.evidence_of([weak, good], 3) == ["weak", "good", "none"]
    assert layer_maps.evidence_of([], 2) == ["none", "none"]


def test_notes_name_the_depths_they_are_about(tiny: Network) -> None:
    early, late = tiny.layers
    good, weak = w([[1.0]] * 3, 30.0), w([[1.0]] * 3, 2.5)
    assert notes.notes(tiny, 1, [layer_maps.LayerMap(early, good), layer_maps.LayerMap(late, good)]) == []
    one = notes.notes(tiny, 1, [layer_maps.LayerMap(early, good), layer_maps.LayerMap(late, weak)])
    assert [note.kind for note in one] == ["weak"]
    assert "At late," in one[0].text
    assert "2.5" in one[0].text
    every = notes.notes(tiny, 1, [layer_maps.LayerMap(early, weak), layer_maps.LayerMap(late, weak)])
    assert "At every depth," in every[0].text


def test_words() -> None:
    assert [readable(value) for value in (0, 1234.5, 12.345, 0.9997, 0.01234, -1.5, 2e-7, 3e9)] == [
        "0",
        "1,234",
        "12.3",
        "1.00",
        "0.0123",
        "−1.50",
        "2.0e−07",
        "3.0e+09",
    ]
    assert [percent(value) for value in (0.004, 0.01, 0.774)] == ["under 1%", "1%", "77%"]
    assert plain("a_*b*_[c](d)") == r"a\_\*b\*\_\[c\]\(d\)"


def test_an_image_is_shown_in_its_own_shape_with_what_a_crop_leaves_of_it() -> None:
    image = Image.new("RGB", (800, 400), (10, 20, 30))
    whole = figures.whole_image(image, InputGeometry(224, "squash", 224), 400)
    assert whole.size == (400, 200) and whole.getcolors() == [(80_000, (10, 20, 30))] and image.size == (800, 400)
    framed = np.asarray(figures.whole_image(image, InputGeometry(100, "crop", 125), 400))
    at = np.argwhere((framed != (10, 20, 30)).any(2))
    assert at.min(0).tolist() == [20, 120] and at.max(0).tolist() == [179, 279], "the middle 160 of 200 rows"
