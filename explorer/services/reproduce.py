"""The command lines that make a view's numbers again, as bundles hold them. Pure functions, no Streamlit."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from chipcore import FitSettings, Network
from explorer.services import fits


def class_name(network: Network, target: int) -> str:
    """A class as links and commands name it: its synset, or its number."""
    return network.classes.synsets[target] if network.classes.synsets else str(target)


def explain(
    network: Network, image: str, layer: str, target: int, method: str, stem: str, *, colormap: str = "", opacity: float | None = None,
    local: Sequence[str] = (), channels: Sequence[int] | None = None, more: Sequence[str] = (),
) -> str:  # fmt: skip
    """A map: ``stem.png`` over the image, ``stem.npy`` raw.

    Args:
        image: the file's name in the bundle.
        local: layers whose row is learned from the image alone, in place of W.
        channels: the only ones of the sum.
        more: further words.
    """
    words = ["--layer", layer, "--class", class_name(network, target), "--method", method]
    if channels is not None:
        words += ["--channels", *map(str, channels)]
    if local:
        words += ["--local", *local]
    if colormap:
        words += ["--colour-map", colormap]
    if opacity is not None:
        words += ["--opacity", f"{opacity:g}"]
    return _line(["explain", image], network, [*words, *more, "--out", f"{stem}.png", "--raw", f"{stem}.npy"])


def gate(
    network: Network, image: str, layer: str, stem: str, *, close: Sequence[int] = (), random: int = 0,
    features: Sequence[int] | None = None, sigma2: float | None = None,
) -> str:  # fmt: skip
    """``stem.npz`` with what the network says of an image with channels closed, and with feature maps."""
    words = ["--layer", layer]
    if close:
        words += ["--close", *map(str, close)]
    if random:
        words += ["--random", str(random)]
    if features is not None:
        words += ["--features", *map(str, features)]  # none at all is a choice, too
    if sigma2 is not None:
        words += ["--sigma2", repr(float(sigma2))]
    return _line(["gate", image], network, [*words, "--out", f"{stem}.npz"])


def rows(
    network: Network, layer: str, stem: str, targets: Sequence[int] = (), *, top: int | None = None, above: float | None = None
) -> str:
    """``stem.npz`` with rows of W, in this order, and what they share; of all classes that have one by default."""
    words = ["--layer", layer]
    if targets:
        words += ["--classes", *(class_name(network, target) for target in targets)]
    if top is not None:
        words += ["--top", str(top)]
    if above is not None:
        words += ["--above", repr(float(above))]
    return _line(["rows"], network, [*words, "--out", f"{stem}.npz"])


def mosaic(network: Network, layer: str, methods: Sequence[str], images: Sequence[str], targets: Sequence[int], stem: str) -> str:
    """``stem.npz`` and ``stem.json``: the grid game on four images in their order."""
    words = ["--layer", layer, "--methods", *methods, "--mosaic", *images, "--mosaic-classes"]
    words += [class_name(network, target) for target in targets]
    return _line(["evaluate", "pointing"], network, [*words, "--raw", f"{stem}.npz", "--json", f"{stem}.json"])


def fit(run: fits.Run) -> str:
    """The command line that does the same fit."""
    request = run.request
    folder = "YOUR_PHOTOGRAPHS" if request.images.startswith(fits.UPLOADED) else shlex.quote(request.images)
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


def _line(first: Sequence[str], network: Network, rest: Sequence[str]) -> str:
    return f"python -m chipcore {shlex.join(first)} {network.flags} {shlex.join(rest)}"
