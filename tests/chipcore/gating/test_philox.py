"""The counter-based generator: Random123's known answers, its definition in Python's integers, and what is drawn with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

import chipcore
from chipcore.errors import ChipError
from chipcore.fitting.pipeline import Progress
from chipcore.fitting.settings import FitSettings
from chipcore.gating.gates import Draw, draw, draw_batch, draw_on_device, generator, philox_keys
from chipcore.gating.philox import philox
from conftest import tiny_network

# philox4x32-10 of Random123's kat_vectors: counter, key, answer.
KNOWN = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
)


def slowly(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """The definition, in Python's integers."""
    a, b, c, d = counter
    left, right = key
    for _ in range(10):
        x, y = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (y >> 32) ^ b ^ left, y & 0xFFFFFFFF, (x >> 32) ^ d ^ right, x & 0xFFFFFFFF
        left, right = (left + 0x9E3779B9) % 2**32, (right + 0xBB67AE85) % 2**32
    return a, b, c, d


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers_of_random123(counter: tuple[int, ...], key: tuple[int, ...], answer: tuple[int, ...]) -> None:
    a, b, c, d = (torch.tensor([word]) for word in counter)
    left, right = (torch.tensor([word]) for word in key)
    assert tuple(int(word) for word in philox((a, b, c, d), (left, right))) == answer == slowly(counter, key)


def test_random_counters_match_the_definition() -> None:
    words = np.random.default_rng(0).integers(0, 2**32, (200, 6))
    a, b, c, d, left, right = torch.from_numpy(words).T
    found = torch.stack(philox((a, b, c, d), (left, right)), 1)
    assert found.tolist() == [list(slowly(tuple(row[:4]), tuple(row[4:]))) for row in words.tolist()]


@pytest.mark.parametrize("channels", [5, 16])
def test_gates_are_those_of_the_definition(channels: int) -> None:
    """Words, ranks and counts one by one, in Python's integers."""
    names, N, K = ["a.jpg", "b/c.jpg"], 7, channels
    gates, weights = draw_on_device("uniform", N, K, 3.0, philox_keys(4, "layer", names))
    for place, words in enumerate(philox_keys(4, "layer", names).tolist()):
        for n in range(N):
            drawn = [slowly((block, n, *words[2:]), tuple(words[:2])) for block in range(-(-K // 4) + 1)]
            order = sorted(range(K), key=lambda k: (drawn[k // 4][k % 4], k))
            number_open = drawn[-1][0] * (K + 1) // 2**32
            assert sorted(order[:number_open]) == gates[place, n].nonzero().flatten().tolist()
            assert float(weights[place, n]) == pytest.approx(np.exp(-(K - number_open) / 3.0), rel=1e-6)


@pytest.mark.parametrize("name", get_args(Draw))
def test_gates_depend_on_seed_layer_and_image_alone(name: Draw) -> None:
    images = [f"{i}.jpg" for i in range(300)]  # more than are drawn at once
    whole, weights = draw_on_device(name, 40, 130, 130.0, philox_keys(0, "late", images))
    some = [299, 7, 100]
    alone, alone_weights = draw_on_device(name, 40, 130, 130.0, philox_keys(0, "late", [images[i] for i in some]))
    assert torch.equal(alone, whole[some]) and torch.equal(alone_weights, weights[some])
    if name == "uniform" or name == "importance":
        fewer, _weights = draw_on_device(name, 3, 130, 130.0, philox_keys(0, "late", images[:1]))
        assert torch.equal(fewer, whole[:1, :3])
    for other in (philox_keys(1, "late", images[:1]), philox_keys(0, "early", images[:1]), philox_keys(0, "late", images[1:2])):
        assert not torch.equal(draw_on_device(name, 40, 130, 130.0, other)[0], whole[:1])


@pytest.mark.parametrize("name", get_args(Draw))
def test_the_distribution_is_that_of_the_slow_draw(name: Draw) -> None:
    """Each channel, each pair of neighbors and each number of open gates comes as often, with the same weight."""
    K, N, S = 9, 50, 400
    images = [f"{i}" for i in range(S)]
    gates, weights = draw_on_device(name, N, K, K, philox_keys(0, "l", images))
    slow = [draw(name, N, K, K, generator(0, "l", image)) for image in images]
    expected, expected_weights = np.stack([one for one, _w in slow]), np.stack([one for _g, one in slow])
    deviations = 5 * np.sqrt(2 * 0.25 / (S * N))  # strata and pairs only lessen the spread
    fast = gates.numpy()
    for found, reference in (
        (fast.mean((0, 1)), expected.mean((0, 1))),
        ((fast[..., 1:] & fast[..., :-1]).mean((0, 1)), (expected[..., 1:] & expected[..., :-1]).mean((0, 1))),
        (np.bincount(fast.sum(2).ravel(), minlength=K + 1) / (S * N), np.bincount(expected.sum(2).ravel(), minlength=K + 1) / (S * N)),
    ):
        assert np.abs(found - reference).max() < deviations
    assert weights.mean() == pytest.approx(expected_weights.mean(), abs=deviations)
    if name == "antithetic":
        both, none = fast[:, 0::2] & fast[:, 1::2], ~fast[:, 0::2] & ~fast[:, 1::2]
        assert not (both.any(2) & none.any(2)).any(), "two samples of a pair overlap only where together they cover every channel"


def test_no_gate_and_every_gate_are_drawn() -> None:
    gates, weights = draw_on_device("uniform", 200, 1, 1.0, philox_keys(0, "l", ["a"]))
    assert {0, 1} == set(gates.sum(2).flatten().tolist())
    torch.testing.assert_close(weights[0], torch.exp(gates[0, :, 0].float() - 1))


def test_the_numpy_generator_draws_as_before() -> None:
    gates, weights = draw_batch("numpy", "uniform", 4, 6, 6.0, 0, "late", ["x", "y"], torch.device("cpu"))
    for place, image in enumerate(("x", "y")):
        expected, weight = draw("uniform", 4, 6, 6.0, generator(0, "late", image))
        assert np.array_equal(gates[place].numpy(), expected)
        assert np.array_equal(weights[place].numpy(), weight.astype(np.float32))


class Stop(Exception):
    pass


def test_a_fit_by_either_generator_and_its_checkpoints(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(40):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{i:02}.png")
    settings = FitSettings(gates=60, held_out=0.2, generator="device")
    fitted = chipcore.fit(tiny_network(), ["late"], tmp_path / "photos", settings)["late"]
    other = chipcore.fit(tiny_network(), ["late"], tmp_path / "photos", replace(settings, generator="numpy"))["late"]
    assert fitted.metadata["settings"]["generator"] == "device"
    assert not torch.equal(fitted.W, other.W)

    def stop(progress: Progress) -> None:
        if progress.done > 20:
            raise Stop

    given = {"checkpoints": tmp_path / "c", "checkpoint_seconds": 0.0}
    with pytest.raises(Stop):
        chipcore.fit(tiny_network(), ["late"], tmp_path / "photos", settings, progress=stop, **given)
    with pytest.raises(ChipError, match="the settings changed"):
        chipcore.fit(tiny_network(), ["late"], tmp_path / "photos", replace(settings, generator="numpy"), resume=True, **given)
    resumed = chipcore.fit(tiny_network(), ["late"], tmp_path / "photos", settings, resume=True, **given)["late"]
    assert torch.equal(resumed.W, fitted.W)


def test_settings_from_before_there_was_a_choice_mean_numpy() -> None:
    stored = FitSettings().as_dict()
    del stored["generator"]
    assert FitSettings.from_dict(stored).generator == "numpy"
    with pytest.raises(ChipError, match="numpy or device"):
        FitSettings(generator="cuda")  # type: ignore[arg-type]
