"""Class names, synsets, and how a person's words are turned into a class index."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from chipcore.errors import ChipError, UnknownName
from chipcore.storage import ASSETS


@dataclass(frozen=True)
class Classes:
    """The classes of a network, in the order of its outputs.

    ``names`` may list synonyms, separated by commas (``"tench, Tinca tinca"``); ``synsets`` is empty for
    networks that were not trained on WordNet classes.
    """

    names: tuple[str, ...]
    synsets: tuple[str, ...] = ()
    labels: tuple[str, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if self.synsets and len(self.synsets) != len(self.names):
            raise ChipError(f"{len(self.names)} class names but {len(self.synsets)} synsets; give one synset a name.")
        first = [name.split(",")[0].strip() for name in self.names]
        times = Counter(first)
        # ImageNet has two cranes and two maillots: tell them apart by everything that is known.
        object.__setattr__(
            self, "labels", tuple(short if times[short] == 1 else f"{short} ({self._aside(i)})" for i, short in enumerate(first))
        )

    def _aside(self, index: int) -> str:
        rest = self.names[index].split(",")[1:]
        return rest[0].strip() if rest else (self.synsets[index] if self.synsets else f"class {index}")

    def __len__(self) -> int:
        return len(self.names)

    def index(self, wanted: int | str) -> int:
        """The index of a class given by index, synset or name.

        A name may be any of the synonyms, in any case, with spaces, hyphens or underscores. Raises
        ``UnknownName`` with the nearest names where nothing fits or more than one class does.

        Example:
            >>> imagenet().index("zebra"), imagenet().index("n02391049"), imagenet().index(340)
            (340, 340, 340)
        """
        text = str(wanted).strip()
        if re.fullmatch(r"-?[0-9]+", text):
            if len(text) > 12 or not 0 <= int(text) < len(self):
                raise ChipError(f"class {text} is out of range; this network has classes 0 to {len(self) - 1}.")
            return int(text)
        if text in self.synsets:
            return self.synsets.index(text)
        key = _key(text)
        hits = [i for i, name in enumerate(self.names) if key in (_key(part) for part in name.split(","))]
        hits = hits or [i for i, label in enumerate(self.labels) if key == _key(label)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise ChipError(f"{text!r} names {len(hits)} classes: {', '.join(f'{i} ({self.names[i]})' for i in hits)}; give the number.")
        inside = [self.labels[i] for i, name in enumerate(self.names) if key and key in _key(name)]
        known = {part.strip().lower(): None for name in self.names for part in name.split(",")}
        if inside:
            raise ChipError(f"there is no class {text!r}; did you mean {', '.join(inside[:8])}?")
        raise UnknownName("class", text.lower(), known)


def _key(text: str) -> str:
    return " ".join(text.lower().replace("-", " ").replace("_", " ").split())


@cache
def imagenet() -> Classes:
    """The 1,000 classes of ILSVRC 2012 in class-index order, with their WordNet synsets."""
    return _read_table(ASSETS / "imagenet_classes.tsv")


def numbered(count: int) -> Classes:
    """``count`` classes without names of their own.

    Example:
        >>> numbered(2).labels
        ('class 0', 'class 1')
    """
    return Classes(tuple(f"class {i}" for i in range(count)))


def _read_table(path: Path) -> Classes:
    rows: Sequence[list[str]] = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    return Classes(tuple(row[1] for row in rows), tuple(row[0] for row in rows))
