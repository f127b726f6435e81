"""Local CHIP: the row w_c of Eq. 11 fitted on the image itself, for classes without a fitted row of W."""

from __future__ import annotations

import torch
from torch import Tensor

from chipcore.errors import ChipError
from chipcore.fitting.moments import Moments
from chipcore.fitting.regression import normal_equations
from chipcore.fitting.settings import FitSettings
from chipcore.gating.gates import draw, generator
from chipcore.gating.perturbation import batch_size, perturbed_scores
from chipcore.maps import chip_map
from chipcore.methods.base import Explanation, MethodInputs, Properties, mask_channels, register
from chipcore.methods.gradcam import cut
from chipcore.solvers import admm

PART = 60  # gate samples between two reports


@register(
    "local_chip", "CHIP fitted on this photograph", "Cui, Wang and Wang 2019, Eq. 11 with one photograph",
    Properties(instance=("perturbation",), class_discriminative=True, multi_layer=True), order=40, slow=True, prepare=cut, options={"gates": 300, "seed": 0, "lambda_ratio": 1e-3, "contrast": FitSettings.contrast}, uses_layer=True, from_features=True, adds_channels=True,
)  # fmt: skip
def local_chip(request: MethodInputs) -> Explanation:
    """Eq. 10 with :func:`local_row`."""
    features = request.known_activations().features[request.layer.path]
    return Explanation(
        chip_map(mask_channels(request, local_row(request), request.layer), features[0]), passes=1 + request.options["gates"]
    )


def local_row(request: MethodInputs) -> Tensor:
    """w_c of Eq. 11 over one image and ``gates`` gate samples, shape (K,), on the network's device.

    Draw, proximity and contrast (kappa of the target g^c - kappa log sum exp(g)) are those of :class:`FitSettings`; lambda is
    larger, for a few hundred gates are noisier than the sums of many images. There is an intercept, since no other image says
    what the score is without the class's channels (``chipcore/fitting/README.md``). The row describes this image alone: it
    is no general interpretation.

    Raises:
        ChipError: the class's score does not react to the channels of the layer.
    """
    options = request.options
    settings = FitSettings(
        gates=options["gates"], seed=options["seed"], lambda_ratio=options["lambda_ratio"], contrast=options["contrast"], intercept=True
    )
    layer, activations = request.layer, request.known_activations()
    features, suffix = activations.features[layer.path], request.network.suffix(layer, (layer,))
    sigma2 = settings.sigma2 or layer.channels
    drawn, weight = draw(settings.draw, settings.gates, layer.channels, sigma2, generator(settings.seed, layer.path, "local"))
    gates = torch.from_numpy(drawn)[None].to(features)
    batch, done, parts = batch_size(suffix.peak, features.device), 0, []
    for some in gates.split(PART, dim=1):  # in parts, so that it can be watched and stopped
        request.report(done, settings.gates)
        parts.append(perturbed_scores(suffix, features, activations.side_inputs[layer.path], some, batch))
        done += some.shape[1]
    scores = torch.cat(parts, dim=1)
    z = gates * features.mean((2, 3))[:, None]  # Eq. 2: pooling commutes with the gate
    moments = Moments.zeros([request.target], layer.channels, features.device)
    # With one image f^c is one factor of the whole of Eq. 11 and cancels: 1 serves a class of any probability.
    moments.add(z, torch.from_numpy(weight)[None].to(features), torch.ones_like(activations.scores), scores, cutoff=0)
    given = normal_equations(moments, settings, contrast=settings.contrast)
    top = admm.lambda_max(given.cross)
    if not float(top) > 0:
        label = request.network.classes.labels[request.target]
        raise ChipError(f"the score of {label} does not react to the channels of {layer.name} in this photograph; choose another layer.")
    return admm.solve(given.gram, given.cross, settings.lambda_ratio * top).W[0]
