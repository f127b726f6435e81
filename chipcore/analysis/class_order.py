"""In which order classes are offered: by name, or by what the network looks for in them."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from chipcore.importance import Importance


@lru_cache(maxsize=8)
def alphabetical(labels: tuple[str, ...]) -> tuple[int, ...]:
    """Class indices in the order of their labels, capitals or not.

    Example:
        >>> alphabetical(("zebra", "Ant", "bee"))
        (1, 2, 0)
    """
    return tuple(sorted(range(len(labels)), key=lambda index: labels[index].lower()))


def cosine_similarity(importance: Importance, target: int) -> Tensor:
    """Cosine between the row of W of a class and every row, shape (C,); NaN for rows that were not fitted."""
    found = functional.cosine_similarity(importance.W, importance.W[target][None], dim=1)
    return torch.where((importance.support > 0) & (importance.support[target] > 0), found, torch.nan)


def similar(importance: Importance, target: int, labels: tuple[str, ...]) -> list[int]:
    """All classes, the one that uses channels most like ``target`` first; those without a row of W last, by name."""
    like = cosine_similarity(importance, target)
    place = {index: rank for rank, index in enumerate(alphabetical(labels))}
    known = [index for index in range(len(labels)) if not like[index].isnan()]
    unknown = [index for index in range(len(labels)) if like[index].isnan()]
    return sorted(known, key=lambda index: (-float(like[index]), place[index])) + sorted(unknown, key=lambda index: place[index])


def prioritize(best: list[int], rest: list[int] | tuple[int, ...]) -> list[int]:
    """``best``, then what else is in ``rest``, in its order.

    Example:
        >>> prioritize([3, 1], [0, 1, 2, 3])
        [3, 1, 0, 2]
    """
    return [*best, *(index for index in rest if index not in set(best))]
