"""The command line: ``chipcore COMMAND`` or ``python -m chipcore COMMAND``.

Every module of this package but the three named in ``_SHARED`` is a command: its name is the command's, the first
line of its docstring the command's help, and ``register(commands)`` adds its parser. Only the module of the command
that was asked for is imported, so the help appears without loading torch.

Results go to standard output, progress (on a terminal) and errors to standard error. Exit status 0, or 2 with one
line for a user's mistake.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import chipcore
from chipcore import cli
from chipcore.cli.console import Parser, add_command, detach_broken_stdout, exit_with_error, print_error, program_name
from chipcore.errors import ChipError, ImageNotice

_SHARED = {"main", "console", "common"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Examples
    --------
    >>> from chipcore.cli.main import main
    >>> main(["networks"])  # doctest: +ELLIPSIS
    efficientnet_lite0 ...
    0
    """
    # Threads that spin while they wait are ruinous on a busy machine; read by OpenMP when torch is loaded, which only a command does.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with contextlib.suppress(AttributeError, ValueError):  # a name that the terminal's encoding lacks is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for package in ("PIL", r"torch\._weights_only"):  # what they think of a file that we read or refuse
        warnings.filterwarnings("ignore", module=package)
    usual = warnings.showwarning

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        if issubclass(category, ImageNotice):
            print_error(f"note: {message}")
        else:
            usual(message, category, filename, lineno, file, line)

    warnings.simplefilter("default", ImageNotice)
    warnings.showwarning = show
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = build_parser(next((word for word in words if not word.startswith("-")), "")).parse_args(words)
        options.run(options)
        sys.stdout.flush()  # a full disk shows here, not when the program is over
        return 0
    except ChipError as error:
        return exit_with_error(str(error))
    except MemoryError:
        return exit_with_error("this machine has not enough memory for that; give fewer classes, layers or samples at once.")
    except BrokenPipeError:  # the reader (head, less) has gone
        sys.stderr.close()
        return 0
    except OSError as error:  # a folder that may not be read, a name that is too long, a full disk behind standard output
        detach_broken_stdout()
        place = error.filename or "standard output"
        return exit_with_error(f"{place}: {error.strerror or error}; check the path, its permissions and free space.")
    except KeyboardInterrupt:
        print("chipcore: interrupted.", file=sys.stderr)
        return 130
    finally:
        warnings.showwarning = usual


def command_names() -> list[str]:
    """The commands: the modules of this package, sorted by name."""
    return sorted(module.name for module in pkgutil.iter_modules(cli.__path__) if module.name not in _SHARED)


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The whole parser, or the one for ``command``: the other commands are listed in its help but not imported.

    Examples
    --------
    >>> build_parser("networks").parse_args(["networks", "--json"]).json
    True
    """
    parser = Parser(prog=program_name(), description="What a convolutional network has learned, channel by channel (CHIP).")
    parser.add_argument("--version", action="version", version=f"chipcore {chipcore.__version__}")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND", parser_class=Parser)
    for name in command_names():
        if command is None or command == name:
            importlib.import_module(f"{cli.__name__}.{name}").register(commands)
        else:
            add_command(commands, name, _docstring(name))
    return parser


def _docstring(command: str) -> str:
    """The docstring of a command's module, read without running the module."""
    return ast.get_docstring(ast.parse(Path(cli.__path__[0], f"{command}.py").read_text(encoding="utf-8"))) or ""


if __name__ == "__main__":
    sys.exit(main())
