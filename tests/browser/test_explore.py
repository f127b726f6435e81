"""The main path through Explore in a browser."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import chipcore
from chipcore import Network

expect = pytest.importorskip("playwright.sync_api").expect

ROOT = Path(__file__).resolve().parent.parent.parent
IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
pytestmark = pytest.mark.browser
PICTURES = ".st-key-strip img"
LOADED = f"[...document.querySelectorAll('{PICTURES}')].filter(e => e.complete && e.naturalWidth > 0).length >= 6"


def visit(page: Any, address: str) -> None:
    """Open the app and wait until the strip is painted."""
    page.goto(address)
    page.wait_for_selector(IDLE)
    page.wait_for_function(LOADED)


def pixels(page: Any) -> list[bytes]:
    """What the browser got for every picture of the strip."""
    return [page.request.get(source).body() for source in sources(page)]


def sources(page: Any) -> list[str]:
    return page.locator(PICTURES).evaluate_all("all => all.map(e => e.src)")


def changed(page: Any, before: list[str]) -> None:
    """Wait until every picture of the strip is another one, and painted."""
    page.wait_for_function(
        f"old => {{ const now = [...document.querySelectorAll('{PICTURES}')];"
        "return now.length == old.length && now.every((e, i) => e.src != old[i] && e.complete && e.naturalWidth > 0) }",
        arg=before,
    )  # fmt: skip


@pytest.fixture
def fitted(lite0: Network) -> list[int]:
    """Classes with a row of W at every depth and a name that no other class contains."""
    rows = [chipcore.load_importance(lite0, layer.name).support > 0 for layer in lite0.layers]
    labels = lite0.classes.labels
    return [i for i, label in enumerate(labels) if all(row[i] for row in rows) and sum(label in other for other in labels) == 1]


def choose_class(page: Any, words: str) -> None:
    """Type into the class box and take the one class that is left."""
    box = page.get_by_role("combobox", name="Class")
    box.click()
    box.fill(words)
    expect(page.get_by_role("option")).to_have_count(1)
    page.keyboard.press("Enter")


def test_class_changes_every_picture_and_the_link_reopens_it(page: Any, server: str, lite0: Network, fitted: list[int]) -> None:
    visit(page, server)
    target = fitted[-1]
    before, old = sources(page), pixels(page)
    choose_class(page, lite0.classes.labels[target])
    changed(page, before)
    new = pixels(page)
    assert len(new) == len(old) == len(lite0.layers)
    for one, other in zip(old, new, strict=True):
        a, b = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) for data in (one, other))
        assert np.abs(a - b).mean() > 1, "a new file must also be a new picture"
    expect(page.get_by_role("heading", name=f"Evidence for {lite0.classes.labels[target]}")).to_be_visible()
    page.wait_for_url(f"**class={lite0.classes.synsets[target]}**")
    now = sources(page)
    visit(page, page.url)
    assert [source.rsplit("/", 1)[1] for source in sources(page)] == [source.rsplit("/", 1)[1] for source in now]


def test_image_changes_and_a_synset_finds_a_class(page: Any, server: str, lite0: Network, fitted: list[int]) -> None:
    visit(page, server)
    before = sources(page)
    page.get_by_role("radio", name="coffee").click()
    changed(page, before)
    expect(page.get_by_role("heading", name="Evidence for espresso")).to_be_visible()
    before = sources(page)
    choose_class(page, lite0.classes.synsets[fitted[0]])
    changed(page, before)
    expect(page.get_by_role("heading", name=f"Evidence for {lite0.classes.labels[fitted[0]]}")).to_be_visible()
    page.wait_for_url("**photo=coffee**")
    page.wait_for_url(lambda url: f"class={lite0.classes.synsets[fitted[0]]}" in url)


def test_upload_and_download(page: Any, server: str, tmp_path: Path) -> None:
    files = []
    for number in range(2):
        files.append(tmp_path / f"mine{number}.png")
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (300, 400, 3), dtype=np.uint8)).save(files[-1])
    visit(page, server)
    before = sources(page)
    page.locator("input[type=file]").set_input_files(files)
    page.wait_for_function("old => ![undefined, old].includes(document.querySelector('.st-key-strip img')?.src)", arg=before[0])
    page.wait_for_selector(IDLE)
    expect(page.get_by_alt_text("Your photograph mine1.png", exact=True)).to_be_visible()
    expect(page.get_by_role("radio", name="mine0.png")).to_be_visible()
    page.get_by_role("radio", name="cat").click()
    page.wait_for_function("old => document.querySelector('.st-key-strip img')?.src == old", arg=before[0])
    page.wait_for_selector(IDLE)
    page.get_by_role("button", name="Download these maps").click()
    with page.expect_download() as everything:
        page.get_by_role("button", name="Everything (ZIP)").click()
    repeated(everything.value.path(), tmp_path)


def repeated(bundle: Path, folder: Path) -> None:
    """The bundle's command, in the folder it was unpacked to, makes the map that the bundle holds."""
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    about = json.loads((folder / "about.json").read_text())
    command = next(line for line in about["command"].splitlines() if "--layer head " in line).split()
    assert command[:3] == ["python", "-m", "chipcore"]
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "arrays.npz") as arrays, Image.open(folder / "picture.png") as strip:
        assert len(arrays.files) == 6
        assert np.allclose(np.load(folder / "chip-head.npy"), arrays["chip-head"], atol=1e-4)
        assert strip.width > 7 * 500


def test_the_view_stays_on_every_page(page: Any, server: str) -> None:
    page.goto(f"{server}/compare?model=vgg16_slim&photo=coffee&class=3&layer=pool2&opacity=0.4")
    page.wait_for_selector(IDLE)
    expect(page.get_by_role("radio", name="coffee")).to_be_checked()
    page.get_by_role("link", name="Explore").click()
    expect(page.get_by_role("heading", name="Evidence for church")).to_be_visible()
    expect(page.get_by_role("radio", name="pool2")).to_be_checked()
    for part in ("model=vgg16_slim", "photo=coffee", "class=3", "layer=pool2", "opacity=0.4"):
        page.wait_for_url(lambda url, part=part: part in url)


def test_values_channels_and_gates(page: Any, server: str) -> None:
    visit(page, server)
    page.locator(PICTURES).last.hover()
    expect(page.locator(".chip-value")).to_contain_text("head (3, 3): ")
    slider = page.get_by_role("slider", name="Channels added")
    slider.press("ArrowRight")
    expect(page.get_by_text("The sum of 6", exact=True)).to_be_visible()
    first = page.locator(".st-key-adds button").first
    number = first.inner_text().split()[1]
    first.click()
    expect(page.get_by_role("spinbutton", name="Channel, 0 to 1,279")).to_have_value(number)
    page.wait_for_url(f"**channel={number}**")
    page.reload()
    expect(page.get_by_role("spinbutton", name="Channel, 0 to 1,279")).to_have_value(number)
    page.get_by_role("radio", name="Switch channels off").click()
    expect(page.get_by_text("With as many random channels switched off")).to_be_visible()
