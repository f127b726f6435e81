"""The numbers of the page Channels, worked out by hand."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest
import torch

from chipcore import Importance
from chipcore.analysis import channel_overlap, class_channels
from chipcore.analysis.channel_overlap import top_sets
from chipcore.analysis.class_channels import Region
from chipcore.datasets.class_names import Classes
from explorer.figures import heatmap, theme, venn
from explorer.figures.heatmap import heatmap_picture

# Four classes, five channels. The last row was never fitted.
W = torch.tensor([
    [4.0, 3.0, 0.0, -1.0, 0.002],
    [2.0, 0.0, 1.0, -5.0, 0.0],
    [0.0, 0.0, 9.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 0.0, 0.0],
])  # fmt: skip


@pytest.fixture
def importance() -> Importance:
    support = (W != 0).sum(1)
    r2 = torch.tensor([0.5, math.nan, 0.9, math.nan])
    return Importance(W, r2, support, torch.tensor([3, 2, 40, 0]), torch.tensor([12.0, 2.0, 30.0, 0.0]), {})


def test_top_sets_hold_positive_weights_only(importance: Importance) -> None:
    assert top_sets(importance.W.numpy(), 2).tolist() == [
        [True, True, False, False, False],
        [True, False, True, False, False],
        [False, False, True, False, False],  # only one is positive
        [False] * 5,
    ]
    for index in range(3):
        assert sorted(importance.top_channels(index, 2)) == np.flatnonzero(top_sets(importance.W.numpy(), 2)[index]).tolist()


def test_neighbors_by_shared_channels_then_cosine(importance: Importance) -> None:
    first, second = class_channels.neighbors(importance, 0, 2)
    # Class 1 shares channel 0 of {0, 1} and {0, 2}; (4 * 2 + -1 * -5) over the rows' lengths.
    assert (first.index, first.shared, first.jaccard) == (1, 1, pytest.approx(1 / 3))
    assert first.cosine == pytest.approx(13 / math.sqrt(26.000004 * 30))
    assert (second.index, second.shared, second.jaccard, second.cosine) == (2, 0, 0.0, 0.0)
    assert class_channels.neighbors(importance, 3, 2) == []


def test_counts(importance: Importance) -> None:
    told = class_channels.counts(importance, [0, 2, 3])
    # 0.002 is below one thousandth of 4.
    assert (told[0].nonzero, told[0].positive, told[0].negative, told[0].above) == (4, 3, 1, 2)
    assert [one.evidence for one in told] == ["good", "good", "none"]
    for one in told:
        assert one.above == len(importance.channels_above(one.index, channel_overlap.SHARE))
    assert class_channels.counts(importance, [1])[0].evidence == "weak"


def test_regions_of_three_and_of_two_classes() -> None:
    found = {region.name: region.channels for region in class_channels.regions([[5, 1, 2], [2, 3], [2, 1, 9]])}
    assert found == {"100": (5,), "010": (3,), "001": (9,), "110": (), "101": (1,), "011": (), "111": (2,)}
    two = class_channels.regions([[1, 2], [2]])
    assert [(region.name, region.channels) for region in two] == [("10", (1,)), ("01", ()), ("11", (2,))]
    assert [class_channels.region_words(region, ["a", "b"]) for region in two] == ["only a", "only b", "both"]
    assert class_channels.region_words(Region((True, False, True), ()), ["a", "b", "c"]) == "a and c"


def test_orders_of_channels() -> None:
    assert class_channels.by_importance(W[0].numpy()).tolist() == [0, 1, 4, 2, 3]
    # Columns 0 and 2 are equal, so are 1 and 3: each pair must come out side by side.
    twins = np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    order = class_channels.by_similarity(twins).tolist()
    assert sorted(order) == [0, 1, 2, 3]
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}
    assert class_channels.by_similarity(np.ones((1, 2))).tolist() == [0, 1]


def test_tree_joins_the_most_alike_first() -> None:
    linked = class_channels.tree(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]))
    assert set(linked[0, :2].astype(int)) == {0, 2}
    assert linked[:, 2] == pytest.approx([0, 1])


def test_what_is_suggested(importance: Importance) -> None:
    assert class_channels.suggested(importance, 1, [3, 2], near=1, count=2) == [1, 2, 0]  # 3 has no row


def test_trio_is_the_class_its_relative_and_a_stranger(importance: Importance) -> None:
    assert class_channels.trio(importance, 0) == [0, 1, 2]  # cosines 0.46 and 0
    assert class_channels.trio(importance, 3)[0] == 0  # 3 has no row
    activation = torch.ones_like(importance.W)
    activation[1] = torch.tensor([0.1, 0.0, 1.0, -1.0, 0.0])  # what channels contribute points the other way
    assert class_channels.trio(dataclasses.replace(importance, activation=activation), 0) == [0, 2, 1]
    nobody = dataclasses.replace(importance, support=torch.zeros_like(importance.support))
    assert class_channels.trio(nobody, 0) == []


def test_table_is_csv_with_every_weight(importance: Importance) -> None:
    classes = Classes(("tench, Tinca", 'a "b"', "c", "d"), ("n1", "n2", "n3", "n4"))
    lines = list(csv.DictReader(io.StringIO(class_channels.weights_csv(importance, classes, [0, 1]))))
    assert [float(lines[0][f"channel_{k}"]) for k in range(5)] == pytest.approx(W[0].tolist())
    assert (lines[0]["held_out_r2"], lines[1]["held_out_r2"]) == ("0.5", "")
    assert (lines[1]["synset"], lines[1]["label"], lines[1]["negative"]) == ("n2", 'a "b"', "1")


@pytest.mark.parametrize("label", ["b", "bb", "bbb", "bbbb"])  # headers of every length
def test_packed_heat_map_can_be_read_back(label: str) -> None:
    data = heatmap.packed(W.numpy(), [1, 0], [label, "ä"], [3, 0], 0, signed=True, each=False)
    length = int.from_bytes(data[:4], "little")
    header = json.loads(data[4 : 4 + length])
    start = 4 + -(-length // 4) * 4
    values = np.frombuffer(data[start:], dtype="<f4").reshape(2, 2)
    assert values.tolist() == [[-5, 2], [-1, 4]]
    assert (header["rows"], header["labels"], header["columns"], header["tops"]) == ([1, 0], [label, "ä"], [3, 0], [5, 5])
    assert heatmap.top_channels(W.numpy(), each=True).tolist() == [4, 5, 9, 0]


def test_pictures_are_drawn_also_where_nothing_is_shared() -> None:
    regions = class_channels.regions([[1], [2], [3]])
    for style in (theme.LIGHT, theme.DARK):
        assert venn.venn_picture(regions, ["a $x_1$", "b", "c"], style).size[0] > 600
    assert "all three: 0" in class_channels.venn_words(regions, ["a", "b", "c"])
    picture = heatmap_picture(W.numpy(), [0, 3], ["a", "d"], [0, 1, 2, 3, 4], "W", theme.LIGHT, signed=True, each=True)
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 3


def test_top_sets_are_the_top_channels_also_where_weights_are_equal() -> None:
    W = torch.tensor([[1.0, 2.0, 2.0, 2.0, -1.0], [0.0, 0.0, 3.0, 0.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    ones = torch.ones(3)
    importance = Importance(W, ones, ones.int(), ones.int(), ones, {})  # type: ignore[arg-type]
    for count in (1, 2, 3, 5, 9):
        for index, inside in enumerate(top_sets(importance.W.numpy(), count)):
            assert set(np.flatnonzero(inside)) == set(importance.top_channels(index, count))
