"""Charts of a fit: evidence per class, the path of lambda, ADMM's residuals. Pure functions, no Streamlit."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from PIL import Image
from plotly.subplots import make_subplots

from chipcore.analysis.evidence import EvidenceRow
from chipcore.fitting.diagnostics import Curve
from chipcore.importance import GOOD_EVIDENCE
from chipcore.solvers.admm import ADMMSettings
from explorer.text import decimal

GOOD, POOLED, WEAK, NONE = (
    "#2a9d8f",
    "#7fb8d6",
    "#f4a261",
    "#9a9a9a",
)  # told apart by people who see no red or green, and on dark as on light
_LINE, _OTHER = "#ea580c", "#4c78a8"
_COLOURS = {"good": GOOD, "pooled": POOLED, "weak": WEAK, "none": NONE}
_WORDS = {
    "good": f"good: {GOOD_EVIDENCE:.0f} or more",
    "pooled": "of all photographs alike: fewer of its own",
    "weak": "weak: fewer",
    "none": "no row: too little",
}
SHOWN = 20  # classes in the chart; the table has all


def _layout(figure: go.Figure, height: int, **more: Any) -> go.Figure:
    figure.update_layout(
        height=height, margin={"l": 10, "r": 10, "t": 64, "b": 10}, hoverlabel={"namelength": -1},
        legend={"orientation": "h", "y": 1.04, "yanchor": "bottom", "x": 0}, font={"size": 14}, **more,
    )  # fmt: skip
    return figure


def evidence(rows: Sequence[EvidenceRow]) -> go.Figure:
    """Images' worth of evidence per class as bars, with the line from which on a row is good."""
    some = list(rows[:SHOWN])[::-1]
    figure = go.Figure()
    for kind in ("good", "pooled", "weak", "none"):
        at = [row for row in some if row.evidence == kind]
        if at:
            figure.add_bar(
                x=[row.worth for row in at], y=[html.escape(row.label) for row in at], orientation="h", name=_WORDS[kind], marker_color=_COLOURS[kind],
                customdata=[[row.images, row.support, "not measured" if np.isnan(row.r2) else decimal(row.r2)] for row in at],
                hovertemplate="%{y}: worth %{x:.1f} photographs, seen in %{customdata[0]}<br>%{customdata[1]} channels in use, held-out R² %{customdata[2]}<extra></extra>",
            )  # fmt: skip
    figure.add_vline(x=GOOD_EVIDENCE, line={"dash": "dot", "width": 2, "color": "#888888"})
    figure.update_yaxes(categoryorder="array", categoryarray=[html.escape(row.label) for row in some], automargin=True)
    figure.update_xaxes(title="effective number of images", rangemode="tozero")
    return _layout(figure, 130 + 24 * len(some), bargap=0.25)


def path(curve: Curve, used: float) -> go.Figure:
    """R2 and the number of channels in use along lambda, with the lambda that the fit used."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    for name, values, color, dash in (
        ("R² on held-out photographs", curve.r2_held_out, _LINE, "solid"),
        ("R² on the others", curve.r2, _OTHER, "dot"),
    ):
        if not np.isnan(values).all():
            figure.add_scatter(x=curve.ratios, y=values, name=name, mode="lines+markers", line={"color": color, "dash": dash}, row=1, col=1, hovertemplate="λ ratio %{x:.2g}: R² %{y:.3f}<extra></extra>")  # fmt: skip
    figure.add_scatter(x=curve.ratios, y=curve.support, name="channels in use", mode="lines+markers", line={"color": GOOD}, row=2, col=1, hovertemplate="λ ratio %{x:.2g}: %{y} channels<extra></extra>")  # fmt: skip
    if used > 0:
        figure.add_vline(x=used, line={"dash": "dot", "width": 2, "color": "#888888"})
    figure.update_xaxes(
        type="log", autorange="reversed", tickvals=[1, 0.1, 0.01, 0.001, 0.0001], ticktext=["1", "0.1", "0.01", "0.001", "0.0001"]
    )
    figure.update_xaxes(title="λ as a share of the one that gives W = 0", row=2, col=1)
    low = min(0.0, *(float(np.nanmin(v)) for v in (curve.r2, curve.r2_held_out) if not np.isnan(v).all()), 0.0)
    figure.update_yaxes(title="R²", range=[max(-0.5, low) - 0.05, 1.05], row=1, col=1)
    figure.update_yaxes(title="channels", rangemode="tozero", row=2, col=1)
    return _layout(figure, 420)


def residuals(curve: Curve) -> go.Figure:
    """ADMM's relative residuals by iteration, and where the solver, which polishes, was done."""
    figure = go.Figure()
    for name, values, color in (("primal: v against m, Eq. 13", curve.primal, _LINE), ("dual: how far the gradient is from balance", curve.dual, _OTHER)):  # fmt: skip
        figure.add_scatter(x=curve.iterations, y=np.maximum(values, 1e-16), name=name, mode="lines+markers", line={"color": color}, hovertemplate="after %{x} iterations: %{y:.1e}<extra></extra>")  # fmt: skip
    figure.add_hline(y=ADMMSettings.relative_tolerance, line={"dash": "dot", "width": 2, "color": "#888888"})
    figure.add_vline(x=curve.solved_after, line={"dash": "dot", "width": 2, "color": "#888888"})
    figure.update_yaxes(type="log", title="relative residual", exponentformat="power")
    figure.update_xaxes(title="iterations", rangemode="tozero")
    return _layout(figure, 420)


def sheet(rows: Sequence[EvidenceRow], curve: Curve | None, used: float, title: str, of: str) -> Image.Image:
    """All three on one printed page: what the download gives. ``of`` names the curve's class."""
    some = list(rows[:SHOWN])[::-1]
    figure = Figure(figsize=(16, 9), dpi=120, layout="constrained", facecolor="white")
    figure.suptitle(title.replace("$", r"\$"), fontsize=16)
    left, middle, right = figure.subplots(1, 3)
    left.barh(range(len(some)), [row.worth for row in some], color=[_COLOURS[row.evidence] for row in some])
    left.set_yticks(range(len(some)), [row.label.replace("$", r"\$") for row in some])
    left.axvline(GOOD_EVIDENCE, linestyle=":", color="grey")
    left.set_xlabel(f"effective number of images (weak below {GOOD_EVIDENCE:.0f})")
    if curve is None:
        for axes in (middle, right):
            axes.set_axis_off()
    else:
        of = of.replace("$", r"\$")
        middle.semilogx(curve.ratios, curve.r2_held_out, "o-", color=_LINE, label="R², held out")
        middle.semilogx(curve.ratios, curve.r2, "o:", color=_OTHER, label="R², others")
        middle.invert_xaxis()
        middle.set_ylim(-0.05, 1.05)
        middle.set_xlabel("λ / λ max")
        middle.set_title(f"{of}: R² and channels in use")
        beside = middle.twinx()
        beside.plot(curve.ratios, curve.support, "s-", color=GOOD, label="channels in use")
        if used > 0:
            middle.axvline(used, linestyle=":", color="grey")
        middle.legend(handles=[*middle.get_lines()[:2], *beside.get_lines()], loc="lower right")
        right.semilogy(curve.iterations, np.maximum(curve.primal, 1e-16), "o-", color=_LINE, label="primal residual")
        right.semilogy(curve.iterations, np.maximum(curve.dual, 1e-16), "o-", color=_OTHER, label="dual residual")
        right.axhline(ADMMSettings.relative_tolerance, linestyle=":", color="grey")
        right.set_xlabel("iterations of ADMM")
        right.set_title(f"{of}: residuals")
        right.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return Image.open(stream).convert("RGB")
