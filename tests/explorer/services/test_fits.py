"""A fit as the app runs it, on the small VGG and real images: cost, stop, resume, result, command."""

from __future__ import annotations

import hashlib
import json
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import chipcore
from chipcore import FitSettings, Importance, Network
from chipcore.analysis import evidence
from chipcore.cli.main import build_parser
from chipcore.errors import ChipError
from chipcore.fitting import diagnostics
from chipcore.storage import BUNDLED_IMPORTANCE
from explorer.services import allowed_paths, fit_settings, fit_trial, fits, jobs, reproduce
from explorer.services.fits import FitRequest

ZEBRA = 0


@pytest.fixture
def request_(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> FitRequest:
    """Twenty-four images in two class folders, few gates, two layers."""
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(allowed_paths.FOLDERS, str(tmp_path))
    for name in ("zebra", "frog"):
        folder = tmp_path / "photographs" / name
        folder.mkdir(parents=True)
        for file in sorted((data / "fourteen" / "val" / name).iterdir())[:20]:
            (folder / file.name).write_bytes(file.read_bytes())
    found = fits.find("photographs", 18)
    settings = FitSettings(gates=4, held_out=0.2).as_dict()
    return FitRequest("vgg16_slim", ("pool4", "pool5"), "photographs", 18, (), settings, 4.0, found.fingerprint, len(found))


def quietly(_done: int, _total: int, _stage: str) -> None:
    pass


def test_a_run_is_done_kept_and_used_everywhere(request_: FitRequest, slim: Network, tmp_path: Path) -> None:
    shipped = chipcore.load_importance(slim, "pool5")
    run = fits.prepare(request_, slim)
    assert not run.can_resume and run.folder.is_dir()
    stages: list[str] = []
    run = fits.perform(run, slim, lambda _done, _total, stage: stages.append(stage))
    assert [stage for stage in dict.fromkeys(stages) if stage][:2] == ["photographs", "solving pool4"]
    assert run.finished and fits.runs() == [run] and fits.prepare(request_, slim) == run

    # The same as chipcore's own fit, and what everybody finds.
    same = chipcore.fit(slim, ["pool4", "pool5"], fits.find("photographs", 18), request_.fit_settings)
    fitted = same["pool5"].support > 0
    assert torch.equal(run.importance(slim, "pool5").W, same["pool5"].W) and fitted.any()
    assert not fits.is_active(run, slim) and torch.equal(chipcore.load_importance(slim, "pool5").W, shipped.W), "its visitor's own"
    fits.activate(run, slim)
    used = chipcore.load_importance(slim, "pool5")
    mine = fitted.clone()
    mine[same["pool5"].shadowed_by(shipped)] = False  # what ships is better founded there
    assert mine.any() and torch.equal(used.W[mine], same["pool5"].W[mine]) and torch.equal(used.W[~mine], shipped.W[~mine])
    assert fits.is_active(run, slim)
    fits.deactivate(run, slim)
    assert not fits.is_active(run, slim) and torch.equal(chipcore.load_importance(slim, "pool5").W, shipped.W)
    fits.activate(run, slim)
    assert fits.is_active(run, slim)

    rows = evidence.evidence_rows(run.importance(slim, "pool5"), slim.classes.labels)
    assert {row.label for row in rows if row.evidence == "good"} == {"zebra", "frog"}
    assert [row.worth for row in rows] == sorted((row.worth for row in rows), reverse=True)
    lines = evidence.evidence_csv(rows).splitlines()
    assert lines[0].startswith("index,class,photographs_worth") and len(lines) == 1 + len(rows)

    curve = diagnostics.read(run.curves("pool5"))[0]
    at = int(np.flatnonzero(curve.ratios == request_.fit_settings.lambda_ratio)[0])
    importance = run.importance(slim, "pool5")
    assert curve.support[at] == importance.support[curve.index], "the path goes through the fit itself"
    assert curve.r2_held_out[at] == pytest.approx(float(importance.r2[curve.index]), abs=1e-5)
    assert curve.support[0] < curve.support[-1]
    assert curve.primal[-1] < 0.02 * max(curve.primal) and curve.dual[-1] < 0.02 * max(curve.dual), "a nearly dense row settles slowly"


def test_a_stopped_run_goes_on_where_it_was(request_: FitRequest, slim: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "CHECKPOINT_SECONDS", 0.0)
    seen: list[int] = []

    def stopping(done: int, _total: int, stage: str) -> None:
        seen.append(done)
        if stage == "photographs" and done == 32:
            raise jobs.Stopped

    run = fits.prepare(request_, slim)
    with pytest.raises(jobs.Stopped):
        fits.perform(run, slim, stopping)
    again = fits.runs()[0]  # as a new server finds it
    assert again.can_resume and not again.finished and again.seconds > 0
    first: list[int] = []
    done = fits.perform(again, slim, lambda done, _total, stage: first.append(done) if stage == "photographs" else None)
    assert first[0] == 32 and not done.can_resume
    whole = chipcore.fit(slim, ["pool4", "pool5"], fits.find("photographs", 18), request_.fit_settings)
    assert torch.equal(done.importance(slim, "pool4").W, whole["pool4"].W)


@pytest.mark.parametrize("name", ["photographs", "images"])
def test_a_run_of_an_earlier_release_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """run.json as the first release wrote it, in the folder that it chose; and with the newer name of the field."""
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path))
    asked = {
        "network": "vgg16_slim", "layers": ["pool4", "pool5"], "photographs": "animals", "per_folder": 18, "classes": [0, 3],
        "settings": {"gates": 4, "background": 0.5}, "memory": 4.0, "fingerprint": "23e5", "count": 36,
    }  # fmt: skip
    folder = tmp_path / "fits" / hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:20]
    folder.mkdir(parents=True)
    asked[name] = asked.pop("photographs")
    about = {
        "request": asked, "title": "VGG16", "created": "2026-11-01T10:00:00+00:00", "finished": "2026-11-01T10:05:00+00:00",
        "seconds": 300.0, "unreadable": ["torn.jpg"], "flags": "--network vgg16_slim", "owner": "",
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(about), encoding="utf-8")
    (run,) = fits.runs()
    assert run.folder == folder and run.request.images == "animals" and run.request.classes == (0, 3) and run.unreadable == ("torn.jpg",)
    run.save()
    assert fits.runs() == [run], "and what is written anew is found in the same folder"
    (folder / "run.json").write_text(json.dumps({**about, "request": {}}), encoding="utf-8")
    assert fits.runs() == [], "what cannot be read is left out"


KILLED = """
import os, signal
from chipcore import load_network
from explorer.services import fits
fits.CHECKPOINT_SECONDS = 0.0
def killed(done, total, stage):
    if stage == "photographs" and done == 32:
        os.kill(os.getpid(), signal.SIGKILL)
network = load_network("vgg16_slim")
found = fits.find("photographs", 18)
asked = fits.FitRequest("vgg16_slim", ("pool4", "pool5"), "photographs", 18, (), fits.FitSettings(gates=4, held_out=0.2).as_dict(), 4.0, found.fingerprint, len(found))
fits.perform(fits.prepare(asked, network), network, killed)
"""


def test_a_killed_server_leaves_a_run_that_goes_on_and_no_lock(request_: FitRequest, slim: Network) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED], cwd=Path(__file__).resolve().parents[3], check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    (found,) = fits.runs()  # as a new server finds it
    assert found.key == request_.key and found.can_resume and not found.finished
    first: list[int] = []
    done = fits.perform(found, slim, lambda done, _total, stage: first.append(done) if stage == "photographs" else None)
    assert first[0] >= 16, "not from the beginning"
    whole = chipcore.fit(slim, ["pool4", "pool5"], fits.find("photographs", 18), request_.fit_settings)
    assert torch.equal(done.importance(slim, "pool4").W, whole["pool4"].W)
    assert not [file for file in done.folder.parent.rglob("*") if ".part" in file.name or file.suffix == ".tmp"]


def test_other_images_are_another_run_and_gone_ones_a_sentence(request_: FitRequest, slim: Network, tmp_path: Path) -> None:
    run = fits.prepare(request_, slim)
    assert fits.find("photographs").fingerprint != request_.fingerprint
    assert replace(request_, fingerprint="x").key != request_.key
    for file in (tmp_path / "photographs").rglob("*.jp*g"):
        file.unlink()
    with pytest.raises(ChipError, match="holds no photographs"):
        fits.perform(run, slim, quietly)
    run.forget()
    assert fits.runs() == []


def test_what_can_not_be_read_is_no_run(request_: FitRequest, slim: Network) -> None:
    run = fits.prepare(request_, slim)
    (run.folder / "run.json").write_text("{}")
    assert fits.runs() == []
    run.save()
    run.folder.rename(run.folder.with_name("other"))
    assert fits.runs() == [], "a folder under a name that is not its own"


def test_the_cost_is_told_before(request_: FitRequest, slim: Network) -> None:
    steps: list[tuple[int, int]] = []
    before = len(slim._cuts)
    cost = fit_trial.estimate_cost(slim, request_, fits.find("photographs", 18), lambda done, total: steps.append((done, total)))
    assert 0 < cost.seconds < 600 and cost.memory.passes == 1 and steps[-1] == (3, 3)
    assert len(slim._cuts) == before, "the served network keeps nothing of a trial"
    with pytest.raises(ChipError, match="too little"):
        fit_trial.estimate_cost(slim, replace(request_, memory=0.1), fits.find("photographs", 18), lambda _done, _total: None)


def test_the_command_does_the_same_fit(request_: FitRequest, slim: Network) -> None:
    values = {
        "gates": 12,
        "lambda_ratio": 0.01,
        "pooled_share": 0.25,
        "intercept": True,
        "target": "probability",
        "precision": "bfloat16",
        "draw": "stratified",
        "sigma2": 30,
        "seed": 5,
    }
    asked = replace(request_, settings=fit_settings.settings(values).as_dict(), classes=(1, 3), images="my photographs")
    told = reproduce.fit(fits.prepare(asked, slim))
    assert told.startswith("python -m chipcore fit ")
    options = build_parser().parse_args(shlex.split(told)[3:])
    assert {name: getattr(options, name) for name in values} == values, "every setting of the form has its flag"
    assert (options.network, options.layers, options.classes) == ("vgg16_slim", ["pool4", "pool5"], ["1", "3"])
    assert ([str(path) for path in options.images], options.photos_per_class, options.memory) == (["my photographs"], 18, 4.0)


def test_every_setting_has_plain_words_or_keeps_its_default() -> None:
    silent = {"cutoff", "held_out", "min_evidence", "own_evidence", "pooled_gates", "generator"}  # the last three: the command line's alone
    assert {field.name for field in fit_settings.FIELDS} | silent == set(FitSettings().as_dict())
    assert fit_settings.settings({}) == FitSettings()
    assert fit_settings.settings({"sigma2": 0, "gates": 7.0}) == FitSettings(gates=7)
    with pytest.raises(ChipError, match="lambda ratio"):
        fit_settings.settings({"lambda_ratio": -1.0})


def test_evidence_by_hand() -> None:
    W = torch.tensor([[0.0, 1.0], [0.0, 0.0], [2.0, 1.0], [0.0, 0.0]])
    importance = Importance(
        W,
        torch.tensor([0.5, torch.nan, torch.nan, torch.nan]),
        (W != 0).sum(1),
        torch.tensor([3, 1, 15, 0]),
        torch.tensor([2.5, 0.2, 12.0, 0.0]),
    )
    rows = evidence.evidence_rows(importance, ["a", 'b "x"', "c", "d"])
    assert [(row.label, row.evidence) for row in rows] == [("c", "good"), ("a", "weak"), ('b "x"', "none")]
    assert evidence.evidence_csv(rows).splitlines()[1:] == [
        "2,c,12,15,,2,good",
        "0,a,2.5,3,0.5,1,weak",
        '1,"b ""x""",0.2,1,,0,none',
    ]


def test_bundled_w_is_never_touched(request_: FitRequest, slim: Network) -> None:
    before = {path: path.stat().st_mtime_ns for path in BUNDLED_IMPORTANCE.rglob("*.safetensors")}
    run = fits.perform(fits.prepare(replace(request_, layers=("pool5",), classes=(ZEBRA,)), slim), slim, quietly)
    fits.activate(run, slim)
    fits.deactivate(run, slim)
    assert before == {path: path.stat().st_mtime_ns for path in BUNDLED_IMPORTANCE.rglob("*.safetensors")}
