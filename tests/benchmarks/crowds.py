"""Many visitors, one model: every map of a crowd compared bit for bit with the one computed alone.

    python -m tests.benchmarks.crowds [--sessions 20] [--minutes 5] [--json assets/results/crowds.json]

Four networks (EfficientNet-Lite0, the small VGG, SqueezeNet 1.0, somebody's Places365 SqueezeNet) are loaded once, as the
app does, and shared by all sessions. Each session is a thread that asks for one map after another: any network,
method, depth, photograph and class. Beside them one thread fits W over and over, which works in the solver's
threads, and one loads networks anew, which traces graphs. Counted: maps that differ by a bit from the one that was
computed alone before, exceptions, hooks before and after, memory at the start, after a minute and at the end.
Then as many visitors come to the running app, for as long again: see ``crowds_app.py``.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import skimage.data
import torch
from PIL import Image

import chipcore
from chipcore import ChipError, Importance, Network
from chipcore.methods import METHODS
from chipcore.settings import FitSettings
from tests.benchmarks import crowds_app

DATA = Path(os.environ.get("CHIP_DATA") or "../shared/data")
PHOTOGRAPHS = ("chelsea", "coffee", "rocket")
# Little work a map, so that many are asked for; how much work it is plays no part in whether it is right.
FEW = {
    "lime": {"samples": 16}, "local_chip": {"gates": 24}, "deepdraw": {"octaves": 1, "steps": 2}, "occlusion": {"windows": 2, "overlap": 1},
}  # fmt: skip
SLOW = ("lime", "deepdraw", "occlusion", "local_chip")
LEARN = FitSettings(gates=6, held_out=0, cutoff=1e-9, min_evidence=1e-9)


def load(names: Sequence[str]) -> dict[str, Network]:
    """The networks by a short name."""
    found = {}
    for name in names:
        if name == "places":
            found[name] = chipcore.load_network(
                "tests.somebody.places_squeezenet:build", checkpoint=DATA / "networks/squeezenet_places365.pth",
                labels=DATA / "networks/categories_places365.txt", fit="squash",
            )  # fmt: skip
        elif name == "squeezenet1_0":
            found[name] = chipcore.load_network(name, checkpoint=DATA / "networks/squeezenet1_0.pth")
        else:
            found[name] = chipcore.load_network(name)
    return found


@dataclass(frozen=True)
class Question:
    """What a visitor asks for."""

    network: str
    method: str
    layer: str
    photograph: str
    target: int


@dataclass
class Place:
    """What all visitors share."""

    networks: dict[str, Network]
    photographs: dict[str, Image.Image]
    importances: dict[tuple[str, str], Importance]
    questions: list[Question] = field(default_factory=list)

    @classmethod
    def open(cls, names: Sequence[str], methods: Sequence[str], photographs: Sequence[str] = PHOTOGRAPHS, most: int = 10**6) -> Place:
        """Everything loaded, and at most so many questions that may be asked, drawn evenly."""
        pictures = {name: Image.fromarray(getattr(skimage.data, name)()) for name in photographs}
        place = cls(load(names), pictures, {})
        for name, network in place.networks.items():
            place._learn(name, network)
            layers = (network.layers[0], network.layers[len(network.layers) // 2], network.layers[-1])
            for photograph, picture in pictures.items():
                best = network.probabilities(network.input(picture))[0].topk(2).indices.tolist()
                for method in methods:
                    for layer in layers if METHODS[method].uses_layer else layers[-1:]:
                        place.questions += [Question(name, method, layer.name, photograph, target) for target in best]
        if len(place.questions) > most:
            place.questions = random.Random(0).sample(place.questions, most)
        return place

    def _learn(self, name: str, network: Network) -> None:
        """W that ships, or one that these photographs give in a moment: whether it is a good one does not matter here."""
        layers = (network.layers[0], network.layers[len(network.layers) // 2], network.layers[-1])
        for layer in layers:
            try:
                self.importances[name, layer.name] = chipcore.load_importance(network, layer.name)
            except ChipError:
                self.importances[name, layer.name] = self.fit(name, layer.name)

    def fit(self, name: str, layer: str) -> Importance:
        network = self.networks[name]
        best = {int(i) for picture in self.photographs.values() for i in network.probabilities(network.input(picture))[0].topk(2).indices}
        with tempfile.TemporaryDirectory() as folder:
            for photograph, picture in self.photographs.items():
                picture.save(Path(folder, f"{photograph}.png"), compress_level=1)
            return chipcore.fit(network, [layer], folder, LEARN, classes=sorted(best))[layer]

    def answer(self, asked: Question) -> str:
        """A digest of everything that a visitor would see, to the last bit; or the sentence of a refusal."""
        network = self.networks[asked.network]
        try:
            found = chipcore.explain(
                network, self.photographs[asked.photograph], asked.target, asked.method, asked.layer, self.importances[asked.network, asked.layer],
                shallow_importance=self.importances[asked.network, network.layers[0].name], options=FEW.get(asked.method, {}),
            )  # fmt: skip
        except ChipError as error:
            return f"refused: {error}"
        digest = hashlib.sha256(f"{tuple(found.raw.shape)} {found.probability!r} {found.label}".encode())
        for tensor in (found.raw, found.picture, found.image):
            if tensor is not None:
                digest.update(tensor.contiguous().numpy().tobytes())
        digest.update(found.view.tobytes())
        return digest.hexdigest()

    def hooks(self) -> int:
        """Everything that is registered on any module, or on all of them."""
        every = [vars(module) for network in self.networks.values() for module in network.model.modules()]
        every.append({key: value for key, value in vars(torch.nn.modules.module).items() if key.startswith("_global")})
        return sum(len(value) for one in every for key, value in one.items() if key.endswith("_hooks") and isinstance(value, dict))


@dataclass
class Crowd:
    """What the sessions found."""

    place: Place
    alone: dict[Question, str]
    maps: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)

    def visit(self, seed: int) -> None:
        """One session."""
        dice = random.Random(seed)
        while not self.over.is_set():
            asked = dice.choice(self.place.questions)
            try:
                answer = self.place.answer(asked)
            except Exception as error:
                self.failed.append(f"{asked}: {type(error).__name__}: {error}")
                continue
            self.maps[asked.method] += 1
            if answer != self.alone[asked]:
                self.wrong.append(str(asked))

    def fit_again(self) -> None:
        name = next(iter(self.place.networks))
        layer = self.place.networks[name].layers[-1].name
        expected = self.place.fit(name, layer).W
        while not self.over.is_set():
            try:
                if not torch.equal(self.place.fit(name, layer).W, expected):
                    self.wrong.append(f"W of {name} at {layer}")
                self.others["fits"] += 1
            except Exception as error:
                self.failed.append(f"fit: {type(error).__name__}: {error}")

    def load_again(self) -> None:
        while not self.over.wait(1):
            try:
                network = chipcore.load_network("vgg16_slim")
                for path, _module in network.model.named_modules():
                    if path.startswith("features.conv") and path.count(".") == 1:
                        network.layer(path)
                self.others["networks loaded"] += 1
            except Exception as error:
                self.failed.append(f"load: {type(error).__name__}: {error}")

    def run(self, sessions: int, seconds: float) -> list[float]:
        """Let them in for so long; returns the process's memory in GB at the start, after a minute (at most) and at the end."""
        gc.collect()
        memory = [resident()]
        threads = [threading.Thread(target=self.visit, args=(seed,)) for seed in range(sessions)]
        threads += [threading.Thread(target=self.fit_again), threading.Thread(target=self.load_again)]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for until in (min(60.0, seconds / 2), seconds):
            time.sleep(max(0.0, start + until - time.monotonic()))
            memory.append(resident())
        self.over.set()
        for thread in threads:
            thread.join()
        return memory


def resident() -> float:
    """Main memory of this process, in GB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**30, 3)


def alone(place: Place, questions: Sequence[Question]) -> Iterator[tuple[Question, str]]:
    for asked in questions:
        yield asked, place.answer(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--questions", type=int, default=300, help="different maps that are asked for (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=Path("assets/results/crowds.json"))
    parser.add_argument("--app", action=argparse.BooleanOptionalAction, default=True, help="visitors of the app as well, for as long again")
    options = parser.parse_args()
    place = Place.open(("efficientnet_lite0", "vgg16_slim", "squeezenet1_0", "places"), list(METHODS), most=options.questions)
    hooks = place.hooks()
    crowd = Crowd(place, dict(alone(place, place.questions)))
    print(f"{len(crowd.alone)} different questions answered alone; opening for {options.sessions} sessions", flush=True)
    memory = crowd.run(options.sessions, 60 * options.minutes)
    result: dict[str, Any] = {
        "sessions": options.sessions, "minutes": options.minutes, "networks": list(place.networks), "methods": dict(sorted(crowd.maps.items())),
        "questions": len(crowd.alone), "refusals": sum(one.startswith("refused") for one in crowd.alone.values()),
        "maps": crowd.maps.total(), **crowd.others, "different": len(crowd.wrong), "exceptions": len(crowd.failed),
        "first_failures": [*crowd.wrong[:5], *crowd.failed[:5]], "hooks_before": hooks, "hooks_after": place.hooks(),
        "memory_gb": dict(zip(("start", "minute", "end"), memory, strict=True)), "threads_of_torch": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(), "torch": torch.__version__,
    }  # fmt: skip
    if options.app:  # the same again with visitors of the running app, in a process of its own
        del place, crowd
        result["app"] = crowds_app.run(options.sessions, 60 * options.minutes, DATA)
    print(json.dumps(result, indent=1))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    if result["different"] or result["exceptions"] or result["hooks_after"] != hooks or (options.app and crowds_app.bad(result["app"])):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
