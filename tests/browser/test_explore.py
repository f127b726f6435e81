"""The main path through Explore in a browser."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import chipcore
from chipcore import Network

expect = pytest.importorskip("playwright.sync_api").expect

IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
pytestmark = pytest.mark.browser
PICTURES = ".st-key-strip img"
LOADED = f"[...document.querySelectorAll('{PICTURES}')].filter(e => e.complete && e.naturalWidth > 0).length >= 6"


def visit(page: Any, address: str) -> None:
    """Open the app and wait until the strip is painted."""
    page.goto(address)
    page.wait_for_selector(IDLE, timeout=60_000)
    page.wait_for_function(LOADED, timeout=60_000)


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
        arg=before, timeout=20_000,
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
    expect(page.get_by_role("heading", name=f"What speaks for {lite0.classes.labels[target]}?")).to_be_visible()
    page.wait_for_url(f"**class={lite0.classes.synsets[target]}**")
    now = sources(page)
    visit(page, page.url)
    assert [source.rsplit("/", 1)[1] for source in sources(page)] == [source.rsplit("/", 1)[1] for source in now]


def test_photograph_changes_and_a_synset_finds_a_class(page: Any, server: str, lite0: Network, fitted: list[int]) -> None:
    visit(page, server)
    before = sources(page)
    page.get_by_role("radio", name="coffee").click()
    changed(page, before)
    expect(page.get_by_role("heading", name="What speaks for espresso?")).to_be_visible()
    before = sources(page)
    choose_class(page, lite0.classes.synsets[fitted[0]])
    changed(page, before)
    expect(page.get_by_role("heading", name=f"What speaks for {lite0.classes.labels[fitted[0]]}?")).to_be_visible()
    page.wait_for_url("**photo=coffee**")
    assert f"class={lite0.classes.synsets[fitted[0]]}" in page.url


def test_upload_and_download(page: Any, server: str, tmp_path: Path) -> None:
    photograph = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)).save(photograph)
    visit(page, server)
    before = sources(page)
    page.locator("input[type=file]").set_input_files(photograph)
    page.wait_for_function(
        "old => ![undefined, old].includes(document.querySelector('.st-key-strip img')?.src)", arg=before[0], timeout=20_000
    )
    page.wait_for_selector(IDLE)
    expect(page.get_by_alt_text("Your photograph mine.png")).to_be_visible()
    page.get_by_role("radio", name="cat").click()
    page.wait_for_function("old => document.querySelector('.st-key-strip img')?.src == old", arg=before[0], timeout=20_000)
    page.wait_for_selector(IDLE)
    with page.expect_download() as raw:
        page.get_by_role("button", name="Raw maps as NumPy").click()
    with np.load(raw.value.path()) as arrays:
        assert arrays["head"].shape == (7, 7)
        assert len(arrays.files) == 6
    with page.expect_download() as picture:
        page.get_by_role("button", name="Strip as PNG").click()
    with Image.open(picture.value.path()) as strip:
        assert strip.format == "PNG"
        assert strip.width > 7 * 500
