"""The page Compare: its calculations worked by hand, and the page as a visitor drives it."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import chipcore
from chipcore import Importance, Network
from chipcore.analysis import map_similarity
from chipcore.methods import METHODS
from explorer.figures import compare as drawing
from explorer.services import gallery, saliency_cache
from explorer.state import cached, queues
from explorer.views.compare import methods_table

OpenApp = Callable[..., AppTest]


@pytest.fixture
def open_page(open_app: OpenApp) -> OpenApp:
    return partial(open_app, "compare")


@pytest.fixture(autouse=True)
def quiet_desk() -> Iterator[None]:
    """No slow map of one test runs into the next."""
    yield
    for job in queues.slow_maps().jobs():
        job.stop()
        job.finished.wait(240)
    queues.slow_maps.clear()


def captions(app: AppTest) -> list[str]:
    return [element.proto.body for element in app.get("html") if element.proto.body.startswith('<div class="chip-caption">')]


def alternatives(app: AppTest) -> list[str]:
    return [image.alt for element in app.get("image") for image in element.proto.imgs]


def tables(app: AppTest, kind: str) -> list[str]:
    return [element.proto.body for element in app.get("html") if f'class="{kind}"' in element.proto.body]


# --- worked by hand -----------------------------------------------------------------------------------------


def test_correlations_by_hand() -> None:
    """[1 2 3 4] with itself 1; with [1 2 3 0]: both means 2.5 and 1.5, sum of products -1.5*-.5 + -.5*.5 + .5*1.5 + 1.5*-1.5 = -1; lengths sqrt 5: -0.2."""
    one, other = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 2.0], [3.0, -7.0]])  # -7 is drawn as 0
    found = map_similarity.map_similarity([one, other, torch.full((2, 2), 3.0)], 2)
    assert found.pearson[0, 0] == pytest.approx(1)
    assert found.pearson[0, 1] == found.pearson[1, 0] == pytest.approx(-1 / 5)
    # Ranks 1 2 3 4 and 2 3 4 1: products -1.5*-.5 + -.5*.5 + .5*1.5 + 1.5*-1.5 = -1, lengths sqrt 5.
    assert found.rank[0, 1] == pytest.approx(-0.2)
    assert np.isnan(found.pearson[2]).all() and np.isnan(found.rank[:, 2]).all()


def test_ranks_pay_no_heed_to_how_values_are_scaled() -> None:
    one = torch.rand(7, 7, generator=torch.Generator().manual_seed(0)) + 0.1
    found = map_similarity.map_similarity([one, one**5], 7)
    assert found.rank[0, 1] == pytest.approx(1)
    assert found.pearson[0, 1] < 0.95


def test_equal_values_share_a_rank() -> None:
    # Ranks 3.5 2 3.5 1 and 4 2 3 1: centered 1 -.5 1 -1.5 and 1.5 -.5 .5 -1.5, products 4.5, lengths of squares 4.5 and 5.
    one, other = torch.tensor([[5.0, 1.0], [5.0, 0.0]]), torch.tensor([[9.0, 1.0], [5.0, 0.0]])
    assert map_similarity.map_similarity([one, other], 2).rank[0, 1] == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


def test_maps_of_any_resolution_are_compared_at_the_input_s() -> None:
    coarse = torch.tensor([[0.0, 1.0]])
    fine = torch.nn.functional.interpolate(coarse[None, None], (8, 8), mode="bilinear", align_corners=False)[0, 0]
    assert map_similarity.map_similarity([coarse, fine], 8).pearson[0, 1] == pytest.approx(1)


def test_marks_are_those_of_table_1() -> None:
    paper, ours = methods_table.is_in_table1()
    assert set(paper) | set(ours) == set(METHODS) and not set(paper) & set(ours)
    assert methods_table.property_marks(METHODS["lime"].properties) == (True, False, False, True, False, False, True)
    assert methods_table.property_marks(METHODS["cam"].properties) == (False, True, False, True, False, False, False)
    assert methods_table.property_marks(METHODS["guided_chip"].properties) == (True,) * 7


def test_a_matrix_can_be_read_aloud_and_shows_no_markup_of_a_name() -> None:
    written = drawing.matrix(["a <b>", "c"], np.array([[1.0, -0.25], [-0.25, np.nan]]), "Correlation")
    assert "a &lt;b&gt;" in written and "<b>" in written and "a <b>" not in written
    assert "−0.25" in written and "none" in written and "<caption>" in written


# --- the page -----------------------------------------------------------------------------------------------


def test_four_methods_and_two_classes(open_page: OpenApp, lite0: Network) -> None:
    app = open_page()
    assert not app.exception
    cards = captions(app)
    assert len(cards) == 8
    best = cached.seen(lite0.id, gallery.image("cat").sha256, lite0, gallery.image("cat")).best(2)
    for place, method in enumerate(("chip", "gradcam", "cmwp", "guided_backprop")):
        assert f"<h3>{METHODS[method].title}</h3>" in cards[place]
        assert " pass" in cards[place] and " s, " in cards[place] and "maximum" in cards[place]
        for row, target in enumerate(best):
            assert f"{METHODS[method].title} map of {lite0.classes.labels[target]}" in alternatives(app)[4 * row + place]
    (matrix,) = tables(app, "chip-matrix")
    assert matrix.count('scope="row"') == 8
    assert {button.key for button in app.get("download_button")} >= {f"take-compare-{kind}" for kind in ("png", "npz", "csv", "zip")}


def test_a_link_reopens_the_same_maps(open_page: OpenApp, lite0: Network) -> None:
    classes = lite0.classes
    app = open_page(
        **{"methods": "Grad-CAM", "with": f"{classes.synsets[340]},nonsense,{classes.synsets[386]}", "class": classes.synsets[285]}
    )
    assert [text.split(" map of ")[1].split(",")[0] for text in alternatives(app)] == [classes.labels[i] for i in (285, 340, 386)]
    assert "".join(app.query_params["with"]) == f"{classes.synsets[340]},{classes.synsets[386]}"


def test_no_method_is_a_sentence(open_page: OpenApp) -> None:
    app = open_page(methods="CHIP")
    app.multiselect(key="methods").set_value([]).run()
    assert not app.exception
    assert "Choose at least one method" in app.info[0].value


def test_one_failing_method_leaves_the_others(open_page: OpenApp) -> None:
    """CAM cannot explain a network with three linear maps; the sentence stands in its cell."""
    app = open_page(model="vgg16_slim", methods="CAM")
    app.multiselect(key="methods").set_value(["cam", "gradcam"]).run()
    assert not app.exception
    cards = captions(app)
    assert "CAM needs a network that ends in global average pooling" in cards[0]
    assert "maximum" in cards[1]
    assert alternatives(app)[0].startswith("No CAM map of cat")


def test_a_class_without_w_is_a_sentence_for_chip_alone(
    open_page: OpenApp, lite0: Network, fitted: list[int], change_w: Callable[[Callable[[Importance, str], Importance]], None]
) -> None:
    def without(found: Importance, _layer: str) -> Importance:
        found.W[11], found.support[11] = 0, 0
        return found

    rowless = 11
    change_w(without)
    app = open_page(**{"class": str(rowless)})
    cards = captions(app)
    assert "has no fitted row of W" in cards[0]
    assert "maximum" in cards[1]


def test_a_slow_map_is_made_on_request_and_kept(open_page: OpenApp, lite0: Network) -> None:
    app = open_page(model="vgg16_slim", methods="Grad-CAM")
    app.multiselect(key="methods").set_value(["local_chip", "gradcam"]).run()
    assert "Slow, so it is computed on request" in captions(app)[0]
    start = next(button for button in app.button if button.label == "Compute CHIP fitted on this photograph")
    start.click().run()
    (job,) = queues.slow_maps().jobs()
    assert job.finished.wait(240) and job.state == "done"
    app.run()
    assert "301 passes" in captions(app)[0]
    again = open_page(model="vgg16_slim", methods="Grad-CAM")  # another visitor, or a reload
    again.multiselect(key="methods").set_value(["local_chip", "gradcam"]).run()
    assert "301 passes" in captions(again)[0]


def test_a_slow_map_can_be_stopped_and_tried_again(open_page: OpenApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*given: object) -> None:
        while True:
            given[-1](1, 10)  # type: ignore[operator]
            time.sleep(0.02)

    app = open_page(model="vgg16_slim", methods="LIME")
    monkeypatch.setattr(saliency_cache, "compute_map", endless)  # or it might be over before it is stopped
    next(button for button in app.button if button.label == "Compute LIME").click().run()
    (job,) = queues.slow_maps().jobs()
    app.run()
    stop = next(button for button in app.button if button.label == "Stop")
    stop.click().run()
    assert job.finished.wait(240) and job.state == "stopped"
    app.run()
    assert any("was stopped" in info.value for info in app.info)
    assert any(button.label == "Try again" for button in app.button)


def test_fig_9_is_one_click(open_page: OpenApp, slim: Network) -> None:
    app = open_page(model="vgg16_slim", methods="CHIP")
    app.segmented_control(key="compare").set_value("At every depth").run()
    assert not app.exception
    assert len(captions(app)) == 2 * len(slim.layers)
    assert all(f"<h3>{layer.name}</h3>" in card for layer, card in zip(slim.layers * 2, captions(app), strict=True))
    assert any("Correlation of the two at each depth" in one.value for one in app.markdown)


def test_table_1_has_a_row_a_method(open_page: OpenApp) -> None:
    app = open_page(compare="All methods")
    assert not app.exception
    (table,) = tables(app, "chip-table1")
    for method in METHODS.values():
        assert f'<th scope="row">{method.title}<small>' in table
    assert table.count("✓") == sum(sum(methods_table.property_marks(method.properties)) for method in METHODS.values())
    assert table.count("<img") == sum(not method.slow for method in METHODS.values())
    assert table.count("not computed yet") == sum(method.slow for method in METHODS.values())


def test_one_scale_a_method(open_page: OpenApp) -> None:
    def pictures(app: AppTest) -> list[str]:
        return [image.url for element in app.get("image") for image in element.proto.imgs]

    each, all_maps = (pictures(open_page(methods="CHIP", scale=scale)) for scale in ("each map", "all maps"))
    assert sum(a != b for a, b in zip(each, all_maps, strict=True)) == 1, "the map with the larger maximum stays as it is"


def test_the_table_to_take_home(lite0: Network) -> None:
    found = [chipcore.explain(lite0, gallery.image("cat").open(), 285, method) for method in ("chip", "backprop")]
    rows = list(csv.DictReader(io.StringIO(methods_table.table_of(lite0, found))))
    assert [row["method"] for row in rows] == ["chip", "backprop"]
    assert rows[0]["layer"] == "head" and rows[1]["layer"] == ""
    assert float(rows[0]["maximum"]) == pytest.approx(float(found[0].raw.max()), rel=1e-5)
    lines = methods_table.command_lines(lite0, found, "my cat.png", "inferno", 0.75).splitlines()
    assert lines[0].startswith(
        "python -m chipcore explain 'my cat.png' --network efficientnet_lite0 --layer head --class n02124075 --method chip"
    )
