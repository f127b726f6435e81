"""Every network we know, by name."""

from __future__ import annotations

from pathlib import Path

import torch

from chipcore.errors import UnknownName
from chipcore.networks.entry import Entry
from chipcore.networks.network import Network
from chipcore.networks.weights import load_strictly, read_state_dict
from chipcore.networks.zoo import ENTRIES

REGISTRY: dict[str, Entry] = {entry.name: entry for entry in ENTRIES}


def load_network(name: str, *, checkpoint: str | Path | None = None, device: str | torch.device = "cpu", download: bool = True) -> Network:
    """A network of the registry, with its published weights or with those of a checkpoint.

    Args:
        name: a registry name, see ``python -m chipcore networks``.
        checkpoint: a state_dict (.pth, .pt or .safetensors). Pickled models are refused.
        device: where the network runs.
        download: whether published weights that are not on this machine may be fetched.

    Raises:
        UnknownName: no such network. CheckpointError: weights missing, damaged or of another network.
    """
    entry = REGISTRY.get(name)
    if entry is None:
        raise UnknownName("network", name, REGISTRY)
    model = entry.build()
    if checkpoint is None:
        weights, source = entry.weights.load(download), "published weights"
    else:
        weights, source = read_state_dict(Path(checkpoint)), str(checkpoint)
    load_strictly(model, entry.fitting(weights, model), entry.name, source)
    network = Network.wrap(
        model, name=name, title=entry.title, layers=entry.layers, geometry=entry.geometry, classes=entry.classes(), source=source
    )
    return network.to(device)
