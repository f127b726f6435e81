"""The sidebar that every view shares: model, image, class, layer, and how maps are drawn.

All of it is in the URL, on every page, written by us (``explorer/state/url.py``): model and class as the name and synset
that the command line takes too, the rest as it reads on the screen.
"""

from __future__ import annotations

import contextlib

import streamlit as st

from chipcore import ChipError, Importance, Layer, Network
from chipcore.analysis import class_order, layer_maps
from chipcore.visualization import COLORMAPS
from explorer.components import network_form
from explorer.services import gallery, photo_links, reproduce
from explorer.services.gallery import ENTRIES, GalleryImage
from explorer.state import cached, own_fits, url
from explorer.state.cached import Prediction
from explorer.state.navigation import pick_image, start_at_prediction
from explorer.state.selection import Selection
from explorer.text import plain

PREDICTIONS = 5
BY_NAME, BY_LIKENESS = "by name", "similar first"
_SCALES, _OPACITY = ("each map", "all maps"), 0.75
_MARKS = {"none": " · no W", "weak": " · weak W", "pooled": "", "good": ""}


def choose() -> Selection:
    """Draw the sidebar and read it. Raises ``ChipError`` for weights or a file that cannot be used."""
    st.markdown("### CHIP explorer")
    model = _model()
    known, image = _image()
    class_place, layer_place = st.container(), st.container()
    colormap, opacity, one_scale = _look()
    network = cached.network(model)
    own_fits.restore(network, model)
    with layer_place:
        layer = _layer(network)
    seen = cached.seen(network.id, image.sha256, network, image)
    with class_place:
        target = _class(network, layer, seen)
    return Selection(network, image, seen, target, layer, colormap, opacity, one_scale, known, model)


def _model() -> str:
    wanted = st.query_params.get("model", "")
    if wanted not in cached.available_networks():
        cached.share_network(wanted)  # a link to a network of somebody's own
    names = cached.available_networks()
    added = st.session_state.pop(network_form.ADDED, None)
    if added in names:
        st.session_state["model"] = added
        start_at_prediction()
    if url.changed_value("model") in names or st.session_state.get("model") not in names:
        st.session_state["model"] = wanted if wanted in names else names[0]
    # A model's classes have numbers of their own, so another one starts at its own prediction.
    model = st.selectbox("Model", names, format_func=cached.title, key="model", on_change=start_at_prediction, filter_mode=None)
    url.write("model", model)
    network_form.offer()
    return model


# --- images --------------------------------------------------------------------------------------------


def _image() -> tuple[dict[str, GalleryImage], GalleryImage]:
    own = _own()
    known = {name: gallery.image(name) for name in ENTRIES} | own
    first = next(iter(known))
    url.restore("photo", known, first)
    chosen = st.pills("Photograph", list(known), required=True, key="photo", on_change=_chosen, width="stretch") or first
    url.write("photo", chosen)
    # A new key empties the box, so that it stays small: what was dropped in it is in the gallery now.
    box = f"upload-{st.session_state.setdefault('uploads', 0)}"
    st.file_uploader(
        "Your own photographs", type=gallery.KINDS, key=box, accept_multiple_files=True, on_change=_uploaded, args=(box,),
        max_upload_size=gallery.MAX_BYTES >> 20, label_visibility="collapsed",
    )  # fmt: skip
    # A place that is always there: where widgets move in the page, the browser loses their parameters.
    place = st.container()
    with place:
        _about_own(own, chosen)
    _thumbnails(list(known.values()))
    return known, known[chosen]


def _own() -> dict[str, GalleryImage]:
    """The visitor's own images: from the link at the start, then what was added and taken out. Writes their keys into the URL."""
    if "own" not in st.session_state:
        wanted, keys = st.query_params.get("photo", ""), st.query_params.get(photo_links.PARAMETER, "")
        st.session_state["own"], gone = photo_links.resolve(keys)
        if wanted not in {"", *ENTRIES, *st.session_state["own"]}:
            st.session_state["lost"] = (
                f"The photograph “{plain(wanted[:60])}” of this link is not on the server any more, so here is one of the gallery."
            )
        elif gone:
            st.session_state["lost"] = f"{gone} of the photographs of this link {'is' if gone == 1 else 'are'} not on the server any more."
    own: dict[str, GalleryImage] = st.session_state["own"]
    keys = photo_links.link(own.values())
    if keys:
        url.write(photo_links.PARAMETER, keys)
    elif photo_links.PARAMETER in st.query_params:
        del st.query_params[photo_links.PARAMETER]
    return own


def _about_own(own: dict[str, GalleryImage], chosen: str) -> None:
    """Below the box: who can see what is dropped there, what went wrong with it, and the way back."""
    if "lost" in st.session_state:
        st.warning(st.session_state["lost"], icon=":material/link_off:")
    if not own:
        st.caption("Your photographs are visible only to you and to people who have this page’s link.")
        return
    st.caption(
        f"**Anyone with this page’s link can open your photograph{'s' if len(own) > 1 else ''}.** Nobody else can. They are deleted when nobody has "
        f"opened them for {photo_links.KEPT_DAYS} days."
    )
    if chosen in own:
        st.button(
            "Remove from the gallery", key="remove", on_click=_remove, args=(chosen,), icon=":material/delete:", type="tertiary",
            help="Also from the server, if you added it since you opened this page.",
        )  # fmt: skip


def _thumbnails(images: list[GalleryImage]) -> None:
    """Put its thumbnail on every pill; a pill is a real radio button, so keyboard and screen reader come for free."""
    rules = []
    for place, image in enumerate(images, start=1):
        try:
            picture = cached.thumbnail(image.sha256, image)
        except ChipError:
            continue  # said on the page, once that image is chosen
        rules.append(f".st-key-photo button:nth-of-type({place})::before {{ background-image: url({picture}); }}")
    st.html(f"<style>{' '.join(rules)}</style>")


def _chosen() -> None:
    st.session_state.pop("lost", None)
    start_at_prediction()


def _uploaded(box: str) -> None:
    files = [(file.name, file.getvalue()) for file in st.session_state[box]]
    before = st.session_state["own"]
    found, last = gallery.with_uploads(before, files)
    st.session_state["own"], problem = photo_links.load_all(found)
    st.session_state.setdefault("added-here", set()).update(
        one.key for name, one in st.session_state["own"].items() if name not in before
    )  # fmt: skip
    st.session_state["uploads"] += 1
    st.session_state.pop("lost", None)
    if problem:
        st.session_state["lost"] = plain(problem[0].upper() + problem[1:])
    if last:
        pick_image(last)


def _remove(name: str) -> None:
    taken = st.session_state["own"].pop(name, None)
    if taken is not None and taken.key in st.session_state.get("added-here", set()):
        photo_links.delete(taken.key)  # somebody who was given the link may not
    pick_image(next(iter(ENTRIES)))


# --- class and layer ----------------------------------------------------------------------------------------


def _layer(network: Network) -> Layer:
    names = [layer.name for layer in network.layers]
    url.restore("layer", names, names[-1])  # the last at the start, or where another model has no such layer
    name = st.segmented_control(
        "Layer", names, required=True, key="layer", wrap=True,
        help="From the first layers, which see edges and colors, to the last, which see parts of objects.",
    ) or names[-1]  # fmt: skip
    url.write("layer", name)
    return next((layer for layer in network.layers if layer.name == name), network.layers[-1])


def _class(network: Network, layer: Layer, seen: Prediction) -> int:
    """A new image starts at its most probable class; a class that was chosen stays until then."""
    classes = network.classes
    best = seen.best(PREDICTIONS)
    follow, asked = st.session_state.pop("follow", False), _from_url(network)
    if asked is not None:
        st.session_state["class"] = asked
    elif "class" not in st.session_state or follow or st.session_state["class"] >= len(classes):
        st.session_state["class"] = best[0]
    place = st.container()  # the order is asked for below the list that it orders, but must be known before
    url.restore("order", (BY_NAME, BY_LIKENESS), BY_NAME)
    by = st.segmented_control(
        "Order of classes", [BY_NAME, BY_LIKENESS], required=True, key="order", label_visibility="collapsed",
        help="Similar: classes whose row of W, the importance of the layer’s channels, points the same way as this class’s.",
    )  # fmt: skip
    url.write_unless("order", by or BY_NAME, BY_NAME)
    options = _options(network, layer, best, st.session_state["class"], by or BY_NAME)
    evidence = layer_maps.evidence_of(_fitted(network), len(classes))

    def text(index: int) -> str:
        share = f" · {seen.probabilities[index]:.0%}" if index in best else ""
        synset = f" · {classes.synsets[index]}" if classes.synsets else ""
        return classes.labels[index] + share + _MARKS[evidence[index]] + synset

    with place:
        target = st.selectbox(
            "Class", options, format_func=text, key="class", filter_mode="contains",
            help="Type a name or a synset. The photograph’s own predictions come first. "
            "‘weak W’: learned from little; ‘no W’: not learned at all.",
        )  # fmt: skip
    url.write("class", reproduce.class_name(network, target))
    return target


def _options(network: Network, layer: Layer, best: list[int], target: int, by: str) -> list[int]:
    labels = network.classes.labels
    if by == BY_LIKENESS:
        try:
            importance = cached.importance(network.id, layer.name, network)
        except ChipError:
            st.caption(f"There is no W at {plain(layer.name)} to compare classes by; they are in the order of their names.")
        else:
            if importance.evidence(target) != "none":
                return class_order.similar(importance, target, labels)
            st.caption(f"This class has no row of W at {plain(layer.name)} to compare others with; they are in the order of their names.")
    return class_order.prioritize(best, class_order.alphabetical(labels))


def _from_url(network: Network) -> int | None:
    """The class that a link or a step back asks for; None where there is none, or none that this network knows."""
    asked = url.asked("class")
    try:
        return None if asked is None else network.classes.index(asked)
    except ChipError:
        return None


def _fitted(network: Network) -> list[Importance]:
    found = []
    for layer in network.layers:
        try:
            found.append(cached.importance(network.id, layer.name, network))
        except ChipError:
            continue  # the page says what is missing
    return found


def _look() -> tuple[str, float, bool]:
    with st.expander("How maps are drawn"):
        url.restore("colours", COLORMAPS, COLORMAPS[0])
        colormap = st.selectbox("Color map", COLORMAPS, key="colours", filter_mode=None)
        opacity = _opacity()
        url.restore("scale", _SCALES, _SCALES[0])
        scale = st.segmented_control(
            "Color scale", _SCALES, required=True, key="scale", help="Each map from 0 to its own maximum, or all of them to the largest.",
        ) or _SCALES[0]  # fmt: skip
    url.write_unless("colours", colormap, COLORMAPS[0])
    url.write_unless("scale", scale, _SCALES[0])
    return colormap, opacity, scale == _SCALES[1]


def _opacity() -> float:
    asked = url.asked("opacity")
    with contextlib.suppress(ValueError):
        if asked is not None and 0 <= float(asked) <= 1:
            st.session_state["opacity"] = float(asked)
    st.session_state.setdefault("opacity", _OPACITY)
    opacity = float(st.slider("Opacity", 0.0, 1.0, step=0.05, key="opacity"))
    url.write_unless("opacity", f"{opacity:g}", f"{_OPACITY:g}")
    return opacity
