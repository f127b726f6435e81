"""What a fit looks like on its way: ADMM's residuals, and R2 and support along a path of lambda, of a few classes.

A fit's samples are gone once W is solved, so this is computed while they are there (``fit(..., watch=DiagnosticsRecorder(...))``)
and kept as a small file beside the result.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from chipcore.fitting.accumulate import LayerSums
from chipcore.fitting.regression import has_own, normal_equations, solve_block
from chipcore.fitting.settings import FitSettings
from chipcore.solvers import admm
from chipcore.storage import write_whole

RATIOS = tuple(float(f"{ratio:.4g}") for ratio in np.logspace(-0.25, -4, 12))
ITERATIONS = 400  # of ADMM without its polish, which ends it earlier
MAX_CURVES = 16  # classes of a layer, those with the most evidence


@dataclass(frozen=True)
class Curve:
    """One class at one layer.

    - ``evidence_mass``: images' worth of evidence, the sum of f^c
    - ``iterations`` (T,), ``primal`` (T,), ``dual`` (T,): relative residuals of ADMM left to itself
    - ``solved_after``: the iterations after which the solver of a fit, which polishes, was done
    - ``ratios`` (R,), ``support`` (R,), ``r2`` (R,), ``r2_held_out`` (R,): along lambda / lambda_max, decreasing; R2 is
      NaN where no image side_inputs weight
    """

    index: int
    evidence_mass: float
    iterations: np.ndarray
    primal: np.ndarray
    dual: np.ndarray
    solved_after: int
    ratios: np.ndarray
    support: np.ndarray
    r2: np.ndarray
    r2_held_out: np.ndarray


class DiagnosticsRecorder:
    """Keeps the curves of the ``MAX_CURVES`` classes of every layer that have the most evidence, in ``folder``."""

    def __init__(self, folder: Path, settings: FitSettings, report: Callable[[int, int], None] | None = None) -> None:
        self.folder, self.settings, self.report = folder, settings, report

    def __call__(self, sums: LayerSums) -> None:
        mass = sums.samples.evidence_mass()
        slots = mass.argsort(descending=True, stable=True)[:MAX_CURVES]
        slots = slots[has_own(mass, self.settings)[slots]]
        if len(slots):
            path = self.folder / f"{sums.slice.layer.name.replace('/', '_')}.npz"
            write(path, curves(sums, slots, self.settings, self.report))


def curves(sums: LayerSums, slots: Tensor, settings: FitSettings, report: Callable[[int, int], None] | None = None) -> list[Curve]:
    """The curves of some classes of a slice, given by their places in it."""
    found: list[Curve] = []
    ratios = sorted({*RATIOS, settings.lambda_ratio} - {0.0}, reverse=True)
    for some in slots.split(min(4, solve_block(sums.slice.layer.channels))):
        if report is not None:
            report(len(found), len(slots))
        training, held_out = sums.moments(some), sums.held_out(some)
        given = normal_equations(training, settings, sums.pooled if settings.pooled_share else None, some)
        gram, cross = given.gram, given.cross
        lam = admm.lambda_max(cross)
        path = admm.lambda_path(gram, cross, ratios)
        support = torch.stack([(point.W != 0).sum(1) for point in path], 1)
        fits = torch.stack([training.r2(point.W, given.intercepts(point.W)) for point in path], 1)
        holds = torch.stack([held_out.r2(point.W, given.intercepts(point.W)) for point in path], 1)
        solved = admm.solve(gram, cross, settings.lambda_ratio * lam).iterations
        for place in range(len(some)):
            one = slice(place, place + 1)
            residuals = _residuals(gram[one], cross[one], settings.lambda_ratio * lam[one])
            at = [values[place].cpu().numpy() for values in (support, fits, holds)]
            found.append(Curve(
                int(training.classes[place]), float(training.evidence_mass[place]), residuals[:, 0], residuals[:, 1], residuals[:, 2],
                int(solved[place]), np.array(ratios), *at,
            ))  # fmt: skip
    return found


def _residuals(gram: Tensor, cross: Tensor, lam: Tensor) -> np.ndarray:
    """Iterations, primal and dual residual (T, 3) of one class."""
    rows: list[tuple[float, float, float]] = []

    def trace(iterations: int, _classes: Tensor, primal: Tensor, dual: Tensor) -> None:
        rows.append((iterations, float(primal[0]), float(dual[0])))

    admm.solve(gram, cross, lam, settings=admm.ADMMSettings(max_iterations=ITERATIONS, polish=False), trace=trace)
    return np.array(rows or [(0, 0.0, 0.0)])


FIELDS = ("iterations", "primal", "dual", "ratios", "support", "r2", "r2_held_out")


def write(path: Path, found: list[Curve]) -> None:
    """Keep curves in one file, whole or not at all."""
    arrays: dict[str, np.ndarray] = {"classes": np.array([curve.index for curve in found], np.int64)}
    for curve in found:
        arrays |= {f"{curve.index}/{name}": getattr(curve, name) for name in FIELDS}
        arrays[f"{curve.index}/about"] = np.array([curve.evidence_mass, curve.solved_after])

    def save(temporary: Path) -> None:
        with open(temporary, "wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)

    write_whole(path, save)


def read(path: Path) -> list[Curve]:
    """The curves of a file, those with the most evidence first; none where there is no file or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = []
            for index in file["classes"].tolist():
                evidence_mass, solved_after = file[f"{index}/about"].tolist()
                values = {name: file[f"{index}/{name}"] for name in FIELDS}
                found.append(Curve(index=index, evidence_mass=evidence_mass, solved_after=int(solved_after), **values))
            return found
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return []
