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
from chipcore.fitting.accumulate import LayerSums, accumulate
from chipcore.fitting.moments import Moments
from chipcore.fitting.pipeline import Progress
from chipcore.fitting.planning import ClassSlice, bytes_of, plan_passes
from chipcore.fitting.pooled_moments import PooledMoments
from chipcore.fitting.regression import NormalEquations, normal_equations, pooled_equations, solve_rows
from chipcore.fitting.settings import FitSettings
from chipcore.gating import perturbation
from chipcore.gating.gates import draw_uniform, generator
from chipcore.images import open_image
from chipcore.networks import Network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Noise in two class folders: enough for a network whose answers only have to be reproducible."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(12):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    return tmp_path


# Every class has sums of its own, and all gates are in the pooled sums.
SETTINGS = FitSettings(gates=6, held_out=0.25, pooled_share=0.5, pooled_gates=0, own_evidence=0.5, lambda_ratio=1e-3)


def sums_of(network: Network, layer: str, images: ImageFolder, held: frozenset[str], settings: FitSettings = SETTINGS) -> LayerSums:
    sums = LayerSums.empty(ClassSlice(network.layer(layer), (0, 1, 2)), settings)
    accumulate(network, [sums], images, held, settings)
    return sums


def test_sums_are_equation_11_with_full_passes(tiny: Network, folder: Path) -> None:
    """Image by image, gate by gate, through the whole network with a hook, in plain loops."""
    images = find_images(folder)
    held = images.held_out(SETTINGS.held_out)
    got = sums_of(tiny, "second", images, held)
    slots = torch.arange(3)
    everywhere, everywhere_cross, weight = torch.zeros(5, 5, dtype=torch.float64), torch.zeros(3, 5, dtype=torch.float64), 0.0
    everywhere_first, everywhere_mean = torch.zeros(5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for kept, moments in ((False, got.moments(slots)), (True, got.held_out(slots))):
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
    torch.testing.assert_close(got.pooled.gram, everywhere, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.pooled.cross, everywhere_cross, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.pooled.first, everywhere_first, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.pooled.mean, everywhere_mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(float(got.pooled.weight), weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kappa", [0.0, 0.25])
@pytest.mark.parametrize("intercept", [False, True])
def test_w_minimizes_the_mixed_objective(tiny: Network, folder: Path, intercept: bool, kappa: float) -> None:
    """Own and everybody's sums, each divided by its weight: the lasso's optimality conditions, for every share and target."""
    got = sums_of(tiny, "late", find_images(folder), frozenset())
    slots = (got.samples.evidence_mass() > 0.5).nonzero().flatten()
    own, everybody = got.moments(slots).contrasted(kappa), got.pooled
    for share in (0.0, 0.3, 1.0):
        settings = replace(SETTINGS, lambda_ratio=1e-2, pooled_share=share, intercept=intercept)
        given = normal_equations(got.moments(slots), settings, everybody, slots, kappa)
        [W] = solve_rows([given], settings)
        _check_optimal(W, given, own, everybody, slots, share, kappa, intercept)


def test_rows_without_images_of_their_own_share_a_gram(tiny: Network, folder: Path) -> None:
    """The pooled sums alone: as the mixed ones at a share of 1, several targets at once."""
    got = sums_of(tiny, "late", find_images(folder), frozenset())
    slots, settings = torch.arange(3), replace(SETTINGS, pooled_share=1.0, lambda_ratio=1e-2)
    for intercept in (False, True):
        settings = replace(settings, intercept=intercept)
        together = solve_rows([pooled_equations(got.pooled, slots, settings, kappa) for kappa in (0.0, 0.25)], settings)
        for kappa, W in zip((0.0, 0.25), together, strict=True):
            [alone] = solve_rows([normal_equations(got.moments(slots), settings, got.pooled, slots, kappa)], settings)
            torch.testing.assert_close(W, alone, rtol=1e-6, atol=1e-9)
            assert W.any()


def _check_optimal(
    W: torch.Tensor, given: NormalEquations, own: Moments, everybody: PooledMoments, slots: torch.Tensor, share: float, kappa: float, intercept: bool
) -> None:  # fmt: skip
    u, v = (1 - share) / own.weight, share / everybody.weight
    target_cross = everybody.cross[slots] - kappa * everybody.normalizer_cross
    target_mean = everybody.mean[slots] - kappa * everybody.normalizer_mean
    for place, (row, constant) in enumerate(zip(W, given.intercepts(W), strict=True)):
        G, b = u[place] * own.gram[place] + v * everybody.gram, u[place] * own.cross[place] + v * target_cross[place]
        first, mean = u[place] * own.first[place] + v * everybody.first, u[place] * own.mean[place] + v * target_mean[place]
        gradient = G @ row + constant * first - b
        if intercept:  # not penalized: the residual's mean is zero at the best constant
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
    got = sums_of(tiny, "late", images, images.held_out(settings.held_out), settings)
    slots = (got.samples.evidence_mass() > settings.own_evidence).nonzero().flatten()
    given = normal_equations(got.moments(slots), settings, got.pooled, slots)
    [W] = solve_rows([given], settings)
    fitted = chipcore.fit(tiny, ["late"], images, settings)["late"]
    torch.testing.assert_close(fitted.W[slots], W.float())
    expected = got.held_out(slots).r2(W, given.intercepts(W)).float()
    torch.testing.assert_close(fitted.r2[slots], expected, rtol=1e-3, atol=1e-4, equal_nan=True)
    assert fitted.r2[slots].nan_to_num(0).abs().max() > 0


def test_every_class_has_a_row_and_says_where_it_is_from(tiny: Network, folder: Path) -> None:
    """With a pooled share, classes of too little evidence get the row of all images; without, none."""
    images = find_images(folder)
    settings = replace(SETTINGS, own_evidence=1e9)
    pooled = chipcore.fit(tiny, ["late"], images, settings)["late"]
    got = sums_of(tiny, "late", images, images.held_out(settings.held_out))
    [expected] = solve_rows([pooled_equations(got.pooled, torch.arange(3), settings)], settings)
    torch.testing.assert_close(pooled.W, expected.float())
    assert [pooled.evidence(c) for c in range(3)] == ["pooled"] * 3
    assert not pooled.r2.isnan().any()
    alone = chipcore.fit(tiny, ["late"], images, replace(SETTINGS, pooled_share=0.0, min_evidence=1e9))["late"]
    assert [alone.evidence(c) for c in range(3)] == ["none"] * 3 and not alone.W.any()


def test_mean_activations_are_of_images_weighted_by_probability(tiny: Network, folder: Path) -> None:
    images = find_images(folder)
    fitted = chipcore.fit(tiny, ["late"], images, SETTINGS)["late"]
    total, mass = torch.zeros(3, 5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for name in sorted(set(images.names) - images.held_out(SETTINGS.held_out)):
        x = tiny.input(open_image(folder / name))
        with torch.no_grad():
            f = tiny.model(x).softmax(1)[0].double()
            a = tiny.forward_prefix(x, (tiny.layer("late"),)).features["second"][0].mean((1, 2)).double()
        total, mass = total + f[:, None] * a, mass + f
    assert fitted.activation is not None
    torch.testing.assert_close(fitted.activation.double(), total / mass[:, None], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fitted.contribution(), fitted.W * fitted.activation)


def test_w_between_score_and_contrast_is_drawn_from_the_two_that_are_kept(tiny: Network, folder: Path) -> None:
    images = find_images(folder)
    both = chipcore.fit(tiny, ["late"], images, replace(SETTINGS, contrast=0.4, lambda_ratio=0.0))["late"]
    half = chipcore.fit(tiny, ["late"], images, replace(SETTINGS, contrast=0.2, lambda_ratio=0.0))["late"]
    assert both.contrast == 0.4 and both.contrast_W is not None and half.contrast_W is not None
    torch.testing.assert_close(both.W, half.W)
    for c in range(3):  # without lambda exactly so: the target is linear in kappa, and the solution in the target
        torch.testing.assert_close(both.row(c, 0.5), half.contrast_W[c], rtol=1e-3, atol=1e-4)
    none = chipcore.fit(tiny, ["late"], images, replace(SETTINGS, contrast=0.0))["late"]
    assert none.contrast_W is None and none.contrast == 0


def test_two_halves_added_give_the_sums_of_one_pass(tiny: Network, folder: Path) -> None:
    images = find_images(folder)
    held = images.held_out(SETTINGS.held_out)
    half = len(images) // 2
    whole = sums_of(tiny, "late", images, held)
    parts = [LayerSums.empty(whole.slice, SETTINGS) for _ in range(2)]
    for part, names in zip(parts, (images.names[:half], images.names[half:]), strict=True):
        accumulate(tiny, [part], images, held, SETTINGS, names=names)
    parts[1].samples.merge(parts[0].samples.arrays())
    slots = torch.arange(3)
    for name in ("gram", "cross", "normalizer_cross", "energy", "weight"):
        expected = getattr(whole.moments(slots), name)
        torch.testing.assert_close(getattr(parts[1].moments(slots), name), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        expected = getattr(whole.pooled, name)
        added = getattr(parts[0].pooled, name) + getattr(parts[1].pooled, name)
        torch.testing.assert_close(added, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_layers_together_in_passes_and_alone_agree(tiny: Network, folder: Path) -> None:
    both = chipcore.fit(tiny, ["early", "late"], folder, SETTINGS)
    alone = chipcore.fit(tiny, ["late"], folder, SETTINGS)
    blocks = chipcore.fit(tiny, ["early", "late"], folder, SETTINGS, memory=1)
    assert (alone["late"].support > 0).any()
    near = 1e-4 * float(alone["late"].W.abs().max())
    torch.testing.assert_close(both["late"].W, alone["late"].W, rtol=0, atol=near)
    for name in ("early", "late"):
        torch.testing.assert_close(both[name].W, blocks[name].W, rtol=0, atol=near)
    some = chipcore.fit(tiny, ["late"], folder, SETTINGS, classes=["class 1"])["late"]
    torch.testing.assert_close(some.W[1], alone["late"].W[1], rtol=0, atol=near)
    assert not some.W[[0, 2]].any()


def test_the_sums_of_a_pass_are_gone_in_the_next(tiny: Network, folder: Path) -> None:
    before: list[weakref.ref[LayerSums]] = []
    alive: list[int] = []

    def watch(sums: LayerSums) -> None:
        before.append(weakref.ref(sums))

    def progress(_at: Progress) -> None:
        if _at.stage == "photographs":
            alive.append(sum(one() is not None for one in before))

    chipcore.fit(tiny, ["early", "late"], folder, SETTINGS, memory=1, watch=watch, progress=progress)
    assert len(before) == 2 and len(alive) > 3 and not any(alive)


def test_passes_hold_the_memory_budget(tiny: Network) -> None:
    layers = [tiny.layer("early"), tiny.layer("late")]
    need = [bytes_of(ClassSlice(layer, (0, 1, 2)), 24, SETTINGS) for layer in layers]

    def planned(memory: int) -> list[list[str]]:
        return [[one.layer.name for one in slices] for slices in plan_passes(layers, range(3), 24, SETTINGS, memory)]

    assert planned(sum(need)) == [["early", "late"]]
    assert planned(sum(need) - 1) == [["early"], ["late"]] == planned(0)


def test_probability_target_and_seed_matter_and_the_same_seed_repeats(tiny: Network, folder: Path) -> None:
    base = chipcore.fit(tiny, ["late"], folder, SETTINGS)["late"].W
    assert torch.equal(base, chipcore.fit(tiny, ["late"], folder, SETTINGS)["late"].W)
    for other in (replace(SETTINGS, seed=1), replace(SETTINGS, target="probability"), replace(SETTINGS, pooled_share=0.0)):
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
        {"pooled_share": 1.1},
        {"pooled_gates": -1},
        {"contrast": 2.0},
        {"own_evidence": -1.0},
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
        squeezenet,
        ["features.12"],
        images,
        FitSettings(gates=20, held_out=0.25, lambda_ratio=1e-3, own_evidence=0.5),
        classes=["zebra", "tree frog", "bullfrog"],
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
    settings = FitSettings(gates=8, held_out=0.0, min_evidence=0.1, pooled_share=0.0, contrast=0.0, lambda_ratio=1e-3)
    targets = [squeezenet.classes.index(one) for one in ("n02391049", "n02129604")]
    perturbed: list[tuple[int, ...]] = []
    original = perturbation.perturbed_scores

    def watched(*given: object) -> torch.Tensor:
        perturbed.append(tuple(given[3].shape))  # type: ignore[attr-defined]
        return original(*given)

    def whole(*given: object) -> torch.Tensor:
        return original(*given[:6])

    monkeypatch.setattr("chipcore.fitting.accumulate.perturbed_scores", watched)
    some = chipcore.fit(squeezenet, ["fire9"], images, settings, classes=targets)["fire9"]
    f = torch.cat([squeezenet.probabilities(squeezenet.input(open_image(images.root / name))) for name in images.names])
    speak = int((f[:, targets] >= settings.cutoff).any(1).sum())
    assert 2 <= speak <= 4, "the bananas speak for neither class"
    assert sum(shape[0] for shape in perturbed) == speak
    monkeypatch.setattr("chipcore.fitting.accumulate.perturbed_scores", whole)
    every = chipcore.fit(squeezenet, ["fire9"], images, settings, classes=targets)["fire9"]
    torch.testing.assert_close(some.W, every.W, rtol=0, atol=3e-4 * float(every.W.abs().max()))  # products in float32
    assert int((some.support > 0).sum()) == 2
