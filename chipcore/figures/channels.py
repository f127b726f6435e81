"""Rows of W side by side (Fig. 10), and the channels that classes share (Fig. 11)."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chipcore.analysis.channel_overlap import SHARE, TOP
from chipcore.analysis.paper_figures import Shared, shared_channels
from chipcore.datasets.class_names import Classes, numbered
from chipcore.errors import SettingsError
from chipcore.importance import Importance
from chipcore.networks import REGISTRY

INK, QUIET = "#1f1b16", "#6e665c"
# Told apart by color-blind people too (after Okabe and Ito).
COLORS = ("#c2410c", "#0f6cbf", "#0b7a5e")


def heatmap(importance: Importance, classes: Sequence[int | str], *, names: Classes | None = None, caption: str = "") -> Figure:
    """Fig. 10: the importance of every channel (down) for each class (across), each class as a share of its largest.

    Args:
        importance: W of a layer, C x K.
        classes: by index, synset or name.
        names: the network's classes; by default those of the registered network that W belongs to.
        caption: written below.

    Raises:
        ChipError: an unknown class, or one without a fitted row.

    >>> import chipcore
    >>> network = chipcore.load_network("efficientnet_lite0")
    >>> W = chipcore.load_importance(network, "stage5")
    >>> figure = heatmap(W, ["bullfrog", "tree frog", "zebra"])
    """
    return draw_heatmap(of_classes(importance, classes, names), caption)


def venn(
    importance: Importance, classes: Sequence[int | str], top: int = TOP, *, share: float = SHARE, names: Classes | None = None,
    caption: str = "",
) -> Figure:  # fmt: skip
    """Fig. 11: how many important channels two or three classes share, among the ``top`` (left) and above ``share`` of the largest (right).

    Arguments and errors as :func:`heatmap`'s; ``SettingsError`` for other than two or three classes.
    """
    return draw_venn(of_classes(importance, classes, names, top, share), caption)


def of_classes(importance: Importance, classes: Sequence[int | str], names: Classes | None, top: int = TOP, share: float = SHARE) -> Shared:
    """The rows of classes that a person has named."""
    if names is None:
        entry = REGISTRY.get(str(importance.metadata.get("network")))
        known = entry.classes() if entry is not None else None
        names = known if known is not None and len(known) == len(importance.W) else numbered(len(importance.W))
    indices = [names.index(one) for one in classes]
    return shared_channels(importance, indices, [names.labels[index] for index in indices], top, share)


def draw_heatmap(shared: Shared, caption: str = "") -> Figure:
    """The positive part of each row as a share of its largest: channels down, classes across."""
    values = shared.W.clip(min=0)
    tops = values.max(1, keepdims=True)
    shares = (values / np.where(tops > 0, tops, 1)).T
    words = fill(caption, 26 + 14 * len(shared.labels))
    wide, high = 1.7 + 0.95 * len(shared.labels), 6.2 + 0.16 * (words.count("\n") + 1 if words else 0)
    figure = Figure(figsize=(wide, high), dpi=150)
    foot = (high - 6.2 + 0.55) / high
    ax = figure.add_axes((0.75 / wide, foot, (wide - 1.65) / wide, 1 - foot - 0.12 / high))
    # The square root: a hundredth of the largest can still be seen.
    drawn = ax.imshow(np.sqrt(shares), cmap="turbo", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(len(shared.labels)), [fill(label, 12) for label in shared.labels], fontsize=8, color=INK)
    ax.set_ylabel("channel index", fontsize=9, color=INK)
    ax.tick_params(labelsize=8, length=2)
    for place in range(1, len(shared.labels)):
        ax.axvline(place - 0.5, color="white", linewidth=2)
    bar = figure.colorbar(drawn, cax=figure.add_axes(((wide - 0.75) / wide, foot, 0.14 / wide, 1 - foot - 0.12 / high)))
    bar.set_ticks([0, 0.1, 0.316, 0.548, 0.775, 1.0], labels=["0", "0.01", "0.1", "0.3", "0.6", "1"])
    bar.ax.tick_params(labelsize=7, length=2)
    if words:
        figure.text(0.02, 0.05 / high, words, fontsize=8, color=INK, va="bottom", parse_math=False)
    return figure


def draw_venn(shared: Shared, caption: str = "") -> Figure:
    """Two diagrams side by side, as in Fig. 11."""
    if len(shared.labels) not in (2, 3):
        raise SettingsError(f"a Venn diagram takes two or three classes; you gave {len(shared.labels)}.")
    words = fill(caption, 104)
    high = 3.7 + 0.16 * (words.count("\n") + 1 if words else 0)
    figure = Figure(figsize=(7.4, high), dpi=150)
    foot = (high - 3.55) / high
    for place, (sets, title) in enumerate(
        ((shared.top, f"the {shared.count} most important"), (shared.above, f"above {shared.share:g} of the largest"))
    ):
        ax = figure.add_axes((0.5 * place + 0.03, foot, 0.44, 1 - foot - 0.3 / high))
        _circles(ax, sets, shared.labels)
        ax.set_title(title, fontsize=10, color=INK)
    if words:
        figure.text(0.02, 0.05 / high, words, fontsize=8, color=INK, va="bottom", parse_math=False)
    return figure


def regions(sets: np.ndarray) -> dict[str, int]:
    """How many channels are in exactly these classes: '110' is in the first two and not in the third. From bool (n, K)."""
    count = len(sets)
    keys = ["".join("1" if number >> place & 1 else "0" for place in range(count)) for number in range(1, 2**count)]
    member = ["".join("1" if one else "0" for one in column) for column in sets.T]
    return {key: member.count(key) for key in keys}


def _circles(ax: Axes, sets: np.ndarray, labels: Sequence[str]) -> None:
    """All circles of one size: areas in proportion do not exist for most triples, and an empty region needs a place for its zero."""
    from matplotlib_venn import venn2, venn3
    from matplotlib_venn.layout.venn2 import DefaultLayoutAlgorithm as Layout2
    from matplotlib_venn.layout.venn3 import DefaultLayoutAlgorithm as Layout3

    sizes = regions(sets)
    wrapped = [fill(label, 10, break_long_words=False).replace("$", r"\$") for label in labels]
    if len(labels) == 2:
        diagram = venn2(sizes, wrapped, set_colors=COLORS[:2], alpha=0.45, layout_algorithm=Layout2(fixed_subset_sizes=(1,) * 3), ax=ax)
    else:
        diagram = venn3(sizes, wrapped, set_colors=COLORS, alpha=0.45, layout_algorithm=Layout3(fixed_subset_sizes=(1,) * 7), ax=ax)
    for key, count in sizes.items():
        text = diagram.get_label_by_id(key)
        text.set_text(str(count))
        text.set(fontsize=12, color=INK, fontweight="bold")
    for text in diagram.set_labels:
        text.set(fontsize=9, color=INK)
