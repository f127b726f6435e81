"""The parts of a run, each against its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from chipcore.networks import Network
from chipcore.networks.architectures.vgg_slim import VGGSlim, fold_batch_norm
from chipcore.training.photographs import Augmentation, crops, cut, erase, find_classes, recolor
from chipcore.training.settings import TrainSettings
from chipcore.training.teacher import Guide, guide


def test_folding_batch_norm_changes_no_score() -> None:
    torch.manual_seed(0)
    model = VGGSlim(5, 4, batch_norm=True).double()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics and scales as training leaves them, some scales negative
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.01, 4)  # type: ignore[union-attr]
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    plain = VGGSlim(5, 4).double()
    plain.load_state_dict(fold_batch_norm(model.state_dict()))
    x = torch.randn(3, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected, got = model.eval()(x), plain.eval()(x)
        assert torch.allclose(expected, got, rtol=1e-12, atol=1e-12)
        at = [model.features[: i + 1](x) for i in range(len(model.features))]
        folded = [plain.features[: i + 1](x) for i in range(len(plain.features))]
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-10) for a, b in zip(at, folded, strict=True)), "every layer, not only the last"
    assert expected.std() > 1e-3


def test_a_crop_is_the_same_box_of_the_image_and_of_its_maps() -> None:
    image = torch.arange(2 * 8 * 8, dtype=torch.float32).reshape(1, 2, 8, 8)
    # Columns 2 to 5 and rows 4 to 7 of 8: half the side, centerd at (4 - 4) / 4 = 0 and (6 - 4) / 4 = 0.5.
    theta = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.5]]])
    assert torch.allclose(cut(image, theta, 4), image[:, :, 4:8, 2:6], atol=1e-4)
    mirrored = theta.clone()
    mirrored[:, 0, 0] *= -1
    assert torch.allclose(cut(image, mirrored, 4), image[:, :, 4:8, 2:6].flip(3), atol=1e-4)
    maps = torch.nn.functional.avg_pool2d(image, 2)  # a feature map at half the resolution
    assert torch.allclose(cut(maps, theta, 2), maps[:, :, 2:4, 1:3], atol=1e-4)


def test_random_crops_keep_to_their_bounds() -> None:
    how = Augmentation()
    theta = crops(4000, how, np.random.default_rng(0)).numpy()
    wide, high = np.abs(theta[:, 0, 0]), theta[:, 1, 1]
    assert (theta[:, 0, 0] < 0).mean() == pytest.approx(0.5, abs=0.05), "half are mirrored"
    area = wide * high
    assert area.max() <= 1 and area.min() >= how.area[0] * 0.85, "a crop that is cut at the border loses some area"
    assert wide.max() <= 1 and high.max() <= 1
    assert (wide / high).max() <= how.aspect + 1e-4 and (high / wide).max() <= how.aspect + 1e-4
    assert (np.abs(theta[:, 0, 2]) + wide <= 1 + 1e-6).all() and (np.abs(theta[:, 1, 2]) + high <= 1 + 1e-6).all(), "inside the photograph"
    assert theta[:, 0, 2].std() > 0.05 and theta[:, 1, 2].std() > 0.05


def test_colors_change_and_stay_colors() -> None:
    x = torch.rand(64, 3, 8, 8)
    y = recolor(x, Augmentation(), np.random.default_rng(0))
    assert y.min() >= 0 and y.max() <= 1 and not torch.allclose(x, y, atol=0.1)
    still = recolor(x, Augmentation(jitter=0, gray=0), np.random.default_rng(0))
    assert torch.allclose(still, x, atol=1e-6)
    gray = recolor(x, Augmentation(jitter=0, gray=1), np.random.default_rng(0))
    assert torch.allclose(gray[:, 0], gray[:, 2], atol=1e-6)


def test_erased_rectangles_are_as_many_and_as_large_as_said() -> None:
    x = erase(torch.ones(400, 3, 32, 32), Augmentation(erased=0.5), np.random.default_rng(0))
    share = (x == 0).float().mean((1, 2, 3))
    assert (share > 0).float().mean() == pytest.approx(0.5, abs=0.08)
    assert share[share > 0].min() > 0.03 and share.max() < 0.30
    assert torch.equal((x == 0).any(1), (x == 0).all(1)), "all three colours of a pixel"


def test_the_rate_is_flat_whatever_the_number_of_epochs_then_falls_to_nothing() -> None:
    short, long = TrainSettings(epochs=10), TrainSettings(epochs=50)
    assert short.flat_epochs == 6 and long.flat_epochs == 30
    assert [short.rate(at) for at in (0.5, 1.5, 3, 5.9)] == [long.rate(at) for at in (0.5, 1.5, 3, 5.9)]
    assert short.rate(3) == short.rate(6) == short.learning_rate
    assert short.rate(8) == pytest.approx(short.learning_rate / 2) and short.rate(10) == 0
    assert 0 < short.rate(0) < 0.02 * short.learning_rate
    assert [TrainSettings(size=160, epochs=10).crop(at) for at in (0, 5, 6, 9)] == [96, 96, 128, 128]


def test_a_teachers_guide_knows_what_a_crop_shows(lite0: Network, data: Path, tmp_path: Path) -> None:
    for name in ("frog", "golf_ball", "zebra"):
        (tmp_path / name).mkdir()
        for file in sorted((data / "fourteen" / "train" / name).iterdir())[:16]:
            (tmp_path / name / file.name).symlink_to(file)
    (tmp_path / "zebra" / "zz.jpg").write_bytes(b"no photograph")
    folders = find_classes(tmp_path)
    known = guide(lite0, folders)
    assert known.maps.shape == (49, 128, 7, 7) and not known.maps[-1].any() and known.maps[:-1].flatten(1).any(1).all()
    right = known.scores(known.maps.float()).argmax(1)[:-1] == folders.labels[:-1]
    assert right.float().mean() > 0.9
    # The maps keep what the teacher said: their direction and place by place differences, not only the average.
    view = lite0.geometry.tensor(_open(folders.images.root / folders.images.names[40]))[None]
    features = lite0.forward_prefix(view, (lite0.layer("head"),)).features["head"][0].flatten(1)
    near = torch.nn.functional.cosine_similarity(
        torch.corrcoef(features.T).flatten(), torch.corrcoef(known.maps[40].float().flatten(1).T).flatten(), dim=0
    )
    assert near > 0.5
    known.save(tmp_path / "guide.pt", "this run")
    read = Guide.load(tmp_path / "guide.pt", "this run")
    assert read is not None and torch.equal(read.maps, known.maps) and torch.equal(read.weight, known.weight)
    assert Guide.load(tmp_path / "guide.pt", "another run") is None
    (tmp_path / "guide.pt").write_bytes(b"half")
    assert Guide.load(tmp_path / "guide.pt", "this run") is None


def _open(path: Path):  # type: ignore[no-untyped-def]
    from chipcore.images import open_image

    return open_image(path)
