"""One registry: what a network is, and every network we know."""

from chipcore.networks.classes import Classes
from chipcore.networks.entry import Depth, Entry
from chipcore.networks.network import Layer, Network
from chipcore.networks.registry import REGISTRY, load_network

__all__ = ["REGISTRY", "Classes", "Depth", "Entry", "Layer", "Network", "load_network"]
