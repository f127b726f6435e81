"""torchvision imports with and without its compiled extension."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from chipcore.networks import torchvision_import

USE = """
from chipcore.networks import torchvision_import
model = torchvision_import.models.squeezenet1_0()
assert torchvision_import.models.get_model_weights("squeezenet1_0").DEFAULT.url
print(torchvision_import.declare_missing_operators())
"""


def run(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()


def test_without_the_extension_the_operators_are_declared() -> None:
    refuse = "import torch\ndef refuse(path): raise OSError('built for another torch')\ntorch.ops.load_library = refuse\n"
    assert run(refuse + USE) == "True"


def test_where_the_extension_loads_nothing_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(torch.ops, "load_library", asked.append)
    monkeypatch.setattr(torchvision_import, "_library", None)
    monkeypatch.setattr(torch.library, "Library", lambda *_: pytest.fail("declared operators that exist"))
    assert torchvision_import.extension_loads() and asked[0].name.startswith("_C")
    assert torchvision_import.declare_missing_operators() is False


def test_a_plain_import_dies_here_and_ours_does_not() -> None:
    """The reason for the module."""
    plain = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
    if plain.returncode == 0:
        pytest.skip("this torchvision's extension fits this torch")
    assert "nms does not exist" in plain.stderr
    assert run(USE) == "True"


def test_threads_that_ask_at_once_declare_once() -> None:
    """Four visitors who add a network as the first: one used to see a RuntimeError."""
    together = """
import threading, torch
def refuse(path): raise OSError('built for another torch')
torch.ops.load_library = refuse
from chipcore.networks import torchvision_import
real = torch.library.Library
def slowly(*given):
    import time
    time.sleep(0.05)
    return real(*given)
torch.library.Library = slowly
told = []
threads = [threading.Thread(target=lambda: told.append(torchvision_import.declare_missing_operators())) for _ in range(4)]
[one.start() for one in threads], [one.join() for one in threads]
print(told)
"""
    assert run(together) == str([True] * 4)
