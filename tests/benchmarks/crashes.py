"""A fit that is killed again and again, at every stage of its work, and resumed: is W the same to the bit each time?

    python -m tests.benchmarks.crashes [--times 100] [--images 42] [--json assets/results/crashes.json]

The small VGG at pool5 and real images, in two passes, with a checkpoint as often as the program allows. A child
process fits, is killed (SIGKILL), and another one goes on with what it finds; half of these are killed too. What ends is
compared with a fit that nobody disturbed. Half of the kills come at any moment, the other half at a random moment of a
stage: starting (or reading a checkpoint), reading images, perturbing, writing a checkpoint, solving, writing W.
Linux only: children are forks of a process that has loaded everything, so that a run takes no time to start.
"""

from __future__ import annotations

import argparse
import functools
import json
import mmap
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import chipcore
from chipcore import Importance, Network
from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.errors import ChipError
from chipcore.fitting import accumulate, pipeline
from chipcore.fitting.checkpoint import Checkpoint
from chipcore.fitting.moments import Moments
from chipcore.fitting.settings import FitSettings

DATA = Path(os.environ.get("CHIP_DATA") or "../shared/data")
SETTINGS = FitSettings(gates=2)
LAYER = "pool5"
STAGES = ("start", "reading photographs", "perturbing", "writing a checkpoint", "solving", "writing W")


class Stage:
    """Which stage a child is in, told through memory that it shares with this process, with a count of the stages entered."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    @property
    def now(self) -> tuple[int, int]:
        """Stage and count."""
        return self._shared[0], int.from_bytes(self._shared[1:5], "little")

    def enter(self, stage: int) -> None:
        self._shared[0] = stage
        self._shared[1:5] = (self.now[1] + 1).to_bytes(4, "little")

    def clear(self) -> None:
        self._shared[0:5] = bytes(5)

    def during(self, stage: int, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work``, told of; afterwards images are read again, whatever it was."""

        @functools.wraps(work)
        def told(*given: Any, **named: Any) -> Any:
            self.enter(stage)
            try:
                return work(*given, **named)
            finally:
                self.enter(1)

        return told

    def tell(self) -> None:
        """In a child: from now on."""
        real = accumulate.batches

        def batches(*given: Any, **named: Any) -> Iterator[Any]:
            self.enter(1)
            yield from real(*given, **named)

        accumulate.batches = batches
        accumulate.add_batch = self.during(2, accumulate.add_batch)
        Checkpoint.write = self.during(3, Checkpoint.write)  # type: ignore[method-assign]
        pipeline.solve_rows = self.during(4, pipeline.solve_rows)
        Importance.save = self.during(5, Importance.save)  # type: ignore[method-assign]


class Runs:
    """Fits in children of this process, all with the same settings."""

    def __init__(self, network: Network, images: ImageFolder) -> None:
        self.network, self.images, self.stage = network, images, Stage()
        network.suffix(network.layer(LAYER), (network.layer(LAYER),))  # cut here once, not in every child
        classes = len(network.classes)
        self.memory = (classes + 1) // 2 * 2 * Moments.bytes_per_class(network.layer(LAYER).channels)  # two passes

    def start(self, out: Path) -> int:
        """Fit (or go on) into ``out`` in a child; its process id."""
        self.stage.clear()
        child = os.fork()
        if child:
            return child
        status = 1
        self.stage.tell()
        try:
            fitted = chipcore.fit(
                self.network, [LAYER], self.images, SETTINGS, memory=self.memory, checkpoints=out / "checkpoints", resume=True,
                checkpoint_seconds=0, keep_checkpoints=True,
            )[LAYER]  # fmt: skip
            fitted.save(out)
            shutil.rmtree(out / "checkpoints")
            status = 0
        except ChipError as error:
            print(f"refused: {error}", flush=True)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def finish(self, out: Path) -> bool:
        """Run to the end; whether it got there."""
        return os.waitpid(self.start(out), 0)[1] == 0

    def kill(self, out: Path, dice: random.Random, length: float, aimed: bool) -> tuple[str, bool]:
        """Start, wait, kill; the stage it was in, empty where it was over by then, and whether a half-written file was left."""
        child = self.start(out)
        begun = time.monotonic()
        until = begun + dice.uniform(0, 0.8 * length)
        wanted = dice.randrange(len(STAGES))
        number = dice.randrange((1, 3, 3, 3, 2, 1)[wanted])  # the first of its kind, or a later one
        seen, at = 0, (0, -1)
        while os.waitpid(child, os.WNOHANG)[0] != child:
            if aimed:
                now = self.stage.now
                if now != at:
                    seen, at = seen + (now[0] == wanted), now
                    until = time.monotonic() + dice.uniform(0, 0.02 if wanted in (3, 5) else 0.2)
                ready = seen > number and now[0] == wanted
            else:
                ready = True
            if ready and time.monotonic() >= until:
                stage = self.stage.now[0]
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return STAGES[stage], half_written(out)
            time.sleep(0.0005)
        return "", half_written(out)


def half_written(out: Path) -> bool:
    try:
        return any(entry.name.endswith(".part") for folder in (out, out / "checkpoints") if folder.is_dir() for entry in os.scandir(folder))
    except OSError:  # it was taken away meanwhile
        return False


def weights(out: Path) -> dict[str, torch.Tensor]:
    [file] = out.rglob("*.safetensors")
    return load_file(file)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name].nan_to_num(9), other[name].nan_to_num(9)) for name in one)


def study(runs: Runs, times: int, place: Path, seed: int = 0) -> dict[str, Any]:
    """Kill ``times`` times; counts of kills, of ends, and of what must not be."""
    dice = random.Random(seed)
    start = time.monotonic()
    if not runs.finish(place / "whole"):
        raise SystemExit("the fit does not end even if nobody disturbs it")
    length = time.monotonic() - start
    whole = weights(place / "whole")
    counts = {"kills": 0, "while_writing": 0, "ends": 0, "differing": 0, "refused_or_failed": 0, "left_behind": 0}
    stages: Counter[str] = Counter()
    out = place / "out"
    while counts["kills"] < times:
        stage, half = runs.kill(out, dice, length, aimed=dice.random() < 0.5)
        counts["kills"] += bool(stage)
        counts["while_writing"] += half and bool(stage)
        if stage:
            stages[stage] += 1
        if not stage or dice.random() < 0.5 or counts["kills"] == times:
            ended = bool(list(out.rglob("*.safetensors"))) if not stage else runs.finish(out)
            counts["ends"] += ended
            counts["refused_or_failed"] += not ended
            counts["differing"] += ended and not same(weights(out), whole)
            counts["left_behind"] += ended and (out / "checkpoints").exists()
            shutil.rmtree(out, ignore_errors=True)
    return {
        **counts,
        "by_stage": {stage: stages[stage] for stage in STAGES},
        "seconds_undisturbed": round(length, 2),
        "seconds": round(time.monotonic() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--photographs", type=int, default=42)
    parser.add_argument("--json", type=Path, default=Path("assets/results/crashes.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    network = chipcore.load_network("vgg16_slim")
    images = find_images(DATA / "fourteen" / "val").per_folder(-(-options.photographs // 14))
    with tempfile.TemporaryDirectory() as place:
        found = study(Runs(network, images), options.times, Path(place))
    result = {
        **found, "photographs": len(images), "layer": f"{network.name} {LAYER}", "passes": 2, "date": datetime.now(UTC).date().isoformat(),
        "torch": torch.__version__,
    }  # fmt: skip
    print(table(result))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    if found["differing"] or found["refused_or_failed"] or found["left_behind"]:
        raise SystemExit(1)


def table(result: dict[str, Any]) -> str:
    """The figures in words, one a line."""
    lines = [
        (f"kills of a fit of {result['seconds_undisturbed']:.1f} s", result["kills"]),
        *((f"  {stage}", count) for stage, count in result["by_stage"].items()),
        ("  that left a half-written file", result["while_writing"]),
        ("fits that ended after them", result["ends"]),
        ("  with a W that differs by a bit", result["differing"]),
        ("  refused or failed", result["refused_or_failed"]),
        ("  that left checkpoints behind", result["left_behind"]),
        ("seconds in all", f"{result['seconds']:.0f}"),
    ]
    return "\n".join(f"{name:<40} {value}" for name, value in lines)


if __name__ == "__main__":
    main()
