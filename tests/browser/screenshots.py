"""Pictures of the app, as in the README: ``python -m tests.browser.screenshots FOLDER``."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
PAINTED = "[...document.querySelectorAll('.st-key-strip img')].filter(e => e.complete && e.naturalWidth > 0).length >= 6"
# Name, width, height, colour scheme and the link's query.
SHOTS = (
    ("explore", 1920, 1080, "light", "photo=cat"),
    ("explore-1280", 1280, 1500, "light", "photo=cat"),
    ("explore-dark", 1920, 1080, "dark", "photo=motorcycle"),
)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "explorer/app.py", f"--server.port={port}"]
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(f"http://127.0.0.1:{port}/_stcore/health")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            )
            for name, width, height, scheme, query in SHOTS:
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                page.goto(f"http://127.0.0.1:{port}/?{query}")
                page.wait_for_selector(IDLE, timeout=60_000)
                page.wait_for_function(PAINTED, timeout=60_000)
                page.wait_for_timeout(500)  # pictures fade in
                page.screenshot(path=folder / f"{name}.png")
                print(folder / f"{name}.png")
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait()
        (folder / "server.log").unlink()


def _wait(address: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(address)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not start within a minute")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots"))
