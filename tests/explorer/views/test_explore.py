"""The page Explore, driven as a visitor would, without a browser."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

import chipcore
from chipcore import ChipError, Importance, ImportanceNotFitted, Network
from chipcore.errors import CheckpointError
from explorer import figures
from explorer.services import gallery
from explorer.state import cached, queues
from explorer.text import percent, readable

OpenApp = Callable[..., AppTest]
ChangeW = Callable[[Callable[[Importance, str], Importance]], None]


def text(app: AppTest) -> str:
    """Everything in words on the page."""
    kinds = ("header", "subheader", "markdown", "caption", "warning", "info", "error")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(app, kind)) + "\n".join(html(app))


def html(app: AppTest) -> list[str]:
    return [element.proto.body for element in app.get("html")]


def captions(app: AppTest) -> list[str]:
    return [body for body in html(app) if body.startswith('<div class="chip-caption">')]


DEPTHS = 6  # of either bundled network


def pictures(app: AppTest) -> list[Any]:
    """The image and the strip; what the page shows below them is left out."""
    found = [image for element in app.get("image") for image in element.proto.imgs]
    return [found[DEPTHS], *found[:DEPTHS]]


def alternatives(app: AppTest) -> list[str]:
    return [image.alt for image in pictures(app)]


def maps_of(app: AppTest) -> list[str]:
    """The addresses of the strip's pictures, which Streamlit makes from their bytes."""
    return [image.url for image in pictures(app)][1:]


def top(network: Network, image: str) -> list[int]:
    """The image's five most probable classes, by chipcore alone."""
    probabilities = network.probabilities(network.input(gallery.image(image).open()))[0]
    return [int(index) for index in probabilities.topk(5).indices]


def finished(app: AppTest) -> AppTest:
    """The page once its background jobs are over."""
    for job in queues.slow_maps().jobs():
        assert job.finished.wait(240)
        assert job.state == "done", job.error
    return app.run()


def choose_class(app: AppTest, index: int) -> AppTest:
    return app.selectbox(key="class").set_value(index).run()


# --- what is there ------------------------------------------------------------------------------------------


def test_page_tells_one_story(open_app: OpenApp, lite0: Network) -> None:
    app = open_app()
    assert not app.exception
    best = top(lite0, "cat")
    assert lite0.classes.labels[best[0]] in app.header[0].value
    assert [button.label.rsplit(" **")[0] for button in app.button if "prediction" in (button.key or "")] == [
        lite0.classes.labels[i] for i in best
    ]
    cards = captions(app)
    assert len(cards) == len(lite0.layers)
    for layer, card in zip(lite0.layers, cards, strict=True):
        assert f"<h3>{layer.name}</h3>" in card
        assert f"{layer.channels:,} channels, {layer.height} × {layer.width}" in card
    assert "CHIP switches random channels" in text(app)
    assert len(app.latex) == 1


def test_every_picture_has_a_text(open_app: OpenApp, lite0: Network, fitted: list[int]) -> None:
    app = open_app(**{"class": str(fitted[0])})
    found = alternatives(app)
    assert found[0] == "A ginger tabby cat, seen from the front"
    assert len(found) == 1 + len(lite0.layers)
    for layer, alternative in zip(lite0.layers, found[1:], strict=True):
        assert lite0.classes.labels[fitted[0]] in alternative
        assert layer.name in alternative


def test_captions_give_support_and_held_out_r2(open_app: OpenApp, lite0: Network, fitted: list[int]) -> None:
    target = fitted[-1]
    for layer, card in zip(lite0.layers, captions(open_app(**{"class": str(target), "statistics": "true"})), strict=True):
        importance = chipcore.load_importance(lite0, layer.name)
        assert f"{int(importance.support[target]):,} with a weight" in card
        r2 = float(importance.r2[target])
        assert ("held-out R² " + f"{r2:.2f}".replace("-", "−") if r2 == r2 else "R² not measured") in card


def test_classes_are_the_predictions_then_the_alphabet(open_app: OpenApp, lite0: Network) -> None:
    options = open_app().selectbox(key="class").options
    classes, best = lite0.classes, top(lite0, "cat")
    assert len(options) == len(classes) == len(set(options))
    for index, option in zip(best, options, strict=False):
        assert option.startswith(classes.labels[index] + " · ")
        assert "%" in option
        assert option.endswith(classes.synsets[index])
    rest = [option.split(" · ")[0].lower() for option in options[5:]]
    assert rest == sorted(rest)
    assert not any("%" in option for option in options[5:])
    assert {option.rsplit(" · ")[-1] for option in options} == set(classes.synsets)


# --- changing things ----------------------------------------------------------------------------------------


def test_class_changes_every_map_and_costs_no_pass(
    open_app: OpenApp, lite0: Network, passes: list[int],
) -> None:  # fmt: skip
    first, second = top(lite0, "cat")[:2]  # of what is not there, maps may be blank, and so alike
    passes.clear()
    app = open_app(**{"class": str(first)})
    before = maps_of(app)
    assert len(before) == len(lite0.layers)
    assert passes == [1]
    choose_class(app, second)
    assert not app.exception
    assert all(old != new for old, new in zip(before, maps_of(app), strict=True))
    assert passes == [1], "another class must reuse the features"


def test_images_cost_one_pass_each_and_a_known_one_none(open_app: OpenApp, lite0: Network, passes: list[int]) -> None:
    first = lite0.classes.labels[top(lite0, "coffee")[0]]
    passes.clear()
    app = open_app()
    app.button_group(key="photo").set_value("coffee").run()
    assert passes == [1, 1]
    assert first in app.header[0].value, "a new photograph starts at its own first class"
    app.button_group(key="photo").set_value("cat").run()
    open_app(photo="coffee")  # another visitor
    assert passes == [1, 1]


def test_a_prediction_is_a_button_that_picks_its_class(open_app: OpenApp, lite0: Network, passes: list[int]) -> None:
    wanted = top(lite0, "cat")[2]
    passes.clear()
    app = open_app()
    app.button(key="prediction-2").click().run()
    assert app.selectbox(key="class").value == wanted
    assert lite0.classes.labels[wanted] in app.header[0].value
    assert app.query_params["class"] == lite0.classes.synsets[wanted]
    assert passes == [1]


@pytest.mark.parametrize(("key", "value"), [("opacity", 0.3), ("colours", "viridis"), ("scale", "all maps")])
def test_look_changes_the_maps(open_app: OpenApp, passes: list[int], key: str, value: Any) -> None:
    app = open_app()  # the cat's own class: no map is without a positive part, which no color would change
    before = maps_of(app)
    widget: Any = {"opacity": app.slider, "colours": app.selectbox, "scale": app.button_group}[key](key=key)
    widget.set_value(value).run()
    assert not app.exception
    changed = sum(old != new for old, new in zip(before, maps_of(app), strict=True))
    assert changed == len(before) - int(key == "scale"), "on one scale the strongest map keeps its own"
    assert passes == [1]


def test_the_sum_follows_the_ring(open_app: OpenApp, lite0: Network) -> None:
    app = open_app()
    deepest = [body for body in html(app) if body.startswith('<table class="chip-sum">')]
    app.button_group(key="layer").set_value(lite0.layers[2].name).run()
    other = [body for body in html(app) if body.startswith('<table class="chip-sum">')]
    assert len(deepest) == len(other) == 1
    assert deepest != other


def test_similar_classes_come_first_on_request(open_app: OpenApp, lite0: Network, fitted: list[int]) -> None:
    target = fitted[2]
    app = open_app(**{"class": str(target), "layer": "head", "order": "similar first"})
    assert not app.exception
    W = chipcore.load_importance(lite0, "head").W.double()
    cosine = (W @ W[target]) / (W.norm(dim=1) * W[target].norm()).clamp(min=1e-12)
    order = cosine.argsort(descending=True)[:6].tolist()
    labels = [option.split(" · ")[0] for option in app.selectbox(key="class").options]
    assert labels[:6] == [lite0.classes.labels[index] for index in order]
    assert labels[0] == lite0.classes.labels[target]
    assert len(set(app.selectbox(key="class").options)) == len(lite0.classes)


# --- the URL ------------------------------------------------------------------------------------------------


def test_a_link_reopens_the_same_view(open_app: OpenApp, lite0: Network, fitted: list[int]) -> None:
    app = open_app(
        **{"class": lite0.classes.synsets[fitted[3]], "photo": "rocket", "opacity": "0.4", "colours": "turbo", "layer": "stage3"}
    )
    assert app.selectbox(key="class").value == fitted[3]
    assert app.button_group(key="photo").value == "rocket"
    assert app.slider(key="opacity").value == 0.4
    assert app.selectbox(key="colours").value == "turbo"
    assert app.button_group(key="layer").value == "stage3"


@pytest.mark.parametrize(
    "query", [{"class": "no such thing"}, {"photo": "../secret"}, {"opacity": "NaN"}, {"model": "x"}, {"layer": "stage99"}]
)
def test_nonsense_in_the_url_is_ignored(open_app: OpenApp, query: dict[str, str], lite0: Network) -> None:
    app = open_app(**query)
    assert not app.exception
    assert app.selectbox(key="class").value == top(lite0, "cat")[0]
    assert len(captions(app)) == len(lite0.layers)


# --- what W does not know -----------------------------------------------------------------------------------


def test_weak_row_is_announced(open_app: OpenApp, change_w: ChangeW, fitted: list[int]) -> None:
    def weaken(importance: Importance, _layer: str) -> Importance:
        importance.evidence_mass[fitted[0]] = 1.4
        importance.evidence_mass[fitted[1]] = 40.0
        # What ships has rows of all photographs alike where a class has few of its own; here it has not.
        return dataclasses.replace(importance, metadata={**importance.metadata, "settings": {}})

    change_w(weaken)
    app = open_app(**{"class": str(fitted[0])})
    assert len(app.warning) == 1
    assert "from few images (effective number 1.4)" in app.warning[0].value
    assert "weak W" in option(app)
    choose_class(app, fitted[1])
    assert not app.warning
    assert not app.info
    assert "weak W" not in option(app)


def option(app: AppTest) -> str:
    """The text of the class that is chosen."""
    box = app.selectbox(key="class")
    return str(box.format_func(box.value))


def test_class_without_a_row_says_what_to_do(open_app: OpenApp, change_w: ChangeW, fitted: list[int], lite0: Network) -> None:
    def empty(importance: Importance, _layer: str) -> Importance:
        importance.W[fitted[0]] = 0
        importance.support[fitted[0]] = 0
        return importance

    change_w(empty)
    app = open_app(**{"class": str(fitted[0])})
    assert not app.exception
    assert "no map" in app.info[0].value
    assert "python -m chipcore fit --network efficientnet_lite0" in app.info[0].value
    assert "no W" in option(app)
    assert len(alternatives(app)) == 1 + len(lite0.layers), "the photograph and a place for every map are still there"
    assert all("no row of W" in card for card in captions(app)[:-1])
    finished(app)
    assert "Local CHIP" in captions(app)[-1], "the chosen layer has a map all the same"
    assert "from this photograph alone" in text(app)


def test_layer_without_w_says_how_to_fit_it(open_app: OpenApp, change_w: ChangeW, fitted: list[int]) -> None:
    def without_stage2(importance: Importance, layer: str) -> Importance:
        if layer == "stage2":
            raise ImportanceNotFitted("W of stage2 is not fitted; fit it with: python -m chipcore fit")
        importance.evidence_mass[fitted[0]] = 40
        return importance

    change_w(without_stage2)
    app = open_app(**{"class": str(fitted[0])})
    assert [note.value for note in app.info] == ["**No maps at stage2:** W of stage2 is not fitted; fit it with\\: python -m chipcore fit"]
    assert ["W is not fitted here" in card for card in captions(app)] == [False, True, False, False, False, False]


@pytest.mark.parametrize(("fill", "said"), [(0.0, "same value everywhere"), (-1.0, "speaks against")])
def test_blank_map_says_why(open_app: OpenApp, change_w: ChangeW, fitted: list[int], fill: float, said: str) -> None:
    def blank(importance: Importance, layer: str) -> Importance:
        if layer == "head":  # after a ReLU6: with one weight below 0 for all channels there is no positive part
            importance = replace(importance, contrast_W=None)
            importance.W[fitted[0]] = fill
        return importance

    change_w(blank)
    app = open_app(**{"class": str(fitted[0])})
    assert not app.exception
    assert said in captions(app)[-1]
    assert said in alternatives(app)[-1]


# --- a closer look ------------------------------------------------------------------------------------------


def sections(app: AppTest) -> str:
    return "\n".join(str(element.value) for kind in ("markdown", "caption") for element in getattr(app, kind)) + "\n".join(html(app))


def test_channels_are_added_one_by_one(open_app: OpenApp, lite0: Network) -> None:
    target = top(lite0, "cat")[0]
    app = open_app(added="1")
    row = chipcore.load_importance(lite0, "head").row(target)
    features = lite0.forward_prefix(lite0.input(gallery.image("cat").open())).features[lite0.layer("head").path][0]
    shares = row * features.mean((1, 2))
    order = shares.argsort(descending=True)
    order = order[shares[order] != 0]
    count = int((shares != 0).sum())
    assert f"Added last: channel {int(order[0])}" in sections(app)
    assert app.slider(key="added").max == count
    app.slider(key="added").set_value(3).run()
    assert not app.exception
    assert f"Added last: channel {int(order[2])}" in sections(app)
    assert f"channel {int(order[0])} **" in app.button(key="adds-0").label
    app.slider(key="added").set_value(count).run()
    assert "correlation with the whole map 1.00" in sections(app)


def test_a_channel_is_picked_by_click_and_by_number(open_app: OpenApp, lite0: Network) -> None:
    app = open_app(layer="stage5")
    number = int(app.button(key="adds-1").label.split()[1])
    app.button(key="adds-1").click().run()
    assert not app.exception
    assert app.button_group(key="look").value == "One channel"
    assert app.number_input(key="channel").value == number
    app.number_input(key="channel").set_value(7).run()
    assert not app.exception
    target = top(lite0, "cat")[0]
    weight = float(chipcore.load_importance(lite0, "stage5").W[target, 7])
    assert f"its weight _w_ is {readable(weight)}" in sections(app)
    found = [image.alt for element in app.get("image") for image in element.proto.imgs]
    assert sum(alt.startswith("Channel 7 on the photograph") for alt in found) == len(gallery.ENTRIES)


def test_a_link_to_a_channel_opens_it(open_app: OpenApp) -> None:
    app = open_app(layer="stage5", channel="17")
    assert app.button_group(key="look").value == "One channel"
    assert app.number_input(key="channel").value == 17
    app.button_group(key="look").set_value("Add channels one by one").run()
    assert app.button_group(key="look").value == "Add channels one by one"
    assert "channel" not in app.query_params
    assert not open_app(channel="no number").exception


def test_a_channel_of_another_layer_is_not_kept(open_app: OpenApp) -> None:
    app = open_app(look="One channel", layer="head", channel="1200")
    assert app.number_input(key="channel").value == 1200
    app.button_group(key="layer").set_value("stage2").run()
    assert not app.exception
    assert app.number_input(key="channel").value < 24


def test_closed_channels_move_the_predictions(open_app: OpenApp, lite0: Network) -> None:
    app = open_app(look="Close channels", layer="head", many="50")
    target, path = top(lite0, "cat")[0], lite0.layer("head").path
    row = chipcore.load_importance(lite0, "head").row(target)
    known = lite0.forward_prefix(lite0.input(gallery.image("cat").open()))
    pooled = known.features[path][0].mean((1, 2))
    pooled[row.argsort(descending=True)[:50]] = 0
    *_, last = (module for module in lite0.model.modules() if isinstance(module, torch.nn.Linear))
    after = float((last.weight @ pooled + last.bias).softmax(0)[target])  # the head is followed by a mean and a linear map
    assert f"to **{percent(after)}**" in sections(app)
    assert after < 0.5 * float(known.scores.softmax(1)[0, target])
    app.select_slider(key="many").set_value(0).run()
    assert "No channel is switched off yet" in sections(app)
    app.button_group(key="which").set_value("my own choice").run()
    app.multiselect(key="closed").set_value([3, 4]).run()
    assert not app.exception
    assert "**2** channels" in sections(app)


def test_refined_and_guided_rows_and_both_signs(open_app: OpenApp, lite0: Network) -> None:
    app = open_app(also="Refined CHIP")
    app.button_group(key="also").set_value(["Refined CHIP", "Guided CHIP"]).run()
    assert not app.exception
    found = [image.alt for element in app.get("image") for image in element.proto.imgs]
    for method in ("Refined CHIP", "Guided CHIP"):
        assert sum(alt.startswith((f"{method} map of", f"No {method} map of")) for alt in found) == len(lite0.layers)
    before = maps_of(app)
    app.toggle(key="signed").set_value(True).run()
    assert not app.exception
    assert all(old != new for old, new in zip(before, maps_of(app), strict=True))


def test_a_local_map_that_cannot_be_made_says_why(open_app: OpenApp, change_w: ChangeW, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_request: object) -> torch.Tensor:
        raise ChipError("the score does not react; choose another layer.")

    def missing(_importance: Importance, layer: str) -> Importance:
        raise ImportanceNotFitted(f"W of {layer} is not fitted.")

    change_w(missing)
    monkeypatch.setattr(queues, "fit_local_row", refused)
    app = open_app(look="Close channels")
    assert not app.exception
    assert "does not react" in app.error[0].value
    assert any("choose channels yourself" in one.value for one in app.caption)


# --- files --------------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing: what a decompression bomb looks like before it is decoded."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def jpeg_file(color: str = "olive", size: tuple[int, int] = (320, 200)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, "JPEG")
    return stream.getvalue()


def upload(app: AppTest, name: str, data: bytes, kind: str = "image/jpeg") -> AppTest:
    return app.file_uploader[0].set_value([(name, data, kind)]).run()


def test_upload_is_explained_and_can_be_left_again(open_app: OpenApp, passes: list[int]) -> None:
    app = upload(open_app(), "my *garden*.jpg", jpeg_file())
    assert not app.exception
    assert app.button_group(key="photo").value == "my -garden-.jpg"
    assert "my *garden*.jpg" in alternatives(app)[0]
    assert passes == [1, 1]
    app.button_group(key="photo").set_value("cat").run()
    assert "cat" in alternatives(app)[0]
    app.button_group(key="photo").set_value("my -garden-.jpg").run()
    app.button(key="remove").click().run()
    assert app.button_group(key="photo").value == "cat"
    assert "my -garden-.jpg" not in app.button_group(key="photo").options
    assert passes == [1, 1]


def test_several_uploads_stay_in_the_gallery(open_app: OpenApp) -> None:
    app = open_app()
    files = [("one.jpg", jpeg_file("olive"), "image/jpeg"), ("one.jpg", jpeg_file("navy"), "image/jpeg")]
    app.file_uploader[0].set_value(files).run()
    upload(app, "three.jpg", jpeg_file("red"))
    upload(app, "again.jpg", jpeg_file("olive"))  # the same image under another name
    assert not app.exception
    assert app.button_group(key="photo").options[len(gallery.ENTRIES) :] == ["one.jpg", "one.jpg 2", "three.jpg"]
    assert app.button_group(key="photo").value == "one.jpg"
    assert "photo" in app.query_params


def test_more_uploads_than_are_kept_push_out_the_oldest() -> None:
    kept, last = gallery.with_uploads({}, [(f"{i}.jpg", bytes([i])) for i in range(gallery.MAX_UPLOADS + 2)])
    assert list(kept) == [f"{i}.jpg" for i in range(2, gallery.MAX_UPLOADS + 2)]
    assert last == list(kept)[-1]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("notes.jpg", b"this is no photograph", "is not a photograph we can read"),
        ("cut.jpg", jpeg_file()[:300], "is not a photograph we can read"),
        ("empty.png", b"", "is not a photograph we can read"),
        ("huge.png", png_header(9_000, 9_000), "9000 x 9000 pixels"),
        ("bomb.png", png_header(20_000, 20_000), "at most 50 million"),
        ("heavy.jpg", jpeg_file() + b"\0" * gallery.MAX_BYTES, "give a photograph of at most 8 MB"),
    ],
    ids=["text", "cut short", "empty", "many pixels", "bomb", "many bytes"],
)  # fmt: skip
def test_bad_file_is_one_sentence(open_app: OpenApp, name: str, data: bytes, said: str, passes: list[int]) -> None:
    app = upload(open_app(), name, data)
    assert not app.exception
    assert len(app.warning) == 1
    assert said in app.warning[0].value.replace("\\", "")
    assert passes == [1]
    app.button_group(key="photo").set_value("coffee").run()
    assert not app.exception
    assert captions(app), "the way back is open"


def test_upload_that_differs_in_one_pixel_is_another_image(open_app: OpenApp, passes: list[int]) -> None:
    pixels = np.full((300, 300, 3), 90, np.uint8)
    app = open_app()
    for value in (90, 91):
        pixels[0, 0] = value
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        upload(app, "same.png", stream.getvalue(), "image/png")
    assert passes == [1, 1, 1]


# --- networks -----------------------------------------------------------------------------------------------


def test_network_without_weights_is_a_sentence(open_app: OpenApp, monkeypatch: pytest.MonkeyPatch) -> None:
    real = chipcore.load_network

    def load(name: str, **options: bool) -> Network:
        if name == "squeezenet1_0":
            raise CheckpointError("the weights of squeezenet1_0 are not here; put them there.")
        return real(name, **options)

    monkeypatch.setattr(chipcore, "load_network", load)
    monkeypatch.setattr(cached, "available_networks", lambda: ["efficientnet_lite0", "squeezenet1_0"])  # and gone since
    app = open_app()
    app.selectbox(key="model").set_value("squeezenet1_0").run()
    assert not app.exception
    assert "the weights of squeezenet1" in app.warning[0].value
    app.selectbox(key="model").set_value("efficientnet_lite0").run()
    assert not app.exception
    assert captions(app)


def test_network_without_any_w_still_shows_what_it_sees(open_app: OpenApp, monkeypatch: pytest.MonkeyPatch, lite0: Network) -> None:
    def missing(network: Network, layer: str) -> Importance:
        raise ImportanceNotFitted(f"W of {network.name} at {layer} is not fitted.")

    monkeypatch.setattr(chipcore, "load_importance", missing)
    app = open_app()
    assert not app.exception
    assert "W is not fitted for EfficientNet-Lite0" in app.info[0].value
    finished(app)
    assert "Local CHIP" in captions(app)[-1]
    assert len(alternatives(app)) == 1 + len(lite0.layers)


def test_squeezenet_beside_efficientnet(open_app: OpenApp, monkeypatch: pytest.MonkeyPatch, squeezenet: Network, lite0: Network) -> None:
    monkeypatch.setattr(chipcore, "load_network", lambda name, **_options: {n.name: n for n in (lite0, squeezenet)}[name])
    monkeypatch.setattr(cached, "available_networks", lambda: [lite0.name, squeezenet.name])
    app, other = open_app(), open_app()
    app.selectbox(key="model").set_value("squeezenet1_0").run()
    other.button(key="prediction-1").click().run()
    assert not app.exception
    assert not other.exception
    assert len(captions(app)) == len(squeezenet.layers)
    assert len(captions(other)) == len(lite0.layers)
    assert app.button_group(key="layer").value == squeezenet.layers[-1].name


def test_an_error_of_ours_is_not_dressed_up_as_the_visitors(open_app: OpenApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(figures, "enlarged", broken)
    app = open_app()
    assert app.error and not app.exception
    assert not app.warning
