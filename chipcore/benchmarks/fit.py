"""``python -m chipcore bench fit``: gated predictions a second against the plain way, in one run.

The plain way is a hook that gates the layer and a full forward pass of the same network, at the same batch
size (at most 32), precision and memory format, and in inference mode. The two take turns, and each counts by its fastest
turn, so that other work on the machine touches both alike. The suffix's arithmetic is also given as a share
of the best matrix product of the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from chipcore.benchmarks.timing import best_matrix_product, counting, seconds
from chipcore.datasets.class_names import imagenet
from chipcore.errors import SettingsError
from chipcore.gating.gates import draw, generator
from chipcore.gating.perturbation import Precision, batch_size, perturbed_scores
from chipcore.images import InputGeometry
from chipcore.networks import Layer, Network, load_network, torchvision_import

POOLS = (("pool1", "features.4"), ("pool2", "features.9"), ("pool3", "features.16"), ("pool4", "features.23"), ("pool5", "features.30"))
NETWORKS = ("vgg16", "efficientnet_lite0")
_PLAIN_AT_ONCE = 32
_SUFFICIENT = 2.0  # seconds that a measurement's turns add up to at least


def run(
    networks: Sequence[str] = NETWORKS, gates: int = 100, precision: Precision = "float32", device: torch.device | str = "cpu",
    turns: int = 3, progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure every named layer.

    Args:
        networks: registry names; VGG16 has random weights, on which its speed does not depend.
        gates: gate samples of a image.
        precision: of our suffixes, of the plain way and of the matrix product.
        turns: how often each is measured at least.
        progress: called with what is being measured.

    Returns:
        What ``--json`` writes: per layer ``plain_per_second`` and ``ours_per_second`` (gated predictions),
        their ``ratio``, ``bound`` (the ratio of the operation counts), ``share_of_matrix_product``, and the
        largest difference of the scores relative to the largest score.

    Raises:
        SettingsError: fewer gates than one. UnknownName: no such network.
    """
    if gates < 1:
        raise SettingsError(f"gates is {gates}; give at least 1.")
    tell = progress or (lambda _what: None)
    tell("the matrix product")
    peaks = [best_matrix_product(precision, device)]
    rows = []
    for name in networks:
        network = (_vgg16() if name == "vgg16" else load_network(name)).to(device)
        for layer in network.layers:
            tell(f"{name} {layer.name}")
            rows.append({"network": name, "layer": layer.name, **_measure(network, layer, gates, precision, turns)})
            peaks.append(best_matrix_product(precision, device))
    for row in rows:
        row["share_of_matrix_product"] = row["suffix_gflop"] * row["ours_per_second"] / (max(peaks) / 1e9)
    return {
        "bench": "fit", "device": str(device), "threads": torch.get_num_threads(), "precision": precision, "gates": gates,
        "matrix_product_gflops": max(peaks) / 1e9, "layers": rows,
    }  # fmt: skip


def _measure(network: Network, layer: Layer, gates: int, precision: Precision, turns: int) -> dict[str, Any]:
    with torch.inference_mode():
        example = torch.randn(1, 3, network.geometry.size, network.geometry.size, generator=torch.Generator().manual_seed(0))
        suffix = network.suffix(layer, (layer,))
        # A fit has 16 images at hand. Where the suffix runs the features themselves it makes no difference.
        copies = 16 if suffix.gates_contributions else 1
        images = example.expand(copies, -1, -1, -1).to(network.device)
        activations = network.forward_prefix(images, (layer,))
        features, side_inputs = activations.features[layer.path], activations.side_inputs[layer.path]
        batch = batch_size(suffix.peak, network.device)
        # As many gates as make a few whole batches; a layer that is run by contributions gets all of them.
        count = gates if suffix.gates_contributions else min(gates, 2 * batch)
        drawn, _weight = draw("uniform", count, layer.channels, layer.channels, generator(0, layer.path, "bench"))
        d = torch.from_numpy(drawn).to(features).expand(copies, -1, -1)
        # More than so many at once does not make the plain way faster, and takes it minutes at the deep layers.
        some = d[0][: min(batch, count, _PLAIN_AT_ONCE)]

        def ours() -> Tensor:
            return perturbed_scores(suffix, features, side_inputs, d, batch, precision)

        def plain() -> Tensor:
            return _plain(network, layer, images[:1], some, precision)

        with counting() as counted:
            found = ours()[0, : len(some)]
        with counting() as whole:
            expected = plain()
        difference = float((found - expected).abs().max() / expected.abs().max())
        fast: list[float] = []
        slow: list[float] = []
        while len(fast) < turns or sum(fast) + sum(slow) < _SUFFICIENT:
            slow.append(seconds(plain, network.device))
            fast.append(seconds(ours, network.device))
    each, per_plain = min(fast) / (copies * count), min(slow) / len(some)
    flops = counted.get_total_flops() / (copies * count)
    return {
        "batch": min(batch, copies * count), "plain_batch": len(some), "plain_per_second": 1 / per_plain, "ours_per_second": 1 / each, "ratio": per_plain / each,
        "bound": whole.get_total_flops() / len(some) / flops, "suffix_gflop": flops / 1e9, "largest_difference": difference,
    }  # fmt: skip


def _plain(network: Network, layer: Layer, images: Tensor, gates: Tensor, precision: Precision) -> Tensor:
    """Scores (N, C) of one image under gates (N, K) by a full forward pass with a gating hook."""
    handle = network.model.get_submodule(layer.path).register_forward_hook(lambda _m, _i, output: output * gates[:, :, None, None])
    try:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            many = images.expand(len(gates), -1, -1, -1).contiguous(memory_format=torch.channels_last)
            scores: Tensor = network.model(many).float()
            return scores
    finally:
        handle.remove()


def _vgg16() -> Network:
    torch.manual_seed(0)
    return Network.wrap(torchvision_import.models.vgg16(), name="vgg16", layers=POOLS, geometry=InputGeometry(), classes=imagenet())


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{result['threads']} threads on {result['device']}, {result['precision']}, {result['gates']} gates a photograph; "
        f"best matrix product {result['matrix_product_gflops']:.0f} GFLOP/s",
        f"{'network':<20}{'layer':<8}{'batch':>6}{'plain/s':>9}{'ours/s':>10}{'ratio':>8}{'bound':>8}{'GFLOP':>8}{'of product':>12}{'difference':>12}",
    ]
    lines += [
        f"{row['network']:<20}{row['layer']:<8}{row['batch']:>6}{row['plain_per_second']:>9.1f}{row['ours_per_second']:>10.1f}{row['ratio']:>8.2f}"
        f"{row['bound']:>8.2f}{row['suffix_gflop']:>8.2f}{row['share_of_matrix_product']:>12.0%}{row['largest_difference']:>12.0e}"
        for row in result["layers"]
    ]
    return "\n".join(lines)
