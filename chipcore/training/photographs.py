"""Class folders as one array in memory, and random views of it.

Every image is decoded once, to ``size`` x ``size`` pixels of uint8: 77 kB each at 160 px, so 10,000
images take under 0.8 GB and an epoch reads no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.datasets.image_set import batches
from chipcore.errors import DataError
from chipcore.images import InputGeometry

Report = Callable[[str, int, int], None]  # stage, done, total
UNLABELED = "unlabeled"  # the folder of images without a class: a teacher has something to say about them too


@dataclass(frozen=True)
class ClassFolders:
    """Images whose class is the name of the folder they lie in.

    ``classes`` are the folders' names in sorted order, ``labels`` (n) the class of each image, -1 of those in
    the folder ``unlabeled``.
    """

    images: ImageFolder
    classes: tuple[str, ...]
    labels: Tensor

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.images.fingerprint.encode())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()


def find_classes(folder: Path, classes: tuple[str, ...] = ()) -> ClassFolders:
    """The class folders below ``folder``, in sorted order or in that of ``classes``.

    Raises ``DataError`` where there are fewer than two classes, where images lie outside a class
    folder, or where a folder is not among ``classes``.
    """
    found = find_images(folder)
    root = Path(folder).resolve()
    tops = [(found.root / name).relative_to(root).parts for name in found.names]
    if any(len(parts) < 2 for parts in tops):
        stray = next(name for name, parts in zip(found.names, tops, strict=True) if len(parts) < 2)
        raise DataError(f"{found.root / stray} lies outside the class folders of {folder}; give a folder that holds one folder a class.")
    names = [parts[0] for parts in tops]
    there = tuple(sorted(set(names) - {UNLABELED}))
    if classes:
        unknown = [name for name in there if name not in classes]
        if unknown:
            raise DataError(f"{folder} has class folders that the training set lacks: {', '.join(unknown[:8])}; use the same folder names.")
        there = classes
    elif len(there) < 2:
        raise DataError(
            f"{folder} has only the class {there[0]!r}; give at least two class folders."
            if there
            else f"{folder} has no class folders; give at least two."
        )
    number = {name: index for index, name in enumerate(there)}
    return ClassFolders(found, there, torch.tensor([number.get(name, -1) for name in names]))


@dataclass(frozen=True)
class Decoded:
    """All images as ``views`` uint8 (n, size, size, 3); those not ``readable`` (n, bool) are black and ``unreadable`` says why."""

    views: Tensor
    readable: Tensor
    unreadable: tuple[str, ...]


def decode(folders: ClassFolders, geometry: InputGeometry, report: Report | None = None, stage: str = "photographs") -> Decoded:
    """Every image of the class folders, in their order. Raises ``DataError`` where none can be read."""
    names = folders.images.names
    position = {name: index for index, name in enumerate(names)}
    views = torch.zeros(len(names), geometry.size, geometry.size, 3, dtype=torch.uint8)
    readable = torch.zeros(len(names), dtype=torch.bool)
    unreadable: list[str] = []
    done = 0
    for batch in batches(folders.images, names, geometry, 64):
        for name, view in zip(batch.names, batch.views, strict=True):
            views[position[name]] = view
            readable[position[name]] = True
        unreadable += batch.unreadable
        done += len(batch.names) + len(batch.unreadable)
        if report:
            report(stage, done, len(names))
    if not readable.any():
        raise DataError(f"none of the {len(names)} files below {folders.images.root} could be read as a photograph; give another folder.")
    return Decoded(views, readable, tuple(unreadable))


@dataclass(frozen=True)
class Augmentation:
    """How much a training view may differ from its image.

    ``area`` bounds the share of the image that a crop shows, ``aspect`` the crop's stretch; ``jitter`` the factors
    (1 - jitter to 1 + jitter) on brightness, contrast and saturation; ``erased`` is the share of views that lose a rectangle
    (random erasing, Zhong et al. 2020).
    """

    area: tuple[float, float] = (0.3, 1.0)
    aspect: float = 4 / 3
    jitter: float = 0.4
    gray: float = 0.05
    erased: float = 0.25


def crops(count: int, how: Augmentation, random: np.random.Generator) -> Tensor:
    """Random crops, half of them mirrored, as affine maps (count, 2, 3) from output to input coordinates in [-1, 1].

    The same map cuts the crop out of a image and out of any feature map of it.
    """
    area = random.uniform(*how.area, count)
    stretch = np.exp(random.uniform(-np.log(how.aspect), np.log(how.aspect), count) / 2)
    wide = np.minimum(1.0, np.sqrt(area) * stretch)
    high = np.minimum(1.0, np.sqrt(area) / stretch)
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0] = wide * random.choice((-1.0, 1.0), count)
    theta[:, 0, 2] = random.uniform(-1, 1, count) * (1 - wide)
    theta[:, 1, 1] = high
    theta[:, 1, 2] = random.uniform(-1, 1, count) * (1 - high)
    return torch.from_numpy(theta)


def cut(images: Tensor, theta: Tensor, size: int) -> Tensor:
    """The crops ``theta`` of images or feature maps (B, K, H, W), shape (B, K, size, size); bilinear."""
    grid = functional.affine_grid(theta.to(images), [len(images), 1, size, size], align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def recolor(images: Tensor, how: Augmentation, random: np.random.Generator) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] with other brightness, contrast and saturation, some without color."""

    def factors() -> Tensor:
        drawn = random.uniform(1 - how.jitter, 1 + how.jitter, len(images)).astype(np.float32)
        return torch.from_numpy(drawn).to(images)[:, None, None, None]

    weights = torch.tensor((0.299, 0.587, 0.114)).to(images)[:, None, None]
    images = images * factors()
    gray = (images * weights).sum(1, keepdim=True)
    saturation = factors()
    saturation = saturation * torch.from_numpy(random.random(len(images)) >= how.gray).to(images)[:, None, None, None]
    images = gray + saturation * (images - gray)
    mean = gray.mean((2, 3), keepdim=True)
    return (mean + factors() * (images - mean)).clamp_(0, 1)


def erase(images: Tensor, how: Augmentation, random: np.random.Generator) -> Tensor:
    """Normalized images (B, 3, H, W) of which some lose a rectangle of 5 to 25% of their area to gray; in place."""
    size = images.shape[-1]
    for index in np.flatnonzero(random.random(len(images)) < how.erased):
        area, stretch = random.uniform(0.05, 0.25), np.exp(random.uniform(-0.7, 0.7))
        high = min(size, max(1, round(size * float(np.sqrt(area * stretch)))))
        wide = min(size, max(1, round(size * float(np.sqrt(area / stretch)))))
        top, left = random.integers(0, size - high + 1), random.integers(0, size - wide + 1)
        images[index, :, top : top + high, left : left + wide] = 0
    return images
