"""Data sets that Hugging Face's ``datasets`` has saved on this disk (``save_to_disk``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from chipcore.datasets.image_set import ImageSet
from chipcore.errors import DataError, ImageError
from chipcore.images import open_image
from chipcore.storage import is_file

_SPLITS, _ONE = "dataset_dict.json", "state.json"
_NAMES = ("name", "file_name", "filename", "image_id", "id", "key", "__key__")  # columns that name an image, in this order
_AT_ONCE = 1000


@dataclass(frozen=True)
class HuggingFaceImages(ImageSet):
    """The image column of a saved data set, read by row and not decoded before an image is asked for."""

    folder: Path
    rows: Any = field(repr=False)
    column: str
    names: tuple[str, ...]
    places: Mapping[str, int] = field(repr=False)
    closed: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        return f"in {self.folder}"

    def open(self, name: str) -> Image.Image:
        found = self.rows[self.places[name]][self.column]
        if not isinstance(found, Mapping) or (found.get("bytes") is None and not found.get("path")):
            raise ImageError(f"{name} of {self.folder} is empty; it has no image.")
        return open_image(found["path"] if found.get("bytes") is None else bytes(found["bytes"]), f"{self.folder}:{name}")

    def select(self, names: Sequence[str]) -> HuggingFaceImages:
        return HuggingFaceImages(self.folder, self.rows, self.column, tuple(names), self.places, self.closed)


def is_saved_dataset(folder: Path) -> bool:
    """Whether ``save_to_disk`` has written this folder: a data set, or one with several splits."""
    return is_file(folder / _SPLITS) or (is_file(folder / _ONE) and is_file(folder / "dataset_info.json"))


def open_saved_dataset(folder: Path) -> HuggingFaceImages:
    """The images of a data set on disk.

    Its first column of images is taken. An image is named by a column called ``name``, ``file_name``, ``id`` or the like where
    each of its values is there once, else by its file's name, else by its row's number; before that stands the name of its
    class and a slash, where a column holds class labels.

    Raises
    ------
    DataError
        ``datasets`` is not installed, several splits, no column of images, or a folder that can't be read.
    """
    if (folder / _SPLITS).is_file():
        splits = sorted(one.parent.name for one in folder.glob(f"*/{_ONE}"))
        raise DataError(f"{folder} holds several splits; give one of them: {', '.join(str(folder / split) for split in splits)}.")
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{folder} is a data set of Hugging Face, which needs their library; install it with: pip install 'chipcore[datasets]'"
        ) from None
    try:
        rows = datasets.load_from_disk(str(folder))
    except Exception as error:  # arrow's readers raise many types for a damaged file
        raise DataError(f"{folder} can't be read as a data set of Hugging Face ({str(error).splitlines()[0]}); save it again.") from None
    column = next((name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)), None)
    if column is None or not len(rows):
        raise DataError(f"{folder} holds no column of images (it has {', '.join(rows.features)}); give another data set.")
    rows = rows.cast_column(column, datasets.Image(decode=False))
    names = _names(rows, column, datasets.ClassLabel)
    return HuggingFaceImages(folder, rows, column, names, {name: row for row, name in enumerate(names)})


def _names(rows: Any, column: str, class_label: type) -> tuple[str, ...]:
    def values(of: str) -> list[Any]:
        return list(rows.select_columns([of])[:][of])

    candidates = [values(name) for name in _NAMES if name in rows.features]
    found = next((one for one in candidates if _tells_apart(one)), None)
    classes = next((name for name, kind in rows.features.items() if isinstance(kind, class_label)), None)
    groups = [""] * len(rows)
    if classes is not None:
        labels = rows.features[classes].names
        groups = [f"{labels[one]}/" if one is not None and 0 <= one < len(labels) else "" for one in values(classes)]
    if found is None:
        paths = _paths(rows, column)
        found = (
            paths if all(paths) and len({*zip(groups, paths, strict=True)}) == len(paths) else [f"{row:08d}" for row in range(len(rows))]
        )
    return tuple(f"{group}{name}" for group, name in zip(groups, found, strict=True))


def _tells_apart(values: Sequence[Any]) -> bool:
    return all(isinstance(one, str | int) and str(one) for one in values) and len(set(map(str, values))) == len(values)


def _paths(rows: Any, column: str) -> list[str]:
    """The files' names as they were saved, without loading the images beside them."""
    found: list[str] = []
    for table in rows.select_columns([column]).with_format("arrow").iter(batch_size=_AT_ONCE):
        found += [Path(path or "").name for path in table[column].combine_chunks().field("path").to_pylist()]
    return found
