"""Errors that a user can act on.

Every class here carries one sentence that says what is wrong and what to do. The command line prints
it and exits with status 2; the app shows it in place of the result. Anything else that is raised is a
defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ChipError(Exception):
    """A mistake that the person in front of the screen can mend."""


class UnknownName(ChipError):
    """A network, layer, class or method that does not exist; lists the nearest that do."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        choices = list(known)
        near = difflib.get_close_matches(name, choices, n=5, cutoff=0.5)
        listed = near or choices[:20]
        lead = "did you mean" if near else "known:"
        ending = f" {hint}" if hint else ""
        super().__init__(
            f"there is no {kind} {name!r}; {lead} {', '.join(listed) or 'none'}?{ending}"
            if near
            else f"there is no {kind} {name!r}; {lead} {', '.join(listed) or 'none'}.{ending}"
        )


class ImageError(ChipError):
    """A file that is not a image we can use."""


class ImageNotice(UserWarning):
    """Something of an image was decided without being asked, such as how many of its 16 bits are used."""


class CheckpointError(ChipError):
    """Weights that cannot be loaded into the network they were given for."""


class ImportanceError(ChipError):
    """A file of W that is damaged or belongs to another network or layer."""


class OtherInput(ImportanceError):
    """W of these weights for another size or normalization of the input."""


class ImportanceNotFitted(ChipError):
    """There is no W for this network and layer yet; the sentence says how to fit one."""


class SettingsError(ChipError):
    """A setting outside the range in which it means anything."""


class DataError(ChipError):
    """A folder or annotation that holds nothing we can use."""
