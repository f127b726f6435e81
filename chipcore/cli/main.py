"""The command line: ``python -m chipcore networks | fit | explain | gate | rows | evaluate | bench | train | figures``.

Results go to standard output, progress (on a terminal) and errors to standard error. Exit status 0, or 2
with one line for a user's mistake.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import torch
from tqdm import tqdm

import chipcore
from chipcore.cli import bench as bench
from chipcore.cli import explain, figures, gate, rows
from chipcore.cli import train as training
from chipcore.cli.console import drop_output, refuse, tell
from chipcore.cli.evaluate import add_parser as add_evaluate
from chipcore.cli.listing import in_words, row_of
from chipcore.cli.options import add_network_options, load_from_options
from chipcore.datasets.image_folder import find_images
from chipcore.errors import ChipError, SettingsError
from chipcore.fitting.distributed import local_device, team
from chipcore.fitting.memory import GB, estimate, peak_of_process
from chipcore.fitting.pipeline import Progress
from chipcore.gating.gates import Draw
from chipcore.networks import REGISTRY
from chipcore.storage import check_writable, fitted_importance, locked

DEVICES = ("auto", "cpu", "cuda", "mps")
MOST_MEMORY = 1e6  # GB


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ChipError(f"{message}; see {self.prog} --help.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    with contextlib.suppress(AttributeError, ValueError):  # a name that the terminal's encoding lacks is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for package in ("PIL", r"torch\._weights_only"):  # what they think of a file that we read or refuse
        warnings.filterwarnings("ignore", module=package)
    try:
        options = _parser().parse_args(arguments)
        options.run(options)
        sys.stdout.flush()  # a full disk shows here, not when the program is over
        return 0
    except ChipError as error:
        return refuse(str(error))
    except MemoryError:
        return refuse("this machine has not enough memory for that; give fewer classes, layers or samples at once.")
    except BrokenPipeError:  # the reader (head, less) has gone
        sys.stderr.close()
        return 0
    except OSError as error:  # a folder that may not be read, a name that is too long, a full disk behind standard output
        drop_output()
        return refuse(f"{error.filename or 'standard output'}: {error.strerror or error}; check the path, its permissions and free space.")
    except KeyboardInterrupt:
        print("chipcore: interrupted.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m chipcore", description="What a convolutional network has learned, channel by channel (CHIP).")
    parser.add_argument("--version", action="version", version=f"chipcore {chipcore.__version__}")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND", parser_class=_Parser)

    networks = commands.add_parser("networks", help="list the networks and their layers")
    networks.add_argument("--json", action="store_true", help="machine-readable")
    networks.set_defaults(run=_networks)

    fit = commands.add_parser("fit", help="learn W from a folder of photographs")
    _network_options(fit)
    fit.add_argument(
        "--layers",
        nargs="+",
        required=True,
        metavar="L",
        help="layer names or module paths, all fitted in one pass; 'all' for every named layer",
    )
    fit.add_argument(
        "--images", nargs="+", required=True, type=Path, metavar="DIR", help="folders of photographs, flat or with class folders"
    )
    fit.add_argument("--classes", nargs="+", default=(), metavar="C", help="fit only these rows: index, synset or name (default: all)")
    fit.add_argument("--photos-per-class", type=_at_least_1, default=0, metavar="P", help="use at most P photographs of each class folder")
    fit.add_argument("--gates", type=int, default=100, metavar="N", help="gate samples a photograph (default: %(default)s)")
    fit.add_argument(
        "--target", choices=("score", "probability"), default="score", help="what the gated prediction is (default: %(default)s)"
    )
    fit.add_argument("--draw", choices=get_args(Draw), default="uniform", help="how gates are drawn (default: %(default)s, the paper's)")
    fit.add_argument(
        "--sigma2", type=float, default=None, metavar="X", help="sigma^2 of the proximity, Eq. 8 (default: number of channels)"
    )
    fit.add_argument(
        "--lambda-ratio", type=float, default=1e-3, metavar="R", help="lambda as a share of the one that gives W = 0 (default: %(default)s)"
    )
    fit.add_argument(
        "--background", type=float, default=chipcore.FitSettings.background, metavar="B",
        help="share that all photographs alike have in every class's sums; 0 is the paper's Eq. 11 (default: %(default)s)",
    )  # fmt: skip
    fit.add_argument(
        "--intercept", action=argparse.BooleanOptionalAction, default=chipcore.FitSettings.intercept,
        help="a constant beside W z; the paper's Eq. 11 has none (default: %(default)s)",
    )  # fmt: skip
    fit.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="of the gated predictions (default: %(default)s)"
    )
    fit.add_argument("--seed", type=int, default=0, help="of the gates (default: %(default)s)")
    fit.add_argument(
        "--memory",
        type=float,
        default=6.0,
        metavar="GB",
        help="what this process may take at its peak; more classes or channels go in further passes (default: %(default)s)",
    )
    fit.add_argument("--resume", action="store_true", help="go on from the checkpoints of an interrupted fit with the same --out")
    fit.add_argument(
        "--out", type=Path, default=None, metavar="DIR", help="where W goes (default: the cache folder, where explain and the app find it)"
    )
    fit.add_argument("--json", action="store_true", help="machine-readable result")
    fit.set_defaults(run=_fit)

    bench.add_parser(commands, DEVICES)

    explain.add_parser(commands, _network_options, _load)
    gate.add_parser(commands, _network_options, _load)
    rows.add_parser(commands, _network_options, _load)
    add_evaluate(commands, _network_options, _load)
    training.add_parser(commands)
    figures.add_parser(commands, _network_options, _load)
    return parser


def _network_options(parser: argparse.ArgumentParser) -> None:
    add_network_options(parser)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: %(default)s")


def _at_least_1(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("give a whole number above 0")
    return int(text)


def device_named(wanted: str) -> torch.device:
    """The device of this name; ``auto`` is the fastest there is."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device("cuda" if there["cuda"] else "mps" if there["mps"] else "cpu")
    if not there[wanted]:
        raise SettingsError(f"this machine (or this build of torch) has no {wanted} device; leave --device out.")
    return torch.device(wanted)


def _load(options: argparse.Namespace) -> chipcore.Network:
    return load_from_options(options, local_device(device_named(options.device)))


def _networks(options: argparse.Namespace) -> None:
    rows = [row_of(entry) for entry in REGISTRY.values()]
    for found in rows:
        if found["bundled"]:  # its weights are here, so W can be told
            network = chipcore.load_network(found["name"])
            for at in found["layers"]:
                at["fitted"] = _fitted(network, at["name"])
    print(json.dumps(rows, indent=2) if options.json else "\n".join(line for found in rows for line in in_words(found)))


def _fitted(network: chipcore.Network, layer: str) -> int:
    try:
        return int((chipcore.load_importance(network, layer).support > 0).sum())
    except ChipError:
        return 0


def keep_freed_memory() -> None:
    """Have glibc keep what it frees: giving activations back and faulting them in again costs up to half the time."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # musl has no mallopt
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def _fit(options: argparse.Namespace) -> None:
    keep_freed_memory()
    if not 0 < options.memory < MOST_MEMORY:
        raise SettingsError(f"--memory is {options.memory}; give the GB that this process may take.")
    settings = chipcore.FitSettings(
        gates=options.gates,
        target=options.target,
        draw=options.draw,
        sigma2=options.sigma2,
        lambda_ratio=options.lambda_ratio,
        background=options.background,
        intercept=options.intercept,
        seed=options.seed,
        precision=options.precision,
    )
    network = _load(options)
    layers = [layer.name for layer in network.layers] if options.layers == ["all"] else options.layers
    images = find_images(options.images).per_folder(options.photos_per_class)
    out = options.out or fitted_importance()
    unreadable = list(images.closed)
    chosen = [network.layer(layer) for layer in layers]
    wanted = [network.classes.index(one) for one in options.classes] or range(len(network.classes))
    need = estimate(network, chosen, wanted, settings, int(options.memory * GB))
    checkpoints = out / "checkpoints" / network.name.replace("/", "_")
    start = time.perf_counter()
    with team(network.device) as ours:
        if ours.rank == 0:
            check_writable(out)
            each = " a process" if ours.size > 1 else ""
            print(f"chipcore: {len(images)} photographs; {need.sentence()}{each}", file=sys.stderr, flush=True)
        with _Bars(unreadable, quiet=ours.rank > 0) as bars:
            fitted = chipcore.fit(
                network, layers, images, settings, classes=options.classes, progress=bars, memory=need.moments,
                checkpoints=checkpoints, resume=options.resume, keep_checkpoints=True, team=ours,
            )  # fmt: skip
        if ours.rank > 0:
            return
    with locked(out, wait=True):  # another fit may add its rows to the same W
        files = {name: _with_other_rows(one, network, name, out, bool(options.classes)).save(out) for name, one in fitted.items()}
    shutil.rmtree(checkpoints, ignore_errors=True)  # only now: where W could not be written, --resume still has them
    with contextlib.suppress(OSError):  # another fit's checkpoints may be beside ours
        (out / "checkpoints").rmdir()
    seconds = time.perf_counter() - start
    results = []
    for name, importance in fitted.items():
        rows = importance.support > 0
        r2 = importance.r2[rows & ~importance.r2.isnan()]
        results.append({
            "layer": name, "channels": importance.W.shape[1], "rows": int(rows.sum()), "weak_rows": sum(importance.evidence(int(c)) == "weak" for c in rows.nonzero()),
            "median_r2": round(float(r2.median()), 4) if len(r2) else None, "median_support": int(importance.support[rows].float().median()) if rows.any() else 0,
            "file": str(files[name]),
        })  # fmt: skip
    for sentence in unreadable:
        tell(f"left out: {sentence}")
    if options.json:
        print(
            json.dumps(
                {
                    "seconds": round(seconds, 1),
                    "photographs": len(images),
                    "unreadable": unreadable,
                    "memory_stated": need.total,
                    "memory_peak": peak_of_process(),
                    "layers": results,
                },
                indent=2,
            )
        )
        return
    print(
        f"{len(images) - len(unreadable) + len(images.closed)} photographs x {settings.gates} gates in {seconds:.0f} s"
        + (f", {len(unreadable)} unreadable" if unreadable else "")
    )
    print(f"{'layer':<12}{'channels':>9}{'rows':>6}{'weak':>6}{'median R2':>11}{'median support':>16}  file")
    for row in results:
        r2_text = "-" if row["median_r2"] is None else f"{row['median_r2']:.3f}"
        print(
            f"{row['layer']:<12}{row['channels']:>9}{row['rows']:>6}{row['weak_rows']:>6}{r2_text:>11}{row['median_support']:>16}  {row['file']}"
        )


def _with_other_rows(importance: chipcore.Importance, network: chipcore.Network, layer: str, out: Path, some: bool) -> chipcore.Importance:
    """After a fit of some classes, W keeps the rows that an earlier fit left in the same place."""
    if some:
        with contextlib.suppress(ChipError):  # nothing there yet, or nothing that can be read
            return importance.completed_by(chipcore.load_importance(network, layer, out))
    return importance


class _Bars:
    """One progress bar a stage, on standard error when it is a terminal."""

    def __init__(self, unreadable: list[str], quiet: bool = False) -> None:
        self._unreadable = unreadable
        self._disable = True if quiet else None  # None: only where standard error is no terminal
        self._stage = ""
        self._bar: Any = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, progress: Progress) -> None:
        self._unreadable.extend(one for one in progress.unreadable if one not in self._unreadable)  # once, whatever the passes
        if progress.stage != self._stage:
            self.__exit__()
            self._stage = progress.stage
            self._bar = tqdm(
                total=progress.total, desc=progress.stage, unit="" if progress.stage != "photographs" else "photo", disable=self._disable
            )
        self._bar.update(progress.done - self._bar.n)


if __name__ == "__main__":
    sys.exit(main())
