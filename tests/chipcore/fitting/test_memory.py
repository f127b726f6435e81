"""What a fit says it takes, against what it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chipcore.errors import SettingsError
from chipcore.fitting.memory import GB, estimate, fixed_memory
from chipcore.fitting.planning import ClassSlice, bytes_of
from chipcore.fitting.settings import FitSettings
from chipcore.networks import Network
from conftest import ROOT

FIT = """
import sys
from chipcore.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_samples_are_those_of_the_largest_pass(tiny: Network) -> None:
    layers, settings = [tiny.layer("early"), tiny.layer("late")], FitSettings(gates=6)
    rest = fixed_memory(tiny, layers, settings)
    each = [bytes_of(ClassSlice(layer, (0, 1, 2)), 1000, settings) for layer in layers]
    whole = estimate(tiny, layers, range(3), 1000, settings, GB)
    assert (whole.samples, whole.passes, whole.rest) == (sum(each), 1, rest)
    some = estimate(tiny, layers, range(3), 1000, settings, rest + max(each))
    assert some.passes == 2 and some.samples == max(each) and some.total <= rest + max(each)
    assert "2 passes" in some.sentence() and "passes" not in whole.sentence()


def test_too_little_is_refused_with_what_is_needed(tiny: Network) -> None:
    layers, settings = [tiny.layer("late")], FitSettings(gates=6)
    with pytest.raises(SettingsError, match=r"give --memory at least \d") as refused:
        estimate(tiny, layers, range(3), 1000, settings, 1 << 20)
    needed = float(str(refused.value).split("at least ")[1].split(",")[0])
    assert estimate(tiny, layers, range(3), 1000, settings, int(needed * GB)).passes >= 1


def test_more_gates_and_channels_take_more(lite0: Network) -> None:
    few, many = (fixed_memory(lite0, [lite0.layer("head")], FitSettings(gates=gates)) for gates in (10, 400))
    assert few < many
    assert fixed_memory(lite0, [lite0.layer("stage3")], FitSettings(gates=10)) < many


@pytest.mark.parametrize("layer", ["head", "stage2"])
def test_a_fit_stays_within_what_it_states(layer: str, data: Path, tmp_path: Path) -> None:
    """In a process of its own, on real images: the peak that the system saw, and no wild overstatement."""
    arguments = [
        "fit", "--network", "efficientnet_lite0", "--layers", layer, "--images", str(data / "classes"), "--photos-per-class", "1",
        "--gates", "2", "--classes", "zebra", "tiger", "--out", str(tmp_path), "--json", "--memory", "3",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", FIT, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["memory_peak"] <= answer["memory_stated"] <= 3 * GB
    assert "at most" in done.stderr.splitlines()[0], "it is said before the run"
