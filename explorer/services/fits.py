"""A fit that a visitor asks for: what it is made from, how it runs, and where its result is kept.

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
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import chipcore
from chipcore import ChipError, FitSettings, Importance, Network
from chipcore.datasets.image_folder import ImageFolder
from chipcore.errors import ImportanceNotFitted
from chipcore.fitting.diagnostics import DiagnosticsRecorder
from chipcore.fitting.memory import GB, estimate
from chipcore.fitting.pipeline import Progress
from chipcore.importance import file_of, read_importance
from chipcore.storage import cache_dir, fitted_importance, write_whole
from explorer.services import allowed_paths, uploads

UPLOADED = "upload:"
MAX_FINISHED_FITS = 20  # finished runs; the oldest go first
CHECKPOINT_SECONDS = 10.0  # what a stop or a crash may cost at most, beside a batch


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
        """What :meth:`stored` gave, read back from JSON; ``images`` may go by either name."""
        fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
        if "photographs" in fields:
            fields["images"] = fields.pop("photographs")
        return cls(**fields)

    @property
    def fit_settings(self) -> FitSettings:
        return FitSettings.from_dict(self.settings)


def find(where: str, per_folder: int = 0) -> ImageFolder:
    """The images of a request; ``DataError`` for a folder that is not allowed, empty or gone."""
    if where.startswith(UPLOADED):
        return uploads.images(where.removeprefix(UPLOADED)).per_folder(per_folder)
    return allowed_paths.images(where).per_folder(per_folder)


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

    @classmethod
    def restore(cls, content: Mapping[str, Any]) -> Run:
        """What :meth:`save` wrote, read back from JSON; ``TypeError``, ``KeyError`` for anything else."""
        fields = dict(content)
        fields["unreadable"] = tuple(fields.get("unreadable", ()))
        return cls(FitRequest.restore(fields.pop("request")), **fields)

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
            run = Run.restore(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if run.key == path.parent.name:
            found.append(run)
    return sorted(found, key=lambda run: run.finished or run.created, reverse=True)


def find_run(key: str) -> Run:
    """A run that is kept; ``ImportanceNotFitted`` where it is not there any more."""
    for run in runs():
        if run.key == key:
            return run
    raise ImportanceNotFitted("this fit is not kept any more; start it again on the page Fit.")


def needed_uploads() -> set[str]:
    """Uploads that unfinished runs want."""
    return {run.request.images.removeprefix(UPLOADED) for run in runs() if not run.finished}


def perform(run: Run, network: Network, report: Callable[[int, int, str], None]) -> Run:
    """Do or go on with a run; what ``report`` raises ends it, and its checkpoints stay.

    The result stays in the run's folder, for whoever asked for it; :func:`activate` publishes it.

    Raises:
        ChipError: images that are gone or have changed, too little memory, a full disk.
    """
    request, settings = run.request, run.request.fit_settings
    report(0, 0, "")
    images = find(request.images, request.per_folder)
    network = network.private()
    layers = [network.layer(name) for name in request.layers]
    rows = request.classes or range(len(network.classes))
    need = estimate(network, layers, rows, len(images), settings, int(request.memory * GB))
    unreadable: list[str] = list(images.closed)

    def progress(at: Progress) -> None:
        unreadable.extend(at.unreadable)
        report(at.done, at.total, at.stage)

    def tracing(done: int, total: int) -> None:
        report(done, total, "how W was found")

    started = time.monotonic()
    try:
        fitted = chipcore.fit(
            network, request.layers, images, settings, classes=request.classes, progress=progress, memory=need.samples,
            checkpoints=run.folder / "checkpoints", resume=True, checkpoint_seconds=CHECKPOINT_SECONDS, keep_checkpoints=True,
            watch=DiagnosticsRecorder(run.folder / "curves", settings, tracing),
        )  # fmt: skip
    finally:  # also of a part that was stopped
        run.seconds += time.monotonic() - started
        run.save()
    for importance in fitted.values():
        importance.save(run.result)
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)  # only now: had the disk been full, they would be all there is
    run.finished = _now()
    run.unreadable = tuple(one if one in images.closed else Path(one).name for one in unreadable[:50])
    run.save()
    for old in [one for one in runs() if one.finished][MAX_FINISHED_FITS:]:
        old.forget()
    return run


def activate(run: Run, network: Network) -> None:
    """Publish a run's W: put it where everybody's app and the command line look for it. Rows that it lacks stay what they were."""
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
