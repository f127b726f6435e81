"""Which classes the page Channels shows: chosen by the visitor, in the URL, and suggested until then.

Streamlit forgets a widget's value when its page is left, so what was chosen is kept beside the widget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from chipcore import ChipError, Network
from explorer.state import url

MAX_CLASSES = 60  # classes picked one by one; all of them is a switch of its own


@dataclass(frozen=True)
class _Choice:
    """One multiselect: its key, which is also its key in the URL, and its words."""

    key: str
    label: str
    help: str
    most: int


_SHOWN = _Choice(
    "classes",
    "Classes",
    "Type a name. Until you change it: the chosen class, the photograph’s predictions, and the nearest classes.",
    MAX_CLASSES,
)
_COMPARED = _Choice(
    "venn", "Compare two or three", "At the start: the chosen class, its nearest relative, and a stranger that shares least with it.", 3
)


def choose(network: Network, fitted: Sequence[int], start: Sequence[int], *, disabled: bool) -> tuple[list[int], list[int]]:
    """The classes for the heat map: those with a row of W, and all that were asked for, by link or by hand."""
    asked = _multiselect(_SHOWN, network, fitted, start, disabled=disabled)
    return [index for index in asked if index in set(fitted)], asked


def compared(network: Network, offered: Sequence[int], start: Sequence[int]) -> list[int]:
    """Two or three of the classes ``offered``; fewer where the visitor took some away."""
    return [index for index in _multiselect(_COMPARED, network, offered, start, disabled=False) if index in offered]


def compare(network: Network, indices: Sequence[int]) -> None:
    """Choose these classes to compare; for callbacks."""
    st.session_state[_memory(_COMPARED)] = (network.id, list(indices))


def _multiselect(choice: _Choice, network: Network, offered: Sequence[int], start: Sequence[int], *, disabled: bool) -> list[int]:
    kept = _kept(choice, network)
    wanted = start if kept is None else kept
    classes = network.classes
    # Set before it is drawn: a widget that is given both a default and a state complains.
    st.session_state[choice.key] = [index for index in wanted if index in set(offered)][: choice.most]
    names = sorted(offered, key=lambda index: classes.labels[index].lower())
    double = {label for label, count in Counter(classes.labels).items() if count > 1}

    def text(index: int) -> str:
        """The synset only where it is needed: as a chip it would push the next class out of sight."""
        label = classes.labels[index]
        return f"{label} · {classes.synsets[index]}" if classes.synsets and label in double else label

    st.multiselect(
        choice.label, names, format_func=text, key=choice.key, help=choice.help, max_selections=choice.most, disabled=disabled,
        on_change=_changed, args=(choice, network),
    )  # fmt: skip
    shown = list(st.session_state[choice.key])
    if kept is not None:
        _write(choice, network, kept)
    return [*shown, *(index for index in kept or () if index not in offered)]


def _changed(choice: _Choice, network: Network) -> None:
    st.session_state[_memory(choice)] = (network.id, list(st.session_state[choice.key]))


def _memory(choice: _Choice) -> str:
    return f"kept-{choice.key}"


def _kept(choice: _Choice, network: Network) -> list[int] | None:
    """What the visitor chose before, or the link; None where neither says anything of this network."""
    memory, asked = _memory(choice), url.changed_value(choice.key)
    if asked is not None:
        st.session_state[memory] = (network.id, _read(asked, network))
    network_id, indices = st.session_state.get(memory, ("", []))
    return list(indices) if network_id == network.id else None


def _read(text: str, network: Network) -> list[int]:
    found = []
    for name in text.split(",")[:MAX_CLASSES]:
        try:
            found.append(network.classes.index(name))
        except ChipError:
            continue  # a link of another network, or mistyped
    return list(dict.fromkeys(found))


def _write(choice: _Choice, network: Network, indices: Sequence[int]) -> None:
    classes = network.classes
    url.write(choice.key, ",".join(classes.synsets[index] if classes.synsets else str(index) for index in indices))
