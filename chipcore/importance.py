"""W, the class-discriminative importance of channels, with what it was learned from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from chipcore.errors import ImportanceError, ImportanceNotFitted, OtherInput, SettingsError
from chipcore.networks.network import Layer, Network
from chipcore.storage import BUNDLED_IMPORTANCE, fitted_importance, is_file, sha256_of_tensors, write_whole

FORMAT = 1
TENSORS = ("W", "r2", "support", "images", "evidence_mass")
OPTIONAL = ("activation", "contrast_W", "intercept")  # not in files of earlier versions
_ROWS = ("W", "activation", "contrast_W")  # (C, K); the others are (C,)
_STORED = {"loyalty": "evidence_mass"}  # names in files of earlier versions
GOOD_EVIDENCE = 10.0  # images' worth of evidence from which on a row is as good as it gets; see README, 'Weak rows'

Evidence = Literal["none", "weak", "pooled", "good"]
Ranking = Literal["weight", "contribution"]

_FOUNDED: tuple[Evidence, ...] = ("none", "weak", "pooled", "good")  # the better, the later


@dataclass(frozen=True)
class Importance:
    """W of one layer of one network.

    - ``W`` (C, K) float32: importance of every channel for every class, signed; a row without evidence is 0
    - ``r2`` (C,): held-out R2 of each row, on images of its class, or where none was held out on all that were; NaN for neither
    - ``support`` (C,): number of non-zero channels of each row
    - ``images`` (C,): number of images that carried weight for each row
    - ``evidence_mass`` (C,): sum of f^c over those images, the number of whole images they are worth
    - ``metadata``: format version, network, weights sha256, layer, settings, data fingerprint, version, date
    - ``activation`` (C, K): mean activation of every channel over images weighted by f^c; None in files of earlier versions
    - ``contrast_W`` (C, K): as ``W``, for the target g^c - kappa log sum exp(g) with kappa of :attr:`contrast`; None where it
      was not fitted
    - ``intercept`` (C,): the constant b of a fit with ``FitSettings(intercept=True)``, whose prediction of g^c is W z + b; None else

    A file holds all of these as tensors, and in its metadata ``class_names`` in the order of the rows, so that W z + b can be
    evaluated with safetensors alone.
    """

    W: Tensor
    r2: Tensor
    support: Tensor
    images: Tensor
    evidence_mass: Tensor
    metadata: dict[str, Any] = field(default_factory=dict)
    activation: Tensor | None = None
    contrast_W: Tensor | None = None
    intercept: Tensor | None = None

    @property
    def loyalty(self) -> Tensor:
        """The earlier name of :attr:`evidence_mass`."""
        return self.evidence_mass

    @property
    def contrast(self) -> float:
        """kappa of ``contrast_W``; 0 where there is none."""
        if self.contrast_W is None:
            return 0.0
        for told in (self.metadata, self.metadata.get("other_rows_from", {})):
            if isinstance(told, dict) and (kappa := told.get("settings", {}).get("contrast")):
                return float(kappa)
        return 0.0

    def row(self, index: int, contrast: float = 1.0) -> Tensor:
        """w_c (K,) of a map: for a target between the score and the one with contrast.

        The target is linear in kappa, and so is the solution of Eq. 11 as long as no weight changes its sign; between the two
        rows that are kept it is interpolated (``chipcore/fitting/README.md`` states the error).

        Args:
            index: the class.
            contrast: how far to go from ``W`` (0) to ``contrast_W`` (1, the default).
        """
        if self.contrast_W is None or contrast == 0:
            return self.W[index]
        return torch.lerp(self.W[index], self.contrast_W[index], contrast)

    def evidence(self, index: int) -> Evidence:
        """Where the row of a class comes from and how far it can be trusted.

        'none' (not fitted), 'weak' (few images of the class), 'pooled' (images of all classes alike, as too few are of this one)
        or 'good' (many images of the class).
        """
        return self.evidence_levels([index])[0]

    def evidence_levels(self, indices: Sequence[int]) -> list[Evidence]:
        """:meth:`evidence` of several classes, quickly."""
        support, mass = self.support.tolist(), self.evidence_mass.tolist()
        settings = self.metadata.get("settings", {})
        few: Evidence = "pooled" if "own_evidence" in settings and settings.get("pooled_share", 0) > 0 else "weak"
        return ["none" if not support[c] else "good" if mass[c] >= GOOD_EVIDENCE else few for c in indices]

    def contribution(self, contrast: float = 0.0) -> Tensor:
        """What each channel adds to the class's score on average: w_c^k times the class's mean activation, shape (C, K).

        Raises ``ImportanceError`` for a W of an earlier version, which has no activations.
        """
        if self.activation is None:
            raise ImportanceError("this W was fitted before mean activations were kept with it; fit it again to rank by contribution.")
        W = self.W if self.contrast_W is None or contrast == 0 else torch.lerp(self.W, self.contrast_W, contrast)
        return W * self.activation

    def ranking(self, by: Ranking = "weight") -> Tensor:
        """What channels are ranked by, shape (C, K): the paper's weight, or their contribution with the contrast of this W.

        Raises ``SettingsError`` for any other name.
        """
        if by not in ("weight", "contribution"):
            raise SettingsError(f"channels are ranked by weight or contribution, not by {by!r}.")
        return self.W if by == "weight" else self.contribution(1.0)

    def top_channels(self, index: int, count: int, by: Ranking = "weight") -> list[int]:
        """The ``count`` channels of largest positive importance for a class, largest first (Fig. 11, left)."""
        row = self.ranking(by)[index]
        order = torch.argsort(row, descending=True, stable=True)[:count]
        return [int(k) for k in order if row[k] > 0]

    def channels_above(self, index: int, share: float, by: Ranking = "weight") -> list[int]:
        """The channels whose importance is above ``share`` of the row's largest (Fig. 11, right: 1/1000)."""
        row = self.ranking(by)[index]
        return [int(k) for k in (row > share * row.max()).nonzero().flatten() if row[k] > 0]

    def completed_by(self, other: Importance, *, better: bool = False) -> Importance:
        """This W with the rows that it lacks taken from another of the same network and layer.

        With ``better`` also those that are better founded there, see :meth:`shadowed_by`: a row from few images does not replace
        one from many.
        """
        own = self.support > 0
        if better:
            own[self.shadowed_by(other)] = False

        def rows(name: str) -> Tensor:
            mine, theirs = getattr(self, name), getattr(other, name)
            return torch.where(own[:, None] if mine.ndim == 2 else own, mine, theirs)

        def optional(name: str, instead: str | None) -> Tensor | None:
            mine, theirs = getattr(self, name), getattr(other, name)
            if instead is not None and not (mine is None and theirs is None):  # a row without contrast has that of the score
                mine, theirs = (getattr(one, instead) if value is None else value for one, value in ((self, mine), (other, theirs)))
            return None if mine is None or theirs is None else torch.where(own[:, None], mine, theirs)

        tensors = {name: rows(name) for name in TENSORS}
        more: dict[str, Any] = {"activation": optional("activation", None), "contrast_W": optional("contrast_W", "W")}
        if self.intercept is not None or other.intercept is not None:  # a row without has none: 0
            mine, theirs = (torch.zeros(len(own)) if one.intercept is None else one.intercept for one in (self, other))
            more["intercept"] = torch.where(own, mine, theirs)
        return Importance(**tensors, metadata={**self.metadata, "other_rows_from": other.metadata}, **more)

    def shadowed_by(self, other: Importance) -> list[int]:
        """The classes whose row here has weaker evidence (:meth:`evidence`) than in another W of the same network and layer.

        Examples
        --------
        >>> few, many = (Importance(torch.ones(1, 2), *torch.ones(3, 1), torch.tensor([mass])) for mass in (2.0, 40.0))
        >>> few.shadowed_by(many), many.shadowed_by(few)
        ([0], [])
        """
        fitted = [int(c) for c in (self.support > 0).nonzero().flatten()]
        return [c for c in fitted if _FOUNDED.index(other.evidence(c)) > _FOUNDED.index(self.evidence(c))]

    def file_below(self, folder: Path | str) -> Path:
        """The file that :meth:`save` writes below ``folder``."""
        return _path(Path(folder), self.metadata["network"], self.metadata["weights_sha256"], self.metadata["layer"])

    def save(self, folder: Path | str, *, half: bool = False) -> Path:
        """Write ``<network>-<weights id>/<layer>.safetensors`` below ``folder``, whole or not at all.

        ``half`` keeps the large tensors in half precision, with which a map's largest error is 1/2000 of its maximum.
        """
        path = self.file_below(folder)
        found = {name: getattr(self, name) for name in (*TENSORS, *OPTIONAL)}
        tensors = {name: value.cpu().contiguous() for name, value in found.items() if value is not None}
        if half:  # but for what it could not hold
            tensors |= {name: value.half() for name, value in tensors.items() if value.ndim == 2 and float(value.abs().max()) < 6e4}
        described = json.dumps(self.metadata, sort_keys=True)
        header = {"chipcore": described, "sha256": _checksum(tensors, described)}
        write_whole(path, lambda temporary: save_file(tensors, temporary, metadata=header))
        return path


def _checksum(tensors: dict[str, Tensor], described: str) -> str:
    """Of everything in a file of W: safetensors would not notice a changed byte."""
    return hashlib.sha256(f"{sha256_of_tensors(tensors.items())}{described}".encode()).hexdigest()


def _path(folder: Path, network: str, weights_sha256: str, layer: str) -> Path:
    # A network of one's own is called module:factory, which not every file system takes.
    return folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', network)}-{weights_sha256[:12]}" / f"{layer.replace('/', '_')}.safetensors"


def file_of(network: Network, layer: Layer, folder: Path) -> Path:
    """The file that W of a layer has, or would have, below ``folder``."""
    return _path(folder, network.name, network.weights_sha256, layer.name)


def describe(network: Network, layer: Layer, **learned_from: Any) -> dict[str, Any]:
    """The metadata of W that ties it to its network and layer."""
    from datetime import UTC, datetime

    from chipcore import __version__

    return {
        "format": FORMAT, "network": network.name, "weights_sha256": network.weights_sha256, "layer": layer.name, "path": layer.path,
        "channels": layer.channels, "classes": len(network.classes), "class_names": list(network.classes.names), "outputs": network.outputs,
        "geometry": json.loads(json.dumps(asdict(network.geometry))),  # as it will be read back
        "chipcore": __version__, "date": datetime.now(UTC).date().isoformat(), **learned_from,
    }  # fmt: skip


def read_importance(path: Path, network: Network, layer: Layer) -> Importance:
    """Read W and check it against the network and layer it will be used with.

    Raises ``ImportanceError`` where the file is damaged or was fitted for anything else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            header = dict(file.metadata() or {})
        metadata = json.loads(header["chipcore"])
        if not isinstance(metadata, dict) or header.keys() - {"chipcore", "sha256"}:
            raise ValueError("no header of W")
    except (SafetensorError, KeyError, ValueError, OSError, RecursionError):
        raise ImportanceError(f"{path} is not a whole file of W; fit it again.") from None
    # What was written before there were checksums has none.
    if "sha256" in header and header["sha256"] != _checksum(tensors, header["chipcore"]):
        raise ImportanceError(f"{path} was changed since it was written (its checksum is another one); fit it again.")
    wanted = {
        "format": FORMAT, "network": network.name, "weights_sha256": network.weights_sha256,
        "path": layer.path, "channels": layer.channels, "classes": len(network.classes),
    }  # fmt: skip
    for key, value in wanted.items():
        if metadata.get(key) != value:
            raise ImportanceError(
                f"{path} was fitted with {key} {metadata.get(key)!r}, but here it is {value!r}; fit W for {network.name} at {layer.name}."
            )
    if metadata.get("outputs", "logits") != network.outputs:  # f^c, which weighs the images, was another
        raise OtherInput(
            f"{path} was fitted with outputs taken as {metadata.get('outputs', 'logits')}, but here as {network.outputs}; fit W again, or give outputs."
        )
    geometry = metadata.get("geometry")
    for key, usual in (("size", None), ("width", None), ("channels", 3), ("mean", None), ("std", None)):  # what the features depend on
        value = json.loads(json.dumps(getattr(network.geometry, key)))
        if isinstance(geometry, dict) and geometry.get(key, usual) != value:
            raise OtherInput(
                f"{path} was fitted with an input {key} of {geometry.get(key)!r}, but here it is {value!r}; fit W for {network.name} at {layer.name}."
            )
    C, K = len(network.classes), layer.channels
    tensors = {_STORED.get(name, name): value for name, value in tensors.items()}
    shapes = {name: (C, K) if name in _ROWS else (C,) for name in (*TENSORS, *(set(OPTIONAL) & tensors.keys()))}
    if {name: tuple(t.shape) for name, t in tensors.items()} != shapes or not _are_numbers(tensors):
        raise ImportanceError(f"{path} does not hold a finite W of {C} classes x {K} channels; fit it again.")
    return Importance(
        **{name: value.float() if value.dtype == torch.float16 else value for name, value in tensors.items()}, metadata=metadata
    )


def _are_numbers(tensors: dict[str, Tensor]) -> bool:
    real = all(not one.is_complex() and one.dtype != torch.bool for one in tensors.values())
    large = [tensors[name] for name in ("W", *OPTIONAL) if name in tensors]
    return real and all(one.is_floating_point() and bool(torch.isfinite(one).all()) for one in large)


def load_importance(network: Network, layer: str, folder: str | Path | None = None) -> Importance:
    """W of a layer: from ``folder`` alone, or from the user's cache and what is bundled.

    A row that the user's own fit did not reach (it was restricted to some classes, or had no images of one) is the bundled
    row, so fitting one class does not take the others away. So is a row that is better founded there: one of few images
    does not replace one of many. A named ``folder`` is taken as it is.

    Raises ``ImportanceNotFitted``, which says how to fit it, or ``ImportanceError`` for a damaged file.
    """
    at = network.layer(layer)
    folders = [Path(folder)] if folder is not None else [fitted_importance(), BUNDLED_IMPORTANCE]
    paths = [_path(place, network.name, network.weights_sha256, at.name) for place in folders]
    found, other = [], None
    for path in filter(is_file, paths):
        try:
            found.append(read_importance(path, network, at))
        except OtherInput as error:  # of these weights at another --size: no reason to do without what is bundled
            other = error
    if not found and other is not None:
        raise other
    if found:
        return found[0] if len(found) == 1 else found[0].completed_by(found[1], better=True)
    command = f"python -m chipcore fit {network.flags} --layers {at.name} --images FOLDER"
    call = f"chipcore.fit(network, [{at.name!r}], FOLDER)[{at.name!r}], given as importance="  # a module that no command can load
    raise ImportanceNotFitted(
        f"W of {network.name} at {at.name} is not fitted for these weights; use the method local_chip, or fit it with: "
        f"{command if network.flags else call}"
    )


def forget_rows(network: Network, layer: str, folder: Path, classes: Sequence[int] = ()) -> int:
    """Take rows out of the W that was fitted into a folder, or all of it where no classes are named; gives how many there were.

    Raises ``ImportanceNotFitted`` where the folder has no W of the layer, ``ImportanceError`` for a damaged file unless all of it goes.
    """
    at = network.layer(layer)
    path = file_of(network, at, folder)
    if not is_file(path):
        raise ImportanceNotFitted(
            f"{folder} holds no W of {network.name} at {at.name} that was fitted here, so there is nothing to forget."
        )
    if not classes:
        try:
            rows = int((read_importance(path, network, at).support > 0).sum())
        except ImportanceError:  # damaged, or of another input: it goes all the same
            rows = 0
        path.unlink()
        return rows
    known = read_importance(path, network, at)
    keep = torch.ones_like(known.support, dtype=torch.bool)
    keep[list(classes)] = False

    def kept(name: str) -> Tensor | None:
        value: Tensor | None = getattr(known, name)
        return None if value is None else torch.where(keep[:, None] if value.ndim == 2 else keep, value, torch.zeros_like(value))

    tensors: dict[str, Any] = {name: kept(name) for name in (*TENSORS, *OPTIONAL)}
    left = replace(known, **tensors)
    rows = int((known.support[~keep] > 0).sum())
    if bool((left.support > 0).any()):
        left.save(folder)
    else:
        path.unlink()
    return rows
