"""Pictures of the six lessons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from chipcore import visualization
from explorer.figures import fonts
from explorer.figures.theme import Theme, axes, figure, render

_SIDE = 150  # pixels of one feature map


def feature_maps(features: Tensor, gate: Tensor, shown: Sequence[int], colormap: str, style: Theme) -> Image.Image:
    """Channels ``shown`` of A (K, u, v) above, and d_k A_k below, each channel on its own scale.

    A closed channel is zero everywhere, so it is drawn in the color of zero, with the word on it.
    """
    gap, left, top = 14, 76, 40
    sheet = Image.new("RGB", (left + len(shown) * (_SIDE + gap), top + 2 * (_SIDE + gap)), style.paper)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(fonts.OWN, 24)
    for row, words in enumerate(("A", "d · A")):
        draw.text((0, top + row * (_SIDE + gap) + _SIDE / 2), words, fill=style.ink, font=font, anchor="lm")
    for column, k in enumerate(shown):
        x, opened = left + column * (_SIDE + gap), bool(gate[k])
        draw.text((x + _SIDE / 2, 18), f"k = {k}", fill=style.ink, font=font, anchor="mm")
        values = features[k].float().clamp(min=0)
        values = values / values.max() if values.max() > 0 else values
        for row, shares in enumerate((values, values * opened)):
            picture = Image.fromarray(visualization.colorize(shares.numpy(), colormap)).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
            sheet.paste(picture, (x, top + row * (_SIDE + gap)))
        if not opened:
            draw.text((x + _SIDE / 2, top + 1.5 * _SIDE + gap), "closed", fill="#b8b0a6", font=font, anchor="mm")
    return sheet


def answer_picture(rows: Sequence[tuple[str, float, float, bool]], title: str, style: Theme) -> Image.Image:
    """Probabilities of classes (label, all open, with this gate, whether it is the chosen one) as bars."""
    told = [(label, (before, after), chosen) for label, before, after, chosen in rows]
    return probabilities_picture(told, ("all channels open", "with this gate"), title, style)


def probabilities_picture(
    rows: Sequence[tuple[str, tuple[float, ...], bool]], legend: Sequence[str], title: str, style: Theme
) -> Image.Image:
    """Probabilities of classes (label, one for every entry of ``legend``, whether it is the chosen one) as bars."""
    drawn = figure(900, 130 + (20 + 21 * len(legend)) * len(rows))
    ax = axes(drawn, style, across="probability")
    places, step = np.arange(len(rows)), 0.76 / len(legend)
    for number, words in enumerate(legend):
        offset, color = (number - (len(legend) - 1) / 2) * step, (style.quiet, *style.colors)[number]
        ax.barh(places + offset, [values[number] for _label, values, _chosen in rows], 0.9 * step, color=color, label=words)
    ax.set_yticks(places, [label.replace("$", r"\$") for label, _values, _chosen in rows], fontsize=12)
    for text, (_label, _values, chosen) in zip(ax.get_yticklabels(), rows, strict=True):
        text.set_fontweight("bold" if chosen else "normal")
    ax.set_xlim(0, 1)
    ax.invert_yaxis()
    ax.legend(frameon=False, labelcolor=style.ink, fontsize=11, loc="lower right")
    ax.set_title(title, color=style.ink, fontsize=13, loc="left", pad=12)
    drawn.subplots_adjust(left=0.26, right=0.97, top=1 - 50 / drawn.bbox.height, bottom=60 / drawn.bbox.height)
    return render(drawn, style)


def proximity_curve(channels: int, sigma2: float, closed: int, style: Theme) -> Image.Image:
    """h(d) of Eq. 8 against the number of closed channels, with this gate's point."""
    drawn = figure(700, 380)
    ax = axes(drawn, style, across="closed channels", up="weight h(d)")
    numbers = np.linspace(0, channels, 200)
    ax.plot(numbers, np.exp(-numbers / sigma2), color=style.colors[1], linewidth=2.5)
    here = math.exp(-closed / sigma2)
    ax.vlines(closed, 0, here, color=style.quiet, linewidth=1, linestyle="dotted")
    ax.plot([closed], [here], "o", color=style.colors[0], markersize=12)
    right = closed > channels * 0.65
    ax.annotate(
        "this gate",
        (closed, here),
        (-14 if right else 14, 10),
        textcoords="offset points",
        ha="right" if right else "left",
        color=style.ink,
        fontsize=13,
    )
    ax.set_xlim(0, channels)
    ax.set_ylim(0, 1.08)
    drawn.subplots_adjust(left=0.1, right=0.97, top=0.97, bottom=0.15)
    return render(drawn, style)


def path_picture(
    ratios: Sequence[float], support: Sequence[int], r2: Sequence[float], held_out: Sequence[float], chosen: int, style: Theme,
) -> Image.Image:  # fmt: skip
    """The lasso path: R2 of fitted and of held-out gates above, the number of channels in use below, against lambda."""
    drawn = figure(520, 440)
    upper, lower = drawn.subplots(2, 1, sharex=True)
    for ax, words in ((upper, "R²"), (lower, "channels in use")):
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        for side in ("bottom", "left"):
            ax.spines[side].set_color(style.quiet)
        ax.set_facecolor("none")
        ax.tick_params(colors=style.ink, labelsize=11)
        ax.set_ylabel(words, color=style.ink, fontsize=12)
        ax.axvline(ratios[chosen], color=style.quiet, linewidth=1, linestyle="dotted")
    for values, color, words in ((r2, style.colors[0], "gates it was fitted on"), (held_out, style.colors[1], "gates it never saw")):
        upper.plot(ratios, values, "o-", color=color, markersize=4, label=words)
        upper.plot(ratios[chosen], values[chosen], "o", color=color, markersize=11)
    upper.set_ylim(min(0.0, max(-0.5, np.nanmin([*r2, *held_out]))) - 0.05, 1.05)
    upper.legend(frameon=False, labelcolor=style.ink, fontsize=11, loc="lower right")
    lower.plot(ratios, support, "o-", color=style.colors[2], markersize=4)
    lower.plot(ratios[chosen], support[chosen], "o", color=style.colors[2], markersize=11)
    lower.set_ylim(bottom=0)
    lower.set_xscale("log")
    lower.minorticks_off()  # they take most of the time that the picture takes
    lower.invert_xaxis()
    lower.set_xlabel("λ, from strict to loose", color=style.ink, fontsize=12)
    drawn.subplots_adjust(left=0.14, right=0.97, top=0.97, bottom=0.14, hspace=0.12)
    return render(drawn, style)


def scatter_picture(predicted: Tensor, measured: Tensor, fitted: int, style: Theme) -> Image.Image:
    """What w · z + b says (N,) against what the gated network said (N,); the first ``fitted`` were learned from."""
    drawn = figure(520, 440)
    ax = axes(drawn, style, across="score the gated network gave", up="score that w · z + b predicts")
    low, high = float(measured.min()), float(measured.max())
    ax.plot([low, high], [low, high], color=style.quiet, linewidth=1, linestyle="dotted")
    for some, color, words in ((slice(None, fitted), style.colors[0], "fitted"), (slice(fitted, None), style.colors[1], "never seen")):
        ax.scatter(measured[some], predicted[some], s=16, color=color, alpha=0.65, linewidths=0, label=words)
    ax.legend(frameon=False, labelcolor=style.ink, fontsize=11, loc="upper left")
    drawn.subplots_adjust(left=0.14, right=0.97, top=0.97, bottom=0.14)
    return render(drawn, style)


def beside(pictures: Sequence[Image.Image], style: Theme, gap: int = 24) -> Image.Image:
    """Pictures side by side, for keeping."""
    tall = max(picture.height for picture in pictures)
    sheet = Image.new("RGB", (sum(picture.width + gap for picture in pictures) - gap, tall), style.paper)
    x = 0
    for picture in pictures:
        sheet.paste(picture, (x, 0))
        x += picture.width + gap
    return sheet
