"""The page Channels, driven as a visitor would, without a browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from streamlit.testing.v1 import AppTest

import chipcore
from chipcore import Importance, ImportanceNotFitted, Network
from chipcore.analysis import class_channels
from explorer.text import readable

OpenApp = Callable[..., AppTest]
ChangeW = Callable[[Callable[[Importance, str], Importance]], None]


@pytest.fixture
def open_page(open_app: OpenApp) -> OpenApp:
    """Opens the page as it is once the browser has painted the heat map."""

    def open_at(**query: str) -> AppTest:
        app = open_app("channels", **query)
        app.session_state["channels-painted"] = True
        return app.run()

    return open_at


def text(app: AppTest) -> str:
    return "\n".join(
        str(element.value) for kind in ("header", "subheader", "markdown", "caption", "info") for element in getattr(app, kind)
    )


def components(app: AppTest, name: str) -> list[Any]:
    return [element for element in app.get("bidi_component") if element.proto.component_name == name]


def packed(app: AppTest) -> dict[str, Any]:
    """The header of what the heat map was given."""
    (drawn,) = components(app, "chip_heatmap")
    data = drawn.proto.bytes
    return dict(json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")]))


def alternatives(app: AppTest) -> list[str]:
    return [image.alt for element in app.get("image") for image in element.proto.imgs]


def test_suggests_classes_and_draws_them(open_page: OpenApp, lite0: Network, fitted: list[int]) -> None:
    app = open_page(**{"class": lite0.classes.synsets[340]})
    assert not app.exception
    header = packed(app)
    assert header["rows"][0] == header["chosen"] == 340
    assert len(header["rows"]) >= 6
    assert sorted(header["columns"]) == list(range(lite0.layers[-1].channels))
    importance = chipcore.load_importance(lite0, lite0.layers[-1].name)
    nearest = class_channels.neighbors(importance, 340, 10)[0].index
    assert nearest in header["rows"]
    assert any("weak" in label for label in header["labels"]) == any(importance.evidence(row) == "weak" for row in header["rows"])
    pictures = alternatives(app)
    assert sum(words.startswith("Venn diagram") for words in pictures) == 2
    assert any(words.startswith("Dendrogram") for words in pictures)
    app.segmented_control(key="sort").set_value("importance").run()
    assert packed(app)["columns"][:5] == importance.top_channels(340, 5)


def test_heat_map_comes_before_all_that_is_below_it(open_app: OpenApp, lite0: Network) -> None:
    app = open_app("channels")
    assert packed(app)["rows"]
    assert not app.subheader
    assert not alternatives(app)
    app.session_state["channels-painted"] = True  # as the browser says
    app.run()
    assert len(app.subheader) == 4
    assert [len(components(app, name)) for name in ("chip_heatmap", "chip_regions", "chip_table")] == [1, 2, 2]


def test_link_reopens_classes_and_all_of_them_fit(open_page: OpenApp, lite0: Network, fitted: list[int]) -> None:
    some = fitted[:3]
    link = ",".join(lite0.classes.synsets[index] for index in some)
    app = open_page(classes=f"{link},nonsense,n99999999", venn=",".join(lite0.classes.synsets[index] for index in some[:2]))
    assert packed(app)["rows"] == some
    assert app.query_params["classes"] in (link, [link])
    assert lite0.classes.labels[some[1]] in next(words for words in alternatives(app) if words.startswith("Venn"))
    app.multiselect(key="classes").set_value(some[:2]).run()
    assert packed(app)["rows"] == some[:2]
    assert app.query_params["classes"] in (
        ",".join(lite0.classes.synsets[i] for i in some[:2]),
        [",".join(lite0.classes.synsets[i] for i in some[:2])],
    )
    app.toggle(key="everyclass").set_value(True).run()
    assert not app.exception
    assert len(packed(app)["rows"]) == int((chipcore.load_importance(lite0, "head").support > 0).sum())


def test_sliders_count_what_the_paper_counts(open_page: OpenApp, lite0: Network, fitted: list[int]) -> None:
    some = fitted[:2]
    chosen = ",".join(lite0.classes.synsets[index] for index in some)
    app = open_page(classes=chosen, venn=chosen, topk="3")
    importance = chipcore.load_importance(lite0, "head")
    first, second = (words for words in alternatives(app) if words.startswith("Venn"))
    shared = set(importance.top_channels(some[0], 3)) & set(importance.top_channels(some[1], 3))
    assert f"both: {len(shared)}." in first
    offered = json.loads(components(app, "chip_regions")[0].proto.json)
    assert [set(region["channels"]) for region in offered][-1] == shared
    assert {channel for region in offered for channel in region["channels"]} == {k for i in some for k in importance.top_channels(i, 3)}
    assert all(channel in importance.top_channels(region["class"], 3) for region in offered for channel in region["channels"])
    above = [set(importance.channels_above(index, 1e-3)) for index in some]
    assert f"both: {len(above[0] & above[1])}." in second


def test_one_class_is_enough_and_none_says_so(open_page: OpenApp, lite0: Network, fitted: list[int]) -> None:
    app = open_page(classes=lite0.classes.synsets[fitted[0]])
    assert not app.exception
    app.multiselect(key="classes").set_value([]).run()
    assert not app.exception
    assert "There is nothing to draw yet" in text(app)


def test_class_without_a_row_says_so(open_page: OpenApp, lite0: Network, change_w: ChangeW) -> None:
    def taken_out(found: Importance, _layer: str) -> Importance:
        found.W[11], found.support[11] = 0, 0
        return found

    without = 11
    change_w(taken_out)
    app = open_page(**{"class": lite0.classes.synsets[without]})
    assert not app.exception
    assert "No row of W for" in text(app)
    assert without not in packed(app)["rows"]


def test_missing_w_says_how_to_fit(open_page: OpenApp, monkeypatch: pytest.MonkeyPatch) -> None:
    real = chipcore.load_importance

    def load(network: Network, layer: str) -> Importance:
        if layer == "stage5":
            raise ImportanceNotFitted("W is not fitted; python -m chipcore fit")
        return real(network, layer)

    monkeypatch.setattr(chipcore, "load_importance", load)
    app = open_page(layer="stage5")
    assert not app.exception
    assert "There is no W at stage5" in text(app)
    assert "python -m chipcore fit" in text(app)
    assert "head" in app.info[-1].value
    app.segmented_control(key="layer").set_value("head").run()
    assert packed(app)["rows"]


def test_w_without_any_row(open_page: OpenApp, change_w: ChangeW) -> None:
    change_w(
        lambda found, layer: Importance(
            torch.zeros_like(found.W), found.r2, torch.zeros_like(found.support), found.images, found.evidence_mass, found.metadata
        )
    )
    app = open_page()
    assert not app.exception
    assert "No class has a row of W" in text(app)


def test_cell_opens_its_channel_on_the_same_page(open_page: OpenApp, lite0: Network) -> None:
    importance = chipcore.load_importance(lite0, "stage4")
    app = open_page(layer="stage4", cell=f"{lite0.classes.synsets[340]}.57", **{"class": "n01641577"})
    assert not app.exception
    weight = readable(float(importance.W[340, 57]))
    assert f"Channel 57 for zebra: _w_ = {weight}" in text(app)
    assert any("Feature map of channel 57 at stage4" in words for words in alternatives(app))
    app.button(key="cell-close").click().run()
    assert "Channel 57 for" not in text(app) and "cell" not in app.query_params
    for nonsense in ("zebra.112", "n0.1", ".", "zebra.", "zebra.-1"):
        app.query_params["cell"] = nonsense
        app.run()
        assert not app.exception and "for zebra: _w_" not in text(app)


def test_venn_opens_with_a_relative_and_a_stranger_and_the_papers_trio_is_a_click_away(open_page: OpenApp, lite0: Network) -> None:
    importance = chipcore.load_importance(lite0, "head")
    app = open_page(**{"class": lite0.classes.synsets[340]})
    assert app.multiselect(key="venn").value == class_channels.trio(importance, 340)
    app.button(key="classic").click().run()
    assert app.multiselect(key="venn").value == [30, 31, 340]
    assert "zebra" in next(words for words in alternatives(app) if words.startswith("Venn"))
