"""The lessons' numbers against hand-worked values and against computing them directly."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import chipcore
from chipcore import ChipError, Network
from chipcore.analysis import contributions, gate_experiments, map_similarity
from chipcore.analysis.gate_experiments import Experiment
from chipcore.gating.gates import gate as gated
from explorer.figures import lessons as pictures
from explorer.figures import theme
from explorer.services import gallery


def test_gates_open_as_many_as_asked_and_nested() -> None:
    order = gate_experiments.ablation_order(10, 3)
    assert sorted(order.tolist()) == list(range(10))
    assert gate_experiments.ablation_order(10, 3).tolist() == order.tolist() != gate_experiments.ablation_order(10, 4).tolist()
    for number_open in (0, 1, 9, 10):
        gate = gate_experiments.partly_open_gate(order, number_open)
        assert int(gate.sum()) == number_open
        assert bool((gate <= gate_experiments.partly_open_gate(order, 10)).all())
    row = torch.tensor([0.5, -1.0, 2.0])
    assert gate_experiments.ablation_order(3, 0, "important first", row).tolist() == [2, 0, 1]
    assert gate_experiments.partly_open_gate(gate_experiments.ablation_order(3, 0, "unimportant first", row), 1).tolist() == [
        False,
        False,
        True,
    ]
    assert [gate_experiments.open_count(128, percent) for percent in (0, 50, 100, 5)] == [0, 64, 128, 6]


def test_answer_is_the_whole_network_with_the_channels_zeroed(slim: Network) -> None:
    inputs = slim.input(gallery.image("cat").open())
    for layer in (slim.layers[0], slim.layers[-1]):
        with torch.inference_mode():
            known = slim.forward_prefix(inputs, (layer,))
        gate = gate_experiments.partly_open_gate(gate_experiments.ablation_order(layer.channels, 0), layer.channels // 2)

        def close(_module: object, _inputs: object, output: torch.Tensor, gate: torch.Tensor = gate) -> torch.Tensor:
            return gated(output, gate[None, None].to(output))

        handle = slim.model.get_submodule(layer.path).register_forward_hook(close)
        try:
            with torch.inference_mode():
                expected = slim.model(inputs)[0]
        finally:
            handle.remove()
        assert torch.allclose(gate_experiments.gated_scores(slim, layer, known, gate), expected, atol=1e-4)


def test_local_row_is_that_of_local_chip(slim: Network) -> None:
    layer = slim.layers[-1]
    image = gallery.image("cat").open()
    with torch.inference_mode():
        known = slim.forward_prefix(slim.input(image), (layer,))
    told: list[tuple[int, int]] = []
    measured = gate_experiments.experiment(slim, layer, known, lambda done, total: told.append((done, total)))
    assert told[0] == (0, gate_experiments.FITTED + gate_experiments.HELD_OUT)
    assert len(measured.z) == len(measured.scores) == len(measured.closed) == gate_experiments.FITTED + gate_experiments.HELD_OUT
    target = int(known.scores.argmax())
    path = gate_experiments.lasso_path(measured, target, layer.channels)
    one = path[gate_experiments.RATIOS.index(gate_experiments.USUAL)]
    expected = chipcore.explain(slim, image, target, method="local_chip", layer=layer.name, options={"contrast": 0.0}).raw
    found = contributions.partial_map(one.row.float(), known.features[layer.path][0], range(layer.channels))
    assert torch.allclose(found, expected, atol=1e-3 * float(expected.abs().max()))
    # A lower price never fits worse, and gates that were never seen are told from new draws.
    assert all(later.r2 >= earlier.r2 - 1e-9 for earlier, later in pairwise(path))
    held = slice(gate_experiments.FITTED, None)
    h, g = torch.exp(-measured.closed[held].double() / layer.channels), measured.scores[held, target].double()
    residual = (h * (measured.z[held].double() @ one.row + one.intercept - g) ** 2).sum()
    mean = (h * g).sum() / h.sum()
    assert one.held_out == pytest.approx(float(1 - residual / (h * (g - mean) ** 2).sum()), abs=1e-6)


def test_lasso_path_by_hand() -> None:
    # One channel, open in two gates of three: g = 3 z + 1. h is 1 where open, exp(-1) where closed (z = 0 there).
    measured = Experiment(
        torch.tensor([[2.0], [2.0], [0.0], [2.0]]), torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([[7.0], [7.0], [1.0], [7.0]]), 3
    )
    path = gate_experiments.lasso_path(measured, 0, 1.0, (0.5, 0.1))
    share = 2 / (2 + math.exp(-1))  # of h where the channel is open
    first, mean = 2 * share, 1 + 6 * share
    gram = 4 * share - first**2
    assert path[0].lam == pytest.approx(0.5 * 3 * gram)
    # w = (cross - lambda) / gram, where cross = 3 gram; b = mean g - w mean z.
    assert [float(one.row[0]) for one in path] == pytest.approx([1.5, 2.7])
    assert [one.intercept for one in path] == pytest.approx([mean - 1.5 * first, mean - 2.7 * first])
    assert [one.support for one in path] == [1, 1]
    with pytest.raises(ChipError, match="does not react"):
        gate_experiments.lasso_path(Experiment(measured.z, measured.closed, torch.zeros(4, 1), 3), 0, 1.0)


def test_sum_by_hand() -> None:
    features = torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]], [[5.0, 5.0]]])
    row = torch.tensor([2.0, -1.0, 0.0])
    assert gate_experiments.by_contribution(row, features) == [1, 0]  # 3 against 2; the third has no weight
    assert contributions.partial_map(row, features, [1]).tolist() == [[0.0, -3.0]]
    assert contributions.partial_map(row, features, [1, 0]).tolist() == [[2.0, -3.0]]
    assert map_similarity.pearson(torch.tensor([[1.0, 2.0]]), torch.tensor([[5.0, 3.0]])) == pytest.approx(-1)
    assert math.isnan(map_similarity.pearson(torch.ones(2, 2), torch.ones(2, 2)))


def test_pictures_show_what_is_open() -> None:
    features = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    sheet = np.asarray(pictures.feature_maps(features, torch.tensor([True, False, True]), [0, 1], "inferno", theme.LIGHT))
    assert (sheet[-20, -60] < 10).all()  # the closed channel's lower picture is the color of zero
    assert sheet[-100, 150].sum() > 0
    bars = np.asarray(pictures.answer_picture([("cat $", 1.0, 0.0, True), ("dog", 0.0, 1.0, False)], "title", theme.LIGHT))
    assert len(np.unique(bars.reshape(-1, 3), axis=0)) > 10


def test_enough_channels_are_the_first_that_look_like_the_whole() -> None:
    features = torch.tensor([[[4.0, 0.0]], [[0.0, 3.0]], [[1.0, 0.0]]])
    row = torch.tensor([1.0, 0.5, -1.0])
    # Sums: (4, 0), (4, 1.5), (3, 1.5): two values that fall correlate by 1 with any others that do.
    assert gate_experiments.channels_for_correlation(row, features, [0, 1, 2]) == 1
    # Sums: (0, 1.5), (4, 1.5), (3, 1.5): the first rises where the whole falls.
    assert gate_experiments.channels_for_correlation(row, features, [1, 0, 2]) == 2
