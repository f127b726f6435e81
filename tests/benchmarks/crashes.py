"""A fit that is killed again and again, also while it writes, and resumed: is W the same to the bit each time?

    python -m tests.benchmarks.crashes [--times 100] [--photographs 84] [--json assets/results/crashes.json]

The small VGG at pool5 and real photographs, in two passes, with a checkpoint as often as the program allows. A child
process fits, is killed (SIGKILL) at a random moment or while a file is being written, and another one goes on with what
it finds; half of these are killed too. What ends is compared with a fit that nobody disturbed.
Linux only: children are forks of a process that has loaded everything, so that a run takes no time to start.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import chipcore
from chipcore import Network
from chipcore.datasets.folder import Photographs, find_photographs
from chipcore.errors import ChipError
from chipcore.moments import Moments
from chipcore.settings import FitSettings

DATA = Path(os.environ.get("CHIP_DATA") or "../shared/data")
SETTINGS = FitSettings(gates=4)
LAYER = "pool5"


class Runs:
    """Fits in children of this process, all with the same settings."""

    def __init__(self, network: Network, photographs: Photographs) -> None:
        self.network, self.photographs = network, photographs
        network.suffix(network.layer(LAYER), (network.layer(LAYER),))  # cut here once, not in every child
        classes = len(network.classes)
        self.memory = (classes + 1) // 2 * 2 * Moments.bytes_per_class(network.layer(LAYER).channels)  # two passes

    def start(self, out: Path) -> int:
        """Fit (or go on) into ``out`` in a child; its process id."""
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            fitted = chipcore.fit(
                self.network, [LAYER], self.photographs, SETTINGS, memory=self.memory, checkpoints=out / "checkpoints", resume=True,
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

    def kill(self, out: Path, after: float, writing: bool) -> tuple[bool, bool]:
        """Start, wait, kill; whether it was over by then, and whether a half-written file was left."""
        child = self.start(out)
        until = time.monotonic() + after
        over = False
        while not over:
            over = os.waitpid(child, os.WNOHANG)[0] == child
            late = time.monotonic() >= until
            if late and (not writing or half_written(out)):
                break
            if not (writing and late):
                time.sleep(0.001)
        if not over:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return over, half_written(out)


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
    out = place / "out"
    while counts["kills"] < times:
        over, half = runs.kill(out, dice.uniform(0, 0.8 * length), dice.random() < 0.5)
        counts["kills"] += not over
        counts["while_writing"] += half and not over
        if over or dice.random() < 0.5 or counts["kills"] == times:
            ended = runs.finish(out) if not (over and list(out.rglob("*.safetensors"))) else True
            counts["ends"] += ended
            counts["refused_or_failed"] += not ended
            counts["differing"] += ended and not same(weights(out), whole)
            counts["left_behind"] += ended and (out / "checkpoints").exists()
            shutil.rmtree(out, ignore_errors=True)
    return {**counts, "seconds_undisturbed": round(length, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--photographs", type=int, default=84)
    parser.add_argument("--json", type=Path, default=Path("assets/results/crashes.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    network = chipcore.load_network("vgg16_slim")
    photographs = find_photographs(DATA / "fourteen" / "val").per_folder(-(-options.photographs // 14))
    with tempfile.TemporaryDirectory() as place:
        found = study(Runs(network, photographs), options.times, Path(place))
    result = {
        **found, "photographs": len(photographs), "layer": f"{network.name} {LAYER}", "passes": 2, "date": datetime.now(UTC).date().isoformat(),
        "torch": torch.__version__,
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    if found["differing"] or found["refused_or_failed"] or found["left_behind"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
