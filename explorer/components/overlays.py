"""Two small pieces of browser code: a wiper between two pictures, and a picture on which a box is drawn.

Everything stands in this file; nothing is fetched. Data goes in as JSON and is put on the page as attributes and text,
never as HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

_WIPER_HTML = """
<div class="wiper">
  <img class="under"><img class="over">
  <i class="line"></i><b class="left"></b><b class="right"></b>
  <input type="range" min="0" max="100" step="1" value="50">
</div>
"""
# The range covers the picture: dragging anywhere on it and the arrow keys both move the line.
_WIPER_CSS = """
.wiper { position: relative; --at: 50%; aspect-ratio: 1; max-width: 34rem; border-radius: .5rem; overflow: hidden; }
.wiper:focus-within { outline: 3px solid var(--st-primary-color); outline-offset: 2px; }
img { position: absolute; inset: 0; width: 100%; height: 100%; }
.over { clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.line { position: absolute; top: 0; bottom: 0; left: calc(var(--at) - 1.5px); width: 3px; background: white; box-shadow: 0 0 4px black; }
.line::after {
  content: "\\2194"; position: absolute; top: calc(50% - 1.1rem); left: -1rem; width: 2.2rem; height: 2.2rem; border-radius: 50%;
  background: white; color: #222; text-align: center; font: 1.5rem/2rem sans-serif; box-shadow: 0 0 4px black;
}
b {
  position: absolute; top: .6rem; padding: .1rem .5rem; border-radius: .4rem; background: rgba(0, 0, 0, .65); color: white;
  font: 600 .9rem var(--st-font); max-width: 44%;
}
.left { left: .6rem; } .right { right: .6rem; }
input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; appearance: none; }
input::-webkit-slider-thumb { appearance: none; width: 2px; height: 100%; }
input::-moz-range-thumb { width: 2px; height: 100%; border: 0; }
"""
_WIPER_JS = """
export default function({ data, parentElement }) {
  const find = (name) => parentElement.querySelector(name);
  const range = find("input");
  const show = () => find(".wiper").style.setProperty("--at", range.value + "%");
  find(".over").src = data.left; find(".over").alt = data.leftName;
  find(".under").src = data.right; find(".under").alt = data.rightName;
  find(".left").textContent = data.leftName;
  find(".right").textContent = data.rightName;
  range.setAttribute("aria-label", `How much of ${data.leftName} is shown over ${data.rightName}`);
  range.oninput = show;
  show();
}
"""
_BOX_HTML = """
<div class="boxes">
  <img draggable="false"><svg preserveAspectRatio="none"></svg>
</div>
"""
_BOX_CSS = """
.boxes { position: relative; aspect-ratio: 1; max-width: 40rem; border-radius: .5rem; overflow: hidden; user-select: none; touch-action: none; }
img, svg { position: absolute; inset: 0; width: 100%; height: 100%; }
svg { cursor: crosshair; }
rect { fill: none; vector-effect: non-scaling-stroke; }
.back { stroke: rgba(0, 0, 0, .75); stroke-width: 6; }
.truth { stroke: #ffffff; stroke-width: 3; stroke-dasharray: 9 6; }
.found { stroke: #22d3ee; stroke-width: 3; }
"""
# A box is in whole pixels of the network's view, both ends inside it: it covers [x0, x1 + 1).
_BOX_JS = """
export default function({ data, parentElement, setTriggerValue }) {
  const svg = parentElement.querySelector("svg"), img = parentElement.querySelector("img");
  img.src = data.picture; img.alt = data.alt;
  svg.setAttribute("viewBox", `0 0 ${data.size} ${data.size}`);
  svg.setAttribute("aria-hidden", "true");
  const draw = (drawn) => {
    svg.replaceChildren();
    const add = (kind, [x0, y0, x1, y1]) => {
      for (const name of ["back", kind]) {
        const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        for (const [key, value] of Object.entries({ x: x0, y: y0, width: x1 - x0 + 1, height: y1 - y0 + 1, class: name }))
          rect.setAttribute(key, value);
        svg.append(rect);
      }
    };
    for (const box of drawn ? [drawn] : data.truth) add("truth", box);
    if (data.found) add("found", data.found);
  };
  const at = (event) => {
    const frame = svg.getBoundingClientRect();
    const pixel = (share) => Math.min(data.size - 1, Math.max(0, Math.floor(share * data.size)));
    return [pixel((event.clientX - frame.left) / frame.width), pixel((event.clientY - frame.top) / frame.height)];
  };
  const box = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
  let start = null;
  svg.onpointerdown = (event) => { start = at(event); svg.setPointerCapture(event.pointerId); };
  svg.onpointermove = (event) => { if (start) draw(box(start, at(event))); };
  svg.onpointercancel = () => { start = null; draw(); };
  svg.onpointerup = (event) => {
    if (!start) return;
    const drawn = box(start, at(event));
    start = null;
    // A click is not a box.
    if (drawn[2] - drawn[0] < 2 || drawn[3] - drawn[1] < 2) draw(); else { draw(drawn); setTriggerValue("box", drawn); }
  };
  draw();
}
"""
_wiper = st.components.v2.component("chip_wiper", html=_WIPER_HTML, css=_WIPER_CSS, js=_WIPER_JS)
_boxes = st.components.v2.component("chip_boxes", html=_BOX_HTML, css=_BOX_CSS, js=_BOX_JS)


def wiper(left: tuple[str, str], right: tuple[str, str], key: str) -> None:
    """A line to drag between two pictures of one size, each (name, data URI); arrow keys move it too."""
    _wiper(key=key, data={"leftName": left[0], "left": left[1], "rightName": right[0], "right": right[1]})


def boxes(
    picture: str, alternative: str, size: int, truth: Sequence[Sequence[int]], found: Sequence[int] | None, key: str,
    on_box: Callable[[], Any],
) -> None:  # fmt: skip
    """A square picture with true boxes (dashed, white) and a found one (cyan), on which the visitor can drag another.

    Args:
        picture: a data URI.
        alternative: the picture in words.
        size: pixels of the network's view, in which boxes (x0, y0, x1, y1) count, both ends inside.
        on_box: called after a box was drawn, which is then ``dragged(key)``.
    """
    data = {
        "picture": picture,
        "alt": alternative,
        "size": size,
        "truth": [list(one) for one in truth],
        "found": list(found) if found else None,
    }
    _boxes(key=key, data=data, on_box_change=on_box)


def dragged(key: str) -> list[Any]:
    """The box that a visitor has just drawn; whatever the browser sent, so check it."""
    sent = st.session_state.get(key)
    box = sent.get("box") if sent is not None else None
    return list(box) if isinstance(box, (list, tuple)) else []
