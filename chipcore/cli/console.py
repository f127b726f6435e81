"""What the command line says of a mistake, and standard output that takes nothing any more."""

from __future__ import annotations

import contextlib
import os
import sys


def drop_output() -> None:
    """Where standard output takes nothing any more, Python would fail once more when it ends."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse(sentence: str) -> int:
    """Say what was wrong; the exit status."""
    tell(sentence)
    return 2


def tell(sentence: str) -> None:
    """One line on standard error, without what a terminal would take for a command."""
    shown = "".join(one if one.isprintable() else "?" for one in " ".join(sentence.split()))
    print(f"chipcore: {shown}", file=sys.stderr)
