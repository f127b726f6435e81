"""A disk that is full or may not be written, and a folder that two fits want at once."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from refusals import SLIM, files_below, load_once, said
from safetensors.torch import load_file

import chipcore
from chipcore.cli.main import main
from chipcore.errors import CheckpointError, ChipError
from chipcore.fitting.pipeline import Progress
from chipcore.fitting.settings import FitSettings
from chipcore.importance import load_importance
from chipcore.networks.weights import Torchvision
from chipcore.storage import check_writable, locked, write_whole

SETTINGS = FitSettings(gates=4)


@pytest.fixture(autouse=True)
def networks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chipcore.cli.common.load_network", load_once)


@pytest.fixture
def images(data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("zebra", "golf_ball"):
        for file in sorted((data / "fourteen" / "val").glob(f"{name}/*"))[:4] or sorted((data / "fourteen" / "val" / "cat").iterdir())[:4]:
            shutil.copy(file, folder)
    return folder


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel ends every write beyond ``size`` bytes of a file, as a disk that has just become full does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def fitting(images: Path, out: Path, *more: str) -> list[str]:
    return [str(one) for one in ("fit", *SLIM, "--layers", "pool5", "--gates", "4", "--images", images, "--out", out, *more)]


def test_a_disk_that_fills_while_w_is_written(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The old W stays whole, nothing half-written is left, and the work is not lost: --resume ends with the same W."""
    assert main(fitting(images, tmp_path / "whole")) == 0
    [whole] = (tmp_path / "whole").rglob("*.safetensors")
    out = tmp_path / "w"
    load_importance(load_once("vgg16_slim"), "pool5").save(out)
    [old] = out.rglob("*.safetensors")
    before = old.read_bytes()
    with files_of_at_most(4000):  # W takes 8 kB
        assert "cannot write" in (told := said(fitting(images, out), capsys)) and "free some space" in told
    assert old.read_bytes() == before
    assert [one for one in files_below(out) if not one.startswith("checkpoints")] == [str(old.relative_to(out))]
    assert main(fitting(images, out, "--resume")) == 0
    new, true = load_file(old), load_file(whole)
    assert all(torch.equal(new[name].nan_to_num(9), true[name].nan_to_num(9)) for name in true)
    assert files_below(out) == [str(old.relative_to(out))]


def test_a_disk_that_fills_while_moments_are_written(images: Path, tmp_path: Path) -> None:
    network = load_once("vgg16_slim")
    with files_of_at_most(4000), pytest.raises(ChipError, match=r"cannot write .*moments-0-0.npz.* free some space"):
        chipcore.fit(network, ["pool5"], images, SETTINGS, checkpoints=tmp_path / "c", checkpoint_seconds=0)
    assert files_below(tmp_path / "c") == [] if (tmp_path / "c").exists() else True


def test_a_disk_that_fills_while_weights_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "resnet18-0123abcd.pth"
    source.write_bytes(bytes(100_000))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(Torchvision, "url", property(lambda _self: source.as_uri()))
    with files_of_at_most(4000), pytest.raises(CheckpointError, match=r"could not be downloaded \(.*too large.*put resnet18"):
        Torchvision("resnet18").load(True)
    assert files_below(tmp_path / "hub") == []


def test_a_disk_that_fills_while_maps_and_weights_are_written(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explaining = ["explain", next(images.iterdir()), *SLIM, "--class", "cat", "--layer", "pool1"]
    with files_of_at_most(4000):
        assert "cannot write" in said([*explaining, "--out", tmp_path / "map.png"], capsys)
        for name, write in (
            ("w.pth", lambda path: torch.save({"a": torch.zeros(9000)}, path)),
            ("w.npy", lambda path: path.write_bytes(bytes(9000))),
        ):
            with pytest.raises(ChipError, match="cannot write"):
                write_whole(tmp_path / name, write)
    assert files_below(tmp_path) == files_below(images.parent)
    assert all(one.startswith("photographs/") for one in files_below(tmp_path))


def test_standard_output_on_a_full_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["networks", "--json"]) == 2
        monkeypatch.undo()
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "No space left on device" in err


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_folders_that_may_not_be_written(
    number: int, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before the work, not after it. Faked: root may write everywhere."""
    real, out = os.open, tmp_path / "out"
    out.mkdir()

    def refuse(path: object, flags: int, *more: object, **named: object) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(out)):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(chipcore, "fit", None)  # it must not come so far
    assert os.strerror(number) in said(fitting(images, out), capsys)
    photo = next(images.iterdir())
    assert os.strerror(number) in said(["explain", photo, *SLIM, "--class", "cat", "--out", out / "map.png"], capsys)
    assert files_below(out) == []


def test_places_where_there_can_be_no_folder(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere"), tmp_path / ("x" * 300)):
        assert "cannot write" in said(fitting(images, out), capsys)


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    old, fresh, other = (tmp_path / name for name in (".w.npy.aa.part", ".w.npy.bb.part", ".v.npy.aa.part"))
    for file in (old, fresh, other):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    os.utime(other, (time.time() - 7200,) * 2)
    write_whole(tmp_path / "w.npy", lambda path: path.write_bytes(b"whole"))
    assert files_below(tmp_path) == [".v.npy.aa.part", ".w.npy.bb.part", "w.npy"], "another process may be writing the fresh one"


def test_files_have_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_whole(tmp_path / "ours", lambda path: path.write_bytes(b"x"))
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
    check_writable(tmp_path / "new")
    assert files_below(tmp_path) == ["ours", "plain"]


# --- two at once --------------------------------------------------------------------------------------------


def test_two_fits_in_one_folder(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second is refused while the first runs; the first ends as if it were alone."""
    network, out = load_once("vgg16_slim"), tmp_path / "w"
    alone = chipcore.fit(network, ["pool5"], images, SETTINGS)["pool5"].W
    begun, go_on, found = threading.Event(), threading.Event(), []

    def wait(_progress: Progress) -> None:
        begun.set()
        go_on.wait(60)

    def first() -> None:
        given = {"checkpoints": out / "checkpoints" / "vgg16_slim", "checkpoint_seconds": 0.0}
        found.append(chipcore.fit(network, ["pool5"], images, SETTINGS, progress=wait, **given)["pool5"].W)

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(60)
    for more in ((), ("--resume",)):
        assert "is in use by another fit; wait until that has ended" in said(fitting(images, out, *more), capsys)
    go_on.set()
    thread.join()
    assert torch.equal(found[0], alone)
    assert main(fitting(images, out)) == 0, "afterwards it is free"


def hold(folder: Path, told: object) -> None:
    with locked(folder, wait=False):
        told.set()  # type: ignore[attr-defined]
        time.sleep(60)


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    told = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "c", told))
    process.start()
    assert told.wait(30)
    with pytest.raises(ChipError, match="in use by another fit"), locked(tmp_path / "c", wait=False):
        pass
    process.kill()
    process.join()
    with locked(tmp_path / "c", wait=False):
        pass


@pytest.mark.xfail(strict=False, reason="a known fault: under load one of four fits into one folder sometimes loses its row")
def test_rows_of_two_fits_that_end_at_once_are_both_kept(images: Path, tmp_path: Path) -> None:
    """Each reads the W that is there, adds its rows and writes it back; nobody's rows get lost."""
    everything = ["cat", "zebra", "golf ball", "frog"]
    networks = [load_once("vgg16_slim")] * len(everything)
    failed: list[int] = []

    def one(name: str) -> None:
        # Checkpoints are kept apart, as two machines with one folder of W would.
        arguments = fitting(images, tmp_path / "w", "--classes", name)
        while main(arguments) == 2:
            time.sleep(0.3)  # the other one is at it
            failed.append(1)
            assert len(failed) < 5000

    threads = [threading.Thread(target=one, args=(name,)) for name in everything]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    importance = load_importance(networks[0], "pool5", tmp_path / "w")
    assert [float(importance.support[networks[0].classes.index(name)]) > 0 for name in ("zebra", "golf ball")] == [True] * 2
    assert [one for one in files_below(tmp_path / "w") if "safetensors" in one] == files_below(tmp_path / "w")
