"""Shows that a change of form changed no result: fingerprints of W, maps and evaluations of a checkout, to the byte.

``python -m tests.benchmarks.unchanged --checkout DIR --out FILE.json`` runs the checkout in ``DIR`` (this one by
default) and writes a digest of every result; ``--compare BEFORE.json AFTER.json`` prints what differs and exits with 1
if anything does. About four minutes on one core. The real data is looked for in ``--data``, else ``CHIP_DATA``.

It opens only doors that stay where they are while modules move: the command line (``fit``, ``explain``, ``gate``,
``rows``, ``evaluate``) and ``chipcore.load_network``, ``chipcore.explain`` and ``chipcore.METHODS`` (where the facade
has no ``METHODS``, ``chipcore.methods.METHODS``). Left out of the digests are dates, seconds, paths, versions, command
lines and the metadata of W; tensors in a file of W are compared by shape, type and values, whatever their names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]

# Of a result: what differs between two runs of the same program, and what says in words where things came from.
IGNORED_KEYS = {
    "seconds",
    "date",
    "command",
    "chipcore",
    "data",
    "file",
    "files",
    "out",
    "importance",
    "memory_peak",
    "memory_stated",
    "title",
    "source",
}
TIMING_PARTS = ("seconds", "_ms", "time")

CHEAP_OPTIONS = {
    "lime": {"samples": 60},
    "occlusion": {"windows": 4},
    "deepdraw": {"octaves": 2, "steps": 4},
    "local_chip": {"gates": 40},
}
# name, layer of the maps, what each of the two images is explained for; the second network's rows hold 14 classes
MAPS = (
    ("efficientnet_lite0", "stage4", (("zebra", "n02391049"), ("dog", "n02099601"))),
    ("vgg16_slim", "pool4", (("zebra", "zebra"), ("dog", "1"))),
)

MAPS_PROGRAM = """
import json, sys
import numpy as np
import chipcore
try:
    from chipcore import METHODS
except ImportError:
    from chipcore.methods import METHODS
plan = json.loads(sys.stdin.read())
arrays = {"where": np.array(chipcore.__file__)}
for network_name, layer, cases in plan["maps"]:
    network = chipcore.load_network(network_name)
    for title, target, path in cases:
        for name in METHODS:
            key = f"{network_name} {layer} {title} {name}"
            options = plan["options"].get(name)
            try:
                found = chipcore.explain(network, path, int(target) if target.isdigit() else target, method=name, layer=layer, options=options)
            except chipcore.ChipError:  # a method that this network does not allow; its sentence may be worded anew
                arrays[key] = np.array("refused")
                continue
            arrays[key] = found.raw.numpy()
            arrays[key + " facts"] = np.array([found.probability, found.passes, found.target])
            arrays[key + " picture"] = found.picture.numpy()
            if found.image is not None:
                arrays[key + " image"] = found.image.numpy()
np.savez(plan["out"], **arrays)
"""


class Runner:
    """Runs the program of one checkout in processes of their own and keeps the digests of what they leave."""

    def __init__(self, checkout: Path, data: Path, scratch: Path) -> None:
        self.checkout = checkout.resolve()
        self.data = data.resolve()
        self.scratch = scratch
        self.items: dict[str, Any] = {}
        self.environment = {
            **{key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "CHIP_FOLDERS", "CHIP_MODULES")},
            "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONDONTWRITEBYTECODE": "1",
            "CHIP_CACHE": str(scratch / "cache"),
        }  # fmt: skip

    def python(self, *arguments: str, stdin: str = "") -> str:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.checkout, env=self.environment, input=stdin, capture_output=True, text=True, check=False
        )
        shown = " ".join(arguments if arguments[0] == "-m" else ("(maps)",))
        print(f"{time.perf_counter() - started:6.1f} s  {shown}"[:160], file=sys.stderr, flush=True)
        if done.returncode:
            raise SystemExit(f"unchanged: {shown} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        return done.stdout

    def chipcore(self, *arguments: object) -> str:
        return self.python("-m", "chipcore", *map(str, arguments))

    def keep_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        for key, array in sorted(arrays.items()):
            self.items[f"{name}: {key}"] = digest(array)

    def keep_json(self, name: str, text: str) -> None:
        cleaned = clean(json.loads(text), str(self.scratch))
        self.items[name] = {"sha256": hashlib.sha256(json.dumps(cleaned, sort_keys=True).encode()).hexdigest(), "content": cleaned}

    # -- what is run ---------------------------------------------------------------------------------------------------

    def fits(self) -> None:
        """W of two layers of two networks on 40 images, and once more with every other setting than the default."""
        cases: list[tuple[str, str, list[str], str, list[str]]] = [
            ("vgg16_slim", "vgg16_slim", ["pool3", "pool5"], "forty", []),
            (
                "vgg16_slim, other settings", "vgg16_slim", ["pool4"], "forty",
                ["--target", "probability", "--background", "0", "--intercept", "--seed", "3", "--lambda-ratio", "0.01", "--photos-per-class", "1"],
            ),
            ("efficientnet_lite0", "efficientnet_lite0", ["stage4", "head"], "forty", []),
        ]  # fmt: skip
        for title, network, layers, images, more in cases:
            out = self.scratch / f"w {title}"
            text = self.chipcore(
                "fit",
                "--network",
                network,
                "--layers",
                *layers,
                "--images",
                self.scratch / images,
                "--gates",
                10,
                "--out",
                out,
                "--json",
                *more,
            )
            self.keep_json(f"fit {title}: result", text)
            for file in sorted(out.rglob("*.safetensors")):
                tensors = sorted((array.ndim == 1, digest(array)) for array in load_file(file).values())
                self.items[f"fit {title}: {file.stem}"] = [text for _one_axis, text in tensors]  # W itself comes first

    def maps(self) -> None:
        """Every method's raw map on two images, from two networks."""
        out = self.scratch / "maps.npz"
        plan = {
            "maps": [
                (network, layer, [(title, target, str(self.scratch / f"{title}.jpg")) for title, target in cases])
                for network, layer, cases in MAPS
            ],
            "options": CHEAP_OPTIONS,
            "out": str(out),
        }
        self.python("-c", MAPS_PROGRAM, stdin=json.dumps(plan))
        with np.load(out) as file:
            arrays = dict(file)
        where = Path(str(arrays.pop("where")))
        if self.checkout not in where.parents:
            raise SystemExit(
                f"unchanged: the maps came from {where}, not from {self.checkout}; leave PYTHONPATH and the installed package out."
            )
        self.keep_arrays("map", arrays)

    def commands(self) -> None:
        """``explain``, ``gate`` and ``rows``: their JSON and the files that they write."""
        zebra, out = self.scratch / "zebra.jpg", self.scratch / "files"
        out.mkdir()
        network = ("--network", "efficientnet_lite0")
        text = self.chipcore(
            "explain", zebra, *network, "--layer", "stage3", "--class", "zebra", "--out", out / "map.png", "--raw", out / "map.npy",
            "--threshold", 0.2, "--true-box", 20, 30, 180, 190, "--mask", out / "mask.npy", "--json",
        )  # fmt: skip
        self.keep_json("explain", text)
        self.items["explain: picture"] = hashlib.sha256((out / "map.png").read_bytes()).hexdigest()
        self.keep_arrays("explain", {"raw": np.load(out / "map.npy"), "mask": np.load(out / "mask.npy")})
        text = self.chipcore(
            "gate",
            zebra,
            *network,
            "--layer",
            "stage4",
            "--close",
            0,
            5,
            7,
            "--random",
            3,
            "--seed",
            2,
            "--features",
            5,
            "--out",
            out / "g.npz",
            "--json",
        )
        self.keep_json("gate", text)
        text = self.chipcore("rows", *network, "--layer", "stage4", "--classes", "zebra", "tabby", "340", "--out", out / "r.npz", "--json")
        self.keep_json("rows", text)
        for name in ("g", "r"):
            with np.load(out / f"{name}.npz") as file:
                self.keep_arrays({"g": "gate", "r": "rows"}[name], dict(file))

    def evaluations(self) -> None:
        """The JSON file of every ``evaluate`` command, on few images."""
        lite0, slim = ("--network", "efficientnet_lite0"), ("--network", "vgg16_slim")
        few = ("--methods", "chip", "gradcam", "cam")
        cases: dict[str, tuple[object, ...]] = {
            "localization": (*lite0, "--layer", "stage4", "head", *few, "cmwp", "--data", self.data / "ilsvrc_val_dev", "--limit", 8),
            "segmentation": (*lite0, "--layer", "head", *few, "--data", self.data / "coco128", "--limit", 10),
            "segmentation ADE20K": (*lite0, "--layer", "head", "--methods", "chip", "gradcam", "--data", self.data / "ade20k", "--limit", 3),
            "pointing": (*lite0, "--layer", "head", *few, "--data", self.data / "ilsvrc_val_dev", "--limit", 8),
            "pointing, masks": (*lite0, "--layer", "stage5", "--methods", "chip", "gradcam", "--data", self.data / "coco128", "--limit", 8),
            "pointing, grid": (
                *slim, "--layer", "pool5", "--methods", "chip", "gradcam", "--data", self.scratch / "forty", "--grid", 2, "--mosaics", 5,
                "--confidence", 0.5,
            ),
            "pointing, mosaic": (
                *lite0, "--layer", "head", "--methods", "chip", "gradcam", "--mosaic", *[self.scratch / f"{name}.jpg" for name in ("zebra", "dog", "dog", "zebra")],
                "--raw", self.scratch / "mosaic.npz",
            ),
            "faithfulness": (
                *lite0, "--layer", "head", "--methods", "chip", "gradcam", "--data", self.scratch / "forty", "--limit", 3, "--steps", 6, "--channel-steps", 5,
            ),
        }  # fmt: skip
        for title, arguments in cases.items():
            out = self.scratch / f"{title}.json"
            table = self.chipcore("evaluate", title.split()[0].strip(","), *arguments, "--json", out)
            self.keep_json(f"evaluate {title}", out.read_text(encoding="utf-8"))
            self.items[f"evaluate {title}: rows of the table"] = len(table.splitlines())
        with np.load(self.scratch / "mosaic.npz") as file:
            self.keep_arrays("evaluate pointing, mosaic", dict(file))

    def prepare(self) -> None:
        """The same images in the same place relative to everything: 40 in 14 class folders, and two single ones."""
        folders = sorted(folder for folder in (self.data / "fourteen" / "val").iterdir() if folder.is_dir())
        for place in range(40):
            folder = folders[place % len(folders)]
            image = sorted(folder.iterdir())[place // len(folders)]
            target = self.scratch / "forty" / folder.name / image.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, target)
        for name, synset in (("zebra", "n02391049"), ("dog", "n02099601")):
            shutil.copy(next(iter(sorted((self.data / "ilsvrc_train_1_per_class" / synset).iterdir()))), self.scratch / f"{name}.jpg")


def digest(array: np.ndarray) -> str:
    """Type, shape and a sha256 of the values."""
    plain = np.ascontiguousarray(array)
    return f"{plain.dtype.str} {plain.shape} {hashlib.sha256(plain.tobytes()).hexdigest()}"


def clean(value: Any, scratch: str) -> Any:
    """Without what differs between two runs of one program."""
    if isinstance(value, dict):
        return {
            key: clean(one, scratch)
            for key, one in value.items()
            if key not in IGNORED_KEYS
            and not any(part in key.lower() for part in TIMING_PARTS)
            and not (key == "W" and isinstance(one, dict))  # `rows` says there what W was learned from
        }
    if isinstance(value, list):
        return [clean(one, scratch) for one in value]
    return value.replace(scratch, "SCRATCH") if isinstance(value, str) else value


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Where two results differ, a line for each place."""
    if isinstance(before, dict) and isinstance(after, dict):
        before, after = ({k: v for k, v in one.items() if k != "sha256"} if "content" in one else one for one in (before, after))
        lines = []
        for key in sorted(before.keys() | after.keys()):
            place = f"{where} > {key}" if where else key
            if key not in before or key not in after:
                lines.append(f"{place}: only {'after' if key not in before else 'before'}")
            else:
                lines += differences(before[key], after[key], place)
        return lines
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            line
            for place, (one, other) in enumerate(zip(before, after, strict=True))
            for line in differences(one, other, f"{where}[{place}]")
        ]
    return [] if before == after else [f"{where}: {str(before)[:120]} -> {str(after)[:120]}"]


def compare(before: Path, after: Path) -> int:
    """Print every difference; 1 if there is one."""
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    lines = differences(first["items"], second["items"])
    print("\n".join(lines) if lines else f"the same: {len(first['items'])} results, to the byte")
    return 1 if lines else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkout", type=Path, default=ROOT, metavar="DIR", help="default: this one")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CHIP_DATA") or ROOT.parent / "shared" / "data"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=None, metavar="JSON")
    parser.add_argument("--compare", nargs=2, type=Path, default=None, metavar="JSON")
    options = parser.parse_args()
    if options.compare:
        return compare(*options.compare)
    if options.out is None:
        parser.error("give --out or --compare")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=options.checkout, capture_output=True, text=True, check=False).stdout.strip()
    with tempfile.TemporaryDirectory() as scratch:
        runner = Runner(options.checkout, options.data, Path(scratch))
        runner.prepare()
        runner.commands()
        runner.maps()
        runner.evaluations()
        runner.fits()
    options.out.write_text(json.dumps({"commit": commit, "items": runner.items}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(runner.items)} results of {commit[:7]} in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
