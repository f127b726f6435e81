"""The annotated data sets: each module of this package that reads one registers it, and a folder is tried with each in order."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chipcore import datasets
from chipcore.datasets.annotations import Source
from chipcore.datasets.class_names import Classes
from chipcore.errors import DataError
from chipcore.images import InputGeometry

Open = Callable[[Path, Classes, InputGeometry], Source]


@dataclass(frozen=True)
class DataSet:
    """A kind of annotated data set.

    Attributes
    ----------
    name
        What it is called.
    open
        Opens a folder for a network's classes and input geometry; raises ``DataError`` where it can't.
    recognizes
        Whether a folder is laid out like this data set.
    order
        Folders are tried with the lowest first.
    masks
        Whether its objects have masks of their own, not boxes alone.
    """

    name: str
    open: Open
    recognizes: Callable[[Path], bool]
    order: int
    masks: bool


_DATA_SETS: dict[str, DataSet] = {}


def register(data_set: DataSet) -> DataSet:
    """Add a data set; a module of this package calls it once when it is imported."""
    _DATA_SETS[data_set.name] = data_set
    return data_set


def data_sets() -> tuple[DataSet, ...]:
    """Every data set, in the order in which a folder is tried.

    Examples
    --------
    >>> [one.name for one in data_sets()]
    ['ILSVRC', 'COCO', 'COCO instances', 'ADE20K']
    """
    for module in pkgutil.iter_modules(datasets.__path__):
        importlib.import_module(f"{datasets.__name__}.{module.name}")
    return tuple(sorted(_DATA_SETS.values(), key=lambda one: one.order))


def open_dataset(folder: Path, classes: Classes, geometry: InputGeometry) -> Source | None:
    """The annotated images of a folder, whichever data set it holds; None for a folder without annotations.

    Parameters
    ----------
    folder
        Where the data set lies.
    classes, geometry
        Those of the network that will see the images.

    Raises
    ------
    DataError
        There is no such folder, or the network does not know the classes of the data set.
    """
    _check_folder(folder)
    found = next((one for one in data_sets() if one.recognizes(folder)), None)
    return None if found is None else found.open(folder, classes, geometry)


def open_mask_dataset(folder: Path, classes: Classes, geometry: InputGeometry) -> Source:
    """As :func:`open_dataset`, of the data sets whose objects have masks; ``DataError`` where the folder holds none of them."""
    _check_folder(folder)
    known = [one for one in data_sets() if one.masks]
    # The last one's own sentence says what a folder without annotations lacks.
    return next((one for one in known if one.recognizes(folder)), known[-1]).open(folder, classes, geometry)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder of a data set.")
