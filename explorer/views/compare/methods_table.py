"""How alike maps are, Table I, and what of a comparison can be written down. Pure functions, no Streamlit."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from chipcore import Network, Saliency
from chipcore.analysis.tables import to_csv
from chipcore.methods import METHODS
from chipcore.methods.base import Properties
from explorer.services import reproduce

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


def property_marks(properties: Properties) -> tuple[bool, ...]:
    """A method's check marks in the order of ``PROPERTIES``."""
    return (
        "perturbation" in properties.instance, "gradient" in properties.instance, properties.general, properties.class_discriminative,
        properties.high_resolution, properties.multi_layer, properties.post_hoc,
    )  # fmt: skip


def is_in_table1() -> tuple[list[str], list[str]]:
    """The methods that Table I lists, and those that only we added."""
    return [name for name, one in METHODS.items() if one.properties.row], [name for name, one in METHODS.items() if not one.properties.row]


def table_of(network: Network, saliencies: Sequence[Saliency]) -> str:
    """A line a map as CSV."""
    return to_csv(
        pd.DataFrame(
            [
                (
                    saliency.method, saliency.layer if METHODS[saliency.method].uses_layer else "", saliency.label, saliency.target,
                    saliency.probability, saliency.seconds, saliency.passes, float(saliency.raw.max()), float(saliency.raw.min()),
                    *saliency.raw.shape, saliency.state,
                )
                for saliency in saliencies
            ],
            columns=["method", "layer", "class", "index", "probability", "seconds", "passes", "maximum", "minimum", "height", "width", "state"],
        )
    )  # fmt: skip


def command_lines(network: Network, saliencies: Sequence[Saliency], image: str, colormap: str, opacity: float) -> str:
    """The command line of every map, one a line; its raw map is called as in the file of arrays."""
    return "\n".join(
        reproduce.explain(network, image, one.layer, one.target, one.method, key_of(one), colormap=colormap, opacity=opacity)
        for one in saliencies
    )


def key_of(saliency: Saliency) -> str:
    """A name for a map's array in a file of arrays."""
    layer = f"-{saliency.layer}" if METHODS[saliency.method].uses_layer else ""
    return f"{saliency.method}{layer}-class{saliency.target}"
