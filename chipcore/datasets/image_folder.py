"""A folder of images, flat or in class folders."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from chipcore.datasets.image_set import ImageSet
from chipcore.errors import DataError
from chipcore.images import HEIF_ENDINGS, open_image, suffixes


@dataclass(frozen=True)
class ImageFolder(ImageSet):
    """Images by their path below a root, in a fixed order.

    ``closed`` has a sentence for every folder below the root that may not be read, and one for the image files of kinds that
    are not read.
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


# Formats of photographs that are not read, besides those that the system's table calls an image.
_OTHER_IMAGES = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".jxl", ".psd", ".exr", ".dcm", ".tga", ".ppm", ".pgm", ".svg", *HEIF_ENDINGS)  # fmt: skip


def find_images(folders: Path | str | Sequence[Path | str]) -> ImageFolder:
    """Every image below one or several folders, by suffix, in sorted order.

    Symbolic links are followed: to files, and to folders outside those given (what lies inside is found anyway), each once, so
    that links in a circle end. Image files of kinds that are not read are counted and named in ``closed``.

    Raises ``DataError`` where there is nothing to use.
    """
    given = [folders] if isinstance(folders, str | Path) else list(folders)
    if not given:
        raise DataError("no folder of photographs was given; name one.")
    roots = [existing_folder(one) for one in given]
    common = Path(os.path.commonpath(roots))
    taken = suffixes()
    names: dict[str, None] = {}
    closed: list[str] = []
    others: dict[str, list[str]] = {}

    def keep_out(error: OSError) -> None:
        closed.append(f"{error.filename} may not be read ({error.strerror}); check its permissions.")

    linked: set[str] = set()  # real paths of the folders that were reached through a link
    through: set[str] = set()  # the same as they are called

    def follow(folder: str, parent: str) -> bool:
        """Whether to go on into a folder; into one that a link leads to only once, and not where it is found without the link."""
        if parent not in through and not os.path.islink(folder):
            return True
        real = os.path.realpath(folder)
        if real in linked or any(Path(real).is_relative_to(root) for root in roots):
            return False
        linked.add(real)
        through.add(folder)
        return True

    for root in roots:
        for parent, folders_below, files in os.walk(root, onerror=keep_out, followlinks=True):
            folders_below[:] = [one for one in sorted(folders_below) if follow(os.path.join(parent, one), parent)]
            below = "" if Path(parent) == common else os.path.relpath(parent, common)
            for file in sorted(files):
                ending = os.path.splitext(file)[1].lower()
                if file.startswith("."):
                    continue
                if ending in taken:
                    names[os.path.join(below, file)] = None
                elif ending in _OTHER_IMAGES or (mimetypes.guess_type(file)[0] or "").startswith("image/"):
                    others.setdefault(ending, []).append(os.path.join(below, file))
    if others:
        closed.append(_of_other_kinds(others))
    if not names:
        raise DataError(
            closed[0] if closed else f"{', '.join(map(str, roots))} holds no photographs ({', '.join(taken)}); give another folder."
        )
    return ImageFolder(common, tuple(names), tuple(closed))


def _of_other_kinds(files: dict[str, list[str]]) -> str:
    counted = ", ".join(
        f"{len(some)} {ending} ({', '.join(some[:3])}{', ...' if len(some) > 3 else ''})" for ending, some in sorted(files.items())
    )
    heif = " HEIC takes pillow-heif: pip install pillow-heif." if set(files) & set(HEIF_ENDINGS) else ""
    return f"image files of kinds that are not read: {counted}; save them as JPEG or PNG.{heif}"


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
