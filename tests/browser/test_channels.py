"""The main path through Channels in a browser: read a cell, click it, come back."""

from __future__ import annotations

import csv
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import chipcore
from chipcore import Network

expect = pytest.importorskip("playwright.sync_api").expect

IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
PAINTED = '.chip-heatmap canvas[data-painted="true"]'
pytestmark = pytest.mark.browser


COUNTED = "[class*=st-key-counts] table"  # the last thing on the page


def visit(page: Any, address: str) -> Any:
    """Open the page and wait until all of it is there; gives the heat map's canvas."""
    page.goto(address)
    page.wait_for_selector(PAINTED)
    page.wait_for_selector(COUNTED)
    page.wait_for_selector(IDLE)
    return page.locator(PAINTED)


def test_cell_tells_its_weight_opens_beside_the_map_and_leads_to_explore(page: Any, server: str, lite0: Network) -> None:
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
    expect(page.locator(".st-key-cell")).to_contain_text(f"Channel 0 for {lite0.classes.labels[32]}")
    assert "/channels" in page.url
    page.set_viewport_size({"width": 1280, "height": 850})  # in a taller one all of Explore's end is in sight anyway
    page.get_by_role("button", name="Open in Explore").click()
    page.wait_for_url(lambda address: "channel=0" in address and "/channels" not in address)
    page.wait_for_function("document.querySelector('.st-key-closer')?.getBoundingClientRect().top < 200")
    page.wait_for_selector(IDLE)
    assert f"class={synsets[1]}" in page.url
    assert "layer=stage4" in page.url
    expect(page.get_by_role("heading", name=f"Evidence for {lite0.classes.labels[32]}")).to_be_visible()
    page.get_by_role("link", name="Channels", exact=True).click()
    page.wait_for_selector(PAINTED)


def test_slider_counts_again_and_a_region_opens_its_channel(page: Any, server: str, lite0: Network) -> None:
    synsets = [lite0.classes.synsets[index] for index in (30, 31)]
    visit(page, f"{server}/channels?class={synsets[0]}&classes={','.join(synsets)}&venn={','.join(synsets)}")
    importance = chipcore.load_importance(lite0, "head")
    tops = [set(importance.top_channels(index, 11)) for index in (30, 31)]
    regions = rf"only {lite0.classes.labels[30]}: {len(tops[0] - tops[1])};.*both: {len(tops[0] & tops[1])}\."
    handle = page.get_by_role("slider", name="The most important channels of each class")
    handle.press("ArrowRight")
    expect(page.locator(".st-key-venn-topk").get_by_alt_text(re.compile(regions))).to_be_visible()
    page.wait_for_url("**topk=11**")
    page.wait_for_selector(IDLE)
    with page.expect_download() as table:
        page.get_by_role("button", name="Table (CSV)").click()
    with open(table.value.path(), encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["synset"] for row in rows] == synsets
    region = page.locator(".st-key-topk-regions [data-region='0'] button").first
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


def settings(page: Any) -> tuple[Any, ...]:
    """What is chosen on the page, once it is all there."""
    page.wait_for_selector(COUNTED)
    page.wait_for_selector(IDLE)
    heat_map = page.evaluate("document.querySelector('.chip-heatmap canvas').getAttribute('aria-label')")
    slider = page.get_by_role("slider", name="The most important channels of each class")
    return (
        page.locator(".st-key-sort [aria-checked=true]").inner_text(),
        slider.input_value(),
        page.locator(".st-key-classes").inner_text(),
        heat_map,
    )


def test_back_and_forward_between_a_cell_and_its_channel(page: Any, server: str, lite0: Network) -> None:
    """Also in one step, and as it was left: Streamlit alone puts the address of a page between into the history."""
    synsets = [lite0.classes.synsets[index] for index in (340, 32, 30)]
    canvas = visit(page, f"{server}/channels?class={synsets[0]}&classes={','.join(synsets)}&sort=by+number&topk=7")
    page.get_by_role("radio", name="by importance", exact=True).click()
    page.wait_for_url("**sort=by+importance**")
    page.wait_for_selector(IDLE)
    chosen = settings(page)
    assert chosen[:2] == ("by importance", "7")
    assert "cell=" not in page.url
    for _ in range(2):
        canvas.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")  # another class than the chosen one
        page.keyboard.press("Enter")
        page.wait_for_url(f"**cell={synsets[1]}.**")  # what is open belongs to the page as it was left
        page.wait_for_selector(IDLE)
        address = page.url
        page.get_by_role("button", name="Open in Explore").click()
        page.wait_for_url(lambda url: "/channels" not in url and "channel=" in url)
        expect(page.get_by_role("heading", name="Evidence for tailed frog")).to_be_visible()
        page.wait_for_selector(IDLE)
        there = page.url
        page.go_back()
        page.wait_for_selector(PAINTED)
        assert settings(page) == chosen
        assert parameters(page.url) == parameters(address)
        expect(page.locator(".st-key-cell")).to_contain_text("for tailed frog")
        page.go_forward()
        expect(page.get_by_role("heading", name="Evidence for tailed frog")).to_be_visible()
        page.wait_for_selector(IDLE)
        assert parameters(page.url) == parameters(there)
        page.get_by_role("link", name="Channels", exact=True).click()  # not back: the page keeps its settings anyway
        page.wait_for_selector(PAINTED)
        page.get_by_role("heading", name="Which channels matter for which class?").wait_for()
        assert settings(page)[:3] == chosen[:3]
        page.go_back()
        page.wait_for_selector(".st-key-strip img")
        page.wait_for_selector(IDLE)
        page.go_back()
        page.wait_for_selector(PAINTED)
        assert settings(page) == chosen


def parameters(address: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(address).query)
