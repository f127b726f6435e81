"""The main path through Compare in a browser."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api").expect

IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
pytestmark = pytest.mark.browser
PICTURES = "[class*='st-key-maps-'] img"


def visit(page: Any, address: str, pictures: int) -> None:
    page.goto(address)
    painted(page, pictures)


def painted(page: Any, pictures: int) -> None:
    page.wait_for_function(
        f"count => [...document.querySelectorAll(\"{PICTURES}\")].filter(e => e.complete && e.naturalWidth > 0).length == count",
        arg=pictures,
    )  # fmt: skip
    page.wait_for_selector(IDLE)


def test_choose_wipe_and_take_home(page: Any, server: str) -> None:
    visit(page, f"{server}/compare?photo=cat", 8)
    # One method less: its maps go, and the link holds the rest.
    page.get_by_role("button", name="Remove c-MWP").click()
    painted(page, 6)
    expect(page.get_by_alt_text("Guided Backprop map of Egyptian cat")).to_have_count(1)
    assert "methods=" in page.url
    # The wiper by keyboard, from a label that says what it does.
    wiper = page.get_by_role("slider", name="How much of CHIP · Egyptian cat is shown over Grad-CAM · Egyptian cat")
    wiper.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert wiper.input_value() == "52"
    assert "52%" in page.locator(".wiper").get_attribute("style")
    with page.expect_download() as taken:
        page.get_by_role("button", name="Table (CSV)").click()
    rows = list(csv.DictReader(Path(taken.value.path()).read_text().splitlines()))
    assert [row["method"] for row in rows] == ["chip", "gradcam", "guided_backprop"] * 2
    now = page.locator(PICTURES).evaluate_all("all => all.map(e => e.alt)")
    visit(page, page.url, 6)
    assert page.locator(PICTURES).evaluate_all("all => all.map(e => e.alt)") == now


def test_a_slow_map_goes_on_when_the_page_is_left(page: Any, server: str) -> None:
    address = f"{server}/compare?photo=coffee&model=vgg16_slim&layer=pool3&methods=CHIP+fitted+on+this+photograph&with="
    visit(page, address, 1)
    page.get_by_role("button", name="Compute CHIP fitted on this photograph").click()
    expect(page.locator("[class*='st-key-stop-']")).to_have_count(1)
    page.goto("about:blank")
    page.goto(address)
    expect(page.get_by_text("301 passes")).to_be_visible()


def test_fig_9_in_one_click(page: Any, server: str) -> None:
    visit(page, f"{server}/compare?photo=cat&methods=CHIP", 2)
    page.get_by_role("radio", name="At every depth").click()
    expect(page.locator("[class*='st-key-depths-'] img")).to_have_count(12)
    page.wait_for_selector(IDLE)
    assert "compare=At" in page.url
