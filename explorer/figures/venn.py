"""The Venn diagrams of Fig. 11, and the tree of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib_venn import venn2, venn3
from matplotlib_venn.layout.venn2 import DefaultLayoutAlgorithm as Layout2
from matplotlib_venn.layout.venn3 import DefaultLayoutAlgorithm as Layout3
from PIL import Image
from scipy.cluster.hierarchy import dendrogram

from chipcore.analysis.class_channels import Region
from explorer.figures.theme import Theme, axes, figure, render


def venn_picture(regions: Sequence[Region], labels: Sequence[str], style: Theme) -> Image.Image:
    """Two or three classes as circles with the number of channels in every region.

    All circles are of one size: areas in proportion do not exist for most triples of numbers, and an empty region
    would have no place for its zero.
    """
    drawn = figure(620, 470)
    ax = drawn.add_axes((0.0, 0.02, 1.0, 0.96))
    sizes = {region.name: len(region.channels) for region in regions}
    two = len(labels) == 2
    wrapped = [_wrapped(label) for label in labels]
    if two:
        diagram = venn2(
            sizes, wrapped, set_colors=style.colors[:2], alpha=0.5, layout_algorithm=Layout2(fixed_subset_sizes=(1,) * 3), ax=ax
        )
    else:
        diagram = venn3(
            sizes, wrapped, set_colors=style.colors[:3], alpha=0.5, layout_algorithm=Layout3(fixed_subset_sizes=(1,) * 7), ax=ax
        )
    for region in regions:
        text = diagram.get_label_by_id(region.name)
        text.set_text(f"{len(region.channels):,}")
        text.set(fontsize=20, color=style.ink, fontweight="bold")
    for text in diagram.set_labels:
        text.set(fontsize=15, color=style.ink)
    return render(drawn, style)


def _wrapped(label: str, width: int = 16) -> str:
    lines = [""]
    for word in label.replace("$", r"\$").split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def tree_picture(linked: np.ndarray, labels: Sequence[str], chosen: str, style: Theme) -> Image.Image:
    """A dendrogram of classes, from ``chipcore.analysis.class_channels.tree``: the further left two branches meet, the less alike."""
    drawn = figure(520, 110 + 26 * len(labels))  # about as wide as its column on a laptop, so that names can be read
    ax = axes(drawn, style)
    # From the axis's beginning: it is wider than the axis, and centerd it would lose its first words.
    ax.set_xlabel("1 − cosine of their rows of W, where branches meet", color=style.ink, fontsize=12, loc="left")
    shown = dendrogram(linked, labels=list(labels), orientation="left", ax=ax, color_threshold=0, above_threshold_color=style.colors[0])
    ax.set_yticklabels([_cut(label).replace("$", r"\$") for label in shown["ivl"]], fontsize=12)
    for text, label in zip(ax.get_yticklabels(), shown["ivl"], strict=True):
        text.set(color=style.colors[0] if label == chosen else style.ink, fontweight="bold" if label == chosen else "normal")
    ax.spines["right"].set_visible(False)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    drawn.subplots_adjust(left=0.03, right=0.6, top=0.98, bottom=70 / drawn.bbox.height)
    return render(drawn, style)


def _cut(label: str, most: int = 21) -> str:
    return label if len(label) <= most else label[: most - 1].rstrip() + "…"
