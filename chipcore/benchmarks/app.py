"""How long a visitor of the app waits, measured in a real browser: ``python -m chipcore bench app``.

The app is started as a program of its own; nothing of it is imported here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chipcore.errors import ChipError
from chipcore.importance import load_importance
from chipcore.networks import Network, load_network
from chipcore.storage import ASSETS

NETWORK = "efficientnet_lite0"
STARTS, CHANGES, HEATMAPS = 3, 24, 3
# Seconds: page ready after the server is up; class change, median and 95th percentile; first paint of the heatmap for who
# comes from another view, and for who opens a link to it in a browser that was never here.
TARGETS = {"ready": 5.0, "change_median": 0.5, "change_95": 1.0, "heatmap": 2.0, "heatmap_link": 2.0}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
STRIP = ".st-key-strip img"
HEATMAP = '.chip-heatmap canvas[data-painted="true"]'
_IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
# All of the strip's pictures are there and decoded; 'old' are the addresses of those that they must replace.
_PAINTED = f"""(count, old) => {{
  const now = [...document.querySelectorAll('{STRIP}')];
  return now.length >= count && now.every((e, i) => e.complete && e.naturalWidth > 0 && e.src !== old[i]);
}}"""
# From the key that picks a class to the frame after the last new picture.
_TIME_CHANGE = f"""() => {{
  const painted = {_PAINTED};
  const old = [...document.querySelectorAll('{STRIP}')].map(e => e.src);
  window.chipBench = new Promise(done => document.addEventListener('keydown', event => {{
    const start = performance.now();
    const look = () => painted(old.length, old)
      ? requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)))
      : requestAnimationFrame(look);
    look();
  }}, {{capture: true, once: true}}));
}}"""


def run(starts: int = STARTS, changes: int = CHANGES, progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Measure the app on this machine.

    Args:
        starts: how often the server is started for the first page.
        changes: how many different classes are asked for, one after another.
        progress: called with what is being measured.

    Returns:
        ``seconds`` by what was measured, each a list; ``summary`` with the figures that have ``targets``, None where
        one could not be measured (the server's start is in ``server_up``, from the command to its first answer).

    Raises:
        ChipError: without Playwright, a browser, or a server that starts.
    """
    tell = progress or (lambda _what: None)
    network = load_network(NETWORK)
    with _browser() as browser:
        seconds: dict[str, list[float]] = {"server_up": [], "ready": [], "change": [], "heatmap": [], "heatmap_link": []}
        for number in range(starts):
            tell(f"start {number + 1} of {starts}")
            with _server() as (address, up):
                page = _visitor(browser)
                seconds["server_up"].append(up)
                seconds["ready"].append(_ready(page, address, len(network.layers)))
                if number == starts - 1:
                    tell(f"{changes} changes of class")
                    seconds["change"] = [_change(page, synset) for synset in _classes(network, changes)]
                    page.close()
                    tell("the heatmap")
                    pictures = len(network.layers)
                    for name, before in (("heatmap_link", 0), ("heatmap", pictures)):
                        found = [_heatmap(_visitor(browser), address, before) for _ in range(HEATMAPS)]
                        seconds[name] = [one for one in found if one is not None]
    ordered = sorted(seconds["change"])
    summary = {
        "ready": statistics.median(seconds["ready"]),
        "change_median": statistics.median(ordered),
        "change_95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        **{name: statistics.median(seconds[name]) if seconds[name] else None for name in ("heatmap", "heatmap_link")},
    }
    return {"network": NETWORK, "processors": os.cpu_count(), "seconds": seconds, "summary": summary, "targets": TARGETS}


def table(result: dict[str, Any]) -> str:
    """The result of :func:`run` as text."""
    what = {
        "ready": f"first page ready after the server is up, median of {len(result['seconds']['ready'])}",
        "change_median": f"class changed to new strip painted, median of {len(result['seconds']['change'])}",
        "change_95": "the same, 95th percentile",
        "heatmap": f"heatmap of classes x channels, from another view, median of {len(result['seconds']['heatmap'])}",
        "heatmap_link": f"the same by a link in a new browser, median of {len(result['seconds']['heatmap_link'])}",
    }
    lines = [f"the app with {result['network']} on {result['processors']} processors, in headless Chromium (seconds)"]
    for key, text in what.items():
        found, target = result["summary"][key], result["targets"][key]
        told = (
            "not measured: the page Channels drew none"
            if found is None
            else f"{found:6.2f}   {'meets' if found < target else 'MISSES'} {target:g}"
        )
        lines.append(f"{text:<66}{told}")
    lines.append(f"{'(from the command to a server that answers)':<66}{statistics.median(result['seconds']['server_up']):6.2f}")
    return "\n".join(lines)


@contextlib.contextmanager
def _browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise ChipError("bench app drives a browser through Playwright; pip install playwright.") from None
    chosen = os.environ.get("CHIP_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), "")
    if not Path(chosen).is_file():
        raise ChipError("bench app needs Chromium or Chrome; apt-get install chromium, or set CHIP_CHROMIUM to its file.")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chosen, args=FLAGS)
        except Error as error:
            raise ChipError(f"{chosen} does not start ({str(error).splitlines()[0]}); set CHIP_CHROMIUM to a Chromium that does.") from None
        try:
            yield browser
        except Error as error:
            raise ChipError(
                f"the app did not answer as expected ({str(error).splitlines()[0]}); run the browser tests to see why."
            ) from None
        finally:
            browser.close()


@contextlib.contextmanager
def _server() -> Iterator[tuple[str, float]]:
    """The app as a user starts it: its address, and the seconds until it answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "explorer", "--no-browser", f"--port={port}"]
    with tempfile.TemporaryFile() as log:  # nobody reads a pipe here, and a full one would stop the server
        start = time.perf_counter()
        server = subprocess.Popen(command, cwd=ASSETS.parent, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603
        try:
            while not _answers(address):
                if server.poll() is not None or time.perf_counter() - start > 120:
                    log.seek(0)
                    last = (log.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
                    raise ChipError(f"the app's server did not start ({last[:200]}); try python -m explorer.")
                time.sleep(0.02)
            yield address, time.perf_counter() - start
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/_stcore/health", timeout=2).close()  # noqa: S310
    except (urllib.error.URLError, OSError):
        return False
    return True


def _visitor(browser: Any) -> Any:
    """A page of a visitor who was never here: nothing is in the browser's cache."""
    return browser.new_context(viewport={"width": 1280, "height": 1600}).new_page()


def _ready(page: Any, address: str, pictures: int) -> float:
    start = time.perf_counter()
    page.goto(address)
    page.wait_for_selector(_IDLE, timeout=120_000)
    page.wait_for_function(f"count => ({_PAINTED})(count, [])", arg=pictures, timeout=60_000)
    return time.perf_counter() - start


def _change(page: Any, synset: str) -> float:
    """Type a synset, and measure from the key that takes the one class that is left."""
    box = page.get_by_role("combobox", name="Class")
    box.click()
    box.fill(synset)
    page.wait_for_function("document.querySelectorAll('[role=option]').length === 1")
    page.evaluate(_TIME_CHANGE)
    page.keyboard.press("Enter")
    taken = float(page.evaluate("window.chipBench")) / 1000
    page.wait_for_selector(_IDLE)
    return taken


def _heatmap(page: Any, address: str, before: int) -> float | None:
    """From asking for the page Channels to its heatmap; None where it draws none.

    ``before``: how many pictures the strip of Explore has, from which the page is then reached; 0 to come by a link.
    """
    from playwright.sync_api import TimeoutError as TooLong

    if before:
        _ready(page, address, before)
    start = time.perf_counter()
    try:
        if before:
            page.get_by_role("link", name="Channels", exact=True).click()
        else:
            page.goto(f"{address}/channels")
        # Looked for at every frame; a wait for the selector looks twice a second only.
        page.wait_for_function("selector => document.querySelector(selector) !== null", arg=HEATMAP, timeout=20_000)
        return time.perf_counter() - start
    except TooLong:
        return None
    finally:
        page.close()


def _classes(network: Network, count: int) -> list[str]:
    """Synsets of classes that have a map at every depth, spread over all of them."""
    rows = [load_importance(network, layer.name) for layer in network.layers]
    known = [i for i in range(len(network.classes)) if all(row.evidence(i) != "none" for row in rows)]
    if not known:
        raise ChipError(f"no class of {network.name} has W at every depth; fit it first.")
    return [network.classes.synsets[i] for i in known[:: max(1, len(known) // count)][:count]]
