"""What commands share: the network they are about, the device, progress bars, and the files they write."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from chipcore.cli.console import print_error
from chipcore.errors import SettingsError
from chipcore.networks.network import Network
from chipcore.networks.outputs import CHOICES
from chipcore.networks.registry import load_network
from chipcore.storage import write_whole

DEVICES = ("auto", "cpu", "cuda", "mps")


def positive_integer(text: str) -> int:
    """An argument that is a whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("give a whole number above 0")
    return int(text)


def count(text: str) -> int:
    """An argument that is a whole number, 0 or above."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError("give a whole number, 0 or above")
    return int(text)


def device_named(name: str) -> torch.device:
    """The device of this name; ``auto`` is the fastest that there is."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if available["cuda"] else "mps" if available["mps"] else "cpu")
    if not available[name]:
        raise SettingsError(f"this machine (or this build of torch) has no {name} device; leave --device out.")
    return torch.device(name)


def add_device_option(parser: argparse.ArgumentParser, note: str = "") -> None:
    """``--device``."""
    parser.add_argument("--device", choices=DEVICES, default="auto", help=f"{note}default: %(default)s")


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """``--network``, ``--checkpoint``, ``--labels``, the input's geometry, and ``--device``."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--network",
        metavar="N",
        help="a name from `networks`, another torchvision classifier, timm:NAME, or module:factory, "
        "a function of yours that returns the network (its module is imported, which runs its code)",
    )
    group.add_argument(
        "--checkpoint",
        type=Path,
        default=None,
        metavar="F",
        help="a state_dict (.pth, .pt, .safetensors) instead of the published weights; F.toml beside it may hold what follows",
    )
    group.add_argument("--labels", type=Path, default=None, metavar="F", help="class names: text (one a line), JSON or CSV")
    group.add_argument(
        "--size", type=int, nargs="+", default=None, metavar="PX", help="side of the network's input, or its height and width"
    )
    group.add_argument(
        "--mean", type=float, nargs="+", default=None, metavar="X", help="of the normalization, one value or three (RGB, 0 to 1)"
    )
    group.add_argument("--std", type=float, nargs="+", default=None, metavar="X", help="of the normalization, one value or three")
    group.add_argument("--fit", choices=("squash", "crop"), default=None, help="how an image is made to fit")
    group.add_argument(
        "--outputs", choices=CHOICES, default=None,
        help="what the network gives: scores, probabilities, or a probability for each of several questions or of one "
        "(default: found out; scores for a network that is known by name)",
    )  # fmt: skip
    group.add_argument("--tokens", action="store_true", help="read the patches' tokens of a transformer as maps, a channel a dimension")
    add_device_option(parser)


def load_network_from(options: argparse.Namespace) -> Network:
    """The network that the flags of :func:`add_network_options` name; raises as :func:`load_network` does."""
    from chipcore.fitting.distributed import local_device  # with torch.distributed, which most commands do not need

    network = load_network(
        options.network, checkpoint=options.checkpoint, labels=options.labels, size=options.size[0] if options.size and len(options.size) == 1 else options.size,
        mean=options.mean, std=options.std, fit=options.fit, outputs=options.outputs, reshape="tokens" if options.tokens else None,
        device=local_device(device_named(options.device)),
    )  # fmt: skip
    for note in network.notes:
        print_error(f"note: {note}.")
    return network


class ProgressBars:
    """The one adapter to tqdm: a bar for each stage, on standard error where that is a terminal.

    Parameters
    ----------
    quiet
        No bar at all, for a process that is not the first of its team.
    leave
        Whether a bar stays on the screen when it is full.
    """

    def __init__(self, *, quiet: bool = False, leave: bool = True) -> None:
        self._disable = True if quiet else None  # None: only where standard error is no terminal
        self._leave = leave
        self._stage = ""
        self._bar: Any = None

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def report(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` items of this stage; another stage than before opens a new bar."""
        if self._bar is None or stage != self._stage:
            self.__exit__()
            self._stage = stage
            self._bar = tqdm(total=total, desc=stage, disable=self._disable, leave=self._leave)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def iterate(self, stage: str, items: Sequence[Any]) -> Iterable[Any]:
        """The items one after another, each counted when the next is asked for."""
        return tqdm(items, desc=stage, disable=self._disable, leave=self._leave)

    def print(self, line: str) -> None:
        """A line on standard error, above the bar."""
        tqdm.write(line, file=sys.stderr)


def refuse_overwriting(image: Path, outputs: Mapping[str, Path | None]) -> None:
    """Raise ``SettingsError`` where a file that is to be written is the image itself."""
    for flag, file in outputs.items():
        if file is not None and file.exists() and image.exists() and file.samefile(image):
            raise SettingsError(f"{flag} is {file}, the photograph itself; give another file.")


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one array as .npy, whole or not at all."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as stream:  # a path would get .npy appended
            np.save(stream, array)

    write_whole(path, write)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as .npz, whole or not at all."""
    if path.suffix.lower() != ".npz":
        raise SettingsError(f"--out is {path}; give a file that ends in .npz.")
    named: dict[str, Any] = dict(arrays)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as stream:
            np.savez_compressed(stream, **named)

    write_whole(path, write)
