"""CHIP (Cui, Wang and Wang 2019): the sum of Eq. 10 with the importance learned from many photographs."""

from __future__ import annotations

from chipcore.errors import ChipError
from chipcore.maps import chip_map
from chipcore.methods.base import Explanation, Request, register


@register("chip")
def chip(request: Request) -> Explanation:
    """Sum of w_c^k A_k at one layer; raises where the class has no fitted row of W."""
    if request.importance is None:
        raise ChipError("CHIP needs W; give importance=chipcore.load_importance(network, layer).")
    if request.importance.evidence(request.target) == "none":
        label = request.network.classes.labels[request.target]
        raise ChipError(
            f"the class {label} has no fitted row of W at {request.layer.name}: the photographs it was fitted on held too little of it; fit with photographs of {label}."
        )
    features = request.known_activations().features[request.layer.path][0]
    return Explanation(chip_map(request.importance.W[request.target], features), passes=1)
