"""Bars in a table: numbers that can be read, compared, and heard by a screen reader. Plain HTML, drawn as fast as text."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TableCell:
    """A bar of ``share`` of the column's width, from -1 (drawn as evidence against) to 1, and its number as text."""

    share: float
    text: str


@dataclass(frozen=True)
class Line:
    """One row: a name and a bar for every column; ``marked`` rows stand out."""

    name: str
    cells: tuple[TableCell, ...]
    marked: bool = False


def bars(headings: Sequence[str], lines: Sequence[Line]) -> str:
    """A table with one heading more than a line has cells. Names and texts are escaped."""
    head = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in headings)
    return f'<table class="chip-bars"><thead><tr>{head}</tr></thead><tbody>{"".join(map(_line, lines))}</tbody></table>'


def _line(line: Line) -> str:
    cells = "".join(
        f'<td><i class="{"against" if cell.share < 0 else "for"}" style="width: {min(1.0, abs(cell.share)):.1%}"></i>'
        f"<span>{html.escape(cell.text)}</span></td>"
        for cell in line.cells
    )
    return f'<tr{" class=marked" if line.marked else ""}><th scope="row">{html.escape(line.name)}</th>{cells}</tr>'
