"""Compare: any methods and any classes on one image, at one size, with what each costs and how alike they are."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import streamlit as st
from PIL import Image

from chipcore import ChipError, Saliency
from chipcore.analysis import map_similarity
from chipcore.maps import SMOOTHING, Smoothing
from chipcore.methods import METHODS
from explorer import figures
from explorer.components import downloads, map_cell, overlays, pixel_values, sidebar
from explorer.components.map_cell import MapCell
from explorer.figures import compare as drawing
from explorer.services import saliency_cache
from explorer.state import bundle, url
from explorer.state.selection import Selection
from explorer.text import decimal, percent, plain, readable
from explorer.views.compare import methods_table

MAX_METHODS, MAX_CLASSES = 6, 4  # of a table; four methods are shown at first, so that more can be added at once
FINEST = 112  # cells on a side of a map whose values are shown under the pointer
FIRST = ("chip", "gradcam", "cmwp", "guided_backprop")
SIDE_BY_SIDE, EVERY_DEPTH, TABLE_1 = "Side by side", "At every depth", "All methods"
WIPED = ("wiped-left", "wiped-right")


def show(selection: Selection) -> None:
    """The whole page."""
    st.header(f"Do the methods agree on {plain(selection.label)}?", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        what = st.segmented_control(
            "Show", [SIDE_BY_SIDE, EVERY_DEPTH, TABLE_1], default=SIDE_BY_SIDE, required=True, key="compare", bind="query-params",
            help="Chosen methods and classes side by side; Grad-CAM against CHIP at every depth (the paper’s Fig. 9); or one live example of every method (its Table I).",
        )  # fmt: skip
        with st.popover("Smoothing", icon=":material/blur_on:"):
            st.segmented_control(
                "How coarse maps are enlarged", list(SMOOTHING), default=SMOOTHING[0], required=True, key="smoothing", bind="query-params",
                help="Deep layers give maps of few cells. Bilinear, as in the papers, lets single cells stand out as bright squares; bicubic is "
                "smoother; nearest shows the cells themselves. Boxes and scores are always computed with bilinear.",
            )  # fmt: skip
    image = figures.enlarged(selection.seen.view)
    if what == EVERY_DEPTH:
        _every_depth(selection, image)
    elif what == TABLE_1:
        _table_1(selection, image)
    else:
        _side_by_side(selection, image)


# --- chosen methods x chosen classes --------------------------------------------------------------------------


def _side_by_side(selection: Selection, image: Image.Image) -> None:
    left, right = st.columns([1.5, 1], gap="medium")
    with left:
        methods = st.multiselect(
            f"Methods, up to {MAX_METHODS}", list(METHODS), default=list(FIRST), max_selections=MAX_METHODS, key="methods", bind="query-params",
            format_func=lambda name: METHODS[name].title, filter_mode="contains",
        )[:MAX_METHODS]  # fmt: skip
    with right:
        targets = [selection.target, *_others(selection)]
    # Places that are always there: where widgets move in the page, the browser loses their parameters.
    grid, below = st.container(), st.container()
    if not methods:
        st.info("Choose at least one method above.", icon=":material/info:")
        return
    rows = [[map_cell.resolve_map(selection, method, selection.layer, target) for method in methods] for target in targets]
    tops = _tops(selection, rows)
    known = [cell for row in rows for cell in row if cell.saliency is not None]
    with grid:
        _start_all([cell for row in rows for cell in row], selection)
        for target, row in zip(targets, rows, strict=True):
            share = float(selection.seen.probabilities[target])
            label = plain(selection.network.classes.labels[target])
            st.markdown(f"**{label}** · {plain(selection.network.title)} gives it {percent(share)}")
            with st.container(key=f"maps-{target}"):
                for cell in row:
                    _cell(selection, image, cell, tops.get(cell.question.method), f"grid-{target}")
        _scale(selection, "method")
        _values([(cell, f"grid-{cell.question.target}") for cell in known])
        if known:
            _download(selection, image, rows, tops)
    with below:
        _agreement(selection, image, [cell for cell in known if cell.shown], tops)


def _others(selection: Selection) -> list[int]:
    """Up to three more classes; a new image starts with its most probable one. In the URL as ``with``."""
    network, best = selection.network, selection.seen.best(sidebar.PREDICTIONS)
    subject = (network.id, selection.image.sha256)
    asked = url.changed_value("with")
    if asked is not None:
        st.session_state["others"] = _named(selection, asked)
    elif "others" not in st.session_state or st.session_state.get("others-of", subject) != subject:
        st.session_state["others"] = [i for i in best if i != selection.target][:1]
    st.session_state["others-of"] = subject
    rest = sorted(set(range(len(network.classes))) - set(best), key=lambda index: network.classes.labels[index].lower())
    chosen = st.multiselect(
        f"Besides {plain(selection.label)}, up to {MAX_CLASSES - 1} other classes", [*best, *rest], max_selections=MAX_CLASSES - 1, key="others",
        format_func=lambda i: network.classes.labels[i] + (f" · {percent(float(selection.seen.probabilities[i]))}" if i in best else ""),
        filter_mode="contains", placeholder="Type a name", persist_state="session",
    )  # fmt: skip
    url.write("with", ",".join(network.classes.synsets[i] if network.classes.synsets else str(i) for i in chosen))
    return [index for index in chosen if index != selection.target][: MAX_CLASSES - 1]


def _named(selection: Selection, wanted: str) -> list[int]:
    found: list[int] = []
    for name in wanted.split(",")[: MAX_CLASSES - 1]:
        try:
            index = selection.network.classes.index(name)
        except ChipError:
            continue  # a link from another network, or one that was typed
        found += [index] if index not in found else []
    return found


def _start_all(shown: Sequence[MapCell], selection: Selection) -> None:
    slow = [cell for cell in shown if cell.waits]
    if len(slow) > 1:
        st.button(
            f"Compute all {len(slow)} slow maps", key="start-all", on_click=map_cell.start, args=(selection, slow), icon=":material/play_arrow:",
            help="One after another in the background; each appears when it is ready.",
        )  # fmt: skip


def _tops(selection: Selection, rows: Sequence[Sequence[MapCell]]) -> dict[str, float]:
    """The value of the strongest color by method, where all classes of a method share one scale."""
    tops: dict[str, float] = {}
    if selection.one_scale:
        for cell in (cell for row in rows for cell in row if cell.shown):
            assert cell.saliency is not None
            tops[cell.question.method] = max(tops.get(cell.question.method, 0.0), saliency_cache.visible_peak(cell.saliency))
    return tops


def _cell(selection: Selection, image: Image.Image, cell: MapCell, top: float | None, place: str, heading: str = "") -> None:
    """One map with its caption, or the reason why there is none."""
    with st.container(key=_key(cell, place), gap=None):
        st.image(
            figures.jpeg(_picture(selection, image, cell.saliency, top)),
            width="stretch",
            output_format="JPEG",
            alt=_alternative(selection, cell),
        )
        lines = [*_lines(cell), *_care(selection, cell)]
        body = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
        st.html(f'<div class="chip-caption"><h3>{html.escape(heading or cell.title)}</h3>{body}</div>')
        if cell.waits:
            map_cell.pending_map(selection, cell, place)


def _key(cell: MapCell, place: str) -> str:
    return f"cell-{place}-{cell.question.method}-{cell.layer.name}"


def _values(shown: Sequence[tuple[MapCell, str]]) -> None:
    """Raw values under the pointer; not of maps of pixels, which would make the page heavy."""
    pixel_values.values({
        _key(cell, place): (cell.title, cell.saliency.raw)
        for cell, place in shown if cell.saliency is not None and cell.shown and cell.saliency.raw.numel() <= FINEST**2
    })  # fmt: skip


def _picture(selection: Selection, image: Image.Image, saliency: Saliency | None, top: float | None = None) -> Image.Image:
    maximum = top if top is not None or saliency is None else saliency_cache.visible_peak(saliency)
    return drawing.map_picture(
        image,
        saliency,
        selection.network.geometry.size,
        colormap=selection.colormap,
        opacity=selection.opacity,
        maximum=maximum or 1.0,
        smoothing=_smoothing(),
    )


def _smoothing() -> Smoothing:
    chosen: Smoothing = st.session_state.get("smoothing") or SMOOTHING[0]
    return chosen


def _lines(cell: MapCell) -> list[str]:
    if cell.saliency is None:
        return [cell.problem or "Slow, so it is computed on request."]
    blank = saliency_cache.blank_reason(cell.saliency)
    if blank:
        return [_cost(cell.saliency), f"Nothing to see: {blank}."]
    if METHODS[cell.question.method].is_image:
        return [_cost(cell.saliency), "an image of the class; the photograph plays no part"]
    drawn = (
        f", color scale ends at {readable(saliency_cache.visible_peak(cell.saliency))}"
        if saliency_cache.is_saturated(cell.saliency)
        else ""
    )
    height, width = cell.saliency.raw.shape
    return [_cost(cell.saliency), f"{height} × {width} cells, maximum {readable(float(cell.saliency.raw.max()))}{drawn}"]


def _care(selection: Selection, cell: MapCell) -> list[str]:
    if not METHODS[cell.question.method].needs_importance or not cell.shown:
        return []
    weak = selection.importance(cell.layer).evidence(cell.question.target) == "weak"
    return ["weak W: learned from few images"] if weak else []


def _cost(saliency: Saliency) -> str:
    passes = {0: "passes of another class", 1: "1 pass"}.get(saliency.passes, f"{saliency.passes:,} passes")
    seconds = saliency.seconds
    told = "under 0.01" if seconds < 0.01 else f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"
    return f"{told} s, {passes}"


def _alternative(selection: Selection, cell: MapCell) -> str:
    label = selection.network.classes.labels[cell.question.target]
    if cell.saliency is None:
        return f"No {cell.title} map of {label}: {cell.problem or 'not computed yet'}"
    blank = saliency_cache.blank_reason(cell.saliency)
    if blank:
        return f"The {cell.title} map of {label} is blank: {blank}"
    return f"{cell.title} map of {label}, strongest at the {drawing.describe_peak(cell.saliency.raw)} of the photograph"


def _scale(selection: Selection, what: str) -> None:
    scale = f"the largest value of its {what}" if selection.one_scale else "each map’s own maximum"
    st.html(
        f'<div class="chip-legend" role="img" aria-label="Colours run from 0 to {scale}"><span>0</span>'
        f'<i style="background: {figures.gradient(selection.colormap)}"></i><span>{scale}</span></div>'
    )


# --- how alike they are ---------------------------------------------------------------------------------------


def _agreement(selection: Selection, image: Image.Image, shown: Sequence[MapCell], tops: dict[str, float]) -> None:
    maps = [cell for cell in shown if not METHODS[cell.question.method].is_image]
    if len(maps) < 2:
        return
    several = len({cell.question.target for cell in maps}) > 1
    names = [
        f"{cell.title} · {selection.network.classes.labels[cell.question.target]}" if several else cell.title for cell in maps
    ]  # fmt: skip
    left, right = st.columns([1, 1.4], gap="medium")
    with left:
        st.subheader("Compare with a slider", anchor=False)
        options = list(range(len(maps)))
        for key, default in zip(WIPED, (0, 1), strict=True):
            if st.session_state.get(key, default) not in options:
                del st.session_state[key]
        one = st.selectbox("Left", options, index=0, format_func=names.__getitem__, key=WIPED[0], bind="query-params", filter_mode=None)
        other = st.selectbox("Right", options, index=1, format_func=names.__getitem__, key=WIPED[1], bind="query-params", filter_mode=None)
        sides = [
            (names[i], drawing.data_uri(_picture(selection, image, maps[i].saliency, tops.get(maps[i].question.method)))) for i in (one, other)
        ]  # fmt: skip
        overlays.wiper(sides[0], sides[1], key="wiper")
        st.caption("Drag across the picture, or use the arrow keys.")
    with right:
        st.subheader("Similarity", anchor=False)
        kind = st.segmented_control(
            "Correlation of", ["values", "ranks"], default="values", required=True, key="correlation", bind="query-params",
            help="1: the same picture; 0: nothing in common. By values (Pearson) or by order alone (Spearman), pixel by pixel at the network’s input resolution.",
        )  # fmt: skip
        alike = _likeness(selection, maps)
        with st.container(key="alike"):
            st.html(drawing.matrix(names, alike.rank if kind == "ranks" else alike.pearson, f"Correlation of the maps’ {kind}"))


def _likeness(selection: Selection, maps: Sequence[MapCell]) -> map_similarity.MapSimilarity:
    raws = {cell.question.key: cell.saliency.raw for cell in maps if cell.saliency is not None}
    return _kept_likeness(tuple(raws), selection.network.geometry.size, list(raws.values()))


@st.cache_data(max_entries=32, show_spinner=False)
def _kept_likeness(keys: tuple[str, ...], size: int, _raws: list[object]) -> map_similarity.MapSimilarity:
    return map_similarity.map_similarity(_raws, size)  # type: ignore[arg-type]


# --- taking it home -------------------------------------------------------------------------------------------


def _download(
    selection: Selection, image: Image.Image, rows: Sequence[Sequence[MapCell]], tops: dict[str, float], stem: str = "compare"
) -> None:
    def take() -> downloads.Export:
        found = [cell.saliency for row in rows for cell in row if cell.saliency is not None]
        maps = [one for one in found if not METHODS[one.method].is_image]
        arrays = {methods_table.key_of(one): one.raw.numpy() for one in found}
        if len(maps) > 1:
            alike = map_similarity.map_similarity([one.raw for one in maps], selection.network.geometry.size)
            arrays |= {"pearson": alike.pearson, "rank": alike.rank, "correlated": np.array([methods_table.key_of(one) for one in maps])}
        lines = [
            (
                selection.network.classes.labels[row[0].question.target],
                [
                    figures.FigurePanel(_picture(selection, image, cell.saliency, tops.get(cell.question.method)), _heading(cell), _cost(cell.saliency) if cell.saliency else "no map")
                    for cell in row
                ],
            )
            for row in rows
        ]  # fmt: skip
        return downloads.Export(
            drawing.sheet(lines, f"{selection.network.title}, {selection.image.name}"), arrays, methods_table.table_of(selection.network, found),
            bundle.about(selection, view=stem, maps=[methods_table.key_of(one) for one in found], one_scale=selection.one_scale, smoothing=_smoothing()),
            methods_table.command_lines(selection.network, found, bundle.image_file(selection), selection.colormap, selection.opacity),
            bundle.files(selection),
        )  # fmt: skip

    downloads.offer(f"take-{stem}", f"{stem}-{selection.network.name}-{selection.image.name}", take, table=True)


def _heading(cell: MapCell) -> str:
    return f"{cell.title}, {cell.layer.name}" if METHODS[cell.question.method].uses_layer else cell.title


# --- Fig. 9 ---------------------------------------------------------------------------------------------------


def _every_depth(selection: Selection, image: Image.Image) -> None:
    st.markdown(
        f"Grad-CAM weighs channels by this photograph’s gradient, CHIP by what it learned from many. Do both find **{plain(selection.label)}** in the first layers, or only in the last ones? (The paper’s Fig. 9.)"
    )
    layers = selection.network.layers
    rows = [[map_cell.resolve_map(selection, method, layer, selection.target) for layer in layers] for method in ("gradcam", "chip")]
    tops = _tops(selection, rows)
    for row in rows:
        st.markdown(f"**{row[0].title}**")
        with st.container(key=f"depths-{row[0].question.method}"):
            for cell in row:
                _cell(selection, image, cell, tops.get(cell.question.method), "depth", cell.layer.name)
    alike = []
    for upper, lower in zip(*rows, strict=True):
        if upper.shown and lower.shown and upper.saliency is not None and lower.saliency is not None:
            value = float(
                map_similarity.map_similarity([upper.saliency.raw, lower.saliency.raw], selection.network.geometry.size).pearson[0, 1]
            )
            alike.append(f"{upper.layer.name} **{decimal(value)}**")
    if alike:
        st.markdown("Correlation of the two at each depth (1: identical): " + " · ".join(alike))
    _scale(selection, "row")
    _values([(cell, "depth") for row in rows for cell in row])
    _download(selection, image, rows, tops, "every-depth")


# --- Table I --------------------------------------------------------------------------------------------------


def _table_1(selection: Selection, image: Image.Image) -> None:
    st.markdown("What each method can do, and what it says of this photograph: the paper’s Table I, live.")
    paper, ours = methods_table.is_in_table1()
    found = {name: map_cell.resolve_map(selection, name, selection.layer, selection.target) for name in METHODS}
    slow = [cell for cell in found.values() if cell.waits]
    if slow:
        with st.container(key="table-1-slow", horizontal=True):
            for cell in slow:
                map_cell.pending_map(selection, cell, "table")
    groups = (("In the paper’s Table I", paper), ("Also here; the check marks are our judgement", ours))
    st.html(
        drawing.examples(
            methods_table.PROPERTIES,
            [(heading, [_example(selection, image, found[name]) for name in names]) for heading, names in groups],
        )
    )
    _download(selection, image, [[found[name] for name in paper], [found[name] for name in ours]], {}, "table-1")


def _example(selection: Selection, image: Image.Image, cell: MapCell) -> drawing.Example:
    method = METHODS[cell.question.method]
    picture, alternative = "", "no map" if cell.problem else "blank" if cell.saliency is not None else "not computed yet"
    if cell.saliency is not None and cell.shown:
        # Gradients at the pixels as their papers print them, in colors around gray; Backprop's is printed as a map.
        own = cell.saliency.image is not None and method.shows_image
        small = figures.enlarged(image, 224)
        picture = drawing.data_uri(drawing.method_image(cell.saliency, 224) if own else _picture(selection, small, cell.saliency))
        alternative = _alternative(selection, cell)
    line = " · ".join(_lines(cell)) if cell.saliency is not None or cell.problem else ""
    return drawing.Example(method.title, method.source, picture, alternative, line, methods_table.property_marks(method.properties))
