"""The main path through Channels in a browser: read a cell, click it, come back."""

from __future__ import annotations

import csv
import re
from typing import Any

import pytest

import chipcore
from chipcore import Network

expect = pytest.importorskip("playwright.sync_api").expect

IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
PAINTED = '.chip-heatmap canvas[data-painted="true"]'
pytestmark = pytest.mark.browser


def visit(page: Any, address: str) -> Any:
    """Open the page and wait until the heat map is painted; gives its canvas."""
    page.goto(address)
    page.wait_for_selector(PAINTED)
    page.wait_for_selector(IDLE)
    return page.locator(PAINTED)


def test_cell_tells_its_weight_and_opens_the_channel_in_explore(page: Any, server: str, lite0: Network) -> None:
    synsets = [lite0.classes.synsets[index] for index in (340, 32, 30)]  # zebra and two frogs, as in the paper
    canvas = visit(page, f"{server}/channels?class={synsets[0]}&classes={','.join(synsets)}&layer=stage4&sort=by+number")
    box = canvas.bounding_box()
    canvas.hover(position={"x": box["width"] - 60, "y": 30 + 13})  # the first row
    tip = page.locator(".chip-heatmap-tip")
    expect(tip).to_be_visible()
    label, channel, weight = re.fullmatch(r"(.+), channel (\d+): (.+)", tip.inner_text()).groups()
    assert label.split(" · ")[0] == "zebra"
    expected = float(chipcore.load_importance(lite0, "stage4").W[340, int(channel)])
    assert float(weight.replace("\N{MINUS SIGN}", "-")) == pytest.approx(expected, rel=0.01)
    canvas.focus()
    page.keyboard.press("Home")  # the row stays, its first channel is marked
    page.keyboard.press("ArrowDown")
    expect(page.locator(".chip-heatmap-said")).to_contain_text("channel 0:")
    expect(page.locator(".chip-heatmap-said")).to_contain_text(lite0.classes.labels[32])
    page.keyboard.press("Enter")
    page.wait_for_url(lambda address: "channel=0" in address and "/channels" not in address)
    page.wait_for_selector(IDLE)
    assert f"class={synsets[1]}" in page.url
    assert "layer=stage4" in page.url
    expect(page.get_by_role("heading", name=f"What speaks for {lite0.classes.labels[32]}?")).to_be_visible()
    page.get_by_role("link", name="Channels", exact=True).click()
    page.wait_for_selector(PAINTED)


def test_slider_counts_again_and_a_region_opens_its_channel(page: Any, server: str, lite0: Network) -> None:
    synsets = [lite0.classes.synsets[index] for index in (30, 31)]
    visit(page, f"{server}/channels?class={synsets[0]}&classes={','.join(synsets)}")
    importance = chipcore.load_importance(lite0, "head")
    tops = [set(importance.top_channels(index, 11)) for index in (30, 31)]
    handle = page.get_by_role("slider", name="The most important channels of each class")
    handle.press("ArrowRight")
    expect(page.get_by_alt_text(re.compile(rf"both: {len(tops[0] & tops[1])}\.")).first).to_be_visible()
    page.wait_for_url("**topk=11**")
    page.wait_for_selector(IDLE)
    with page.expect_download() as table:
        page.get_by_role("button", name="Table (CSV)").click()
    with open(table.value.path(), encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["synset"] for row in rows] == synsets
    region = page.locator(".st-key-topk-region-10 button").first
    number = region.inner_text()
    region.click()
    page.wait_for_url(lambda address: f"channel={number}" in address and "/channels" not in address)


def test_everything_scrolls_and_is_painted(page: Any, server: str) -> None:
    canvas = visit(page, f"{server}/channels?everyclass=true")
    frame = page.locator(".chip-heatmap-frame")
    before = canvas.evaluate("e => e.toDataURL()")
    frame.evaluate("e => { e.scrollTop = 5000 }")
    page.wait_for_function("old => document.querySelector('.chip-heatmap canvas').toDataURL() != old", arg=before)
    page.get_by_role("button", name="Larger cells").click()
    assert frame.evaluate("e => e.scrollWidth > e.clientWidth")
