"""A fit that is killed and resumed gives the W of one that was not, bit for bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import chipcore
from chipcore.errors import ChipError
from chipcore.fitting.accumulate import LayerSums
from chipcore.fitting.checkpoint import Checkpoint, Cursor
from chipcore.fitting.pipeline import Progress
from chipcore.fitting.planning import ClassSlice
from chipcore.fitting.settings import FitSettings
from chipcore.networks import Network
from conftest import ROOT, tiny_network

SETTINGS = FitSettings(gates=4, held_out=0.2, pooled_share=0.5, pooled_gates=0, own_evidence=0.5)
MEMORY = 1  # two passes, one a layer, so that a kill can fall between them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(130):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(root / f"{i:03}.png")
    return root


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> torch.Tensor:
    return chipcore.fit(tiny_network(), ["early", "late"], folder, SETTINGS, memory=MEMORY)["late"].W


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
import chipcore
from conftest import tiny_network
from test_checkpoint import MEMORY, SETTINGS
folder, saved, out = map(Path, sys.argv[1:4])
fitted = chipcore.fit(tiny_network(), ["early", "late"], folder, SETTINGS, memory=MEMORY,
                      checkpoints=saved, resume=True, checkpoint_seconds=0, progress=lambda p: print(p.stage, p.done, flush=True))
torch.save(fitted["late"].W, out)
"""


def start(folder: Path, saved: Path, out: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{Path(__file__).parent}"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(saved), str(out)], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_killed_at_random_moments_and_resumed(folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    assert start(folder, tmp_path / "a", whole).wait(120) == 0
    dice = random.Random(0)
    saved, out = tmp_path / "b", tmp_path / "out.pt"
    progressed = set()
    for _ in range(3):
        process = start(folder, saved, out)
        assert process.stdout is not None
        for _line in range(dice.randint(1, 4)):  # some batches on from where the last one died
            progressed.add(process.stdout.readline())
        time.sleep(dice.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert list(saved.glob("moments-0-*.npz")), "there is something to resume from"
    assert len(progressed) > 3, "every run went on from the last, none began again"
    assert start(folder, saved, out).wait(120) == 0
    assert torch.equal(torch.load(out, weights_only=True), torch.load(whole, weights_only=True))
    assert not saved.exists(), "a finished run leaves no checkpoints"


class Stop(Exception):
    pass


@pytest.mark.parametrize("batches", [1, 8, 9, 10, 17])
def test_interrupted_between_any_batches(folder: Path, unbroken: torch.Tensor, tmp_path: Path, batches: int) -> None:
    count = 0

    def stop(progress: Progress) -> None:
        nonlocal count
        count += progress.stage == "photographs"
        if count > batches:
            raise Stop

    given = {"memory": MEMORY, "checkpoints": tmp_path / "c", "checkpoint_seconds": 0.0}
    with pytest.raises(Stop):
        chipcore.fit(tiny_network(), ["early", "late"], folder, SETTINGS, progress=stop, **given)
    resumed = chipcore.fit(tiny_network(), ["early", "late"], folder, SETTINGS, resume=True, **given)["late"].W
    assert torch.equal(resumed, unbroken)


def interrupted(folder: Path, network: Network, checkpoints: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.done > 40:
            raise Stop

    with pytest.raises(Stop):
        chipcore.fit(network, ["late"], folder, SETTINGS, checkpoints=checkpoints, checkpoint_seconds=0, progress=stop)


def test_a_changed_run_refuses_to_resume(folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    interrupted(folder, tiny_network(), saved)
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for file in sorted(folder.iterdir())[:60]:
        (fewer / file.name).write_bytes(file.read_bytes())
    late = ["late"]
    for sentence, arguments, more in (
        ("the settings changed", (tiny_network(), late, folder, FitSettings(gates=5, held_out=0.2)), {}),
        ("the network's weights changed", (tiny_network(seed=1), late, folder, SETTINGS), {}),
        ("the layers changed", (tiny_network(), ["early"], folder, SETTINGS), {}),
        ("the photographs changed", (tiny_network(), late, fewer, SETTINGS), {}),
        ("the classes changed", (tiny_network(), late, folder, SETTINGS), {"classes": [1]}),
    ):
        with pytest.raises(ChipError, match=sentence):
            chipcore.fit(*arguments, checkpoints=saved, resume=True, **more)
    assert list(saved.glob("*.npz")), "refusing loses nothing"


def test_beginning_again_forgets_the_old_run(folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    interrupted(folder, tiny_network(seed=1), saved)
    interrupted(folder, tiny_network(), saved)  # without resume: another network is no obstacle
    alone = chipcore.fit(tiny_network(), ["late"], folder, SETTINGS)["late"].W
    assert torch.equal(chipcore.fit(tiny_network(), ["late"], folder, SETTINGS, checkpoints=saved, resume=True)["late"].W, alone)


def test_a_damaged_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    interrupted(folder, tiny_network(), saved)
    [file] = saved.glob("*.npz")
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    for broken in (bytes(whole), bytes(whole[:100]), b""):
        file.write_bytes(broken)
        with pytest.raises(ChipError, match="damaged"):
            chipcore.fit(tiny_network(), ["late"], folder, SETTINGS, checkpoints=saved, resume=True)


def test_a_checkpoint_of_an_earlier_version_is_refused(folder: Path, tmp_path: Path) -> None:
    """Format 1 held a Gram for every class; nothing of it can be gone on with."""
    saved = tmp_path / "saved"
    interrupted(folder, tiny_network(), saved)
    [file] = saved.glob("*.npz")
    with np.load(file) as whole:
        arrays = dict(whole)
    about = json.loads(arrays["about"].tobytes())
    about["run"]["format"] = 1
    np.savez(file, **{**arrays, "about": np.frombuffer(json.dumps(about).encode(), np.uint8)})
    with pytest.raises(ChipError, match="the format of checkpoints changed since .* leave --resume out"):
        chipcore.fit(tiny_network(), ["late"], folder, SETTINGS, checkpoints=saved, resume=True)


def test_a_failed_write_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = LayerSums.empty(ClassSlice(tiny_network().layer("late"), (0, 1)), SETTINGS)
    checkpoint = Checkpoint(tmp_path, {"network": "a"})
    checkpoint.write(Cursor(batches=1), [sums], {})
    monkeypatch.setattr(np, "savez", lambda *_args, **_kwargs: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ChipError, match="No space left"):
        checkpoint.write(Cursor(batches=2), [sums], {})
    assert checkpoint.read(0)[0].batches == 1


DISTRIBUTED = """
import os, sys, time, torch
torch.set_num_threads(1)
from pathlib import Path
import chipcore
from chipcore.fitting.distributed import team
from conftest import tiny_network
from test_checkpoint import MEMORY, SETTINGS
place = Path(sys.argv[2])
def slowly(progress):
    time.sleep(0.05)  # leaves time to be killed
with team(torch.device("cpu")) as ours:
    (place / f"{ours.rank}.pid").write_text(str(os.getpid()))
    fitted = chipcore.fit(tiny_network(), ["early", "late"], Path(sys.argv[1]), SETTINGS, memory=MEMORY, checkpoints=place / "c",
                          resume=True, checkpoint_seconds=0, progress=slowly, team=ours)
    if ours.rank == 0:
        torch.save(fitted["late"].W, place / "w.pt")
"""


def start_team(folder: Path, place: Path) -> subprocess.Popen[str]:
    """Two processes under torchrun; W goes to ``w.pt`` in ``place``, every process's id to ``<rank>.pid``."""
    script = place / "run.py"
    script.write_text(DISTRIBUTED)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(folder), str(place)]
    return subprocess.Popen(run, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_lost_worker_is_told_and_the_rest_resumes(folder: Path, unbroken: torch.Tensor, tmp_path: Path) -> None:
    run = start_team(folder, tmp_path)
    mine = tmp_path / "1.pid"
    deadline = time.monotonic() + 120
    while not (mine.exists() and list((tmp_path / "c").glob("moments-1-*.npz"))):
        assert run.poll() is None and time.monotonic() < deadline, "it should have got to its first checkpoint"
        time.sleep(0.01)
    os.kill(int(mine.read_text()), signal.SIGKILL)
    _out, told = run.communicate(timeout=120)
    assert run.returncode != 0
    assert "run the same command again with --resume" in told
    assert not (tmp_path / "w.pt").exists()
    again = start_team(folder, tmp_path)
    _out, told = again.communicate(timeout=180)
    assert again.returncode == 0, told[-2000:]
    torch.testing.assert_close(torch.load(tmp_path / "w.pt", weights_only=True), unbroken, rtol=0, atol=1e-6 * float(unbroken.abs().max()))


def test_two_processes_give_the_w_of_one(folder: Path, unbroken: torch.Tensor, tmp_path: Path) -> None:
    run = start_team(folder, tmp_path)
    _out, told = run.communicate(timeout=180)
    assert run.returncode == 0, told[-2000:]
    together = torch.load(tmp_path / "w.pt", weights_only=True)
    torch.testing.assert_close(together, unbroken, rtol=0, atol=1e-6 * float(unbroken.abs().max()))


def test_a_resumed_run_names_what_was_unreadable_before(folder: Path, tmp_path: Path) -> None:
    spoilt = shutil.copytree(folder, tmp_path / "photographs")
    (spoilt / "001.png").write_bytes(b"no photograph")
    (spoilt / "129.png").write_bytes(b"no photograph")
    named: list[str] = []

    def stop(progress: Progress) -> None:
        if progress.done > 40:
            raise Stop

    given = {"checkpoints": tmp_path / "c", "checkpoint_seconds": 0.0}
    with pytest.raises(Stop):
        chipcore.fit(tiny_network(), ["late"], spoilt, SETTINGS, progress=stop, **given)
    chipcore.fit(tiny_network(), ["late"], spoilt, SETTINGS, resume=True, progress=lambda at: named.extend(at.unreadable), **given)
    assert ["001.png" in named[0], "129.png" in named[1]] == [True, True] and len(named) == 2
