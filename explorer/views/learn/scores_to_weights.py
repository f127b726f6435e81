"""Lessons four to six: fit, sum, compare."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import streamlit as st
import torch
from PIL import Image
from torch import Tensor

from chipcore import Layer, Network, maps
from chipcore.analysis import contributions, gate_experiments, map_similarity
from chipcore.analysis.gate_experiments import RATIOS, USUAL, Experiment, Fitted
from chipcore.gating.suffix import Activations
from chipcore.maps import STATES
from explorer import figures
from explorer.components.downloads import Export
from explorer.components.job_progress import progress_until_done
from explorer.figures import lessons as pictures
from explorer.figures import theme
from explorer.services import reproduce
from explorer.services.gallery import GalleryImage
from explorer.services.jobs import TooMany
from explorer.state import bundle, lesson_cache, navigation, queues
from explorer.state.selection import Selection
from explorer.text import plain, readable
from explorer.views.learn.gates_to_scores import COLUMNS, Take, activations, keep, kept, learned_row, look_for, style, symbols, try_this

_QUICK = 0.4  # seconds that a page waits for a fit before it shows its progress


# --- 4 fit ------------------------------------------------------------------------------------------------------


def _local(selection: Selection) -> tuple[tuple[Fitted, ...], Experiment] | None:
    """The small fit; None, and its progress on the page, while it runs."""
    asked = selection.network, selection.image, selection.layer, selection.target, activations(selection)
    try:
        job = lesson_cache.local_fit(*asked)
    except TooMany as error:
        st.info(f"The small fit has to wait: {plain(str(error))}", icon=":material/hourglass_top:")
        return None
    queues.only_the_last(job)
    job.finished.wait(_QUICK)
    if progress_until_done(queues.slow_maps(), job):
        return job.result
    if job.over:
        st.button("Run it again", key="run-again", icon=":material/replay:", on_click=_again, args=asked)
    return None


def _again(network: Network, image: GalleryImage, layer: Layer, target: int, known: Activations) -> None:
    with contextlib.suppress(TooMany):  # the page says so
        lesson_cache.local_fit(network, image, layer, target, known, again=True)


@st.cache_data(max_entries=128, show_spinner=False)
def _path(key: str, chosen: int, dark: bool, _path: tuple[Fitted, ...]) -> bytes:
    picture = pictures.path_picture(
        [one.ratio for one in _path], [one.support for one in _path], [one.r2 for one in _path], [one.held_out for one in _path], chosen,
        theme.theme_for(dark),
    )  # fmt: skip
    return figures.png(picture)


@st.cache_data(max_entries=128, show_spinner=False)
def _scatter(key: str, chosen: int, dark: bool, _one: Fitted, _measured: Experiment, _target: int) -> bytes:
    predicted = _measured.z.double() @ _one.row.double() + _one.intercept
    return figures.png(pictures.scatter_picture(predicted, _measured.scores[:, _target], _measured.fitted, theme.theme_for(dark)))


def fit(selection: Selection) -> Take | None:
    """Eq. 11 on this image, at every lambda."""
    layer, target = selection.layer, selection.target
    words, doing = st.columns(COLUMNS, gap="large")
    with words:
        st.markdown(
            f"Now we ask **{gate_experiments.FITTED} gated networks** about your photograph, and look for weights that predict their scores of "
            f"{plain(selection.label)} from which channels were open. A price _λ_ on every weight keeps only the channels that are worth it."
        )
        st.latex(r"\min_{\mathbf w_c}\ \tfrac12\sum_n h(\mathbf d_n)\, f^c\, e_n^2 + \lambda\lVert\mathbf w_c\rVert_1")
        st.latex(r"e_n = \mathbf w_c \mathbf z_n + b_c - g^c(\mathbf d_n)")
    with doing:
        found = _local(selection)
    if found is None:
        return None
    path, measured = found
    with doing, st.container(border=True):
        try_this("raise λ until a handful of channels is left. Do they still predict the gates they never saw?")
        keep("lambda", USUAL)
        ratio = kept("lambda", st.select_slider(
            "λ, as a share of the smallest λ that keeps no channel", RATIOS, key="lambda", bind="query-params",
            help=f"chipcore’s own fits take {USUAL:g}.",
        ))  # fmt: skip
    chosen = RATIOS.index(ratio)
    one = path[chosen]
    key = f"{selection.network.id}/{selection.image.sha256}/{layer.path}/{target}"
    dark = st.context.theme.type == "dark"
    with words:
        top = int(one.row.argmax())
        symbols([
            ("<i>N</i>", "gates: to learn from, to test with", f"{measured.fitted} and {len(measured.z) - measured.fitted}"),
            ("<i>λ</i>", f"{ratio:g} × the largest that keeps anything", readable(one.lam)),
            ("‖<b>w</b><sub>c</sub>‖<sub>0</sub>", "channels in use", f"{one.support:,} of {layer.channels:,}"),
            (f"<i>w</i><sup>{top}</sup>", f"the largest weight, channel {top}", readable(float(one.row[top]))),
            ("<i>b</i><sub>c</sub>", "the constant: the score with no channel open", readable(one.intercept)),
            ("<i>R</i>²", "of the gates it learned from", readable(one.r2)),
            ("<i>R</i>²", "of the gates it never saw", readable(one.held_out)),
        ])  # fmt: skip
        st.caption(
            "Eq. 11, and a constant _b_ that the paper leaves out; 1 is a perfect prediction. With one photograph _f_ is one factor of the whole and changes nothing. "
            "The W of the other pages is learned the same way from thousands of photographs, which need no constant."
        )
        with st.expander("How it is solved (Eq. 16 to 20)"):
            st.latex(
                r"\mathbf w \leftarrow \left(\mathbf b + \rho\,\mathbf m + \rho\,\mathbf q\right)\left(\mathbf G + \rho \mathbf I\right)^{-1}"
            )
            st.latex(r"\mathbf m \leftarrow \operatorname{soft}\!\left(\mathbf w - \mathbf q,\ \lambda/\rho\right)")
            st.latex(r"\mathbf q \leftarrow \mathbf q - (\mathbf w - \mathbf m)")
            st.caption(
                "Three steps, over and over: fit the scores (17), shrink every weight by _λ_/_ρ_ and set the small ones to zero (19), "
                "and push the two together (20). **G** sums _f h_ **z zᵀ** and **b** sums _f h g_ **z**: no photograph is needed any more."
            )
    with doing:
        sparse = next((step for step in path if step.held_out >= 0.9), None)
        look_for(
            (
                f"**{sparse.support:,} of {layer.channels:,} channels** predict the gates they never saw with R² {readable(sparse.held_out)}. "
                if sparse is not None
                else f"At this layer R² of unseen gates stays below 0.9, at best {readable(max(step.held_out for step in path))}: a sum over channels says only a part. "
            )
            + "Below 0, a constant would do better. Where the two curves part, the fit has begun to learn its own gates by heart."
        )
    with doing, st.container(key="lesson-charts"):
        st.image(
            _path(key, chosen, dark, path), width="stretch", output_format="PNG",
            alt=f"From strict to loose lambda {path[0].support} to {path[-1].support} channels are in use, and R² of held-out gates goes "
            f"from {readable(path[0].held_out)} to {readable(path[-1].held_out)}",
        )  # fmt: skip
        st.image(
            _scatter(key, chosen, dark, one, measured, target), width="stretch", output_format="PNG",
            alt=f"Predicted against measured scores of {len(measured.z)} gated networks; held-out R² {readable(one.held_out)}",
        )  # fmt: skip
    arrays = {
        "ratios": np.array(RATIOS), "rows": torch.stack([step.row for step in path]).numpy(), "z": measured.z.numpy(),
        "closed": measured.closed.numpy(), "scores": measured.scores[:, target].numpy(),
    }  # fmt: skip
    table = "lambda_ratio,lambda,channels,r2,held_out_r2\n" + "".join(
        f"{step.ratio},{step.lam:.6g},{step.support},{step.r2:.4f},{step.held_out:.4f}\n" for step in path
    )
    arrays["map"] = contributions.partial_map(one.row.float(), selection.seen.features[layer.name], range(layer.channels)).numpy()

    def take() -> Export:
        charts = [
            Image.fromarray(_pixels(one))
            for one in (_path(key, chosen, dark, path), _scatter(key, chosen, dark, path[chosen], measured, target))
        ]
        command = _explained(selection, "local_chip", "map", more=("--option", f"lambda_ratio={ratio:g}", *_SCORE_ALONE))
        return Export(pictures.beside(charts, style()), arrays, table, {"lambda_ratio": ratio, "gates": measured.fitted}, command)

    return take


# The lessons fit the score of Eq. 11 itself, where local CHIP subtracts a share of the other classes' scores.
_SCORE_ALONE = ("--option", "contrast=0")


def _explained(selection: Selection, method: str, stem: str, **more: Any) -> str:
    return reproduce.explain(
        selection.network, bundle.image_file(selection), selection.layer.name, selection.target, method, stem,
        colormap=selection.colormap, opacity=selection.opacity, **more,
    )  # fmt: skip


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# --- 5 sum ------------------------------------------------------------------------------------------------------


def _row(selection: Selection) -> tuple[Tensor, str] | None:
    """The row of W to add up with: learned from many images where there is one, else from this one."""
    row = learned_row(selection)
    if row is not None:
        return row, "learned from many photographs"
    found = _local(selection)
    if found is None:
        return None
    return found[0][RATIOS.index(USUAL)].row.float(), "fitted on this photograph alone, as there is no W for this class here"


def _overlay(selection: Selection, raw: Tensor, maximum: float | None = None) -> Image.Image:
    image = figures.enlarged(selection.seen.view)
    if maps.state(raw) != "ok":
        return figures.blank_picture(image)
    return figures.chip_picture(
        image, raw, selection.network.geometry.size, colormap=selection.colormap, opacity=selection.opacity, maximum=maximum
    )


def _is_image_file(picture: Image.Image, alternative: str) -> None:
    """A image's PNG would take longer to make than its map."""
    st.image(figures.jpeg(picture), width="stretch", output_format="JPEG", alt=alternative)


def add_up(selection: Selection) -> Take | None:
    """Eq. 10, channel by channel."""
    features = selection.seen.features[selection.layer.name]
    words, doing = st.columns(COLUMNS, gap="large")
    with doing:
        chosen = _row(selection)
    if chosen is None:
        return None
    row, source = chosen
    order = gate_experiments.by_contribution(row, features)
    if not order:
        doing.info(
            "**All weights or all channels are zero here,** so there is nothing to add up. Choose another layer.", icon=":material/info:"
        )
        return None
    with doing, st.container(border=True):
        try_this("add channels one by one. How many does the map need before it looks like the whole?")
        most = len(order)
        keep("sum-of", 3)
        st.session_state["sum-of"] = max(1, min(int(st.session_state["sum-of"]), most))
        added = kept("sum-of", st.slider(
            "Channels added, those that move the map most first", 1, max(2, most), key="sum-of", bind="query-params",
        ))  # fmt: skip
        added = min(added, most)
    whole, part = contributions.partial_map(row, features, order), contributions.partial_map(row, features, order[:added])
    last = order[added - 1]
    alike = map_similarity.pearson(part, whole)
    y, x = divmod(int(whole.argmax()), whole.shape[1])
    term = float(row[last] * features[last, y, x])
    with words:
        st.markdown(
            "Every channel is a picture; its weight says how much it speaks for the class. **Multiply and add: that is the map.** "
            "A negative weight takes away where its channel is active."
        )
        st.latex(r"\tilde A^c = \sum_k w_c^k A_k")
        symbols([
            ("<i>k</i>", f"the channel added last, number {added} of {most:,}", str(last)),
            ("<i>w</i><sub>c</sub><sup>k</sup>", "its weight", readable(float(row[last]))),
            ("<i>A</i><sub>k</sub>", f"its value at the map’s brightest place ({x}, {y})", readable(float(features[last, y, x]))),
            ("<i>w A</i>", "what it adds there", readable(term)),
            ("<i>Ã</i><sup>c</sup>", f"there, with {added} channel{'s' if added > 1 else ''}", readable(float(part[y, x]))),
            ("", "there, with all of them", readable(float(whole[y, x]))),
            ("", "correlation of the two maps", readable(alike)),
        ])  # fmt: skip
        st.caption(f"Eq. 10. The weights are {source}.")
    single = features[last] * row[last]
    panels = [
        (f"channel {last} alone{'' if row[last] > 0 else ', against'}", _overlay(selection, single.abs())),
        (f"the sum of {added}", _overlay(selection, part)),
        (f"the sum of all {most:,}", _overlay(selection, whole)),
    ]
    with doing:
        for column, (heading, picture) in zip(st.columns(3), panels, strict=True):
            with column:
                _is_image_file(picture, f"{heading}, of {selection.label} at {selection.layer.name}")
                st.caption(f"**{plain(heading)}**")
        if maps.state(part) != "ok":
            st.caption(f"The sum of {added} is blank: {STATES[maps.state(part)]}.")
        look_for(
            f"The first **{gate_experiments.channels_for_correlation(row, features, order):,} of {most:,}** channels give a map that correlates with the whole by 0.9: "
            "you would hardly tell them apart. The others are corrections."
        )
    arrays = {"part": part.numpy(), "whole": whole.numpy(), "order": np.array(order), "row": row.numpy()}
    method = "chip" if learned_row(selection) is not None else "local_chip"
    lines = [_explained(selection, method, "part", channels=order[:added]), _explained(selection, method, "whole")]
    return lambda: Export(
        pictures.beside([picture for _heading, picture in panels], style()), arrays, contributions.contributions_csv(row, features, order),
        settings={"added": added, "weights": source}, command="\n".join(lines),
    )  # fmt: skip


# --- 6 compare --------------------------------------------------------------------------------------------------


def compare(selection: Selection) -> Take:
    """CHIP with W, CHIP of this image alone, and Grad-CAM, at one layer."""
    network, layer, target, label = selection.network, selection.layer, selection.target, plain(selection.label)
    features, known = selection.seen.features[layer.name], activations(selection)
    words, doing = st.columns(COLUMNS, gap="large")
    with doing, st.container(border=True):
        try_this("go from the last layer to the first. Which map still finds it?")
        with st.container(horizontal=True):
            for one in network.layers:
                st.button(
                    one.name, key=f"at-{one.name}", type="primary" if one == layer else "secondary", on_click=navigation.pick_layer, args=(one.name,)
                )  # fmt: skip
    row = learned_row(selection)
    chip = None if row is None else contributions.partial_map(row, features, range(layer.channels))
    grad = torch.from_numpy(
        lesson_cache.gradcam(network.id, selection.image.sha256, layer.path, target, network, layer, selection.image, known)
    )
    with doing:
        places = st.columns(3)
        _map(places[0], selection, "CHIP", "W from many photographs", chip)
        _map(places[1], selection, "Grad-CAM", "gradients of this photograph", grad)
        found = None
        with places[2]:
            found = _local(selection)
        own = (
            None if found is None else contributions.partial_map(found[0][RATIOS.index(USUAL)].row.float(), features, range(layer.channels))
        )
        if own is not None:
            _map(places[2], selection, "local CHIP", f"{gate_experiments.FITTED} gates of this photograph", own)
    with words:
        st.markdown(
            "**CHIP** knows from many photographs which channels matter. **Grad-CAM** asks the gradient of this one photograph: good at the "
            "last layer, where it was made for, and often lost before. **Local CHIP** closes channels too, but has seen nothing but this photograph."
        )
        st.latex(r"\tilde A^c = \sum_k w_c^k A_k")
        st.latex(r"L^c = \sum_k \Big(\tfrac{1}{uv}\sum_{i,j}\tfrac{\partial y^c}{\partial A_k(i,j)}\Big) A_k")
        rows = []
        for name, first, second in (
            ("CHIP and Grad-CAM", chip, grad),
            ("CHIP and local CHIP", chip, own),
            ("Grad-CAM and local CHIP", grad, own),
        ):
            if first is not None and second is not None:
                rows.append(("<i>r</i>", name, readable(map_similarity.pearson(first, second))))
        symbols([("", "layer", f"{layer.name}, {layer.height} × {layer.width}"), *rows])
        st.caption(
            f"Correlation of the maps of {label}: 1 is the same picture, 0 nothing in common. _y_ is the class’s score. Fig. 9 of the paper shows this for VGG16. Of every map the positive part is drawn (Grad-CAM’s ReLU)."
        )
    with st.container(horizontal=True):
        if st.button("All depths at once, in Explore", key="to-explore", icon=":material/arrow_outward:"):
            navigation.open_view("explore")
        if st.button("Learn W from your own photographs", key="to-fit", icon=":material/model_training:"):
            navigation.open_view("fit")
    with doing:
        alike = (
            ""
            if chip is None
            else f"At {plain(layer.name)} CHIP and Grad-CAM correlate by **{readable(map_similarity.pearson(chip, grad))}**. "
        )
        look_for(
            f"{alike}At the last layer that is usually near 1: there a gradient and a weight learned by closing channels say the same. "
            "Go towards the first layers and watch it fall. How much of the object each map keeps there is for your eyes to judge; "
            "Localize measures it."
        )
    made = {"chip": chip, "gradcam": grad, "local_chip": own}
    kept_maps = {name: raw for name, raw in made.items() if raw is not None}

    def sheet() -> Image.Image:
        return pictures.beside([_overlay(selection, raw) for raw in kept_maps.values()], style())

    return lambda: Export(
        sheet(), {name: raw.numpy() for name, raw in kept_maps.items()}, settings={"maps": list(kept_maps)},
        command="\n".join(_explained(selection, name, name, more=_SCORE_ALONE if name == "local_chip" else ()) for name in kept_maps),
    )  # fmt: skip


def _map(place: st.delta_generator.DeltaGenerator, selection: Selection, name: str, words: str, raw: Tensor | None) -> None:
    """One map with its name, or why there is none."""
    state = "ok" if raw is None else maps.state(raw)
    missing = "no row of W for this class at this layer" if raw is None else "" if state == "ok" else STATES[state]
    picture = figures.blank_picture(figures.enlarged(selection.seen.view)) if raw is None or missing else _overlay(selection, raw)
    with place:
        _is_image_file(picture, f"{name} of {selection.label} at {selection.layer.name}" + (f": blank, {missing}" if missing else ""))
        line = missing or f"{words}, maximum {readable(float(raw.max()) if raw is not None else math.nan)}"
        st.caption(f"**{name}** · {plain(line)}")
