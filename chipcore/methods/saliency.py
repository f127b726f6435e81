"""What a method's map comes as: with its image, to be shown, saved or computed with."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from chipcore import maps
from chipcore.errors import SettingsError
from chipcore.storage import write_whole
from chipcore.visualization import overlay


@dataclass(frozen=True, repr=False)
class Saliency:
    """A map with everything that is needed to show it or to compute with it.

    ``raw`` (u, v) keeps its sign and resolution; ``view`` is the image as the network saw it, on which
    the map is drawn; ``probability`` is f^c. ``state`` says why there is nothing to see, where that is so.
    ``seconds`` and ``passes`` are the method's own, not those of reading f^c for the caption where the method
    can do without. ``image`` (3, size, size) in [0, 1] is the color picture of the methods that make one.

    A notebook shows it as the map over the image.
    """

    method: str
    network: str
    layer: str
    target: int
    label: str
    probability: float
    raw: Tensor
    view: Image.Image
    seconds: float
    passes: int
    image: Tensor | None = None

    def __repr__(self) -> str:
        size = "x".join(map(str, self.raw.shape))
        return f"<Saliency: {self.method} of {self.label} (p = {self.probability:.3f}) at {self.layer} of {self.network}, {size}, {self.state}>"

    @property
    def state(self) -> maps.State:
        return maps.state(self.raw)

    @cached_property
    def picture(self) -> Tensor:
        """The positive part at input resolution, float32 (size, size) in [0, 1]."""
        return maps.picture(self.raw, (self.view.height, self.view.width))

    def numpy(self) -> np.ndarray:
        """The raw, signed map, float32 (u, v)."""
        values: np.ndarray = self.raw.detach().cpu().float().numpy()
        return values

    def overlay(self, *, colormap: str = "inferno", opacity: float = 0.6) -> Image.Image:
        """The map over the image that the network saw."""
        return overlay(self.view, self.picture, colormap=colormap, opacity=opacity)

    def summary(self) -> dict[str, str | int | float]:
        """What it is, without the map."""
        return {
            "method": self.method, "network": self.network, "layer": self.layer, "class": self.target, "label": self.label,
            "probability": self.probability, "state": self.state, "seconds": self.seconds, "passes": self.passes,
        }  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write it, whole or not at all: ``.png`` the map over the image, ``.npy`` the raw map, ``.npz`` map, picture, view and what it is.

        Raises
        ------
        SettingsError
            Any other ending.
        """
        path = Path(path)
        arrays = {
            "raw": self.numpy(),
            "picture": self.picture.numpy(),
            "view": np.asarray(self.view),
            "about": np.array(json.dumps(self.summary())),
        }
        ending = path.suffix.lower()

        def write(temporary: Path) -> None:
            with open(temporary, "wb") as stream:
                if ending == ".png":
                    self.overlay().save(stream, "PNG")
                elif ending == ".npy":
                    np.save(stream, self.numpy())
                else:
                    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]

        if ending not in (".png", ".npy", ".npz"):
            raise SettingsError(f"a map can't be saved as {path.name}; give a name that ends in .png, .npy or .npz.")
        write_whole(path, write)
        return path

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.overlay().save(stream, "PNG")
        return stream.getvalue()
