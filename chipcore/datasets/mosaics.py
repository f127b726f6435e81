"""Mosaics of images of distinct classes, for the grid pointing game, from any folder of class folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chipcore.datasets.class_names import Classes
from chipcore.datasets.image_set import ImageSet
from chipcore.datasets.sources import Images, open_images
from chipcore.errors import ChipError, DataError


@dataclass(frozen=True)
class ClassFolders:
    """Images by class index; ``unknown`` are the folders whose name is no class of the network."""

    images: ImageSet
    by_class: dict[int, tuple[str, ...]]
    unknown: tuple[str, ...]


def open_class_folders(folder: Images, classes: Classes) -> ClassFolders:
    """Class folders named by synset, class name or index.

    Raises ``DataError`` where no folder is named after a class of the network.
    """
    found = open_images(folder)
    by_class: dict[int, list[str]] = {}
    named: dict[str, int | None] = {}
    for name in found.names:
        label = Path(name).parent.name
        if label not in named:
            try:
                named[label] = classes.index(label) if label else None
            except ChipError:
                named[label] = None
        index = named[label]
        if index is not None:
            by_class.setdefault(index, []).append(name)
    if not by_class:
        raise DataError(
            f"there is no folder named after a class of the network (by synset, name or index) {found.place}; give class folders."
        )
    return ClassFolders(
        found, {index: tuple(names) for index, names in sorted(by_class.items())}, tuple(sorted(n for n, i in named.items() if i is None))
    )


@dataclass(frozen=True)
class Mosaic:
    """n x n images of distinct classes, cell by cell in reading order."""

    names: tuple[str, ...]
    targets: tuple[int, ...]


def draw_mosaics(
    folders: ClassFolders, usable: Callable[[str, int], bool], classes: Sequence[int], side: int, count: int, seed: int
) -> Iterator[Mosaic]:
    """Mosaics of images that are usable, drawn by ``seed``.

    A image is looked at only when its turn comes, so few mosaics cost few looks. Fewer than ``count``
    come where there are not enough classes with a usable image.

    Args:
        usable: whether a image of a class is recognized confidently enough; asked once for each.
        classes: those that may be drawn.
        side: n, cells on a side.
    """
    rng = np.random.default_rng(seed)
    waiting = {index: list(rng.permutation(folders.by_class[index])) for index in classes}
    ready: dict[int, list[str]] = {index: [] for index in classes}
    times: dict[int, int] = dict.fromkeys(classes, 0)

    def next_of(index: int) -> str | None:
        """The class's next image: a fresh one while there are any, then those found usable, in turn."""
        while waiting[index]:
            name = str(waiting[index].pop())
            if usable(name, index):
                ready[index].append(name)
                return name
        if not ready[index]:
            return None
        times[index] += 1
        return ready[index][(times[index] - 1) % len(ready[index])]

    left = list(classes)
    for _ in range(count):
        cells: dict[int, str] = {}
        for index in map(int, rng.permutation(left)):
            name = next_of(index)
            if name is None:
                left.remove(index)
                continue
            cells[index] = name
            if len(cells) == side * side:
                break
        if len(cells) < side * side:
            return
        yield Mosaic(tuple(cells.values()), tuple(cells))
