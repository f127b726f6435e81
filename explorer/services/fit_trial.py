"""What a fit will cost: its memory by calculation, its time by a trial of one small batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from chipcore import FitSettings, Layer, Network
from chipcore.datasets.image_folder import Batch, ImageFolder, batches
from chipcore.errors import DataError
from chipcore.fitting.memory import GB, Estimate, estimate
from chipcore.fitting.pipeline import Gathered, Share, add_batch, plan
from explorer.services.fits import FitRequest

FIT_TRIAL_IMAGES = 8
FIT_TRIAL_SECONDS = 1.5


@dataclass(frozen=True)
class FitCost:
    """What a fit takes: memory as ``chipcore.fitting.memory`` states it, and seconds from a trial of one small batch."""

    memory: Estimate
    seconds: float


def estimate_cost(network: Network, request: FitRequest, images: ImageFolder, report: Callable[[int, int], None]) -> FitCost:
    """Estimate a fit's memory and time, from a trial of a few images with few gates at the layers asked for.

    Args:
        network: the one to fit.
        request: settings, layers, classes and memory.
        images: all images of the fit.
        report: called with (done, total); what it raises ends the trial.

    Raises:
        ChipError: where the settings or the memory do not allow the fit.
    """
    report(0, 0)
    network, settings = network.private(), request.fit_settings
    layers = [network.layer(name) for name in request.layers]
    rows = request.classes or range(len(network.classes))
    need = estimate(network, layers, rows, settings, int(request.memory * GB))
    passes = plan(layers, rows, need.moments)
    step = max(1, len(images) // FIT_TRIAL_IMAGES)
    started = time.perf_counter()
    batch = next(batches(images, images.names[::step][:FIT_TRIAL_IMAGES], network.geometry, FIT_TRIAL_IMAGES))
    decoding = (time.perf_counter() - started) / max(1, len(batch.names))
    if not batch.names:
        raise DataError("none of the first photographs can be read; give others.")
    # Passes over the same layers differ by their classes alone: one of them is tried.
    kinds: dict[tuple[Layer, ...], list[list[Share]]] = {}
    for shares in passes:
        kinds.setdefault(tuple(share.layer for share in shares), []).append(shares)
    seconds = decoding * len(passes)
    for number, alike in enumerate(kinds.values(), start=1):
        tries = []
        for tried in _try(network, alike[0], batch, settings, FIT_TRIAL_SECONDS / len(kinds)):
            tries.append(tried)
            report(3 * (number - 1) + len(tries), 3 * len(kinds))  # also where it can be stopped
        seconds += len(alike) * tries[-1] / len(batch.names)
    return FitCost(need, seconds * len(images))


def _try(network: Network, shares: Sequence[Share], batch: Batch, settings: FitSettings, budget: float) -> Iterator[float]:
    """Seconds that one batch takes in one pass, better and better known; the last from as many gates as ``budget`` seconds allow."""
    gathered = [Gathered.empty(share) for share in shares]

    def timed(gates: int) -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            add_batch(network, gathered, batch, frozenset(), FitSettings(**{**settings.as_dict(), "gates": gates}))
        return time.perf_counter() - started

    yield timed(1)  # cuts the network and touches the memory, which is done once only
    few = timed(1)
    yield few
    gates = max(2, min(settings.gates, int(budget / max(few, 1e-3))))
    yield few + max(0.0, timed(gates) - few) / (gates - 1) * (settings.gates - 1)
