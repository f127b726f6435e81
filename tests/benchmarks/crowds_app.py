"""Many visitors of the running app: sessions over the server's own protocol, each with a image and a network of its own.

Half of the networks are people's own: SqueezeNet 1.0 from a checkpoint that each visitor uploads, under a title that is
nobody else's business, and somebody's Places365 SqueezeNet from a folder that the operator allows. Every visitor uploads a
image and walks through the views. The raw maps that Compare gives away are kept by their digest, and after the crowd
has gone each is computed anew, alone, by ``chipcore.explain``: equal to the last bit, or counted.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import sys
import tempfile
import threading
import time
import urllib.parse
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import chipcore
from chipcore import ChipError
from chipcore.methods import METHODS
from explorer import figures
from explorer.services import gallery
from explorer.services.limits import VISITORS
from explorer.views.compare.methods_table import key_of
from tests.benchmarks.watched_server import FEW
from tests.helpers.visitor import Visitor, serving

NETWORKS = ("efficientnet_lite0", "vgg16_slim", "squeezenet1_0", "places")
SLOW = tuple(FEW)  # what waits for a click
TIMES = ("at the start", "1/4", "1/2", "3/4", "at the end", "when all have gone")
VIEWS = ("explore", "channels", "localize", "learn", "fit")
SUBMIT = "own-add"
_SECRET = re.compile(rb"(?:mine|secret)-(\d+)-x")
_INLINE = re.compile(rb"data:image/\w+;base64,[A-Za-z0-9+/=]+")


@dataclass
class Found:
    """What all sessions found together."""

    maps: dict[tuple[str, str, str, str], set[str]] = field(default_factory=dict)  # network, image, layer, map: digests
    asked: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    networks: Counter[str] = field(default_factory=Counter)  # maps by the sha256 of the weights
    images: dict[str, str] = field(default_factory=dict)  # names by sha256
    failed: list[str] = field(default_factory=list)
    seen: dict[int, set[int]] = field(default_factory=dict)  # hashes of the pictures that a session was sent
    strangers: list[str] = field(default_factory=list)  # what a session saw of another
    lock: threading.Lock = field(default_factory=threading.Lock)


def image_of(number: int) -> bytes:
    """A image that no other session has: a part of a real one."""
    entries = list(gallery.ENTRIES)
    image = gallery.image(entries[number % len(entries)]).open()
    image = image.crop((number, number, image.width - number, image.height)).resize((300, 260))
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


@dataclass
class Session:
    """One visitor."""

    number: int
    data: Path
    found: Found
    model: str = ""

    @property
    def network(self) -> str:
        return NETWORKS[self.number % len(NETWORKS)]

    @property
    def upload(self) -> str:
        return f"mine-{self.number}-x.png"

    def walk(self, address: str, end: float, patience: float, slow: bool) -> None:
        """Come, bring a image and a network, and look around until ``end``."""
        self.found.seen[self.number] = set()
        try:
            with Visitor(address, patience, self._hear) as visitor:
                self._arrive(visitor)
                dice, first = random.Random(self.number), True
                while time.monotonic() < end or first:
                    self._look(visitor, dice)
                    if slow and (first or dice.random() < 0.3):
                        self._wait(visitor, SLOW[self.number % len(SLOW)] if first else dice.choice(SLOW), time.monotonic() + patience)
                    first = False
        except Exception as error:
            self._fails(f"{type(error).__name__}: {str(error)[:300]}")

    def _hear(self, frame: bytes) -> None:
        self.found.seen[self.number] |= {hash(one) for one in _INLINE.findall(frame)}
        others = {int(one) for one in _SECRET.findall(frame)} - {self.number}
        if others:
            with self.found.lock:
                self.found.strangers.append(f"session {self.number} was told of {sorted(others)}")

    def _fails(self, what: str) -> None:
        with self.found.lock:
            self.found.failed.append(f"session {self.number}: {what}")

    def _arrive(self, visitor: Visitor) -> None:
        visitor.open("", model=self.network if self.number % 4 < 2 else NETWORKS[1])
        visitor.upload("upload-0", self.upload, image_of(self.number))
        if self.network not in ("squeezenet1_0", "places"):
            self.model = self.network
            return
        visitor.click("own-open")
        if self.network == "squeezenet1_0":
            sent = visitor.send("w.pth", (self.data / "networks/squeezenet1_0.pth").read_bytes())
            visitor.set(
                {"own-architecture": "squeezenet1_0", "own-checkpoint-upload": [sent], "own-title": f"secret-{self.number}-x"},
                click=SUBMIT,
            )
        else:
            visitor.set(
                {
                    "own-architecture": "tests.helpers.somebody.places_squeezenet:build", "own-checkpoint-path": "squeezenet_places365.pth",
                    "own-labels-path": "categories_places365.txt", "own-fit": "squash: the whole photograph, its sides made equal",
                },
                click=SUBMIT,
            )  # fmt: skip
        if "own-" not in visitor.query:
            self._fails(f"the network was not added: {visitor.texts()[-3:]}")
        self.model = dict(urllib.parse.parse_qsl(visitor.query))["model"]

    def _look(self, visitor: Visitor, dice: random.Random) -> None:
        """One round: some view, then four methods on some image at some depth."""
        photo = dice.choice((self.upload, *list(gallery.ENTRIES)[:2]))
        self._check(visitor.open(dice.choice(VIEWS), model=self.model))
        self._check(visitor.open("compare", model=self.model))
        self._check(visitor.set({"photo": photo}))
        layers = [one.content for one in visitor.widget("layer").options]
        self._check(visitor.set({"layer": dice.choice(layers)}))
        fast = [name for name in METHODS if name not in SLOW]
        self._compare(visitor, [METHODS[name].title for name in dice.sample(fast, 4)])

    def _wait(self, visitor: Visitor, method: str, end: float) -> None:
        """One of the methods that wait for a click; the last depth is the quickest."""
        visitor.open("compare", model=self.model)
        visitor.set({"layer": visitor.widget("layer").options[-1].content})
        self._check(visitor.set({"methods": [METHODS[method].title], "others": []}))
        starts = [key for key in visitor.widget_keys() if key.startswith("start-grid-")]
        if starts:
            self._check(visitor.click(starts[0]))
        while visitor.busy() and time.monotonic() < end:
            time.sleep(0.3)
            visitor.again()
        if visitor.busy():
            self._fails(f"{method} did not come")
        else:
            self._compare(visitor, [METHODS[method].title])

    def _check(self, visitor: Visitor) -> None:
        self.found.asked["pages"] += 1
        for problem in visitor.exceptions():
            self._fails(problem[:300])

    def _compare(self, visitor: Visitor, titles: Sequence[str]) -> None:
        """Four methods side by side, and their raw maps taken home."""
        self._check(visitor.set({"methods": list(titles)}))
        if not visitor.has("take-compare-npz"):
            return
        with zipfile.ZipFile(io.BytesIO(visitor.download("take-compare-zip"))) as bundle:
            said = json.loads(bundle.read("about.json"))["settings"]
            arrays = np.load(io.BytesIO(bundle.read("arrays.npz")))
        if said["photograph_sha256"] not in self.found.images:
            self._fails(f"explained a photograph of nobody’s, {said}")
        photo, network = self.found.images.get(said["photograph_sha256"], "?"), f"{said['weights_sha256']}"
        if photo.startswith("mine-") and photo != self.upload:
            self._fails(f"explained {photo}")
        for name in arrays.files:
            if name in ("pearson", "rank", "correlated"):
                continue
            with self.found.lock:
                self.found.networks[network] += 1
                self.found.methods[next(method for method in sorted(METHODS, key=len, reverse=True) if name.startswith(method))] += 1
                self.found.maps.setdefault((network, photo, said["layer"], name), set()).add(digest(arrays[name]))


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(str(array.shape).encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def alone(maps: dict[tuple[str, str, str, str], set[str]], networks: dict[str, chipcore.Network], end: float) -> tuple[int, list[str]]:
    """Every map that the sessions took home, computed by itself; how many were, and those that differ."""
    wrong, done = [], 0
    for (name, photo, layer, key), digests in maps.items():
        if time.monotonic() > end:
            break
        network = networks[name]
        picture = image_of(int(photo.split("-")[1])) if photo.startswith("mine-") else gallery.image(photo).data
        image = gallery.uploaded("photograph", picture).open()
        method = next(one for one in sorted(METHODS, key=len, reverse=True) if key.startswith(one))
        target = int(re.findall(r"\d+", key)[-1])
        try:
            found = chipcore.explain(network, image, target, method, layer, options=FEW.get(method, {}))
        except ChipError as error:
            wrong.append(f"{network.title} {photo} {layer} {key}: {error}")
            continue
        done += 1
        if key_of(found) != key or digests != {digest(found.raw.numpy())}:
            wrong.append(f"{network.title} {photo} {layer} {key}")
    return done, wrong


def run(sessions: int, seconds: float, data: Path, *, slow: bool = True, patience: float = 240, check: float = 600) -> dict[str, Any]:
    """Let so many in for so long; what was counted, where empty lists and equal numbers of hooks are good."""
    found = Found()
    uploads = {f"mine-{number}-x.png": image_of(number) for number in range(sessions)}
    found.images = {hashlib.sha256(data).hexdigest(): name for name, data in uploads.items()}
    found.images |= {gallery.image(name).sha256: name for name in gallery.ENTRIES}
    with tempfile.TemporaryDirectory() as folder:
        told, log = Path(folder, "told.json"), Path(folder, "log.txt")
        environment = {
            "CHIP_CACHE": str(Path(folder, "cache")), "CHIP_FOLDERS": str((data / "networks").resolve()),
            "CHIP_MODULES": "tests.helpers.somebody.places_squeezenet", VISITORS: str(2 * sessions),
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.benchmarks.watched_server", str(told)]
        with serving(log, command, **environment) as (address, _process):
            people = [Session(number, data, found) for number in range(sessions)]
            start = time.monotonic()
            threads = [threading.Thread(target=one.walk, args=(address, start + seconds, patience, slow)) for one in people]
            for thread in threads:
                thread.start()
            told_of = [_told(told)]
            for quarter in range(1, 5):
                time.sleep(max(0.0, start + seconds * quarter / 4 - time.monotonic()))
                told_of.append(_told(told))
            for thread in threads:
                thread.join()
            time.sleep(7)  # what is freed is given back every five seconds
            told_of.append(last := _told(told))
        trouble = [line for line in log.read_text().splitlines() if "Traceback" in line or "Error" in line]
    thumbnails = {
        number: hash(figures.data_uri(gallery.thumbnail(gallery.uploaded("x", image_of(number)).open())).encode())
        for number in range(sessions)
    }
    for number, seen in found.seen.items():
        if found.methods and thumbnails[number] not in seen:
            found.failed.append(f"session {number} never saw its own photograph")
        found.strangers += [
            f"session {number} saw the photograph of {other}" for other, one in thumbnails.items() if other != number and one in seen
        ]
    from tests.benchmarks.crowds import load

    loaded = {one.weights_sha256: one for one in load(NETWORKS).values()}
    checked, wrong = alone(found.maps, loaded, time.monotonic() + check)
    return {
        "sessions": sessions, "seconds": seconds, "networks": {loaded[one].title: count for one, count in found.networks.items()}, "pages": found.asked["pages"], "maps": found.methods.total(),
        "methods": dict(sorted(found.methods.items())), "different_maps": len(found.maps), "computed_alone": checked, "different": wrong,
        "saw_of_others": found.strangers, "failed": found.failed, "log": trouble[:5], "hooks_after": last["hooks"],
        "memory_gb": {when: one["memory_gb"] for when, one in zip(TIMES, told_of, strict=True)},
        "kept_gb": {when: round(sum(one["kept_mb"].values()) / 1024, 3) for when, one in zip(TIMES, told_of, strict=True)},
        "most_gb": round(sum(last["most_mb"].values()) / 1024, 2), "kept_mb": last["kept_mb"], "most_mb": last["most_mb"],
        "threads_of_torch": torch.get_num_threads(),
    }  # fmt: skip


def _told(file: Path) -> Any:
    for _attempt in range(100):
        if file.exists():
            return json.loads(file.read_text())
        time.sleep(0.05)
    raise AssertionError("the server tells nothing")


def bad(result: dict[str, Any]) -> list[str]:
    """What must not be."""
    problems = [*result["different"], *result["saw_of_others"], *result["failed"], *result["log"]]
    return problems + ([f"{result['hooks_after']} hooks are left"] if result["hooks_after"] else [])
