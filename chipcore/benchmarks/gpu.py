"""``python -m chipcore bench gpu``: is a fit right on this GPU, how fast is it, and how long would the paper's setting take?

Six parts, in the order in which one wants to know, each written to disk when it is done. On a CPU everything runs in miniature:
that shows that the command works, and measures nothing.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from chipcore.benchmarks.agreement import compare
from chipcore.benchmarks.timing import best_matrix_product, counting, seconds
from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.datasets.image_set import batches
from chipcore.fitting.accumulate import IMAGES_AT_ONCE, LayerSums, accumulate
from chipcore.fitting.memory import estimate, fixed_memory, peak_of_process
from chipcore.fitting.planning import ClassSlice
from chipcore.fitting.regression import solve_block
from chipcore.fitting.settings import FitSettings
from chipcore.gating.gates import draw_batch
from chipcore.gating.perturbation import Precision, batch_size, perturbed_scores
from chipcore.gating.suffix import Suffix
from chipcore.networks import Layer, Network, load_network
from chipcore.networks.registry import REGISTRY
from chipcore.solvers import admm
from chipcore.solvers.pivoting import solve_shared

Numbers = Literal["float32", "tf32", "bfloat16"]
PAPER_IMAGES, PAPER_GATES = 1_281_167, 100
PAPER_LAYERS = ("pool1", "pool2", "pool3", "pool4", "pool5")
_RATIO = 1e-4
_FIT_SECONDS = 60.0  # that a fit of part (c) may take: on a slow GPU it gets fewer images


@dataclass(frozen=True)
class Plan:
    """How much is measured: :data:`FULL` on a GPU, :data:`MINIATURE` on a CPU."""

    networks: tuple[tuple[str, tuple[str, ...]], ...]
    fitted: tuple[str, tuple[str, ...]]
    images: int
    gates: int
    compared_images: int
    compared_gates: int
    solved: tuple[tuple[int, int], ...]
    turns: int
    least_seconds: float


FULL = Plan(
    networks=(
        ("vgg16", PAPER_LAYERS), ("inception_v3", ()), ("resnet50", ()), ("efficientnet_lite0", ()),
    ),
    fitted=("vgg16", PAPER_LAYERS), images=256, gates=PAPER_GATES, compared_images=48, compared_gates=20,
    solved=((1000, 512), (1000, 1280)), turns=3, least_seconds=1.0,
)  # fmt: skip
MINIATURE = Plan(
    networks=(("vgg16_slim", ("pool4", "pool5")),), fitted=("vgg16_slim", ("pool5",)), images=4, gates=4, compared_images=6, compared_gates=4,
    solved=((3, 16),), turns=1, least_seconds=0.0,
)  # fmt: skip


def run(
    device: torch.device, *, miniature: bool | None = None, progress: Callable[[str], None] | None = None,
    done: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure all six parts.

    Parameters
    ----------
    device
        Where the networks run.
    miniature
        Whether everything is small; by default where the device is no GPU.
    progress
        Called with what is being measured.
    done
        Called with all results so far after every part.

    Returns
    -------
    dict
        What ``--json`` writes. A part that failed has its error's sentence under ``failed``, and the others go on.
    """
    tell, small = progress or (lambda _what: None), device.type != "cuda" if miniature is None else miniature
    plan = MINIATURE if small else FULL
    result: dict[str, Any] = {"bench": "gpu", "miniature": small, **_machine(device), "parts": {}}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="chipcore-bench-") as place:
        images = write_images(Path(place), max(plan.images, plan.compared_images))
        parts: tuple[tuple[str, Callable[[], Any]], ...] = (
            ("agreement", lambda: _agreement(device, images, plan, small)),
            ("predictions", lambda: _predictions(device, plan, tell, small)),
            ("fit", lambda: _fit(device, images, plan)),
            ("admm", lambda: _admm(device, plan)),
            ("memory", lambda: _memory(device, images, plan)),
            ("paper", lambda: _paper(result["parts"])),
        )
        for name, measure in parts:
            tell(name)
            start = time.perf_counter()
            try:
                found = {"rows": measure()}
            except Exception as error:  # what one part meets must not cost the others' figures
                found = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
            result["parts"][name] = {**found, "seconds": time.perf_counter() - start}
            result["seconds"] = time.perf_counter() - started
            if done is not None:
                done(result)
    return result


def _machine(device: torch.device) -> dict[str, Any]:
    gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if gpu else platform.processor() or platform.machine(), "kind": device.type,
        "torch": torch.__version__, "cuda": torch.version.cuda if gpu else None, "python": platform.python_version(), "threads": torch.get_num_threads(),
        "memory_gb": torch.cuda.get_device_properties(device).total_memory / 1e9 if gpu else None,
    }  # fmt: skip


def write_images(folder: Path, count: int, size: tuple[int, int] = (500, 375)) -> ImageFolder:
    """JPEG files of the size that ImageNet's have on average: smooth shapes with grain, so that they decode like photographs."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        grain = rng.normal(0, 12, (size[1], size[0], 1))
        Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=90)
    return find_images(folder)


@contextmanager
def numbers(kind: Numbers) -> Iterator[Precision]:
    """Matrix products in float32, in TF32 where the GPU has it, or bfloat16; gives the precision of the suffixes."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = kind == "tf32"
    try:
        yield "bfloat16" if kind == "bfloat16" else "float32"
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def _agreement(device: torch.device, images: ImageFolder, plan: Plan, small: bool) -> list[dict[str, Any]]:
    """(a) Gates, scores, moments, W, map and ADMM against the CPU's in float32."""
    network = load_network("vgg16_slim" if small else "efficientnet_lite0")
    settings = FitSettings(gates=plan.compared_gates, pooled_gates=0, generator="device", own_evidence=0, held_out=0.1)
    some = images.select(images.names[: plan.compared_images])
    return compare(network, device, network.layers[-1].name, some, settings, numbers)


def _random_network(name: str) -> Network:
    """A registered network with random weights, on which speed does not depend; the bundled ones with their own."""
    spec = REGISTRY[name]
    if spec.bundled:
        return load_network(name)
    torch.manual_seed(0)
    return Network.wrap(spec.build(), name=name, layers=spec.layers, geometry=spec.geometry, classes=spec.classes())


def _predictions(device: torch.device, plan: Plan, tell: Callable[[str], None], small: bool) -> list[dict[str, Any]]:
    """(b) Gated predictions a second, and their arithmetic as a share of the best matrix product in the same numbers."""
    kinds: tuple[Numbers, ...] = ("tf32", "bfloat16")
    peaks: dict[str, float] = {}
    for kind in kinds:
        with numbers(kind) as precision:
            # In miniature the matrix products alone would take seconds.
            peaks[kind] = 1e9 if small else best_matrix_product(precision, device)
    rows = []
    for name, wanted in plan.networks:
        network = _random_network(name).to(device)
        for layer in [network.layer(one) for one in wanted] or network.layers:
            for kind in kinds:
                tell(f"{name} {layer.name} {kind}")
                with numbers(kind) as precision:
                    each, flops = _one_layer(network, layer, plan, precision)
                rows.append({
                    "network": name, "layer": layer.name, "numbers": kind, "per_second": 1 / each, "suffix_gflop": flops / 1e9,
                    "share_of_product": None if small else flops / each / peaks[kind], "product_tflops": None if small else peaks[kind] / 1e12,
                })  # fmt: skip
        del network
        _clear(device)
    return rows


@torch.inference_mode()
def _one_layer(network: Network, layer: Layer, plan: Plan, precision: Precision) -> tuple[float, float]:
    """Seconds and operations of one gated prediction."""
    images = torch.randn(IMAGES_AT_ONCE if plan is FULL else 2, 3, *network.geometry.shape, generator=torch.Generator().manual_seed(0)).to(
        network.device
    )
    suffix = network.suffix(layer, (layer,))
    activations = network.forward_prefix(images, (layer,))
    features, beside = activations.features[layer.path], activations.side_inputs[layer.path]
    names = [str(number) for number in range(len(images))]
    gates, _weight = draw_batch("device", "uniform", plan.gates, layer.channels, layer.channels, 0, layer.path, names, network.device)
    d, batch = gates.to(features), batch_size(suffix.peak, network.device)

    def ours() -> Tensor:
        return perturbed_scores(suffix, features, beside, d, batch, precision)

    with counting() as counted:
        ours()
    turns = [seconds(ours, network.device)]
    while len(turns) < plan.turns or sum(turns) < plan.least_seconds:
        turns.append(seconds(ours, network.device))
    count = len(images) * plan.gates
    return min(turns) / count, counted.get_total_flops() / count


def _fit(device: torch.device, images: ImageFolder, plan: Plan) -> list[dict[str, Any]]:
    """(c) A fit from JPEG files to sums, and what its network passes and its decoding take by themselves."""
    name, wanted = plan.fitted
    network = _random_network(name).to(device)
    layers = tuple(network.layer(one) for one in wanted)
    rows = []
    for kind in ("tf32", "bfloat16"):
        with numbers(kind) as precision:
            settings = FitSettings(gates=plan.gates, generator="device", precision=precision, held_out=0)
            warm = images.select(images.names[:IMAGES_AT_ONCE])
            for _turn in range(2 if plan is FULL else 1):  # libraries choose their algorithms on the first batch
                least = seconds(lambda s=settings, i=warm: accumulate(network, _empty(layers, network, s), i, frozenset(), s), device)  # type: ignore[misc]
            affordable = max(IMAGES_AT_ONCE, int(_FIT_SECONDS / least * len(warm)))
            some = images.select(images.names[: min(plan.images, affordable)])
            whole = seconds(lambda s=settings, i=some: accumulate(network, _empty(layers, network, s), i, frozenset(), s), device)  # type: ignore[misc]
            decoding = seconds(lambda i=some: sum(1 for _ in batches(i, i.names, network.geometry, IMAGES_AT_ONCE)), "cpu")  # type: ignore[misc]
            passes = _passes_alone(network, layers, some, settings)
        rows.append({
            "network": name, "layers": list(wanted), "numbers": kind, "images": len(some), "gates": plan.gates, "images_per_second": len(some) / whole,
            "share_in_passes": passes / whole, "decoding_per_second": len(some) / decoding, "decoding_seconds": decoding, "seconds": whole,
        })  # fmt: skip
    return rows


def _empty(layers: Sequence[Layer], network: Network, settings: FitSettings) -> list[LayerSums]:
    return [LayerSums.empty(ClassSlice(layer, tuple(range(len(network.classes)))), settings, network.device) for layer in layers]


@torch.inference_mode()
def _passes_alone(network: Network, layers: tuple[Layer, ...], images: ImageFolder, settings: FitSettings) -> float:
    """Seconds of the passes through the network that a fit of these images makes, on one batch that is at hand, times their number."""
    [first] = batches(images, images.names[:IMAGES_AT_ONCE], network.geometry, IMAGES_AT_ONCE)
    inputs = network.geometry.normalize(first.views.to(network.device))
    drawn = {
        layer.path: draw_batch(
            "device", "uniform", settings.gates, layer.channels, layer.channels, 0, layer.path, first.names, network.device
        )[0]
        for layer in layers
    }

    def passes() -> None:
        activations = network.forward_prefix(inputs, layers)
        for layer in layers:
            suffix, features = network.suffix(layer, layers), activations.features[layer.path]
            beside, gates = activations.side_inputs[layer.path], drawn[layer.path].to(features)
            perturbed_scores(suffix, features, beside, gates, batch_size(suffix.peak, network.device), settings.precision)

    return min(seconds(passes, network.device) for _turn in range(2)) * len(images) / len(first.names)


def _admm(device: torch.device, plan: Plan) -> list[dict[str, Any]]:
    """(d) Classes with Grams of their own by ADMM, block by block, and rows that share a Gram by pivoting; against this machine's CPU."""
    rows = []
    for classes, channels in plan.solved:
        block = min(classes, solve_block(channels))
        generator = torch.Generator().manual_seed(0)
        z = torch.rand(block, 2 * channels, channels, generator=generator, dtype=torch.float64)
        gram = z.mT @ z / (2 * channels)
        cross = (gram @ torch.randn(block, channels, 1, generator=generator, dtype=torch.float64))[..., 0]
        many = torch.randn(classes, channels, generator=generator, dtype=torch.float64) @ gram[0]
        found: dict[str, float] = {}
        for kind in dict.fromkeys(("cpu", device.type)):
            place = device if kind == device.type else torch.device("cpu")
            G, b, B = gram.to(place), cross.to(place), many.to(place)
            lam, lams = (_RATIO * value.abs().amax(1) for value in (b, B))
            admm.solve(G[:1], b[:1], lam[:1])  # libraries load
            found[f"admm_{kind}"] = seconds(lambda G=G, b=b, lam=lam: admm.solve(G, b, lam), place) * classes / block  # type: ignore[misc]
            found[f"shared_{kind}"] = seconds(lambda G=G, B=B, lams=lams: solve_shared(G[0], B, lams), place)  # type: ignore[misc]
        rows.append({"classes": classes, "channels": channels, "solved_at_once": block, **found})
    return rows


def _memory(device: torch.device, images: ImageFolder, plan: Plan) -> list[dict[str, Any]]:
    """(e) Peak memory against what was stated, and a memory that does not suffice."""
    name, wanted = plan.fitted
    network = _random_network(name).to(device)
    layers = tuple(network.layer(one) for one in wanted)
    settings = FitSettings(gates=plan.gates, generator="device", held_out=0)
    some = images.select(images.names[: 2 * IMAGES_AT_ONCE])
    classes = range(len(network.classes))
    stated = estimate(network, layers, classes, len(some), settings, fixed_memory(network, layers, settings) + (64 << 30)).total
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    accumulate(network, _empty(layers, network, settings), some, frozenset(), settings)
    peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
    return [{"stated_main": stated, "peak_main": peak_of_process(), "peak_gpu": peak}, _out_of_memory(network, layers[0], plan, device)]


@torch.inference_mode()
def _out_of_memory(network: Network, layer: Layer, plan: Plan, device: torch.device) -> dict[str, Any]:
    """Gated predictions in batches that do not fit: on a GPU into what is left of its memory, on a CPU by a suffix that says so."""
    suffix = network.suffix(layer, (layer,))
    activations = network.forward_prefix(torch.randn(1, 3, *network.geometry.shape, generator=torch.Generator().manual_seed(0)), (layer,))
    features, beside = activations.features[layer.path], activations.side_inputs[layer.path]
    gates, _weight = draw_batch("device", "uniform", max(plan.gates, 8), layer.channels, layer.channels, 0, layer.path, ["x"], device)
    d = gates.to(features)
    expected = perturbed_scores(suffix, features, beside, d, 4)
    tried: list[int] = []
    room = d.shape[1] // 3
    if device.type == "cuda":
        _clear(device)
        free, total = torch.cuda.mem_get_info(device)
        # So much that a third of the gates fits and all of them do not, in a share of the memory that only this process heeds.
        allowed = (total - free) + 4 * suffix.peak * room + (256 << 20)
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), device)
    counted = _Counted(suffix, tried, None if device.type == "cuda" else room)
    try:
        found = perturbed_scores(counted, features, beside, d, d.shape[1])  # type: ignore[arg-type]
    finally:
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, device)
    difference = float((found - expected).abs().max() / expected.abs().max())
    return {
        "real": device.type == "cuda",
        "batches_tried": tried,
        "halved": len(set(tried)) > 1,
        "difference": difference,
        "agrees": difference < 1e-3,
    }


class _Counted:
    """A suffix that keeps the sizes that it was asked for, and has no room for more than ``room`` gated networks."""

    def __init__(self, suffix: Suffix, tried: list[int], room: int | None) -> None:
        self._suffix, self._tried, self._room = suffix, tried, room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._suffix, name)

    def scores(self, prepared: Tensor, side_inputs: Sequence[Tensor], gates: Tensor, classes: Tensor | None = None) -> Tensor:
        self._tried.append(gates.shape[0] * gates.shape[1])
        if self._room is not None and self._tried[-1] > self._room:
            raise torch.OutOfMemoryError("as a GPU says it")
        return self._suffix.scores(prepared, side_inputs, gates, classes)


def _paper(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """(f) The paper's images at the measured rate: hours on one and on eight of these, without solving."""
    rows = []
    for row in parts["fit"].get("rows", []):
        hours = PAPER_IMAGES / row["images_per_second"] / 3600
        rows.append({
            "network": row["network"], "layers": row["layers"], "numbers": row["numbers"], "images": PAPER_IMAGES, "gates": row["gates"],
            "hours_on_1": hours, "hours_on_8": hours / 8,
        })  # fmt: skip
    return rows


def _clear(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    parts = result["parts"]
    lines = [
        f"{result['device']} ({result['kind']}), torch {result['torch']}, {result['seconds']:.0f} s"
        + (", in miniature: no figure means anything" if result["miniature"] else "")
    ]
    for name, part in parts.items():
        lines.append(f"\n{name} ({part['seconds']:.0f} s)" + (f": failed, {part['failed']}" if "failed" in part else ""))
        for row in part.get("rows", []):
            lines.append("  " + "  ".join(f"{key} {_shown(value)}" for key, value in row.items()))  # noqa: PERF401
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "NO", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:.3g}"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
