"""What a training run leaves on disk: checkpoints while it lasts, then weights and the facts about them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from chipcore.datasets.class_names import Classes
from chipcore.errors import CheckpointError, ChipError
from chipcore.images import InputGeometry
from chipcore.networks.architectures.vgg_slim import LAYERS, VGG, VGGSlim, fold_batch_norm
from chipcore.networks.network import Network
from chipcore.networks.weights import read_state_dict
from chipcore.storage import write_whole
from chipcore.training.settings import TrainSettings

_RUN = {"classes": "the class folders", "data_fingerprint": "the photographs", "name": "the name"}


@dataclass(frozen=True)
class Trained:
    """A trained network and where it lies."""

    network: Network
    weights: Path
    facts: dict[str, Any]


class TrainingCheckpoint:
    """The state of a run after an epoch; a file of another run is refused."""

    def __init__(self, path: Path, run: dict[str, Any], settings: TrainSettings) -> None:
        self.path, self.run, self.settings = path, run, settings

    def write(self, state: dict[str, Any]) -> None:
        content = {"run": self.run, "settings": self.settings.as_dict(), **state}
        write_whole(self.path, lambda temporary: torch.save(content, temporary))

    def read(self) -> dict[str, Any] | None:
        """The saved state, or None where there is none; ``CheckpointError`` where it is damaged or belongs to another run."""
        if not self.path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            changed = [words for key, words in _RUN.items() if state["run"][key] != self.run[key]]
            changed += self.settings.same_until(state["settings"], state["epoch"])
        except Exception:  # torch raises many types for a damaged file
            raise CheckpointError(f"{self.path} is damaged; leave --resume out to begin again.") from None
        if changed:
            raise CheckpointError(
                f"cannot resume: {', '.join(changed)} changed since {self.path} was written; give what was given then, or leave --resume out to begin again."
            )
        return state


def write(
    out: Path,
    name: str,
    weights: Mapping[str, Tensor],
    settings: TrainSettings,
    classes: Sequence[str],
    geometry: InputGeometry,
    facts: dict[str, Any],
) -> Trained:
    """Fold batch norm into ``weights`` and write ``<name>.safetensors`` and ``<name>.json`` into ``out``."""
    folded = fold_batch_norm(weights)
    path = out / f"{name}.safetensors"
    described = {"architecture": "vgg" if settings.flatten else "vgg_slim", "width": settings.width, "geometry": asdict(geometry), **facts}
    write_whole(path, lambda temporary: save_file(folded, temporary, metadata={"classes": json.dumps(list(classes))}))
    write_json(path.with_suffix(".json"), described)
    return Trained(load_trained(path), path, described)


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, lambda temporary: temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"))


def load_trained(path: Path | str) -> Network:
    """A network that ``train`` wrote, from its .safetensors and the .json beside it.

    Raises ``CheckpointError`` where one of them is missing or they do not belong together.
    """
    path = Path(path)
    weights = read_state_dict(path)
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        geometry: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts["geometry"].items()}
        classes, width = len(facts["classes"]), facts["width"]
        model = VGG(classes, width, geometry["size"]) if facts["architecture"] == "vgg" else VGGSlim(classes, width)
        model.load_state_dict(weights)
        names = tuple(name.replace("_", " ") for name in facts["classes"])
        return Network.wrap(
            model, name=facts["name"], title=f"VGG16 at width {facts['width']}", layers=LAYERS, geometry=InputGeometry(**geometry),
            classes=Classes(names), source=str(path),
        )  # fmt: skip
    except ChipError:
        raise
    except Exception:
        raise CheckpointError(f"{path.with_suffix('.json')} is missing, damaged or not of {path.name}; train writes both.") from None
