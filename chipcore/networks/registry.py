"""Every network we know, by name, and the way from a name to a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from chipcore.datasets.class_names import Classes, numbered
from chipcore.datasets.label_files import read_labels
from chipcore.errors import CheckpointError, ChipError, DataError
from chipcore.gating.split import CutOptions
from chipcore.gating.token_grid import Reshape
from chipcore.networks.adopted import adopt
from chipcore.networks.checkpoint_config import CheckpointConfig, read_sheet
from chipcore.networks.external import recipe
from chipcore.networks.inputs import find_input
from chipcore.networks.layer_discovery import discover
from chipcore.networks.network import Network
from chipcore.networks.outputs import Outputs
from chipcore.networks.spec import NetworkSpec
from chipcore.networks.weights import fit_names, load_strictly, read_state_dict
from chipcore.networks.wrapping import examine
from chipcore.networks.zoo import ENTRIES
from chipcore.storage import is_file

REGISTRY: dict[str, NetworkSpec] = {entry.name: entry for entry in ENTRIES}


def load_network(
    name: str | None = None,
    *,
    checkpoint: str | Path | None = None,
    labels: str | Path | Classes | Sequence[str] | None = None,
    layers: Mapping[str, str] | None = None,
    size: int | Sequence[int] | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    fit: str | None = None,
    outputs: str | None = None,
    reshape: Reshape = None,
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
        checkpoint: a state_dict (.pth, .pt, .ckpt, .bin, .pth.tar or .safetensors), or what a training program has put one
            into. Pickled models are refused.
        labels: the class names, or a file of text, JSON or CSV, in the order of the outputs; their number is
            the number of classes. Without them the name's own, or numbers.
        layers: name to module path; without them the registry's, or those that ``discover`` finds.
        size: side of the input in pixels, or height and width. mean, std: of the normalization, one value or one a channel.
        fit: how an image is made square, 'squash' or 'crop'.
        outputs: what the network gives, see :mod:`chipcore.networks.outputs`; 'logits' for a name that is known, else found.
        reshape: 'tokens' reads the patches' tokens of a transformer as maps; see :func:`chipcore.wrap`.
        device: where the network runs.
        download: whether published weights that are not on this machine may be fetched.

    Raises:
        UnknownName: no such network. CheckpointError: weights missing, damaged or of another network.
        SettingsError, DataError: the TOML, the flags or the labels. ChipError: the network itself.
    """
    if name is not None and not isinstance(name, str):
        raise ChipError(f"load_network takes a name, not a {type(name).__name__}; give a module to chipcore.wrap.")
    file = Path(checkpoint) if checkpoint is not None else None
    if file is not None and not is_file(file):
        raise CheckpointError(f"there is no checkpoint file {file}; check the path.")
    side = tuple(size) if isinstance(size, Sequence) else size
    colors = [tuple(one) if isinstance(one, Sequence) else None if one is None else (float(one),) for one in (mean, std)]
    said = CheckpointConfig(
        name, None, side, fit, None, colors[0], colors[1], layers=tuple(layers.items()) if layers else (), outputs=outputs
    ).over(read_sheet(file))
    if said.network is None:
        raise ChipError('no network is named; give --network, or network = "..." in a TOML file beside the checkpoint.')
    named = recipe(said.network, REGISTRY, published=file is None)
    classes = _classes(labels if labels is not None else said.labels)
    geometry = said.geometry(named.geometry)

    model = named.build(len(classes) if classes is not None else None)
    source = "its own code"
    if file is not None or named.weights is not None:
        weights = read_state_dict(file) if file is not None else named.weights.load(download)  # type: ignore[union-attr]
        source = str(file) if file is not None else "published weights"
        if named.entry is not None:
            weights = named.entry.fitting(fit_names(weights, model.state_dict()), model)
        count = len(classes if classes is not None else named.classes() if named.classes is not None else ()) or 1000
        load_strictly(model, weights, named.name, source, count)
    kind = said.outputs or ("auto" if named.entry is None else "logits")
    notes: tuple[str, ...] = ()
    steady = True
    if named.entry is not None and kind == "logits":
        own, notes = adopt(model, named.name)
        classes = classes or named.entry.classes()
        if geometry.shape != named.geometry.shape:  # too small a size is the user's mistake: say so
            find_input(own, geometry, named.name)
        outputs_are: Outputs = "logits"
    else:
        found = examine(model, geometry, named.name, kind)
        own, geometry, outputs_are, notes, steady = found.model, found.geometry, found.outputs, found.notes, found.steady
        known = named.classes() if named.classes is not None else numbered(found.count)
        classes = classes or (known if len(known) == found.count else numbered(found.count))
    at = said.layers or tuple((depth.name, depth.path) for depth in named.depths) or discover(own, geometry, named.name, reshape)
    network = Network.of_own(
        own, name=named.name, title=named.title, layers=at, geometry=geometry, classes=classes, source=source, outputs=outputs_are, notes=notes,
        given=_flags(file, labels, side, colors[0], colors[1], fit, outputs, reshape), cutting=CutOptions(reshape=reshape, check=steady),
    )  # fmt: skip
    return network.to(device)


def _classes(labels: str | Path | Classes | Sequence[str] | None) -> Classes | None:
    if labels is None or isinstance(labels, Classes):
        return labels
    if isinstance(labels, str | Path):
        return read_labels(labels)
    if not labels or not all(isinstance(one, str) and one.strip() for one in labels):
        raise DataError("labels holds a name that is empty or no text; give every class a name.")
    return Classes(tuple(labels))


def _flags(
    file: Path | None, labels: str | Path | Classes | Sequence[str] | None, size: int | tuple[int, ...] | None, mean: Sequence[float] | None,
    std: Sequence[float] | None, fit: str | None, outputs: str | None, reshape: Reshape,
) -> tuple[str, ...] | None:  # fmt: skip
    """The command line's flags for these arguments, None where it has none; the sheet beside the checkpoint is read again by itself."""
    if callable(reshape):
        return None
    named = labels if isinstance(labels, str | Path) else None  # names without a file have no flag
    said: dict[str, list[object]] = {
        "--checkpoint": [file] if file is not None else [], "--labels": [] if named is None else [named],
        "--size": [] if size is None else [size] if isinstance(size, int) else list(size), "--mean": list(mean or ()), "--std": list(std or ()),
        "--fit": [fit] if fit else [], "--outputs": [outputs] if outputs else [],
    }  # fmt: skip
    parts = [str(part) for flag, values in said.items() if values for part in (flag, *values)]
    return (*parts, "--tokens") if reshape == "tokens" else tuple(parts)
