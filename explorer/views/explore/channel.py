"""One channel: where it fires, for which classes it matters, and which images drive it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import streamlit as st

from chipcore import ChipError
from chipcore.analysis import contributions
from chipcore.analysis.layer_maps import LayerMap
from explorer import figures
from explorer.components import downloads
from explorer.components.downloads import Export
from explorer.figures import bars
from explorer.services import reproduce
from explorer.state import bundle, cached, url
from explorer.state.cached import Prediction
from explorer.state.selection import Selection
from explorer.text import plain, readable
from explorer.views.explore import buttons
from explorer.views.explore.pictures import image, of_raw

LISTED, CLASSES, PHOTOGRAPHS = 8, 7, 6
FEW = 60  # classes that a command names one by one

Driven = tuple[float, str, Prediction]  # mean activation, the image's name in the gallery, and what the network sees in it


def show(selection: Selection, here: LayerMap, order: list[int], pick: Callable[[int], None]) -> None:
    """Its number, then four answers. ``order`` are the layer's channels, the largest contribution first."""
    layer, features = here.layer, selection.seen.features[here.layer.name]
    wanted = url.asked("channel")  # also after a step back from another view, where Streamlit has forgotten the widget
    if wanted is not None and wanted.isdecimal():
        st.session_state["channel"] = int(wanted)
    st.session_state.setdefault("channel", -1)
    if not 0 <= st.session_state["channel"] < layer.channels:  # at the start, or another layer's
        st.session_state["channel"] = order[0] if order else 0
    choice, activation, classes = st.columns([1, 1.15, 1.6], gap="medium")
    with choice:
        k = int(st.number_input(f"Channel, 0 to {layer.channels - 1:,}", 0, layer.channels - 1, key="channel"))
        url.write("channel", str(k))
        if here.row is not None and order:
            st.caption(f"These add most to the map of {plain(selection.label)}:")
            buttons.channels("most", order[:LISTED], contributions.contributions(here.row, features), pick, chosen=k)
    with activation:
        fires(selection, here, k)
    with classes:
        weights(selection, here, k)
    found = _images(selection, here, k)
    downloads.offer(
        "take-channel", f"channel-{k}-{selection.network.name}-{layer.name}", lambda: _taken(selection, here, k, found), table=here.importance is not None,
        folded="Download this channel",
    )  # fmt: skip


def fires(selection: Selection, here: LayerMap, k: int) -> None:
    """Its feature map on the photograph."""
    activation = selection.seen.features[here.layer.name][k]
    st.markdown("**Activation**")
    signed = bool(activation.min() < 0)
    image(
        of_raw(selection, figures.enlarged(selection.seen.view), activation, signed=signed),
        f"Feature map of channel {k} at {here.layer.name} on the photograph",
    )
    said = [
        f"Its feature map _A_, {here.layer.height} × {here.layer.width}: mean {readable(float(activation.mean()))}, maximum {readable(float(activation.max()))}."
    ]
    if not activation.any():
        said = ["It is silent on this photograph: its feature map is 0 everywhere."]
    if here.row is not None:
        weight = float(here.row[k])
        end = "." if weight else ": it plays no part."
        learned = weight if here.local or here.importance is None else float(here.importance.W[selection.target, k])
        if learned != weight:  # a map's row may be for the class against the others; the tables and Channels show W
            end = f"; in the map, which sets the class against the others, its weight _w_ is {readable(weight)}{end}"
        said.append(f"For {plain(selection.label)} its weight _w_ is {readable(learned)}{end}")
    st.caption(" ".join(said))


def weights(selection: Selection, here: LayerMap, k: int) -> None:
    """The classes with the largest weights at this channel."""
    st.markdown("**For which classes it matters**")
    if here.importance is None:
        st.caption("That takes W: fit it, and this is the column of this channel.")
        return
    found = contributions.weights_of(here.importance, k, selection.target, CLASSES)
    top = max((abs(one.weight) for one in found), default=0.0) or 1.0
    labels = selection.network.classes.labels
    st.html(bars.bars(
        ["class", "weight w", "place"],
        [
            bars.Line(labels[one.index], (bars.TableCell(one.weight / top, readable(one.weight)), bars.TableCell(0, f"{one.place:,}.")), one.index == selection.target)
            for one in found
        ],
    ))  # fmt: skip
    fitted = int((here.importance.support > 0).sum())
    st.caption(f"Its largest weights among {fitted:,} classes with a row of W, and its place among them for {plain(selection.label)}.")


def _images(selection: Selection, here: LayerMap, k: int) -> list[Driven]:
    """The gallery by how strongly each image drives the channel."""
    st.markdown("**The photographs of the gallery that drive it most**")
    found: list[Driven] = []
    for name, item in selection.gallery.items():
        try:
            seen = cached.seen(selection.network.id, item.sha256, selection.network, item)
        except ChipError:
            continue  # an upload that is no image
        found.append((float(seen.features[here.layer.name][k].mean()), name, seen))
    found.sort(key=lambda one: -one[0])
    top = max(float(seen.features[here.layer.name][k].max()) for _mean, _name, seen in found)
    for place, (mean, name, seen) in zip(st.columns(PHOTOGRAPHS), found, strict=False):
        with place:
            activation = seen.features[here.layer.name][k]
            picture = of_raw(selection, figures.enlarged(seen.view, 256), activation, top if top > 0 else None)
            image(picture, f"Channel {k} on the photograph {name}, mean activation {readable(mean)}")
            st.caption(f"{plain(name)}: {readable(mean)}")
    st.caption("By the mean of the feature map; colors on one scale.")
    return found


def _taken(selection: Selection, here: LayerMap, k: int, found: list[Driven]) -> Export:
    """The channel's feature map, its weights for all classes, and the images that drive it."""
    layer, network = here.layer, selection.network
    panels = [figures.FigurePanel(figures.enlarged(selection.seen.view), "photograph", selection.image.name)]
    activation = selection.seen.features[layer.name][k]
    pictures = [
        (activation, selection.seen.view, "this photograph"),
        *((seen.features[layer.name][k], seen.view, name) for _mean, name, seen in found[:PHOTOGRAPHS]),
    ]
    for values, view, name in pictures:
        drawn = of_raw(selection, figures.enlarged(view), values, signed=bool(values.min() < 0))
        panels.append(figures.FigurePanel(drawn, f"channel {k}", f"{name}: mean {readable(float(values.mean()))}"))
    lines = [reproduce.gate(network, bundle.image_file(selection), layer.name, f"channel-{k}", features=[k])]
    arrays = {
        "features": activation[None].numpy(), "channels": np.array([k]), "gallery_means": np.array([mean for mean, _name, _seen in found]),
        "gallery": np.array([name for _mean, name, _seen in found]),
    }  # fmt: skip
    table = ""
    if here.importance is not None:
        known = contributions.weights_of(here.importance, k, selection.target, len(network.classes))
        arrays |= {"classes": np.array([one.index for one in known]), "weights": np.array([one.weight for one in known])}
        table = contributions.class_weights_csv(known, network.classes)
        lines.append(reproduce.rows(network, layer.name, "rows", [one.index for one in known] if len(known) <= FEW else ()))
    return Export(
        figures.strip(panels, f"Channel {k} of {layer.name}, {network.title}"), arrays, table,
        bundle.about(selection, view="explore, one channel", channel=k), "\n".join(lines), bundle.files(selection),
    )  # fmt: skip
