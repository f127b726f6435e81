"""What a fit will cost: its memory by calculation, its time by a trial of one small batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from chipcore import FitSettings, Network
from chipcore.datasets.image_folder import ImageFolder
from chipcore.datasets.image_set import Batch, batches
from chipcore.errors import DataError
from chipcore.fitting.accumulate import LayerSums, add_batch
from chipcore.fitting.memory import GB, Estimate, estimate
from chipcore.fitting.planning import ClassSlice, plan_passes
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
    need = estimate(network, layers, rows, len(images), settings, int(request.memory * GB))
    passes = plan_passes(layers, rows, len(images), settings, need.samples)
    step = max(1, len(images) // FIT_TRIAL_IMAGES)
    started = time.perf_counter()
    batch = next(batches(images, images.names[::step][:FIT_TRIAL_IMAGES], network.geometry, FIT_TRIAL_IMAGES))
    decoding = (time.perf_counter() - started) / max(1, len(batch.names))
    if not batch.names:
        raise DataError("none of the first photographs can be read; give others.")
    seconds = decoding * len(passes)
    for number, slices in enumerate(passes, start=1):
        tries = []
        for tried in _try(network, slices, batch, settings, FIT_TRIAL_SECONDS / len(passes)):
            tries.append(tried)
            report(3 * (number - 1) + len(tries), 3 * len(passes))  # also where it can be stopped
        seconds += tries[-1] / len(batch.names)
    return FitCost(need, seconds * len(images))


def _try(network: Network, slices: Sequence[ClassSlice], batch: Batch, settings: FitSettings, budget: float) -> Iterator[float]:
    """Seconds that one batch takes in one pass, better and better known; the last from as many gates as ``budget`` seconds allow."""

    def timed(gates: int) -> float:
        tried = replace(settings, gates=gates)
        sums = [LayerSums.empty(part, tried) for part in slices]
        started = time.perf_counter()
        with torch.inference_mode():
            add_batch(network, sums, batch, frozenset(), tried)
        return time.perf_counter() - started

    yield timed(1)  # cuts the network and touches the memory, which is done once only
    few = timed(1)
    yield few
    gates = max(2, min(settings.gates, int(budget / max(few, 1e-3))))
    yield few + max(0.0, timed(gates) - few) / (gates - 1) * (settings.gates - 1)
