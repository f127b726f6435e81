"""The main path through Localize in a browser."""

from __future__ import annotations

from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api").expect

IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
pytestmark = pytest.mark.browser
FITS = "document.body.innerText.match(/IoU ([0-9.]+)/)?.[1]"


def fits(page: Any) -> str:
    """The IoU on the screen, once the page rests."""
    page.wait_for_selector(IDLE)
    page.wait_for_function(FITS)
    found: str = page.evaluate(FITS)
    return found


def test_slide_draw_a_box_and_reopen_the_link(page: Any, server: str) -> None:
    page.goto(f"{server}/localize?photo=cat")
    before = fits(page)
    expect(page.locator(".js-plotly-plot")).to_have_count(1)
    slider = page.get_by_role("slider", name="Threshold")
    start = int(slider.input_value())  # the best measured one of this layer
    assert 5 <= start < 60
    # The line of the threshold stands where the chart has that threshold.
    line, plot = page.locator(".chip-now i").bounding_box(), page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
    assert abs(line["x"] + line["width"] / 2 - (plot["x"] + start / 100 * plot["width"])) < 4
    assert abs(line["y"] - plot["y"]) < 4 and abs(line["height"] - plot["height"]) < 6
    slider.focus()
    for _ in range(60 - start):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(f"old => {FITS} != old", arg=before)
    page.wait_for_url("**threshold=60**")
    # Drag a box over the left upper quarter.
    moved = fits(page)
    picture = page.locator(".boxes svg").bounding_box()
    page.mouse.move(picture["x"] + 2, picture["y"] + 2)
    page.mouse.down()
    page.mouse.move(picture["x"] + picture["width"] / 4, picture["y"] + picture["height"] / 4)
    page.mouse.move(picture["x"] + picture["width"] / 2, picture["y"] + picture["height"] / 2)
    page.mouse.up()
    page.wait_for_url("**box=**")
    drawn = fits(page)
    assert drawn != moved
    assert page.get_by_role("spinbutton", name="Right").input_value() in ("111", "112")
    page.goto(page.url)
    assert fits(page) == drawn
    page.get_by_role("button", name="Clear my box").click()
    page.wait_for_function(f"old => {FITS} == old", arg=moved)


def test_the_grid_game(page: Any, server: str) -> None:
    page.goto(f"{server}/localize?photo=cat&located=Grad-CAM")
    fits(page)
    page.get_by_role("button", name="Play").click()
    expect(page.locator("[class*='st-key-maps-grid-'] img")).to_have_count(4)
    expect(page.get_by_alt_text("Grad-CAM map of espresso on the mosaic")).to_have_count(1)
