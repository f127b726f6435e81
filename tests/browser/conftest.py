"""A real server and a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.visitor import serving

CHROMIUM = Path(os.environ.get("CHIP_CHROMIUM") or "/usr/bin/chromium")
PATIENCE = 120_000  # ms; a machine may be busy, and what is right does not get wrong by being late
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip


def _missing(what: str) -> None:
    """Without a browser these tests are skipped; in CI that would hide everything they find."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}; CI must have it")
    pytest.skip(what)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests."""
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError:
        _missing("Playwright for Python is not installed")
    if not CHROMIUM.exists():
        _missing(f"there is no {CHROMIUM} (apt-get install chromium, or set CHIP_CHROMIUM)")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app as a user starts it, from the repository root so that config.toml is found; gives its address."""
    log = tmp_path_factory.mktemp("server") / "streamlit.log"
    # A cache of its own: W that a test fits must not meet another test, or the user.
    with serving(log, CHIP_CACHE=str(log.parent / "cache")) as (address, _process):
        yield address
        said = log.read_text()
        assert "Traceback" not in said, said


def _is_complaint(message: Any) -> bool:
    # Opened at /compare, Streamlit's own script first asks for /compare/_stcore/..., then finds the server at /_stcore/.
    probe = "/_stcore/" in message.location.get("url", "") and "404" in message.text
    return message.type in ("error", "warning") and not probe


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A fresh visitor. Afterwards: nothing on the console, nothing asked of anyone but our server."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1600})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if _is_complaint(message) else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    outside: list[str] = []
    page.on(
        "request", lambda request: None if request.url.startswith(("http://127.0.0.1:", "data:", "blob:")) else outside.append(request.url)
    )
    page.on("websocket", lambda socket: None if socket.url.startswith("ws://127.0.0.1:") else outside.append(socket.url))
    yield page
    context.close()
    assert not outside, f"asked outside: {outside}"
    assert not complaints, f"on the console: {complaints}"
