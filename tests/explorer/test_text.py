"""Numbers as people write them."""

from __future__ import annotations

import pytest

from explorer.text import decimal


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.584, 2, "0.58"), (-0.584, 2, "\N{MINUS SIGN}0.58"), (-0.001, 2, "0.00"), (-0.0, 1, "0.0"), (0.0, 2, "0.00"), (-12.25, 1, "\N{MINUS SIGN}12.2")],
)  # fmt: skip
def test_a_minus_is_a_minus_sign_and_no_zero_has_one(value: float, digits: int, text: str) -> None:
    assert decimal(value, digits) == text
