"""The main path through Fit in a browser: a ZIP of images, a fit in the background, its result, the link reopened."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api").expect

IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
pytestmark = pytest.mark.browser


@pytest.fixture
def images(data: Path, tmp_path: Path) -> Path:
    """Sixteen real zebras in a ZIP."""
    with zipfile.ZipFile(tmp_path / "zebras.zip", "w") as archive:
        for file in sorted((data / "fourteen" / "val" / "zebra").iterdir())[:16]:
            archive.write(file, f"zebra/{file.name}")
    return tmp_path / "zebras.zip"


def test_images_become_w(page: Any, server: str, images: Path) -> None:
    page.goto(f"{server}/fit?model=vgg16_slim&layers=pool5&gates=4")
    page.wait_for_selector(IDLE)
    page.locator(".st-key-fit-upload input[type=file]").set_input_files(images)
    expect(page.locator(".st-key-fit-cost")).not_to_contain_text("…")  # a trial has told the time
    expect(page.locator(".st-key-fit-cost")).to_contain_text("64")
    page.get_by_role("button", name="Start the fit").click()
    expect(page.get_by_role("heading", name="What was learned")).to_be_visible()
    expect(page.get_by_text("1 good row of W")).to_be_visible()
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    page.wait_for_url("**run=**")
    page.wait_for_selector(IDLE)
    with page.expect_download() as table:
        page.get_by_role("button", name="Table (CSV)").click()
    assert ",zebra," in Path(table.value.path()).read_text().splitlines()[1]
    page.goto(page.url)
    expect(page.get_by_text("1 good row of W")).to_be_visible()
    page.wait_for_selector(IDLE)
    page.get_by_role("button", name="Deactivate").click()
    expect(page.get_by_text("Another W is active in your views at these layers.")).to_be_visible()


def test_the_form_for_a_network_of_ones_own_says_what_is_wrong(page: Any, server: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"no weights")
    page.goto(f"{server}/fit?model=vgg16_slim")
    page.wait_for_selector(IDLE)
    page.get_by_role("button", name="Add your own network").click()
    dialog = page.get_by_role("dialog")
    box = dialog.get_by_role("combobox", name="Architecture")
    box.click()
    box.fill("ResNet-18")
    page.keyboard.press("Enter")
    dialog.locator("input[type=file]").first.set_input_files(tmp_path / "w.pth")
    expect(dialog.get_by_text("w.pth")).to_be_visible()
    dialog.get_by_role("button", name="Add network").click()
    expect(dialog.get_by_text("w.pth is not a checkpoint we can read")).to_be_visible()
