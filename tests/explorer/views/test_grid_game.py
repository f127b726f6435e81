"""The grid game: its scores are the evaluation's, and the page plays it in the background."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import chipcore
from chipcore import Importance, Layer, Network
from chipcore.datasets.mosaics import Mosaic
from chipcore.evaluation import grid_game, grid_pointing
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.grid_game import Score, Tile
from explorer.services import gallery
from explorer.state import queues

OpenApp = Callable[..., AppTest]
FOUR = ("cat", "coffee", "camera", "motorcycle")


@pytest.fixture(autouse=True)
def quiet_desk() -> Iterator[None]:
    yield
    for job in queues.slow_maps().jobs():
        job.stop()
        job.finished.wait(240)
    queues.slow_maps.clear()


def tiles_of(network: Network) -> list[Tile]:
    tiles = []
    for name in FOUR:
        image = gallery.image(name)
        probabilities = network.probabilities(network.input(image.open()))[0]
        target = int(probabilities.argmax())
        tiles.append(Tile(name, image.sha256, network.geometry.view(image.open()), target, float(probabilities[target])))
    return tiles


def test_scores_are_those_of_the_evaluation(lite0: Network) -> None:
    tiles, methods = tiles_of(lite0), ("chip", "gradcam")
    larger, layer, full = grid_game.board(lite0, lite0.layers[-1])
    assert full and larger.geometry.size == 448 and (layer.height, layer.width) == (14, 14)
    panel = MethodSet.of(lite0, ["head"], methods)
    theirs = grid_pointing.enlarged(panel, 448)
    assert theirs is not None
    expected: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    picture = grid_pointing.join([np.asarray(tile.view) for tile in tiles], 2)
    grid_pointing._play(theirs, Mosaic(FOUR, tuple(tile.target for tile in tiles)), picture, 2, theirs.tallies(), expected)
    for method in methods:
        mine = grid_game.play(larger, layer, method, tiles, lambda at: chipcore.load_importance(lite0, at.name))
        assert [score.right for score in mine] == pytest.approx(expected["head", method][0].tolist())
        assert grid_game.mean(mine) == pytest.approx(float(expected["head", method][0].mean()))
        assert grid_game.mean(mine) > 0.5, "twice as good as chance"
        assert all(sum(score.shares) == pytest.approx(1) for score in mine)


def test_a_network_of_one_size_gets_the_mosaic_squashed(tiny: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_pointing, "enlarged", lambda panel, size: None)
    assert grid_game.board(tiny, tiny.layers[-1]) == (tiny, tiny.layers[-1], False)
    views = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue", "white")]
    picture = grid_game.mosaic([Tile("", "", view, 0, 1.0) for view in views], 8)
    assert picture.size == (8, 8)
    corners = [picture.getpixel(place) for place in ((0, 0), (7, 0), (0, 7), (7, 7))]
    assert corners == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


def test_a_class_without_w_is_left_out_of_the_mean(
    lite0: Network, change_w: Callable[[Callable[[Importance, str], Importance]], None]
) -> None:
    def without(found: Importance, _layer: str) -> Importance:
        found.W[11], found.support[11] = 0, 0
        return found

    rowless = 11
    change_w(without)
    tiles = tiles_of(lite0)
    tiles[2] = Tile("camera", "", tiles[2].view, rowless, 0.5)
    larger, layer, _full = grid_game.board(lite0, lite0.layers[-1])
    scores = grid_game.play(larger, layer, "chip", tiles, lambda at: chipcore.load_importance(lite0, at.name))
    assert "no fitted row of W" in scores[2].problem and math.isnan(scores[2].right)
    assert grid_game.mean(scores) == pytest.approx(np.mean([scores[i].right for i in (0, 1, 3)]))
    assert math.isnan(grid_game.mean([scores[2]]))
    rows = list(csv.DictReader(io.StringIO(grid_game.scores_csv(lite0, tiles, {"chip": scores}))))
    assert rows[2]["score"] == "" and float(rows[0]["score"]) == pytest.approx(scores[0].right, abs=1e-4)


def test_a_blank_map_scores_nothing_and_a_stop_ends_the_game(tiny: Network) -> None:
    assert Score(1, None, (0.0, 0.0, 0.0, 0.0)).right == 0

    class Enough(Exception):
        pass

    def report(done: int, total: int, stage: str) -> None:
        if done >= 100:
            raise Enough

    view = gallery.image("cat").open().resize((8, 8))
    layer: Layer = tiny.layers[-1]
    with pytest.raises(Enough):
        grid_game.play(tiny, layer, "gradcam", [Tile("cat", "", view, 0, 1.0)] * 4, lambda at: pytest.fail("needs no W"), report)


def test_the_page_plays(open_app: OpenApp) -> None:
    app = open_app("localize")
    assert "coffee for **espresso**" in "".join(one.value for one in app.markdown)
    next(button for button in app.button if button.key == "play").click().run()
    jobs = queues.slow_maps().jobs()
    assert len(jobs) == 3
    assert all(job.finished.wait(240) and job.state == "done" for job in jobs)
    app.run()
    assert not app.exception
    alternatives = [image.alt for element in app.get("image") for image in element.proto.imgs]
    assert len(alternatives) == 12
    assert "of the map in the right place" in alternatives[0]
    assert not any(button.key == "play" for button in app.button)
    app.pills(key="tiles").set_value(["cat", "coffee"]).run()
    assert "you chose 2 photographs" in "".join(one.value for one in app.info)
