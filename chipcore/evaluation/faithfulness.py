"""Faithfulness: does the network follow what the map says it looks at?

- Deletion and insertion (Petsiuk et al. 2018): pixels go (to the mean color), or come (over a blurred
  image), in the map's order; the area under f^c says how soon the class is lost (low is good) or found
  (high is good).
- Channels: the same on gates. Channels are closed in the order of W, largest first, against random orders and
  against Grad-CAM's channel weights; the area under f^c over the share of closed channels, low is good. An
  order 'x activation' multiplies by the channel's mean on this image, which is what the channel adds.

The class is the network's first for the image.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from chipcore.datasets.sources import Images, open_images
from chipcore.errors import SettingsError
from chipcore.evaluation import bootstrap
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.images import Progress, Reader, no_progress, subsample, view_of
from chipcore.evaluation.protocols import SECONDS, Column, ProgressOf, Protocol, format_difference, format_value, register, whole_number
from chipcore.evaluation.results import Figures, LayerResult, Result
from chipcore.evaluation.sanity_checks import Sanity
from chipcore.gating.perturbation import perturbed_scores
from chipcore.gating.suffix import Activations
from chipcore.maps import positive_map, upsample
from chipcore.networks import Layer, Network

PARTS = ("deletion", "channels", "sanity")
STEPS = 224  # Petsiuk et al.: one row of pixels a step
CHANNEL_STEPS = 20
RANDOM_ORDERS = 5
_BATCH = 32


def area(curve: np.ndarray) -> float:
    """Area under a curve (n + 1,) over equal steps from 0 to 1, by trapezoids.

    Example:
        >>> area(np.array([1.0, 0.5, 0.0]))
        0.5
    """
    return float((curve[:-1] + curve[1:]).mean() / 2)


def pixel_order(raw: Tensor, size: int | tuple[int, int], seed: int) -> np.ndarray:
    """Pixels from the finished map's largest value to its smallest, shape (size * size,).

    Where the finished map is zero, what speaks against the class comes last: the up-sampled signed map decides.
    Equal ones in an order drawn by ``seed``.
    """
    finished, signed = (large.numpy().ravel() for large in (positive_map(raw, size), upsample(raw, size)))
    luck = np.random.default_rng(seed).permutation(finished.size)
    return np.lexsort((luck, -signed, -finished))


def blurred(inputs: Tensor) -> Tensor:
    """Petsiuk et al.'s blank canvas for insertion: a Gaussian of 11 pixels and sigma 5, on inputs (1, 3, h, w)."""
    x = torch.arange(11, dtype=torch.float32, device=inputs.device) - 5
    bell = torch.exp(-(x**2) / (2 * 5**2))
    channels = inputs.shape[1]
    bell = (bell / bell.sum()).repeat(channels, 1, 1, 1)
    wide = functional.conv2d(functional.pad(inputs, (5, 5, 5, 5), mode="replicate"), bell, groups=channels)
    return functional.conv2d(wide, bell.transpose(2, 3), groups=channels)


def pixel_curve(network: Network, start: Tensor, end: Tensor, order: np.ndarray, target: int, steps: int) -> np.ndarray:
    """f^c while pixels go over from ``start`` to ``end`` in an order, in equal parts, shape (steps + 1,).

    Args:
        start, end: inputs, shape (1, 3, h, w).
        order: pixel numbers, shape (h * w,).
    """
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    turned = torch.from_numpy(rank).to(start.device).view(1, 1, *start.shape[2:])
    counts = np.round(np.linspace(0, len(order), steps + 1)).astype(int)
    curve = []
    with torch.no_grad():
        for first in range(0, len(counts), _BATCH):
            upto = torch.from_numpy(counts[first : first + _BATCH]).to(start.device).view(-1, 1, 1, 1)
            images = torch.where(turned < upto, end, start)
            scores = network.forward_prefix(images, network.layers[-1:]).scores
            curve.append(network.class_probabilities(scores)[:, target].cpu().numpy())
    return np.concatenate(curve)


def channel_weights(network: Network, layer: Layer, layers: tuple[Layer, ...], activations: Activations, target: int) -> Tensor:
    """Grad-CAM's alpha_k, the mean over positions of the score's gradient to A_k, shape (K,)."""
    suffix = network.suffix(layer, layers)
    with torch.enable_grad():
        features = activations.features[layer.path].detach().clone().requires_grad_()
        gates = torch.ones(1, 1, features.shape[1], device=features.device)
        score = suffix.scores(suffix.prepare(features), activations.side_inputs[layer.path], gates)[0, 0, target]
        (gradient,) = torch.autograd.grad(score, features)
    return gradient[0].mean((1, 2)).detach()


def closing_gates(order: Tensor, steps: int) -> Tensor:
    """Gates that close channels in an order (K,), in equal parts from none to all, float (steps + 1, K).

    Example:
        >>> closing_gates(torch.tensor([1, 0]), 2).tolist()
        [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    """
    K = len(order)
    rank = torch.empty(K, dtype=torch.int64, device=order.device)
    rank[order] = torch.arange(K, device=order.device)
    counts = torch.linspace(0, K, steps + 1, dtype=torch.float64, device=order.device).round().to(torch.int64)
    return (rank[None] >= counts[:, None]).to(torch.float32)


def channel_curves(
    panel: MethodSet,
    layer: Layer,
    activations: Activations,
    target: int,
    steps: int,
    rng: np.random.Generator,
    randoms: int = RANDOM_ORDERS,
) -> dict[str, np.ndarray]:
    """f^c while channels are closed, each (steps + 1,): in W's order, in Grad-CAM's, and the mean over random orders."""
    features = activations.features[layer.path]
    K, pooled = features.shape[1], features[0].mean((1, 2))
    alpha = channel_weights(panel.network, layer, panel.layers, activations, target)
    ranked = {"gradcam weights": alpha, "gradcam weights x activation": alpha * pooled}
    if layer.name in panel.importances:
        row = panel.importances[layer.name].W[target].to(features)
        ranked = {"W": row, "W x activation": row * pooled, **ranked}
    orders = {name: value.argsort(descending=True, stable=True) for name, value in ranked.items()}
    drawn = [torch.from_numpy(rng.permutation(K)).to(features.device) for _ in range(randoms)]
    gates = torch.stack([closing_gates(order, min(steps, K)) for order in [*orders.values(), *drawn]])
    with torch.no_grad():
        suffix = panel.network.suffix(layer, panel.layers)
        scores = perturbed_scores(suffix, features, activations.side_inputs[layer.path], gates.flatten(0, 1)[None], _BATCH)
    f = panel.network.class_probabilities(scores[0])[:, target].view(len(gates), -1).cpu().numpy()
    return {**dict(zip(orders, f, strict=False)), "random": f[len(orders) :].mean(0)}


@dataclass(frozen=True)
class FaithfulnessLayer(LayerResult):
    """A layer of :class:`Faithfulness`; ``channels`` has the figures of every order in which channels are switched off."""

    json_order: ClassVar[tuple[str, ...]] = (*LayerResult.json_order, "channels")
    left_out_if_none: ClassVar[tuple[str, ...]] = ("channels",)

    channels: Mapping[str, Figures] | None = None


@dataclass(frozen=True)
class Faithfulness(Result):
    """Areas under f^c while pixels are deleted and inserted and channels switched off, and the sanity check's similarities."""

    json_order: ClassVar[tuple[str, ...]] = (
        "parts", "steps", "channel_steps", "random_orders", "sanity_note", "images", "broken", "layers",
    )  # fmt: skip
    left_out_if_none: ClassVar[tuple[str, ...]] = ("sanity_note",)

    parts: list[str]
    steps: int
    channel_steps: int
    random_orders: int = RANDOM_ORDERS
    sanity_note: str | None = None


def evaluate(
    panel: MethodSet, images: Images, limit: int = 0, seed: int = 0, progress: Progress = no_progress, parts: tuple[str, ...] = PARTS,
    steps: int = STEPS, channel_steps: int = CHANNEL_STEPS,
) -> Faithfulness:  # fmt: skip
    """Measure the chosen parts on images of any kind.

    Parameters
    ----------
    panel
        Network, layers and methods.
    images
        What :func:`chipcore.datasets.sources.open_images` takes; no annotation is needed.
    limit, seed
        Draw at most this many images (0: all) from the whole set.
    progress
        Wraps the names of the images.
    parts
        Of ``PARTS``: deletion and insertion, channels, the sanity check.
    steps, channel_steps
        In how many equal steps pixels, and channels, are switched.

    Raises
    ------
    SettingsError
        A part that does not exist, or fewer than one step.
    """
    if not parts or set(parts) - set(PARTS) or steps < 1 or channel_steps < 1:
        raise SettingsError(
            f"parts {', '.join(parts) or 'none'} in {steps} and {channel_steps} steps; give {', '.join(PARTS)}, and 1 step or more."
        )
    network = panel.network
    pixels: dict[tuple[str, str, str], list[np.ndarray]] = defaultdict(list)
    channels: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    tallies = panel.tallies()
    seen: dict[str, list[str]] = {layer.name: [] for layer in panel.layers}
    sanity = Sanity(panel, seed) if "sanity" in parts else None
    found_images = open_images(images)
    names = subsample(found_images.names, limit, seed)
    reader = Reader(found_images)
    rng = np.random.default_rng(seed)
    for name, image in reader(progress(names)):
        inputs = view_of(image, network.geometry).to(network.device)
        activations = panel.look(inputs)
        target = int(activations.scores[0].argmax())
        blank, canvas = torch.zeros_like(inputs), blurred(inputs)  # 0 after normalization: the mean color
        shaken = sanity.look(inputs) if sanity else {}
        for layer in panel.layers:
            tally = tallies[layer.name]
            if not panel.accepts(layer, target, tally):
                continue
            seen[layer.name].append(name)
            if "channels" in parts:
                for order, curve in channel_curves(panel, layer, activations, target, channel_steps, rng).items():
                    channels[layer.name, order].append(curve)
            for method in panel.methods if {"deletion", "sanity"} & set(parts) else ():
                raw = panel.raw_map(method, inputs, target, layer, activations, tally)
                if "deletion" in parts:
                    order_of = pixel_order(raw, network.geometry.shape, seed)
                    pixels[layer.name, method, "deletion"].append(pixel_curve(network, inputs, blank, order_of, target, steps))
                    pixels[layer.name, method, "insertion"].append(pixel_curve(network, canvas, inputs, order_of, target, steps))
                if sanity:
                    sanity.compare(method, inputs, target, layer, shaken, raw)
    layers = {}
    for layer in panel.layers:
        tally = tallies[layer.name]
        methods = {method: tally.of(method) for method in panel.methods}
        orders: dict[str, dict[str, Any]] | None = None
        groups = seen[layer.name]
        if "deletion" in parts:
            curves_of = {m: {k: pixels[layer.name, m, k] for k in ("deletion", "insertion")} for m in panel.methods}
            _add(methods, curves_of, panel.baseline, groups, seed)
        if "channels" in parts:
            found = {order: {"closing": curves} for (at, order), curves in channels.items() if at == layer.name}
            orders = {order: {} for order in found}
            _add(orders, found, "gradcam weights", groups, seed)
        if sanity:
            for method in panel.methods:
                methods[method]["sanity"] = sanity.report(layer, method)
        layers[layer.name] = FaithfulnessLayer(
            images=len(groups), skipped=sum(tally.skipped.values()), skipped_because=dict(tally.skipped), weak_rows=tally.weak,
            methods=methods, channels=orders,
        )  # fmt: skip
    return Faithfulness(
        parts=list(parts), steps=steps, channel_steps=channel_steps, sanity_note=sanity.note if sanity else None, images=len(names),
        broken=reader.broken, layers=layers,
    )  # fmt: skip


def _add(
    into: dict[str, dict[str, Any]], found: dict[str, dict[str, list[np.ndarray]]], baseline: str | None, groups: list[str], seed: int
) -> None:
    """Put the mean curve, the mean area and its difference to the baseline of every measure into the report."""
    statistics: dict[str, dict[str, bootstrap.Statistic]] = {}
    for name, measures in found.items():
        for measure, curves in measures.items():
            into[name][f"{measure}_auc"] = float(np.mean([area(curve) for curve in curves])) if curves else None
            into[name][f"{measure}_curve"] = np.mean(curves, axis=0).round(6).tolist() if curves else []
            if curves:
                statistics.setdefault(name, {})[f"{measure}_auc"] = bootstrap.mean(np.array([area(curve) for curve in curves]))
    for name, compared in bootstrap.compare(statistics, baseline, groups, seed).items():
        into[name]["difference"] = compared


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all three")
    add("--steps", type=whole_number, default=STEPS, metavar="N", help="of deletion and insertion (default: %(default)s)")
    add("--channel-steps", type=whole_number, default=CHANNEL_STEPS, metavar="N", help="of closing channels (default: %(default)s)")


def _run(options: argparse.Namespace, panel: MethodSet, progress: ProgressOf) -> tuple[Faithfulness, str]:
    images = open_images(options.data)
    found = evaluate(
        panel, images, options.limit, options.seed, progress("photographs"), tuple(options.parts), options.steps, options.channel_steps
    )
    return found, images.fingerprint


def _details(layer: dict[str, Any]) -> list[str]:
    lines = []
    if "channels" in layer:
        lines.append("    closing channels, area under f^c (low is good)")
        for order, row in layer["channels"].items():
            difference = format_difference(row.get("difference", {}), "closing_auc", False)
            lines.append(f"    {order:<30}{format_value(row['closing_auc'], False):>8}  {difference}".rstrip())
    for method, row in layer["methods"].items():
        if "sanity" in row:
            stages = ", ".join(
                f"{stage} {format_value(found['spearman'], False)} / {format_value(found['ssim'], False)}"
                for stage, found in row["sanity"].items()
            )
            lines.append(f"    {method}: likeness to maps with random weights (Spearman / SSIM): {stages}")
    return lines


register(Protocol(
    "faithfulness", "deletion and insertion, closing channels, and randomised weights, on any photographs", _run,
    columns=(Column("deletion", "deletion_auc", False), Column("insertion", "insertion_auc", False), SECONDS), main="deletion_auc",
    add_options=_add_options, details=_details, takes_archives=lambda _options: True,
))  # fmt: skip
