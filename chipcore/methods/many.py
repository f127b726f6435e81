"""Maps of many images: one pass for a batch where a method needs no more than the features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chipcore.datasets.image_folder import find_images
from chipcore.errors import SettingsError, UnknownName
from chipcore.gating.suffix import Activations
from chipcore.importance import Importance, load_importance
from chipcore.methods.base import METHODS, explain_view, view_of_any
from chipcore.methods.saliency import Saliency
from chipcore.networks.network import Network

Target = int | str | None


def explain_many(
    network: Network, images: Any, target: Target | Sequence[Target] = None, method: str = "chip", layer: str | None = None,
    importance: Importance | None = None, *, shallow_importance: Importance | None = None, versus: int | str | None = None,
    options: Mapping[str, Any] | None = None, batch: int = 32, progress: Callable[[int, int], None] | None = None,
) -> list[Saliency]:  # fmt: skip
    """A map for each of many images; CHIP takes one pass for ``batch`` of them.

    Parameters
    ----------
    network
        From :func:`chipcore.load_network` or :func:`chipcore.wrap`.
    images
        A folder, an array (B, H, W, 3), a tensor (B, 3, H, W), or any iterable of what :func:`chipcore.explain` takes.
    target
        A class for all images, or a list with one for each; each image's first class by default.
    method, layer, importance, shallow_importance, versus, options
        As for :func:`chipcore.explain`.
    batch
        How many images go through the network together.
    progress
        Called with (done, total) after each batch.

    Raises
    ------
    ChipError
        As :func:`chipcore.explain`, or as many targets as there are not images.
    """
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)
    chosen = METHODS[method]
    if batch < 1:
        raise SettingsError(f"batch is {batch}; give a whole number above 0.")
    at = network.layer(layer) if layer is not None else network.layers[-1]
    given = list(_each(images))
    targets: list[Target] = list(target) if isinstance(target, list | tuple) else [target] * len(given)  # type: ignore[list-item]
    if len(targets) != len(given):
        raise SettingsError(f"{len(given)} images but {len(targets)} targets; give one target a image, or one for all.")
    if chosen.needs_importance and importance is None:
        importance = load_importance(network, at.name)
    if chosen.needs_shallow and shallow_importance is None:
        shallow_importance = load_importance(network, network.layers[0].name)
    layers = chosen.layers(network, at)
    found: list[Saliency] = []
    for group in _groups(given, targets, batch):
        views = [view_of_any(image, network.geometry) for image, _target in group]
        known: list[Activations | None] = [None] * len(views)
        if chosen.from_features and chosen.adds_channels and chosen.needs_importance:  # a sum over the features, and nothing behind them
            inputs = network.geometry.normalize(torch.from_numpy(np.stack([np.asarray(view) for view in views])))
            with torch.inference_mode():
                together = network.forward_prefix(inputs, layers)
            known = [_one_of(together, place) for place in range(len(views))]
        for view, (_image, one), activations in zip(views, group, known, strict=True):
            found.append(explain_view(
                network, view, one, method, at.name, importance, shallow_importance=shallow_importance, options=options, versus=versus,
                activations=activations,
            ))  # fmt: skip
        if progress is not None:
            progress(len(found), len(given))
    return found


def _groups(images: Sequence[Any], targets: Sequence[Target], size: int) -> Iterator[list[tuple[Any, Target]]]:
    pairs = list(zip(images, targets, strict=True))
    return (pairs[start : start + size] for start in range(0, len(pairs), size))


def _one_of(together: Activations, place: int) -> Activations:
    """The features of one image of a batch; without side inputs, which a sum over the features does not read."""
    features = {path: value[place : place + 1] for path, value in together.features.items()}
    return Activations(together.scores[place : place + 1], features, {})


def _each(images: Any) -> Iterable[Any]:
    """The images one by one: of a folder, of a batch, or of an iterable."""
    if isinstance(images, str | Path) and Path(images).is_dir():
        folder = find_images(images)
        return (folder.root / name for name in folder.names)
    if isinstance(images, Tensor | np.ndarray) and images.ndim == 4:
        return iter(images)
    single = isinstance(images, str | Path | bytes | Tensor | np.ndarray) or not isinstance(images, Iterable)
    return [images] if single else images
