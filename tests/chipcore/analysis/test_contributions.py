"""Terms of Eq. 10, rows of the strip, orders of classes, values for the pointer: each by hand."""

from __future__ import annotations

import base64
import math

import numpy as np
import pytest
import torch

from chipcore import Importance, Layer, Network
from chipcore.analysis import channel_ablation, class_order, contributions, layer_maps, map_similarity, refined_maps
from chipcore.analysis.channel_ablation import DRAWS
from chipcore.methods import METHODS
from chipcore.methods.backpropagation import input_gradient
from chipcore.methods.base import MethodInputs
from explorer.components import pixel_values
from explorer.figures.bars import Line, TableCell, bars
from explorer.services import gallery

A = torch.tensor([[[1.0, 3.0]], [[-2.0, 0.0]], [[4.0, 4.0]]])  # three channels of 1 x 2, means 2, -1, 4
ROW = torch.tensor([0.5, 3.0, 0.0])


def importance(rows_of_w: list[list[float]]) -> Importance:
    W = torch.tensor(rows_of_w)
    return Importance(W, torch.zeros(len(W)), (W != 0).sum(1), torch.ones(len(W)), torch.full((len(W),), 20.0))


def test_contributions_are_weight_times_mean() -> None:
    shares = contributions.contributions(ROW, A)
    assert shares.tolist() == [1.0, -3.0, 0.0]
    assert contributions.largest_first(shares) == [0, 1], "what adds, then what takes away, without those that do neither"
    assert contributions.partial_map(ROW, A, [1]).tolist() == [[-6.0, 0.0]]
    assert contributions.partial_map(ROW, A, [1, 0]).tolist() == [[-5.5, 1.5]]


def test_likeness_is_pearsons() -> None:
    one = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    assert map_similarity.pearson(one, 5 - 2 * one) == pytest.approx(-1)
    assert map_similarity.pearson(one, torch.tensor([[0.0, 2.0], [1.0, 3.0]])) == pytest.approx(0.8)
    assert math.isnan(map_similarity.pearson(one, torch.ones(2, 2)))


def test_weights_of_a_channel_hold_the_class_that_was_asked_for() -> None:
    W = importance([[0.1, 1.0], [0.9, 0.0], [-0.5, 1.0], [0.0, 0.0], [0.3, 0.0]])
    found = contributions.weights_of(W, 0, target=2, count=2)
    assert [(one.index, one.place) for one in found] == [(1, 1), (2, 4)], "class 3 has no row and no place"
    assert [one.index for one in contributions.weights_of(W, 0, target=3, count=2)] == [1, 4]


def test_similar_classes_share_a_direction() -> None:
    W = importance([[1.0, 0.0], [5.0, 5.0], [0.0, 0.0], [-1.0, 0.0], [9.0, 0.1]])
    assert class_order.similar(W, 0, ("b", "a", "x", "d", "c")) == [0, 4, 1, 3, 2]
    assert class_order.cosine_similarity(W, 2).isnan().all(), "a class without a row is like nothing"
    assert class_order.alphabetical(("b", "A", "c")) == (1, 0, 2)


def test_random_channels_are_different_ones_and_the_same_for_a_seed() -> None:
    sets = channel_ablation.random_channels(20, 7)
    assert len(sets) == DRAWS
    assert all(len(set(some)) == 7 and max(some) < 20 for some in sets)
    assert sets == channel_ablation.random_channels(20, 7) != channel_ablation.random_channels(20, 7, seed=1)
    assert channel_ablation.ablation_steps(24) == [0, 1, 2, 3, 5, 10, 20, 24]
    assert channel_ablation.ablation_steps(20)[-2:] == [10, 20]


def test_closing_nothing_changes_nothing_and_closing_all_forgets_the_image(lite0: Network) -> None:
    layer = lite0.layer("stage5")
    cat, cup = (lite0.input(gallery.image(name).open()) for name in ("cat", "coffee"))
    known = lite0.forward_prefix(cat)
    nothing = channel_ablation.ablate(lite0, layer, known, [])
    assert torch.allclose(nothing.chosen, known.scores[0].softmax(0), atol=1e-5)
    assert torch.allclose(nothing.random, nothing.chosen.expand(DRAWS, -1), atol=1e-6)
    every = range(layer.channels)
    one, other = (channel_ablation.ablate(lite0, layer, lite0.forward_prefix(image), every).chosen for image in (cat, cup))
    assert torch.allclose(one, other, atol=1e-6)


def test_rows_are_what_the_methods_give(lite0: Network) -> None:
    """The strip makes Refined and Guided CHIP from the maps it has; chipcore's methods are the reference."""
    import chipcore

    inputs = lite0.input(gallery.image("cat").open())
    known, W = lite0.forward_prefix(inputs), [chipcore.load_importance(lite0, layer.name) for layer in lite0.layers]
    target = int(known.scores.argmax())
    found = [layer_maps.layer_map(layer, target, known.features[layer.path][0], lambda i=i: W[i]) for i, layer in enumerate(lite0.layers)]  # type: ignore[misc]
    refined, guided = refined_maps.refined(found), refined_maps.guided(found, input_gradient(lite0, inputs, target, "guided"))
    assert refined[0].raw is None and refined[0].blank
    for method, one in (("refined_chip", refined[4]), ("guided_chip", guided[5])):
        place = 4 if method == "refined_chip" else 5
        wanted = METHODS[method](MethodInputs(lite0, inputs, target, lite0.layers[place], W[place], shallow_importance=W[0])).raw
        assert one.raw is not None
        assert torch.allclose(one.raw, wanted, atol=1e-5 * float(wanted.abs().max()))


def test_rows_without_a_map_say_where_it_is_missing() -> None:
    shallow, deep = (layer_maps.LayerMap(Layer(name, name, 2, 2, 2, 1), missing="no W") for name in ("early", "late"))
    assert [one.missing for one in refined_maps.refined([shallow, deep])] == ["", "no map at early"]
    assert refined_maps.guided([deep], torch.zeros(3, 4, 4))[0].missing == "no map at late"


def test_pointer_gets_values_to_four_digits() -> None:
    raw = torch.tensor([[-1.5, 0.25, 3.0], [2.0, 0.0, -0.125]])
    told = pixel_values.encode_values("head", raw)
    steps = np.frombuffer(base64.b64decode(told["steps"]), "<u2").reshape(told["height"], told["width"])
    assert np.allclose(told["low"] + steps / 65535 * (told["high"] - told["low"]), raw.numpy(), atol=4.5 / 65535)
    assert pixel_values.encode_values("flat", torch.ones(2, 2))["high"] == 1.0


def test_bars_escape_names_and_tell_signs_apart() -> None:
    table = bars(["class", "w"], [Line("<b>", (TableCell(-0.5, "−1"),), marked=True), Line("b", (TableCell(2.0, "4"),))])
    assert "&lt;b&gt;" in table and "<b>" not in table
    assert 'class="against" style="width: 50.0%"' in table and 'class="for" style="width: 100.0%"' in table
    assert table.count('scope="row"') == 2 and table.count("class=marked") == 1
