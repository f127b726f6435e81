"""The fit end to end: against the definition on a tiny network, and on real images."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import chipcore
from chipcore.datasets.image_folder import ImageFolder, find_images
from chipcore.errors import ChipError, DataError, SettingsError
from chipcore.fitting.moments import Moments
from chipcore.fitting.pipeline import Gathered, Progress, gather, plan
from chipcore.fitting.regression import solve_rows
from chipcore.fitting.settings import FitSettings
from chipcore.gating.gates import draw_uniform, generator
from chipcore.images import open_image
from chipcore.networks import Network
from chipcore.solvers import admm


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Noise in two class folders: enough for a network whose answers only have to be reproducible."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(12):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    return tmp_path


SETTINGS = FitSettings(gates=6, held_out=0.25, background=0.5)


def gathered_from(network: Network, layer: str, images: ImageFolder, held: frozenset[str]) -> Gathered:
    [[share]] = plan([network.layer(layer)], range(3), 1 << 30)
    gathered = Gathered.empty(share)
    gather(network, [gathered], images, held, SETTINGS)
    return gathered


def test_gathered_moments_are_equation_11_with_full_passes(tiny: Network, folder: Path) -> None:
    """Image by image, gate by gate, through the whole network with a hook, in plain loops."""
    images = find_images(folder)
    held = images.held_out(SETTINGS.held_out)
    got = gathered_from(tiny, "second", images, held)
    everywhere, everywhere_cross, weight = torch.zeros(5, 5, dtype=torch.float64), torch.zeros(3, 5, dtype=torch.float64), 0.0
    everywhere_first, everywhere_mean = torch.zeros(5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for kept, moments in ((False, got.training), (True, got.held_out)):
        gram, cross, first = torch.zeros(3, 5, 5, dtype=torch.float64), *(torch.zeros(3, 5, dtype=torch.float64) for _ in range(2))
        for name in images.names:
            if (name in held) is not kept:
                continue
            x = tiny.input(open_image(folder / name))
            f = tiny.model(x).softmax(1)[0].double()
            for d in torch.from_numpy(draw_uniform(SETTINGS.gates, 5, generator(0, "second", name))).float():
                seen: list[torch.Tensor] = []

                def hook(
                    _m: object, _i: object, output: torch.Tensor, d: torch.Tensor = d, seen: list[torch.Tensor] = seen
                ) -> torch.Tensor:
                    seen.append(output * d[:, None, None])
                    return seen[0].clone()

                handle = tiny.model.get_submodule("second").register_forward_hook(hook)
                g = tiny.model(x)[0].double()
                handle.remove()
                z = seen[0].mean((2, 3))[0].double()
                h = torch.exp(-(d - 1).square().sum().double() / 5)
                if not kept:
                    everywhere += h * torch.outer(z, z)
                    everywhere_cross += h * torch.outer(g, z)
                    everywhere_first += h * z
                    everywhere_mean += h * g
                    weight += float(h)
                for c in range(3):
                    if f[c] >= SETTINGS.cutoff:
                        gram[c] += f[c] * h * torch.outer(z, z)
                        cross[c] += f[c] * h * g[c] * z
                        first[c] += f[c] * h * z
        torch.testing.assert_close(moments.gram, gram, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(moments.first, first, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(moments.cross, cross, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.background.gram, everywhere, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.background.cross, everywhere_cross, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.background.first, everywhere_first, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.background.mean, everywhere_mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(float(got.background.weight), weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("intercept", [False, True])
def test_w_minimises_the_mixed_objective(tiny: Network, folder: Path, intercept: bool) -> None:
    """Own and everybody's sums, each divided by its weight: the lasso's optimality conditions, for every share."""
    got = gathered_from(tiny, "late", find_images(folder), frozenset())
    slots = (got.training.loyalty > 0.5).nonzero().flatten()
    for share in (0.0, 0.3, 1.0):
        settings = FitSettings(lambda_ratio=1e-2, background=share, intercept=intercept)
        W, constants = solve_rows(got.training, slots, settings, got.background)
        for row, constant, c in zip(W, constants, slots, strict=True):
            own, everybody = got.training, got.background
            u, v = (1 - share) / own.weight[c], share / everybody.weight
            G, b = u * own.gram[c] + v * everybody.gram, u * own.cross[c] + v * everybody.cross[c]
            first, mean = u * own.first[c] + v * everybody.first, u * own.mean[c] + v * everybody.mean[c]
            gradient = G @ row + constant * first - b
            if intercept:  # not penalised: the residual's mean is zero at the best constant
                torch.testing.assert_close(first @ row + constant, mean[0], rtol=1e-9, atol=1e-12)
            else:
                assert constant == 0
            lam = 1e-2 * (b - intercept * first * mean).abs().max()
            on = row != 0
            assert on.any()
            torch.testing.assert_close(gradient[on], -lam * row[on].sign(), rtol=1e-5, atol=1e-7 * float(b.abs().max()))
            assert (gradient[~on].abs() <= lam * 1.0001).all()


def test_a_fit_keeps_the_best_w_with_its_constant(tiny: Network, folder: Path) -> None:
    """R2 of a fit with an intercept is that of W and the constant together, on images that were held out."""
    images = find_images(folder)
    settings = replace(SETTINGS, intercept=True)
    got = gathered_from(tiny, "late", images, images.held_out(settings.held_out))
    slots = (got.training.loyalty > settings.min_evidence).nonzero().flatten()
    W, constants = solve_rows(got.training, slots, settings, got.background)
    fitted = chipcore.fit(tiny, ["late"], images, settings)["late"]
    torch.testing.assert_close(fitted.W[slots], W.float())
    whole, b = torch.zeros_like(got.training.cross), torch.zeros_like(got.training.mean)
    whole[slots], b[slots] = W, constants
    torch.testing.assert_close(fitted.r2[slots], got.held_out.r2(whole, b)[slots].float(), equal_nan=True)
    assert fitted.r2[slots].nan_to_num(0).abs().max() > 0


def test_two_halves_added_give_the_w_of_one_pass(tiny: Network, folder: Path) -> None:
    images = find_images(folder)
    held = images.held_out(SETTINGS.held_out)
    half = len(images) // 2
    whole = gathered_from(tiny, "late", images, held)
    first = gathered_from(tiny, "late", ImageFolder(images.root, images.names[:half]), held)
    second = gathered_from(tiny, "late", ImageFolder(images.root, images.names[half:]), held)
    first.training += second.training

    def solve(moments: Moments) -> torch.Tensor:
        return admm.solve(moments.gram, moments.cross, 1e-3 * admm.lambda_max(moments.cross)).W

    # Other batches round otherwise in float32; the sums themselves add up to 1e-14 (test_moments).
    expected = solve(whole.training)
    torch.testing.assert_close(solve(first.training), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_layers_together_classes_in_blocks_and_alone_agree(tiny: Network, folder: Path) -> None:
    both = chipcore.fit(tiny, ["early", "late"], folder, SETTINGS)
    alone = chipcore.fit(tiny, ["late"], folder, SETTINGS)
    blocks = chipcore.fit(tiny, ["early", "late"], folder, SETTINGS, memory=2 * Moments.bytes_per_class(5))
    assert (alone["late"].support > 0).any()
    near = 1e-4 * float(alone["late"].W.abs().max())
    torch.testing.assert_close(both["late"].W, alone["late"].W, rtol=0, atol=near)
    for name in ("early", "late"):
        torch.testing.assert_close(both[name].W, blocks[name].W, rtol=0, atol=near)
    some = chipcore.fit(tiny, ["late"], folder, SETTINGS, classes=["class 1"])["late"]
    torch.testing.assert_close(some.W[1], alone["late"].W[1], rtol=0, atol=near)
    assert not some.W[[0, 2]].any()


def test_the_moments_of_a_pass_are_gone_in_the_next(tiny: Network, folder: Path) -> None:
    before: list[weakref.ref[Moments]] = []
    alive: list[int] = []

    def watch(gathered: Gathered) -> None:
        before.append(weakref.ref(gathered.training))

    def progress(_at: Progress) -> None:
        if _at.stage == "photographs":
            alive.append(sum(one() is not None for one in before))

    chipcore.fit(tiny, ["late"], folder, SETTINGS, memory=2 * Moments.bytes_per_class(5), watch=watch, progress=progress)
    assert len(before) == 3 and len(alive) > 3 and not any(alive)


def test_passes_hold_the_memory_budget(tiny: Network) -> None:
    each = 2 * Moments.bytes_per_class(5)
    passes = plan([tiny.layer("early"), tiny.layer("late")], range(3), 4 * each)
    assert [[(s.layer.name, s.classes) for s in shares] for shares in passes] == [
        [("early", (0, 1, 2)), ("late", (0,))], [("late", (1, 2))],
    ]  # fmt: skip


def test_probability_target_and_seed_matter_and_the_same_seed_repeats(tiny: Network, folder: Path) -> None:
    base = chipcore.fit(tiny, ["late"], folder, SETTINGS)["late"].W
    assert torch.equal(base, chipcore.fit(tiny, ["late"], folder, SETTINGS)["late"].W)
    for other in (replace(SETTINGS, seed=1), replace(SETTINGS, target="probability"), replace(SETTINGS, background=0.0)):
        assert not torch.allclose(base, chipcore.fit(tiny, ["late"], folder, other)["late"].W)


def test_unreadable_images_are_counted_and_left_out(tiny: Network, folder: Path) -> None:
    before = chipcore.fit(tiny, ["late"], folder, SETTINGS)["late"].W
    (folder / "a" / "zz.png").write_bytes(b"not a picture")
    bad: list[str] = []
    told: list[Progress] = []

    def progress(one: Progress) -> None:
        told.append(one)
        bad.extend(one.unreadable)

    after = chipcore.fit(tiny, ["late"], folder, SETTINGS, progress=progress)["late"].W
    assert len(bad) == 1 and "zz.png" in bad[0]
    assert [one.done for one in told if one.stage == "photographs"][-1] == 25
    torch.testing.assert_close(before, after, rtol=0, atol=1e-4 * float(before.abs().max()))


def test_folders_without_images_and_settings_out_of_range(tiny: Network, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no photographs"):
        chipcore.fit(tiny, ["late"], tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        chipcore.fit(tiny, ["late"], tmp_path / "none")
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="could be read"):
        chipcore.fit(tiny, ["late"], tmp_path)
    with pytest.raises(ChipError, match="early"):
        chipcore.fit(tiny, ["erly"], tmp_path)
    for wrong in (
        {"gates": 0},
        {"sigma2": 0.0},
        {"lambda_ratio": -1.0},
        {"cutoff": 0.0},
        {"held_out": 0.9},
        {"target": "logit"},
        {"precision": "int8"},
    ):
        with pytest.raises(SettingsError):
            FitSettings(**wrong)


def test_caller_model_is_left_alone(folder: Path) -> None:
    from chipcore.datasets.class_names import numbered
    from chipcore.images import InputGeometry
    from conftest import TinyNet

    torch.manual_seed(0)
    model = TinyNet().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    network = Network.wrap(model, name="mine", layers=[("late", "second")], geometry=InputGeometry(size=8, resize=8), classes=numbered(3))
    chipcore.fit(network, ["late"], folder, SETTINGS)
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_squeezenet_on_real_images(squeezenet: Network, data: Path) -> None:
    """Zebra, tree frog and bullfrog: W predicts held-out gates, and the zebra's map lights up."""
    images = find_images([data / "classes" / synset for synset in ("n02391049", "n01644373", "n01641577")]).per_folder(8)
    fitted = chipcore.fit(
        squeezenet, ["features.12"], images, FitSettings(gates=20, held_out=0.25), classes=["zebra", "tree frog", "bullfrog"]
    )["fire9"]
    zebra = squeezenet.classes.index("zebra")
    assert float(fitted.r2[zebra]) > 0.7
    assert 0 < int(fitted.support[zebra]) < 512, "sparse, but not empty"
    frogs = set(fitted.top_channels(squeezenet.classes.index("tree frog"), 10))
    assert len(frogs & set(fitted.top_channels(zebra, 10))) <= 4
    held = next(name for name in images.names if "n02391049" in name)
    saliency = chipcore.explain(squeezenet, images.root / held, "zebra", layer="fire9", importance=fitted)
    assert saliency.state == "ok" and saliency.probability > 0.5 and saliency.raw.shape == (13, 13)


def test_only_the_classes_that_gain_are_computed(squeezenet: Network, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W is the same whether all scores are computed or only those above the cut-off; and images without any are not perturbed."""
    images = find_images(data / "classes").per_folder(2, ("n02391049", "n02129604", "n07753592"))
    settings = FitSettings(gates=8, held_out=0.0, min_evidence=0.1, background=0.0)
    targets = [squeezenet.classes.index(one) for one in ("n02391049", "n02129604")]
    perturbed: list[tuple[int, ...]] = []
    original = chipcore.fit.__wrapped__.__globals__["perturbed_scores"]

    def watched(*given: object) -> torch.Tensor:
        perturbed.append(tuple(given[3].shape))  # type: ignore[attr-defined]
        return original(*given)

    def whole(*given: object) -> torch.Tensor:
        return original(*given[:6])

    monkeypatch.setitem(chipcore.fit.__wrapped__.__globals__, "perturbed_scores", watched)
    some = chipcore.fit(squeezenet, ["fire9"], images, settings, classes=targets)["fire9"]
    f = torch.cat([squeezenet.probabilities(squeezenet.input(open_image(images.root / name))) for name in images.names])
    speak = int((f[:, targets] >= settings.cutoff).any(1).sum())
    assert 2 <= speak <= 4, "the bananas speak for neither class"
    assert sum(shape[0] for shape in perturbed) == speak
    monkeypatch.setitem(chipcore.fit.__wrapped__.__globals__, "perturbed_scores", whole)
    every = chipcore.fit(squeezenet, ["fire9"], images, settings, classes=targets)["fire9"]
    torch.testing.assert_close(some.W, every.W, rtol=0, atol=1e-4 * float(every.W.abs().max()))
    assert int((some.support > 0).sum()) == 2
