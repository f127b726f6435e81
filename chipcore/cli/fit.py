"""Learn W from a folder of images."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from chipcore.cli.common import ProgressBars, add_network_options, load_network_from, positive_integer
from chipcore.cli.console import add_command, print_error
from chipcore.datasets.image_set import ImageSet
from chipcore.datasets.sources import open_images
from chipcore.errors import ChipError, DataError, SettingsError
from chipcore.fitting.distributed import Shard, team
from chipcore.fitting.memory import GB, estimate, keep_freed_memory, peak_of_process
from chipcore.fitting.pipeline import Progress, fit
from chipcore.fitting.settings import FitSettings
from chipcore.fitting.shards import fit_shard
from chipcore.gating.gates import Draw, Generator
from chipcore.importance import Importance, load_importance
from chipcore.networks import Network
from chipcore.storage import BUNDLED_IMPORTANCE, check_writable, fitted_importance, locked

MAX_MEMORY_GB = 1e6


def register(commands: Any) -> None:
    """Add ``fit`` to the command line."""
    parser = add_command(commands, __name__, __doc__)
    add_network_options(parser)
    add = parser.add_argument
    add(
        "--layers",
        nargs="+",
        required=True,
        metavar="L",
        help="layer names or module paths, all fitted in one pass; 'all' for every named layer",
    )
    add(
        "--images", nargs="+", required=True, metavar="DIR",
        help="folders of photographs, flat or with class folders; tar files, as in 'shards-{000..127}.tar'; or a data set of Hugging Face on disk",
    )  # fmt: skip
    add("--classes", nargs="+", default=(), metavar="C", help="fit only these rows: index, synset or name (default: all)")
    add("--photos-per-class", type=positive_integer, default=0, metavar="P", help="use at most P photographs of each class folder")
    add("--gates", type=int, default=100, metavar="N", help="gate samples a photograph (default: %(default)s)")
    add("--target", choices=("score", "probability"), default="score", help="what the gated prediction is (default: %(default)s)")
    add("--draw", choices=get_args(Draw), default="uniform", help="how gates are drawn (default: %(default)s, the paper's)")
    add(
        "--generator", choices=get_args(Generator), default="numpy",
        help="what draws them; 'device' is faster on a GPU and draws other gates (default: %(default)s)",
    )  # fmt: skip
    add("--sigma2", type=float, default=None, metavar="X", help="sigma^2 of the proximity, Eq. 8 (default: number of channels)")
    add(
        "--lambda-ratio",
        type=float,
        default=FitSettings.lambda_ratio,
        metavar="R",
        help="lambda as a share of the one that gives W = 0 (default: %(default)s)",
    )
    add(
        "--pooled-share", "--background", dest="pooled_share", type=float, default=FitSettings.pooled_share, metavar="B",
        help="share that all photographs alike have in every class's sums; 0 is the paper's Eq. 11 (default: %(default)s)",
    )  # fmt: skip
    add(
        "--pooled-gates", type=int, default=FitSettings.pooled_gates, metavar="N",
        help="gate samples of a photograph that enter those sums; 0 is all (default: %(default)s)",
    )  # fmt: skip
    add(
        "--own-evidence", type=float, default=FitSettings.own_evidence, metavar="E",
        help="rows with fewer photographs' worth of evidence are learned from all photographs alike (default: %(default)s)",
    )  # fmt: skip
    add(
        "--contrast", type=float, default=FitSettings.contrast, metavar="KAPPA",
        help="a second W is kept for the target g - KAPPA log sum exp(g), which tells classes apart; 0 leaves it out (default: %(default)s)",
    )  # fmt: skip
    add(
        "--intercept", action=argparse.BooleanOptionalAction, default=FitSettings.intercept,
        help="a constant beside W z; the paper's Eq. 11 has none (default: %(default)s)",
    )  # fmt: skip
    add("--precision", choices=("float32", "bfloat16"), default="float32", help="of the gated predictions (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the gates (default: %(default)s)")
    add(
        "--memory",
        type=float,
        default=6.0,
        metavar="GB",
        help="what this process may take at its peak; more layers go in further passes (default: %(default)s)",
    )
    add(
        "--shard", metavar="I/N",
        help="take the I-th of N parts of the photographs and leave moments in --out, for `merge`; 'slurm' reads the job array's variables",
    )  # fmt: skip
    add("--resume", action="store_true", help="go on from the checkpoints of an interrupted fit with the same --out")
    add("--out", type=Path, default=None, metavar="DIR", help="where W goes (default: the cache folder, where explain and the app find it)")
    add("--half", action="store_true", help="keep W in half precision")
    add("--json", action="store_true", help="machine-readable result")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Fit W, save it with the rows that were there before, and print a line for each layer."""
    keep_freed_memory()
    if not 0 < options.memory < MAX_MEMORY_GB:
        raise SettingsError(f"--memory is {options.memory}; give the GB that this process may take.")
    settings = FitSettings(
        gates=options.gates,
        target=options.target,
        draw=options.draw,
        generator=options.generator,
        sigma2=options.sigma2,
        lambda_ratio=options.lambda_ratio,
        pooled_share=options.pooled_share,
        pooled_gates=options.pooled_gates,
        own_evidence=options.own_evidence,
        contrast=options.contrast,
        intercept=options.intercept,
        seed=options.seed,
        precision=options.precision,
    )
    network = load_network_from(options)
    layers = [layer.name for layer in network.layers] if options.layers == ["all"] else options.layers
    images = open_images(options.images).per_folder(options.photos_per_class)
    if options.shard is not None:
        _fit_shard(options, network, images, layers, settings)
        return
    out = options.out or fitted_importance()
    unreadable = list(images.closed)
    chosen = [network.layer(layer) for layer in layers]
    wanted = [network.classes.index(one) for one in options.classes] or range(len(network.classes))
    need = estimate(network, chosen, wanted, len(images), settings, int(options.memory * GB))
    checkpoints = out / "checkpoints" / network.name.replace("/", "_")
    start = time.perf_counter()
    with team(network.device) as ours:
        if ours.rank == 0:
            check_writable(out)
            each = " a process" if ours.size > 1 else ""
            print(f"chipcore: {len(images)} photographs; {need.sentence()}{each}", file=sys.stderr, flush=True)
        with ProgressBars(quiet=ours.rank > 0) as bars:

            def report(progress: Progress) -> None:
                unreadable.extend(sentence for sentence in progress.unreadable if sentence not in unreadable)  # once, whatever the passes
                bars.report(progress.stage, progress.done, progress.total)

            fitted = fit(
                network, layers, images, settings, classes=options.classes, progress=report, memory=need.samples,
                checkpoints=checkpoints, resume=options.resume, keep_checkpoints=True, team=ours,
            )  # fmt: skip
        if ours.rank > 0:
            return
    if not any(bool((one.support > 0).any()) for one in fitted.values()):
        shutil.rmtree(checkpoints, ignore_errors=True)
        raise DataError(_why_no_rows(fitted, network, settings))
    with locked(out, wait=True):  # another fit may add its rows to the same W
        files = {
            name: _with_other_rows(one, network, name, out, bool(options.classes)).save(out, half=options.half)
            for name, one in fitted.items()
        }
    shutil.rmtree(checkpoints, ignore_errors=True)  # only now: where W could not be written, --resume still has them
    with contextlib.suppress(OSError):  # another fit's checkpoints may be beside ours
        (out / "checkpoints").rmdir()
    seconds = time.perf_counter() - start
    results = [layer_row(name, importance, files[name]) for name, importance in fitted.items()]
    for sentence in unreadable:
        print_error(f"left out: {sentence}")
    for name, importance in fitted.items():
        _tell_shadowed(importance, network, name, out)
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
    print_layers(results)


def _fit_shard(options: argparse.Namespace, network: Network, images: ImageSet, layers: list[str], settings: FitSettings) -> None:
    """Leave the moments of one shard, and say what to do when all are there."""
    if options.out is None:
        raise SettingsError("--shard leaves moments that are merged later; give --out, a folder for them.")
    shard = Shard.parse(options.shard)
    share = shard.share(images.names)
    rows = [network.classes.index(one) for one in options.classes] or range(len(network.classes))
    need = estimate(network, [network.layer(one) for one in layers], rows, len(share), settings, int(options.memory * GB))
    unreadable = list(images.closed)
    with team(network.device) as ours:
        if ours.rank == 0:
            check_writable(options.out)
            print(f"chipcore: shard {shard}, {len(share)} of {len(images)} photographs; {need.sentence()}", file=sys.stderr, flush=True)
        with ProgressBars(quiet=ours.rank > 0) as bars:

            def report(progress: Progress) -> None:
                unreadable.extend(sentence for sentence in progress.unreadable if sentence not in unreadable)
                bars.report(progress.stage, progress.done, progress.total)

            folder = fit_shard(
                network, layers, images, settings, shard=shard, out=options.out, classes=options.classes, progress=report, memory=need.samples,
                resume=options.resume, team=ours,
            )  # fmt: skip
        if ours.rank > 0:
            return
    for sentence in unreadable:
        print_error(f"left out: {sentence}")
    if options.json:
        print(json.dumps({"shard": str(shard), "photographs": len(share), "unreadable": unreadable, "folder": str(folder)}, indent=2))
    else:
        print(f"shard {shard}: moments of {len(share)} photographs in {folder}; when all are there: chipcore merge {options.out} --out W")


def layer_row(name: str, importance: Importance, file: Path) -> dict[str, Any]:
    """What is told of a layer's W."""
    rows = importance.support > 0
    r2 = importance.r2[rows & ~importance.r2.isnan()]
    return {
        "layer": name, "channels": importance.W.shape[1], "rows": int(rows.sum()), "weak_rows": sum(importance.evidence(int(c)) == "weak" for c in rows.nonzero()),
        "median_r2": round(float(r2.median()), 4) if len(r2) else None, "median_support": int(importance.support[rows].float().median()) if rows.any() else 0,
        "file": str(file),
    }  # fmt: skip


def print_layers(results: Sequence[dict[str, Any]]) -> None:
    """A table of what :func:`layer_row` says."""
    print(f"{'layer':<12}{'channels':>9}{'rows':>6}{'weak':>6}{'median R2':>11}{'median support':>16}  file")
    for row in results:
        r2_text = "-" if row["median_r2"] is None else f"{row['median_r2']:.3f}"
        print(
            f"{row['layer']:<12}{row['channels']:>9}{row['rows']:>6}{row['weak_rows']:>6}{r2_text:>11}{row['median_support']:>16}  {row['file']}"
        )


def _tell_shadowed(importance: Importance, network: Network, layer: str, out: Path) -> None:
    """Say where what ships is better founded than this fit, and so stays in use."""
    if out.resolve() != fitted_importance().resolve():
        return
    try:
        shipped = load_importance(network, layer, BUNDLED_IMPORTANCE)
    except ChipError:  # nothing ships for this network
        return
    classes = importance.shadowed_by(shipped)
    if classes:
        named = ", ".join(network.classes.labels[c] for c in classes[:3]) + (", ..." if len(classes) > 3 else "")
        print_error(
            f"note: at {layer} the W that ships has better founded rows of {len(classes)} of these classes ({named}), which stay in use; "
            f"give --importance {out} to use yours."
        )


def _why_no_rows(fitted: dict[str, Importance], network: Network, settings: FitSettings) -> str:
    """Why W has no row at all, and what to do."""
    evidence = next(iter(fitted.values())).evidence_mass
    best = int(evidence.argmax())
    most = f"the most is {float(evidence[best]):.2g} photographs' worth, of {network.classes.labels[best]}"
    if float(evidence[best]) >= settings.min_evidence:
        return f"no row of W could be learned: no score reacts to the channels of {', '.join(fitted)} in these photographs; choose other layers."
    return (
        f"no row of W could be learned: the photographs hold too little of the classes asked for ({most}; a row takes "
        f"{settings.min_evidence:g}); give photographs of them, or --outputs if {network.name} gives something else than {network.outputs}."
    )


def _with_other_rows(importance: Importance, network: Network, layer: str, out: Path, some: bool) -> Importance:
    """After a fit of some classes, W keeps the rows that an earlier fit left in the same place."""
    if some:
        with contextlib.suppress(ChipError):  # nothing there yet, or nothing that can be read
            return importance.completed_by(load_importance(network, layer, out))
    return importance
