"""Whether a device computes what the CPU computes: gates, scores, moments, W, maps and ADMM of one small fit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from chipcore.datasets.image_set import ImageSet, batches
from chipcore.fitting.accumulate import LayerSums
from chipcore.fitting.pipeline import fit
from chipcore.fitting.settings import FitSettings
from chipcore.gating.gates import draw_batch
from chipcore.gating.perturbation import Precision, batch_size, perturbed_scores
from chipcore.methods import explain
from chipcore.networks import Network
from chipcore.solvers import admm

Kind = Literal["float32", "tf32", "bfloat16"]

#: The largest difference, as a share of the largest value, that rounding of these numbers explains. W is the solution of
#: equations that are nearly singular, so it is compared by what it is for: the map that it draws, and its direction.
TOLERANCES: dict[str, dict[str, float]] = {
    "float32": {"gates": 0, "scores": 1e-4, "moments": 1e-4, "W": 2e-2, "map": 2e-2, "ADMM": 1e-6},
    "tf32": {"gates": 0, "scores": 1e-2, "moments": 1e-2, "W": 0.2, "map": 0.1, "ADMM": 1e-6},
    "bfloat16": {"gates": 0, "scores": 5e-2, "moments": 5e-2, "W": 0.5, "map": 0.2, "ADMM": 1e-6},
}


def compare(
    network: Network, device: torch.device, layer: str, images: ImageSet, settings: FitSettings,
    numbers: Callable[[Kind], AbstractContextManager[Precision]],
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for each thing and each kind of numbers: the difference to the CPU in float32, and whether rounding explains it.

    Parameters
    ----------
    network
        On the CPU.
    device
        Where the same is done once more.
    layer, images, settings
        Of the fit; the gates must be those of the ``device`` generator, which are the same everywhere.
    numbers
        A context in which products are of a kind; it gives the precision of the suffixes.
    """
    with numbers("float32"):
        expected = _everything(network, layer, images, settings)
    rows = []
    there = network.to(device)
    for kind in TOLERANCES:
        with numbers(kind) as precision:  # type: ignore[arg-type]
            found = _everything(there, layer, images, replace(settings, precision=precision))
        for what, tolerance in TOLERANCES[kind].items():
            difference = _difference(what, found[what], expected[what])
            rows.append(
                {"what": what, "numbers": kind, "difference": difference, "tolerance": tolerance, "agrees": difference <= tolerance}
            )
    return rows


def _everything(network: Network, layer: str, images: ImageSet, settings: FitSettings) -> dict[str, Tensor]:
    at = network.layer(layer)
    kept: list[Tensor] = []

    def keep(sums: LayerSums) -> None:
        kept.extend(value.cpu().clone() for value in (sums.pooled.gram, sums.pooled.cross))

    with torch.inference_mode():
        [batch] = batches(images, images.names[:4], network.geometry, 4)
        gates, _weight = draw_batch("device", "uniform", settings.gates, at.channels, at.channels, 0, at.path, batch.names, network.device)
        activations = network.forward_prefix(network.geometry.normalize(batch.views.to(network.device)), (at,))
        suffix, features = network.suffix(at, (at,)), activations.features[at.path]
        scores = perturbed_scores(
            suffix,
            features,
            activations.side_inputs[at.path],
            gates.to(features),
            batch_size(suffix.peak, network.device),
            settings.precision,
        )
    importance = fit(network, [layer], images, settings, watch=keep)[layer]
    gram, cross = kept
    target = int(importance.W.abs().sum(1).argmax())
    saliency = explain(network, images.open(images.names[0]), target, "chip", layer, importance)
    # The solver by itself, so on equations that do not depend on the device.
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(4, 64, 32, generator=generator, dtype=torch.float64)
    G = (z.mT @ z).to(network.device)
    b = torch.rand(4, 32, generator=generator, dtype=torch.float64).to(network.device)
    return {
        "gates": gates.cpu().float(), "scores": scores.cpu().float(), "moments": torch.cat([gram / gram.abs().max(), cross / cross.abs().max()]), "W": importance.W,
        "map": saliency.raw, "ADMM": admm.solve(G, b, 1e-2 * b.abs().amax(1)).W.cpu(),
    }  # fmt: skip


def _difference(what: str, found: Tensor, expected: Tensor) -> float:
    if what == "W":  # of its rows' directions: one less the smallest cosine
        some = expected.norm(dim=1) > 0
        return float(1 - torch.nn.functional.cosine_similarity(found[some], expected[some]).min()) if some.any() else 0.0
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
