"""What is known of each row of W: evidence, held-out R2 and support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from chipcore.analysis.tables import to_csv
from chipcore.fitting.diagnostics import Curve
from chipcore.importance import Importance


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
    rows = [
        EvidenceRow(i, labels[i], float(importance.evidence_mass[i]), int(importance.images[i]), float(importance.r2[i]), int(importance.support[i]), importance.evidence(i))
        for i in (importance.evidence_mass > 0).nonzero().flatten().tolist()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row.worth)


def evidence_csv(rows: Sequence[EvidenceRow]) -> str:
    """The table of evidence as CSV."""
    return to_csv(
        pd.DataFrame({
            "index": [row.index for row in rows], "class": [row.label for row in rows], "photographs_worth": [row.worth for row in rows],
            "photographs": [row.images for row in rows], "held_out_r2": [row.r2 for row in rows],
            "non_zero_channels": [row.support for row in rows], "evidence": [row.evidence for row in rows],
        })
    )  # fmt: skip


def curve_csvs(curve: Curve) -> dict[str, str]:
    """One class's diagnostics as CSV, by file name: the path of lambda, and ADMM's residuals."""
    path = pd.DataFrame({
        "lambda_ratio": curve.ratios, "channels": curve.support.astype(int), "r2": curve.r2, "held_out_r2": curve.r2_held_out,
    })  # fmt: skip
    residuals = pd.DataFrame({"iteration": curve.iterations.astype(int), "primal": curve.primal, "dual": curve.dual})
    return {"path_of_lambda.csv": to_csv(path), "residuals.csv": to_csv(residuals)}
