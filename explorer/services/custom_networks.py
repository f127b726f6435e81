"""A network of the visitor's own: what was given, kept under a key that is a hash of all of it.

Files are either in folders that the operator allows (``explorer/services/allowed_paths.py``), then every visitor is offered the
network, or uploaded, then only who knows the key is: it is in that visitor's link.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import chipcore
from chipcore import ChipError, Network
from chipcore.errors import CheckpointError, DataError, SettingsError
from chipcore.networks import REGISTRY
from chipcore.networks.external import recipe
from chipcore.storage import cache_dir, write_whole
from explorer.services import allowed_paths
from explorer.services.disk_quota import evict_until, touch

CHECKPOINTS = (".pth", ".pt", ".safetensors", ".ckpt", ".bin", ".tar")  # .tar: .pth.tar
LABELS = (".txt", ".json", ".csv", ".tsv")
MAX_LABELS = 4 << 20  # bytes of an uploaded file of class names
LARGEST = 400_000_000  # weights; the app builds a network before it can compare it with the file
SIDES = (32, 1024)  # pixels of the input
PREFIX = "own-"
KEPT_BYTES = 4 << 30  # of all uploaded checkpoints together; those not used for longest go first


@dataclass(frozen=True)
class Upload:
    """A file as the browser sent it; of the name only the ending and what is shown of it count."""

    name: str
    data: bytes


@dataclass(frozen=True)
class UploadedNetwork:
    """What a visitor said of a network.

    ``checkpoint`` and ``labels`` are paths in allowed folders or, where ``uploaded``, names in the network's own
    folder; what they are called on the visitor's machine is in ``called``.
    """

    network: str
    checkpoint: str | None = None
    labels: str | None = None
    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fit: str | None = None
    title: str = ""
    uploaded: tuple[str, ...] = ()  # 'checkpoint', 'labels'
    called: tuple[tuple[str, str], ...] = ()
    outputs: str = "auto"

    @property
    def shown(self) -> str:
        """The network's name for people."""
        files = dict(self.called)
        return self.title or (f"{Path(files['checkpoint']).stem} ({self.network})" if "checkpoint" in files else self.network)


def add(given: UploadedNetwork, checkpoint: Upload | str | None, labels: Upload | str | None) -> tuple[str, Network]:
    """Check what was given by loading it, and keep it.

    Args:
        given: without its files.
        checkpoint, labels: an upload, a path from the browser, or nothing.

    Returns:
        The key under which :func:`network` finds it again, and the network.

    Raises:
        ChipError: anything that is wrong with it, with the visitor's names of the files.
    """
    _may_be_named(given, checkpoint is not None)
    _all().mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".", dir=_all()))
    try:
        digest = hashlib.sha256()
        for role, value, suffixes in (("checkpoint", checkpoint, CHECKPOINTS), ("labels", labels, LABELS)):
            if value is not None:
                given = _with_file(given, role, value, suffixes, folder)
                digest.update(_hash(_place(given, role, folder)))
        digest.update(json.dumps({**asdict(given), "checkpoint": None, "labels": None}, sort_keys=True).encode())
        key = PREFIX + digest.hexdigest()[:24]
        found = _load(given, folder)
        write_whole(folder / "given.json", lambda path: path.write_text(json.dumps(asdict(given), indent=1), encoding="utf-8"))
        if not (_all() / key).is_dir():
            folder.rename(_all() / key)
        evict_until(_all(), KEPT_BYTES, {key})
        return key, found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def network(key: str) -> Network:
    """A network that was added before; ``ChipError`` where it is gone, or no longer allowed."""
    given = read(key)
    _may_be_named(given, given.checkpoint is not None)
    touch(_all() / key)
    return _load(given, _all() / key)


def read(key: str) -> UploadedNetwork:
    """What was given under a key; ``DataError`` where there is nothing."""
    if known(key):
        try:
            content = json.loads((_all() / key / "given.json").read_text(encoding="utf-8"))
            content["called"] = tuple((role, name) for role, name in content["called"])
            read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
            return UploadedNetwork(**read)
        except (OSError, ValueError, TypeError, KeyError):
            pass
    raise DataError("this network of your own is not here any more; add it again.")


def known(key: str) -> bool:
    """Whether a network of this key was added; looks at no path but its own."""
    letters = key.removeprefix(PREFIX)
    return (
        key.startswith(PREFIX)
        and len(letters) == 24
        and set(letters) <= set("0123456789abcdef")
        and (_all() / key / "given.json").is_file()
    )


def _all() -> Path:
    return cache_dir() / "networks"


def _may_be_named(given: UploadedNetwork, has_checkpoint: bool) -> None:
    """Refuse what would run code or fetch things, and sizes that would take the machine down."""
    module, colon, _factory = given.network.partition(":")
    if not given.network.strip():
        raise SettingsError("name the architecture: resnet18, say, or another of torchvision's names.")
    if colon and module == "timm":
        if not has_checkpoint:
            raise CheckpointError("timm’s published weights would be downloaded, which the app does not do; give a checkpoint.")
    elif colon and module not in allowed_paths.modules():
        raise ChipError(
            f"{given.network!r} names code to run, and whoever runs this app has not allowed the module {module!r} "
            f"(the environment variable {allowed_paths.MODULES}); name one of torchvision’s networks."
        )
    if given.size is not None and not SIDES[0] <= given.size <= SIDES[1]:
        raise SettingsError(f"the input’s side is {given.size}; give {SIDES[0]} to {SIDES[1]} pixels.")
    if not colon and given.network not in REGISTRY:
        named = recipe(given.network, REGISTRY, published=False)
        with torch.device("meta"):  # counted without taking memory
            weights = sum(value.numel() for value in named.build(None).parameters())
        if weights > LARGEST:
            raise ChipError(f"{given.network} has {weights / 1e6:,.0f} million weights; the app takes up to {LARGEST // 10**6} million.")


def _with_file(given: UploadedNetwork, role: str, value: Upload | str, suffixes: tuple[str, ...], folder: Path) -> UploadedNetwork:
    changes: dict[str, Any]
    if isinstance(value, str):
        path = allowed_paths.file(value, suffixes)
        changes = {role: str(path), "called": (*given.called, (role, path.name))}
        return replace(given, **changes)
    suffix = Path(value.name).suffix.lower()
    if suffix not in suffixes:
        raise DataError(f"{value.name} does not end in {', '.join(suffixes)}; give another file.")
    if role == "labels" and len(value.data) > MAX_LABELS:
        raise DataError(f"{value.name} has {len(value.data) >> 20} MB; class names take at most {MAX_LABELS >> 20}.")
    write_whole(folder / f"{role}{suffix}", lambda path: path.write_bytes(value.data))
    changes = {role: f"{role}{suffix}", "uploaded": (*given.uploaded, role), "called": (*given.called, (role, value.name))}
    return replace(given, **changes)


def _place(given: UploadedNetwork, role: str, folder: Path) -> Path:
    """The file of a role; a path is looked at again each time, because what is allowed may have changed."""
    name = getattr(given, role)
    suffixes = CHECKPOINTS if role == "checkpoint" else LABELS
    return folder / f"{role}{Path(name).suffix}" if role in given.uploaded else allowed_paths.file(name, suffixes)


def _hash(path: Path) -> bytes:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _load(given: UploadedNetwork, folder: Path) -> Network:
    files = {role: _place(given, role, folder) for role in ("checkpoint", "labels") if getattr(given, role)}
    said = {
        "size": given.size,
        "mean": given.mean,
        "std": given.std,
        "fit": given.fit,
        "outputs": None if given.outputs == "auto" else given.outputs,
    }
    called = dict(given.called)
    try:
        found = chipcore.load_network(given.network, **files, **said, download=False)  # type: ignore[arg-type]
    except ChipError as error:  # in the visitor's own words for the files
        sentence = str(error)
        for role, path in files.items():
            sentence = sentence.replace(str(path), called[role])
        raise (
            type(error)(sentence) if type(error) in (ChipError, CheckpointError, DataError, SettingsError) else ChipError(sentence)
        ) from None
    if found.geometry.width is not None:
        raise SettingsError("the app draws square inputs only; explain this network with the command line or the library.")
    flags = tuple(next((called[role] for role, path in files.items() if str(path) == part), part) for part in found.given or ())
    variant = hashlib.sha256(
        repr((found.geometry, found.classes, *(() if found.outputs == "logits" else (found.outputs,)))).encode()
    ).hexdigest()[:12]
    return replace(found, title=given.shown, given=flags if given.uploaded else found.given, variant=f"-{variant}")
