"""How fast Eq. 11 is solved: our ADMM against coordinate descent and against a plain ADMM, on real moments.

The Grams are those of SqueezeNet v1.0's last feature layer (``features.12``, 512 channels) on images of
ImageNet classes. Every rival solves the same objective on the same Grams in the same run, each at the loosest
tolerance of its own that reaches the minimum to ``GAP``; what it needs beside the Gram is made untimed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, relu

from chipcore import images
from chipcore.errors import DataError, SettingsError
from chipcore.networks import torchvision_import
from chipcore.solvers import admm

GAP = 1e-8  # relative to the objective
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)
PLAIN_ITERATIONS = 150
_CUT_OFF = 1e-4  # f^c below which a image adds nothing to class c

Array = NDArray[np.float64]


def run(
    classes: int = 1000,
    channels: int = 512,
    data: Path | None = None,
    *,
    ratio: float = 1e-3,
    images: int = 40,
    gates: int = 40,
    rivals: int | None = None,
    moments: tuple[Tensor, Tensor] | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Time the solvers; seconds are wall-clock seconds a class.

    Args:
        classes: how many our solver takes at once; the real classes are repeated up to that number, which
            costs the memory traffic of so many and makes no class easier.
        channels: the first so many of the layer's 512.
        data: the folder with ``classes``, ``networks`` and ``synset_words.txt``; CHIP_DATA by default.
        ratio: lambda as a share of max |b_c|.
        images, gates: per class and per image, for the moments.
        rivals: how many of the real classes the rivals solve; None means all.
        moments: gram (C, K, K) and cross (C, K) to use in place of the images.
        progress: called with what is being done.

    Raises:
        DataError: the folder lacks the images or the weights.
        SettingsError: more channels than there are.
    """
    tell = progress or (lambda _what: None)
    if classes < 1 or channels < 1:
        raise SettingsError(f"{classes} classes and {channels} channels cannot be solved; give at least 1 of each.")
    tell("moments")
    gram, cross = moments if moments is not None else real_moments(data, images, gates)[:2]
    if channels > gram.shape[1]:
        raise SettingsError(f"the layer has {gram.shape[1]} channels; give at most as many.")
    gram, cross = gram[:, :channels, :channels].contiguous(), cross[:, :channels].contiguous()
    lam = ratio * admm.lambda_max(cross)
    real = len(gram)
    count = min(rivals or real, real)

    tell("our ADMM on the real classes")
    admm.solve(gram[:2], cross[:2], lam[:2])  # libraries load
    alone, solution = _timed(lambda: admm.solve(gram, cross, lam))
    tell(f"our ADMM on {classes} classes")
    which = torch.arange(classes) % real
    many = (gram[which], cross[which], lam[which])
    together, _ = _timed(lambda: admm.solve(*many))

    roots = [_root(G, b) for G, b in zip(gram[:count].numpy(), cross[:count].numpy(), strict=True)]
    grams, crosses, lams = [list(value[:count].numpy()) for value in (gram, cross, lam)]
    least = solution.objective[:count].numpy().copy()
    problems = list(zip(roots, grams, crosses, lams, strict=True))
    tell("scikit-learn")
    found: dict[str, dict[str, Any] | None] = {"scikit-learn": _race(problems, least, _scikit_learn)}
    tell("celer")
    found["celer"] = _race(problems, least, _celer) if importlib.util.find_spec("celer") else None
    tell("plain ADMM")
    seconds, objective = _plain_admm(gram[:count], cross[:count], lam[:count])
    found["plain batched ADMM"] = {
        "seconds_per_class": seconds,
        "objective_gap": _gap(objective.numpy(), least),
        "iterations": PLAIN_ITERATIONS,
    }

    support = (solution.W != 0).sum(dim=1).double()
    own = together / classes
    return {
        "bench": "solve",
        "classes": classes,
        "real_classes": real,
        "rival_classes": count,
        "channels": channels,
        "lambda_ratio": ratio,
        "moments": "SqueezeNet v1.0 features.12" if moments is None else "given",
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "ours": {
            "seconds_per_class": own,
            "seconds_per_class_real_only": alone / real,
            "seconds": together,
            "converged": bool(solution.converged.all()),
            "kkt_over_lambda": float((admm.kkt_residual(gram, cross, lam, solution.W) / lam).max()),
            "objective_gap": _gap(solution.objective[:count].numpy(), np.minimum(least, solution.objective[:count].numpy())),
            "iterations": {"median": float(solution.iterations.double().median()), "most": int(solution.iterations.max())},
            "support": {"median": float(support.median()), "most": int(support.max())},
        },
        "rivals": found,
        "ratio": {name: result["seconds_per_class"] / own for name, result in found.items() if result is not None},
    }


def table(result: dict[str, Any]) -> str:
    """The result of ``run`` as lines of text."""
    ours = result["ours"]
    lines = [
        f"Eq. 11, {result['classes']} classes ({result['real_classes']} real, repeated) x {result['channels']} channels, "
        f"lambda = {result['lambda_ratio']:g} max|b|, {result['threads']} threads",
        f"{'solver':<22}{'ms a class':>12}{'ratio':>8}{'objective gap':>16}",
        f"{'chipcore ADMM':<22}{1e3 * ours['seconds_per_class']:>12.2f}{1:>8.1f}{ours['objective_gap']:>16.1e}",
    ]
    for name, rival in result["rivals"].items():
        if rival is None:
            lines.append(f"{name:<22}{'not installed':>12}")
        else:
            lines.append(f"{name:<22}{1e3 * rival['seconds_per_class']:>12.2f}{result['ratio'][name]:>8.1f}{rival['objective_gap']:>16.1e}")
    lines.append(
        f"chipcore: KKT residual at most {ours['kkt_over_lambda']:.1e} lambda, iterations {ours['iterations']['median']:g} (most "
        f"{ours['iterations']['most']}), non-zero weights {ours['support']['median']:g} (most {ours['support']['most']})"
    )
    return "\n".join(lines)


# --- moments -----------------------------------------------------------------------------------------------


def real_moments(
    data: Path | None = None, per_folder: int = 40, gates: int = 40, folders: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor, list[int]]:
    """Moments of SqueezeNet v1.0 at ``features.12``: gram (C, 512, 512), cross (C, 512), and the C classes.

    The paper's draw of gates, the score as prediction, h = exp(-closed / K). Written out for this one network,
    whose last layer is a 1 x 1 convolution, so that the bench does not depend on what it measures.
    """
    data = data or Path(os.environ.get("CHIP_DATA") or Path(__file__).parents[3] / "shared" / "data")
    weights, words = data / "networks" / "squeezenet1_0.pth", data / "synset_words.txt"
    if not (weights.is_file() and words.is_file() and (data / "classes").is_dir()):
        raise DataError(f"{data} must hold networks/squeezenet1_0.pth, synset_words.txt and the folder classes; set CHIP_DATA.")
    synsets = [line.split(maxsplit=1)[0] for line in words.read_text().splitlines() if line.strip()]
    chosen = [folder for folder in sorted((data / "classes").iterdir()) if folder.name in synsets][:folders]
    targets = [synsets.index(folder.name) for folder in chosen]
    model = torchvision_import.models.squeezenet1_0(weights=None)
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    last = model.classifier[1]
    weight, bias = last.weight[targets, :, 0, 0], last.bias[targets]
    geometry, generator = images.InputGeometry(), torch.Generator().manual_seed(seed)
    channels = weight.shape[1]
    gram = torch.zeros(len(targets), channels, channels, dtype=torch.float64)
    cross, total = gram.new_zeros(gram.shape[:2]), gram.new_zeros(len(targets))
    with torch.no_grad():
        for path in (path for folder in chosen for path in _images(folder)[:per_folder]):
            features = model.features(geometry.tensor(images.open_image(path))[None])
            f = adaptive_avg_pool2d(relu(last(features)), 1).flatten().softmax(0)[targets].double()
            active = (f > _CUT_OFF).nonzero()[:, 0]
            features = features[0].flatten(1)
            opened = torch.randint(0, channels + 1, (gates, 1), generator=generator)
            d = (torch.rand(gates, channels, generator=generator).argsort(dim=1) < opened).float()
            if len(active) == 0:
                continue
            h = torch.exp((d.sum(dim=1) - channels) / channels).double()
            g = relu((d[:, None, :] * weight[active]) @ features + bias[active][:, None]).mean(dim=2).double()
            z = (d * features.mean(dim=1)).double()
            outer = z.T @ (h[:, None] * z)
            for position, c in enumerate(active.tolist()):
                gram[c].add_(outer, alpha=float(f[c]))
                cross[c] += f[c] * ((h * g[:, position]) @ z)
                total[c] += f[c] * h.sum()
    total.clamp_min_(torch.finfo(torch.float64).tiny)
    return gram / total[:, None, None], cross / total[:, None], targets


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in images.suffixes())


# --- rivals ------------------------------------------------------------------------------------------------

Problem = tuple[tuple[Array, Array], Array, Array, float]  # ((X, y), gram, cross, lambda), gram = X^T X, cross = X^T y


def _race(problems: list[Problem], least: Array, solver: Callable[[Problem, float], Array]) -> dict[str, Any]:
    """Mean time over the problems, each at the loosest tolerance that comes within ``GAP`` of ``least``."""
    seconds, gaps = [], []
    for problem, bound in zip(problems, least, strict=True):
        for tolerance in TOLERANCES:
            elapsed, w = _timed(lambda problem=problem, tolerance=tolerance: solver(problem, tolerance))  # type: ignore[misc]
            _, gram, cross, lam = problem
            gap = _gap(np.array([w @ gram @ w / 2 - cross @ w + lam * np.abs(w).sum()]), np.array([bound]))
            if gap <= GAP:
                break
        seconds.append(elapsed)
        gaps.append(gap)
    return {"seconds_per_class": float(np.mean(seconds)), "objective_gap": max(gaps), "reached": max(gaps) <= GAP}


def _scikit_learn(problem: Problem, tolerance: float) -> Array:
    """Coordinate descent on the given Gram with nothing around it: no check, no centring, no copy of the Gram."""
    lasso_path = importlib.import_module("sklearn.linear_model").lasso_path
    (X, y), gram, cross, lam = problem
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # scikit-learn's loss is divided by the number of rows.
        _, coefficients, _ = lasso_path(
            X, y, alphas=[lam / len(y)], precompute=gram, Xy=cross, tol=tolerance, max_iter=1_000_000, check_input=False
        )
    return np.ascontiguousarray(coefficients[:, 0])


def _celer(problem: Problem, tolerance: float) -> Array:
    """celer takes no Gram, so it gets a square X with X^T X = Gram."""
    celer = importlib.import_module("celer")
    (X, y), _, _, lam = problem
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = celer.Lasso(alpha=lam / len(y), fit_intercept=False, tol=tolerance, max_iter=1000, max_epochs=1_000_000)
        return np.asarray(model.fit(X, y).coef_)


def _plain_admm(gram: Tensor, cross: Tensor, lam: Tensor) -> tuple[float, Tensor]:
    """Eq. 17, 19, 20 for all classes in one batch, one Cholesky factor each, rho from the mean of the diagonal."""

    def iterate() -> Tensor:
        rho = gram.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None]
        factor = torch.linalg.cholesky(gram + torch.diag_embed(rho.expand_as(cross)))
        m, q = torch.zeros_like(cross), torch.zeros_like(cross)
        for _ in range(PLAIN_ITERATIONS):
            w = torch.cholesky_solve((cross + rho * (m + q))[:, :, None], factor)[:, :, 0]
            m = (w - q).sign() * ((w - q).abs() - lam[:, None] / rho).clamp_min(0)
            q = q - (w - m)
        return m

    seconds, m = _timed(iterate)
    quadratic = (m[:, None, :] @ gram @ m[:, :, None])[:, 0, 0] / 2
    return seconds / len(gram), quadratic - (cross * m).sum(dim=1) + lam * m.abs().sum(dim=1)


def _root(gram: Array, cross: Array) -> tuple[Array, Array]:
    """X and y with X^T X = gram and X^T y = cross, also for a singular Gram."""
    values, vectors = np.linalg.eigh(gram)
    values = values.clip(min=0)
    kept = values > 1e-13 * values[-1]
    y = np.zeros_like(cross)
    y[kept] = (vectors.T @ cross)[kept] / np.sqrt(values[kept])
    return np.asfortranarray(np.sqrt(values)[:, None] * vectors.T), y


def _gap(objective: Array, least: Array) -> float:
    return float(((objective - least) / np.abs(least).clip(min=1e-300)).max())


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result
