"""Images by name, wherever they lie: what a folder, tar shards and a data set have in common."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from chipcore.errors import ImageError
from chipcore.images import InputGeometry


class ImageSet(ABC):
    """Images in a fixed order, each under a name that gates are keyed by.

    The part of a name before its last slash is the image's group, which is the class where there are class folders.

    Attributes
    ----------
    names
        One a image, each once.
    closed
        A sentence for every part that may not be read.
    """

    names: tuple[str, ...]
    closed: tuple[str, ...]

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the images lie, in a sentence for a person."""

    @abstractmethod
    def open(self, name: str) -> Image.Image:
        """The image of this name, upright and RGB; raises ``ImageError`` where it can't be read."""

    @abstractmethod
    def select(self, names: Sequence[str]) -> Self:
        """The same with these images alone."""

    def bytes_of(self, name: str) -> int:
        """How many bytes the image takes where it lies, or -1 where that is not known."""
        return -1

    def __len__(self) -> int:
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """Identifies the set by names and sizes in bytes."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(f"{name}\0{self.bytes_of(name)}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def per_folder(self, most: int, folders: Sequence[str] = ()) -> Self:
        """At most ``most`` images of each group (0: all), of the named groups only if any are named."""
        taken: dict[str, int] = {}
        names = []
        for name in self.names:
            folder = os.path.dirname(name)
            if folders and os.path.basename(folder) not in folders:
                continue
            taken[folder] = taken.get(folder, 0) + 1
            if not most or taken[folder] <= most:
                names.append(name)
        return self.select(names)

    def held_out(self, share: float) -> frozenset[str]:
        """The images kept for measuring R2: this share of every group, spread evenly, by rank of hash."""
        folders: dict[str, list[str]] = {}
        for name in self.names:
            folders.setdefault(os.path.dirname(name), []).append(name)
        chosen: list[str] = []
        for members in folders.values():
            ranked = sorted(members, key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest())
            chosen += ranked[: int(share * len(members) + 0.5)] if len(members) > 1 else []
        return frozenset(chosen)


@dataclass(frozen=True)
class Batch:
    """Up to B readable images: their names and uint8 views (B, size, size, 3); and what was unreadable."""

    names: tuple[str, ...]
    views: Tensor
    unreadable: tuple[str, ...]


def batches(images: ImageSet, names: Sequence[str], geometry: InputGeometry, size: int, workers: int = 2) -> Iterator[Batch]:
    """Images in batches of ``size``, decoded ahead by threads; unreadable ones are named, not fatal."""

    def read(name: str) -> np.ndarray | str:
        try:
            return np.asarray(geometry.view(images.open(name)))
        except ImageError as error:
            return str(error)

    groups = [tuple(names[start : start + size]) for start in range(0, len(names), size)]
    with ThreadPoolExecutor(workers, thread_name_prefix="photographs") as pool:
        coming = iter(groups)
        waiting: list[tuple[tuple[str, ...], list[Future[np.ndarray | str]]]] = []

        def ask(count: int) -> None:
            waiting.extend((group, [pool.submit(read, name) for name in group]) for group in islice(coming, count))

        ask(2)
        while waiting:
            group, futures = waiting.pop(0)
            ask(1)
            results = list(zip(group, (future.result() for future in futures), strict=True))
            good = [(name, view) for name, view in results if not isinstance(view, str)]
            bad = tuple(view for _name, view in results if isinstance(view, str))
            views = (
                torch.from_numpy(np.stack([view for _name, view in good]))
                if good
                else torch.empty(0, *geometry.shape, 3, dtype=torch.uint8)
            )
            yield Batch(tuple(name for name, _view in good), views, bad)
