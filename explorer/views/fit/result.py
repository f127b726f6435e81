"""The lower half of the page Fit: what a fit has learned, class by class, and how W was found."""

from __future__ import annotations

import numpy as np
import streamlit as st

from chipcore import ChipError, Importance
from chipcore.analysis import evidence, layer_maps
from chipcore.analysis.evidence import EvidenceRow
from chipcore.fitting import diagnostics
from chipcore.fitting.diagnostics import Curve
from chipcore.importance import GOOD_EVIDENCE
from explorer.components import downloads
from explorer.components.downloads import Export
from explorer.figures import enlarged
from explorer.figures import fit as figures
from explorer.services import fits, reproduce
from explorer.services.fits import Run
from explorer.state import cached, own_fits, url
from explorer.state.selection import Selection
from explorer.state.visitors import can_shut_down, operator
from explorer.text import decimal, duration, plain, readable
from explorer.views.explore import pictures

WANTED = "fit-wanted"  # in the session: the run whose result is to be shown when it is over


def show(selection: Selection) -> None:
    """The results of this network's fits, the newest first or the one in the URL."""
    done = {run.key: run for run in fits.runs() if run.finished and run.request.network == selection.model}
    if not done:
        return
    st.divider()
    wanted, asked = st.session_state.get(WANTED), url.changed_value("run")
    if wanted in done:
        st.session_state["run"] = st.session_state.pop(WANTED)
        if can_shut_down(done[wanted].owner) and not own_fits.is_used(done[wanted]):
            own_fits.use(done[wanted])  # whose fit it is looks at it at once; everybody else keeps theirs
            st.rerun()
    elif asked in done:
        st.session_state["run"] = asked
    elif st.session_state.get("run") not in done:
        st.session_state["run"] = next(iter(done))
    heading, choice = st.columns([1, 1.4], vertical_alignment="bottom")
    heading.subheader("What was learned", anchor=False)
    key = choice.selectbox(
        "Fit", list(done), format_func=lambda key: _said(done[key]), key="run", filter_mode=None, persist_state="session"
    )
    url.write("run", key)
    try:
        _result(selection, done[key])
    except ChipError as error:
        st.warning(f"Could not read this result: {plain(str(error))}", icon=":material/info:")


def _said(run: Run) -> str:
    asked = run.request
    return (
        f"{', '.join(asked.layers)} · {asked.count:,} photographs · {asked.settings['gates']} gates · {run.finished[:16].replace('T', ' ')}"
    )


def _result(selection: Selection, run: Run) -> None:
    names = list(run.request.layers)
    if st.session_state.get("fitted-layer") not in names:
        st.session_state["fitted-layer"] = names[-1]
    layer = st.segmented_control("Layer of the result", names, required=True, key="fitted-layer", bind="query-params") or names[-1]
    importance = run.importance(selection.network, layer)
    rows = evidence.evidence_rows(importance, selection.network.classes.labels)
    _verdict(run, rows)
    _in_use(selection, run)
    _before_and_after(selection, run, layer)
    left, right = st.columns([1, 1.3], gap="medium")
    with left:
        st.markdown("##### Effective number of images of each class")
        st.plotly_chart(figures.evidence(rows), key="evidence", alt=_bars_in_words(rows), config={"displayModeBar": False})
        shown = f" The first {figures.SHOWN} are shown." if len(rows) > figures.SHOWN else ""
        st.caption(f"The sum of the network’s probabilities for the class. Below {GOOD_EVIDENCE:.0f} (dotted) a row is weak.{shown}")  # fmt: skip
    with right:
        st.markdown("##### All classes")
        _table(rows)
    curve, label = _curves(selection, run, layer)
    taken = _Taker(selection, run, layer, importance, rows, curve, label)
    downloads.offer("fit", f"fit-{selection.network.name}-{layer}", taken.take, table=True)
    st.download_button(
        "W (safetensors)", taken.tensors, f"{layer}.safetensors", "application/octet-stream", on_click="ignore", key="fit-w",
        icon=":material/deployed_code:", help="As chipcore reads it: put it where --importance looks, or in the cache.",
    )  # fmt: skip
    st.markdown("The same on the command line:")
    st.code(reproduce.fit(run), language="bash", wrap_lines=True)


def _verdict(run: Run, rows: list[EvidenceRow]) -> None:
    good = sum(row.evidence == "good" for row in rows)
    weak = sum(row.evidence == "weak" for row in rows)
    told = f"{run.request.count:,} photographs in {duration(run.seconds)}."
    if run.unreadable:
        told += f" {len(run.unreadable)} could not be read and were left out: {', '.join(plain(name) for name in run.unreadable[:3])}."
    if not good and not weak:
        st.warning(f"{told} **No class had enough evidence:** the network gives the requested classes too little probability on these images. Add images of them.", icon=":material/block:")  # fmt: skip
    elif not good:
        st.warning(f"{told} **Every row is weak** ({weak}): each comes from few images (an effective number below {GOOD_EVIDENCE:.0f}). Add images of a class before you trust its maps.", icon=":material/balance:")  # fmt: skip
    else:
        weakly = (
            f" and {weak:,} weak ones, from few images (an effective number below {GOOD_EVIDENCE:.0f}): read their maps with care"
            if weak
            else ""
        )
        st.markdown(f"{told} **{good:,} good row{'s' if good > 1 else ''} of W**{weakly}.")


def _in_use(selection: Selection, run: Run) -> None:
    """Whose W this is now, and the buttons that change that."""
    network, mine, published = selection.network, own_fits.is_used(run), fits.is_active(run, selection.network)
    with st.container(horizontal=True, vertical_alignment="center"):
        if published:
            st.markdown(":material/public: **Published:** this W is active in everybody’s views and on the command line.")
            if operator() and st.button(
                "Withdraw", key="withdraw", icon=":material/undo:",
                help="Back to the W that ships with the app at these layers, or to none. This fit stays here.",
            ):  # fmt: skip
                fits.deactivate(run, network)
                st.rerun()
            return
        if mine:
            st.markdown(":material/visibility: **Yours:** this W is active in your views. Everybody else keeps the W that they have.")
            if st.button(
                "Deactivate", key="take-out", icon=":material/undo:", help="Back to the W that everybody has. This fit stays here."
            ):
                own_fits.stop_using(run)
                st.rerun()
        else:
            st.markdown("Another W is active in your views at these layers.")
            if st.button("Activate W", key="put-in", icon=":material/check:", help="In your views alone."):
                own_fits.use(run)
                st.rerun()
        if operator() and st.button(
            "Publish", key="publish", icon=":material/public:", help="For everybody who uses this app, and for the command line."
        ):
            fits.activate(run, network)
            own_fits.stop_using(run)
            st.rerun()


def _before_and_after(selection: Selection, run: Run, layer: str) -> None:
    """The chosen class's map by the W that everybody has, and by this fit."""
    network, target, label = selection.network, selection.target, plain(selection.label)
    fitted = run.importance(network, layer)
    if not fitted.support[target]:
        st.caption(f"Before and after: this fit learned no row for {label}. Choose one of its classes in the sidebar.")
        return
    if fits.is_active(run, network):
        return
    at, features = network.layer(layer), selection.seen.features[layer]
    found = [
        ("Before", layer_maps.layer_map(at, target, features, lambda: cached.shared_importance(network, layer))),
        ("After", layer_maps.layer_map(at, target, features, lambda: fitted)),
    ]
    st.markdown(f"##### {label} at {plain(layer)}, before and after")
    with st.container(key="maps-before-after"):
        for title, one in found:
            with st.container(key=f"cell-{title.lower()}", gap=None):
                pictures.image(pictures.of_map(selection, enlarged(selection.seen.view), one), f"{title}: CHIP map of {selection.label}")
                st.caption(f"**{title}.** {_told(one, target)}")


def _told(one: layer_maps.LayerMap, target: int) -> str:
    if one.missing or one.importance is None:
        return plain(one.missing or "There is no W.").capitalize()
    r2 = float(one.importance.r2[target])
    told = "R² not measured" if np.isnan(r2) else f"held-out R² {decimal(r2, 2)}"
    return f"Effective number of images {readable(float(one.importance.evidence_mass[target]))}, {told}."


def _bars_in_words(rows: list[EvidenceRow]) -> str:
    told = ", ".join(f"{row.label} {row.worth:.1f}" for row in rows[:8])
    return f"Effective number of images for each class: {told}"


def _table(rows: list[EvidenceRow]) -> None:
    st.dataframe(
        {
            "class": [row.label for row in rows],
            "worth": [row.worth for row in rows],
            "photographs": [row.images for row in rows],
            "R²": [None if np.isnan(row.r2) else row.r2 for row in rows],
            "channels": [row.support for row in rows],
            "evidence": [row.evidence for row in rows],
        },
        hide_index=True, height=min(560, 38 * (len(rows) + 1)), placeholder="not measured",
        column_config={
            "worth": st.column_config.NumberColumn(format="%.1f", help="Effective number of images: the sum of f, the network’s probability of the class."),
            "photographs": st.column_config.NumberColumn(help="In how many photographs the network saw something of the class."),
            "R²": st.column_config.NumberColumn(format="%.2f", help="How well the row predicts photographs and gates that it was not learned from: 1 is perfect, 0 no better than a constant."),
            "channels": st.column_config.NumberColumn(help="With a weight that is not zero."),
        },
    )  # fmt: skip


def _curves(selection: Selection, run: Run, layer: str) -> tuple[Curve | None, str]:
    """The charts of one class; gives its curve and its name."""
    found = {curve.index: curve for curve in diagnostics.read(run.curves(layer))}
    labels = selection.network.classes.labels
    if not found:
        return None, ""
    if st.session_state.get("curve") not in found:
        st.session_state["curve"] = selection.target if selection.target in found else next(iter(found))
    st.markdown("##### How W was found, for one class")
    index = st.selectbox(
        "Class of the charts", list(found), format_func=lambda index: labels[index], key="curve", filter_mode="contains", width=420,
        help=f"The {diagnostics.MAX_CURVES} classes with the most evidence are kept.",
    )  # fmt: skip
    curve, used = found[index], run.request.fit_settings.lambda_ratio
    left, right = st.columns(2, gap="large")
    place = int(np.abs(np.log(curve.ratios / used)).argmin()) if used > 0 else len(curve.ratios) - 1
    r2 = "not measured" if np.isnan(curve.r2_held_out[place]) else decimal(curve.r2_held_out[place])
    with left:
        told = (
            f"At λ ratio {readable(used)} (dotted), {int(curve.support[place])} channels are in use and R² on held-out photographs is {r2}."
        )
        st.plotly_chart(figures.path(curve, used), key="path", alt=f"Path of lambda: {told}", config={"displayModeBar": False})
        st.caption(
            f"**The path of λ.** To the right, λ falls and more channels join in. {told} Where the curve is flat, fewer channels would do as well."
        )
    with right:
        told = f"They are below the dotted 10⁻⁶ when ADMM may stop; the solver finished after {curve.solved_after} iterations, because it ends with an exact solution."
        st.plotly_chart(figures.residuals(curve), key="residuals", alt=f"ADMM’s residuals. {told}", config={"displayModeBar": False})
        st.caption(f"**ADMM’s residuals** (Eq. 16–20), left to itself. {told}")
    return curve, labels[index]


class _Taker:
    """Makes what is taken home when a button is clicked."""

    def __init__(
        self, selection: Selection, run: Run, layer: str, importance: Importance, rows: list[EvidenceRow], curve: Curve | None, label: str
    ) -> None:
        self.selection, self.run, self.layer, self.importance, self.rows, self.curve, self.label = (
            selection, run, layer, importance, rows, curve, label,
        )  # fmt: skip

    def take(self) -> Export:
        network, used = self.selection.network, self.run.request.fit_settings.lambda_ratio
        picture = figures.sheet(self.rows, self.curve, used, f"{network.title}, {self.layer}: what was learned", self.label)
        arrays = {name: getattr(self.importance, name).numpy() for name in ("W", "r2", "support", "images", "evidence_mass")}
        if self.curve is not None:
            arrays |= {f"curve_{name}": getattr(self.curve, name) for name in diagnostics.FIELDS}
        more = {} if self.curve is None else {name: text.encode() for name, text in evidence.curve_csvs(self.curve).items()}
        return Export(picture, arrays, evidence.evidence_csv(self.rows), self.importance.metadata, reproduce.fit(self.run), more)

    def tensors(self) -> bytes:
        return self.run.file(self.selection.network, self.layer).read_bytes()
