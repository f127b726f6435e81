"""What strangers may try: names that are code, requests that no browser would make, paths, and mistakes of our own."""

from __future__ import annotations

import ast
import dataclasses
import logging
import random
import re
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import chipcore
from chipcore import Network
from chipcore.analysis import evidence
from chipcore.datasets.class_names import Classes
from chipcore.errors import DataError
from explorer.services import allowed_paths, custom_networks, disk_quota, fits, gallery, photo_links
from explorer.text import plain
from tests.helpers.visitor import Visitor, serving

ROOT = Path(__file__).resolve().parent.parent.parent.parent
APP = ROOT / "explorer" / "app.py"
SCRIPT = """
import streamlit as st
from explorer.components import sidebar
from explorer.views import {view}
with st.sidebar:
    selection = sidebar.choose()
{view}.show(selection)
"""
EVIL = '<img src=x onerror=alert(1)> **bold** [x](javascript:alert(1)) :material/x: $x$ `c` &copy; " onload=alert(2)'
FILE = "<img src=x onerror=alert(1)> **bold** [x](javascript:alert(1)) :material-x: $x$.png"
# What Markdown or HTML would make something of; escaped, none of it is there.
RAW = re.compile(r"(?<!\\)<img src=x|\*\*bold\*\*|\]\(javascript|:material/x:|\$x\$|(?<!\\)`c|(?<![\\&])&copy;")
RAW_HTML = re.compile(r'<img src=x|" onload|(?<!amp;)copy;')  # HTML does not read Markdown
PLAIN_ELEMENTS = {"code", "plotly_chart", "arrow_data_frame", "bidi_component", "file_uploader"}  # show what they are given as text
PLAIN_FIELDS = {"id", "alt", "raw_value", "url", "placeholder", "element_id", "options", "default", "form_id", "user_key", "format"}
VIEWS = [
    ("explore", {"also": "Refined CHIP", "look": "One channel"}), ("explore", {"look": "Close channels"}), ("compare", {}),
    ("compare", {"compare": "Table I, live"}), ("channels", {}), ("localize", {}), ("fit", {}),
    *[("learn", {"step": str(step)}) for step in range(1, 7)],
]  # fmt: skip


# --- names ------------------------------------------------------------------------------------------------


def test_plain_text_is_one_line_that_markdown_leaves_alone() -> None:
    assert RAW.search(EVIL) and not RAW.search(plain(EVIL))
    assert plain("a\n# b\r\n- c") == "a \\# b - c"


@pytest.fixture
def evil(monkeypatch: pytest.MonkeyPatch) -> Network:
    """The small VGG, with names of classes that are code."""
    network = chipcore.load_network("vgg16_slim")
    labels = tuple(f"{EVIL} {number}" for number in range(len(network.classes)))
    changed = dataclasses.replace(network, title=EVIL, classes=Classes(labels))
    monkeypatch.setattr(chipcore, "load_network", lambda _name, **_options: changed)
    return changed


@pytest.mark.parametrize(("view", "query"), VIEWS, ids=[f"{view}-{'-'.join(query.values())}" for view, query in VIEWS])
def test_names_from_files_and_labels_are_escaped_in_every_view(
    view: str, query: dict[str, str], evil: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path))
    app = AppTest.from_string(SCRIPT.format(view=view), default_timeout=120)
    for key, value in {"model": "vgg16_slim", **query}.items():
        app.query_params[key] = value
    app.run()
    box = next(one for one in app.file_uploader if one.key == "upload-0")
    app = box.set_value([(FILE, gallery.image("cat").data, "image/png")]).run()
    assert not app.exception
    assert RAW.search(FILE) and app.session_state["photo"] not in gallery.ENTRIES
    shown = list(strings(app))
    assert any("onerror" in text for _place, text in shown) or view == "fit", "the names are on the page"
    assert not [(place, text[:300]) for place, text in shown if (RAW_HTML if place.startswith("html") else RAW).search(text)]


def strings(app: AppTest) -> Iterator[tuple[str, str]]:
    """Every text on the page that Markdown or HTML is made of, with its place."""
    for element in (*app.main, *app.sidebar):
        proto = getattr(element, "proto", None)
        kind = type(proto).__name__
        if proto is not None and hasattr(proto, "DESCRIPTOR") and getattr(element, "type", "") not in PLAIN_ELEMENTS:
            yield from ((f"{element.type} {kind}.{name}", text) for name, text in fields(proto, str(element.type)))


def fields(message: Any, kind: str) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        # Pills and segments read Markdown in their options; lists to choose from do not.
        if field.name in PLAIN_FIELDS and not (field.name == "options" and kind == "button_group"):
            continue
        for one in value if not isinstance(value, (str, bytes)) and hasattr(value, "__iter__") else [value]:
            if isinstance(one, str):
                yield field.name, one
            elif hasattr(one, "ListFields"):
                yield from fields(one, kind)


def test_a_chart_gets_names_without_markup() -> None:
    from explorer.figures import fit

    figure = fit.evidence([evidence.EvidenceRow(0, "<a href='https://x'>b</a>", 3.0, 3, 0.5, 4, "good")])
    assert "<a" not in figure.to_json()


ODD = (
    "", "..", "../../etc/passwd", FILE, "1e999", "-1", "nan", "9" * 20, "a" * 5000, "\0", "%00", "zebra,zebra,zebra", "own-" + "0" * 24, "None", "[]", "0;1", "\U0001f4a5"
)  # fmt: skip


def keys_of_the_url() -> list[str]:
    """Every parameter that a view reads."""
    code = "".join(path.read_text() for path in (ROOT / "explorer").rglob("*.py"))
    return sorted(
        {
            *re.findall(r'key="([a-z0-9_-]+)",\s*bind', code),
            *re.findall(r'(?:query_params(?:\.get\(|\[)|url\.(?:changed_value|asked|restore|write|write_unless)\()"([a-z0-9_-]+)"', code),
        }
    )


@pytest.mark.parametrize("view", sorted({view for view, _query in VIEWS}))
def test_no_link_breaks_a_page(view: str, open_app: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path))
    keys, dice = keys_of_the_url(), random.Random(view)
    assert {"class", "photo", "layer", "run", "model", "step"} <= set(keys)
    for _ in range(4):
        query = {"model": "vgg16_slim", **{key: dice.choice(ODD) for key in dice.sample(keys, 6)}}
        app = open_app(view, **query)
        assert not app.exception, query
        assert not any("went wrong" in error.value for error in app.error), query


# --- the program ------------------------------------------------------------------------------------------


def test_nothing_runs_what_it_is_given() -> None:
    """No pickle, no eval, no exec, no shell, and weights are read as tensors alone."""
    for path in (*(ROOT / "chipcore").rglob("*.py"), *(ROOT / "explorer").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not names & {"pickle", "marshal", "shelve", "dill", "joblib"}, where
            if isinstance(node, ast.Call):
                called, options = ast.unparse(node.func), {one.arg: ast.unparse(one.value) for one in node.keywords}
                assert called not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.loads"), where
                assert options.get("shell", "False") == "False" and options.get("allow_pickle", "False") == "False", where
                assert called != "torch.load" or options.get("weights_only") == "True", where


def test_the_app_names_no_address_that_a_browser_would_fetch() -> None:
    for path in (ROOT / "explorer").rglob("*"):
        if path.suffix in (".py", ".css"):
            named = re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s\"')]*", path.read_text(encoding="utf-8"))
            assert set(named) <= {"http://www.w3.org/2000/svg"}, path


def test_a_mistake_of_ours_is_a_sentence_and_the_trace_is_in_the_log(
    evil: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from explorer.views import explore

    def fail(_selection: object) -> None:
        raise RuntimeError("no business of a visitor’s: /etc/secret")

    monkeypatch.setattr(explore, "show", fail)
    with caplog.at_level(logging.ERROR, logger="explorer"):
        app = AppTest.from_file(APP, default_timeout=60).run()
    assert not app.exception and "Something went wrong in the program" in app.error[0].value and "RuntimeError" in app.error[0].value
    assert not any("secret" in text for _place, text in strings(app))
    assert any(record.exc_info and "secret" in str(record.exc_info[1]) for record in caplog.records)


def test_the_server_is_for_this_machine_alone() -> None:
    settings = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert settings["server"]["address"] == "127.0.0.1" and settings["server"]["enableXsrfProtection"] is True
    assert settings["server"]["maxUploadSize"] == 64 and settings["server"]["allowedHosts"] == ["127.0.0.1", "localhost"]
    assert settings["client"]["showErrorDetails"] == "type" and settings["browser"]["gatherUsageStats"] is False


# --- paths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [
    "/etc", "/etc/passwd", "..", "../..", "./../etc", "open/../../secret", "way-out", "way-out/key.pth", "~", "~root", "", " ", "\0", "open/\0",
    "//etc/passwd", "file:///etc/passwd", "open/" + "../" * 40 + "etc/passwd", "a" * 5000, "/proc/self/environ", "open/../secret/key.pth",
])  # fmt: skip
def test_no_path_leads_out_of_the_allowed_folders(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.pth").write_bytes(b"k")
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "way-out").symlink_to(tmp_path / "secret")
    monkeypatch.setenv(allowed_paths.FOLDERS, str(tmp_path / "open"))
    for ask in (
        lambda: allowed_paths.resolve(path),
        lambda: allowed_paths.file(path, custom_networks.CHECKPOINTS),
        lambda: fits.find(path),
    ):
        with pytest.raises(DataError) as error:
            ask()
        assert "key" not in str(error.value).replace(path, "")
    assert allowed_paths.files(custom_networks.CHECKPOINTS) == []


@pytest.mark.parametrize("upload", ["", ".", "..", "../networks", "/etc", "0" * 31, "g" * 32, "0" * 32, "../" + "0" * 29])
def test_no_id_in_the_url_is_a_path(upload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path))
    with pytest.raises(DataError):
        fits.find(fits.UPLOADED + upload)
    assert not custom_networks.known(f"own-{upload}")
    (tmp_path / "photographs").mkdir()
    (tmp_path / "about.json").write_text('{"name": "x", "file": "x"}')
    (tmp_path / "photograph").write_bytes(b"x")
    assert photo_links.resolve(upload)[0] == {}


def test_uploaded_networks_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("CHIP_CACHE", str(tmp_path))
    keys = [f"own-{number:024x}" for number in range(4)]
    for age, key in enumerate(keys):
        (tmp_path / "networks" / key).mkdir(parents=True)
        (tmp_path / "networks" / key / "given.json").write_bytes(b"x" * 100)
        os.utime(tmp_path / "networks" / key, (age, age))
    disk_quota.evict_until(tmp_path / "networks", 250, {keys[0]})
    assert [custom_networks.known(key) for key in keys] == [True, False, False, True], "the oldest go, but not the one that was just added"


# --- a real server ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("strangers")
    with serving(folder / "log.txt", CHIP_CACHE=str(folder / "cache")) as (address, _process):
        yield address
        assert "Traceback" not in (folder / "log.txt").read_text()


def ask(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


def test_an_upload_without_the_token_or_over_the_limit_is_refused(address: str) -> None:
    with Visitor(address) as visitor:
        visitor.open("")
        path = f"/_stcore/upload_file/{visitor.session}/0"
        cookie = {"Cookie": f"_streamlit_xsrf={visitor.token}"}
        assert visitor.put(path, "a.png", b"x", {}) == 403
        assert visitor.put(path, "a.png", b"x", cookie) == 403, "a page elsewhere can make the browser send the cookie, not the token"
        assert visitor.put(path, "a.png", b"x", {**cookie, "X-Xsrftoken": "2|0|0|0"}) == 403
        good = {**cookie, "X-Xsrftoken": visitor.token}
        assert visitor.put(path, "a.png", b"x", good) == 204
        assert visitor.put("/_stcore/upload_file/nobody/0", "a.png", b"x", good) == 400
        assert visitor.put(path, "a.png", b"", {**good, "Content-Length": str(65 << 20)}) == 413, "refused before it is read"
        # Without the browser's own limit: a image over 8 MB is a sentence, never decoded.
        big = gallery.image("cat").data + b"\0" * (gallery.MAX_BYTES + 1)
        visitor.upload("upload-0", "big.png", big)
        assert any("give a photograph of at most 8 MB" in text for text in visitor.texts()) and not visitor.exceptions()


def test_no_file_of_the_machine_is_served(address: str) -> None:
    for path in (
        "/app/static/../../README.md",
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/component/../../../etc/passwd",
        "/media/../../etc/passwd",
    ):
        code, content = ask(address + path)
        assert code in (400, 403, 404) or (code == 200 and b"<!doctype html>" in content.lower()), path  # the app's own first page
        assert b"root:" not in content and b"chipcore" not in content, path


def test_pages_elsewhere_may_not_use_the_server(address: str) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus):
        connect(address.replace("http", "ws") + "/_stcore/stream", origin="http://elsewhere.example", subprotocols=["streamlit"])  # type: ignore[list-item,arg-type]
