"""The strip: the maps of one class at every depth, in one row a method."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image
from streamlit.delta_generator import DeltaGenerator

from chipcore.analysis import refined_maps
from chipcore.analysis.layer_maps import LayerMap
from chipcore.analysis.tables import to_csv
from explorer import figures
from explorer.components import downloads, pixel_values
from explorer.components.downloads import Export
from explorer.services import reproduce
from explorer.state import bundle, cached
from explorer.state.selection import Selection
from explorer.text import decimal, readable
from explorer.views.explore.pictures import alone, image, legend, of_map, place

REFINED, GUIDED = "Refined CHIP", "Guided CHIP"
MEANING = {
    REFINED: "The first layer’s map times each deeper one’s: fine detail, kept where the deep layer sees the class.",
    GUIDED: "CHIP’s map times Guided Backprop, which traces the class’s score back to single pixels; the brightest of every 200 is drawn full.",
}
METHOD = {"CHIP": "chip", REFINED: "refined_chip", GUIDED: "guided_chip"}


@dataclass(frozen=True)
class Row:
    """One method's maps from the first layer to the last, with their pictures, on one scale where ``maximum`` is given."""

    title: str
    found: list[LayerMap]
    pictures: list[Image.Image]
    maximum: float | None


def show(selection: Selection, found: list[LayerMap], here: LayerMap, place_of_downloads: DeltaGenerator) -> None:
    """CHIP's row, and on request those of Refined and Guided CHIP; a ring marks the place that the sum is about."""
    place_of_strips = st.container()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="strip-controls"):
        also = st.pills(
            "Show also", [REFINED, GUIDED], selection_mode="multi", key="also", bind="query-params", label_visibility="collapsed",
            help=" ".join(f"**{name}:** {meaning}" for name, meaning in MEANING.items()),
        )  # fmt: skip
        signed = st.toggle(
            "Evidence against", key="signed", bind="query-params",
            help="Positive and negative contributions in a diverging color map: red is evidence for the class, blue against it.",
        )  # fmt: skip
        numbers = st.toggle(
            "Statistics", key="statistics", bind="query-params",
            help="Under every map: the channels with a weight, how well W predicted what it was not fitted on (R²), and the maximum.",
        )  # fmt: skip
        place_of_legend = st.container(width="stretch")
    image = figures.enlarged(selection.seen.view)
    drawn = [_row(selection, image, "CHIP", found, signed)]
    if REFINED in also:
        drawn.append(_row(selection, image, REFINED, refined_maps.refined(found), signed))
    if GUIDED in also:
        gradient = cached.guided_gradient(selection.network.id, selection.image.sha256, selection.target, selection.network, selection.seen)
        drawn.append(_guided(selection, image, refined_maps.guided(found, gradient)))
    some = any(one.drawn(signed) for one in found)
    if some:
        place_of_legend.html(legend(selection, drawn[0].maximum, signed))
    with place_of_strips:
        _draw(selection, drawn[0], "strip", here, signed, numbers)
        for number, row in enumerate(drawn[1:], start=1):
            st.markdown(f"**{row.title}**", help=MEANING[row.title])
            _draw(selection, row, f"strip-{number}", None, signed and row.title != GUIDED, numbers)
    pixel_values.values({
        f"cell-{METHOD[row.title]}-{number}": (one.layer.name, one.raw)
        for row in drawn for number, one in enumerate(row.found) if one.raw is not None and one.drawn(signed)
    })  # fmt: skip
    if some:
        stem = f"chip-{selection.network.name}-{selection.label}-{selection.image.name}"
        with place_of_downloads:
            downloads.offer("strip", stem, lambda: _taken(selection, drawn, signed), table=True, folded="Download these maps")


def _row(selection: Selection, image: Image.Image, title: str, found: list[LayerMap], signed: bool) -> Row:
    maximum = max((one.top(signed) for one in found), default=0.0) if selection.one_scale else None
    return Row(title, found, [of_map(selection, image, one, maximum, signed) for one in found], maximum)


def _guided(selection: Selection, image: Image.Image, found: list[LayerMap]) -> Row:
    """Each on a scale of its own: a few pixels hold most of such a map."""
    pictures = [figures.blank_picture(image) if one.raw is None or not one.shown else alone(selection, one.raw) for one in found]
    return Row(GUIDED, found, pictures, None)


def _draw(selection: Selection, row: Row, key: str, ringed: LayerMap | None, signed: bool, numbers: bool) -> None:
    with st.container(key=key):
        for number, (one, picture) in enumerate(zip(row.found, row.pictures, strict=True)):
            with st.container(key=f"cell-{METHOD[row.title]}-{number}", gap=None):
                if one is ringed and one.raw is not None and one.shown:
                    height, width = one.raw.shape
                    picture = figures.circled(picture, *divmod(int(one.raw.argmax()), width), (height, width))
                image(picture, _alternative(selection, row.title, one, signed))
                st.html(_caption(selection, row.title, one, signed, numbers))


def _alternative(selection: Selection, title: str, one: LayerMap, signed: bool) -> str:
    if one.raw is None or not one.drawn(signed):
        return f"No {title} map of {selection.label} at {one.layer.name}: {one.missing or one.blank}"
    height, width = one.raw.shape
    where = place(height, width, *divmod(int(one.raw.argmax()), width))
    return f"{title} map of {selection.label} at {one.layer.name}, strongest at the {where} of the photograph"


def _caption(selection: Selection, title: str, one: LayerMap, signed: bool, numbers: bool) -> str:
    lines = []
    if title == "CHIP":
        lines.append(f"{one.layer.channels:,} channels, {one.layer.height} × {one.layer.width}")
        if one.missing and one.importance is None:
            lines.append("W is not fitted here")
        elif one.local:
            lines.append("Local CHIP")
        if numbers and not one.missing:
            lines.append(_quality(one, selection.target))
    if one.missing and (title != "CHIP" or one.importance is not None):
        lines.append(one.missing)
    elif not one.missing and not one.drawn(signed):
        lines.append(one.blank)
    elif not one.missing and numbers:
        lines.append(f"maximum {readable(one.top(signed))}")
    body = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    return f'<div class="chip-caption"><h3>{html.escape(one.layer.name)}</h3>{body}</div>'


def _quality(one: LayerMap, target: int) -> str:
    """The row's own figures: how many channels it uses, and how well it predicted what it was not fitted on."""
    if one.local:
        used = 0 if one.row is None else int((one.row != 0).sum())
        return f"{used:,} with a weight"
    assert one.importance is not None
    r2 = float(one.importance.r2[target])
    told = "R² not measured" if math.isnan(r2) else f"held-out R² {decimal(r2)}"
    return f"{int(one.importance.support[target]):,} with a weight, {told}"


# --- what can be taken home ---------------------------------------------------------------------------------


def _taken(selection: Selection, drawn: list[Row], signed: bool) -> Export:
    network = selection.network
    stand_ins = {one.layer.name for one in drawn[0].found if one.local}
    lines, table = [], []
    arrays: dict[str, np.ndarray] = {}
    for row in drawn:
        for one in row.found:
            table.append(_about_map(row.title, one))
            if one.raw is None:
                continue
            method = "local_chip" if one.local and row.title == "CHIP" else METHOD[row.title]
            name = f"{method}-{one.layer.name}"
            arrays[name] = one.raw.numpy()
            made_of = {row.found[0].layer.name, one.layer.name} if row.title == REFINED else {one.layer.name}
            local = () if method == "local_chip" else sorted(made_of & stand_ins)
            lines.append(reproduce.explain(
                network, bundle.image_file(selection), one.layer.name, selection.target, method, name,
                colormap=selection.colormap, opacity=selection.opacity, local=local,
            ))  # fmt: skip
    settings = bundle.about(
        selection, view="explore", one_scale=selection.one_scale, signed=signed,
        W={one.layer.name: one.importance.metadata for one in drawn[0].found if one.importance is not None},
    )  # fmt: skip
    return Export(
        _sheet(selection, drawn),
        arrays,
        to_csv(pd.DataFrame(table).astype({"height": "Int64", "width": "Int64"})),
        settings,
        "\n".join(lines),
        bundle.files(selection),
    )


def _about_map(title: str, depth: LayerMap) -> dict[str, object]:
    """A line of the table of maps."""
    raw = depth.raw
    return {
        "method": title, "layer": depth.layer.name, "channels": depth.layer.channels,
        "height": None if raw is None else raw.shape[0], "width": None if raw is None else raw.shape[1],
        "minimum": math.nan if raw is None else float(raw.min()), "maximum": math.nan if raw is None else float(raw.max()),
        "state": depth.missing or depth.blank if raw is None else depth.blank or ("local" if depth.local else "ok"),
    }  # fmt: skip


def _sheet(selection: Selection, drawn: list[Row]) -> Image.Image:
    """Every row as a printed strip, one below the other; the image stands before each."""
    first = figures.FigurePanel(figures.enlarged(selection.seen.view), "photograph", selection.network.title)
    strips = []
    for row in drawn:
        lines = [
            _quality(one, selection.target) if one.shown and not one.missing and row.title == "CHIP" else one.missing or one.blank
            for one in row.found
        ]
        panels = [
            figures.FigurePanel(picture, one.layer.name, line) for picture, one, line in zip(row.pictures, row.found, lines, strict=True)
        ]
        strips.append(figures.strip([first, *panels], f"{row.title}: {selection.label}"))
    sheet = Image.new("RGB", (strips[0].width, sum(one.height for one in strips)))
    for number, one in enumerate(strips):
        sheet.paste(one, (0, sum(before.height for before in strips[:number])))
    return sheet
