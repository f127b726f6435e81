"""Uploaded images in a browser: there after a reload and by the link, not for others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from explorer.services import gallery

expect = pytest.importorskip("playwright.sync_api").expect

IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
pytestmark = pytest.mark.browser


def view_of(page: Any) -> bytes:
    """The image on the page, as the browser got it."""
    page.wait_for_selector(IDLE)
    picture = page.locator(".st-key-view img").first
    expect(picture).to_be_visible()
    return bytes(page.request.get(picture.get_attribute("src")).body())


def thumbnail(page: Any, name: str) -> str:
    return str(page.get_by_role("radio", name=name).evaluate("e => getComputedStyle(e, '::before').backgroundImage"))


def test_uploads_survive_a_reload_and_are_for_who_has_the_link(page: Any, chromium: Any, server: str, tmp_path: Path) -> None:
    files = []
    for name in ("coffee", "rocket"):
        files.append(tmp_path / f"my {name}.jpg")
        gallery.image(name).open().resize((300, 240), Image.Resampling.BICUBIC).save(files[-1])
    page.goto(f"{server}/?model=vgg16_slim")
    page.wait_for_selector(IDLE)
    page.locator("input[type=file]").set_input_files(files)
    expect(page.get_by_role("radio", name="my rocket.jpg")).to_be_checked()
    page.get_by_role("radio", name="my coffee.jpg").click()
    page.wait_for_url("**photo=my*coffee.jpg**")
    expect(page.get_by_alt_text("Your photograph my coffee.jpg", exact=True)).to_be_visible()
    shown, small = view_of(page), [thumbnail(page, name) for name in ("my coffee.jpg", "my rocket.jpg")]
    assert all("data:image" in one for one in small) and small[0] != small[1]
    address = page.url

    page.reload()
    expect(page.get_by_alt_text("Your photograph my coffee.jpg", exact=True)).to_be_visible()
    assert view_of(page) == shown
    assert [thumbnail(page, name) for name in ("my coffee.jpg", "my rocket.jpg")] == small

    for url, names in ((address, 2), (f"{server}/?model=vgg16_slim", 0)):
        context = chromium.new_context(viewport={"width": 1280, "height": 1600})
        other = context.new_page()
        other.goto(url)
        seen = view_of(other)
        expect(other.locator(".st-key-photo").get_by_role("radio")).to_have_count(len(gallery.ENTRIES) + names)
        assert (seen == shown) == bool(names)
        context.close()
