"""What every mistake must get from the command line: status 2, one clear sentence, nothing half-written."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from chipcore import Network
from chipcore.cli import common
from chipcore.cli.main import main

SLIM = ("--network", "vgg16_slim")


real_load = common.load_network
shared = cache(real_load)


def load_once(name: str | None = None, **given: Any) -> Network:
    """``load_network`` that keeps the networks that nothing but their name is said of; for a table of a hundred commands."""
    return real_load(name, **given) if any(value is not None for key, value in given.items() if key != "device") else shared(name)


def said(arguments: Sequence[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command says, without its prefix."""
    capsys.readouterr()
    status = main([str(one) for one in arguments])
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "photographs; at most" not in line]  # what a fit says before it starts
    assert status == 2 and out == "", (status, out, err)
    assert len(lines) == 1 and lines[0].startswith("chipcore: "), err
    assert "Traceback" not in err and all(character.isprintable() for character in lines[0])
    return lines[0].removeprefix("chipcore: ")


def files_below(folder: Path) -> list[str]:
    """Everything that lies in a folder, hidden files too; not the empty file of a lock, which stays for the next one."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() and path.name != ".lock")
