"""What commands write: whole files, and never over the image they were given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chipcore.errors import SettingsError
from chipcore.storage import write_whole


def refuse_overwriting(image: Path, given: Mapping[str, Path | None]) -> None:
    """``SettingsError`` where a file that is to be written is the image itself."""
    for flag, file in given.items():
        if file is not None and file.exists() and image.exists() and file.samefile(image):
            raise SettingsError(f"{flag} is {file}, the photograph itself; give another file.")


def write_array(path: Path, array: np.ndarray) -> None:
    """One array as .npy, whole or not at all."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as stream:  # a path would get .npy appended
            np.save(stream, array)

    write_whole(path, write)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays by name as .npz, whole or not at all."""
    if path.suffix.lower() != ".npz":
        raise SettingsError(f"--out is {path}; give a file that ends in .npz.")
    named: dict[str, Any] = dict(arrays)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as stream:
            np.savez_compressed(stream, **named)

    write_whole(path, write)
