"""A table that can be sorted by any column: real text for a screen reader, and light enough for a thousand rows.

Streamlit's own draws on a canvas and loads more than a megabyte of script first, which the heat map above it waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import streamlit as st

_HERE = Path(__file__).parent
_mount = st.components.v2.component(
    "chip_table",
    html='<div class="chip-table"></div>',
    css=(_HERE / "table.css").read_text(encoding="utf-8"),
    js=(_HERE / "table.js").read_text(encoding="utf-8"),
    isolate_styles=False,
)


@dataclass(frozen=True)
class Column:
    """One column: its name, what it means, the decimals of its numbers (-1: text), and what a whole bar stands for (0: none)."""

    name: str
    help: str = ""
    digits: int = -1
    whole: float = 0.0


def table(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[str | float | None]], key: str) -> None:
    """Draw it.

    Args:
        caption: what it shows, for who can't see it.
        columns: the first names the rows.
        rows: one value a column; None was not measured.
        key: of the element.
    """
    _mount(data={"caption": caption, "columns": [asdict(column) for column in columns], "rows": [list(row) for row in rows]}, key=key)
