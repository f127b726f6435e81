"""A visitor leaves a page and comes back: what was chosen there is still chosen. And what the address says, counts."""

from __future__ import annotations

from collections.abc import Callable

from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from chipcore import Network

OpenApp = Callable[..., AppTest]


def turn(app: AppTest, page: str) -> AppTest:
    """To another page by its link, which takes no parameters of this one along."""
    app._page_hash = calc_hash(page) if page else ""
    app.query_params.clear()
    app.run()
    assert not app.exception
    return app


def test_channels_and_compare_are_found_as_they_were_left(open_app: OpenApp, lite0: Network) -> None:
    app = open_app("channels")
    app.session_state["channels-painted"] = True
    app.run()
    app.segmented_control(key="sort").set_value("importance").run()
    app.slider(key="topk").set_value(17).run()
    app.select_slider(key="share").set_value("1/20").run()
    app.multiselect(key="classes").set_value([340, 32]).run()
    turn(app, "compare")
    app.multiselect(key="others").set_value([340, 386]).run()
    turn(app, "channels")
    assert (app.segmented_control(key="sort").value, app.slider(key="topk").value) == ("importance", 17)
    assert (app.select_slider(key="share").value, app.multiselect(key="classes").value) == ("1/20", [340, 32])
    assert app.query_params["topk"] in ("17", ["17"])
    turn(app, "compare")
    assert app.multiselect(key="others").value == [340, 386]


def test_class_of_an_address_that_the_page_did_not_write_counts(open_app: OpenApp, lite0: Network) -> None:
    zebra, frog = (lite0.classes.synsets[index] for index in (340, 32))
    app = open_app("channels", **{"class": zebra})
    app.selectbox(key="class").set_value(32).run()
    assert app.query_params["class"] in (frog, [frog])
    app.selectbox(key="class").set_value(30).run()  # the address of the run before is no news
    assert app.session_state["class"] == 30
    app.query_params["class"] = zebra  # a step back in the browser's history
    app.run()
    assert app.session_state["class"] == 340
    app.query_params["class"] = "n99999999"
    app.run()
    assert app.session_state["class"] == 340


CHOSEN = {
    "photo": "coffee",
    "class": "n02391049",
    "layer": "stage3",
    "order": "similar first",
    "colours": "viridis",
    "opacity": "0.5",
    "scale": "all maps",
}


def shared(app: AppTest) -> dict[str, str]:
    """What the address says of the choices that all views share."""
    found = {key: app.query_params.get(key, "") for key in CHOSEN}
    return {key: value[0] if isinstance(value, list) else value for key, value in found.items()}


def test_every_way_from_view_to_view_keeps_every_parameter(open_app: OpenApp) -> None:
    views = ["explore", "compare", "channels", "localize", "fit", "learn"]
    app = open_app("", **CHOSEN)
    for place, one in enumerate(views):
        for other in views[place + 1 :]:
            for name in (other, one):  # there and back
                turn(app, "" if name == "explore" else name)
                assert shared(app) == CHOSEN, f"between {one} and {other}, at {name}"
        if place + 1 < len(views):
            turn(app, views[place + 1])


def test_jump_to_a_channel_keeps_every_parameter(open_app: OpenApp) -> None:
    """What a click in a heat map or a Venn diagram does, from each page that can be left so."""
    app = open_app("channels", **CHOSEN)
    app.session_state["goto-channel"] = ("head", 340, 7)
    app.run()
    assert not app.exception
    assert shared(app) == {**CHOSEN, "layer": "head"}
