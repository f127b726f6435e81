"""Pictures of every view, as in the README: ``python -m tests.browser.screenshots FOLDER [VIEW ...]``.

``explore`` is also made at 1280 pixels and in dark; the README's are made with ``assets`` as the folder.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import TimeoutError as TooLong
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
# Name, width, height, colour scheme, and the link.
SHOTS = (
    ("explore", 1920, 1080, "light", "/?photo=cat"),
    ("explore-1280", 1280, 2000, "light", "/?photo=cat"),
    ("explore-dark", 1920, 1080, "dark", "/?photo=motorcycle"),
    ("explore-channel", 1920, 1750, "light", "/?photo=cat&layer=stage5&look=One+channel"),
    ("explore-closing", 1920, 1400, "light", "/?photo=cat&look=Close+channels&many=50"),
    ("compare", 1440, 1400, "light", "/compare?photo=cat"),
    ("channels", 1440, 1400, "light", "/channels?photo=cat"),
    ("localize", 1440, 1400, "light", "/localize?photo=cat"),
    ("fit", 1440, 1400, "light", "/fit"),
    ("learn", 1440, 1400, "light", "/learn?photo=cat"),
)


def main(folder: Path, views: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with _server(folder / "server.log") as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        for name, width, height, scheme, link in SHOTS:
            if views and name.split("-")[0] not in views:
                continue
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(f"{address}{link}")
            _settled(page)
            page.screenshot(path=folder / f"{name}.png")
            print(folder / f"{name}.png", flush=True)
            page.close()
        browser.close()


def _settled(page: Any) -> None:
    """Wait for the page, for its background work (each has a button to stop it), and for its pictures to fade in."""
    page.wait_for_selector(IDLE, timeout=120_000)
    with contextlib.suppress(TooLong):
        page.wait_for_function("!document.querySelector('[class*=\"st-key-stop-\"]')", timeout=120_000)
    page.wait_for_selector(IDLE, timeout=120_000)
    page.wait_for_function("[...document.images].every(image => image.complete)", timeout=60_000)
    page.wait_for_timeout(1500)


@contextlib.contextmanager
def _server(log: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "explorer", "--no-browser", f"--port={port}"], cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        _wait(f"{address}/_stcore/health")
        yield address
    finally:
        server.terminate()
        server.wait()
        log.unlink()


def _wait(address: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(address)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not start within a minute")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots"), sys.argv[2:])
