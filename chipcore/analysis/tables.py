"""Tables of results as CSV: one way to write all of them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from chipcore.datasets.class_names import Classes


def to_csv(table: pd.DataFrame, digits: int = 6) -> str:
    r"""A table as CSV text, without its index; what is not known is empty.

    Args:
        table: a column a quantity.
        digits: significant digits of numbers that are not whole.

    Example:
        >>> to_csv(pd.DataFrame({"class": ["cup, tea", "cat"], "r2": [0.123456789, float("nan")]}), digits=3)
        'class,r2\n"cup, tea",0.123\ncat,\n'
    """
    text: str = table.to_csv(index=False, lineterminator="\n", float_format=f"%.{digits}g")
    return text


def class_columns(classes: Classes, indices: Sequence[int]) -> dict[str, list[int] | list[str]]:
    """The columns ``class`` (index), ``synset`` (empty where the network has none) and ``label`` of some classes."""
    return {
        "class": list(indices),
        "synset": [classes.synsets[index] if classes.synsets else "" for index in indices],
        "label": [classes.labels[index] for index in indices],
    }
