"""The page Fit, and a network of one's own in the app, driven as a visitor would, without a browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest

import chipcore
from chipcore.errors import DataError
from explorer.services import allowed_paths, custom_networks, fit_trial, fits
from explorer.services.custom_networks import Upload, UploadedNetwork
from explorer.state import cached, queues

ALONE = """
import streamlit as st
from explorer.components import sidebar
with st.sidebar:
    selection = sidebar.choose()
st.header(selection.network.title)
"""
FORM = """
import streamlit as st
from explorer.components import network_form
network_form.form()
st.header(st.session_state.get(network_form.ADDED, "none"))
"""
SCRIPT = """
import streamlit as st
from explorer.components import sidebar
from explorer.views import {view}
with st.sidebar:
    selection = sidebar.choose()
{view}.show(selection)
"""


@pytest.fixture
def open_fit(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, loaded_once: None) -> Callable[..., AppTest]:
    """Opens the page at a URL; one folder with sixteen zebras and two frogs is allowed."""
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(allowed_paths.FOLDERS, str(tmp_path / "photographs"))
    for name, count in (("zebra", 16), ("frog", 2)):
        (tmp_path / "photographs" / name).mkdir(parents=True)
        for file in sorted((data / "fourteen" / "val" / name).iterdir())[:count]:
            shutil.copy(file, tmp_path / "photographs" / name)

    def open_at(view: str = "fit", **query: str) -> AppTest:
        app = AppTest.from_string(SCRIPT.format(view=view) if view else ALONE, default_timeout=240)
        for key, value in {"model": "vgg16_slim", **query}.items():
            app.query_params[key] = value
        return app.run()

    return open_at


def said(app: AppTest) -> str:
    assert not app.exception
    kinds = ("header", "subheader", "markdown", "caption", "warning", "info", "error")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(app, kind))


def wait(app: AppTest) -> AppTest:
    """Until nothing runs in the background."""
    for desk in (queues.trials(), queues.fits()):
        for job in desk.jobs():
            assert job.finished.wait(240)
    return app.run()


def press(app: AppTest, label: str) -> AppTest:
    return next(button for button in app.button if button.label == label).click().run()


def test_a_fit_from_the_form_to_every_view(open_fit: Callable[..., AppTest], tmp_path: Path) -> None:
    before = open_fit("explore", **{"class": "zebra", "statistics": "true"})
    app = wait(open_fit(folder="photographs", gates="4", layers="pool5"))
    metrics = {metric.label: metric.value for metric in app.metric}
    assert metrics["photographs"] == "18" and metrics["gated predictions"] == "72"
    assert metrics["memory, at most"].endswith("GB") and metrics["time, about"] != "…"
    assert "What was learned" not in said(app)

    app = wait(press(app, "Start the fit"))
    words = said(app)
    assert "What was learned" in words and "1 good row of W" in words and "weak" in words
    assert app.query_params["run"] == fits.runs()[0].key
    table = app.dataframe[0].value
    assert table["class"][0] == "zebra" and table["evidence"][0] == "good"
    assert "python -m chipcore fit --network vgg16_slim --layers pool5" in app.code[0].value
    assert str(tmp_path / "photographs") in app.code[0].value
    assert len(app.get("plotly_chart")) == 3
    assert "active in your views" in words
    key = fits.runs()[0].key
    assert app.query_params["fit"] in (key, [key])

    def maps(**query: str) -> str:
        page = open_fit("explore", **{"class": "zebra", "statistics": "true", **query})
        return "\n".join(element.proto.body for element in page.get("html"))

    theirs = "\n".join(element.proto.body for element in before.get("html"))
    assert maps() == theirs, "another visitor keeps the W that there was"
    assert maps(fit=key) != theirs, "its own visitor uses the new W at once"
    assert maps(fit="nonsense") == theirs
    app.selectbox(key="class").set_value(0).run()
    assert "before and after" in said(app)
    app = press(app, "Publish")
    assert "Published" in said(app) and maps() != theirs
    app = press(app, "Withdraw")
    assert "Another W is active in your views" in said(app) and maps() == theirs
    # Another visitor, with the link alone.
    assert "1 good row of W" in said(open_fit(run=fits.runs()[0].key))


def test_a_fit_that_was_stopped_is_found_again(open_fit: Callable[..., AppTest]) -> None:
    app = wait(open_fit(folder="photographs", gates="4", layers="pool5"))
    desk = queues.fits()
    blocker = desk.start("blocker", "something else", lambda job: job.stopping.wait(60))
    app = press(app, "Start the fit")
    assert "queued, 1 ahead" in "\n".join(str(element.proto.text) for element in app.get("progress"))
    run = fits.runs()[0]
    desk.get(f"fit-{run.key}").stop()  # type: ignore[union-attr]
    blocker.stop()
    app = wait(app)
    assert "was stopped before it was done" in said(app)
    queues.fits.clear()  # the server is started anew: only the run's folder knows of it
    app = open_fit()
    assert "was stopped before it was done" in said(app)
    app = wait(press(app, "Resume"))
    assert "What was learned" in said(app)


def test_without_allowed_folders_there_are_uploads_alone(
    open_fit: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(allowed_paths.FOLDERS)
    app = open_fit(folder=str(tmp_path / "photographs"), **{"from": "a folder of this machine"})
    assert "python -m explorer --allow" in said(app)
    assert not [box for box in app.selectbox if box.label == "Folder"]
    assert not app.metric, "the folder in the link counts for nothing"
    images = sorted((tmp_path / "photographs" / "zebra").iterdir())[:3]
    uploader = next(one for one in app.file_uploader if one.label == "Photographs, or a ZIP of them")
    app = uploader.set_value([(file.name, file.read_bytes(), "image/jpeg") for file in images]).run()
    assert {metric.label: metric.value for metric in app.metric}["photographs"] == "3"
    assert "every row of W will be **weak**" in said(app)
    uploader = next(one for one in app.file_uploader if one.label == "Photographs, or a ZIP of them")
    app = uploader.set_value([("a.zip", b"PK nonsense", "application/zip")]).run()
    assert "the ZIP is damaged" in said(app)


@pytest.mark.parametrize("folder", ["/etc", "photographs/../..", "photographs/nothing"])
def test_a_folder_that_is_not_allowed_is_a_sentence(open_fit: Callable[..., AppTest], folder: str) -> None:
    app = open_fit(folder=folder)
    assert "is not in the folders that this app may read" in said(app) and not app.metric


def test_mistakes_in_settings_and_memory_are_sentences(open_fit: Callable[..., AppTest]) -> None:
    app = open_fit(folder="photographs", layers="pool5", memory="1.0", gates="100000", **{"lambda_ratio": "nan"})
    assert not app.exception
    app = open_fit(folder="photographs", layers="nonsense")
    assert not app.exception


def test_a_fit_that_fails_says_why(open_fit: Callable[..., AppTest], tmp_path: Path) -> None:
    app = wait(open_fit(folder="photographs", gates="4", layers="pool5"))
    for file in (tmp_path / "photographs").rglob("*.jp*"):
        file.write_bytes(b"no photograph")
    app = wait(press(app, "Start the fit"))
    assert "could be read as a photograph" in said(app)
    app = press(app, "Delete")
    assert fits.runs() == [] and "Delete" not in [button.label for button in app.button]


# --- a network of one's own -------------------------------------------------------------------------------


@pytest.fixture
def places(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(allowed_paths.FOLDERS, str(data / "networks"))
    return {"checkpoint": data / "networks" / "squeezenet_places365.pth", "labels": data / "networks" / "categories_places365.txt"}


def test_somebody_elses_module_runs_only_where_it_is_allowed(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "helpers" / "somebody"))
    given = UploadedNetwork("places_squeezenet:build", fit="squash")
    files = "squeezenet_places365.pth", str(places["labels"])
    with pytest.raises(chipcore.ChipError, match="has not allowed the module 'places_squeezenet'"):
        custom_networks.add(given, *files)
    monkeypatch.setenv(allowed_paths.MODULES, "other, places_squeezenet")
    key, network = custom_networks.add(given, *files)
    assert len(network.classes) == 365 and network.geometry.fit == "squash" and len(network.layers) == 4
    again = custom_networks.network(key)
    assert again.id == network.id and again.title == "squeezenet_places365 (places_squeezenet:build)"
    # The command that an error suggests loads this very network.
    with pytest.raises(
        chipcore.ChipError,
        match=f"fit --network places_squeezenet:build --checkpoint {places['checkpoint']} --labels {places['labels']} --fit squash --layers",
    ):
        chipcore.load_importance(network, network.layers[-1].name)
    for variable in (allowed_paths.MODULES, allowed_paths.FOLDERS):  # the operator thinks better of it
        with monkeypatch.context() as later:
            later.delenv(variable)
            with pytest.raises(chipcore.ChipError):
                custom_networks.network(key)


def test_an_upload_is_the_visitors_alone_until_they_give_the_link(
    open_fit: Callable[..., AppTest], places: dict[str, Path], data: Path
) -> None:
    checkpoint = Upload("../my net.pth", (data / "networks" / "squeezenet1_0.pth").read_bytes())
    key, network = custom_networks.add(UploadedNetwork("squeezenet1_0", size=160), checkpoint, None)
    assert network.flags == "--network squeezenet1_0 --checkpoint '../my net.pth' --size 160", "no path of the server's"
    assert key not in open_fit("").selectbox(key="model").options
    friend = open_fit("", model=key)
    assert "my net" in said(friend) and friend.selectbox(key="model").value == key
    assert key not in open_fit("").selectbox(key="model").options
    other, _network = custom_networks.add(UploadedNetwork("squeezenet1_0", size=192), checkpoint, None)
    assert cached.network(other).id != cached.network(key).id, "equal weights, but nothing cached of one serves the other"


def test_a_link_to_no_network_opens_the_first(open_fit: Callable[..., AppTest]) -> None:
    assert open_fit("", model="own-" + "0" * 24).selectbox(key="model").value == "efficientnet_lite0"
    for key in ("own-", "own-" + "0" * 24, "own-../../etc", "own-" + "g" * 24):
        with pytest.raises(DataError, match="not here any more"):
            custom_networks.network(key)


def test_mistakes_in_what_was_given_are_sentences_with_the_visitors_names(places: dict[str, Path], tmp_path: Path, data: Path) -> None:
    whole = tmp_path / "whole.pth"
    torch.save(torch.nn.Linear(2, 2), whole)
    good = Upload("w.pth", (data / "networks" / "squeezenet1_0.pth").read_bytes())
    for given, checkpoint, labels, sentence in (
        (UploadedNetwork("resnet18"), good, None, "^w.pth does not fit resnet18: it lacks"),
        (UploadedNetwork("resnet18"), Upload("w.pth", whole.read_bytes()), None, "^w.pth (holds pickled code|is not a checkpoint)"),
        (UploadedNetwork("resnet18"), Upload("w.exe", b""), None, "w.exe does not end in .pth"),
        (UploadedNetwork("resnet18"), "/etc/passwd", None, "not in the folders that this app may read"),
        (UploadedNetwork("squeezenet1_0"), good, Upload("l.txt", b"cat\ndog\n"), "w.pth .*1000 classes, not 2"),
        (UploadedNetwork("squeezenet1_0"), good, Upload("l.txt", b"\xff\xfe"), "^l.txt is not UTF-8"),
        (UploadedNetwork("squeezenet1_0", size=9), good, None, "32 to 1024 pixels"),
        (UploadedNetwork("squeezenet1_0", std=(0.0,)), good, None, "std"),
        (UploadedNetwork("vit_h_14"), good, None, "632 million weights"),
        (UploadedNetwork("os:system"), good, None, "has not allowed the module 'os'"),
        (UploadedNetwork("timm:resnet18"), None, None, "would be downloaded"),
        (UploadedNetwork("vit_b_16"), None, None, "."),
        (UploadedNetwork("squeezenett"), good, None, "did you mean squeezenet"),
        (UploadedNetwork(" "), good, None, "name the architecture"),
    ):
        with pytest.raises(chipcore.ChipError, match=sentence) as error:
            custom_networks.add(given, checkpoint, labels)
        assert str(tmp_path) not in str(error.value).replace(str(data), "")
    assert not list((tmp_path / "cache" / "networks").iterdir()), "nothing of it is kept"


def test_the_form_adds_a_network_and_chooses_it(places: dict[str, Path]) -> None:
    app = press(AppTest.from_string(FORM, default_timeout=240).run(), "Add network")
    assert "name the architecture" in said(app)
    app.text_input(key="own-mean").set_value("0.5 zebra")
    assert "give one number" in said(press(app, "Add network"))
    app.text_input(key="own-mean").set_value("0.5")
    app.selectbox(key="own-architecture").set_value("squeezenet1_0")
    app.selectbox(key="own-checkpoint-path").set_value(str(places["checkpoint"]))
    assert "does not fit squeezenet1" in said(press(app, "Add network"))
    app.selectbox(key="own-checkpoint-path").set_value(str(places["checkpoint"].with_name("squeezenet1_0.pth")))
    app = press(app, "Add network")
    key = app.header[0].value
    assert custom_networks.known(key) and custom_networks.read(key).mean == (0.5,)
    assert key in cached.available_networks(), "a file of an allowed folder: every visitor is offered it"


def test_what_a_browser_sends_beyond_the_limits_is_not_believed(open_fit: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch) -> None:
    """Or all the machine's memory and more could be asked for. Older versions of Streamlit checked in the browser alone."""
    asked: list[fits.FitRequest] = []
    monkeypatch.setattr(fit_trial, "estimate_cost", lambda _network, request, *_others: asked.append(request))
    app = open_fit(folder="photographs", gates="4", layers="pool5")
    app.number_input(key="memory").set_value(1e9)
    app.number_input(key="per-folder").set_value(-3)
    wait(app.run())
    assert asked and all(1 <= one.memory <= fits.most_memory() and one.per_folder == 0 for one in asked)
