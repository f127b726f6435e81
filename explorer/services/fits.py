"""A fit that a visitor asks for: what it is made from, what it costs, how it runs, and where its result is kept.

Nothing in here knows Streamlit. A run has a folder of its own in the user's cache, named by a hash of everything
it depends on, so that it is found again by anybody, after a reload or after the server was started anew::

    fits/<key>/run.json        what was asked for, and what came out
    fits/<key>/checkpoints/    while it is not over
    fits/<key>/result/         W as it was fitted, in the layout of the cache; curves/ beside it
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import chipcore
from chipcore import ChipError, FitSettings, Importance, Layer, Network
from chipcore.datasets.image_folder import Batch, ImageFolder, batches
from chipcore.errors import DataError
from chipcore.fitting.diagnostics import Curve, DiagnosticsRecorder
from chipcore.fitting.memory import GB, Estimate, estimate
from chipcore.fitting.pipeline import Gathered, Progress, Share, add_batch, plan
from chipcore.importance import file_of, read_importance
from chipcore.storage import cache_dir, fitted_importance, write_whole
from explorer.services import allowed_paths, uploads

UPLOADED = "upload:"
MAX_FINISHED_FITS = 20  # finished runs; the oldest go first
CHECKPOINT_SECONDS = 10.0  # what a stop or a crash may cost at most, beside a batch
FIT_TRIAL_IMAGES = 8  # images of a trial
FIT_TRIAL_SECONDS = 1.5


@dataclass(frozen=True)
class FitRequest:
    """Everything that a fit depends on.

    - ``network``: what the app calls it, a registry name or the key of one's own
    - ``images``: a folder, or ``upload:`` and an upload's id; ``per_folder`` at most of each class folder, 0 for all
    - ``classes``: indices of the rows to fit; empty for all
    - ``memory``: GB that the fit may take
    - ``fingerprint``: of the images: with others it is another fit
    """

    network: str
    layers: tuple[str, ...]
    images: str
    per_folder: int = 0
    classes: tuple[int, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    memory: float = 6.0
    fingerprint: str = ""
    count: int = 0

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.stored(), sort_keys=True).encode()).hexdigest()[:20]

    def stored(self) -> dict[str, Any]:
        """As run.json keeps it. Its key for ``images`` is older than the name of the field, and runs are found by a hash of all this."""
        content = asdict(self)
        content["photographs"] = content.pop("images")
        return content

    @classmethod
    def restore(cls, content: Mapping[str, Any]) -> FitRequest:
        """What :meth:`stored` gave, read back from JSON."""
        fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
        return cls(images=fields.pop("photographs"), **fields)

    @property
    def fit_settings(self) -> FitSettings:
        return FitSettings(**self.settings)


def find(where: str, per_folder: int = 0) -> ImageFolder:
    """The images of a request; ``DataError`` for a folder that is not allowed, empty or gone."""
    if where.startswith(UPLOADED):
        return uploads.images(where.removeprefix(UPLOADED)).per_folder(per_folder)
    return allowed_paths.images(where).per_folder(per_folder)


# --- what it costs ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FitCost:
    """What a fit takes: memory as ``chipcore.fitting.memory`` states it, and seconds from a trial of one small batch."""

    memory: Estimate
    seconds: float


def estimate_cost(network: Network, request: FitRequest, images: ImageFolder, tell: Callable[[int, int], None]) -> FitCost:
    """Try a few images with few gates at the layers asked for, and reckon from them.

    Raises ``ChipError`` where the settings or the memory do not allow the fit.
    """
    tell(0, 0)
    network, settings = network.private(), request.fit_settings
    layers = [network.layer(name) for name in request.layers]
    rows = request.classes or range(len(network.classes))
    need = estimate(network, layers, rows, settings, int(request.memory * GB))
    passes = plan(layers, rows, need.moments)
    step = max(1, len(images) // FIT_TRIAL_IMAGES)
    started = time.perf_counter()
    batch = next(batches(images, images.names[::step][:FIT_TRIAL_IMAGES], network.geometry, FIT_TRIAL_IMAGES))
    decoding = (time.perf_counter() - started) / max(1, len(batch.names))
    if not batch.names:
        raise DataError("none of the first photographs can be read; give others.")
    # Passes over the same layers differ by their classes alone: one of them is tried.
    kinds: dict[tuple[Layer, ...], list[list[Share]]] = {}
    for shares in passes:
        kinds.setdefault(tuple(share.layer for share in shares), []).append(shares)
    seconds = decoding * len(passes)
    for number, alike in enumerate(kinds.values(), start=1):
        tries = []
        for one in _try(network, alike[0], batch, settings, FIT_TRIAL_SECONDS / len(kinds)):
            tries.append(one)
            tell(3 * (number - 1) + len(tries), 3 * len(kinds))  # also where it can be stopped
        seconds += len(alike) * tries[-1] / len(batch.names)
    return FitCost(need, seconds * len(images))


def _try(network: Network, shares: Sequence[Share], batch: Batch, settings: FitSettings, budget: float) -> Iterator[float]:
    """Seconds that one batch takes in one pass, better and better known; the last from as many gates as ``budget`` seconds allow."""
    gathered = [Gathered.empty(share) for share in shares]

    def timed(gates: int) -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            add_batch(network, gathered, batch, frozenset(), FitSettings(**{**settings.as_dict(), "gates": gates}))
        return time.perf_counter() - started

    yield timed(1)  # cuts the network and touches the memory, which is done once only
    few = timed(1)
    yield few
    gates = max(2, min(settings.gates, int(budget / max(few, 1e-3))))
    yield few + max(0.0, timed(gates) - few) / (gates - 1) * (settings.gates - 1)


# --- runs -------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A fit that was asked for, in its folder."""

    request: FitRequest
    title: str
    created: str
    finished: str = ""
    seconds: float = 0.0
    unreadable: tuple[str, ...] = ()
    flags: str = ""  # of the command line, for the network
    owner: str = ""  # the visitor who asked for it first, as a hash that nobody can guess

    @property
    def key(self) -> str:
        return self.request.key

    @property
    def folder(self) -> Path:
        return _all() / self.key

    @property
    def result(self) -> Path:
        return self.folder / "result"

    def curves(self, layer: str) -> Path:
        return self.folder / "curves" / f"{layer.replace('/', '_')}.npz"

    @property
    def can_resume(self) -> bool:
        """Whether something was done that need not be done again."""
        return not self.finished and any((self.folder / "checkpoints").glob("moments-*.npz"))

    def save(self) -> None:
        content = json.dumps({**vars(self), "request": self.request.stored()}, indent=1)
        write_whole(self.folder / "run.json", lambda path: path.write_text(content, encoding="utf-8"))

    def forget(self) -> None:
        """Remove what is left of it; a result that is in use stays where the app and the command line find it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def importance(self, network: Network, layer: str) -> Importance:
        """W as this run fitted it; ``ImportanceError`` where it is of another network or damaged."""
        return read_importance(self.file(network, layer), network, network.layer(layer))

    def file(self, network: Network, layer: str) -> Path:
        """Where that W is."""
        return file_of(network, network.layer(layer), self.result)


def prepare(request: FitRequest, network: Network, owner: str = "") -> Run:
    """The run of a request: the one there is, whoever asked for it, or a new one of ``owner`` with its folder."""
    for run in runs():
        if run.key == request.key:
            return run
    many = "1 photograph" if request.count == 1 else f"{request.count:,} photographs"
    run = Run(request, f"{network.title} at {', '.join(request.layers)}, {many}", _now(), flags=network.flags, owner=owner)
    run.save()
    return run


def runs() -> list[Run]:
    """All runs that are kept, the newest first; what can't be read is left out."""
    found = []
    for path in _all().glob("*/run.json"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            asked: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in content.pop("request").items()
            }
            run = Run(FitRequest(**asked), **{**content, "unreadable": tuple(content["unreadable"])})
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if run.key == path.parent.name:
            found.append(run)
    return sorted(found, key=lambda run: run.finished or run.created, reverse=True)


def needed_uploads() -> set[str]:
    """Uploads that unfinished runs want."""
    return {run.request.images.removeprefix(UPLOADED) for run in runs() if not run.finished}


def perform(run: Run, network: Network, report: Callable[[int, int, str], None]) -> Run:
    """Do or go on with a run; what ``report`` raises ends it, and its checkpoints stay.

    The result is put where the app and the command line look for W; rows that it lacks stay what they were.

    Raises:
        ChipError: images that are gone or have changed, too little memory, a full disk.
    """
    request, settings = run.request, run.request.fit_settings
    report(0, 0, "")
    images = find(request.images, request.per_folder)
    network = network.private()
    layers = [network.layer(name) for name in request.layers]
    rows = request.classes or range(len(network.classes))
    need = estimate(network, layers, rows, settings, int(request.memory * GB))
    unreadable: list[str] = []

    def progress(at: Progress) -> None:
        unreadable.extend(at.unreadable)
        report(at.done, at.total, at.stage)

    def tracing(done: int, total: int) -> None:
        report(done, total, "how W was found")

    started = time.monotonic()
    try:
        fitted = chipcore.fit(
            network, request.layers, images, settings, classes=request.classes, progress=progress, memory=need.moments,
            checkpoints=run.folder / "checkpoints", resume=True, checkpoint_seconds=CHECKPOINT_SECONDS, keep_checkpoints=True,
            watch=DiagnosticsRecorder(run.folder / "curves", settings, tracing),
        )  # fmt: skip
    finally:  # also of a part that was stopped
        run.seconds += time.monotonic() - started
        run.save()
    for importance in fitted.values():
        importance.save(run.result)
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)  # only now: had the disk been full, they would be all there is
    activate(run, network)
    run.finished = _now()
    run.unreadable = tuple(Path(sentence).name for sentence in unreadable[:50])
    run.save()
    for old in [one for one in runs() if one.finished][MAX_FINISHED_FITS:]:
        old.forget()
    return run


def activate(run: Run, network: Network) -> None:
    """Put a run's W where the app and the command line look for it."""
    for layer in run.request.layers:
        _with_other_rows(run.importance(network, layer), network).save(fitted_importance())


def deactivate(run: Run, network: Network) -> None:
    """Go back to what ships with the app at the layers of a run, or to no W at all; the run keeps its own."""
    for layer in run.request.layers:
        file_of(network, network.layer(layer), fitted_importance()).unlink(missing_ok=True)


def is_active(run: Run, network: Network) -> bool:
    """Whether the W that the app and the command line find at a run's layers is the run's own."""
    try:
        for layer in run.request.layers:
            at = network.layer(layer)
            used, own = read_importance(file_of(network, at, fitted_importance()), network, at), run.importance(network, layer)
            fitted = own.support > 0
            if not torch.equal(used.W[fitted], own.W[fitted]):
                return False
    except (ChipError, OSError):
        return False
    return True


def _with_other_rows(importance: Importance, network: Network) -> Importance:
    """Rows that this fit did not reach stay those of an earlier one in the same place."""
    at = network.layer(importance.metadata["layer"])
    try:
        return importance.completed_by(read_importance(file_of(network, at, fitted_importance()), network, at))
    except ChipError:  # nothing there yet, or nothing that can be read
        return importance


def most_memory() -> float:
    """GB that a fit may be given: most of what this machine has."""
    try:
        return max(2.0, float(int(0.7 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB)))
    except (AttributeError, ValueError, OSError):  # Windows
        return 6.0


def _all() -> Path:
    return cache_dir() / "fits"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# --- what came out ----------------------------------------------------------------------------------------


def command(run: Run) -> str:
    """The command line that does the same fit."""
    request = run.request
    folder = "YOUR_PHOTOGRAPHS" if request.images.startswith(UPLOADED) else shlex.quote(request.images)
    parts = ["python -m chipcore fit", run.flags, "--layers", shlex.join(request.layers), "--images", folder]
    if request.per_folder:
        parts.append(f"--photos-per-class {request.per_folder}")
    if request.classes:
        parts.append(f"--classes {' '.join(map(str, request.classes))}")
    default = FitSettings().as_dict()
    for name, value in request.fit_settings.as_dict().items():
        if value != default[name] and isinstance(value, bool):
            parts.append(f"--{'' if value else 'no-'}{name.replace('_', '-')}")
        elif value != default[name]:
            parts.append(f"--{name.replace('_', '-')} {value}")
    parts.append(f"--memory {request.memory:g}")
    return " ".join(parts)


def curve_tables(curve: Curve) -> dict[str, str]:
    """One class's charts as CSV, by file name: the path of lambda, and ADMM's residuals."""
    path = ["lambda_ratio,channels,r2,held_out_r2"]
    path += [
        f"{a:.6g},{int(b)},{c:.6g},{d:.6g}" for a, b, c, d in zip(curve.ratios, curve.support, curve.r2, curve.r2_held_out, strict=True)
    ]
    residuals = ["iteration,primal,dual"]
    residuals += [f"{int(a)},{b:.6g},{c:.6g}" for a, b, c in zip(curve.iterations, curve.primal, curve.dual, strict=True)]
    return {"path_of_lambda.csv": "\n".join(path) + "\n", "residuals.csv": "\n".join(residuals) + "\n"}
