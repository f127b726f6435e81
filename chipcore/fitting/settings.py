"""The settings of a fit; ``chipcore/fitting/README.md`` has the evidence for their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from chipcore.errors import SettingsError
from chipcore.gating.gates import Draw, Generator
from chipcore.gating.perturbation import Precision, Target

# Stored names of settings that have been renamed since.
_RENAMED = {"background": "pooled_share"}


@dataclass(frozen=True)
class FitSettings:
    """How W is learned.

    - ``gates``: gate samples N per image
    - ``target``: what g^c is, the class score before softmax or the probability (f^c is always the latter)
    - ``draw``: how gate samples are drawn, see :func:`chipcore.gating.gates.draw`; ``uniform`` is the paper's
    - ``sigma2``: sigma^2 of Eq. 8; None is K, the layer's number of channels
    - ``lambda_ratio``: lambda of Eq. 5 as a share of the smallest lambda that gives W = 0, max |b_c|
    - ``pooled_share``: share that all images alike have in a class's sums; 0 is Eq. 11 as printed, see
      :mod:`chipcore.fitting.pooled_moments`
    - ``pooled_gates``: gate samples of a image that enter the pooled sums, the first so many; 0 is all
    - ``contrast``: kappa, the target of the second W that is kept: g^c - kappa log sum exp(g), which is the score at 0 and the
      log-probability at 1
    - ``intercept``: a constant beside W z that is not penalised; Eq. 11 as printed has none. It helps where ``pooled_share`` is 0
    - ``seed``: of the gates
    - ``generator``: what draws them: ``numpy`` on the CPU, or ``device``, a counter-based generator that draws a whole batch where the
      network is; other gates of the same distribution, see :func:`chipcore.gating.gates.draw_batch`
    - ``cutoff``: images with f^c below it add nothing to class c's own sums
    - ``held_out``: share of the images kept for measuring R2
    - ``min_evidence``: rows with less evidence (sum of f^c) than this are left at zero where ``pooled_share`` is 0
    - ``own_evidence``: where it is above 0, rows with less evidence than this are learned from the pooled sums alone
    - ``precision``: of the perturbed predictions; sums and the solver are in float64
    """

    gates: int = 100
    target: Target = "score"
    draw: Draw = "uniform"
    sigma2: float | None = None
    lambda_ratio: float = 1e-4
    pooled_share: float = 0.9
    pooled_gates: int = 25
    contrast: float = 0.25
    intercept: bool = False
    seed: int = 0
    cutoff: float = 0.01
    held_out: float = 0.1
    min_evidence: float = 0.5
    own_evidence: float = 10.0
    precision: Precision = "float32"
    generator: Generator = "numpy"

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
            (0 <= self.pooled_share <= 1, f"pooled share is {self.pooled_share}; give a share from 0 to 1."),
            (isinstance(self.pooled_gates, int) and self.pooled_gates >= 0, f"pooled gates is {self.pooled_gates}; give 0 (all) or more."),
            (0 <= self.contrast <= 1, f"contrast is {self.contrast}; give a share from 0 to 1."),
            (isinstance(self.intercept, bool), f"intercept is {self.intercept!r}; give True or False."),
            (0 < self.cutoff <= 1, f"cutoff is {self.cutoff}; give a probability above 0."),
            (0 <= self.held_out <= 0.5, f"held_out is {self.held_out}; give a share from 0 to 0.5."),
            (0 <= self.min_evidence < float("inf"), f"min_evidence is {self.min_evidence}; give 0 or more."),
            (0 <= self.own_evidence < float("inf"), f"own_evidence is {self.own_evidence}; give 0 or more."),
            (self.generator in get_args(Generator), f"generator is {self.generator!r}; give {' or '.join(get_args(Generator))}."),
            (self.precision in ("float32", "bfloat16"), f"precision is {self.precision!r}; give float32 or bfloat16."),
        ):
            if not allowed:
                raise SettingsError(sentence)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> FitSettings:
        """The settings that :meth:`as_dict` wrote, with this or an earlier version; unknown keys are refused by ``SettingsError``."""
        named = {_RENAMED.get(name, name): value for name, value in stored.items()}
        unknown = named.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise SettingsError(f"{', '.join(sorted(unknown))} is no setting of a fit.")
        return cls(**named)
