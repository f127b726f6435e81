"""A folder of images, flat or in class folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from chipcore.datasets.image_set import ImageSet
from chipcore.errors import DataError
from chipcore.images import SUFFIXES, open_image


@dataclass(frozen=True)
class ImageFolder(ImageSet):
    """Images by their path below a root, in a fixed order.

    ``closed`` has a sentence for every folder below the root that may not be read.
    """

    root: Path
    names: tuple[str, ...]
    closed: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        return f"below {self.root}"

    def open(self, name: str) -> Image.Image:
        return open_image(self.root / name)

    def select(self, names: Sequence[str]) -> ImageFolder:
        return ImageFolder(self.root, tuple(names), self.closed)

    def bytes_of(self, name: str) -> int:
        try:
            return os.stat(os.path.join(self.root, name)).st_size
        except OSError:  # a link to nothing, or gone since
            return -1


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
