"""A folder of images, flat or in class folders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from chipcore.errors import DataError, ImageError
from chipcore.images import SUFFIXES, InputGeometry, open_image


@dataclass(frozen=True)
class ImageFolder:
    """Images by their path below a root, in a fixed order.

    ``fingerprint`` identifies the set by names and file sizes. ``closed`` has a sentence for every folder below the
    root that may not be read.
    """

    root: Path
    names: tuple[str, ...]
    closed: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in self.names:
            try:
                size = os.stat(os.path.join(self.root, name)).st_size
            except OSError:  # a link to nothing, or gone since
                size = -1
            digest.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def per_folder(self, most: int, folders: Sequence[str] = ()) -> ImageFolder:
        """At most ``most`` images of each folder (0: all), of the named folders only if any are named."""
        taken: dict[str, int] = {}
        names = []
        for name in self.names:
            folder = os.path.dirname(name)
            if folders and os.path.basename(folder) not in folders:
                continue
            taken[folder] = taken.get(folder, 0) + 1
            if not most or taken[folder] <= most:
                names.append(name)
        return ImageFolder(self.root, tuple(names), self.closed)

    def held_out(self, share: float) -> frozenset[str]:
        """The images kept for measuring R2: this share of every folder, spread evenly, by rank of hash."""
        folders: dict[str, list[str]] = {}
        for name in self.names:
            folders.setdefault(os.path.dirname(name), []).append(name)
        chosen: list[str] = []
        for members in folders.values():
            ranked = sorted(members, key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest())
            chosen += ranked[: int(share * len(members) + 0.5)] if len(members) > 1 else []
        return frozenset(chosen)


def find_images(folders: Path | str | Sequence[Path | str]) -> ImageFolder:
    """Every image below one or several folders, by suffix, in sorted order.

    Symbolic links to folders are not followed. Raises ``DataError`` where there is nothing to use.
    """
    given = [folders] if isinstance(folders, str | Path) else list(folders)
    if not given:
        raise DataError("no folder of photographs was given; name one.")
    roots = [existing_folder(one) for one in given]
    common = Path(os.path.commonpath(roots))
    names: dict[str, None] = {}
    closed: list[str] = []

    def keep_out(error: OSError) -> None:
        closed.append(f"{error.filename} may not be read ({error.strerror}); check its permissions.")

    for root in roots:
        for parent, folders_below, files in os.walk(root, onerror=keep_out):
            folders_below.sort()
            below = "" if Path(parent) == common else os.path.relpath(parent, common)
            for file in sorted(files):
                if file.lower().endswith(SUFFIXES) and not file.startswith("."):
                    names[os.path.join(below, file)] = None
    if not names:
        raise DataError(
            closed[0] if closed else f"{', '.join(map(str, roots))} holds no photographs ({', '.join(SUFFIXES)}); give another folder."
        )
    return ImageFolder(common, tuple(names), tuple(closed))


def existing_folder(given: Path | str) -> Path:
    """The resolved path of a folder; ``DataError`` where there is none."""
    try:
        root = Path(given).resolve()
        there = root.is_dir()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        there = False
    if not there:
        raise DataError(f"{given} is not a folder; give a folder of photographs or of class folders.")
    return root


@dataclass(frozen=True)
class Batch:
    """Up to B readable images: their names and uint8 views (B, size, size, 3); and what was unreadable."""

    names: tuple[str, ...]
    views: Tensor
    unreadable: tuple[str, ...]


def batches(images: ImageFolder, names: Sequence[str], geometry: InputGeometry, size: int, workers: int = 2) -> Iterator[Batch]:
    """Images in batches of ``size``, decoded ahead by threads; unreadable ones are named, not fatal."""

    def read(name: str) -> np.ndarray | str:
        try:
            return np.asarray(geometry.view(open_image(images.root / name)))
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
                else torch.empty(0, geometry.size, geometry.size, 3, dtype=torch.uint8)
            )
            yield Batch(tuple(name for name, _view in good), views, bad)
