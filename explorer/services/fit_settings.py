"""The settings of a fit in plain words: one line each in ``FIELDS``, in the order in which the form shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chipcore import FitSettings


@dataclass(frozen=True)
class Field:
    """How one setting of ``FitSettings`` is asked for.

    ``choices`` are values with the words for them; without them it is a number from ``low`` to ``high``. ``unset``
    is the number that stands for None. ``first``: shown at once, the others behind a click.
    """

    name: str
    label: str
    help: str
    low: float = 0
    high: float = 0
    step: float = 1
    choices: tuple[tuple[Any, str], ...] = ()
    unset: float | None = None
    digits: str = "%g"
    first: bool = False

    @property
    def default(self) -> Any:
        value = getattr(FitSettings, self.name)
        return self.unset if value is None else value


FIELDS = (
    Field(
        "gates", "Gates per image", "How often each photograph is shown with random channels switched off. More gates, steadier W: 10 for a first look, 100 as in the paper.",
        1, 1000, 10, first=True,
    ),
    Field(
        "lambda_ratio", "Sparsity (λ)", "How much a channel must help before it gets a weight, as a share of the λ at which none does. Smaller: more channels. The path below shows what others would give.",
        0, 1, 0.0001, first=True,
    ),
    Field(
        "pooled_share", "Share of all photographs", "How much photographs of other classes count in a class’s row, which shows W what speaks against the class. 0 is the paper’s Eq. 11.",
        0, 1, 0.05,
    ),
    Field(
        "contrast", "Contrast", "A second W is learned that tells classes apart more sharply: its target is the score less this share of log Σ exp of all scores. 0 leaves it out.",
        0, 1, 0.05,
    ),
    Field(
        "intercept", "A constant beside the channels", "The score that is there whichever channels are closed, from the network’s biases. The paper’s Eq. 11 has none, and leaves it to the channels.",
        choices=((True, "yes: W need not explain it"), (False, "no: as in the paper")),
    ),
    Field(
        "target", "What is predicted", "What W learns to predict of the network with channels switched off.",
        choices=(("score", "the class’s score, before softmax"), ("probability", "the class’s probability, after softmax")),
    ),
    Field(
        "precision", "Precision", "Of the predictions with closed channels. bfloat16 is about twice as fast where the processor knows it, and gave the same W.",
        choices=(("float32", "float32: exact"), ("bfloat16", "bfloat16: faster")),
    ),
    Field(
        "draw", "How gates are drawn", "Which channels are closed together. The paper’s draw is as good as any here.",
        choices=(("uniform", "the paper’s: any number open"), ("importance", "more open ones"), ("stratified", "more open ones, evenly"), ("antithetic", "in pairs that cover all channels")),
    ),
    Field(
        "sigma2", "How far gates may go (σ²)", "Of Eq. 8: samples with many closed channels count less the smaller it is. 0: the number of channels.",
        0, 100_000, 10, unset=0,
    ),
    Field("seed", "Seed", "Of the random gates. The same seed gives the same W; another one shows how steady it is.", 0, 2**31 - 1, 1),
)  # fmt: skip


def settings(values: dict[str, Any]) -> FitSettings:
    """The settings of a fit from what was entered; ``SettingsError`` for a value out of range."""
    read: dict[str, Any] = {}
    for field in FIELDS:
        value = values.get(field.name, field.default)
        if field.unset is not None and value == field.unset:
            value = None
        # Whole numbers stay whole: a key made of them must not change with how a widget gives them.
        usual = getattr(FitSettings, field.name)
        read[field.name] = type(usual)(value) if isinstance(usual, int) else value
    return FitSettings(**read)
