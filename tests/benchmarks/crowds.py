"""Many visitors, one model: every map of a crowd compared bit for bit with the one computed alone.

    python -m tests.benchmarks.crowds [--sessions 20] [--minutes 5] [--json assets/results/crowds.json]

Four networks (EfficientNet-Lite0, the small VGG, SqueezeNet 1.0, somebody's Places365 SqueezeNet) are loaded once, as the
app does, and shared by all sessions. Each session is a thread that asks for one map after another: any network,
method, depth, image and class. Beside them one thread fits W over and over, which works in the solver's
threads, and one loads networks anew, which traces graphs. Counted: maps that differ by a bit from the one that was
computed alone before, exceptions, hooks before and after, memory at the start, after each quarter and at the end.
Then as many visitors come to the running app, for as long again: see ``crowds_app.py``.
All methods of the registry are asked for; those that take long do little work (``watched_server.FEW``), which plays no
part in whether it is right.
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
from chipcore.fitting.settings import FitSettings
from chipcore.methods import METHODS
from explorer.services import memory as memory_service
from tests.benchmarks import crowds_app
from tests.benchmarks.watched_server import FEW, resident

DATA = Path(os.environ.get("CHIP_DATA") or "../shared/data")
PHOTOGRAPHS = ("chelsea", "coffee", "rocket")
LEARN = FitSettings(gates=6, held_out=0, cutoff=1e-9, min_evidence=1e-9)


def load(names: Sequence[str]) -> dict[str, Network]:
    """The networks by a short name."""
    found = {}
    for name in names:
        if name == "places":
            found[name] = chipcore.load_network(
                "tests.helpers.somebody.places_squeezenet:build", checkpoint=DATA / "networks/squeezenet_places365.pth",
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
    image: str
    target: int


@dataclass
class Place:
    """What all visitors share."""

    networks: dict[str, Network]
    images: dict[str, Image.Image]
    importances: dict[tuple[str, str], Importance]
    questions: list[Question] = field(default_factory=list)

    @classmethod
    def open(cls, names: Sequence[str], methods: Sequence[str], images: Sequence[str] = PHOTOGRAPHS, most: int = 10**6) -> Place:
        """Everything loaded, and at most so many questions that may be asked, drawn evenly."""
        pictures = {name: Image.fromarray(getattr(skimage.data, name)()) for name in images}
        place = cls(load(names), pictures, {})
        for name, network in place.networks.items():
            place._learn(name, network)
            layers = (network.layers[0], network.layers[len(network.layers) // 2], network.layers[-1])
            for image, picture in pictures.items():
                best = network.probabilities(network.input(picture))[0].topk(2).indices.tolist()
                for method in methods:
                    for layer in layers if METHODS[method].uses_layer else layers[-1:]:
                        place.questions += [Question(name, method, layer.name, image, target) for target in best]
        if len(place.questions) > most:
            place.questions = drawn(place.questions, most)
        return place

    def _learn(self, name: str, network: Network) -> None:
        """W that ships, or one that these images give in a moment: whether it is a good one does not matter here."""
        layers = (network.layers[0], network.layers[len(network.layers) // 2], network.layers[-1])
        for layer in layers:
            try:
                self.importances[name, layer.name] = chipcore.load_importance(network, layer.name)
            except ChipError:
                self.importances[name, layer.name] = self.fit(name, layer.name)

    def fit(self, name: str, layer: str) -> Importance:
        network = self.networks[name]
        best = {int(i) for picture in self.images.values() for i in network.probabilities(network.input(picture))[0].topk(2).indices}
        with tempfile.TemporaryDirectory() as folder:
            for image, picture in self.images.items():
                picture.save(Path(folder, f"{image}.png"), compress_level=1)
            return chipcore.fit(network, [layer], folder, LEARN, classes=sorted(best))[layer]

    def answer(self, asked: Question) -> str:
        """A digest of everything that a visitor would see, to the last bit; or the sentence of a refusal."""
        network = self.networks[asked.network]
        try:
            found = chipcore.explain(
                network, self.images[asked.image], asked.target, asked.method, asked.layer, self.importances[asked.network, asked.layer],
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


def drawn(questions: Sequence[Question], most: int) -> list[Question]:
    """So many of them, drawn blindly but as evenly from all methods as they allow."""
    shuffled = random.Random(0).sample(questions, len(questions))
    seen: Counter[str] = Counter()
    ranks = []
    for asked in shuffled:
        ranks.append(seen[asked.method])
        seen[asked.method] += 1
    return [shuffled[i] for i in sorted(range(len(ranks)), key=ranks.__getitem__)[:most]]


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
        """Let them in for so long; returns the process's memory in GB at the start, after each quarter, and when all have gone."""
        gc.collect()
        memory = [resident()]
        threads = [threading.Thread(target=self.visit, args=(seed,)) for seed in range(sessions)]
        threads += [threading.Thread(target=self.fit_again), threading.Thread(target=self.load_again)]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for quarter in range(1, 5):
            time.sleep(max(0.0, start + seconds * quarter / 4 - time.monotonic()))
            memory.append(resident())
        self.over.set()
        for thread in threads:
            thread.join()
        return [*memory, resident()]


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
    memory_service.bound()  # as the app does
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
        "memory_gb": dict(zip(crowds_app.TIMES, memory, strict=True)), "threads_of_torch": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(), "torch": torch.__version__,
    }  # fmt: skip
    if options.app:  # the same again with visitors of the running app, in a process of its own
        del place, crowd
        result["app"] = crowds_app.run(options.sessions, 60 * options.minutes, DATA)
    result["exit_status"] = int(bool(
        result["different"] or result["exceptions"] or result["hooks_after"] != hooks or set(METHODS) - set(result["methods"])
        or (options.app and crowds_app.bad(result["app"]))
    ))  # fmt: skip
    print(table(result))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    raise SystemExit(result["exit_status"])


def table(result: dict[str, Any]) -> str:
    """The figures in words, one a line."""
    app = result.get("app")
    methods = len(METHODS)
    lines = [
        ("library: sessions x minutes", f"{result['sessions']} x {result['minutes']:g}"),
        ("  maps, of how many methods", f"{result['maps']:,}, {len(result['methods'])} of {methods}"),
        ("  of the methods that take long", ", ".join(f"{name} {result['methods'].get(name, 0)}" for name in FEW)),
        ("  fits and loads beside them", f"{result.get('fits', 0)}, {result.get('networks loaded', 0)}"),
        ("  maps and W that differ from those computed alone", result["different"]),
        ("  exceptions", result["exceptions"]),
        ("  hooks before, after", f"{result['hooks_before']}, {result['hooks_after']}"),
        ("  memory, GB", in_words(result["memory_gb"])),
    ]
    if app:
        lines += [
            ("app: visitors x minutes", f"{app['sessions']} x {app['seconds'] / 60:g}"),
            ("  pages, maps taken home, of how many methods", f"{app['pages']:,}, {app['maps']:,}, {len(app['methods'])} of {methods}"),
            ("  of the methods that take long", ", ".join(f"{name} {app['methods'].get(name, 0)}" for name in FEW)),
            ("  different maps, computed again alone", f"{app['different_maps']:,}, {app['computed_alone']:,}"),
            ("  that differ", len(app["different"])),
            ("  saw something of another visitor", len(app["saw_of_others"])),
            ("  pages that failed, traces in the log", f"{len(app['failed'])}, {len(app['log'])}"),
            ("  hooks left", app["hooks_after"]),
            ("  memory, GB", in_words(app["memory_gb"])),
            ("  of that kept for all visitors, GB", in_words(app["kept_gb"])),
            ("  the most that may be kept, GB", f"{app['most_gb']:.1f}: {', '.join(f'{name} {size:,} MB' for name, size in app['most_mb'].items())}"),
        ]  # fmt: skip
    first = [*result["first_failures"], *([] if not app else [*app["different"], *app["failed"], *app["log"]])][:5]
    return "\n".join(f"{name:<52} {value}" for name, value in [*lines, *(("first failure", one) for one in first)])


def in_words(series: dict[str, float]) -> str:
    return ", ".join(f"{value:.2f} {when}" for when, value in series.items())


if __name__ == "__main__":
    main()
