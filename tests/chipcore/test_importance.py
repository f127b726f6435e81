"""W on disk: read back as written, refused where it does not belong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from chipcore.errors import ImportanceError, ImportanceNotFitted
from chipcore.importance import Importance, describe, load_importance, read_importance
from chipcore.networks import Network
from conftest import tiny_network


def importance_of(network: Network, layer: str = "late") -> Importance:
    at = network.layer(layer)
    W = torch.randn(len(network.classes), at.channels, generator=torch.Generator().manual_seed(0))
    W[0] = 0
    W[1] = torch.tensor([3.0, -9.0, 1.0, 0.002, 2.0])
    return Importance(
        W, torch.tensor([float("nan"), 0.5, 0.25]), (W != 0).sum(1, dtype=torch.int32), torch.tensor([0, 3, 40], dtype=torch.int32),
        torch.tensor([0.0, 2.5, 33.0]), describe(network, at, settings={"gates": 3}, data_fingerprint="abc"),
    )  # fmt: skip


def test_what_is_saved_is_loaded(tiny: Network, tmp_path: Path) -> None:
    saved = importance_of(tiny)
    path = saved.save(tmp_path)
    assert path == tmp_path / tiny.id / "late.safetensors"
    loaded = load_importance(tiny, "second", tmp_path)  # by module path
    for name in ("W", "r2", "support", "images", "evidence_mass"):
        torch.testing.assert_close(getattr(loaded, name), getattr(saved, name), rtol=0, atol=0, equal_nan=True)
    assert loaded.metadata == saved.metadata and loaded.metadata["settings"] == {"gates": 3}
    assert not list(tmp_path.rglob("*.part"))


def test_evidence_and_channels(tiny: Network) -> None:
    importance = importance_of(tiny)
    assert [importance.evidence(c) for c in range(3)] == ["none", "weak", "good"]
    assert importance.top_channels(1, 2) == [0, 4]
    assert importance.top_channels(1, 10) == [0, 4, 2, 3], "channels that speak against a class are not important for it"
    assert importance.channels_above(1, 1e-3) == [0, 2, 4]
    assert importance.channels_above(0, 1e-3) == []


def test_rows_that_a_fit_did_not_reach_come_from_the_bundled_w(tiny: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled, own = importance_of(tiny), importance_of(tiny)
    own.W[1] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])
    own.W[2], own.support[2], own.evidence_mass[2] = 0, 0, 0
    bundled.save(tmp_path / "bundled")
    own.save(tmp_path / "cache" / "importance")
    monkeypatch.setattr("chipcore.importance.BUNDLED_IMPORTANCE", tmp_path / "bundled")
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path / "cache"))
    both = load_importance(tiny, "late")
    assert torch.equal(both.W[1], own.W[1])
    assert torch.equal(both.W[2], bundled.W[2])
    assert [both.evidence(c) for c in range(3)] == ["none", "weak", "good"]
    assert torch.equal(load_importance(tiny, "late", tmp_path / "cache" / "importance").W, own.W), "a named folder is taken as it is"


def test_a_row_of_few_images_does_not_replace_one_of_many(tiny: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of class 1 and 2 against what ships: weak on good keeps the shipped row, good on good and weak on weak take the user's."""
    folder = tmp_path / "cache" / "importance"
    monkeypatch.setattr("chipcore.importance.BUNDLED_IMPORTANCE", tmp_path / "bundled")
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path / "cache"))
    bundled = importance_of(tiny)
    bundled.save(tmp_path / "bundled")
    for masses, shipped in (((2.0, 2.0), (False, True)), ((2.0, 50.0), (False, False)), ((50.0, 9.9), (False, True))):
        own = importance_of(tiny)
        own.W[1:] *= -2
        own.evidence_mass[1:] = torch.tensor(masses)
        own.save(folder)
        both = load_importance(tiny, "late")
        for c in (1, 2):
            expected = bundled if shipped[c - 1] else own
            assert torch.equal(both.W[c], expected.W[c]) and both.evidence_mass[c] == expected.evidence_mass[c]
        assert torch.equal(load_importance(tiny, "late", folder).W, own.W), "a named folder is taken as it is"


def test_rows_are_forgotten(tiny: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from chipcore.cli.main import main

    monkeypatch.setattr("chipcore.cli.common.load_network", lambda *_given, **_named: tiny)
    monkeypatch.setenv("CHIP_CACHE", str(tmp_path))
    path = importance_of(tiny).save(tmp_path / "importance")
    forget = ["rows", "--network", "tiny", "--layer", "late", "--forget"]
    assert main([*forget, "--classes", "2"]) == 0 and "forgot 1 row of tiny at late" in capsys.readouterr().out
    left = read_importance(path, tiny, tiny.layer("late"))
    assert left.evidence(2) == "none" and not left.W[2].any() and torch.equal(left.W[1], importance_of(tiny).W[1])
    assert main([*forget, "--classes", "1"]) == 0 and not path.exists(), "the last row takes the file with it"
    assert main(forget) == 2 and "nothing to forget" in capsys.readouterr().err
    importance_of(tiny).save(tmp_path / "importance")
    path.write_bytes(path.read_bytes()[:-4])
    assert main([*forget, "--classes", "1"]) == 2
    assert main(forget) == 0 and not path.exists(), "a damaged file goes all the same"
    monkeypatch.setattr("chipcore.cli.rows.BUNDLED_IMPORTANCE", tmp_path / "importance")
    assert main(forget) == 2 and "what ships is not forgotten" in capsys.readouterr().err


def test_w_of_another_network_or_layer_is_refused(tiny: Network, tmp_path: Path) -> None:
    path = importance_of(tiny).save(tmp_path)
    other = tiny_network(seed=1)
    with pytest.raises(ImportanceError, match="weights_sha256"):
        read_importance(path, other, other.layer("late"))
    with pytest.raises(ImportanceError, match="path"):
        read_importance(path, tiny, tiny.layer("early"))
    wide = tiny_network(channels=6)
    with pytest.raises(ImportanceError):
        read_importance(path, wide, wide.layer("late"))
    with pytest.raises(ImportanceNotFitted, match="chipcore fit --network tiny --layers late"):
        load_importance(other, "late", tmp_path)


def test_damaged_files_are_refused(tiny: Network, tmp_path: Path) -> None:
    path = importance_of(tiny).save(tmp_path)
    at = tiny.layer("late")
    whole = path.read_bytes()
    for broken in (b"", b"hello", whole[:20], whole[:-4], b"\xff" * 8 + whole[8:]):
        path.write_bytes(broken)
        with pytest.raises(ImportanceError, match="not a whole file|does not hold"):
            read_importance(path, tiny, at)
    tensors = {"W": torch.full((3, 5), float("nan")), **{n: torch.zeros(3) for n in ("r2", "support", "images", "evidence_mass")}}
    save_file(tensors, path, metadata={"chipcore": json.dumps(importance_of(tiny).metadata)})
    with pytest.raises(ImportanceError, match="finite"):
        read_importance(path, tiny, at)
    save_file({"W": torch.zeros(3, 5)}, path)
    with pytest.raises(ImportanceError, match="not a whole file"):
        read_importance(path, tiny, at)


def test_an_older_or_newer_format_is_refused(tiny: Network, tmp_path: Path) -> None:
    path = importance_of(tiny).save(tmp_path)
    metadata = {**importance_of(tiny).metadata, "format": 99}
    save_file(load_file(path), path, metadata={"chipcore": json.dumps(metadata)})
    with pytest.raises(ImportanceError, match="format 99"):
        read_importance(path, tiny, tiny.layer("late"))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tiny: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importance = importance_of(tiny)
    path = importance.save(tmp_path)
    before = path.read_bytes()

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("chipcore.importance.save_file", full)
    with pytest.raises(Exception, match="cannot write .*No space left"):
        importance.save(tmp_path)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["late.safetensors"]
