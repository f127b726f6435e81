"""What is known of each row of W: evidence, held-out R2 and support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chipcore import Importance


@dataclass(frozen=True)
class EvidenceRow:
    """What is known of one class's row of W."""

    index: int
    label: str
    worth: float
    images: int
    r2: float
    support: int
    evidence: str


def evidence_rows(importance: Importance, labels: Sequence[str]) -> list[EvidenceRow]:
    """The rows that were fitted, and those that had some evidence but too little, the best founded first."""
    found = [
        EvidenceRow(i, labels[i], float(importance.loyalty[i]), int(importance.images[i]), float(importance.r2[i]), int(importance.support[i]), importance.evidence(i))
        for i in (importance.loyalty > 0).nonzero().flatten().tolist()
    ]  # fmt: skip
    return sorted(found, key=lambda row: -row.worth)


def evidence_csv(rows: Sequence[EvidenceRow]) -> str:
    """The table of evidence as CSV."""
    lines = ["index,class,photographs_worth,photographs,held_out_r2,non_zero_channels,evidence"]
    for row in rows:
        label = '"' + row.label.replace('"', '""') + '"'
        r2 = "" if np.isnan(row.r2) else f"{row.r2:.4f}"
        lines.append(f"{row.index},{label},{row.worth:.3f},{row.images},{r2},{row.support},{row.evidence}")
    return "\n".join(lines) + "\n"
