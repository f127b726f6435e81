"""Close channels and watch the predictions move: the method, tested by its own mechanism."""

from __future__ import annotations

import numpy as np
import streamlit as st
import torch

from chipcore.analysis import channel_ablation, contributions
from chipcore.analysis.channel_ablation import AblatedScores
from chipcore.analysis.layer_maps import LayerMap
from explorer.components import downloads
from explorer.components.downloads import Export
from explorer.components.sidebar import PREDICTIONS
from explorer.figures import bars
from explorer.services import reproduce
from explorer.state import bundle, cached
from explorer.state.selection import Selection
from explorer.text import percent, plain

WEIGHT, SHARE, OWN = "largest weight", "adding most here", "my own choice"


def show(selection: Selection, here: LayerMap) -> None:
    """Which channels are closed on the left, what the network then says on the right."""
    choice, answer = st.columns([1, 2.2], gap="large")
    with choice:
        channels = _channels(selection, here)
    closed = cached.closed(
        selection.network.id, selection.image.sha256, here.layer.name, tuple(channels), selection.network, selection.seen
    )
    with answer:
        _answer(selection, closed, len(channels))
    downloads.offer(
        "take-closed", f"closed-{selection.network.name}-{here.layer.name}-{selection.image.name}",
        lambda: _taken(selection, here, closed, channels), table=True, folded="Download these predictions",
    )  # fmt: skip


def _channels(selection: Selection, here: LayerMap) -> list[int]:
    layer, label = here.layer, plain(selection.label)
    way = st.segmented_control(
        "Which channels to switch off", [WEIGHT, SHARE, OWN], default=WEIGHT, required=True, key="which", bind="query-params", wrap=True,
        help="A channel that is switched off has its feature map set to 0 for the rest of the network (Eq. 1). **Largest weight:** by W alone, whatever the "
        "photograph. **Adding most here:** by weight times mean activation on this photograph.",
    )  # fmt: skip
    if way == OWN:
        options = list(range(layer.channels))
        if not set(st.session_state.get("closed", [])) <= set(options):  # another layer's
            st.session_state["closed"] = [k for k in st.session_state["closed"] if k in options]
        return list(st.multiselect(
            "Their numbers", options, key="closed", bind="query-params", placeholder="Type a number",
            help="‘One channel’ shows what each of them looks for.",
        ))  # fmt: skip
    if here.row is None:
        st.caption(f"Channel importance for {label} is unknown without a row of W; choose channels yourself.")
        return []
    steps = channel_ablation.ablation_steps(layer.channels)
    if st.session_state.get("many") not in (None, *steps):
        st.session_state["many"] = steps[-1]
    count = st.select_slider("How many of them", steps, value=10 if 10 in steps else steps[1], key="many", bind="query-params")
    by = here.row if way == WEIGHT else contributions.contributions(here.row, selection.seen.features[layer.name])
    what = f"with the largest weight for {label}" if way == WEIGHT else f"that add most to the map of {label}"
    st.caption(f"The {count:,} channels of {plain(layer.name)} {what}, and beside them as many random ones.")
    return torch.argsort(by, descending=True, stable=True)[: int(count)].tolist()


def _answer(selection: Selection, closed: AblatedScores, count: int) -> None:
    before, target = selection.seen.probabilities, selection.target
    after, random = closed.chosen, closed.random.mean(0)
    st.markdown(_sentence(selection, closed, count))
    shown = _shown(selection, closed)
    labels = selection.network.classes.labels
    st.html(bars.bars(
        ["class", "all on", f"these {count:,} off", f"{count:,} random ones off"],
        [
            bars.Line(labels[i], tuple(bars.TableCell(float(p[i]), percent(float(p[i]))) for p in (before, after, random)), i == target)
            for i in shown
        ],
    ))  # fmt: skip
    st.caption(
        f"The photograph’s first {PREDICTIONS} predictions, your class, and what the network says instead. "
        f"Random: the mean of {len(closed.random)} draws."
    )


def _shown(selection: Selection, closed: AblatedScores) -> list[int]:
    """The image's first predictions, the class, and what the network says instead."""
    random = closed.random.mean(0)
    return list(dict.fromkeys([*selection.seen.best(PREDICTIONS), selection.target, int(closed.chosen.argmax()), int(random.argmax())]))


def _taken(selection: Selection, here: LayerMap, closed: AblatedScores, channels: list[int]) -> Export:
    from explorer.figures import lessons, theme  # Matplotlib takes longer to load than the page

    network, before, random = selection.network, selection.seen.probabilities, closed.random.mean(0)
    labels, count = network.classes.labels, len(channels)
    bars_of = [
        (labels[i], (float(before[i]), float(closed.chosen[i]), float(random[i])), i == selection.target) for i in _shown(selection, closed)
    ]
    legend = ("all channels open", f"these {count:,} closed", f"{count:,} random ones closed")
    picture = lessons.probabilities_picture(bars_of, legend, f"{network.title}, {here.layer.name}: {count:,} channels closed", theme.LIGHT)
    return Export(
        picture,
        {"closed": np.array(sorted(channels), dtype=np.int64), "probabilities_all_open": before.numpy(), "probabilities": torch.cat([closed.chosen[None], closed.random]).numpy()},
        channel_ablation.ablation_csv(before, closed, network.classes), bundle.about(selection, view="explore, channels closed", closed=sorted(channels), draws=len(closed.random)),
        reproduce.gate(network, bundle.image_file(selection), here.layer.name, "closed", close=sorted(channels), random=len(closed.random)),
        bundle.files(selection),
    )  # fmt: skip


def _sentence(selection: Selection, closed: AblatedScores, count: int) -> str:
    label, target = plain(selection.label), selection.target
    before, after = float(selection.seen.probabilities[target]), float(closed.chosen[target])
    if not count:
        return "No channel is switched off yet: all three columns are the unchanged network."
    low, high = float(closed.random[:, target].min()), float(closed.random[:, target].max())
    channels = "channel" if count == 1 else "channels"
    return (
        f"Switch off {'this' if count == 1 else 'these'} **{count:,}** {channels}, and {label} goes from **{percent(before)}** to **{percent(after)}**. "
        f"With as many random channels switched off it lies between {percent(low)} and {percent(high)}."
    )
