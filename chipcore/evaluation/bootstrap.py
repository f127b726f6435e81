"""95% intervals for the difference of two methods on the same images (percentile bootstrap, Efron 1979).

Images are drawn again with replacement, both methods are measured on the drawn ones, and the 2.5th and
97.5th percentiles of the differences are the interval. A method's best threshold is searched again in every
resample, as it was on the whole set: an oracle's luck is then part of the interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 2000
_AT_ONCE = 100

# From how often each image was drawn, (R, S), to a figure for each resample, (R,).
Statistic = Callable[[np.ndarray], np.ndarray]


def best_threshold(*curves: np.ndarray) -> Statistic:
    """The mean over images at the best threshold; several curves have a best each and are averaged.

    Args:
        curves: each (S, T), the value of every image at every threshold.

    Example:
        >>> whole(best_threshold(np.array([[0.0, 1.0], [0.5, 0.5]])), 2)
        0.75
    """
    values = [np.asarray(curve, dtype=np.float32) for curve in curves]

    def measure(weights: np.ndarray) -> np.ndarray:
        drawn = weights.astype(np.float32)
        return np.mean([(drawn @ value).max(1) / weights.sum(1) for value in values], axis=0)

    return measure


def mean(values: np.ndarray) -> Statistic:
    """The mean over images of values (S,).

    Example:
        >>> whole(mean(np.array([1.0, 2.0, 6.0])), 3)
        3.0
    """
    column = np.asarray(values, dtype=np.float64)
    return lambda weights: (weights @ column) / weights.sum(1)


def class_mean(values: np.ndarray, classes: Sequence[object]) -> Statistic:
    """The mean over classes of the mean over each class's images; a class that was not drawn is left out.

    Example:
        >>> whole(class_mean(np.array([1.0, 0.0, 0.0]), ["cat", "dog", "dog"]), 3)
        0.5
    """
    _names, place = np.unique(np.asarray(classes), return_inverse=True)
    member = np.eye(place.max() + 1)[place]  # (S, classes)
    weighed = member * np.asarray(values, dtype=np.float64)[:, None]

    def measure(weights: np.ndarray) -> np.ndarray:
        count = weights @ member
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.nanmean((weights @ weighed) / count, axis=1)

    return measure


def whole(statistic: Statistic, count: int) -> float:
    """The figure on the set itself, every one of ``count`` rows once."""
    return float(statistic(np.ones((1, count)))[0])


def paired_interval(
    first: Statistic, second: Statistic, groups: Sequence[object], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The 95% interval of ``first - second``.

    Args:
        first, second: figures over the same S rows.
        groups: for every row the image (or mosaic) that it comes from; these are drawn, with all their rows.
        seed: the same for every method, so that all are measured on the same resamples.
        resamples: how many.

    Example:
        >>> paired_interval(mean(np.array([1.0, 1.0])), mean(np.array([0.5, 0.5])), ["a", "b"])
        (0.5, 0.5)
    """
    names: dict[object, int] = {}
    place = np.array([names.setdefault(group, len(names)) for group in groups])
    rng = np.random.default_rng(seed)
    differences = []
    for start in range(0, resamples, _AT_ONCE):
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=min(_AT_ONCE, resamples - start))
        weights = times[:, place].astype(np.float64)
        differences.append(first(weights) - second(weights))
    low, high = np.percentile(np.concatenate(differences), [2.5, 97.5])
    return float(low), float(high)


def compare(
    figures: dict[str, dict[str, Statistic]], baseline: str | None, groups: Sequence[object], seed: int
) -> dict[str, dict[str, object]]:
    """For every method the differences to the baseline with their intervals; empty for the baseline itself.

    Args:
        figures: for every method its statistics by name.
    """
    result: dict[str, dict[str, object]] = {}
    for method, named in figures.items():
        result[method] = {}
        if baseline is None or method == baseline or not groups:
            continue
        for name, statistic in named.items():
            other = figures[baseline][name]
            low, high = paired_interval(statistic, other, groups, seed)
            result[method][name] = {"difference": whole(statistic, len(groups)) - whole(other, len(groups)), "low": low, "high": high}
    return result
