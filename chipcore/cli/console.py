"""Parsers, error reporting and broken-pipe handling for the command line; loads nothing but the standard library."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from chipcore.errors import ChipError


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are :class:`ChipError`, reported like every other mistake of the user."""

    def error(self, message: str) -> NoReturn:
        raise ChipError(f"{message}; see {self.prog} --help.")


def program_name() -> str:
    """How the user called the program: ``chipcore`` where it is installed, else ``python -m chipcore``."""
    return "chipcore" if Path(sys.argv[0]).stem == "chipcore" else "python -m chipcore"


def add_command(commands: Any, module: str, doc: str | None) -> argparse.ArgumentParser:
    """Add the sub-command of a module of ``chipcore.cli``.

    Parameters
    ----------
    commands
        What ``add_subparsers`` returned.
    module
        The module's ``__name__``; its last part is the command's name.
    doc
        The module's docstring; its first line is the command's help.

    Examples
    --------
    >>> commands = Parser(prog="chipcore").add_subparsers()
    >>> add_command(commands, "chipcore.cli.fit", "Learn W from a folder of images.").prog
    'chipcore fit'
    """
    sentence = (doc or "").strip().splitlines()[0]
    parser: argparse.ArgumentParser = commands.add_parser(
        module.rpartition(".")[2], help=sentence[0].lower() + sentence[1:].removesuffix("."), description=sentence
    )
    return parser


def print_error(sentence: str) -> None:
    """Print one line on standard error, without what a terminal would take for a command."""
    shown = "".join(character if character.isprintable() else "?" for character in " ".join(sentence.split()))
    print(f"chipcore: {shown}", file=sys.stderr)


def exit_with_error(sentence: str) -> int:
    """Print what was wrong; returns the exit status of a user's mistake."""
    print_error(sentence)
    return 2


def detach_broken_stdout() -> None:
    """Point standard output at nothing where it takes nothing any more: Python would fail once more when it ends."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
