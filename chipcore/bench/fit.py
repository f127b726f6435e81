"""``python -m chipcore bench fit``: gated predictions a second, against the plain way, in one run.

The plain way is a hook that gates the layer and a full forward pass, at the same batch size. Speed is a
ratio of the two; the suffix's arithmetic is also given as a share of the best matrix product of this run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from chipcore import vision
from chipcore.fit import batch_size
from chipcore.gates import draw, generator
from chipcore.images import InputGeometry
from chipcore.networks import Layer, Network, load_network
from chipcore.networks.classes import imagenet
from chipcore.perturbation import Precision, perturbed_scores

POOLS = (("pool1", "features.4"), ("pool2", "features.9"), ("pool3", "features.16"), ("pool4", "features.23"), ("pool5", "features.30"))


def run(
    networks: Sequence[str] = ("vgg16", "efficientnet_lite0"), gates: int = 100, seconds: float = 3.0, precision: Precision = "float32",
    device: torch.device | str = "cpu", progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure every named layer; returns what ``--json`` writes.

    Args:
        gates: gate samples of the one photograph that is perturbed.
        seconds: how long each measurement goes on at least.
        precision: of our own suffixes; the plain way and the matrix product have the same.
    """
    rows = []
    peak = best_matrix_product(seconds, precision, device)
    for name in networks:
        network = (_vgg16() if name == "vgg16" else load_network(name)).to(device)
        for layer in network.layers:
            if progress:
                progress(f"{name} {layer.name}")
            rows.append({"network": name, "layer": layer.name, **_measure(network, layer, gates, seconds, precision, peak)})
    return {
        "device": str(device), "threads": torch.get_num_threads(), "precision": precision, "gates": gates,
        "matrix_product_gflops": peak / 1e9, "layers": rows,
    }  # fmt: skip


def best_matrix_product(seconds: float, precision: Precision, device: torch.device | str) -> float:
    """FLOP/s of the fastest square matrix product of this run."""
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    best = 0.0
    for size in (1024, 2048, 4096):
        a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        best = max(best, 2 * size**3 / _fastest(lambda a=a, b=b: a @ b, seconds / 3, device))  # type: ignore[misc]
    return best


def _measure(network: Network, layer: Layer, gates: int, seconds: float, precision: Precision, peak: float) -> dict[str, Any]:
    images = torch.randn(1, 3, network.geometry.size, network.geometry.size, generator=torch.Generator().manual_seed(0)).to(network.device)
    with torch.inference_mode():
        activations = network.trunk(images, (layer,))
        features, carried = activations.features[layer.path], activations.carried[layer.path]
        suffix = network.suffix(layer, (layer,))
        drawn, _weight = draw("uniform", gates, layer.channels, layer.channels, generator(0, layer.path, "bench"))
        d = torch.from_numpy(drawn).to(features)[None]
        batch = batch_size(suffix.peak, network.device)

        def ours() -> Tensor:
            return perturbed_scores(suffix, features, carried, d, batch, precision)

        def plain() -> Tensor:
            return _plain(network, layer, images, d[0], min(batch, gates), precision)

        with FlopCounterMode(display=False) as counted:
            ours()
        difference = float((ours()[0] - plain()).abs().max() / plain().abs().max())
        # A few gates of the plain way are enough to know its rate: it costs the same for every gate.
        some = d[0][: max(1, min(batch, gates))]
        slow = _fastest(lambda: _plain(network, layer, images, some, len(some), precision), seconds, network.device) / len(some)
        fast = _fastest(ours, seconds, network.device) / gates
    flops = counted.get_total_flops() / gates
    return {
        "batch": batch, "plain_per_second": 1 / slow, "ours_per_second": 1 / fast, "ratio": slow / fast,
        "suffix_gflop": flops / 1e9, "share_of_matrix_product": flops / fast / peak, "largest_difference": difference,
    }  # fmt: skip


def _plain(network: Network, layer: Layer, images: Tensor, gates: Tensor, batch: int, precision: Precision) -> Tensor:
    """Scores (N, C) by full forward passes with a gating hook."""
    module = network.model.get_submodule(layer.path)
    rows = []
    for start in range(0, len(gates), batch):
        some = gates[start : start + batch]
        handle = module.register_forward_hook(lambda _m, _i, output, some=some: output * some[:, :, None, None])
        try:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                rows.append(network.model(images.expand(len(some), -1, -1, -1).contiguous(memory_format=torch.channels_last)).float())
        finally:
            handle.remove()
    return torch.cat(rows)


def _fastest(call: Callable[[], Tensor], seconds: float, device: torch.device | str) -> float:
    """The shortest of several runs: what other programs on the machine take away is not ours to report."""
    gpu = torch.device(device).type == "cuda"

    def once() -> float:
        start = time.perf_counter()
        call()
        if gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    taken: list[float] = []
    while sum(taken) < seconds or len(taken) < 2:
        taken.append(once())
    return min(taken)


def _vgg16() -> Network:
    """VGG16 with random weights: its speed does not depend on them."""
    torch.manual_seed(0)
    model = vision.models.vgg16()
    return Network.wrap(model, name="vgg16", layers=POOLS, geometry=InputGeometry(), classes=imagenet())


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{result['threads']} threads on {result['device']}, {result['precision']}, {result['gates']} gates a photograph; "
        f"best matrix product {result['matrix_product_gflops']:.0f} GFLOP/s",
        f"{'network':<20}{'layer':<8}{'plain/s':>9}{'ours/s':>10}{'ratio':>8}{'GFLOP':>8}{'of product':>12}{'difference':>12}",
    ]
    lines += [
        f"{row['network']:<20}{row['layer']:<8}{row['plain_per_second']:>9.1f}{row['ours_per_second']:>10.1f}{row['ratio']:>8.2f}"
        f"{row['suffix_gflop']:>8.2f}{row['share_of_matrix_product']:>12.0%}{row['largest_difference']:>12.0e}"
        for row in result["layers"]
    ]
    return "\n".join(lines)
