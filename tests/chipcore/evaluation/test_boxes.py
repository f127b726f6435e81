"""Boxes: worked out by hand, and against a flood fill at every threshold."""

from __future__ import annotations

import numpy as np
import pytest

from chipcore.datasets.annotations import box_to_view, mask_of_boxes, mask_to_view
from chipcore.errors import ChipError
from chipcore.evaluation.boxes import THRESHOLDS, iou, largest_box, levels, overlap_curves
from chipcore.images import InputGeometry

SQUASH = InputGeometry(size=224, fit="squash", resize=224)
CROP = InputGeometry(size=224, fit="crop", resize=256)


def test_iou_counts_the_pixels_at_both_ends() -> None:
    first = np.array([[0, 0, 1, 1], [5, 5, 5, 5]])
    second = np.array([[1, 1, 2, 2], [0, 0, 1, 1], [5, 5, 6, 5]])
    np.testing.assert_allclose(iou(first, second), [[1 / 7, 1, 0], [0, 0, 1 / 2]])


def test_a_box_of_the_whole_annotation_is_the_whole_view_whatever_the_file_was_resized_to() -> None:
    assert box_to_view((0, 0, 499, 374), (500, 375), (227, 227), SQUASH) == (0, 0, 223, 223)


def test_a_box_is_scaled_from_the_size_in_the_xml_not_from_the_file() -> None:
    # 448 x 112 annotated: x is halved, y doubled, and a pixel covers its whole width.
    assert box_to_view((100, 10, 101, 10), (448, 112), (50, 50), SQUASH) == (50, 20, 50, 21)


def test_a_thin_box_keeps_a_pixel() -> None:
    assert box_to_view((1000, 1000, 1000, 1000), (2240, 2240), (2240, 2240), SQUASH) == (100, 100, 100, 100)


def test_a_crop_moves_cuts_and_loses_boxes() -> None:
    # 200 x 100 on disk: the view is the square of 87.5 px from (56.25, 6.25).
    assert box_to_view((56, 6, 143, 93), (200, 100), (200, 100), CROP) == (0, 0, 223, 223)
    assert box_to_view((0, 0, 10, 10), (200, 100), (200, 100), CROP) is None
    # Annotated at twice the size: pixels 200..217 are 100..109 on disk, (100 - 56.25) / 87.5 * 224 = 112 to 137.6.
    assert box_to_view((200, 100, 219, 119), (400, 200), (200, 100), CROP) == (112, 112, 137, 137)


@pytest.mark.parametrize("geometry", [SQUASH, CROP])
def test_masks_and_boxes_go_the_same_way(geometry: InputGeometry) -> None:
    box, size = (120, 40, 170, 90), (300, 200)
    mask = np.zeros((size[1], size[0]), dtype=bool)
    mask[40:91, 120:171] = True
    seen = mask_to_view(mask, geometry)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    found = np.array([columns[0], rows[0], columns[-1], rows[-1]])
    assert np.abs(found - np.array(box_to_view(box, size, size, geometry))).max() <= 1


def test_the_union_of_boxes() -> None:
    assert mask_of_boxes(np.array([[0, 0, 1, 1], [1, 1, 2, 1]]), 4).sum() == 5


def test_levels_are_strict() -> None:
    thresholds = np.array([0.0, 0.25, 0.5])
    assert levels(np.array([[0.0, 0.1, 0.25, 0.5, 1.0]]), thresholds).tolist() == [[0, 1, 1, 2, 3]]


def test_largest_and_best_component() -> None:
    heat = np.zeros((6, 6))
    heat[0:3, 0:3] = 0.4  # 9 pixels, and gone above 0.4
    heat[5, 4:6] = 1.0
    truth = np.array([[4, 5, 5, 5]])
    largest, best = overlap_curves(heat, truth)
    low, high = THRESHOLDS < 0.4, THRESHOLDS >= 0.4
    assert (largest[low] == 0).all() and (best == 1).all() and (largest[high] == 1).all()


def test_nothing_above_the_threshold_covers_nothing() -> None:
    for curve in overlap_curves(np.zeros((5, 5)), np.array([[0, 0, 0, 0]])):
        assert (curve == 0).all()
    assert largest_box(np.zeros((5, 5)), 0.0) is None


def test_pixels_that_touch_at_a_corner_are_one_component() -> None:
    assert largest_box(np.eye(4), 0.5) == (0, 0, 3, 3)


def components(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Eight-connected components by flood fill."""
    waiting = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    while waiting:
        stack, members = [waiting.pop()], []
        while stack:
            y, x = stack.pop()
            members.append((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & waiting
            waiting -= near
            stack += near
        found.append(members)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_curves_are_those_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heat = rng.random((9, 11)).round(2 if seed % 2 else 6) ** 2
    truth = np.array([[1, 2, 5, 6], [7, 0, 8, 8]])
    thresholds = THRESHOLDS[::7]
    largest, best = overlap_curves(heat, truth, thresholds)
    for i, threshold in enumerate(thresholds):
        boxes, areas = [], []
        for members in components(heat > threshold):
            ys, xs = zip(*members, strict=True)
            boxes.append((min(xs), min(ys), max(xs), max(ys)))
            areas.append(len(members))
        overlap = [max(_slow_iou(box, true) for true in truth) for box in boxes]
        assert best[i] == pytest.approx(max(overlap, default=0))
        biggest = [value for value, area in zip(overlap, areas, strict=True) if area == max(areas)]
        assert any(largest[i] == pytest.approx(value) for value in (biggest or [0]))


def _slow_iou(a: tuple[int, ...], b: np.ndarray) -> float:
    def pixels(box: tuple[int, ...] | np.ndarray) -> set[tuple[int, int]]:
        return {(x, y) for x in range(box[0], box[2] + 1) for y in range(box[1], box[3] + 1)}

    return len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b))


def test_a_box_that_is_turned_round_is_an_error() -> None:
    good, turned = np.array([[0, 0, 5, 5]]), np.array([[4, 0, 2, 9]])
    for pair in ((good, turned), (turned, good)):
        with pytest.raises(ChipError, match=r"\[4, 0, 2, 9\] is turned round"):
            iou(*pair)
