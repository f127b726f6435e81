"""CHIP (Cui, Wang and Wang 2019), with the importance W learned from many images; Refined and Guided CHIP."""

from __future__ import annotations

from torch import Tensor

from chipcore.errors import ChipError
from chipcore.importance import load_importance
from chipcore.maps import chip_map, positive_map
from chipcore.methods.base import Explanation, MethodInputs, Properties, fitted_row, register
from chipcore.methods.gradcam import guided, guided_zero

_SOURCE = "Cui, Wang and Wang 2019"
# How much of W's contrast a map has: 0 is the score alone, as in the paper.
_OPTIONS = {"contrast": 1.0}
# The paper's table has one row for CHIP and Refined CHIP together.
_BOTH = Properties(
    instance=("perturbation",), general=True, class_discriminative=True, high_resolution=True, multi_layer=True, row="CHIP & Refined CHIP"
)


def _map(request: MethodInputs) -> Tensor:
    row = fitted_row(request, request.importance, request.layer)
    return chip_map(row, request.known_activations().features[request.layer.path][0])


@register(
    "chip",
    "CHIP",
    _SOURCE,
    _BOTH,
    order=10,
    options=_OPTIONS,
    needs_importance=True,
    uses_layer=True,
    from_features=True,
    adds_channels=True,
)
def chip(request: MethodInputs) -> Explanation:
    """Eq. 10, the sum of w_c^k A_k at one layer; raises where the class has no fitted row of W."""
    return Explanation(_map(request), passes=1)


@register(
    "refined_chip", "Refined CHIP", _SOURCE, _BOTH, order=20, options=_OPTIONS, needs_importance=True, needs_shallow=True, uses_layer=True, from_features=True, adds_channels=True
)  # fmt: skip
def refined_chip(request: MethodInputs) -> Explanation:
    """The CHIP map of the network's first layer times that of the chosen one (Sec. III-B), at the first's resolution.

    The paper's first layer is the first convolution. Here it is the network's first named layer (VGG's pool1, EfficientNet-Lite0's
    stage1), whose W ships; for another, cut the network there and give ``shallow_importance`` of it.

    The paper multiplies point by point and says nothing of signs. The deep map enters with its positive part
    (bilinear), else evidence against the class in both layers would multiply to evidence for it; the shallow
    map keeps its sign, and so does the product. Needs W of both layers.
    """
    shallow = request.network.layers[0]
    if request.layer.path == shallow.path:
        raise ChipError(f"Refined CHIP multiplies the map of {shallow.name} with a deeper one; choose another layer than {shallow.name}.")
    deep_row = fitted_row(request, request.importance, request.layer)
    importance = request.shallow_importance
    if importance is None and shallow.path not in request.rows:
        importance = load_importance(request.network, shallow.name)
    shallow_row = fitted_row(request, importance, shallow)
    features = request.known_activations(shallow, request.layer).features
    fine = chip_map(shallow_row, features[shallow.path][0])
    coarse = positive_map(chip_map(deep_row, features[request.layer.path][0]), (fine.shape[0], fine.shape[1]))
    return Explanation(fine * coarse, passes=1)


@register(
    "guided_chip", "Guided CHIP", _SOURCE,
    Properties(
        instance=("perturbation", "gradient"), general=True, class_discriminative=True, high_resolution=True, multi_layer=True, row="Guided CHIP"
    ),
    order=30, options=_OPTIONS, needs_importance=True, uses_layer=True, from_features=True, adds_channels=True, shows_image=True, zero_means=guided_zero("CHIP"),
)  # fmt: skip
def guided_chip(request: MethodInputs) -> Explanation:
    """Guided Backprop times CHIP's positive part at input resolution; see :func:`chipcore.methods.gradcam.guided`."""
    return guided(request, _map(request), passes=1)
