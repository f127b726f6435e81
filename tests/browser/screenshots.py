"""Pictures of the six views: ``python -m tests.browser.screenshots FOLDER [NAME ...]``; the README's with ``assets`` as the folder.

Without names the README's six are made; ``all`` makes every one below. ``fit`` takes the folder of real images (``CHIP_DATA``).
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import TimeoutError as TooLong
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
PHOTOGRAPHS = Path(os.environ.get("CHIP_DATA") or ROOT.parent / "shared" / "data") / "fourteen" / "val"
MOST_BYTES = 400_000
# Name, width, height, color scheme, and the link; first the README's.
README = (
    ("explore", 1280, 1500, "light", "/?photo=cat"),
    ("compare", 1280, 1090, "light", "/compare?photo=cat"),
    ("channels", 1280, 1385, "light", "/channels?photo=cat"),
    ("localize", 1280, 1190, "light", "/localize?photo=motorcycle"),
    ("fit", 1280, 1640, "light", f"/fit?model=vgg16_slim&layers=pool5&gates=10&per-folder=12&folder={PHOTOGRAPHS.name}"),
    ("learn", 1280, 1000, "light", "/learn?photo=cat&step=2"),
)
OTHERS = (
    ("explore-wide", 1920, 1080, "light", "/?photo=cat"),
    ("explore-dark", 1920, 1080, "dark", "/?photo=motorcycle"),
    ("explore-channel", 1920, 1750, "light", "/?photo=cat&layer=stage5&look=One+channel"),
    ("explore-closing", 1920, 1400, "light", "/?photo=cat&look=Close+channels&many=50"),
    ("compare-wide", 1920, 2300, "light", "/compare?photo=cat"),
    ("compare-depths", 1280, 1100, "light", "/compare?photo=cat&compare=At+every+depth"),
    ("compare-table", 1280, 2500, "light", "/compare?photo=cat&compare=All+methods"),
    ("channels-dark", 1280, 3200, "dark", "/channels?photo=cat"),
    ("channels-all", 1280, 3400, "light", "/channels?photo=cat&everyclass=true"),
    ("localize-wide", 1920, 1800, "light", "/localize?photo=cat"),
    *((f"learn-{step}", 1280, 1200, "light", f"/learn?photo=cat&step={step}") for step in range(1, 7)),
)


def main(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shots = [shot for shot in (*README, *OTHERS) if shot[0] in names or "all" in names] if names else README
    with tempfile.TemporaryDirectory() as scratch, _server(Path(scratch)) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        for name, width, height, scheme, link in shots:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.set_default_timeout(300_000)
            page.goto(f"{address}{link}")
            _settled(page)
            if name == "fit":
                page.get_by_role("button", name="Start the fit").click()
                page.get_by_role("heading", name="What was learned").wait_for()
                _settled(page)
            page.screenshot(path=folder / f"{name}.png")
            _shrink(folder / f"{name}.png")
            print(folder / f"{name}.png", flush=True)
            page.close()
        browser.close()


def _shrink(file: Path) -> None:
    """Images make PNGs large; so many colors of its own as fit in ``MOST_BYTES`` do for a picture of a page."""
    page = Image.open(file).convert("RGB")
    for colors in (256, 208, 160, 128, 96):
        if file.stat().st_size <= MOST_BYTES:
            return
        palette = page.quantize(colors, kmeans=4)
        page.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(file, optimize=True)


def _settled(page: Any) -> None:
    """Wait for the page, for its background work (each has a button to stop it), and for its pictures to fade in."""
    page.wait_for_selector(IDLE, timeout=300_000)
    with contextlib.suppress(TooLong):
        page.wait_for_function("!document.querySelector('[class*=\"st-key-stop-\"]')", timeout=300_000)
    page.wait_for_selector(IDLE, timeout=300_000)
    page.wait_for_function("!document.querySelector('[data-testid=stMain] [data-testid=stSkeleton]')", timeout=300_000)
    page.wait_for_function("[...document.images].every(image => image.complete)", timeout=60_000)
    page.wait_for_timeout(1500)


@contextlib.contextmanager
def _server(scratch: Path) -> Iterator[str]:
    """The app with a cache of its own: what is fitted for a picture is nobody's W."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "explorer", "--no-browser", f"--port={port}"]
    if PHOTOGRAPHS.is_dir():
        command += ["--allow", str(PHOTOGRAPHS)]
    with (scratch / "server.log").open("w") as stream:
        environment = {**os.environ, "CHIP_CACHE": str(scratch / "cache")}
        server = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    try:
        _wait(f"{address}/_stcore/health")
        yield address
    finally:
        server.terminate()
        server.wait()


def _wait(address: str) -> None:
    for _ in range(3000):
        try:
            urllib.request.urlopen(address)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not start within five minutes")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots"), sys.argv[2:])
