"""Measure speed on this machine: of a fit and its solver against a plain baseline, of a GPU, or of the app in a browser."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from chipcore.cli.common import add_device_option, device_named
from chipcore.cli.console import add_command
from chipcore.errors import ChipError
from chipcore.fitting.memory import keep_freed_memory
from chipcore.storage import write_whole


def register(commands: Any) -> None:
    """Add ``bench`` to the command line."""
    bench = add_command(commands, __name__, __doc__)
    bench.add_argument("what", choices=("fit", "solve", "gpu", "app"))
    bench.add_argument(
        "--data", type=Path, default=None, metavar="DIR", help="real data: the photographs and Grams come from it (default: CHIP_DATA)"
    )
    bench.add_argument(
        "--networks", nargs="+", default=None, metavar="N", help="fit: default vgg16 (random weights) and efficientnet_lite0"
    )
    bench.add_argument("--gates", type=int, default=100, metavar="N", help="fit: gate samples a photograph (default: %(default)s)")
    bench.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="fit: default %(default)s")
    add_device_option(bench, "fit and gpu: ")
    bench.add_argument("--miniature", action="store_true", help="gpu: everything small, as it is on a CPU: to see that it works")
    bench.add_argument("--json", type=Path, default=None, metavar="FILE", help="machine-readable result")
    bench.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run one benchmark and print its table."""
    from chipcore.benchmarks import app, fit, gpu, processes, solve  # their browser and processes only when they are measured

    keep_freed_memory()

    def say(what: str) -> None:
        print(f"chipcore: measuring {what}", file=sys.stderr, flush=True)

    data = options.data or Path(os.environ.get("CHIP_DATA") or "../shared/data")
    if options.what == "fit":
        device = device_named(options.device)
        result = fit.run(options.networks or fit.NETWORKS, options.gates, options.precision, device, progress=say)
        print(fit.table(result), flush=True)
        if not (data / "classes").is_dir():
            say(f"no scaling and no memory: there are no photographs at {data / 'classes'}; give --data")
        elif device.type == "cpu":
            result |= processes.run(data / "classes", progress=say)
            print(processes.table(result))
    elif options.what == "gpu":
        result = gpu.run(
            device_named(options.device),
            miniature=options.miniature or None,
            progress=say,
            done=lambda so_far: _write(options.json, so_far),
        )
        print(gpu.table(result))
        if failed := [name for name, part in result["parts"].items() if "failed" in part]:
            raise ChipError(f"{', '.join(failed)} could not be measured; the table says why.")
        if wrong := [f"{row['what']} ({row['numbers']})" for row in result["parts"]["agreement"]["rows"] if not row["agrees"]]:
            raise ChipError(f"{', '.join(wrong)} differ from the CPU's by more than rounding explains; do not fit on this device.")
    elif options.what == "app":
        result = app.run(progress=say)
        print(app.table(result))
    else:
        result = solve.run(data=data, progress=say)
        print(solve.table(result))
    _write(options.json, result)


def _write(path: Path | None, result: dict[str, Any]) -> None:
    if path is not None:
        text = json.dumps(result, indent=2)
        write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))
