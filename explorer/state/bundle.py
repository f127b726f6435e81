"""What all bundles of a view say of it: network, image, class and layer, and the image's file."""

from __future__ import annotations

from typing import Any

from explorer.services import gallery
from explorer.state.selection import Selection


def about(selection: Selection, **more: Any) -> dict[str, Any]:
    """The settings that every view shares, with the hashes that identify weights and image."""
    network, image = selection.network, selection.image
    return {
        "network": network.name, "weights_sha256": network.weights_sha256, "layer": selection.layer.name, "class": selection.class_name,
        "label": selection.label, "index": selection.target, "photograph": image.name, "photograph_sha256": image.sha256,
        "colour_map": selection.colormap, "opacity": selection.opacity, **more,
    }  # fmt: skip


def image_file(selection: Selection) -> str:
    """The image's name in a bundle; nothing of the visitor's name for it, which may be anything."""
    return f"photograph.{gallery.kind(selection.image.data)}"


def files(selection: Selection) -> dict[str, bytes]:
    """The image, as its command reads it."""
    return {image_file(selection): selection.image.data}
