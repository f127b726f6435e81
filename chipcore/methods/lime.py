"""LIME for images (Ribeiro, Singh and Guestrin 2016), with the settings of the paper's Fig. 3.

Written over scikit-image and scikit-learn, which we need anyway: the package ``lime`` (last release 2020) brings
explainers of text and tables with what they depend on, and its image part comes down to the few lines below.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from chipcore.maps import without_rounding
from chipcore.methods.base import Explanation, MethodInputs, Properties, register

_AT_ONCE = 32


@register(
    "lime", "LIME", "Ribeiro, Singh and Guestrin 2016",
    Properties(instance=("perturbation",), class_discriminative=True, row="LIME"), order=90, slow=True, options={"samples": 1000, "shown": 5, "seed": 0},
)  # fmt: skip
def lime(request: MethodInputs) -> Explanation:
    """Coefficients of the ``shown`` super-pixels that speak most for the class, 0 elsewhere, shape (size, size).

    A ridge regression of f^c on which super-pixels are visible, over ``samples`` random choices of them (each
    visible with probability 1/2; the first sample shows all). Hidden ones take their mean color. Only positive
    coefficients are shown. One pass a sample.
    """
    samples, seed = request.options["samples"], request.options["seed"]
    (segments, visible, probabilities), fresh = request.once(("lime", samples, seed), lambda: _asked(request, samples, seed))
    coefficients = fit_coefficients(visible, probabilities[:, request.target].double().numpy())
    best = np.argsort(-coefficients, kind="stable")[: request.options["shown"]]
    kept = np.zeros(visible.shape[1], dtype=np.float32)
    kept[best] = np.maximum(coefficients[best], 0)
    raw = without_rounding(torch.from_numpy(kept[segments]), float(probabilities[:, request.target].max()))
    return Explanation(raw, passes=samples if fresh else 0)


def _asked(request: MethodInputs, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """The super-pixels (size, size), which of them each sample shows (N, S), and f of every sample (N, C): the same for all classes."""
    segments = superpixels(request, seed)
    count = int(segments.max()) + 1
    visible = np.random.default_rng(seed).integers(0, 2, (samples, count), dtype=np.uint8)
    visible[0] = 1
    labels = torch.from_numpy(segments).to(request.inputs.device)
    hidden = mean_colors(request.inputs[0], labels, count)
    probabilities = []
    for first in range(0, samples, _AT_ONCE):
        shown = torch.from_numpy(visible[first : first + _AT_ONCE]).to(labels.device)[:, labels].bool()
        mixed = torch.where(shown[:, None], request.inputs, hidden)
        probabilities.append(request.network.probabilities(mixed).cpu())
        request.report(first + len(mixed), samples)
    return segments, visible, torch.cat(probabilities)


def superpixels(request: MethodInputs, seed: int) -> np.ndarray:
    """Quickshift (Vedaldi and Soatto 2008) with LIME's settings: labels from 0 on without gaps, int64 (size, size)."""
    from skimage.segmentation import quickshift

    shown = request.network.geometry.colors(request.inputs[0].cpu()).clamp(0, 1)
    view = shown.expand(3, -1, -1).permute(1, 2, 0).double().numpy()  # quickshift wants colors; gray ones of a gray network
    labels = quickshift(view, kernel_size=4, max_dist=200, ratio=0.2, rng=seed)
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int64)


def mean_colors(image: Tensor, labels: Tensor, count: int) -> Tensor:
    """The image (3, h, w) with every super-pixel in its mean color."""
    flat = labels.flatten()
    sums = torch.zeros(len(image), count, device=image.device).index_add_(1, flat, image.flatten(1))
    means = sums / torch.bincount(flat, minlength=count).clamp(min=1)
    return means[:, labels]


def fit_coefficients(visible: np.ndarray, predictions: np.ndarray, width: float = 0.25) -> np.ndarray:
    """Weighted ridge regression (alpha 1, with intercept) of predictions (N,) on visibility (N, S), shape (S,).

    A sample weighs sqrt(exp(-D^2 / width^2)), with D the cosine distance to the whole image.
    """
    from sklearn.linear_model import Ridge

    # cos(v, 1) = sum v / (|v| sqrt S) = sqrt(share that is visible), for v of zeros and ones
    distance = 1 - np.sqrt(visible.mean(1))
    weight = np.sqrt(np.exp(-(distance**2) / width**2))
    fitted: np.ndarray = Ridge(alpha=1.0).fit(visible.astype(np.float64), predictions, sample_weight=weight).coef_
    return fitted
