"""Tar files of images, as WebDataset writes them: read in place, nothing is unpacked."""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from chipcore.datasets.image_set import ImageSet
from chipcore.errors import DataError, ImageError
from chipcore.images import open_image, suffixes
from chipcore.storage import is_file

SUFFIX = ".tar"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_SHARDS = 1_000_000


@dataclass(frozen=True)
class Member:
    """Where an image lies: the shard's number, and its first byte and length there."""

    shard: int
    offset: int
    size: int


@dataclass(frozen=True)
class TarShards(ImageSet):
    """Images in uncompressed tar files, in the files' order.

    An image's name is its path in the archive, which for ``tar cf shard.tar -C FOLDER .`` is the one that it has below the
    folder, so W is the same from both.
    """

    shards: tuple[Path, ...]
    names: tuple[str, ...]
    members: Mapping[str, Member] = field(repr=False)
    closed: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        return f"in {self.shards[0]}" + (f" and {len(self.shards) - 1} more" if len(self.shards) > 1 else "")

    def open(self, name: str) -> Image.Image:
        member = self.members[name]
        label = f"{self.shards[member.shard]}:{name}"
        try:
            with open(self.shards[member.shard], "rb") as file:
                file.seek(member.offset)
                content = file.read(member.size)
        except OSError as error:
            raise ImageError(f"{label} can't be read ({error.strerror or error}); check the file.") from None
        return open_image(content, label)

    def select(self, names: Sequence[str]) -> TarShards:
        return TarShards(self.shards, tuple(names), self.members, self.closed)

    def bytes_of(self, name: str) -> int:
        return self.members[name].size


def is_tar(given: Path | str) -> bool:
    """Whether this names tar files, one or a pattern of several.

    >>> [is_tar(one) for one in ("shards-{000..127}.tar", "a.tar.gz", "photos")]
    [True, True, False]
    """
    return str(given).lower().endswith((SUFFIX, *_COMPRESSED))


def open_tar_shards(given: Sequence[Path | str]) -> TarShards:
    """The images in tar files.

    Parameters
    ----------
    given
        Paths; ``{000..127}`` and ``{a,b}`` stand for several of them, ``*`` and ``?`` for whatever is there.

    Raises
    ------
    DataError
        No such file, one that is compressed or damaged, or no image in any of them.
    """
    shards = tuple(dict.fromkeys(path for one in given for path in _files(str(one))))
    found = [list(_images(path, number)) for number, path in enumerate(shards)]
    times = Counter(name for images in found for name, _member in images)
    members: dict[str, Member] = {}
    for path, images in zip(shards, found, strict=True):
        for name, member in images:
            # WebDataset lets every shard count from 0; the shard then tells its images apart.
            unique = name if times[name] == 1 else f"{path.stem}/{name}"
            if unique in members:
                raise DataError(
                    f"{name} is twice in {path.name}, or in two shards of that name; gates are keyed by names, so give each its own."
                )
            members[unique] = member
    if not members:
        raise DataError(f"{', '.join(map(str, given))} holds no photographs ({', '.join(suffixes())}); give another file.")
    return TarShards(shards, tuple(members), members)


def _images(path: Path, number: int) -> Iterator[tuple[str, Member]]:
    try:
        with tarfile.open(path, "r:") as archive:  # reads the headers and jumps over what lies between
            for entry in archive:
                name = entry.name.removeprefix("./")
                hidden = name.rpartition("/")[2].startswith(".")
                if entry.isreg() and not entry.issparse() and name.lower().endswith(suffixes()) and not hidden:
                    yield name, Member(number, entry.offset_data, entry.size)
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror or error}); check the path.") from None
    except tarfile.TarError:
        raise DataError(f"{path} is not a whole, uncompressed tar file; make it again with: tar cf SHARD.tar -C FOLDER .") from None


def _files(pattern: str) -> list[Path]:
    """The files of one pattern; raises ``DataError`` where there are none."""
    if "://" in pattern or pattern.startswith("pipe:"):
        raise DataError(f"{pattern} is not a file; give shards on a disk of this machine.")
    if pattern.lower().endswith(_COMPRESSED):
        raise DataError(
            f"{pattern} is compressed, so its images can't be read one by one; unpack it, or pack it again with: tar cf SHARD.tar"
        )
    found: list[Path] = []
    for one in expand_braces(pattern):
        path = Path(one)
        matches = [path] if is_file(path) else sorted(path.parent.glob(path.name))  # without * and the like, nothing
        if not matches:
            raise DataError(f"there is no file {one}; check the path.")
        found += matches
    return found


def expand_braces(pattern: str) -> list[str]:
    """What a shell makes of braces, which reach us where a pattern is quoted.

    >>> expand_braces("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    >>> expand_braces("{train,val}-{0..1}.tar")
    ['train-0.tar', 'train-1.tar', 'val-0.tar', 'val-1.tar']
    """
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    numbers = _RANGE.fullmatch(found[1])
    if numbers is None and "," not in found[1]:
        return [pattern]
    if numbers is None:
        choices = found[1].split(",")
    else:
        first, last = int(numbers[1]), int(numbers[2])
        if not 0 <= last - first < _MOST_SHARDS:
            raise DataError(f"{{{found[1]}}} is no range of shards; give the smaller number first.")
        width = len(numbers[1]) if numbers[1].startswith("0") else 0
        choices = [f"{one:0{width}}" for one in range(first, last + 1)]
    return [whole for choice in choices for whole in expand_braces(pattern[: found.start()] + choice + pattern[found.end() :])]
