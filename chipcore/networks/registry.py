"""Every network we know, by name, and the way from a name to a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from chipcore.datasets.class_names import Classes, numbered
from chipcore.datasets.label_files import read_labels
from chipcore.errors import CheckpointError, ChipError
from chipcore.networks.checkpoint_config import CheckpointConfig, read_sheet
from chipcore.networks.external import count_outputs, recipe
from chipcore.networks.layer_discovery import discover
from chipcore.networks.network import Network
from chipcore.networks.spec import NetworkSpec
from chipcore.networks.weights import load_strictly, read_state_dict
from chipcore.networks.zoo import ENTRIES
from chipcore.storage import is_file

REGISTRY: dict[str, NetworkSpec] = {entry.name: entry for entry in ENTRIES}


def load_network(
    name: str | None = None,
    *,
    checkpoint: str | Path | None = None,
    labels: str | Path | Classes | None = None,
    layers: Mapping[str, str] | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    fit: str | None = None,
    device: str | torch.device = "cpu",
    download: bool = True,
) -> Network:
    """A network by name, with its published weights or with those of a checkpoint.

    What is not said here is taken from the TOML file beside the checkpoint (:mod:`chipcore.networks.checkpoint_config`),
    then from the name.

    Args:
        name: a registry name (``python -m chipcore networks``), another torchvision classifier, ``timm:NAME``,
            or ``module:factory``, a function of yours that gives a ``torch.nn.Module``. Naming a
            ``module:factory`` imports that module, from the current directory too, and runs its code.
        checkpoint: a state_dict (.pth, .pt or .safetensors). Pickled models are refused.
        labels: the class names, a file of text, JSON or CSV, in the order of the outputs; their number is
            the number of classes. Without them the name's own, or numbers.
        layers: name to module path; without them the registry's, or those that ``discover`` finds.
        size: side of the square input in pixels. mean, std: of the normalization, one value or one a color.
        fit: how a image is made square, 'squash' or 'crop'.
        device: where the network runs.
        download: whether published weights that are not on this machine may be fetched.

    Raises:
        UnknownName: no such network. CheckpointError: weights missing, damaged or of another network.
        SettingsError, DataError: the TOML, the flags or the labels. ChipError: the network itself.
    """
    file = Path(checkpoint) if checkpoint is not None else None
    if file is not None and not is_file(file):
        raise CheckpointError(f"there is no checkpoint file {file}; check the path.")
    said = CheckpointConfig(
        name, None, size, fit, None, tuple(mean) if mean is not None else None, tuple(std) if std is not None else None,
        layers=tuple(layers.items()) if layers else (),
    ).over(read_sheet(file))  # fmt: skip
    if said.network is None:
        raise ChipError('no network is named; give --network, or network = "..." in a TOML file beside the checkpoint.')
    named = recipe(said.network, REGISTRY, published=file is None)
    if isinstance(labels, Classes):
        classes: Classes | None = labels
    else:
        place = labels if labels is not None else said.labels
        classes = read_labels(place) if place is not None else None
    geometry = said.geometry(named.geometry)

    model = named.build(len(classes) if classes is not None else None)
    source = "its own code"
    if file is not None or named.weights is not None:
        weights = read_state_dict(file) if file is not None else named.weights.load(download)  # type: ignore[union-attr]
        source = str(file) if file is not None else "published weights"
        if named.entry is not None:
            weights = named.entry.fitting(weights, model)
        count = len(classes if classes is not None else named.classes() if named.classes is not None else ()) or 1000
        load_strictly(model, weights, named.name, source, count)
    if named.entry is not None:
        classes = classes or named.entry.classes()
        if geometry.size != named.geometry.size:  # too small a size is the user's mistake: say so
            count_outputs(model, geometry.size, named.name)
    else:
        outputs = count_outputs(model, geometry.size, named.name)
        own = named.classes() if named.classes is not None else numbered(outputs)
        classes = classes or (own if len(own) == outputs else numbered(outputs))
    at = said.layers or tuple((depth.name, depth.path) for depth in named.depths) or discover(model.eval(), geometry.size, named.name)
    network = Network.wrap(model, name=named.name, title=named.title, layers=at, geometry=geometry, classes=classes, source=source)
    given = _flags(file, labels, size, mean, std, fit)
    return replace(network, given=given).to(device)


def _flags(file: Path | None, labels: str | Path | Classes | None, size: int | None, mean: Sequence[float] | None, std: Sequence[float] | None, fit: str | None) -> tuple[str, ...]:  # fmt: skip
    """The command line's flags for these arguments; the sheet beside the checkpoint is read again by itself."""
    said: dict[str, list[object]] = {
        "--checkpoint": [file] if file is not None else [], "--labels": [] if labels is None or isinstance(labels, Classes) else [labels],
        "--size": [] if size is None else [size], "--mean": list(mean or ()), "--std": list(std or ()), "--fit": [fit] if fit else [],
    }  # fmt: skip
    return tuple(str(part) for flag, values in said.items() if values for part in (flag, *values))
