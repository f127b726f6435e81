"""The protocols: every module of this package that measures something registers how it is asked for and shown.

Adding a measure takes one file: a module that calls :func:`register` with a :class:`Protocol`. The command line,
the table and the JSON take what they need from there.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from chipcore import evaluation
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.images import Progress
from chipcore.evaluation.results import Result

ProgressOf = Callable[[str], Progress]  # a progress bar for what is counted: 'photographs', 'mosaics'


class Column(NamedTuple):
    """A column of the table: its heading, the figure's name in the JSON, and whether it is a share, shown in percent."""

    title: str
    figure: str
    percent: bool = True


SECONDS = Column("s/image", "seconds_per_image", False)


def _nothing(*_: Any) -> Iterable[str]:
    return ()


def _never(_: argparse.Namespace) -> bool:
    return False


@dataclass(frozen=True)
class Protocol:
    """A way to measure maps.

    Attributes
    ----------
    name
        The word after ``chipcore evaluate``, and ``protocol`` in the JSON.
    help
        One line for the command line's help.
    run
        Measures: from the parsed options, the methods and a maker of progress bars to the result and the
        fingerprint of the data.
    columns
        The table's columns; those that no method has a figure for are left out.
    main
        The figure whose difference to the baseline the table shows.
    add_options
        Adds the flags that this protocol alone has.
    check
        Raises ``SettingsError`` for options that don't go together, before anything is loaded.
    needs_data
        Whether ``--data`` must be given.
    takes_archives
        Whether ``--data`` may be tar files, for options that need no annotations beside the images.
    unit
        What is counted, in the plural.
    command
        False for what is reached through another protocol's flags.
    intro, details
        Further lines of the table: below its title, from the result; below a layer's rows, from the layer.
    """

    name: str
    help: str
    run: Callable[[argparse.Namespace, MethodSet, ProgressOf], tuple[Result, str]]
    columns: tuple[Column, ...]
    main: str
    add_options: Callable[[argparse.ArgumentParser], object] = _nothing
    check: Callable[[argparse.Namespace], object] = _nothing
    needs_data: bool = True
    takes_archives: Callable[[argparse.Namespace], bool] = _never
    unit: str = "photographs"
    command: bool = True
    intro: Callable[[dict[str, Any]], Iterable[str]] = _nothing
    details: Callable[[dict[str, Any]], Iterable[str]] = _nothing


_PROTOCOLS: dict[str, Protocol] = {}


def register(protocol: Protocol) -> Protocol:
    """Add a protocol; a module of this package calls it once when it is imported."""
    _PROTOCOLS[protocol.name] = protocol
    return protocol


def protocols() -> dict[str, Protocol]:
    """Every protocol by its name.

    Examples
    --------
    >>> sorted(name for name, one in protocols().items() if one.command)
    ['faithfulness', 'localization', 'pointing', 'segmentation']
    """
    for module in pkgutil.iter_modules(evaluation.__path__):
        importlib.import_module(f"{evaluation.__name__}.{module.name}")
    return dict(sorted(_PROTOCOLS.items()))


def whole_number(text: str) -> int:
    """An option that is a whole number, 0 or above."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError("give a whole number, 0 or above")
    return int(text)


def format_value(value: float | None, percent: bool) -> str:
    """A figure of the table."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if percent else f"{value:.3f}"


def format_difference(compared: dict[str, Any], figure: str, percent: bool) -> str:
    """The difference of a figure to the baseline with its interval; empty where there is none."""
    one = compared.get(figure)
    if one is None:
        return ""
    scale, digits = (100, 1) if percent else (1, 3)
    return f"{scale * one['difference']:+.{digits}f} [{scale * one['low']:+.{digits}f}, {scale * one['high']:+.{digits}f}]"
