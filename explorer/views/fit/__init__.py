"""Fit: learn W from images, in the background, and see what was learned and how surely."""

from __future__ import annotations

from typing import Any

import streamlit as st

from chipcore import ChipError
from chipcore.datasets.image_folder import ImageFolder
from chipcore.fitting.memory import GB
from chipcore.importance import GOOD_EVIDENCE
from explorer.components.job_progress import progress_until_done
from explorer.services import allowed_paths, fit_settings, fit_trial, fits, gallery, uploads
from explorer.services.fit_settings import Field
from explorer.services.fits import FitRequest, Run
from explorer.services.jobs import Job, TooMany
from explorer.state import cached, own_fits, queues
from explorer.state.selection import Selection
from explorer.state.visitors import can_shut_down, can_stop_job, is_local_user
from explorer.text import duration, plain
from explorer.views.fit import result

WHAT = (
    "**W** says how much each channel of a layer matters for each class. It is learned by closing random channels many times and watching the "
    "predictions change. No labels are needed: the network’s own probabilities say which photograph counts for which class."
)
_THEIRS = " Only who started it, in the same browser, can stop or forget it."
FOLDER, UPLOAD = "a folder", "upload"
ALL, SOME = "all classes", "some classes"
_KINDS = [*gallery.KINDS, "zip"]


def show(selection: Selection) -> None:
    """The whole page."""
    st.header("Learn W from photographs", anchor=False)
    st.markdown(WHAT)
    _under_way(selection)
    with st.container(key="fit-form"):
        images, layers, settings = st.columns(3, gap="large")
        with images:
            where, per_folder, found = _images()
        with layers:
            chosen, classes = _layers(selection)
        with settings:
            values, memory = _settings()
    if found is None or not chosen:
        st.info("Choose photographs and at least one layer to see the estimated time and memory.", icon=":material/info:")
    else:
        try:
            entered = fit_settings.settings(values)
        except ChipError as error:
            st.error(plain(str(error)), icon=":material/error:")
        else:
            request = FitRequest(
                selection.model, tuple(chosen), where, per_folder, tuple(classes), entered.as_dict(), memory, found.fingerprint, len(found)
            )
            _cost(selection, request, found)
    result.show(selection)


# --- what to fit ------------------------------------------------------------------------------------------


def _images() -> tuple[str, int, ImageFolder | None]:
    """Where they are, how many of each folder, and those that were found."""
    st.subheader("1 · Photographs", anchor=False)
    source = UPLOAD
    if allowed_paths.roots():
        source = st.segmented_control(
            "Where they are", [FOLDER, UPLOAD], default=FOLDER, required=True, key="from", bind="query-params", wrap=True
        ) or FOLDER  # fmt: skip
    where = _folder() if source == FOLDER else _upload()
    per_folder = int(st.number_input(
        "At most, per class folder", 0, 100_000, 0, 10, key="per-folder", bind="query-params",
        help="Photographs from each; 0: all. Class folders are not needed, but keep the classes even: about 40 of each are a good start.",
    ))  # fmt: skip
    if not where:
        return where, per_folder, None
    try:
        if source == FOLDER:
            where = str(allowed_paths.resolve(where))
        found = _names(where).per_folder(per_folder)
    except ChipError as error:
        st.error(plain(str(error)), icon=":material/folder_off:")
        return where, per_folder, None
    if len(found) < GOOD_EVIDENCE:
        st.warning(f"With {len(found)} photographs every row of W will be **weak**: a good one takes {GOOD_EVIDENCE:.0f} photographs of its class.", icon=":material/balance:")  # fmt: skip
    return where, per_folder, found


@st.cache_data(ttl=30, max_entries=8, show_spinner="Looking for photographs …")
def _names(where: str) -> ImageFolder:
    return fits.find(where)


def _folder() -> str:
    return st.selectbox(
        "Folder", allowed_paths.folders(), format_func=allowed_paths.short, index=None, key="folder", bind="query-params", accept_new_options=True,
        placeholder="Choose, or type a path", help="A flat folder of photographs, or one with class folders.",
    ) or ""  # fmt: skip


def _upload() -> str:
    files: Any = st.file_uploader(
        "Photographs, or a ZIP of them", type=_KINDS, accept_multiple_files=True, key="fit-upload", max_upload_size=uploads.MAX_UPLOAD,
        help="A ZIP may hold class folders. Names of files play no part; photographs stay on the machine that the app runs on.",
        on_change=_other_upload,
    )  # fmt: skip
    if not allowed_paths.roots():
        st.caption(allowed_paths.ALLOW_HELP)
    if not files:
        return _kept_upload()
    ids = tuple(file.file_id for file in files)
    if st.session_state.get("fit-uploaded", (None, None))[0] != ids:
        try:
            with st.spinner("Looking at the photographs …"):
                stored = uploads.store([(file.name, file.getvalue()) for file in files], fits.needed_uploads())
        except ChipError as error:
            st.error(plain(str(error)), icon=":material/error:")
            return ""
        st.session_state["fit-uploaded"] = ids, stored
    stored = st.session_state["fit-uploaded"][1]
    if stored.left_out:
        st.caption(f"{stored.left_out:,} of the files are no photographs we can use, too large, or there twice: left out.")
    return fits.UPLOADED + stored.id


def _other_upload() -> None:
    """The box was filled or emptied by hand; that it is empty when one comes back to this page says nothing."""
    st.session_state.pop("fit-uploaded", None)


def _kept_upload() -> str:
    """What was uploaded before this page was left: the browser's box forgets it, the server does not."""
    if "fit-uploaded" not in st.session_state:
        return ""
    stored = st.session_state["fit-uploaded"][1]
    try:
        count = len(uploads.images(stored.id))
    except ChipError:  # it had to make room
        del st.session_state["fit-uploaded"]
        return ""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"Your upload of {count:,} photograph{'s' if count != 1 else ''} is still here.")
        st.button("Remove", key="fit-upload-remove", type="tertiary", icon=":material/close:", on_click=_other_upload)
    return fits.UPLOADED + stored.id


def _layers(selection: Selection) -> tuple[list[str], list[int]]:
    st.subheader("2 · Layers and classes", anchor=False)
    names = [layer.name for layer in selection.network.layers]
    kept = [name for name in st.session_state.get("layers", []) if name in names]
    if kept != st.session_state.get("layers", []):  # another network's
        st.session_state["layers"] = kept
    chosen = st.pills(
        "Layers", names, selection_mode="multi", default=None if "layers" in st.session_state else [selection.layer.name], key="layers",
        bind="query-params", wrap=True, help="Several cost little more than the shallowest of them alone takes; deep layers are quick.",
    )  # fmt: skip
    sizes = {layer.name: f"{layer.name}: {layer.channels:,} channels, {layer.height} × {layer.width}" for layer in selection.network.layers}
    st.caption(plain(" · ".join(sizes[name] for name in chosen)) if chosen else "Choose one layer or several.")
    which = st.segmented_control("Classes", [ALL, SOME], default=ALL, required=True, key="which-classes", bind="query-params")
    if which != SOME:
        return chosen, []
    labels = selection.network.classes.labels
    if any(index >= len(labels) for index in st.session_state.get("fit-classes", [])):
        st.session_state["fit-classes"] = []
    classes = st.multiselect(
        "Which", range(len(labels)), default=None if "fit-classes" in st.session_state else [selection.target], key="fit-classes",
        format_func=lambda index: labels[index], help="Rows of other classes stay as they are.", persist_state="session",
    )  # fmt: skip
    return (chosen, sorted(classes)) if classes else ([], [])


def _settings() -> tuple[dict[str, Any], float]:
    st.subheader("3 · Settings", anchor=False)
    values = {field.name: _ask(field) for field in fit_settings.FIELDS if field.first}
    with st.expander("More settings"):
        values |= {field.name: _ask(field) for field in fit_settings.FIELDS if not field.first}
        most = fits.most_memory()
        memory = st.number_input(
            "Memory at most, GB", 1.0, most, min(6.0, most), 1.0, key="memory", bind="query-params", format="%g",
            help="What does not fit goes in further passes over the photographs, which takes longer.",
        )  # fmt: skip
    return values, float(memory)


def _ask(field: Field) -> Any:
    if field.choices:
        words = dict(field.choices)
        return st.selectbox(
            field.label, list(words), index=list(words).index(field.default), format_func=lambda value: words[value], key=field.name,
            bind="query-params", help=field.help, filter_mode=None,
        )  # fmt: skip
    if isinstance(field.default, int) and field.step == int(field.step):
        return st.number_input(field.label, int(field.low), int(field.high), field.default, int(field.step), key=field.name, bind="query-params", help=field.help)  # fmt: skip
    return st.number_input(
        field.label, float(field.low), float(field.high), float(field.default), float(field.step), key=field.name, bind="query-params",
        help=field.help, format=field.digits,
    )  # fmt: skip


# --- what it costs ----------------------------------------------------------------------------------------


def _cost(selection: Selection, request: FitRequest, found: ImageFolder) -> None:
    """What the fit takes, before it is started; the time is tried in the background."""
    network, desk, fitting = selection.network, queues.trials(), queues.fits()
    key = f"trial-{request.key}"
    earlier = st.session_state.get("fit-trial")
    if earlier is not None and earlier.key != key and earlier.owner == is_local_user():
        earlier.stop()  # what was asked for before is not wanted any more
    try:
        job = st.session_state["fit-trial"] = desk.start(
            key,
            "Estimating the time on a few images",
            lambda job: fit_trial.estimate_cost(network, request, found, job.report),
            owner=is_local_user(),
        )
    except TooMany as error:
        st.info(f"Not now: {plain(str(error))}", icon=":material/hourglass_top:")
        return
    run = next((one for one in fits.runs() if one.key == request.key), None)
    with st.container(border=True, key="fit-cost"):
        cells = st.columns([1, 1, 1, 1, 1.1], vertical_alignment="center")
        folders = len({name.rpartition("/")[0] for name in found.names})
        cells[0].metric("photographs", f"{len(found):,}", help=f"in {folders:,} folder{'s' if folders > 1 else ''}")
        cells[1].metric(
            "gated predictions",
            f"{len(found) * request.settings['gates'] * len(request.layers):,}",
            help="photographs × gates × layers: how often the network is asked with some of its channels switched off",
        )
        cost = job.result if job.state == "done" else None
        cells[2].metric(
            "memory, at most", f"{cost.memory.total / GB:.1f} GB" if cost else "…", help=_memory_in_words(cost) if cost else None
        )
        cells[3].metric(
            "time, about", duration(cost.seconds) if cost else "…",
            help="Estimated from a trial on a few images at the machine’s present load; solving for W at the end is not included.",
        )  # fmt: skip
        started = fitting.get(f"fit-{request.key}")
        busy = started is not None and not started.over
        done = run is not None and bool(run.finished)
        with cells[4]:
            label = "Activate W" if done else "Resume" if run is not None and run.can_resume else "Start the fit"
            if st.button(
                label, type="primary", icon=":material/play_arrow:", width="stretch", key="start", disabled=busy or job.state == "failed"
            ):
                _start(selection, request)
        if cost and cost.memory.passes > 1:
            st.caption(
                f"It goes in {cost.memory.passes} passes over the photographs: fewer classes or layers, or more memory, make it faster."
            )
        if job.state != "done":
            progress_until_done(desk, job)


def _memory_in_words(cost: fit_trial.FitCost) -> str:
    return f"sums for W {cost.memory.samples / GB:.1f} GB, the rest {cost.memory.rest / GB:.1f} GB"


def _start(selection: Selection, request: FitRequest) -> None:
    try:
        if queues.fits().get(f"fit-{request.key}") is None:
            queues.fits().check(is_local_user())  # before there is a folder
        run = fits.prepare(request, selection.network, is_local_user())
        if run.finished:
            own_fits.use(run)
            st.session_state[result.WANTED] = run.key
        else:
            _go_on(selection, run)
    except ChipError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    st.rerun()


def _go_on(selection: Selection, run: Run) -> None:
    network = selection.network
    queues.fits().start(_key(run), f"Fitting {run.title}", lambda job: fits.perform(run, network, job.report), owner=is_local_user())


# --- what is under way ------------------------------------------------------------------------------------


def _key(run: Run) -> str:
    return f"fit-{run.key}"


def _under_way(selection: Selection) -> None:
    """Fits that run or wait, whoever started them, and those of this network that were interrupted.

    Not those of a network that somebody else has uploaded: what it is called is nobody's business.
    """
    desk, known = queues.fits(), cached.available_networks()
    for run in fits.runs():
        if run.request.network not in known:
            continue
        job = desk.get(_key(run))
        ours = run.request.network == selection.model
        if job is not None and not job.over:
            with st.container(border=True):
                progress_until_done(desk, job)
                if job.rate:
                    st.caption(
                        "It keeps running when this tab is closed and can be found from this page." + ("" if can_stop_job(job) else _THEIRS)
                    )
            st.session_state[result.WANTED] = run.key
        elif not run.finished and ours:
            _interrupted(selection, run, job)


def _interrupted(selection: Selection, run: Run, job: Job | None) -> None:
    with st.container(border=True, key=f"interrupted-{run.key}"):
        if job is not None and job.state == "failed":
            progress_until_done(queues.fits(), job)
        else:
            kept = "Its progress is kept." if run.can_resume else "It had just begun."
            st.markdown(f"**{plain(run.title)}** was stopped before it was done. {kept}")
        if not can_shut_down(run.owner):
            st.caption(f"Start the same fit again to resume it.{_THEIRS}")
            return
        with st.container(horizontal=True):
            if st.button("Resume", key=f"go-on-{run.key}", icon=":material/play_arrow:", type="primary"):
                try:
                    _go_on(selection, run)
                except TooMany as error:
                    st.error(plain(str(error)), icon=":material/error:")
                else:
                    st.rerun()
            if st.button(
                "Delete",
                key=f"forget-{run.key}",
                icon=":material/delete:",
                help="Removes what was done so far; then it can be begun anew.",
            ):
                run.forget()
                st.rerun()
