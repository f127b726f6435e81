"""The sum of Eq. 10 as it forms: one channel after another, the largest contribution first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import streamlit as st
from torch import Tensor

from chipcore.analysis import contributions, map_similarity
from chipcore.analysis.layer_maps import LayerMap
from explorer import figures
from explorer.components import downloads
from explorer.components.downloads import Export
from explorer.services import reproduce
from explorer.state import bundle
from explorer.state.selection import Selection
from explorer.text import decimal, plain, readable
from explorer.views.explore import buttons
from explorer.views.explore.pictures import image, of_raw

LISTED = 9  # channels in the list of contributions


def show(selection: Selection, here: LayerMap, row: Tensor, order: list[int], pick: Callable[[int], None]) -> None:
    """A slider for how many channels are added; the sum so far, the channel that came last, and the whole map."""
    layer, features = selection.layer, selection.seen.features[selection.layer.name]
    shares = contributions.contributions(row, features)
    count = _count(len(order))
    last, label = order[count - 1], plain(selection.label)
    whole = contributions.partial_map(row, features, order)
    so_far = contributions.partial_map(row, features, order[:count])
    own = contributions.partial_map(row, features, [last])
    top = float(whole.max())
    enlarged_view = figures.enlarged(selection.seen.view)
    # Each to its own maximum: on the whole map's scale the first channels of hundreds could not be seen.
    made = [
        of_raw(selection, enlarged_view, so_far),
        of_raw(selection, enlarged_view, own, signed=True),
        of_raw(selection, enlarged_view, whole),
    ]
    columns = st.columns([1, 1, 1, 0.95], gap="medium")
    with columns[0]:
        st.markdown(f"**The sum of {count:,}**" if count > 1 else "**The first channel**")
        image(made[0], f"Sum of the {count} channels that add most to {selection.label} at {layer.name}")
        alike = map_similarity.pearson(so_far, whole)
        told = f"correlation with the whole map {decimal(alike)}" if alike == alike else "the same value everywhere"
        st.caption(f"Maximum {readable(float(so_far.max()))}; {told}.")
    with columns[1]:
        st.markdown(f"**Added last: channel {last}**")
        image(made[1], f"What channel {last} adds to the map of {selection.label}")
        st.caption(f"_w_ = {readable(float(row[last]))}, times its activation. Red adds, blue subtracts.")
    with columns[2]:
        st.markdown(f"**The whole map: {len(order):,}**")
        image(made[2], f"CHIP map of {selection.label} at {layer.name}")
        used = int((row != 0).sum())
        active = "all of them are" if len(order) == used else f"{len(order):,} are"
        st.caption(f"Maximum {readable(top)}. {used:,} channels have a weight for {label}; {active} active on this photograph.")
    with columns[3]:
        st.markdown("**Contributions**")
        first = max(0, min(count - LISTED + 2, len(order) - LISTED))
        listed = order[first : first + LISTED]
        buttons.channels("adds", listed, shares, pick, chosen=last, pale_from=count - first)
        st.caption("_w_ times the mean of _A_. Click a channel to open it.")

    heads = [f"the sum of {count:,}", f"channel {last}, added last", f"all {len(order):,}"]

    def take() -> Export:
        panels = [figures.FigurePanel(picture, head, layer.name) for picture, head in zip(made, heads, strict=True)]
        lines = [
            reproduce.explain(
                selection.network, bundle.image_file(selection), layer.name, selection.target, "local_chip" if here.local else "chip", stem,
                colormap=selection.colormap, opacity=selection.opacity, channels=some,
            )
            for stem, some in (("sum", order[:count]), ("last", [last]), ("whole", None))
        ]  # fmt: skip
        arrays = {
            "sum": so_far.numpy(), "last": own.numpy(), "whole": whole.numpy(), "order": np.array(order), "row": row.numpy(),
            "contributions": shares.numpy(),
        }  # fmt: skip
        return Export(
            figures.strip(panels, f"Eq. 10 as it forms: {selection.label}"), arrays, contributions.contributions_csv(row, features, order),
            bundle.about(selection, view="explore, channels added one by one", added=count, local=here.local), "\n".join(lines), bundle.files(selection),
        )  # fmt: skip

    downloads.offer(
        "take-sum", f"sum-{selection.network.name}-{layer.name}-{selection.label}", take, table=True, folded="Download this sum"
    )


def _count(most: int) -> int:
    if most < 2:
        return most
    if not 1 <= st.session_state.get("added", 1) <= most:
        st.session_state["added"] = most
    return int(st.slider(
        "Channels added, the largest contribution first", 1, most, min(5, most), key="added", bind="query-params",
        help="The sum of Eq. 10: the channels that add most first, those that subtract last. Arrow keys move by one.",
    ))  # fmt: skip
