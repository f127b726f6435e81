"""How alike maps are, Table I, and what of a comparison can be written down. Pure functions, no Streamlit."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from chipcore import Network, Saliency, maps
from chipcore.methods import METHODS
from chipcore.methods.base import Properties
from explorer import commands

# The columns of the paper's Table I, and what each means in plain words.
PROPERTIES = (
    ("Perturbation", "explains one photograph by closing or covering parts of something and watching the prediction"),
    ("Gradient", "explains one photograph by a signal sent back from the class score"),
    ("General", "holds knowledge of the network that was learned beyond this photograph"),
    ("Tells classes apart", "another class gives another map (the paper: class-discriminative)"),
    ("Fine detail", "as sharp as the photograph, not a coarse blur (the paper: high-resolution)"),
    ("Many layers", "makes sense at any depth, not at the last layer only (the paper: multi-layer)"),
    ("Any network", "needs no change to the network and no new training of it (the paper: post-hoc)"),
)


def marks(properties: Properties) -> tuple[bool, ...]:
    """A method's check marks in the order of ``PROPERTIES``."""
    return (
        "perturbation" in properties.instance, "gradient" in properties.instance, properties.general, properties.class_discriminative,
        properties.high_resolution, properties.multi_layer, properties.post_hoc,
    )  # fmt: skip


def in_the_paper() -> tuple[list[str], list[str]]:
    """The methods that Table I lists, and those that only we added."""
    return [name for name, one in METHODS.items() if one.properties.row], [name for name, one in METHODS.items() if not one.properties.row]


def as_drawn(raw: Tensor, size: int) -> np.ndarray:
    """What the eye is shown of a map: its positive part at the network's input resolution, float64 (size, size)."""
    large: np.ndarray = maps.positive_map(raw, size).numpy().astype(np.float64)
    return large


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 on, equal values sharing their mean rank; the shape of ``values``."""
    _distinct, place, count = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    found: np.ndarray = ((last - (count - 1) / 2)[place]).reshape(values.shape)
    return found


@dataclass(frozen=True)
class Likeness:
    """Correlations between maps, each (n, n); NaN where a map is the same everywhere, so that nothing can correlate with it."""

    pearson: np.ndarray
    rank: np.ndarray


def likeness(raws: Sequence[Tensor], size: int) -> Likeness:
    """How alike the drawn pictures of maps are, pixel by pixel.

    Args:
        raws: maps (u, v) of any resolution; each is brought to (size, size).
        size: pixels of the network's input.

    Returns:
        Pearson's correlation, and Spearman's, which is Pearson's of the ranks and pays no heed to how values are scaled.
    """
    drawn = [as_drawn(raw, size) for raw in raws]
    return Likeness(_correlations(drawn), _correlations([ranks(one) for one in drawn]))


def _correlations(pictures: Sequence[np.ndarray]) -> np.ndarray:
    rows = np.stack([one.ravel() - one.mean() for one in pictures])
    length = np.sqrt((rows**2).sum(1))
    # A map that is even up to rounding has no direction.
    flat = length <= 1e-12 * np.sqrt(rows.shape[1]) * np.array([max(1e-300, float(np.abs(one).max())) for one in pictures])
    unit = rows / np.where(flat, 1, length)[:, None]
    found: np.ndarray = np.clip(unit @ unit.T, -1, 1)
    found[flat] = found[:, flat] = np.nan
    return found


def table_of(network: Network, saliencies: Sequence[Saliency]) -> str:
    """A line a map as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ("method", "layer", "class", "index", "probability", "seconds", "passes", "maximum", "minimum", "height", "width", "state")
    )
    for one in saliencies:
        layer = one.layer if METHODS[one.method].uses_layer else ""
        writer.writerow((
            one.method, layer, one.label, one.target, f"{one.probability:.6g}", f"{one.seconds:.4f}", one.passes,
            f"{float(one.raw.max()):.6g}", f"{float(one.raw.min()):.6g}", *one.raw.shape, one.state,
        ))  # fmt: skip
    return stream.getvalue()


def command_lines(network: Network, saliencies: Sequence[Saliency], photograph: str, colour_map: str, opacity: float) -> str:
    """The command line of every map, one a line; its raw map is called as in the file of arrays."""
    return "\n".join(
        commands.explain(network, photograph, one.layer, one.target, one.method, key_of(one), colour_map=colour_map, opacity=opacity)
        for one in saliencies
    )


def key_of(saliency: Saliency) -> str:
    """A name for a map's array in a file of arrays."""
    layer = f"-{saliency.layer}" if METHODS[saliency.method].uses_layer else ""
    return f"{saliency.method}{layer}-class{saliency.target}"
