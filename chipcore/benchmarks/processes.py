"""What needs processes of its own to be measured: scaling over processes, and peak memory.

Each measurement is this module run as a program: ``python -m chipcore.benchmarks.processes scaling|memory FOLDER``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from chipcore.datasets.class_names import imagenet
from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.errors import ChipError
from chipcore.fitting.accumulate import LayerSums, accumulate
from chipcore.fitting.distributed import team
from chipcore.fitting.memory import GB, estimate, keep_freed_memory, peak_of_process
from chipcore.fitting.pipeline import fit
from chipcore.fitting.planning import ClassSlice
from chipcore.fitting.settings import FitSettings
from chipcore.images import InputGeometry
from chipcore.networks import Network, load_network, torchvision_import

NETWORK, LAYER, GATES = "efficientnet_lite0", "stage5", 40
MEMORY_LAYER = ("fire9", "features.12")  # of SqueezeNet: 1,000 classes x 512 channels


def run(folder: Path, images: int = 160, progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Images a second of 1 and of 2 processes with one thread each, and of 1 with two; and peak memory.

    Args:
        folder: images, flat or in class folders.
        images: how many of them are perturbed, at stage5 of EfficientNet-Lite0 with 40 gates.
        progress: called with what is being measured.

    Returns:
        ``scaling`` and ``memory``, as ``--json`` writes them.
    """
    tell = progress or (lambda _what: None)
    rows = []
    for processes, threads in ((1, 1), (2, 1), (1, 2)):
        tell(f"{processes} processes x {threads} threads")
        rows.append({"processes": processes, "threads": threads, **_start(["scaling", str(folder), str(images)], processes, threads)})
    alone = rows[0]["photographs_per_second"]
    for row in rows:
        row["ratio"] = row["photographs_per_second"] / alone
    tell("memory")
    return {
        "scaling": {"network": NETWORK, "layer": LAYER, "gates": GATES, "photographs": images, "runs": rows},
        "memory": _start(["memory", str(folder)], 1, torch.get_num_threads()),
    }


def _start(arguments: Sequence[str], processes: int, threads: int) -> dict[str, Any]:
    module = ["-m", "chipcore.benchmarks.processes", *arguments]
    command = [sys.executable, *module]
    if processes > 1:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *module]
    with tempfile.TemporaryDirectory() as place:
        answer = Path(place) / "answer.json"
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "CHIP_BENCH_ANSWER": str(answer), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode or not answer.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ChipError(f"a process of the benchmark failed ({last[:200]}).")
        return json.loads(answer.read_text())


def table(result: dict[str, Any]) -> str:
    """The result of ``run`` as text."""
    scaling, memory = result["scaling"], result["memory"]
    lines = [
        f"{scaling['network']} {scaling['layer']}, {scaling['photographs']} photographs x {scaling['gates']} gates",
        f"{'processes':>9}{'threads each':>14}{'photographs/s':>15}{'ratio':>7}{'adding up':>11}{'difference of moments':>23}",
    ]
    first = scaling["runs"][0]["moments"]
    for row in scaling["runs"]:
        difference = max(abs(a - b) / max(abs(b), 1e-300) for a, b in zip(row["moments"], first, strict=True))
        lines.append(
            f"{row['processes']:>9}{row['threads']:>14}{row['photographs_per_second']:>15.2f}{row['ratio']:>7.2f}{row['seconds_adding_up']:>9.1f} s{difference:>23.0e}"
        )
    lines.append(
        f"peak memory of a fit of {memory['classes']} classes x {memory['channels']} channels: "
        f"{memory['peak'] / GB:.2f} GB, stated before it {memory['stated'] / GB:.2f} GB"
    )
    return "\n".join(lines)


def _scaling(folder: Path, images: int) -> dict[str, Any]:
    network = load_network(NETWORK)
    found = _some(folder, images)
    settings = FitSettings(gates=GATES, held_out=0)
    with team(network.device) as ours:
        part = ClassSlice(network.layer(LAYER), tuple(range(len(network.classes))))
        one = LayerSums.empty(part, settings)
        names = ours.share(found.names)
        accumulate(network, [one], found, frozenset(), settings, names=names[:2])  # libraries load, caches warm
        one = LayerSums.empty(part, settings)
        ours.agree(0)  # nobody starts early
        start = time.perf_counter()
        accumulate(network, [one], found, frozenset(), settings, names=names)
        ours.agree(0)
        perturbing = time.perf_counter() - start
        ours.add_up([one], len(names))
        adding = time.perf_counter() - start - perturbing
    # A few numbers stand for all: sums over all classes, weighted so that no two errors cancel.
    moments = [0.0, 0.0, 0.0]
    if ours.rank == 0:
        own = one.moments((one.samples.evidence_mass() > 1).nonzero().flatten()[:50])
        mixed = torch.rand(own.cross.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        gram = torch.stack([G @ mixed for G in (*own.gram, one.pooled.gram)])
        moments = [float(gram.square().sum()), float(one.pooled.cross.square().sum()), float(own.energy.sum())]
    return {
        "photographs_per_second": len(found) / perturbing, "seconds_adding_up": adding, "moments": moments, "rank": ours.rank,
    }  # fmt: skip


def _memory(folder: Path) -> dict[str, Any]:
    """A fit in which every class has moments from every image: no class is left out."""
    torch.manual_seed(0)
    network = Network.wrap(
        torchvision_import.models.squeezenet1_0(),
        name="squeezenet1_0",
        layers=(MEMORY_LAYER,),
        geometry=InputGeometry(fit="squash"),
        classes=imagenet(),
    )
    settings = FitSettings(gates=20, cutoff=1e-30, min_evidence=0, held_out=0.5)
    classes = range(len(network.classes))
    images = _some(folder, 32)
    need = estimate(network, network.layers, classes, len(images), settings, 6 * GB)
    fit(network, [MEMORY_LAYER[0]], images, settings, memory=need.samples)
    return {
        "classes": len(classes), "channels": network.layers[0].channels, "stated": need.total, "samples": need.samples,
        "peak": peak_of_process(),
    }  # fmt: skip


def _some(folder: Path, count: int) -> ImageFolder:
    """Images spread over the whole folder."""
    found = find_images(folder)
    step = max(1, len(found) // count)
    return ImageFolder(found.root, found.names[::step][:count])


if __name__ == "__main__":
    keep_freed_memory()
    measured = _scaling(Path(sys.argv[2]), int(sys.argv[3])) if sys.argv[1] == "scaling" else _memory(Path(sys.argv[2]))
    if measured.pop("rank", 0) == 0:
        Path(os.environ["CHIP_BENCH_ANSWER"]).write_text(json.dumps(measured))
