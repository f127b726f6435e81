"""What can be taken home from the lower parts of Channels: the Venn diagrams' regions, the neighbors, the tree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from chipcore import Importance, Layer, Network
from chipcore.analysis import class_channels
from chipcore.analysis.channel_overlap import cosines
from explorer.components import downloads
from explorer.components.downloads import Export
from explorer.figures import lessons as beside
from explorer.figures import theme
from explorer.services import reproduce

TOP = 10  # channels that neighbors are counted by


def settings(network: Network, layer: Layer, importance: Importance, classes: Sequence[int], **more: object) -> dict[str, object]:
    """What every bundle of this page says of W."""
    return {
        "network": network.name, "weights_sha256": network.weights_sha256, "layer": layer.name, "W": importance.metadata,
        "classes": [network.classes.labels[index] for index in classes], **more,
    }  # fmt: skip


def overlaps(network: Network, layer: Layer, importance: Importance, compared: Sequence[int], count: int, share: float) -> None:
    """Both Venn diagrams: their regions' channels as a table, and the sets behind them."""
    labels = tuple(network.classes.labels[index] for index in compared)

    def take() -> Export:
        from explorer.figures import venn  # takes longer to load than the rest of the page

        found = {
            f"the {count} most important": class_channels.regions([importance.top_channels(index, count) for index in compared]),
            f"above {share:g} of the largest": class_channels.regions([importance.channels_above(index, share) for index in compared]),
        }
        drawn = [venn.venn_picture(regions, labels, theme.LIGHT) for regions in found.values()]
        sets = {
            name: np.array([[k in chosen for k in range(layer.channels)] for chosen in several])
            for name, several in (
                ("top", [set(importance.top_channels(index, count)) for index in compared]),
                ("above", [set(importance.channels_above(index, share)) for index in compared]),
            )
        }  # fmt: skip
        return Export(
            beside.beside(drawn, theme.LIGHT), {"classes": np.array(compared), **sets}, class_channels.regions_csv(found, labels),
            settings(network, layer, importance, compared, top=count, share=share),
            reproduce.rows(network, layer.name, "venn", compared, top=count, above=share),
        )  # fmt: skip

    downloads.offer("take-venn", f"venn-{network.name}-{layer.name}", take, table=True, folded="Download these regions")


def neighbors(network: Network, layer: Layer, importance: Importance, target: int, rows: Sequence[int]) -> None:
    """The nearest classes as a table, and the tree of the chosen ones."""
    labels = network.classes.labels

    def take() -> Export:
        from explorer.figures import venn

        near = class_channels.neighbors(importance, target, TOP)
        W = importance.W.numpy()
        linked = class_channels.tree(W[list(rows)]) if len(rows) > 1 else np.empty((0, 4))
        chosen = tuple(labels[index] for index in rows)
        picture = venn.tree_picture(linked, chosen, labels[target], theme.LIGHT) if len(rows) > 1 else _nothing()
        arrays = {
            "classes": np.array([one.index for one in near]), "shared": np.array([one.shared for one in near]),
            "jaccard": np.array([one.jaccard for one in near]), "cosine": np.array([one.cosine for one in near]),
            "tree_classes": np.array(rows), "tree": linked, "tree_cosine": cosines(W[list(rows)], W[list(rows)]),
        }  # fmt: skip
        lines = [reproduce.rows(network, layer.name, "all", top=TOP), reproduce.rows(network, layer.name, "tree", rows, top=TOP)]
        return Export(
            picture,
            arrays,
            class_channels.neighbors_csv(near, network.classes),
            settings(network, layer, importance, rows, nearest_to=labels[target]),
            "\n".join(lines),
        )

    downloads.offer(
        "take-near", f"nearest-{network.name}-{layer.name}-{labels[target]}", take, table=True, folded="Download neighbours and tree"
    )


def _nothing() -> Image.Image:
    return Image.new("RGB", (8, 8), theme.LIGHT.paper)
