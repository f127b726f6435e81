"""The sidebar that every view shares: model, photograph, class, and how maps are drawn.

All of it is in the URL. Most widgets are bound by Streamlit; the class is written by us, as its synset,
because the text of its option holds the photograph's percentages.
"""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from chipcore import ChipError, Importance, Layer, Network
from chipcore.networks.registry import REGISTRY
from chipcore.render import COLOUR_MAPS
from explorer import depths, gallery, resources
from explorer.gallery import ENTRIES, UPLOAD, Photograph
from explorer.resources import Seen

PREDICTIONS = 5
_MARKS = {"none": " · no W", "weak": " · weak W", "good": ""}


@dataclass(frozen=True)
class Selection:
    """What the visitor chose, and what the network makes of it."""

    network: Network
    photograph: Photograph
    seen: Seen
    target: int
    colour_map: str
    opacity: float
    one_scale: bool

    @property
    def label(self) -> str:
        return self.network.classes.labels[self.target]

    def importance(self, layer: Layer) -> Importance:
        """W at a layer; raises ``ChipError`` where there is none."""
        return resources.importance(self.network.id, layer.name, self.network)


def choose() -> Selection:
    """Draw the sidebar and read it. Raises ``ChipError`` for weights or a file that cannot be used."""
    st.markdown("### CHIP explorer")
    model = st.selectbox(
        "Model", resources.offered(), format_func=lambda name: REGISTRY[name].title, key="model", bind="query-params", filter_mode=None,
    )  # fmt: skip
    photograph = _photograph()
    class_place = st.container()
    colour_map, opacity, one_scale = _look()
    network = resources.network(model)
    seen = resources.seen(network.id, photograph.sha256, network, photograph)
    with class_place:
        target = _class(network, seen)
    return Selection(network, photograph, seen, target, colour_map, opacity, one_scale)


def pick_class(index: int) -> None:
    """Choose a class from elsewhere on the page; for callbacks, which run before the sidebar is drawn."""
    st.session_state["class"] = index


def _photograph() -> Photograph:
    upload = st.session_state.get("upload")
    options = [*ENTRIES, UPLOAD] if upload else [*ENTRIES]
    if st.session_state.get("photo", options[0]) not in options:
        st.session_state["photo"] = options[0]
    chosen = st.pills(
        "Photograph",
        options,
        default=options[0],
        required=True,
        key="photo",
        bind="query-params",
        on_change=_new_photograph,
        width="stretch",
    )
    known = {name: gallery.photograph(name) for name in ENTRIES}
    if upload:
        known[UPLOAD] = gallery.uploaded(upload.name, upload.getvalue())
    st.file_uploader(
        "Your own photograph", type=["jpg", "jpeg", "png", "webp"], key="upload", on_change=_uploaded, label_visibility="collapsed",
    )  # fmt: skip
    _thumbnails([known[name] for name in options])
    return known[chosen or options[0]]


def _thumbnails(photographs: list[Photograph]) -> None:
    """Put its thumbnail on every pill; a pill is a real radio button, so keyboard and screen reader come for free."""
    rules = []
    for place, photograph in enumerate(photographs, start=1):
        try:
            picture = resources.thumbnail(photograph.sha256, photograph)
        except ChipError:
            continue  # said on the page, once that photograph is chosen
        rules.append(f".st-key-photo button:nth-of-type({place})::before {{ background-image: url({picture}); }}")
    st.html(f"<style>{' '.join(rules)}</style>")


def _new_photograph() -> None:
    st.session_state["follow"] = True


def _uploaded() -> None:
    st.session_state["photo"] = UPLOAD if st.session_state["upload"] else next(iter(ENTRIES))
    _new_photograph()


def _class(network: Network, seen: Seen) -> int:
    """A new photograph starts at its most probable class; a class that was chosen stays until then."""
    classes = network.classes
    best = seen.best(PREDICTIONS)
    if "class" not in st.session_state:
        st.session_state["class"] = _from_url(network, best[0])
    elif st.session_state.pop("follow", False) or st.session_state["class"] >= len(classes):
        st.session_state["class"] = best[0]
    evidence = depths.evidence_of(_fitted(network), len(classes))
    rest = sorted(set(range(len(classes))) - set(best), key=lambda index: classes.labels[index].lower())

    def text(index: int) -> str:
        share = f" · {seen.probabilities[index]:.0%}" if index in best else ""
        synset = f" · {classes.synsets[index]}" if classes.synsets else ""
        return classes.labels[index] + share + _MARKS[evidence[index]] + synset

    target = st.selectbox(
        "Class", [*best, *rest], format_func=text, key="class", filter_mode="contains",
        help="Type a name or a synset. The photograph’s own predictions come first. "
        "‘weak W’: learned from little; ‘no W’: not learned at all.",
    )  # fmt: skip
    wanted = classes.synsets[target] if classes.synsets else str(target)
    if st.query_params.get("class") != wanted:
        st.query_params["class"] = wanted
    return target


def _from_url(network: Network, otherwise: int) -> int:
    try:
        return network.classes.index(st.query_params["class"])
    except (KeyError, ChipError):
        return otherwise


def _fitted(network: Network) -> list[Importance]:
    found = []
    for layer in network.layers:
        try:
            found.append(resources.importance(network.id, layer.name, network))
        except ChipError:
            continue  # the page says what is missing
    return found


def _look() -> tuple[str, float, bool]:
    colour_map = st.selectbox("Colour map", COLOUR_MAPS, key="colours", bind="query-params", filter_mode=None)
    opacity = st.slider("Opacity", 0.0, 1.0, 0.75, 0.05, key="opacity", bind="query-params")
    scale = st.segmented_control(
        "Colour scale", ["each map", "all maps"], default="each map", required=True, key="scale", bind="query-params",
        help="Each map from 0 to its own maximum, or all of them to the largest.",
    )  # fmt: skip
    return colour_map, opacity, scale == "all maps"
