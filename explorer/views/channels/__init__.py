"""Channels: which channels matter for which class (Fig. 10 and 11 of the paper)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import streamlit as st

from chipcore import ChipError, Importance, Layer, Network
from chipcore.analysis import class_channels
from chipcore.analysis.class_channels import Region
from explorer import figures
from explorer.components import class_picker, downloads, sidebar
from explorer.components.downloads import Export
from explorer.components.heatmap import heatmap
from explorer.components.regions import regions as region_buttons
from explorer.components.table import Column, table
from explorer.figures import heatmap as heatmap_figures
from explorer.figures import theme
from explorer.services import reproduce
from explorer.state import navigation
from explorer.state.selection import Selection
from explorer.text import plain
from explorer.views.channels import cell, export

ORDERS = {"number": "by number", "importance": "by importance", "similar": "alike together"}
BRANCHES = 40  # classes in the tree; more can't be read
PER_CLASS = "per class"
NEAREST = 12  # classes in the table of neighbors
_PAINTED = "channels-painted"
_CLASSIC = ("n01641577", "n01644373", "n02391049")  # of Fig. 10 and 11: bullfrog, tree frog, zebra


def show(selection: Selection) -> None:
    """The whole page."""
    st.header("Which channels matter for which class?", anchor=False)
    st.markdown(
        "Every row is a class, every column a channel of this layer; the colour is the importance _w_ that CHIP learned. "
        "**Which channels does a class need, and do classes that look alike share theirs?**"
    )
    _page(selection)


@st.fragment  # so that what is changed on this page does not draw the sidebar anew
def _page(selection: Selection) -> None:
    navigation.apply_pending()
    layer = selection.layer
    try:
        importance = selection.importance(layer)
    except ChipError as error:
        _unfitted(selection, layer, error)
        return
    network = selection.network
    if not class_channels.fitted(importance):
        st.info(
            f"**No class has a row of W at {plain(layer.name)}.** Fit W on photographs of the classes you want to compare.",
            icon=":material/block:",
        )
        return
    rows = _rows(selection, importance)
    if not rows:
        st.info("**There is nothing to draw yet.** Choose at least one class.", icon=":material/info:")
        return
    _heatmap(selection, layer, importance, rows)
    cell.show(selection, layer, importance)
    if not st.session_state[_PAINTED]:
        return  # the browser asks for the rest when it has painted this, or both would come a second later
    _overlaps(network, layer, importance, selection.target, rows)
    _neighbors(network, layer, importance, selection.target, rows)
    _counts(network, importance, rows)


def _unfitted(selection: Selection, layer: Layer, error: ChipError) -> None:
    """W is missing here; the other layers are not touched by that."""
    there = []
    for one in selection.network.layers:
        try:
            selection.importance(one)
        except ChipError:
            continue
        there.append(one.name)
    others = f" W is there at {', '.join(there)}: choose one of them in the sidebar." if there else ""
    st.info(f"**There is no W at {plain(layer.name)}:** {plain(str(error))}{plain(others)}", icon=":material/build:")


# --- the classes ------------------------------------------------------------------------------------------------


def _rows(selection: Selection, importance: Importance) -> list[int]:
    """The classes shown, from the top; says what is the matter with any of them."""
    network, target = selection.network, selection.target
    labels = network.classes.labels
    fitted = class_channels.fitted(importance)
    start = class_channels.suggested(importance, target, selection.seen.best(sidebar.PREDICTIONS))
    picker, everything = st.columns([3.2, 1.2], vertical_alignment="bottom")
    all_of_them = everything.toggle(f"All {len(fitted):,} fitted classes", key="everyclass", bind="query-params")
    with picker:
        rows, asked = class_picker.choose(network, fitted, start, disabled=all_of_them)
    without = [index for index in dict.fromkeys([target, *asked]) if not importance.support[index]]
    if without:
        names = ", ".join(plain(labels[index]) for index in without)
        st.info(
            f"**No row of W for {names}.** The photographs that W was fitted on held too little of "
            f"{'it' if len(without) == 1 else 'them'}, so there are no weights to draw.",
            icon=":material/block:",
        )
    if all_of_them:
        near = [one.index for one in class_channels.neighbors(importance, target, 10)]
        return [target, *near] if near else fitted
    return rows


def _label(network: Network, importance: Importance, index: int) -> str:
    weak = " · weak" if importance.evidence(index) == "weak" else ""
    return network.classes.labels[index] + weak


@st.cache_data(max_entries=32, show_spinner=False)
def _alike(digest: str, rows: tuple[int, ...], _W: np.ndarray) -> np.ndarray:
    return class_channels.by_similarity(_W[list(rows)])


def _digest(importance: Importance) -> str:
    return hashlib.sha256(np.ascontiguousarray(importance.W.numpy()).tobytes()).hexdigest()


# --- Fig. 10 ----------------------------------------------------------------------------------------------------


def _heatmap(selection: Selection, layer: Layer, importance: Importance, rows: list[int]) -> None:
    network, target = selection.network, selection.target
    labels = [_label(network, importance, index) for index in rows]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        order = st.segmented_control(
            "Channels in order", list(ORDERS), format_func=ORDERS.__getitem__, default="similar", required=True, key="sort", bind="query-params",
            help=f"By number; by importance for {plain(network.classes.labels[target])}; or clustered, so that channels stand together that matter "
            "for the same classes.",
        )  # fmt: skip
        signs = st.segmented_control(
            "Show evidence", ["for and against", "for only"], default="for and against", required=True, key="signs", bind="query-params",
            help="Orange: an open channel raises the class’s score. Blue: it lowers it.",
        )  # fmt: skip
        scale = st.segmented_control(
            "Color scale ends at the largest weight", [PER_CLASS, "overall"], default=PER_CLASS, required=True, key="strength", bind="query-params",
            help="At the largest weight of every class, or at the largest of them all.",
        )  # fmt: skip
    W = importance.W.numpy()
    signed, each = signs == "for and against", scale == PER_CLASS
    columns = _columns(str(order), importance, target, rows)
    drawn = heatmap_figures.packed(W, rows, labels, columns.tolist(), target, signed=signed, each=each)
    # The classes and channels of this picture, for a click that comes back from it.
    heatmap(drawn, "weights", lambda index, channel: cell.choose(network, importance, index, channel), _painted)
    blank = float((W[rows] == 0).mean())
    weak = any(importance.evidence(index) == "weak" for index in rows)
    st.caption(
        f"{len(rows):,} {'class' if len(rows) == 1 else 'classes'} × {layer.channels:,} channels at {plain(layer.name)}, {blank:.0%} of the weights are zero. "
        "Point at a cell for its weight, click it to open that channel below; on the keyboard, arrow keys and Enter."
        + (" ‘weak’: learned from few images (an effective number below ten)." if weak else "")
    )
    titled = f"W of {network.title} at {layer.name}"

    def take() -> Export:
        from explorer.figures.heatmap import heatmap_picture  # Matplotlib: for who takes the picture home, not for who looks

        picture = heatmap_picture(W, rows, labels, columns.tolist(), titled, theme.LIGHT, signed=signed, each=each)
        digest = _digest(importance)
        return Export(
            picture,
            {"W": W[rows], "classes": np.asarray(rows), "channels_in_order": columns},
            class_channels.weights_csv(importance, network.classes, rows),
            export.settings(network, layer, importance, rows, W_sha256=digest, order=order, signs=signs, scale=scale),
            reproduce.rows(network, layer.name, "rows", rows),
        )  # fmt: skip

    if st.session_state.setdefault(_PAINTED, False):
        downloads.offer("channels", f"chip-channels-{network.name}-{layer.name}", take, table=True)


def _columns(order: str, importance: Importance, target: int, rows: list[int]) -> np.ndarray:
    W = importance.W.numpy()
    if order == "importance":
        return class_channels.by_importance(W[target if target in rows else rows[0]])
    if order == "similar":
        return _alike(_digest(importance), tuple(rows), W)
    return np.arange(W.shape[1])


def _painted() -> None:
    st.session_state[_PAINTED] = True


def _clicked(layer: Layer, importance: Importance, index: int, channel: int) -> None:
    if 0 <= index < importance.W.shape[0] and 0 <= channel < importance.W.shape[1]:
        navigation.go_to_channel(layer.name, index, channel)


# --- Fig. 11 ----------------------------------------------------------------------------------------------------


def _dark() -> bool:
    return st.context.theme.type == "dark"


@st.cache_data(max_entries=64, show_spinner=False)
def _venn(regions: Sequence[tuple[tuple[bool, ...], tuple[int, ...]]], labels: tuple[str, ...], dark: bool) -> bytes:
    from explorer.figures import venn  # takes longer to load than the heat map above it to be painted

    found = [Region(members, inside) for members, inside in regions]
    return figures.png(venn.venn_picture(found, labels, theme.theme_for(dark)))


@st.fragment
def _overlaps(network: Network, layer: Layer, importance: Importance, target: int, rows: list[int]) -> None:
    navigation.apply_pending()
    st.subheader("Shared channels", anchor=False)
    labels = network.classes.labels
    start, classic = class_channels.trio(importance, target), _paper_classes(network, importance)
    offered = list(dict.fromkeys([*rows[:BRANCHES], *start, *classic]))
    if len(offered) < 2:
        st.info("**A Venn diagram takes two or three classes.** There is only one with a row of W here.", icon=":material/info:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        picker = st.container(width="stretch")
        if classic:
            st.button(
                "The paper’s trio", key="classic", icon=":material/article:", on_click=class_picker.compare, args=(network, classic),
                help="Fig. 11: bullfrog, tree frog and zebra.",
            )  # fmt: skip
    with picker:
        compared = class_picker.compared(network, offered, start)
    if len(compared) < 2:
        st.info("**A Venn diagram takes two or three classes.** Choose one more.", icon=":material/info:")
        return
    st.caption("Click a channel’s number to see it in Explore. Circle sizes are not to scale.")
    left, right = st.columns(2, gap="large")
    with left:
        count = st.slider(
            "The most important channels of each class", 1, min(50, layer.channels), min(10, layer.channels), key="topk", bind="query-params",
            help="Fig. 11, left, takes ten. Only channels that speak for a class count.",
        )  # fmt: skip
        _diagram(
            "topk",
            layer,
            importance,
            class_channels.regions([importance.top_channels(index, count) for index in compared]),
            compared,
            labels,
        )
    with right:
        share = st.select_slider(
            "Channels above this share of the class’s largest weight", ["1/10000", "1/1000", "1/100", "1/50", "1/20", "1/10", "1/5", "1/2"],
            "1/1000", key="share", bind="query-params", help="Fig. 11, right, takes one thousandth.",
        )  # fmt: skip
        above = 1 / int(str(share).removeprefix("1/"))
        _diagram(
            "share",
            layer,
            importance,
            class_channels.regions([importance.channels_above(index, above) for index in compared]),
            compared,
            labels,
        )
    export.overlaps(network, layer, importance, compared, count, above)


def _paper_classes(network: Network, importance: Importance) -> list[int]:
    """The classes of the paper's Fig. 10 and 11, where the network knows them and all have a row of W; else none."""
    known = {synset: index for index, synset in enumerate(network.classes.synsets or ())}
    found = [known[synset] for synset in _CLASSIC if synset in known and importance.support[known[synset]] > 0]
    return found if len(found) == len(_CLASSIC) else []


def _diagram(key: str, layer: Layer, importance: Importance, regions: list[Region], compared: list[int], labels: Sequence[str]) -> None:
    """One Venn diagram, and below it the channels of each region as buttons."""
    names = tuple(labels[index] for index in compared)
    with st.container(key=f"venn-{key}"):
        picture = _venn([(region.members, region.channels) for region in regions], names, _dark())
        st.image(picture, width="stretch", output_format="PNG", alt=class_channels.venn_words(regions, names))
    groups = []
    for region in regions:
        owner = next(index for index, member in zip(compared, region.members, strict=True) if member)
        groups.append((class_channels.region_words(region, names), owner, region.channels))
    region_buttons(groups, f"{key}-regions", lambda index, channel: _clicked(layer, importance, index, channel))


# --- neighbors -------------------------------------------------------------------------------------------------


@st.cache_data(max_entries=64, show_spinner=False)
def _tree(digest: str, rows: tuple[int, ...], labels: tuple[str, ...], chosen: str, dark: bool, _W: np.ndarray) -> bytes:
    from explorer.figures import venn

    return figures.png(venn.tree_picture(class_channels.tree(_W[list(rows)]), labels, chosen, theme.theme_for(dark)))


def _neighbors(network: Network, layer: Layer, importance: Importance, target: int, rows: list[int]) -> None:
    label = network.classes.labels[target]
    nearest, tree = st.columns([1.15, 1], gap="large")
    with nearest:
        st.subheader(f"Nearest to {plain(label)}", anchor=False)
        near = class_channels.neighbors(importance, target, 10)
        if near:
            table(
                f"The classes nearest to {label}",
                [
                    Column("class"),
                    Column("shared of 10", "Channels among the ten most important of both.", 0, 10),
                    Column("Jaccard", "Shared channels as a share of those in either top 10.", 2),
                    Column("cosine", "Of the two whole rows of W: 1 alike, 0 unrelated, −1 opposite.", 2),
                ],
                [(_label(network, importance, one.index), one.shared, one.jaccard, one.cosine) for one in near[:NEAREST]],
                "nearest",
            )
            st.caption(f"Of {len(near):,} other classes with a row of W, at {plain(layer.name)}.")
        else:
            st.caption(f"There is no other row of W to compare {plain(label)} with.")
    with tree:
        st.subheader("The classes as a tree", anchor=False)
        some = tuple(rows[:BRANCHES])
        if len(some) < 2:
            st.caption("A tree takes at least two classes: choose one more above.")
        else:
            labels = tuple(network.classes.labels[index] for index in some)
            picture = _tree(_digest(importance), some, labels, label, _dark(), importance.W.numpy())
            st.image(
                picture, width="stretch", output_format="PNG", alt=f"Dendrogram of {', '.join(labels)} by the cosine of their rows of W"
            )
        if len(rows) > BRANCHES:
            st.caption(f"The first {BRANCHES} of the {len(rows):,} classes above.")
    export.neighbors(network, layer, importance, target, rows[:BRANCHES])


# --- counts -----------------------------------------------------------------------------------------------------


def _counts(network: Network, importance: Importance, rows: list[int]) -> None:
    st.subheader("How sparse are the rows?", anchor=False)
    channels_there = importance.W.shape[1]
    table(
        "How many weights of each class are not zero, and how far its row can be trusted",
        [
            Column("class"),
            Column("non-zero", f"Weights that are not zero, of {channels_there:,}.", 0, channels_there),
            Column("for", "Positive weights: an open channel raises the score.", 0),
            Column("against", "Negative weights: an open channel lowers the score.", 0),
            Column("above 1/1000", "Weights above one thousandth of the row’s largest, as in Fig. 11.", 0),
            Column("held-out R²", "How well the row predicts gates and photographs it was not fitted on; 1 is perfect.", 2),
            Column("effective images", "Effective number of images behind the row: the sum of the class’s probability over them.", 1),
            Column("row", "Weak: learned from few images (an effective number below ten)."),
        ],
        [
            (
                network.classes.labels[one.index], one.nonzero, one.positive, one.negative, one.above,
                None if math.isnan(one.r2) else one.r2, one.evidence_mass, one.evidence,
            )
            for one in class_channels.counts(importance, rows)
        ],
        "counts",
    )  # fmt: skip
    st.caption("Click a heading to sort.")
