"""Grad-CAM and Guided Grad-CAM (Selvaraju et al. 2017), at any layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from chipcore.maps import chip_map, positive_map
from chipcore.methods.backpropagation import colors, input_gradient, strongest
from chipcore.methods.base import Explanation, MethodInputs, Properties, register
from chipcore.networks.network import Layer, Network


def cut(network: Network, layer: Layer) -> None:
    """Make the part of the network behind a layer ready."""
    network.suffix(layer, (layer,))


def guided_zero(coarse: str) -> str:
    """Why a guided map is zero everywhere."""
    return f"it is multiplied with the {coarse} map, which has no positive place here"


def feature_gradient(request: MethodInputs, objective: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """A layer's features and the class score's gradient there, both (K, u, v).

    Runs the suffix alone, forward and backward, with every gate open. ``objective`` makes a number of the scores (C,) whose
    gradient is taken in place of the class score's.
    """
    activations, layer = request.known_activations(), request.layer
    suffix = request.network.suffix(layer, (layer,))
    # Copies: what a pass in inference mode left behind can't be differentiated through.
    side_inputs = tuple(value.clone() for value in activations.side_inputs[layer.path])
    with torch.enable_grad():
        features = activations.features[layer.path].clone().requires_grad_()
        scores = suffix.scores(suffix.prepare(features), side_inputs, features.new_ones(1, 1, layer.channels))
        value = scores[0, 0, request.target] if objective is None else objective(scores[0, 0])
        (gradient,) = torch.autograd.grad(value, features)
    return features.detach()[0], gradient[0]


def gradcam_map(request: MethodInputs) -> Tensor:
    """L = sum_k alpha_k A_k with alpha_k the mean gradient of channel k, shape (u, v).

    The published map is max(0, L), taken before the up-sampling (:func:`chipcore.maps.positive_map`); the raw map keeps L's sign.
    """
    features, gradient = feature_gradient(request)
    return chip_map(gradient.mean((1, 2)), features)


@register(
    "gradcam", "Grad-CAM", "Selvaraju et al. 2017",
    Properties(instance=("gradient",), class_discriminative=True, row="Grad-CAM"), order=50, uses_layer=True, from_features=True, prepare=cut,
)  # fmt: skip
def gradcam(request: MethodInputs) -> Explanation:
    """Grad-CAM: one pass for the features, one forward and one backward through what follows the layer."""
    return Explanation(gradcam_map(request), passes=3)


@register(
    "guided_gradcam", "Guided Grad-CAM", "Selvaraju et al. 2017",
    Properties(instance=("gradient",), class_discriminative=True, high_resolution=True, row="Guided Grad-CAM"), order=60, uses_layer=True, from_features=True, prepare=cut,
    shows_image=True, zero_means=guided_zero("Grad-CAM"),
)  # fmt: skip
def guided_gradcam(request: MethodInputs) -> Explanation:
    """Guided Backprop times Grad-CAM's positive part at input resolution; see :func:`guided`."""
    return guided(request, gradcam_map(request), passes=3)


def guided(request: MethodInputs, coarse: Tensor, passes: int) -> Explanation:
    """Guided Backprop (3, h, w) times the positive part of a coarse map (u, v), which says where to look.

    The positive part, for where the coarse map speaks against the class there is nothing to show; with both
    signs those places would come out as strong as the others. Colors are reduced as in Guided Backprop, by
    the largest magnitude, so the raw map (h, w) has no sign; ``image`` keeps the signed colors.
    """
    gradient = input_gradient(request.network, request.inputs, request.target, "guided")
    where = positive_map(coarse, (gradient.shape[-2], gradient.shape[-1])).to(gradient)
    return Explanation(strongest(gradient * where), passes=passes + 2, image=colors(gradient * where))
