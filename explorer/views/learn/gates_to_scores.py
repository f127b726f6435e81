"""Lessons one to three: gate, predict, weigh."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import streamlit as st
import torch
from PIL import Image
from torch import Tensor

from chipcore import ChipError
from chipcore.analysis import gate_experiments
from chipcore.gating.gates import proximity
from chipcore.gating.suffix import Activations
from explorer import figures
from explorer.components.downloads import Export
from explorer.components.switches import switches
from explorer.figures import lessons as pictures
from explorer.figures import theme
from explorer.figures.theme import Theme
from explorer.services import reproduce
from explorer.state import bundle, lesson_cache, url
from explorer.state.selection import Selection
from explorer.text import percent, plain, readable

Take = Callable[[], Export]  # the lesson to take home, made when it is asked for
COLUMNS = (1, 1.35)  # the words, and what there is to do
_TURNED = "turned"
SHOWN = 6  # feature maps of the first lesson
BARS = 5  # classes of the second
SHARES = ("1/10", "1/4", "1/2", "1", "2", "4")  # sigma^2 as a share of K


# --- what all lessons use ---------------------------------------------------------------------------------------


def style() -> Theme:
    return theme.theme_for(st.context.theme.type == "dark")


def keep(key: str, default: Any) -> None:
    """Before a widget: its value from when it was last on the screen, which Streamlit forgets."""
    if st.session_state.get(key) is None:
        st.session_state[key] = st.session_state.get(f"kept-{key}", default)


def kept(key: str, value: Any) -> Any:
    """After a widget: remember its value."""
    st.session_state[f"kept-{key}"] = value
    return value


def symbols(rows: Sequence[tuple[str, str, str]]) -> None:
    """A table of (symbol, what it is, its value here); symbols are HTML of ours, the rest is text."""
    lines = "".join(
        f"<tr><td>{symbol}</td><td>{html.escape(words)}</td><td>{html.escape(value)}</td></tr>" for symbol, words, value in rows
    )
    st.html(f'<table class="chip-symbols"><tbody>{lines}</tbody></table>')


def image(picture: Image.Image, alternative: str) -> None:
    st.image(figures.png(picture), width="stretch", output_format="PNG", alt=alternative)


def try_this(words: str) -> None:
    st.markdown(f":material/touch_app: **Try it:** {words}")


def look_for(words: str) -> None:
    """What a student who is alone with the page can check the trial against."""
    with st.expander("What you should see", icon=":material/visibility:"):
        st.markdown(words)


def activations(selection: Selection) -> Activations:
    network, image, layer = selection.network, selection.image, selection.layer
    return lesson_cache.activations(network.id, image.sha256, layer.path, network, layer, image)


def learned_row(selection: Selection) -> Tensor | None:
    """w_c learned from many images, (K,); None where there is none."""
    try:
        importance = selection.importance(selection.layer)
    except ChipError:
        return None
    return None if importance.evidence(selection.target) == "none" else importance.row(selection.target)


@dataclass(frozen=True)
class _Gate:
    """The gate of lessons one to three, and the choices that determine it; ``turned`` are the switches turned by hand after that."""

    gate: Tensor
    first: gate_experiments.First
    draw: int
    turned: tuple[int, ...] = ()

    @property
    def number_open(self) -> int:
        return int(self.gate.sum())


def _gate(selection: Selection) -> _Gate:
    """The controls of the gate: how many channels are open, and which."""
    channels, row = selection.layer.channels, learned_row(selection)
    keep("open", 50)
    percentage = kept(
        "open",
        st.slider("How many channels are open", 0, 100, step=5, format="%d%%", key="open", bind="query-params", on_change=_turn_none),
    )
    options = ["at random", "important first", "unimportant first"] if row is not None else ["at random"]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        keep("first", "at random")
        if st.session_state["first"] not in options:
            st.session_state["first"] = "at random"
        first = kept("first", st.segmented_control(
            "Which ones close", options, required=True, key="first", bind="query-params", on_change=_turn_none,
            help=f"At random, as CHIP does; or by their importance for {plain(selection.label)}, which CHIP has learned.",
        ))  # fmt: skip
        keep("redraw", 0)
        st.button("New random gates", key="again", icon=":material/casino:", disabled=first != "at random", on_click=_draw_again)
    draw = int(st.session_state["redraw"])
    order = gate_experiments.ablation_order(channels, draw, first, row)
    gate = gate_experiments.partly_open_gate(order, gate_experiments.open_count(channels, percentage))
    turned = _turned(channels)
    for k in turned:
        gate[k] = ~gate[k]
    return _Gate(gate, first, draw, turned)


def _turned(channels: int) -> tuple[int, ...]:
    """The switches that were turned by hand, which a link says too."""
    asked = url.asked(_TURNED)
    if asked is not None:
        st.session_state[_TURNED] = {int(one) for one in asked.split(".") if one.isdecimal() and len(one) < 6}
    known = st.session_state.setdefault(_TURNED, set())
    url.write_unless(_TURNED, ".".join(map(str, sorted(known))), "")
    return tuple(sorted(k for k in known if k < channels))


def _turn(channel: int) -> None:
    st.session_state[_TURNED] = st.session_state.get(_TURNED, set()) ^ {channel}


def _turn_none() -> None:
    """Another gate: what was turned by hand belonged to the one before."""
    st.session_state[_TURNED] = set()


def _draw_again() -> None:
    _turn_none()
    st.session_state["redraw"] = kept("redraw", int(st.session_state.get("redraw", 0)) + 1)


def _command(selection: Selection, chosen: _Gate, **more: Any) -> str:
    """The command that closes the same channels."""
    closed = [int(k) for k in (~chosen.gate.bool()).nonzero().flatten()]
    return reproduce.gate(selection.network, bundle.image_file(selection), selection.layer.name, "gate", close=closed, **more)


def _settings(chosen: _Gate) -> dict[str, Any]:
    return {"open": chosen.number_open, "which_close": chosen.first, "draw": chosen.draw, "turned_by_hand": list(chosen.turned)}


# --- 1 gate -----------------------------------------------------------------------------------------------------


def gate(selection: Selection) -> Take:
    """Eq. 1 and 2: channels are closed."""
    layer, features = selection.layer, selection.seen.features[selection.layer.name]
    words, doing = st.columns(COLUMNS, gap="large")
    with doing, st.container(border=True):
        try_this("close channels, all at once or one by one at its switch, and watch their pictures go out.")
        chosen = _gate(selection)
    strongest = [int(k) for k in features.mean((1, 2)).topk(min(SHOWN, layer.channels)).indices]
    with words:
        st.markdown(
            f"This layer sees the photograph as **{layer.channels:,} channels**: small pictures of where each one found its pattern. "
            "A gate behind every channel can switch it off: its values are replaced by zeros. The rest of the network is unchanged."
        )
        st.latex(r"\hat A_k = d_k \, A_k")
        st.latex(r"z_k = \frac{1}{uv}\sum_{i,j} \hat A_k(i,j)")
        k = strongest[0]
        a, d = float(features[k].mean()), int(chosen.gate[k])
        symbols([
            ("<i>K</i>", "channels of the layer", f"{layer.channels:,}"),
            ("<i>u</i> × <i>v</i>", "pixels of a channel", f"{layer.height} × {layer.width}"),
            ("<b>d</b>", "switches that are open", f"{chosen.number_open:,} of {layer.channels:,}"),
            (f"<i>d</i><sub>{k}</sub>", f"switch of channel {k}, the strongest", str(d)),
            (f"mean <i>A</i><sub>{k}</sub>", "over all its pixels", readable(a)),
            (f"<i>z</i><sub>{k}</sub>", "what is left behind the switch", f"{d} · {readable(a)} = {readable(d * a)}"),
        ])  # fmt: skip
        st.caption("Eq. 1 and 2. CHIP keeps only the mean of every channel behind its gate, **z**.")
    with doing:
        described = f"{chosen.number_open} of {layer.channels} switches are open, the others closed"
        switches([bool(one) for one in chosen.gate], described, "switches", _turn)
        maps = pictures.feature_maps(features, chosen.gate, strongest, selection.colormap, style())
        opened = [k for k in strongest if chosen.gate[k]]
        image(maps, f"The strongest {len(strongest)} channels before and behind their switches; open among them: {opened or 'none'}")
        st.caption(
            f"Above, all {layer.channels:,} switches: click one to turn it. Below, the channels that are strongest in this photograph, before and behind theirs."
        )
        look_for(
            "Each switch that closes turns one picture of the lower row black, and its _z_ to 0; nothing else changes. With **all** of them closed "
            "nothing of the photograph is left, and the network says the same of every photograph (next step)."
        )
    return lambda: Export(
        maps, {"gate": chosen.gate.numpy(), "z": (features.mean((1, 2)) * chosen.gate).numpy()}, settings=_settings(chosen),
        command=_command(selection, chosen),
    )  # fmt: skip


# --- 2 predict --------------------------------------------------------------------------------------------------


def _scores(selection: Selection, chosen: _Gate) -> Tensor:
    network, layer = selection.network, selection.layer
    return torch.from_numpy(
        lesson_cache.answer(
            network.id, selection.image.sha256, layer.path, chosen.first, selection.target, chosen.number_open, chosen.draw, chosen.turned,
            network, layer, activations(selection), chosen.gate,
        )
    )  # fmt: skip


def _what_gates_do(selection: Selection) -> str:
    """The three trials of this lesson with the numbers that come out."""
    row, channels = learned_row(selection), selection.layer.channels
    if row is None:
        return "The more switches are closed, the less is left of the answer. Which ones matter, this lesson cannot say: there is no row of W for this class here."
    told = []
    trials: list[tuple[gate_experiments.First, int]] = [("important first", 90), ("unimportant first", 50), ("at random", 50)]
    for first, open_ in trials:
        gate = gate_experiments.partly_open_gate(
            gate_experiments.ablation_order(channels, 0, first, row), gate_experiments.open_count(channels, open_)
        )
        told.append(percent(float(selection.network.class_probabilities(_scores(selection, _Gate(gate, first, 0)))[selection.target])))
    whole = percent(float(selection.seen.probabilities[selection.target]))
    return (
        f"With all channels open the network gives {plain(selection.label)} {whole}. Close the **10% that matter most** and it gives {told[0]}; "
        f"the **50% that matter least**, {told[1]}; **50% at random**, {told[2]}. The further apart these are, the better W knows which channels the class needs."
    )


def predict(selection: Selection) -> Take:
    """Eq. 3 and 4: the gated network's answer, measured now."""
    target, labels = selection.target, selection.network.classes.labels
    words, doing = st.columns(COLUMNS, gap="large")
    with doing, st.container(border=True):
        try_this(f"close the important channels first: how soon is {plain(selection.label)} lost? Then the unimportant ones.")
        chosen = _gate(selection)
    scores = _scores(selection, chosen)
    before, after = selection.seen.probabilities, selection.network.class_probabilities(scores)
    first = int(after.argmax())
    with words:
        st.markdown(
            "With some switches closed we have **another network**. We give it the same photograph and write down what it says. "
            "CHIP asks many such networks: if a class’s score falls whenever a channel is closed, that channel matters for the class."
        )
        st.latex(r"f(X) = [f^1(X) \cdots f^C(X)]^T")
        st.latex(r"g(X, \mathbf d) = [g^1(X, \mathbf d) \cdots g^C(X, \mathbf d)]^T")
        symbols([
            ("<i>f</i><sup> c</sup>", f"probability of {selection.label}, all open", percent(float(before[target]))),
            ("", "its score before softmax", readable(float(selection.seen.scores[target]))),
            ("<b>d</b>", "switches open", f"{chosen.number_open:,} of {selection.layer.channels:,}"),
            ("<i>g</i><sup> c</sup>", "its score with this gate", readable(float(scores[target]))),
            ("", "its probability with this gate", percent(float(after[target]))),
        ])  # fmt: skip
        st.caption(
            "Eq. 4, all channels open, and Eq. 3, with this gate. CHIP fits the score; the probability says how much the photograph counts (next step)."
        )
    with doing:
        st.markdown(
            f"**{plain(selection.label)}: from {percent(float(before[target]))} to {percent(float(after[target]))}.** "
            f"The gated network’s first guess is **{plain(labels[first])}**, {percent(float(after[first]))}."
        )
        rows = list(dict.fromkeys([*selection.seen.best(BARS), target, *after.topk(min(3, len(after))).indices.tolist()]))
        bars = [(labels[index], float(before[index]), float(after[index]), index == target) for index in rows]
        _bars(bars)
        look_for(_what_gates_do(selection))
    table = "class,label,probability_all_open,probability_gated\n" + "".join(
        f'{index},"{labels[index]}",{float(before[index]):.6f},{float(after[index]):.6f}\n' for index in rows
    )
    arrays = {"gate": chosen.gate.numpy(), "scores_all_open": selection.seen.scores.numpy(), "scores_gated": scores.numpy()}
    title = f"{selection.label}, {chosen.number_open:,} of {selection.layer.channels:,} channels of {selection.layer.name} open"
    return lambda: Export(
        pictures.answer_picture(bars, title, theme.LIGHT), arrays, table, _settings(chosen), _command(selection, chosen, features=[])
    )


def _bars(rows: Sequence[tuple[str, float, float, bool]]) -> None:
    """Two bars a class: all channels open, and with this gate."""
    lines = "".join(
        f'<tr{" class=chip-this" if chosen else ""}><th scope="row">{html.escape(label)}</th>'
        f'<td><i class="chip-before" style="width:{100 * before:.1f}%"></i><i class="chip-after" style="width:{100 * after:.1f}%"></i></td>'
        f"<td>{percent(before)} → {percent(after)}</td></tr>"
        for label, before, after, chosen in rows
    )
    st.html(
        '<table class="chip-changes"><caption><i class="chip-before"></i> all channels open <i class="chip-after"></i> with this gate</caption>'
        f"<tbody>{lines}</tbody></table>"
    )


# --- 3 weigh ----------------------------------------------------------------------------------------------------


def weigh(selection: Selection) -> Take:
    """Eq. 7 and 8: how much this image and this gate count."""
    channels = selection.layer.channels
    words, doing = st.columns(COLUMNS, gap="large")
    with doing, st.container(border=True):
        try_this("choose how quickly trust fades, then close more channels.")
        keep("sigma", "1")
        share = kept("sigma", st.select_slider(
            "σ² as a multiple of the number of channels", SHARES, key="sigma", bind="query-params",
            help="Small: only gates close to the whole network count. chipcore’s own fits take 1.",
        ))  # fmt: skip
        chosen = _gate(selection)
    sigma2 = channels * float(Fraction(share))
    closed = channels - chosen.number_open
    h = float(proximity(chosen.gate.double(), sigma2))
    loyalty = float(selection.seen.probabilities[selection.target])
    with words:
        st.markdown(
            "Not every answer counts the same. **Gates near the whole network count more**, since it is the whole network that we want "
            f"to explain. And **photographs in which the network sees {plain(selection.label)} count more** for that class."
        )
        st.latex(r"h(\mathbf d) = \exp\!\left(-\tfrac{1}{\sigma^2}\,\lVert \mathbf d - \mathbf 1\rVert_2^2\right)")
        st.latex(r"\pi_c(X)^2 = f^c(X)")
        symbols([
            ("‖<b>d</b> − <b>1</b>‖²", "switches closed", f"{closed:,}"),
            ("<i>σ</i>²", f"{share} × {channels:,}", readable(sigma2)),
            ("<i>h</i>(<b>d</b>)", f"exp(−{closed:,} / {readable(sigma2)})", readable(h)),
            ("<i>f</i><sup> c</sup>", f"probability of {selection.label}", readable(loyalty)),
            ("<i>f</i><sup> c</sup> · <i>h</i>", "the weight of this answer", readable(loyalty * h)),
        ])  # fmt: skip
        st.caption("Eq. 8 and 7. Choose a class in the sidebar that is not in the photograph: its weight is close to nothing.")
    with doing:
        curve = pictures.proximity_curve(channels, sigma2, closed, style())
        look_for(
            f"With half of the channels closed, _h_ is exp(−0.5 / 1) = {math.exp(-0.5):.2f} at a multiple of 1, but exp(−0.5 / 0.1) = {math.exp(-5):.3f} at 1/10: "
            "there only gates close to the whole network teach anything. At 4 all gates count nearly alike."
        )
        image(curve, f"The weight h falls from 1 with no channel closed; this gate closes {closed} and has {readable(h)}")
    settings = {**_settings(chosen), "sigma2": sigma2, "h": h, "f": loyalty}
    arrays = {"gate": chosen.gate.numpy(), "proximity": np.array(h), "probability": np.array(loyalty)}
    return lambda: Export(curve, arrays, settings=settings, command=_command(selection, chosen, features=[], sigma2=sigma2))
