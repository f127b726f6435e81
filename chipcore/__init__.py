"""CHIP: channel-wise disentangled interpretation of deep convolutional neural networks.

Cui, Wang and Wang (2019): close random subsets of a pretrained network's channels, watch the predictions
change, and fit, per layer, a sparse matrix W (classes x channels) that says which channels matter for
which class.
"""

__version__ = "0.1.0"

from chipcore.errors import ChipError, ImportanceNotFitted
from chipcore.fitting.pipeline import fit
from chipcore.fitting.settings import FitSettings
from chipcore.importance import Importance, load_importance
from chipcore.methods import Saliency, explain
from chipcore.networks import Layer, Network, load_network

__all__ = [
    "ChipError", "FitSettings", "Importance", "ImportanceNotFitted", "Layer", "Network", "Saliency", "__version__",
    "explain", "fit", "load_importance", "load_network",
]  # fmt: skip
