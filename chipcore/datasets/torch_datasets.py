"""Images from ``torch.utils.data``: a Dataset, torchvision's ImageFolder, or any iterable of (image, name)."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from chipcore.datasets.image_folder import ImageFolder
from chipcore.datasets.image_set import ImageSet
from chipcore.errors import DataError, ImageError
from chipcore.images import as_image, open_image


@dataclass(frozen=True)
class DatasetImages(ImageSet):
    """The items of a map-style dataset: ``items[i]`` is an image, or a pair whose first half is one.

    One thread at a time asks for an item: a dataset that keeps a file open is not made for two.
    """

    items: Any
    names: tuple[str, ...]
    places: Mapping[str, int] = field(repr=False)
    closed: tuple[str, ...] = ()
    _lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def place(self) -> str:
        return f"in the given {type(self.items).__name__}"

    def open(self, name: str) -> Image.Image:
        try:
            with self._lock:
                item = self.items[self.places[name]]
        except OSError as error:  # Pillow's own for a damaged file is one, too
            raise ImageError(f"{name} can't be read ({error}).") from None
        return as_image(item[0] if _is_pair(item) else item, name)

    def select(self, names: Sequence[str]) -> DatasetImages:
        return DatasetImages(self.items, tuple(names), self.places, self.closed, self._lock)


class SpooledImages(ImageSet):
    """What an iterable has given once, kept as lossless files in a temporary folder that goes with this object."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str], files: Mapping[str, str], names: Sequence[str]) -> None:
        self._folder, self._files = folder, files
        self.names, self.closed = tuple(names), ()

    @property
    def place(self) -> str:
        return "in the given iterable"

    def open(self, name: str) -> Image.Image:
        return open_image(Path(self._folder.name, self._files[name]).read_bytes(), name)

    def select(self, names: Sequence[str]) -> SpooledImages:
        return SpooledImages(self._folder, self._files, names)

    def bytes_of(self, name: str) -> int:
        return Path(self._folder.name, self._files[name]).stat().st_size


def open_dataset_images(given: Any) -> ImageSet:
    """The images of a dataset or iterable.

    torchvision's ``ImageFolder`` is read as the folder that it is, by path and without its transform. A dataset of
    (image, name) is walked through once to learn the names; one of images, or of (image, label), is not: its images are
    named by their numbers, eight digits each. An iterable is walked through once and its images kept in a temporary folder.

    Raises
    ------
    DataError
        No image, a name that is none or that two images have, or an object of another kind.
    """
    samples, root = getattr(given, "samples", None), getattr(given, "root", None)
    if isinstance(samples, Sequence) and isinstance(root, str | os.PathLike):
        return _folder(Path(root), samples)
    inner, indices = getattr(given, "dataset", None), getattr(given, "indices", None)
    if inner is not None and indices is not None:  # torch.utils.data.Subset
        if not len(indices):
            raise DataError("the subset holds no images; give another.")
        whole = open_dataset_images(inner)
        return whole.select([whole.names[int(index)] for index in indices])
    if inner is not None:  # torch.utils.data.DataLoader: its batches have lost what we need
        return open_dataset_images(inner)
    if hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, Mapping):
        return _indexed(given)
    if isinstance(given, Iterable) and not isinstance(given, Mapping):
        return _spooled(given)
    raise DataError(f"a {type(given).__name__} holds no images; give a folder, a Dataset, or an iterable of (image, name).")


def _folder(root: Path, samples: Sequence[Any]) -> ImageFolder:
    try:
        names = tuple(str(Path(os.path.abspath(path)).relative_to(os.path.abspath(root))) for path, *_label in samples)
    except (TypeError, ValueError):
        raise DataError(f"the samples of this dataset are no files below its root {root}; give a Dataset of (image, name).") from None
    if not names:
        raise DataError(f"the dataset at {root} holds no images; give another.")
    return ImageFolder(Path(os.path.abspath(root)), names)


def _indexed(items: Any) -> DatasetImages:
    if not len(items):
        raise DataError("the dataset holds no images; give another.")
    if _is_named(items[0]):
        names = [_name(items[index], index) for index in range(len(items))]
    else:
        names = [f"{index:08d}" for index in range(len(items))]
    places: dict[str, int] = {}
    for index, name in enumerate(names):
        _refuse_twice(name, index, places)
        places[name] = index
    return DatasetImages(items, tuple(names), places)


def _spooled(items: Iterable[Any]) -> SpooledImages:
    folder = tempfile.TemporaryDirectory(prefix="chipcore-images-")
    files: dict[str, str] = {}
    for index, item in enumerate(items):
        name = _name(item, index)
        _refuse_twice(name, index, files)
        files[name] = f"{index}.png"
        as_image(item[0], name).save(Path(folder.name, files[name]), compress_level=1)
    if not files:
        raise DataError("the iterable gave no images; one that has been walked through already is empty.")
    return SpooledImages(folder, files, tuple(files))


def _refuse_twice(name: str, index: int, known: Mapping[str, Any]) -> None:
    if name in known:
        raise DataError(f"item {index} is named {name!r}, as another one is; gates are keyed by names, so give each its own.")


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple | list) and len(item) >= 2


def _is_named(item: Any) -> bool:
    return _is_pair(item) and isinstance(item[1], str)


def _name(item: Any, index: int) -> str:
    if not _is_named(item):
        raise DataError(
            f"item {index} is no pair (image, name) with the name as text; give each image the name that its gates are keyed by."
        )
    return str(item[1])
