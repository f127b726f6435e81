"""The main path through Learn in a browser: the six steps by keyboard, one thing tried, the link reopened."""

from __future__ import annotations

from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api").expect

IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
LOADED = "[...document.querySelectorAll('[data-testid=stImage] img')].every(e => e.complete && e.naturalWidth > 0)"
pytestmark = pytest.mark.browser


def settled(page: Any) -> None:
    """Wait until all is there: a picture that is replaced while it loads is a 404 on the console."""
    page.wait_for_selector(IDLE)
    page.wait_for_function(LOADED)


def test_six_steps_one_thing_tried_and_the_link(page: Any, server: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})  # so that the end of a step lies below its beginning
    page.goto(f"{server}/learn?model=vgg16_slim")
    settled(page)
    expect(page.get_by_role("heading", name="1. Put a switch behind every channel")).to_be_visible()
    page.get_by_role("slider", name="How many channels are open").press("ArrowLeft")  # 50% to 45%: 58 of 128
    expect(page.get_by_role("group", name="58 of 128 switches are open")).to_be_visible()
    settled(page)
    switch = page.get_by_role("switch", name="channel 5, closed")
    switch.click()
    expect(page.get_by_role("group", name="59 of 128 switches are open")).to_be_visible()
    expect(page.get_by_role("switch", name="channel 5, open")).to_have_attribute("aria-checked", "true")
    settled(page)
    page.get_by_role("switch", name="channel 5, open").press("Enter")  # and back, by keyboard
    expect(page.get_by_role("group", name="58 of 128 switches are open")).to_be_visible()
    for step, name in enumerate(("predict", "weigh", "fit", "sum", "compare"), start=2):
        button = page.get_by_role("button", name=f"Next: {name}")
        settled(page)
        button.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name=f"{step}. ")).to_be_visible()
        page.wait_for_url(f"**step={step}**")
        page.wait_for_function("document.querySelector('[data-testid=stMain]').scrollTop === 0")
    expect(page.get_by_alt_text("local CHIP of cat at pool5")).to_be_visible()
    settled(page)
    page.get_by_role("button", name="pool3").click()
    page.wait_for_url("**layer=pool3**")
    expect(page.get_by_alt_text("CHIP of cat at pool3", exact=True)).to_be_visible()
    settled(page)
    page.goto(page.url)
    expect(page.get_by_role("heading", name="6. Compare the maps")).to_be_visible()
    expect(page.get_by_alt_text("Grad-CAM of cat at pool3")).to_be_visible()
    settled(page)
