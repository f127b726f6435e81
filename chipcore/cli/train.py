"""Train a small VGG16 on class folders."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from chipcore.cli.common import ProgressBars, add_device_option, device_named
from chipcore.cli.console import add_command, print_error
from chipcore.errors import SettingsError
from chipcore.fitting.memory import keep_freed_memory
from chipcore.networks import REGISTRY
from chipcore.training.evaluation import evaluate
from chipcore.training.photographs import find_classes
from chipcore.training.saved import write_json
from chipcore.training.settings import TrainSettings
from chipcore.training.trainer import Progress, train

_DEFAULT = TrainSettings()


def register(commands: Any) -> None:
    """Add ``train`` to the command line."""
    parser = add_command(commands, __name__, __doc__)
    parser.add_argument("--images", type=Path, required=True, metavar="TRAIN", help="a folder with one folder of photographs a class")
    parser.add_argument(
        "--validation", type=Path, default=None, metavar="VAL", help="class folders to measure the result on, never trained on"
    )
    parser.add_argument("--epochs", type=int, default=_DEFAULT.epochs, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--size", type=int, default=_DEFAULT.size, metavar="S", help="side of the network's input in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--width", type=int, default=_DEFAULT.width, metavar="W", help="channels of the first block; VGG16 has 64 (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=_DEFAULT.batch, metavar="B", help="photographs a step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=_DEFAULT.learning_rate, metavar="R", help="default: %(default)s")
    parser.add_argument(
        "--cooldown",
        type=float,
        default=_DEFAULT.cooldown,
        metavar="S",
        help="share of the epochs in which the learning rate falls (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=_DEFAULT.seed, help="default: %(default)s")
    parser.add_argument(
        "--teacher", choices=tuple(REGISTRY), default="", metavar="N", help="a pretrained network to learn from, such as efficientnet_lite0"
    )
    parser.add_argument(
        "--flatten", action="store_true", help="fc6, fc7 and fc8 behind flattened maps, as in VGG16, in place of a global average"
    )
    parser.add_argument("--dropout", type=float, default=_DEFAULT.dropout, metavar="P", help="default: %(default)s")
    parser.add_argument(
        "--balance",
        type=float,
        default=_DEFAULT.balance,
        metavar="B",
        help="1: every photograph is drawn alike; 0: every class (default: %(default)s)",
    )
    parser.add_argument(
        "--unlabeled",
        type=float,
        default=_DEFAULT.unlabeled,
        metavar="S",
        help="share of the draws from the folder 'unlabeled', of which only a teacher knows something (default: %(default)s)",
    )
    parser.add_argument("--start", default="", metavar="N", help="begin with the convolutions of this network, such as vgg16_slim")
    parser.add_argument(
        "--frozen",
        type=int,
        default=_DEFAULT.frozen,
        metavar="B",
        help="blocks of --start that keep its weights, 0 to 4 (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where weights, facts and checkpoints go")
    parser.add_argument("--name", default="vgg16_slim", help="of the files in --out (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    add_device_option(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable result")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train, measure on ``--validation``, and print what came out."""
    keep_freed_memory()
    if not options.name or Path(options.name).name != options.name or options.name.startswith("."):
        raise SettingsError(f"--name is {options.name!r}; give a file name without folders.")
    settings = TrainSettings(
        epochs=options.epochs, size=options.size, width=options.width, seed=options.seed, batch=options.batch,
        learning_rate=options.learning_rate, teacher=options.teacher, flatten=options.flatten, dropout=options.dropout,
        balance=options.balance, unlabeled=options.unlabeled, start=options.start, frozen=options.frozen, cooldown=options.cooldown,
    )  # fmt: skip
    if options.validation is not None:  # a mistake in it should not show after an hour of training
        find_classes(options.validation, find_classes(options.images).classes)
    with ProgressBars(leave=False) as bars:

        def report(progress: Progress) -> None:
            if progress.line:  # of an epoch that has ended; also where there is no terminal
                bars.print(progress.line)
            else:
                bars.report(progress.stage, progress.done, progress.total)

        trained = train(
            options.images,
            settings,
            options.out,
            name=options.name,
            resume=options.resume,
            device=device_named(options.device),
            progress=report,
        )
        facts = trained.facts
        result: dict[str, Any] = {
            "weights": str(trained.weights), "weights_sha256": trained.network.weights_sha256, "bytes": trained.weights.stat().st_size, "parameters": sum(p.numel() for p in trained.network.model.parameters()),
            "photographs": facts["photographs"], "seconds": facts["seconds"], "cpu_seconds": facts["cpu_seconds"], "command": _command(options), "threads": torch.get_num_threads(),
            "settings": facts["settings"], "history": facts["history"], "unreadable": facts["unreadable"],
        }  # fmt: skip
        if options.validation is not None:
            measured = evaluate(trained.network, options.validation, tuple(facts["classes"]), bars.report)
            result["validation"] = measured.as_dict()
    for sentence in [*facts["unreadable"], *(measured.unreadable if options.validation is not None else ())]:
        print_error(f"left out: {sentence}")
    write_json(options.out / f"{options.name}.result.json", result)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(
        f"{trained.weights}: {result['parameters']:,} weights, {len(facts['classes'])} classes, {facts['photographs']} photographs, {facts['seconds']:.0f} s"
    )
    if options.validation is not None:
        print(f"top-1 on {int(measured.confusion.sum())} photographs of {options.validation}: {measured.top1:.1%}")
        for true, taken, count in measured.worst(5):
            print(f"    {count:>3} {true} taken for {taken}")


def _command(options: argparse.Namespace) -> str:
    """The command that makes these weights again, wherever the images lie."""
    words = ["python -m chipcore train", f"--images {options.images}"]
    if options.validation is not None:
        words.append(f"--validation {options.validation}")
    words += [f"--epochs {options.epochs}", f"--size {options.size}", f"--width {options.width}", f"--batch {options.batch}"]
    words += [f"--learning-rate {options.learning_rate}", f"--seed {options.seed}"]
    if options.teacher:
        words.append(f"--teacher {options.teacher}")
    if options.flatten:
        words.append("--flatten")
    if options.start:
        words.append(f"--start {options.start}")
    words += [
        f"--{word} {getattr(options, word)}"
        for word in ("frozen", "cooldown", "dropout", "balance", "unlabeled")
        if getattr(options, word) != getattr(_DEFAULT, word)
    ]
    return " ".join([*words, f"--name {options.name}", f"--out {options.out}"])
