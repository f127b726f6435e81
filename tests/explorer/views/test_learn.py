"""The six lessons, driven as a visitor would, without a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

import chipcore
from chipcore import ChipError, Importance, ImportanceNotFitted
from chipcore.analysis import gate_experiments
from explorer.services import gallery
from explorer.text import readable

OpenApp = Callable[..., AppTest]
SLIM = {"model": "vgg16_slim", "layer": "pool5"}


@pytest.fixture
def open_page(open_app: OpenApp) -> OpenApp:
    return partial(open_app, "learn")


def body(app: AppTest) -> str:
    """Everything in words, HTML without its tags."""
    kinds = ("header", "markdown", "caption", "info", "error")
    words = [str(element.value) for kind in kinds for element in getattr(app, kind)]
    return "\n".join(words + [re.sub(r"<[^>]+>", " ", element.proto.body) for element in app.get("html")])


def alternatives(app: AppTest) -> list[str]:
    return [image.alt for element in app.get("image") for image in element.proto.imgs]


def finished(app: AppTest) -> AppTest:
    """Run again until the small fit is there."""
    for _ in range(60):
        if "Stop" not in [button.label for button in app.button]:
            break
        time.sleep(0.5)
        app.run()
    return app


def test_six_steps_in_order_with_next_and_back(open_page: OpenApp) -> None:
    app = open_page(**SLIM)
    for step, name in enumerate(gate_experiments.STEPS, start=1):
        finished(app)
        assert not app.exception, name
        assert app.header[0].value.startswith(f"{step}. ")
        assert app.query_params["step"] in (str(step), [str(step)])
        assert app.latex
        assert bool(alternatives(app)) != (name == "predict")  # whose bars are a table
        if step < len(gate_experiments.STEPS):
            app.button(key="next").click().run()
    app.button(key="back").click().run()
    assert app.header[0].value.startswith("5. ")


def test_gate_and_prediction_are_those_of_the_library(open_page: OpenApp) -> None:
    network = chipcore.load_network("vgg16_slim")
    layer = network.layer("pool5")
    with torch.inference_mode():
        known = network.forward_prefix(network.input(gallery.image("cat").open()), (layer,))
    app = open_page(step="2", open="25", **SLIM)
    gate = gate_experiments.partly_open_gate(gate_experiments.ablation_order(128, 0), 32)
    target = int(known.scores.argmax())
    after = gate_experiments.gated_scores(network, layer, known, gate)
    assert "32 of 128" in body(app)
    assert re.search(rf"its score with this gate\s+{re.escape(readable(float(after[target])))}\s", body(app))
    app.button(key="again").click().run()
    assert not app.exception
    app.segmented_control(key="first").set_value("important first").run()
    row = chipcore.load_importance(network, "pool5").W[target]
    gate = gate_experiments.partly_open_gate(gate_experiments.ablation_order(128, 0, "important first", row), 32)
    share = float(gate_experiments.gated_scores(network, layer, known, gate).softmax(0)[target])
    assert ("under 1%" if share < 0.01 else f"{share:.0%}") in body(app)


def test_weight_of_a_gate(open_page: OpenApp) -> None:
    app = open_page(step="3", open="50", sigma="1/2", **SLIM)
    assert "exp(−64 / 64.0)" in body(app)
    assert "0.368" in body(app)  # exp(-1)


def test_fit_follows_lambda_and_keeps_its_link(open_page: OpenApp) -> None:
    app = finished(open_page(step="4", **{**SLIM, "lambda": "0.1"}))
    assert not app.exception
    before = re.search(r"channels in use\s+(\d+) of 128", body(app))
    app.select_slider(key="lambda").set_value(0.0001).run()
    after = re.search(r"channels in use\s+(\d+) of 128", body(app))
    assert before and after and int(before[1]) < int(after[1])
    assert any("never saw" in words or "held-out" in words for words in alternatives(app))


def test_sum_of_all_channels_is_the_map(open_page: OpenApp) -> None:
    app = open_page(step="5", **SLIM)
    slider = app.slider(key="sum-of")
    slider.set_value(slider.max).run()
    found = re.search(r"correlation of the two maps\s+([\d.]+)", body(app))
    assert found and float(found[1]) == pytest.approx(1)


def test_without_w_the_lessons_use_this_image(open_page: OpenApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(network: object, layer: str) -> Importance:
        raise ImportanceNotFitted("W is not fitted")

    monkeypatch.setattr(chipcore, "load_importance", load)
    app = finished(open_page(step="5", **SLIM))
    assert not app.exception
    assert "fitted on this photograph alone" in body(app)
    app = finished(open_page(step="6", **SLIM))
    assert not app.exception
    assert "no row of W for this class at this layer" in body(app)
    app = open_page(step="1", first="important first", **SLIM)
    assert app.segmented_control(key="first").options == ["at random"]


def test_other_network_and_a_wrong_step(open_page: OpenApp) -> None:
    app = open_page(step="99", model="efficientnet_lite0")
    assert not app.exception
    assert app.header[0].value.startswith("1. ")
    for step in (2, 3, 4, 5, 6):
        app.button(key="next").click().run()
        finished(app)
        assert not app.exception, step
    assert "Grad-CAM" in body(app)


def test_fit_that_fails_says_why_and_is_not_repeated_unasked(open_page: OpenApp, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def fail(*_given: object) -> None:
        asked.append(1)
        raise ChipError("this class's score does not react.")

    monkeypatch.setattr(gate_experiments, "lasso_path", fail)
    app = finished(open_page(step="4", **{**SLIM, "layer": "conv5_3"}))
    assert not app.exception
    assert "does not react" in body(app)
    app.run()
    assert len(asked) == 1
    app.button(key="run-again").click().run()
    finished(app)
    assert len(asked) == 2


def test_one_visitor_on_every_page(open_app: OpenApp) -> None:
    """What a widget keeps under its key must not be read as another page's: there was a ``draw`` on two of them."""
    app = open_app("fit", **SLIM, methods="CHIP", located="CHIP")
    for page in ("learn", "channels", "fit", "", "localize", "compare", "learn", "fit"):
        app._page_hash = calc_hash(page)
        app.run()
        assert not app.exception, page


def test_switch_turns_one_channel_and_a_new_gate_turns_all_back(open_page: OpenApp) -> None:
    app = open_page(step="2", open="100", turned="3.5", **SLIM)
    assert "126 of 128" in body(app)
    network = chipcore.load_network("vgg16_slim")
    layer = network.layer("pool5")
    with torch.inference_mode():
        known = network.forward_prefix(network.input(gallery.image("cat").open()), (layer,))
    gate = torch.ones(128, dtype=torch.bool)
    gate[[3, 5]] = False
    target = int(known.scores.argmax())
    score = float(gate_experiments.gated_scores(network, layer, known, gate)[target])
    assert re.search(rf"its score with this gate\s+{re.escape(readable(score))}\s", body(app))
    app.slider(key="open").set_value(50).run()
    assert "64 of 128" in body(app) and "turned" not in app.query_params
