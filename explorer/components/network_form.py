"""The form for a network of one's own: architecture, checkpoint, class names, and its preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from chipcore import ChipError
from chipcore.errors import SettingsError
from chipcore.networks import REGISTRY
from explorer.services import allowed_paths, custom_networks, uploads
from explorer.state import cached
from explorer.text import plain

ADDED = "own-added"  # in the session: the key of the network that was just added, to be chosen
_AS_USUAL = "as this architecture usually does"
_OUTPUTS = {
    "find out": "auto", "scores, of which a softmax is taken": "logits", "probabilities that add up to 1": "probabilities",
    "a probability for each of several questions": "multilabel", "one number: yes or no": "binary",
}  # fmt: skip
_FITS = {_AS_USUAL: None, "squash: the whole photograph, its sides made equal": "squash", "crop: the middle, its shape kept": "crop"}


def offer() -> None:
    """A button below the list of models, which opens the form."""
    if st.button(
        "Add your own network …",
        key="own-open",
        type="tertiary",
        icon=":material/add:",
        help="A convolutional network of yours, from its checkpoint",
    ):
        _dialog()


@st.dialog("Your own network", width="large")
def _dialog() -> None:
    form()


def form() -> None:
    """What is asked; a network that was added is chosen on the next run of the page."""
    st.markdown(
        "A convolutional network with **any classes**: its architecture, a file of its weights, and the names of its classes. "
        "CHIP looks for its layers by itself; local CHIP explains a photograph at once, and a fit makes W."
    )
    # No st.form: what is wrong with the last try must not stay under fields that were mended since.
    with st.container():
        known = st.selectbox(
            "Architecture", list(REGISTRY), format_func=lambda name: REGISTRY[name].title if name in REGISTRY else name, index=None,
            key="own-architecture", accept_new_options=True, placeholder="Choose one, or type a name: shufflenet_v2_x1_0, timm:resnet26 …",
            help="The networks of this app, any other classifier of torchvision by its name, or timm:NAME where timm is installed." + _modules(),
        )  # fmt: skip
        left, right = st.columns(2)
        with left:
            checkpoint = _file(
                "Checkpoint", "own-checkpoint", custom_networks.CHECKPOINTS, uploads.MAX_UPLOAD,
                "A state_dict: torch.save(model.state_dict(), …) or .safetensors. Pickled models hold code and are refused.",
            )  # fmt: skip
        with right:
            labels = _file(
                "Class names",
                "own-labels",
                custom_networks.LABELS,
                custom_networks.MAX_LABELS >> 20,
                "One name a line, or JSON or CSV, in the order of the outputs.",
            )
        with st.expander("Preprocessing"):
            size, fit = st.columns(2)
            side = size.number_input(
                "Side of the input in pixels",
                0,
                custom_networks.SIDES[1],
                0,
                key="own-size",
                help="0: as this architecture usually has it.",
            )
            rule = fit.selectbox("How a photograph is made square", list(_FITS), key="own-fit", filter_mode=None)
            mean, std = st.columns(2)
            means = mean.text_input(
                "Mean of red, green, blue", key="own-mean", placeholder="0.485 0.456 0.406", help="Of values from 0 to 1; empty: as usual."
            )
            stds = std.text_input("Standard deviation", key="own-std", placeholder="0.229 0.224 0.225", help="Empty: as usual.")
            outputs = st.selectbox(
                "What the network gives", list(_OUTPUTS), key="own-outputs", filter_mode=None,
                help="CHIP works on scores before any softmax or sigmoid, and weighs a photograph by the probability.",
            )  # fmt: skip
        title = st.text_input("Name", key="own-title", max_chars=60, placeholder="The file’s name")
        asked = st.button("Add network", key="own-add", type="primary", icon=":material/add:")
    if not allowed_paths.roots():
        st.caption(allowed_paths.ALLOW_HELP)
    if asked:
        try:
            given = custom_networks.UploadedNetwork(
                (known or "").strip(), size=int(side) or None, fit=_FITS[rule], mean=_numbers("mean", means), std=_numbers("standard deviation", stds),
                title=title.strip(), outputs=_OUTPUTS[outputs],
            )  # fmt: skip
            with st.spinner("Reading the checkpoint and looking for layers …"):
                key, network = custom_networks.add(given, checkpoint, labels)
        except ChipError as error:
            st.error(plain(str(error)), icon=":material/error:")
            return
        cached.share_network(key)
        st.session_state[ADDED] = key
        for note in network.notes:
            st.toast(plain(note[0].upper() + note[1:] + "."), icon=":material/info:", duration="infinite")
        st.rerun()


def _modules() -> str:
    names = allowed_paths.modules()
    return f" Of your own code: MODULE:FUNCTION, with the modules {', '.join(names)}." if names else ""


def _file(label: str, key: str, suffixes: tuple[str, ...], megabytes: int, help: str) -> custom_networks.Upload | str | None:
    """An upload, or a file of this machine where folders are allowed; the upload wins."""
    sent: Any = st.file_uploader(label, type=[suffix[1:] for suffix in suffixes], key=f"{key}-upload", max_upload_size=megabytes, help=help)
    here = None
    if allowed_paths.roots():
        here = st.selectbox(
            f"or a file of this machine ({label.lower()})", allowed_paths.files(suffixes), format_func=allowed_paths.short, index=None, key=f"{key}-path",
            accept_new_options=True, placeholder="Choose or type a path",
        )  # fmt: skip
    if sent is not None:
        return custom_networks.Upload(Path(sent.name).name, sent.getvalue())  # the server and own.add limit its size
    return here


def _numbers(what: str, text: str) -> tuple[float, ...] | None:
    """One or three numbers, or None where nothing is said."""
    parts = text.replace(",", " ").split()
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        raise SettingsError(f"the {what} is {text.strip()[:60]!r}; give one number, or one for each of red, green and blue.") from None
    if len(numbers) not in (0, 1, 3) or not all(abs(number) < 1e6 for number in numbers):
        raise SettingsError(f"the {what} is {text.strip()[:60]!r}; give one number, or one for each of red, green and blue.")
    return numbers or None
