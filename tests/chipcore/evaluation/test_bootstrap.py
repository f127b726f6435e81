"""The bootstrap: what it must give on sets where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from chipcore.evaluation import bootstrap
from chipcore.evaluation.bootstrap import best_threshold, class_mean, mean, paired_interval, whole


def test_a_method_does_not_differ_from_itself() -> None:
    values = np.random.default_rng(0).random(30)
    assert paired_interval(mean(values), mean(values), range(30)) == (0, 0)


def test_a_constant_difference_has_no_spread() -> None:
    values = np.random.default_rng(0).random(30)
    assert paired_interval(mean(values + 0.2), mean(values), range(30)) == pytest.approx((0.2, 0.2))


def test_the_interval_is_that_of_the_normal_law_for_many_images() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.5, 1, 400), rng.normal(0, 1, 400)
    low, high = paired_interval(mean(first), mean(second), range(400), seed=3)
    middle, spread = (first - second).mean(), (first - second).std() / 20
    assert low == pytest.approx(middle - 1.96 * spread, abs=0.2 * spread) and high == pytest.approx(
        middle + 1.96 * spread, abs=0.2 * spread
    )


def test_the_seed_decides() -> None:
    a, b = np.random.default_rng(0).random((2, 20))
    assert paired_interval(mean(a), mean(b), range(20), seed=5) == paired_interval(mean(a), mean(b), range(20), seed=5)
    assert paired_interval(mean(a), mean(b), range(20), seed=5) != paired_interval(mean(a), mean(b), range(20), seed=6)


def test_rows_of_one_image_are_drawn_together() -> None:
    values = np.random.default_rng(0).random(20)
    alone = paired_interval(mean(values), mean(0 * values), range(20))
    # Every image three times says no more than once.
    tripled = paired_interval(mean(values.repeat(3)), mean(0 * values.repeat(3)), np.arange(20).repeat(3).tolist())
    assert tripled == pytest.approx(alone)


def test_the_best_threshold_is_searched_in_every_resample() -> None:
    curve = np.array([[1, 0], [0, 1], [0, 1]])
    assert whole(best_threshold(curve), 3) == pytest.approx(2 / 3)
    assert best_threshold(curve)(np.array([[3.0, 0, 0], [1, 1, 1]])).tolist() == pytest.approx([1, 2 / 3])


def test_several_curves_have_a_best_each() -> None:
    one, other = np.array([[1, 0], [1, 0]]), np.array([[0, 1], [0, 0]])
    assert whole(best_threshold(one, other), 2) == pytest.approx((1 + 0.5) / 2)


def test_class_means_count_every_class_alike() -> None:
    values, classes = np.array([1, 1, 1, 0]), ["a", "a", "a", "b"]
    assert whole(class_mean(values, classes), 4) == pytest.approx(0.5)
    # A class that was not drawn is left out.
    assert class_mean(values, classes)(np.array([[1.0, 0, 0, 0]]))[0] == 1


def test_differences_are_to_the_baseline_and_paired() -> None:
    hits = np.array([1.0, 0, 1, 1])
    found = bootstrap.compare({"chip": {"hit": mean(hits)}, "gradcam": {"hit": mean(1 - hits)}}, "gradcam", range(4), seed=0)
    assert found["gradcam"] == {} and found["chip"]["hit"]["difference"] == pytest.approx(0.5)
    assert found["chip"]["hit"]["low"] < 0.5 < found["chip"]["hit"]["high"]
    assert bootstrap.compare({"chip": {"hit": mean(hits)}}, None, range(4), seed=0) == {"chip": {}}
