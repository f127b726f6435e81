"""What the visitor chose: network, image, class and layer."""

from __future__ import annotations

from dataclasses import dataclass

from chipcore import Importance, Layer, Network
from explorer.services import reproduce
from explorer.services.gallery import GalleryImage
from explorer.state import cached
from explorer.state.cached import Prediction


@dataclass(frozen=True)
class Selection:
    """What the visitor chose, and what the network makes of it.

    ``gallery`` are all images that can be chosen, by name: the free ones, then the visitor's own. ``model`` is
    what the app calls the network: its name in the registry, or the key of one's own.
    """

    network: Network
    image: GalleryImage
    seen: Prediction
    target: int
    layer: Layer
    colormap: str
    opacity: float
    one_scale: bool
    gallery: dict[str, GalleryImage]
    model: str = ""

    @property
    def label(self) -> str:
        return self.network.classes.labels[self.target]

    @property
    def class_name(self) -> str:
        """The class as links and commands name it: its synset, or its number."""
        return reproduce.class_name(self.network, self.target)

    def importance(self, layer: Layer) -> Importance:
        """W at a layer; raises ``ChipError`` where there is none."""
        return cached.importance(self.network.id, layer.name, self.network)
