"""Localize: from a map to a box, how well it fits, and whether a map finds the right one of four images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import streamlit as st

from chipcore import Saliency
from chipcore.datasets.annotations import NO_BOXES, Box
from chipcore.errors import DataError
from chipcore.evaluation.boxes import THRESHOLDS, best_threshold, curves_csv, energy_in_boxes, overlap_curves
from chipcore.evaluation.cutting import ThresholdedMap, relative, threshold_map
from chipcore.images import exif_orientation
from chipcore.methods import METHODS
from explorer.components import downloads, map_cell, overlays
from explorer.components.map_cell import MapCell
from explorer.figures import compare as pictures
from explorer.figures import localize as drawing
from explorer.services import ground_truth, reproduce, saliency_cache
from explorer.services.cache import cached_by_size
from explorer.services.ground_truth import Truth
from explorer.services.start_threshold import start_threshold
from explorer.state import bundle
from explorer.state.selection import Selection
from explorer.text import percent, plain
from explorer.views.localize import grid_game

MAX_METHODS = 6
FIRST = ("chip", "gradcam", "cmwp")
OFFERED = tuple(name for name, method in METHODS.items() if not method.is_image)
SIDES = ("left", "top", "right", "bottom")
PICTURE = "boxes"
OBJECT = "xml-object"
_HEADS = (
    ("IoU now", "Intersection over union at this threshold: the area that both boxes share over the area that either covers. 1 is a perfect fit."),
    ("Best IoU", "At the threshold that fits this photograph best. It cannot be known without the true box."),
    ("at", "The threshold of the best IoU."),
    ("Inside", "Share of the map’s positive mass inside the true box, whatever the threshold."),
)  # fmt: skip


def show(selection: Selection) -> None:
    """The whole page."""
    st.header(f"From a map of {plain(selection.label)} to a box", anchor=False)
    st.markdown(
        "Keep what is above a share of the map’s maximum, take its **largest piece**, and put a **box** around it. No box was ever shown to the network."
    )
    methods = st.multiselect(
        f"Methods, up to {MAX_METHODS}", OFFERED, default=list(FIRST), max_selections=MAX_METHODS, key="located", bind="query-params",
        format_func=lambda name: METHODS[name].title, filter_mode="contains",
    )[:MAX_METHODS]  # fmt: skip
    above, live, game = st.container(), st.container(), st.container()
    found = {name: map_cell.resolve_map(selection, name, selection.layer, selection.target) for name in methods}
    with above:
        for cell in found.values():
            _missing(selection, cell)
    with live:
        _live(selection, {name: cell for name, cell in found.items() if cell.saliency is not None})
    with game:
        grid_game.show(selection, methods)


def _missing(selection: Selection, cell: MapCell) -> None:
    """What has to be said about a method without a map, or with an empty one."""
    if cell.problem:
        st.info(f"**No {cell.title} map:** {plain(cell.problem)}", icon=":material/block:")
    elif cell.waits:
        map_cell.pending_map(selection, cell, "located")
    elif cell.saliency is not None and not cell.shown:
        st.info(f"**The {cell.title} map is blank:** {plain(saliency_cache.blank_reason(cell.saliency))}.", icon=":material/block:")
    elif METHODS[cell.question.method].needs_importance and selection.importance(cell.layer).evidence(cell.question.target) == "weak":
        st.caption(f"{cell.title}: the row of W of {plain(selection.label)} was learned from few images, so read its map with care.")


# --- the live part: a change of threshold or box draws only this again -----------------------------------------


@st.fragment
def _live(selection: Selection, found: Mapping[str, MapCell]) -> None:
    left, right = st.columns([1, 1.15], gap="large")
    if not found:
        left.info("There is no map to cut yet: choose a method above.", icon=":material/info:")
        return
    true = _truth(selection)
    size = selection.network.geometry.size
    shares = {name: _shares(cell.question.key, size, cell) for name, cell in found.items()}
    with left:
        names = list(found)
        if st.session_state.get("drawn") not in names:
            st.session_state["drawn"] = names[0]
        drawn = st.segmented_control(
            "Box from the map of", names, required=True, key="drawn", bind="query-params", format_func=lambda name: METHODS[name].title, wrap=True
        ) or names[0]  # fmt: skip
        _start(selection, drawn)
        percents = st.slider(
            "Threshold", min_value=0, max_value=99, step=1, format="%d%%", key="threshold", bind="query-params",
            help="Keeps what is above this share of the map’s maximum. It starts where this method was best on boxed images (assets/results), "
            "or at the 15% of Grad-CAM’s authors where that was not measured.",
        )  # fmt: skip
        threshold = float(THRESHOLDS[min(max(percents, 0), 99)])
        cut = threshold_map(shares[drawn], threshold)
        picture = drawing.cut_picture(
            selection.seen.view, shares[drawn], cut, colormap=selection.colormap, opacity=selection.opacity
        )  # fmt: skip
        boxes = true.boxes if true is not None else NO_BOXES
        overlays.boxes(
            pictures.data_uri(picture), _in_words(selection, drawn, cut, threshold), size, boxes.tolist(), cut.box, key=PICTURE,
            on_box=lambda: _dragged(selection),
        )  # fmt: skip
        st.html(_legend(true))
        _box_controls(selection, true)
    with right:
        curves = (
            {name: _curve(found[name].question.key, str(boxes.tolist()), one, boxes) for name, one in shares.items()} if len(boxes) else {}
        )
        _numbers(found, shares, curves, boxes, drawn, threshold)

    def take() -> downloads.Export:
        arrays: dict[str, np.ndarray] = {f"{name}_share_of_maximum": one for name, one in shares.items()}
        arrays |= {"mask": cut.mask, "largest": cut.largest, "true_boxes": boxes, "box": np.array(cut.box or ()), "thresholds": THRESHOLDS}
        arrays |= {f"{name}_iou": one for name, one in curves.items()}
        known = {name: cell.saliency for name, cell in found.items() if cell.saliency is not None}
        arrays |= {f"{name}_raw": one.raw.numpy() for name, one in known.items()}
        return downloads.Export(
            drawing.with_boxes(picture, size, boxes, cut.box), arrays, curves_csv(curves),
            bundle.about(
                selection, view="localize", method=drawn, threshold=threshold, box=cut.box, true_boxes=boxes.tolist(),
                true_boxes_of=true.what if true is not None else None,
            ),
            "\n".join(_command(selection, one, name, threshold, boxes) for name, one in known.items()), bundle.files(selection),
        )  # fmt: skip

    downloads.offer("take-boxes", f"boxes-{selection.network.name}-{selection.label}-{selection.image.name}", take, table=True)


def _command(selection: Selection, saliency: Saliency, name: str, threshold: float, boxes: np.ndarray) -> str:
    """The command line of one map, its mask, its box and how well that fits."""
    more = ["--threshold", f"{threshold:g}", "--mask", f"{name}_mask.npy", "--json"]
    for box in boxes[:1]:
        more += ["--true-box", *(str(int(side)) for side in box)]
    return reproduce.explain(
        selection.network, bundle.image_file(selection), saliency.layer, selection.target, saliency.method, f"{name}_raw",
        colormap=selection.colormap, opacity=selection.opacity, more=more,
    )  # fmt: skip


@cached_by_size(64)
def _shares(key: str, size: int, _cell: MapCell) -> np.ndarray:
    assert _cell.saliency is not None
    return relative(_cell.saliency.raw, size)


@st.cache_data(max_entries=256, show_spinner=False)
def _curve(key: str, boxes: str, _shares: np.ndarray, _boxes: np.ndarray) -> np.ndarray:
    return overlap_curves(_shares, _boxes)[0]


def _start(selection: Selection, method: str) -> None:
    """Begin at the method's best known threshold, and go to another method's while nobody has moved the slider; a link wins."""
    start = round(100 * start_threshold(selection.network, selection.layer, method))
    before = st.session_state.get("threshold-start")
    # Not as the widget's default, for a button sets it too.
    if before is not None and st.session_state.get("threshold") == before:
        st.session_state["threshold"] = start
    else:
        st.session_state.setdefault("threshold", start)
    st.session_state["threshold-start"] = start


def _in_words(selection: Selection, method: str, cut: ThresholdedMap, threshold: float) -> str:
    box = f"a box from {cut.box[:2]} to {cut.box[2:]}" if cut.box is not None else "no box"
    return f"{selection.image.description}: the {METHODS[method].title} map above {threshold:.0%} of its maximum gives {box}"


def _legend(true: Truth | None) -> str:
    found = '<span><i class="found"></i> the map’s box</span>'
    return f'<div class="chip-boxes">{found}<span><i class="truth"></i> true box{"" if true is not None else ": none yet"}</span></div>'


def _numbers(
    found: Mapping[str, MapCell], shares: Mapping[str, np.ndarray], curves: Mapping[str, np.ndarray], boxes: np.ndarray, drawn: str, threshold: float
) -> None:  # fmt: skip
    if not curves:
        st.subheader("How well does the box fit?", anchor=False)
        st.info(
            "There is no true box to measure against. **Drag one over the object** in the picture, type its four sides, or give an XML file that comes with the photograph.",
            icon=":material/crop_free:",
        )  # fmt: skip
        return
    now = round(threshold * 100)
    st.subheader(f"IoU {curves[drawn][now]:.2f}", anchor=False)
    st.caption("IoU: what both boxes cover, over what either covers. 1 is a perfect fit; from 0.5 on a box counts as found.")
    with st.container(key="curves"):
        st.plotly_chart(
            _figure(tuple(curves), tuple(one.tobytes() for one in curves.values())), key="curve-chart", config={"displayModeBar": False}
        )
        # A line of its own over the chart: a chart that changes is built anew and flickers.
        st.html(f'<div class="chip-now" style="--share: {threshold}" aria-hidden="true"><i></i></div>')
    rows = []
    for name, one in curves.items():
        at, height = best_threshold(one)
        rows.append(
            (
                METHODS[name].title,
                f"{one[now]:.2f}",
                f"{height:.2f}",
                f"{at:.0%}" if height > 0 else "none",
                percent(energy_in_boxes(shares[name], boxes)),
            )
        )
    st.html(drawing.scores(rows, _HEADS, list(drawing.colors(list(curves)).values()), list(curves).index(drawn)))
    at, height = best_threshold(curves[drawn])
    st.button(
        f"Go to the best threshold of {found[drawn].title}", key="to-best", on_click=_go_to, args=(round(at * 100),), icon=":material/my_location:",
        disabled=height == 0,
    )  # fmt: skip


@st.cache_resource(max_entries=16, show_spinner=False)  # not cache_data, whose copy takes as long as a new chart
def _figure(names: tuple[str, ...], values: tuple[bytes, ...]) -> Any:
    return drawing.curves({name: np.frombuffer(one) for name, one in zip(names, values, strict=True)})


def _go_to(percents: int) -> None:
    st.session_state["threshold"] = percents


# --- where the object really is -------------------------------------------------------------------------------


def _state(selection: Selection) -> dict[str, Any]:
    """The visitor's own box for this image; another image begins anew, another network sees the same box in its own view."""
    subject = (selection.network.id, selection.image.sha256)
    state: dict[str, Any] | None = st.session_state.get("truth")
    if state is None or state["of"] != subject:
        size = selection.network.geometry.size
        mine = ground_truth.read_box(st.query_params.get("box", ""), size) if state is None else None
        xml = drawn = None
        if state is not None and state["of"][1] == subject[1]:  # the same image: its boxes come along to the other network
            xml, drawn = state["xml"], state["drawn"]
            if drawn is not None:
                mine = ground_truth.to_other_view(drawn[0], selection.image.open().size, drawn[1], selection.network.geometry)
        elif mine is not None:
            drawn = mine, selection.network.geometry
        state = st.session_state["truth"] = {"of": subject, "mine": list(mine) if mine else None, "xml": xml, "drawn": drawn}
    return state


def _truth(selection: Selection) -> Truth | None:
    """The box to measure against: the visitor's, that of an XML file, or the gallery's. Writes the visitor's into the URL."""
    state, geometry = _state(selection), selection.network.geometry
    mine = state["mine"]
    if mine is not None and None not in mine and not ground_truth.problem_of(mine, geometry.size):
        st.query_params["box"] = ",".join(map(str, mine))
        return Truth(np.array([mine]), "your box")
    if "box" in st.query_params:
        del st.query_params["box"]
    if mine is not None:
        return None
    if state["xml"] is not None:
        name, content = state["xml"]
        try:
            return _of_xml(selection, content, name)
        except DataError:
            return None  # said where it was given, in _box_controls
    return ground_truth.from_gallery(selection.image.name, geometry) if selection.image.credit else None


def _box_controls(selection: Selection, true: Truth | None) -> None:
    """The true box as four numbers, and from a file."""
    state, size = _state(selection), selection.network.geometry.size
    mine = state["mine"]
    what = f"around {true.what}" if true is not None and mine is None else "yours" if true is not None else "none yet"
    st.markdown(f"**True box:** {plain(what)}. Drag a new one over the picture, or type its sides.")
    values: Sequence[int | None] = mine if mine is not None else [int(one) for one in true.boxes[0]] if true is not None else [None] * 4
    for place, (column, side) in enumerate(zip(st.columns(4), SIDES, strict=True)):
        st.session_state[f"box-{side}"] = values[place]
        column.number_input(
            side.capitalize(), 0, size - 1, value=None, step=1, key=f"box-{side}", on_change=_typed, args=(selection,),
            help=f"In pixels of the {size} × {size} picture that the network sees; both ends belong to the box." if not place else None,
        )  # fmt: skip
    if mine is not None and None in mine:
        st.caption("Give all four sides.")
    elif mine is not None and ground_truth.problem_of([int(one) for one in mine], size):
        st.warning(ground_truth.problem_of([int(one) for one in mine], size), icon=":material/crop_free:")
    with st.container(horizontal=True):
        st.button(
            "Clear my box",
            key="forget",
            on_click=_forget,
            args=(selection,),
            disabled=mine is None and state["xml"] is None,
            icon=":material/undo:",
        )
    with st.expander("A box from a file"):
        st.file_uploader(
            "The XML of this photograph, as ILSVRC and VOC have it", type=["xml"], key="xml", on_change=_xml_given, args=(selection,)
        )  # fmt: skip
        if state["xml"] is not None:
            name, content = state["xml"]
            try:
                names = ground_truth.objects_in(content, name)
                if len(names) > 1:
                    of_class = _object(selection, names)
                    st.selectbox(
                        "Which of its objects", names, index=names.index(of_class) if of_class else None, key=f"{OBJECT}-{selection.target}",
                        placeholder="choose one",
                    )  # fmt: skip
                known = _of_xml(selection, content, name)
                st.caption(f"{len(known.boxes)} box{'es' if len(known.boxes) > 1 else ''} around {plain(known.what)}.")
            except DataError as error:
                st.warning(f"**Not used:** {plain(str(error))}", icon=":material/error:")


def _object(selection: Selection, names: Sequence[str]) -> str:
    """The object that was chosen from an XML with several, or else the one of the class on screen; '' where neither."""
    chosen: str | None = st.session_state.get(f"{OBJECT}-{selection.target}")
    return (
        chosen
        if chosen is not None and chosen in names
        else ground_truth.object_of_class(names, selection.network.classes, selection.target)
    )


def _of_xml(selection: Selection, content: bytes, name: str) -> Truth:
    image = selection.image.open()
    chosen = _object(selection, ground_truth.objects_in(content, name))
    return ground_truth.from_voc_xml(
        content, name, image.size, selection.network.geometry, orientation=exif_orientation(image), chosen=chosen
    )  # fmt: skip


def _set(selection: Selection, box: list[int | None] | Box | None) -> None:
    state, geometry = _state(selection), selection.network.geometry
    state["mine"] = None if box is None else list(box)
    whole = (
        box is not None and None not in box and not ground_truth.problem_of([int(side) for side in box if side is not None], geometry.size)
    )
    state["drawn"] = (tuple(box), geometry) if box is not None and whole else None


def _dragged(selection: Selection) -> None:
    box = ground_truth.from_drag(overlays.dragged(PICTURE), selection.network.geometry.size)
    if box is not None:
        _set(selection, box)


def _typed(selection: Selection) -> None:
    _set(selection, [st.session_state.get(f"box-{side}") for side in SIDES])


def _forget(selection: Selection) -> None:
    _set(selection, None)
    _state(selection)["xml"] = None


def _xml_given(selection: Selection) -> None:
    file = st.session_state.get("xml")
    _set(selection, None)
    _state(selection)["xml"] = (file.name, file.getvalue()) if file is not None else None
