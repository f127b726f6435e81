"""The paper's tables, drawn as it prints them."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from matplotlib.figure import Figure

INK, RULE = "#1f1b16", "#1f1b16"


def table(headings: Sequence[str], lines: Sequence[Sequence[str]], caption: str = "", *, strong: Sequence[tuple[int, int]] = ()) -> Figure:
    """A table with rules above and below, its first column to the left and all others centred.

    Args:
        headings: of the columns.
        lines: the cells, row by row; shorter rows are refused.
        caption: written below.
        strong: cells (row, column) in bold.
    """
    if any(len(line) != len(headings) for line in lines):
        raise ValueError("every row needs a cell for every heading")
    wrapped = [fill(one, 16, break_long_words=False) for one in headings]
    head = 0.16 * max(one.count("\n") + 1 for one in wrapped) + 0.12
    first = max(1.0, 0.085 * max(len(line[0]) for line in [headings, *lines]))
    others = [max(1.15, 0.085 * max(len(line[c]) for line in lines) if lines else 0.9) for c in range(1, len(headings))]
    wide = 0.2 + first + sum(others)
    words = fill(caption, max(30, int(wide * 13)))
    foot = 0.15 + 0.16 * (words.count("\n") + 1 if words else 0)
    high = 0.15 + head + 0.24 * len(lines) + foot
    figure = Figure(figsize=(wide, high), dpi=150)
    places, at = [0.1], 0.1 + first
    for one in others:
        places.append(at + one / 2)
        at += one

    def write(x: float, y: float, text: str, *, left: bool, bold: bool = False, size: float = 8) -> None:
        figure.text(
            x / wide, y / high, text, fontsize=size, color=INK, ha="left" if left else "center", va="center",
            fontweight="bold" if bold else "normal", parse_math=False,
        )  # fmt: skip

    top = high - 0.1
    for c, text in enumerate(wrapped):
        write(places[c], top - head / 2, text, left=c == 0, bold=True, size=7.5)
    for r, line in enumerate(lines):
        for c, text in enumerate(line):
            write(places[c], top - head - 0.24 * (r + 0.5), text, left=c == 0, bold=(r, c) in strong)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    for y, width in ((top, 1.2), (top - head, 0.6), (top - head - 0.24 * len(lines), 1.2)):
        ax.plot([0.05 / wide, 1 - 0.05 / wide], [y / high] * 2, color=RULE, linewidth=width)
    if words:
        figure.text(0.1 / wide, 0.06 / high, words, fontsize=8, color=INK, va="bottom", parse_math=False)
    return figure
