"""Raw values under the pointer: one script for all maps of a page."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st
from torch import Tensor

# Cells are found by the class that Streamlit gives a container with a key. The values come as 16-bit steps between a
# map's smallest and largest, and are unpacked when the pointer is first over their map.
_SCRIPT = """
const cells = {};
let tip = null;
const unpack = cell => cell.values ??= new Uint16Array(Uint8Array.from(atob(cell.steps), c => c.charCodeAt(0)).buffer);
const hide = () => { if (tip) tip.style.display = 'none'; };
const move = event => {
  const image = event.target;
  const holder = image instanceof HTMLImageElement ? image.closest('[class*="st-key-cell-"]') : null;
  const key = holder && [...holder.classList].find(name => name.startsWith('st-key-cell-'));
  const cell = key && cells[key.slice(7)];
  if (!cell) return hide();
  const box = image.getBoundingClientRect();
  const column = Math.min(cell.width - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * cell.width)));
  const row = Math.min(cell.height - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * cell.height)));
  const value = cell.low + unpack(cell)[row * cell.width + column] / 65535 * (cell.high - cell.low);
  if (!tip || !tip.isConnected) {
    tip = document.createElement('div');
    tip.className = 'chip-value';
    document.body.append(tip);
  }
  tip.textContent = `${cell.name} (${column}, ${row}): ${value === 0 ? '0' : value.toPrecision(3)}`;
  tip.style.display = 'block';
  tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${event.clientY + 18}px`;
};
document.addEventListener('pointermove', move, {passive: true});
document.addEventListener('scroll', hide, {passive: true, capture: true});
export default function (component) {
  for (const key of Object.keys(cells)) delete cells[key];
  Object.assign(cells, component.data);
  hide();
  return () => { for (const key of Object.keys(cells)) delete cells[key]; hide(); };
}
"""


def values(maps: Mapping[str, tuple[str, Tensor]]) -> None:
    """Show a map's raw value where the pointer is.

    Args:
        maps: by the key of the container that holds the picture, which must begin with ``cell-``: a name, and the raw
            map (u, v).
    """
    # Mounted under one name and key: the script is registered again with every run, which costs nothing.
    mount = st.components.v2.component("chip_values", js=_SCRIPT, isolate_styles=False)
    mount(key="values", data={key: encode_values(name, raw) for key, (name, raw) in maps.items()})


def encode_values(name: str, raw: Tensor) -> dict[str, Any]:
    """A finite map as JSON takes it: its size, its range, and 16-bit steps between, row by row."""
    array = raw.numpy().astype(np.float64)
    low, high = float(array.min()), float(array.max())
    steps = np.rint((array - low) / (high - low or 1) * 65535).astype("<u2")
    return {
        "name": name, "height": array.shape[0], "width": array.shape[1], "low": low, "high": high,
        "steps": base64.b64encode(steps.tobytes()).decode(),
    }  # fmt: skip
