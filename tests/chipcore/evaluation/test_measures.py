"""Every protocol on a network that sees nothing but color, where the right figures are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from color_world import BLUE, GREEN, RED, SIZE, SYNSETS, color_network, patch, save_png, save_w, xml

from chipcore.datasets.ilsvrc import Ilsvrc
from chipcore.datasets.image_folder import find_images
from chipcore.datasets.registry import open_dataset, open_mask_dataset
from chipcore.errors import DataError, SettingsError, UnknownName
from chipcore.evaluation import faithfulness, grid_pointing, localization, pointing, segmentation
from chipcore.evaluation.benchmark import MethodSet
from chipcore.evaluation.sanity_checks import randomized, similarity
from chipcore.maps import positive_map
from chipcore.networks import Network
from chipcore.storage import sha256_of_tensors


def opened(folder: Path, network: Network) -> Ilsvrc:
    return Ilsvrc(folder, network.classes, network.geometry)


# --- localization -----------------------------------------------------------------------------------------


def test_localization_by_hand(colors: Network, rivals: None, ilsvrc_folder: Path, tmp_path: Path) -> None:
    panel = MethodSet.of(colors, ["colours"], ["chip", "gradcam", "blank"], save_w(colors, tmp_path / "w"))
    found = localization.evaluate(panel, opened(ilsvrc_folder, colors))
    layer = found.layers["colours"]
    assert layer.images == 2 and layer.skipped == 0 and layer.top1_accuracy == 1
    chip, upside_down, blank = (layer.methods[name] for name in ("chip", "gradcam", "blank"))
    assert chip["max_box_acc"] == chip["max_box_acc_v2"] == 1 and chip["energy_pointing"] == pytest.approx(1)
    assert chip["top1_loc_error"] == chip["top5_loc_error"] == chip["top1_loc_error_at_0.15"] == 0
    assert upside_down["max_box_acc"] == 0 and upside_down["energy_pointing"] == pytest.approx(0) and upside_down["top1_loc_error"] == 1
    assert blank["max_box_acc"] == 0 and blank["energy_pointing"] == 0 and blank["blank_maps"] == 2 and chip["blank_maps"] == 0
    assert chip["difference"]["max_box_acc"] == {"difference": 1, "low": 1, "high": 1}
    assert chip["difference"]["top1_loc_error"] == {"difference": -1, "low": -1, "high": -1}
    assert found.images == 5 and len(found.broken) == 3
    assert any("c.xml is missing" in line for line in found.broken) and any("d.xml is not whole" in line for line in found.broken)


def test_a_wrong_first_class_is_a_top1_error_only(colors: Network, tmp_path: Path) -> None:
    root = tmp_path / "set"
    picture = patch(RED, (0, 0, 3, 3)) + patch(GREEN, (8, 0, 15, 7))  # more green than red
    save_png(picture, root / "Data/CLS-LOC/val/a.png")
    (root / "Annotations/CLS-LOC/val").mkdir(parents=True)
    (root / "Annotations/CLS-LOC/val/a.xml").write_text(xml(SYNSETS[RED], [(0, 0, 3, 3)]))
    panel = MethodSet.of(colors, ["colours"], ["chip"], save_w(colors, tmp_path / "w"))
    chip = localization.evaluate(panel, opened(root, colors)).layers["colours"].methods["chip"]
    assert chip["max_box_acc"] == 1 and chip["top1_loc_error"] == 1 and chip["top5_loc_error"] == 0


def test_classes_without_w_are_left_out_for_every_method_alike(colors: Network, rivals: None, ilsvrc_folder: Path, tmp_path: Path) -> None:
    panel = MethodSet.of(colors, ["colours"], ["gradcam", "chip"], save_w(colors, tmp_path / "w", rows=(RED,), weak=(RED,)))
    layer = localization.evaluate(panel, opened(ilsvrc_folder, colors)).layers["colours"]
    assert layer.images == 1 and layer.skipped_because == {"no fitted row of W": 1} and layer.weak_rows == 1
    assert layer.methods["gradcam"]["images"] == layer.methods["chip"]["images"] == 1


def test_weak_rows_can_be_left_out_and_then_nothing_is_left(colors: Network, ilsvrc_folder: Path, tmp_path: Path) -> None:
    panel = MethodSet.of(colors, ["colours"], ["chip"], save_w(colors, tmp_path / "w", weak=(RED, GREEN)), evidence="good")
    layer = localization.evaluate(panel, opened(ilsvrc_folder, colors)).layers["colours"]
    assert layer.images == 0 and layer.skipped == 2 and layer.methods["chip"]["max_box_acc"] is None


def test_min_max_and_share_of_maximum_differ_where_a_map_has_no_zero() -> None:
    outcomes = localization.Outcomes()
    heat = np.full((8, 8), 0.5, np.float32)
    heat[:2, :2] = 1.0
    outcomes.add(heat, np.array([[0, 0, 1, 1]]))
    assert outcomes.v1[0].all()  # stretched: the background is 0 at every threshold
    assert not outcomes.table2[0][:50].any() and outcomes.table2[0][50:].all()


def test_the_limit_draws_over_the_whole_set(colors: Network, ilsvrc_folder: Path, tmp_path: Path) -> None:
    panel = MethodSet.of(colors, ["colours"], ["chip"], save_w(colors, tmp_path / "w"))
    assert localization.evaluate(panel, opened(ilsvrc_folder, colors), limit=2).images == 2


def test_unknown_names_are_refused(colors: Network, rivals: None, ilsvrc_folder: Path, tmp_path: Path) -> None:
    folder = save_w(colors, tmp_path / "w")
    with pytest.raises(UnknownName, match="no method"):
        MethodSet.of(colors, ["colours"], ["chop"], folder)
    with pytest.raises(UnknownName, match="no layer"):
        MethodSet.of(colors, ["head"], ["chip"], folder)
    with pytest.raises(SettingsError, match="twice"):
        MethodSet.of(colors, ["colours", "relu"], ["gradcam"], folder)
    nameless = color_network(synsets=())
    with pytest.raises(DataError, match="synsets"):
        opened(ilsvrc_folder, nameless)


# --- masks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_iou_curves_are_those_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heat, mask = rng.random((7, 9)).round(2), rng.random((7, 9)) > 0.6
    curve = segmentation.mask_iou_curve(heat, mask)
    for i in range(100):
        above = heat > i / 100
        assert curve[i] == pytest.approx((above & mask).sum() / (above | mask).sum())


def scenes_folder(root: Path) -> Path:
    """Two SceneParse150 pictures whose scene is told and whose road (object 7) is a red patch; a third without a road."""
    lines = []
    for name, box, number in (("one", (2, 2, 9, 9), 7), ("two", (4, 0, 11, 5), 7), ("none", (0, 0, 3, 3), 5)):
        save_png(patch(RED, box), root / "images/validation" / f"{name}.jpg.png")
        (root / "images/validation" / f"{name}.jpg.png").rename(root / "images/validation" / f"{name}.jpg")
        mask = (patch(RED, box)[..., 0] > 0).astype(np.uint8) * number
        save_png(mask, root / "annotations/validation" / f"{name}.png")
        lines.append(f"{name} street")
    (root / "sceneCategories.txt").write_text("\n".join(lines))
    return root


def test_segmentation_by_hand(rivals: None, tmp_path: Path) -> None:
    network = color_network(("street", "kitchen", "office"), ())
    panel = MethodSet.of(network, ["colours"], ["chip", "gradcam"], save_w(network, tmp_path / "w"))
    source = open_mask_dataset(scenes_folder(tmp_path / "ade"), network.classes, network.geometry)
    layer = segmentation.evaluate(panel, source).layers["colours"]
    assert layer.objects == 2 and layer.skipped_because == {"object not in view": 1}
    assert layer.methods["chip"]["iou"] == pytest.approx(1) and layer.methods["chip"]["iou_by_object"] == {"street: road": pytest.approx(1)}
    upside_down = layer.methods["gradcam"]["iou"]
    # Rows 2..9 become 6..13: 4 of 8 rows stay, 4/12; rows 0..5 become 10..15: none.
    assert upside_down == pytest.approx((1 / 3 + 0) / 2)
    assert layer.methods["chip"]["difference"]["iou"]["difference"] == pytest.approx(1 - 1 / 6)


def test_a_network_that_knows_no_scene_is_refused(colors: Network, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Places365"):
        open_mask_dataset(scenes_folder(tmp_path / "ade"), colors.classes, colors.geometry)


def test_the_pointing_game_forgives_up_to_the_tolerance() -> None:
    large, mask = np.zeros((40, 40)), np.zeros((40, 40), dtype=bool)
    large[20, 35], mask[20, 20] = 1, True
    assert pointing.hits(large, mask, 16) and not pointing.hits(large, mask, 15), "at 15 pixels exactly TorchRay counts no hit"
    large[20, 35], large[11, 32] = 0, 1  # 9 down and 12 across: 15 away, but 12 by the larger of the two
    assert pointing.hits(large, mask, 16) and not pointing.hits(large, mask, 15)


def test_a_map_without_a_positive_part_points_nowhere() -> None:
    assert not pointing.hits(np.zeros((5, 5)), np.ones((5, 5), dtype=bool)) and not pointing.hits(-np.eye(5), np.ones((5, 5), dtype=bool))


def test_pointing_by_hand(colors: Network, rivals: None, ilsvrc_folder: Path, tmp_path: Path) -> None:
    panel = MethodSet.of(colors, ["colours"], ["chip", "gradcam", "blank"], save_w(colors, tmp_path / "w"))
    found = pointing.evaluate(panel, opened(ilsvrc_folder, colors), tolerance=0)
    methods = found.layers["colours"].methods
    assert methods["chip"]["pointing"] == 1 and methods["chip"]["energy_pointing"] == pytest.approx(1) and methods["chip"]["hits"] == 2
    assert methods["gradcam"]["pointing"] == methods["blank"]["pointing"] == 0 and methods["blank"]["misses"] == 2
    assert methods["chip"]["difference"]["pointing"] == {"difference": 1, "low": 1, "high": 1}
    assert len(found.broken) == 3 and found.layers["colours"].classes == 2


# --- mosaics ----------------------------------------------------------------------------------------------


def test_cells_in_reading_order() -> None:
    assert grid_pointing.cells_of(4, 2).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert np.bincount(grid_pointing.cells_of(224, 3).ravel()).min() > 74**2 - 1


def test_shares_of_the_positive_part() -> None:
    raw = torch.tensor([[3.0, -9.0], [1.0, 0.0]])
    finished, nothing = (positive_map(one, 2).numpy() for one in (raw, -torch.ones(2, 2)))
    assert grid_pointing.shares(finished, 2).tolist() == [0.75, 0, 0.25, 0] and grid_pointing.shares(nothing, 2).tolist() == [0, 0, 0, 0]


def class_folders(root: Path) -> Path:
    for color, synset in enumerate(SYNSETS):
        for number in range(2):
            save_png(patch(color, (number, 0, 12, 15)), root / synset / f"{number}.png")
    save_png(patch(RED, (0, 0, 15, 15)), root / SYNSETS[BLUE] / "wrong.png")  # blue by name only
    save_png(patch(RED, (0, 0, 15, 15)), root / "somewhere" / "else.png")
    return root


@pytest.mark.parametrize(("scale", "size"), [("full", 2 * SIZE), ("squashed", SIZE)])
def test_the_grid_game_by_hand(rivals: None, tmp_path: Path, scale: str, size: int) -> None:
    network = four_colors()
    root = tmp_path / "photos"
    for color in range(4):
        for number in range(2):
            picture = np.zeros((SIZE, SIZE, 3), np.uint8)
            picture[..., color if color < 3 else slice(0, 2)] = 250 - number
            save_png(picture, root / f"class {color}" / f"{number}.png")
    save_png(patch(RED, (0, 0, 15, 15)), root / "class 2" / "wrong.png")
    save_png(patch(RED, (0, 0, 15, 15)), root / "somewhere" / "else.png")
    panel = MethodSet.of(network, ["colours"], ["gradcam"])
    found = grid_pointing.evaluate(panel, root, 2, mosaics=5, confidence=0.9, scale=scale)  # type: ignore[arg-type]
    assert found.mosaic_size == size and found.mosaics == 5 and found.unknown_folders == ["somewhere"] and found.chance == 0.25
    # Upside down the map of one cell is in the other of its column.
    assert found.layers["colours"].methods["gradcam"]["grid_pointing"] == pytest.approx(0, abs=0.02)
    with pytest.raises(DataError, match="fewer than 9 classes"):
        grid_pointing.evaluate(panel, root, 3, mosaics=1, confidence=0.9)


def four_colors() -> Network:
    """Red, green, blue and yellow, each with a channel of its own that is 0 for the others."""
    from collections import OrderedDict

    from torch import nn

    from chipcore.datasets.class_names import Classes
    from chipcore.images import InputGeometry

    model = nn.Sequential(OrderedDict(
        mix=nn.Conv2d(3, 4, 1), relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), classifier=nn.Linear(4, 4)
    ))  # fmt: skip
    with torch.no_grad():
        model.mix.weight.copy_(torch.tensor([[1.0, -1, 0], [-1, 1, 0], [0, 0, 1], [1, 1, 0]])[..., None, None])
        model.mix.bias.copy_(torch.tensor([0.0, 0, 0, -1]))
        model.classifier.weight.copy_(40 * torch.eye(4))
        model.classifier.bias.zero_()
    geometry = InputGeometry(size=SIZE, resize=SIZE, fit="squash", mean=(0.0,) * 3, std=(1.0,) * 3)
    return Network.wrap(
        model, name="four", layers=(("colours", "relu"),), geometry=geometry, classes=Classes(tuple(f"class {i}" for i in range(4)))
    )


def test_a_grid_needs_sensible_settings(colors: Network, rivals: None, tmp_path: Path) -> None:
    panel = MethodSet.of(colors, ["colours"], ["gradcam"])
    for wrong in ({"side": 1}, {"mosaics": 0}, {"confidence": 1.5}):
        with pytest.raises(SettingsError):
            grid_pointing.evaluate(panel, tmp_path, **wrong)
    assert open_dataset(class_folders(tmp_path / "photos"), colors.classes, colors.geometry) is None


# --- faithfulness -----------------------------------------------------------------------------------------


def test_areas() -> None:
    assert faithfulness.area(np.ones(5)) == 1 and faithfulness.area(np.array([1.0, 0])) == 0.5
    assert faithfulness.area(np.array([1.0, 0, 0])) == 0.25


def test_pixels_go_in_the_map_s_order_and_equal_ones_by_lot() -> None:
    assert faithfulness.pixel_order(torch.tensor([[0.1, 0.9], [-1.0, 0.5]]), 2, 0).tolist() == [1, 3, 0, 2]
    first, second = (faithfulness.pixel_order(torch.zeros(5, 5), 5, seed) for seed in (0, 1))
    assert sorted(first) == list(range(25)) and first.tolist() != list(range(25)) and (first != second).any()


def test_pixel_curves_by_hand(colors: Network) -> None:
    inputs = torch.zeros(1, 3, SIZE, SIZE)
    inputs[0, RED, 0] = 1  # the first row is red
    order = np.arange(SIZE * SIZE)
    curve = faithfulness.pixel_curve(colors, inputs, torch.zeros_like(inputs), order, RED, steps=32)

    def f(pixels: float) -> float:
        score = 40 * pixels / SIZE**2
        return float(np.exp(score) / (np.exp(score) + 2))

    assert curve == pytest.approx([f(16), f(8)] + [f(0)] * 31, rel=1e-5)


def test_blurring_keeps_the_mean_of_a_flat_picture() -> None:
    flat = torch.full((1, 3, 20, 20), 0.7)
    torch.testing.assert_close(faithfulness.blurred(flat), flat)


def test_gates_close_in_order() -> None:
    assert faithfulness.closing_gates(torch.tensor([2, 0, 1]), 3).tolist() == [[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert faithfulness.closing_gates(torch.arange(7), 2).sum(1).tolist() in ([7, 3, 0], [7, 4, 0])


def test_channel_weights_are_the_mean_gradient(colors: Network, tmp_path: Path) -> None:
    panel = MethodSet.of(colors, ["colours"], ["chip"], save_w(colors, tmp_path / "w"))
    activations = panel.look(torch.rand(1, 3, SIZE, SIZE))
    alpha = faithfulness.channel_weights(colors, colors.layers[0], panel.layers, activations, GREEN)
    torch.testing.assert_close(alpha, torch.tensor([0, 40 / SIZE**2, 0]))


def test_closing_the_class_s_own_channel_first_loses_it_soonest(colors: Network, tmp_path: Path) -> None:
    panel = MethodSet.of(colors, ["colours"], ["chip"], save_w(colors, tmp_path / "w"))
    activations = panel.look(torch.ones(1, 3, SIZE, SIZE) * torch.tensor([0.5, 0.2, 0.2])[:, None, None])
    curves = faithfulness.channel_curves(panel, colors.layers[0], activations, RED, 3, np.random.default_rng(0))
    assert curves["W"] == pytest.approx(curves["gradcam weights"]) and faithfulness.area(curves["W"]) < faithfulness.area(curves["random"])
    opened = np.exp(40 * np.array([0.5, 0.2, 0.2]))
    assert curves["W"][0] == pytest.approx(opened[0] / opened.sum()) and curves["W"][-1] == pytest.approx(1 / 3)
    assert curves["W"][1] == pytest.approx(1 / (1 + 2 * opened[1]), rel=1e-4)


def test_randomising_happens_on_a_copy_from_the_end_upwards(colors: Network) -> None:
    before = sha256_of_tensors(colors.model.state_dict().items())
    last, everything = randomized(colors, "last", 0), randomized(colors, "all", 0)
    assert sha256_of_tensors(colors.model.state_dict().items()) == before == colors.weights_sha256
    assert torch.equal(last.model.mix.weight, colors.model.mix.weight) and not torch.equal(
        last.model.classifier.weight, colors.model.classifier.weight
    )
    assert not torch.equal(everything.model.mix.weight, colors.model.mix.weight)
    again = randomized(colors, "all", 0)
    assert torch.equal(again.model.mix.weight, everything.model.mix.weight)
    inputs = torch.rand(1, 3, SIZE, SIZE)
    assert not torch.equal(everything.forward_prefix(inputs).scores, colors.forward_prefix(inputs).scores)


def test_similarity_of_a_map_with_itself_its_opposite_and_a_flat_one() -> None:
    ramp = torch.arange(256.0).reshape(16, 16) - 128
    assert similarity(ramp, ramp, 16) == pytest.approx((1, 1)) and similarity(ramp, -ramp, 16)[0] == pytest.approx(-1)  # type: ignore[index]
    assert similarity(ramp, torch.zeros_like(ramp), 16) is None


def test_faithfulness_by_hand(colors: Network, rivals: None, tmp_path: Path) -> None:
    images = find_images(class_folders(tmp_path / "photos"))
    panel = MethodSet.of(colors, ["colours"], ["chip", "gradcam"], save_w(colors, tmp_path / "w"))
    found = faithfulness.evaluate(panel, images, limit=4, steps=8, channel_steps=3)
    layer = found.layers["colours"]
    assert layer.images == 4 and set(layer.channels) == {
        "W",
        "W x activation",
        "gradcam weights",
        "gradcam weights x activation",
        "random",
    }
    chip = layer.methods["chip"]
    assert chip["deletion_auc"] <= layer.methods["gradcam"]["deletion_auc"] + 1e-6 and len(chip["deletion_curve"]) == 9
    # What follows the layer has no say in a CHIP map.
    assert chip["sanity"]["last"]["spearman"] == pytest.approx(1) and chip["sanity"]["last"]["ssim"] == pytest.approx(1)
    json.loads(found.to_json())
    with pytest.raises(SettingsError, match="parts"):
        faithfulness.evaluate(panel, images, parts=("everything",))
