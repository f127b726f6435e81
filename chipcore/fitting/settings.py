"""The settings of a fit, with the defaults that design.md gives evidence for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

from chipcore.errors import SettingsError
from chipcore.gating.gates import Draw
from chipcore.gating.perturbation import Precision, Target


@dataclass(frozen=True)
class FitSettings:
    """How W is learned.

    - ``gates``: gate samples N per image
    - ``target``: what g^c is, the class score before softmax or the probability (f^c is always the latter)
    - ``draw``: how gate samples are drawn, see :func:`chipcore.gating.gates.draw`; ``uniform`` is the paper's
    - ``sigma2``: sigma^2 of Eq. 8; None is K, the layer's number of channels
    - ``lambda_ratio``: lambda of Eq. 5 as a share of the smallest lambda that gives W = 0, max |b_c|
    - ``background``: share that all images alike have in a class's sums; 0 is Eq. 11 as printed, see :mod:`chipcore.fitting.pooled_moments`
    - ``intercept``: a constant beside W z that is not penalised; Eq. 11 as printed has none. It helps where ``background`` is 0
    - ``seed``: of the gates
    - ``cutoff``: images with f^c below it add nothing to class c
    - ``held_out``: share of the images kept for measuring R2
    - ``min_evidence``: rows with less loyalty (sum of f^c) than this are left at zero
    - ``precision``: of the perturbed predictions; sums and the solver are in float64 throughout
    """

    gates: int = 100
    target: Target = "score"
    draw: Draw = "uniform"
    sigma2: float | None = None
    lambda_ratio: float = 1e-3
    background: float = 0.5
    intercept: bool = False
    seed: int = 0
    cutoff: float = 0.01
    held_out: float = 0.1
    min_evidence: float = 0.5
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        for allowed, sentence in (
            (isinstance(self.gates, int) and self.gates >= 1, f"gates is {self.gates}; give at least 1."),
            (self.target in ("score", "probability"), f"target is {self.target!r}; give score or probability."),
            (self.draw in get_args(Draw), f"draw is {self.draw!r}; give {', '.join(get_args(Draw))}."),
            (self.sigma2 is None or 0 < self.sigma2 < float("inf"), f"sigma2 is {self.sigma2}; give a number above 0."),
            (
                0 <= self.lambda_ratio < float("inf"),
                f"lambda ratio is {self.lambda_ratio}; give 0 or a number above it (1 and more give W = 0).",
            ),
            (0 <= self.background <= 1, f"background is {self.background}; give a share from 0 to 1."),
            (isinstance(self.intercept, bool), f"intercept is {self.intercept!r}; give True or False."),
            (0 < self.cutoff <= 1, f"cutoff is {self.cutoff}; give a probability above 0."),
            (0 <= self.held_out <= 0.5, f"held_out is {self.held_out}; give a share from 0 to 0.5."),
            (0 <= self.min_evidence < float("inf"), f"min_evidence is {self.min_evidence}; give 0 or more."),
            (self.precision in ("float32", "bfloat16"), f"precision is {self.precision!r}; give float32 or bfloat16."),
        ):
            if not allowed:
                raise SettingsError(sentence)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
