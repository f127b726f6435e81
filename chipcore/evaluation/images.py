"""Which images an evaluation looks at, and how each becomes an input; what is broken is named, not fatal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from chipcore.datasets.image_set import ImageSet
from chipcore.errors import DataError, ImageError
from chipcore.images import InputGeometry

Progress = Callable[[Sequence[Any]], Iterable[Any]]


def no_progress(items: Sequence[Any]) -> Iterable[Any]:
    """No progress bar."""
    return items


def subsample(names: Sequence[str], limit: int, seed: int) -> tuple[str, ...]:
    """At most ``limit`` names (0: all), drawn evenly over the whole set by ``seed``, in their old order.

    Example:
        >>> subsample(["a", "b", "c"], 0, seed=0), len(subsample(["a", "b", "c"], 2, seed=0))
        (('a', 'b', 'c'), 2)
    """
    if not limit or limit >= len(names):
        return tuple(names)
    drawn = np.random.default_rng(seed).choice(len(names), size=limit, replace=False)
    return tuple(names[i] for i in sorted(drawn))


def view_of(image: Image.Image, geometry: InputGeometry) -> Tensor:
    """A image as the network's input, shape (1, 3, size, size)."""
    return geometry.tensor(image)[None]


@dataclass
class Reader:
    """Opens images one after another and keeps a sentence for each that is broken."""

    images: ImageSet
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.broken[:0] = self.images.closed  # folders and kinds of files that could not be read

    def __call__(self, names: Iterable[str]) -> Iterator[tuple[str, Image.Image]]:
        for name in names:
            try:
                yield name, self.images.open(name)
            except ImageError as error:
                self.broken.append(str(error))

    def attempt(self, read: Callable[[], Any]) -> Any:
        """What ``read`` gives, or None with the sentence of its ``DataError`` kept."""
        try:
            return read()
        except (DataError, ImageError) as error:
            self.broken.append(str(error))
            return None


def normalize_by_max(heat: np.ndarray) -> np.ndarray:
    """A map as a share of its maximum; zeros stay zeros.

    Example:
        >>> normalize_by_max(np.array([[0.0, 2.0, 4.0]])).tolist()
        [[0.0, 0.5, 1.0]]
    """
    top = float(heat.max())
    return heat / top if top > 0 else np.zeros_like(heat)


def normalize_min_max(heat: np.ndarray) -> np.ndarray:
    """A map stretched to [0, 1]; a constant one has nothing that stands out and gives zeros.

    Example:
        >>> normalize_min_max(np.array([[2.0, 3.0, 4.0]])).tolist(), normalize_min_max(np.ones((1, 2))).tolist()
        ([[0.0, 0.5, 1.0]], [[0.0, 0.0]])
    """
    low, high = float(heat.min()), float(heat.max())
    return (heat - low) / (high - low) if high > low else np.zeros_like(heat)


def energy_inside(heat: np.ndarray, mask: np.ndarray) -> float:
    """Energy pointing (Wang et al. 2020): positive mass inside a mask / all of it; 0 for a map without any.

    Example:
        >>> energy_inside(np.array([[1.0, 3.0]]), np.array([[False, True]]))
        0.75
    """
    total = float(heat.sum(dtype=np.float64))
    return float(heat[mask].sum(dtype=np.float64)) / total if total > 0 else 0.0


def to_input(view: np.ndarray, geometry: InputGeometry) -> Tensor:
    """A uint8 picture (h, w, 3) of any size, normalized, shape (1, 3, h, w)."""
    return geometry.normalize(torch.from_numpy(view.copy()))[None]
