"""What a machine can check of who sees badly or has no mouse: axe-core on every view, in the light and the dark theme."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest

axe = pytest.importorskip("axe_playwright_python", reason="pip install axe-playwright-python")

IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
# The last thing of each view, after which it is complete.
VIEWS = {
    "": ".st-key-strip img",
    "compare": "[class*=st-key-alike] table",
    "channels": "[class*=st-key-counts] table",
    "localize": ".st-key-curves canvas, .st-key-curves svg",
    "fit?model=vgg16_slim": ".st-key-fit-form",
    "learn": ".st-key-turn",
}
RUN = """async () => {
  const found = await axe.run(document, {
    resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
  });
  return found.violations.map(one => [one.impact, one.id, one.nodes.map(node => node.html.slice(0, 160))]);
}"""
pytestmark = pytest.mark.browser


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_serious_is_found(page: Any, server: str, view: str) -> None:
    page.goto(f"{server}/{view}")
    page.wait_for_selector(VIEWS[view])
    page.wait_for_selector(IDLE)
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("wanted => getComputedStyle(document.querySelector('.stApp')).colorScheme === wanted", arg=scheme)
        for _ in range(2):  # the run that the theme asks for begins a moment later; and then its old elements fade
            page.wait_for_timeout(600)
            page.wait_for_selector(IDLE)
        page.wait_for_function("!document.querySelector('[data-stale=true]')")
        page.wait_for_timeout(400)
        found = [one for one in page.evaluate(RUN) if one[0] in ("serious", "critical") or one[1] == "heading-order"]
        assert not found, f"{view or 'explore'}, {scheme}: {found}"
