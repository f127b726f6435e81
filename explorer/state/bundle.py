"""What all bundles of a view say of it: network, photograph, class and layer, and the photograph's file."""

from __future__ import annotations

from typing import Any

from explorer.services import gallery
from explorer.state.selection import Selection


def about(selection: Selection, **more: Any) -> dict[str, Any]:
    """The settings that every view shares, with the hashes that identify weights and photograph."""
    network, photograph = selection.network, selection.photograph
    return {
        "network": network.name, "weights_sha256": network.weights_sha256, "layer": selection.layer.name, "class": selection.class_name,
        "label": selection.label, "index": selection.target, "photograph": photograph.name, "photograph_sha256": photograph.sha256,
        "colour_map": selection.colour_map, "opacity": selection.opacity, **more,
    }  # fmt: skip


def photograph_file(selection: Selection) -> str:
    """The photograph's name in a bundle; nothing of the visitor's name for it, which may be anything."""
    return f"photograph.{gallery.kind(selection.photograph.data)}"


def files(selection: Selection) -> dict[str, bytes]:
    """The photograph, as its command reads it."""
    return {photograph_file(selection): selection.photograph.data}
