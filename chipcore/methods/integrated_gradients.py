"""Integrated gradients (Sundararajan, Taly and Yan 2017), by captum."""

from __future__ import annotations

import torch

from chipcore.methods.backpropagation import colors
from chipcore.methods.base import Explanation, MethodInputs, Properties, register

_AT_ONCE = 16


@register(
    "integrated_gradients", "Integrated Gradients", "Sundararajan, Taly and Yan 2017, https://arxiv.org/abs/1703.01365",
    Properties(instance=("gradient",), class_discriminative=True, high_resolution=True), order=85, options={"steps": 32}, slow=True,
    shows_image=True,
)  # fmt: skip
def integrated_gradients(request: MethodInputs) -> Explanation:
    """(x - x0) times the mean gradient of the class score on the straight way from x0 to x, summed over colors, (size, size).

    x0 is the data set's mean color. Signed; the sum over all pixels is the score's difference between x and x0 (completeness).
    The integral is captum's Gauss-Legendre over ``steps`` points, two passes each; ``image`` has the signed colors.
    """
    from captum.attr import IntegratedGradients

    network, steps = request.network, request.options["steps"]
    with torch.enable_grad():
        found = IntegratedGradients(lambda x: network.model(network.arrange(x))).attribute(
            request.inputs, baselines=0, target=request.target, n_steps=steps, internal_batch_size=_AT_ONCE
        )  # fmt: skip
    signed = found[0].detach().to(request.inputs)
    return Explanation(signed.sum(0), passes=2 * steps, image=colors(signed))
