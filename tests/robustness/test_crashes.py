"""A few of the kills of ``tests/benchmarks/crashes.py``, on real images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT


@pytest.mark.slow
def test_killed_and_resumed_to_the_same_w(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.crashes", "--times", "5", "--photographs", "42", "--json", str(tmp_path / "r.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["kills"] == 5 and found["ends"] >= 1 and found["differing"] == found["refused_or_failed"] == found["left_behind"] == 0
