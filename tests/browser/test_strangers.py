"""A image whose name is code, in a browser: shown, or not, but never run."""

from __future__ import annotations

from typing import Any

import pytest

from explorer.services import gallery

pytest.importorskip("playwright.sync_api")

IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
EVIL = "<img src=x onerror=alert(1)> **bold** [x](javascript:alert(1)).png"
pytestmark = pytest.mark.browser


def test_a_name_that_is_code_is_not_run(page: Any, server: str) -> None:
    ran: list[str] = []
    page.on("dialog", lambda dialog: (ran.append(dialog.message), dialog.dismiss()))
    page.goto(f"{server}/?model=vgg16_slim")
    page.wait_for_selector(IDLE)
    box = page.locator("[class*=st-key-upload-] input[type=file]")
    box.set_input_files({"name": EVIL, "mimeType": "image/png", "buffer": gallery.image("cat").data})
    page.wait_for_url("**photo=*onerror*")
    for view in ("explore", "compare", "localize", "learn"):
        if view != "explore":
            page.get_by_role("link", name=view.capitalize(), exact=True).click()
            page.wait_for_url(f"**/{view}?*")
        page.wait_for_selector(IDLE)
        page.get_by_role("heading").first.wait_for()
        assert "onerror" in page.inner_text("[data-testid=stSidebar]"), f"{view}: the name is on the page, as text"
        assert page.locator("img[src=x]").count() == 0 and page.locator("a[href^=javascript]").count() == 0, view
        assert page.locator("strong", has_text="bold").count() == 0, view
    assert not ran
