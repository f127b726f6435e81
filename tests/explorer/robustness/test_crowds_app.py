"""A short crowd of the running app, and one long session: ``tests/benchmarks/crowds_app.py`` is the long crowd."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks import crowds_app
from tests.helpers.visitor import Visitor, serving


@pytest.mark.slow
def test_four_visitors_with_four_networks_see_what_is_theirs(data: Path) -> None:
    result = crowds_app.run(4, 1, data, slow=False)
    assert not crowds_app.bad(result)
    assert len(result["networks"]) == 4 and result["computed_alone"] == result["different_maps"] > 0


@pytest.mark.slow
def test_two_hundred_interactions_leave_no_hooks_and_little_memory(tmp_path: Path) -> None:
    """Two visitors with different networks, one of whom clicks two hundred times."""
    told = tmp_path / "told.json"
    command = [sys.executable, "-m", "tests.benchmarks.watched_server", str(told)]
    with serving(tmp_path / "log.txt", command, CHIP_CACHE=str(tmp_path / "cache")) as (address, _process):
        with Visitor(address) as other, Visitor(address) as visitor:
            theirs = other.open("", model="efficientnet_lite0").pictures()
            visitor.open("", model="vgg16_slim")
            layers = [one.content for one in visitor.widget("layer").options]
            memory = []
            for number in range(200):
                if number % 50 == 0:
                    visitor.open(("", "compare", "localize", "learn")[number // 50], model="vgg16_slim")
                    memory.append(json.loads(told.read_text())["memory_gb"])
                visitor.set({"layer": layers[number % len(layers)]})
                if visitor.exceptions():
                    pytest.fail(str(visitor.exceptions()))
            assert other.again().pictures() == theirs, "what the other does changes nothing"
        time.sleep(1.1)
        last = json.loads(told.read_text())
    assert last["hooks"] == 0
    assert last["memory_gb"] - memory[0] < 0.6, memory
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
