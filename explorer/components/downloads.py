"""What can be taken home from a view: the picture, the raw arrays, a table, or all with the command that repeats it.

Everything is made when its button is clicked: a click costs time then, a change of class does not.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

import chipcore
from explorer import figures
from explorer.figures import fonts
from explorer.text import plain


@dataclass(frozen=True)
class Export:
    """One view's content, to be kept.

    - ``picture``: what was on the screen, at full resolution
    - ``arrays``: the numbers behind it, by name
    - ``table``: the same as CSV, where a table makes sense
    - ``settings``: everything the view was made from: network, weights' sha256, layer, class, image's sha256 ...
    - ``command``: the command line that makes it again, where there is one
    - ``files``: what the command reads, by name; it goes into the bundle
    """

    picture: Image.Image
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    table: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)


def offer(key: str, stem: str, take: Callable[[], Export], *, table: bool = False, folded: str = "") -> None:
    """A row of download buttons.

    Args:
        key: of the widgets, unique on the page.
        stem: of the file names.
        take: makes what is taken home, called when a button is clicked.
        table: whether there is a CSV.
        folded: what a button says that unfolds the row; empty for a row that is always there. A page has one such row,
            or nobody could tell its buttons from others of the same name.
    """
    boxed = fonts.missing_letters([stem])
    stem = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stem)
    place = st.popover(folded, icon=":material/download:", key=f"{key}-fold") if folded else st.container()
    if boxed:
        place.caption(
            f"No font on this server has the letters {plain(boxed[:20])}: the picture shows boxes for them. Noto Sans has most scripts."
        )
    with place, st.container(horizontal=True):
        st.download_button(
            "Picture (PNG)", lambda: figures.png(take().picture), f"{stem}.png", "image/png",
            on_click="ignore", key=f"{key}-png", icon=":material/image:",
        )  # fmt: skip
        st.download_button(
            "Raw arrays (NumPy)", lambda: arrays_of(take()), f"{stem}.npz", "application/octet-stream",
            on_click="ignore", key=f"{key}-npz", icon=":material/grid_on:", help="numpy.load(file) gives them by name.",
        )  # fmt: skip
        if table:
            st.download_button(
                "Table (CSV)", lambda: take().table, f"{stem}.csv", "text/csv", on_click="ignore", key=f"{key}-csv", icon=":material/table:"
            )
        st.download_button(
            "Everything (ZIP)", lambda: bundle(take()), f"{stem}.zip", "application/zip",
            on_click="ignore", key=f"{key}-zip", icon=":material/folder_zip:",
            help="Picture, raw arrays, settings, hashes, and the command that makes it again.",
        )  # fmt: skip


def arrays_of(taken: Export) -> bytes:
    """The arrays as one .npz."""
    stream = io.BytesIO()
    named: dict[str, Any] = dict(taken.arrays)
    np.savez_compressed(stream, **named)
    return stream.getvalue()


def bundle(taken: Export) -> bytes:
    """A ZIP of all there is, with a manifest that names every file's sha256."""
    files = {"picture.png": figures.png(taken.picture), **taken.files}
    if taken.arrays:
        files["arrays.npz"] = arrays_of(taken)
    if taken.table:
        files["table.csv"] = taken.table.encode()
    about = {
        "chipcore": chipcore.__version__,
        "settings": dict(taken.settings),
        "command": taken.command,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    files["about.json"] = json.dumps(about, indent=1, ensure_ascii=False).encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()
