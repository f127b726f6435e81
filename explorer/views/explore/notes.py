"""What has to be said about the rows of W behind a strip of maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chipcore import Network
from chipcore.analysis.layer_maps import LayerMap
from chipcore.importance import GOOD_EVIDENCE
from explorer.text import plain


@dataclass(frozen=True)
class Note:
    """Something the reader must know before believing the strip."""

    kind: str  # "weak", "none" or "unfitted"
    text: str


def notes(network: Network, target: int, found: Sequence[LayerMap]) -> list[Note]:
    """What is to be said about the rows of W that the strip is made of."""
    label = plain(network.classes.labels[target])
    said: list[Note] = []
    rowless = [one for one in found if one.importance is not None and one.missing]
    weak = [one for one in found if one.importance is not None and one.importance.evidence(target) == "weak"]
    unfitted = [one for one in found if one.importance is None and not one.local]
    if rowless:
        said.append(
            Note(
                "none",
                f"**There is no map of {label} at {_names(rowless, found, 'any depth')}.** The photographs that W was fitted on held too "
                "little of it, so its row of W is empty. Fit W on a folder that also holds photographs of it: "
                f"`python -m chipcore fit {network.flags} --layers all --images FOLDER`",
            )
        )
    if weak:
        worth = min(float(one.importance.evidence_mass[target]) for one in weak if one.importance is not None)
        said.append(Note(
            "weak",
            f"**Read these maps with care.** At {_names(weak, found, 'every depth')}, the row of W for {label} was learned from "
            f"few images (effective number {worth:.1f}). Below {GOOD_EVIDENCE:.0f} a row is called weak.",
        ))  # fmt: skip
    if len(unfitted) > 1:  # one sentence for a network that nobody has fitted yet
        said.append(Note(
            "unfitted",
            f"**W is not fitted for {plain(network.title)} at {_names(unfitted, found, 'any depth')}**, so there are no maps. Choose one of these layers "
            f"on the left and CHIP learns its weights from this photograph alone; or fit W from a folder of photographs: "
            f"`python -m chipcore fit {network.flags} --layers all --images FOLDER`",
        ))  # fmt: skip
    else:
        said += [Note("unfitted", f"**No maps at {one.layer.name}:** {plain(one.missing)}") for one in unfitted]
    return said


def _names(some: Sequence[LayerMap], every: Sequence[LayerMap], all_of_them: str) -> str:
    return all_of_them if len(some) == len(every) else ", ".join(one.layer.name for one in some)
