"""Images as people have them: one call for folders, tar shards, saved data sets and datasets in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from chipcore.datasets.huggingface import is_saved_dataset, open_saved_dataset
from chipcore.datasets.image_folder import find_images
from chipcore.datasets.image_set import ImageSet
from chipcore.datasets.tar_shards import is_tar, open_tar_shards
from chipcore.datasets.torch_datasets import open_dataset_images
from chipcore.errors import DataError

#: What :func:`open_images` takes.
Images = str | Path | Sequence[str | Path] | ImageSet | Iterable[tuple[Any, str]]


def open_images(given: Images) -> ImageSet:
    """Images by name, from wherever they are.

    Parameters
    ----------
    given
        One of these:

        - folders of images, flat or with class folders: a path or several
        - tar files as WebDataset writes them: ``"shards-{000..127}.tar"``, a path or several; not compressed
        - a folder that Hugging Face's ``save_to_disk`` wrote, which needs ``pip install 'chipcore[datasets]'``
        - a ``torch.utils.data.Dataset`` or another iterable of (image, name), torchvision's ``ImageFolder`` included; see
          :func:`chipcore.datasets.torch_datasets.open_dataset_images`

        An image is what :func:`chipcore.images.as_image` takes. Gates are keyed by names, so W is the same from a folder and from
        a tar file of it.

    Raises
    ------
    DataError
        Nothing there, or nothing that can be used.

    Examples
    --------
    >>> import numpy as np
    >>> gray = np.full((8, 8, 3), 128, dtype=np.uint8)
    >>> open_images([(gray, "first"), (gray, "second")]).names
    ('first', 'second')
    """
    if isinstance(given, ImageSet):
        return given
    if isinstance(given, str | Path):
        given = [given]
    if not isinstance(given, Sequence) or not all(isinstance(one, str | Path) for one in given):
        return open_dataset_images(given)
    paths = [one for one in given if isinstance(one, str | Path)]
    tars = [one for one in paths if is_tar(one) and not os.path.isdir(one)]
    if tars and len(tars) < len(paths):
        raise DataError("tar files and folders can't be mixed; give one kind.")
    if tars:
        return open_tar_shards(tars)
    saved = [Path(one) for one in paths if is_saved_dataset(Path(one))]
    if saved and len(paths) > 1:
        raise DataError(f"{saved[0]} is a saved data set, of which one can be given; leave the others out.")
    return open_saved_dataset(saved[0]) if saved else find_images(paths)
