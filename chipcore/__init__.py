"""CHIP: channel-wise disentangled interpretation of deep convolutional neural networks.

Cui, Wang and Wang (2019): close random subsets of a pretrained network's channels, watch the predictions
change, and fit, per layer, a sparse matrix W (classes x channels) that says which channels matter for
which class.

The names below are the public API. Each is imported when it is first used, so ``import chipcore`` and the
command line's help do not load torch.

Examples
--------
>>> import chipcore
>>> from PIL import Image
>>> from skimage import data
>>> network = chipcore.load_network("efficientnet_lite0")
>>> saliency = chipcore.explain(network, Image.fromarray(data.chelsea()), target="tabby", layer="head")
>>> saliency.label, saliency.state, tuple(saliency.raw.shape), tuple(saliency.picture.shape)
('tabby', 'ok', (7, 7), (224, 224))
>>> importance = chipcore.load_importance(network, "head")
>>> len(importance.top_channels(network.classes.index("tabby"), 10))
10
>>> chipcore.FitSettings(gates=0)
Traceback (most recent call last):
chipcore.errors.SettingsError: gates is 0; give at least 1.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # for type checkers and editors; `_HOME` below is what runs
    from chipcore.errors import ChipError, ImportanceNotFitted
    from chipcore.fitting.pipeline import fit
    from chipcore.fitting.settings import FitSettings
    from chipcore.importance import Importance, load_importance
    from chipcore.methods import METHODS, Saliency, explain, explain_many
    from chipcore.networks import Layer, Network, load_network, wrap

_HOME = {
    "ChipError": "chipcore.errors",
    "FitSettings": "chipcore.fitting.settings",
    "Importance": "chipcore.importance",
    "ImportanceNotFitted": "chipcore.errors",
    "Layer": "chipcore.networks",
    "METHODS": "chipcore.methods",
    "Network": "chipcore.networks",
    "Saliency": "chipcore.methods",
    "explain": "chipcore.methods",
    "explain_many": "chipcore.methods",
    "fit": "chipcore.fitting.pipeline",
    "load_importance": "chipcore.importance",
    "load_network": "chipcore.networks",
    "wrap": "chipcore.networks",
}

__all__ = [
    "METHODS", "ChipError", "FitSettings", "Importance", "ImportanceNotFitted", "Layer", "Network", "Saliency", "__version__",
    "explain", "explain_many", "fit", "load_importance", "load_network", "wrap",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name == "figures":  # chipcore.figures.heatmap(...) after a plain import chipcore
        return importlib.import_module("chipcore.figures")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
