"""What is loaded or computed once and shared between visitors.

Streamlit hashes arguments, and large arrays only by sample. So every cache here is keyed by short strings
(a network's id, a layer's name, the sha256 of a image), and what is heavy is passed as ``_argument``,
which takes no part in the key. Errors are not cached: what was missing is looked for again next time.

What is heavy is bounded by its bytes (``explorer/services/cache.py``), for a crowd brings many images and networks of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import streamlit as st
import torch
from PIL import Image
from torch import Tensor

import chipcore
from chipcore import Importance, Layer, Network
from chipcore.analysis import channel_ablation, channel_order
from chipcore.analysis.channel_ablation import AblatedScores
from chipcore.evaluation import grid_game
from chipcore.fitting.memory import COPIES
from chipcore.gating.suffix import Activations
from chipcore.importance import file_of
from chipcore.methods.backpropagation import input_gradient
from chipcore.methods.base import MethodInputs
from chipcore.networks import REGISTRY
from chipcore.storage import fitted_importance
from explorer import figures
from explorer.services import custom_networks, fits, gallery, memory, photo_links
from explorer.services.cache import cached_by_size, size_of
from explorer.services.gallery import GalleryImage
from explorer.services.saliency_cache import MapCache
from explorer.state import own_fits
from explorer.state.visitors import at_work


@dataclass(frozen=True)
class Prediction:
    """A image as a network saw it, in one pass: all that any class and any layer needs.

    ``probabilities`` (C,) are f(X), ``scores`` (C,) those before softmax, ``features`` A by layer name,
    each (K, u, v).
    """

    view: Image.Image
    probabilities: Tensor
    scores: Tensor
    features: dict[str, Tensor]

    def best(self, count: int) -> list[int]:
        """The ``count`` most probable classes, the most probable first."""
        return [int(index) for index in self.probabilities.topk(min(count, len(self.probabilities))).indices]


def available_networks() -> list[str]:
    """The networks whose weights are on this machine, the bundled one first: a visitor can't fetch any.

    Then those of people's own: from allowed folders everybody's, of those uploaded only this visitor's.
    """
    known = [name for name, entry in REGISTRY.items() if entry.here] or list(REGISTRY)[:1]
    return list(dict.fromkeys([*known, *_shared_networks(), *st.session_state.get("own-networks", [])]))


def share_network(key: str) -> bool:
    """Offer a network of one's own to this visitor, and to all where it was not uploaded; False where there is none.

    A key is a hash of all that was given, so only who was given it, in a link say, can know it.
    """
    if not custom_networks.known(key):
        return False
    networks = st.session_state.setdefault("own-networks", []) if custom_networks.read(key).uploaded else _shared_networks()
    if key not in networks:
        networks.append(key)
    return True


def title(name: str) -> str:
    """A network's name for people."""
    if name in REGISTRY:
        return REGISTRY[name].title
    try:
        return custom_networks.read(name).shown
    except chipcore.ChipError:
        return "a network that is gone"


@st.cache_resource
def _shared_networks() -> list[str]:
    """Keys of networks of people's own that every visitor of this server is offered."""
    return []


def _weigh_network(network: Network) -> int:
    """Its weights, and their copies that its suffixes hold once it was cut."""
    return COPIES * size_of(network)


@cached_by_size(2400, _weigh_network, lambda: at_work("Loading the network …"))  # one of the largest, or dozens as they usually are
def network(name: str) -> Network:
    """A network of the registry or of one's own; raises ``ChipError`` where its weights are not on this machine."""
    # A visitor must not make the server fetch things.
    loaded = chipcore.load_network(name, download=False) if name in REGISTRY else custom_networks.network(name)
    memory.settle()
    return loaded


def importance(network_id: str, layer: str, _network: Network) -> Importance:
    """W of one layer as this visitor uses it; raises ``ImportanceNotFitted`` or ``ImportanceError``."""
    return _of_run(own_fits.run_at(network_id, layer), _network, layer)


def shared_importance(network: Network, layer: str) -> Importance:
    """The W that everybody has and the command line finds. A new one, whoever published it, is seen at once."""
    return _importance(network.id, layer, fitted_at(network, layer), network)


def importance_loader(network: Network) -> Callable[[Layer], Importance]:
    """What gives :func:`importance` in a thread, where nobody's page is drawn."""
    own = {layer.name: own_fits.run_at(network.id, layer.name) for layer in network.layers}
    return lambda layer: _of_run(own.get(layer.name, ""), network, layer.name)


def importance_version(network: Network, layer: str) -> str:
    """Names the W that this visitor uses at a layer: part of the key of whatever is computed from it and shared."""
    return own_fits.run_at(network.id, layer) or str(fitted_at(network, layer))


def _of_run(run: str, network: Network, layer: str) -> Importance:
    return _own_importance(network.id, layer, run, fitted_at(network, layer), network) if run else shared_importance(network, layer)


@cached_by_size(256)
def _own_importance(network_id: str, layer: str, run: str, fitted: int, _network: Network) -> Importance:
    """W of a visitor's own fit; rows that it did not reach are those that everybody has."""
    own = fits.find_run(run).importance(_network, layer)
    try:
        return own.completed_by(shared_importance(_network, layer))
    except chipcore.ChipError:  # there is no other
        return own


def fitted_at(network: Network, layer: str) -> int:
    """When W of a layer was last fitted here, 0 where it never was: part of the key of whatever is computed from W."""
    try:
        return file_of(network, network.layer(layer), fitted_importance()).stat().st_mtime_ns
    except OSError:
        return 0


@cached_by_size(256)
def _importance(network_id: str, layer: str, fitted: int, _network: Network) -> Importance:
    return chipcore.load_importance(_network, layer)


@cached_by_size(256, meanwhile=lambda: at_work("Looking at the photograph …"))
def seen(network_id: str, sha256: str, _network: Network, _image: GalleryImage) -> Prediction:
    """The one pass through the network that a image costs; raises ``ImageError`` for a bad file."""
    view = _network.geometry.view(_image.open())
    with torch.inference_mode():
        activations = _network.forward_prefix(_network.geometry.normalize(torch.from_numpy(np.array(view)))[None])
        scores = activations.scores[0].cpu()
        # Cloned, or each map would keep the batch it is a view of, and with it the graph's other values.
        features = {layer.name: activations.features[layer.path][0].cpu().clone() for layer in _network.layers}
    return Prediction(view, _network.class_probabilities(scores), scores, features)


@cached_by_size(32)
def whole_image(network_id: str, sha256: str, _network: Network, _image: GalleryImage) -> Image.Image:
    """The image in its own shape, with what a cropping network sees of it framed."""
    return figures.whole_image(_image.open(), _network.geometry)


def inputs_of(network: Network, seen: Prediction) -> Tensor:
    """What the network was given, shape (1, 3, size, size)."""
    return network.geometry.normalize(torch.from_numpy(np.array(seen.view)))[None]


@cached_by_size(64, meanwhile=at_work)
def activations(network_id: str, sha256: str, _network: Network, _seen: Prediction) -> Activations:
    """One image's features with all that crosses the cuts: what a gated suffix starts from."""
    with torch.inference_mode():
        return _network.forward_prefix(inputs_of(_network, _seen), _network.layers)


@cached_by_size(8, meanwhile=at_work)
def closed(network_id: str, sha256: str, layer: str, channels: tuple[int, ...], _network: Network, _seen: Prediction) -> AblatedScores:
    """Predictions of a image with channels of a layer closed."""
    known = activations(network_id, sha256, _network, _seen)
    return channel_ablation.ablate(_network, _network.layer(layer), known, channels)


@cached_by_size(8, meanwhile=at_work)
def switched_off(network_id: str, sha256: str, layer: str, channels: tuple[int, ...], _network: Network, _seen: Prediction) -> Tensor:
    """Probabilities (C,) with some channels of a layer switched off: one pass through what follows the layer."""
    known, where = activations(network_id, sha256, _network, _seen), _network.layer(layer)
    scores = channel_ablation.ablated_scores(_network, where, known, channel_ablation.gates_for([channels], where.channels))[0]
    return _network.class_probabilities(scores)


@cached_by_size(8, meanwhile=at_work)
def gradcam_contributions(network_id: str, sha256: str, layer: str, target: int, _network: Network, _seen: Prediction) -> Tensor:
    """What each channel adds to Grad-CAM's map on average, shape (K,)."""
    return channel_order.gradcam_contributions(MethodInputs(_network, inputs_of(_network, _seen), target, _network.layer(layer)))


@cached_by_size(32, meanwhile=at_work)
def guided_gradient(network_id: str, sha256: str, target: int, _network: Network, _seen: Prediction) -> Tensor:
    """Guided Backprop of a class at the pixels, shape (3, size, size); the guided methods multiply a map with it."""
    return input_gradient(_network, inputs_of(_network, _seen), target, "guided").cpu()


@st.cache_resource
def answers() -> MapCache:
    """The maps of every method that were asked for last, by anyone."""
    return MapCache()


@cached_by_size(800, meanwhile=lambda: at_work("Making room for four photographs …"))
def board(network_id: str, layer_name: str, _network: Network, _layer: Layer) -> tuple[Network, Layer, bool]:
    """The network as it sees a mosaic of four, the layer there, and whether it takes four times the pixels."""
    return grid_game.board(_network, _layer)


@st.cache_data(max_entries=64, show_spinner=False)
def thumbnail(sha256: str, _image: GalleryImage) -> str:
    """A small picture of a image as a data URI."""
    return figures.data_uri(gallery.thumbnail(_image.open()))


def clear() -> None:
    """Forget everything; tests call it, because caches outlive a session."""
    for cached in (
        network, _importance, _own_importance, _shared_networks, seen, whole_image, activations, closed, switched_off, gradcam_contributions, guided_gradient, thumbnail, answers, board, photo_links,
    ):  # fmt: skip
        cached.clear()
