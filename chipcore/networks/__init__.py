"""One registry: what a network is, and every network we know."""

from chipcore.datasets.class_names import Classes
from chipcore.networks.network import Layer, Network
from chipcore.networks.registry import REGISTRY, load_network
from chipcore.networks.spec import LayerSpec, NetworkSpec
from chipcore.networks.wrapping import wrap

__all__ = ["REGISTRY", "Classes", "Layer", "LayerSpec", "Network", "NetworkSpec", "load_network", "wrap"]
