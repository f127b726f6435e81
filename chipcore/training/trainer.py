"""The training loop: epochs over images in memory, a checkpoint after each, and the same run whether or not it was interrupted.

Every random choice of an epoch comes from (seed, epoch), so a checkpoint needs no state of a generator, and
a resumed run repeats what the unbroken one would have done, bit for bit where the thread count is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from chipcore.errors import DataError
from chipcore.images import InputGeometry
from chipcore.networks import load_network
from chipcore.networks.architectures.vgg_slim import VGG, VGGSlim
from chipcore.training import saved
from chipcore.training.photographs import Augmentation, ClassFolders, crops, cut, decode, erase, find_classes, recolor
from chipcore.training.settings import STRIDE, TrainSettings
from chipcore.training.start import start_from
from chipcore.training.teacher import Guide, guide, mixed_precision


@dataclass(frozen=True)
class Progress:
    """How far a run has come. ``line`` is a sentence about an epoch that has ended, else empty."""

    stage: str
    done: int
    total: int
    line: str = ""


Report = Callable[[Progress], None]


def geometry_of(size: int) -> InputGeometry:
    """The whole image, squashed to ``size`` x ``size`` pixels: nothing is cut off, and a map covers all of it."""
    return InputGeometry(size=size, fit="squash", resize=size)


class Student(nn.Module):
    """The network in training and, with a teacher, the map from its pool5 to the teacher's directions (dropped afterwards)."""

    def __init__(self, classes: int, settings: TrainSettings, directions: int) -> None:
        super().__init__()
        width, dropout = settings.width, settings.dropout
        self.network: VGG | VGGSlim = (
            VGG(classes, width, settings.size, batch_norm=True, dropout=dropout)
            if settings.flatten
            else VGGSlim(classes, width, batch_norm=True, dropout=dropout)
        )
        names = [name for name, _part in self.network.features.named_children()]
        self.kept = sum(int(name.removeprefix("conv").removeprefix("pool")[0]) <= settings.frozen for name in names)
        self.network.features[: self.kept].requires_grad_(False)
        self.side = settings.size // STRIDE if settings.flatten else 0
        self.imitate = nn.Conv2d(8 * width, directions, 1) if directions else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad():
            x = self.network.features[: self.kept](x)
        features = self.network.features[self.kept :](x)
        read = features
        if self.side and features.shape[-1] != self.side:  # smaller crops, whose pool5 a flattening head could not read
            read = functional.interpolate(features, (self.side, self.side), mode="bilinear", align_corners=False)
        return self.network.head(read), None if self.imitate is None else self.imitate(features)

    def train(self, mode: bool = True) -> Student:
        """As PyTorch's, but the statistics of frozen blocks stay."""
        super().train(mode)
        self.network.features[: self.kept].eval()
        return self


def train(
    images: Path, settings: TrainSettings, out: Path, *, name: str = "vgg16_slim", resume: bool = False,
    device: torch.device | str = "cpu", progress: Report | None = None,
) -> saved.Trained:  # fmt: skip
    """Train a :class:`VGGSlim` on class folders and write ``<out>/<name>.safetensors`` and ``.json``.

    Args:
        images: a folder with one folder of images a class.
        settings: the recipe.
        out: where the weights go, and the checkpoint while the run lasts.
        resume: go on from the checkpoint in ``out`` where there is one.
        device: where the network is trained.
        progress: called with :class:`Progress` as images are read and steps are made.

    Returns:
        What was written: the network without batch norm, and the facts of the run.

    Raises:
        ChipError: a folder, setting or checkpoint that can't be used.
    """
    device = torch.device(device)
    clock = _Clock()

    def report(stage: str, done: int, total: int) -> None:
        if progress:
            progress(Progress(stage, done, total))

    folders = find_classes(images)
    run = {"classes": list(folders.classes), "data_fingerprint": folders.fingerprint, "name": name}
    checkpoint = saved.TrainingCheckpoint(out / f"{name}.checkpoint.pt", run, settings)
    state = checkpoint.read() if resume else None
    decoded = decode(folders, geometry_of(settings.size), report)
    readable = decoded.readable.nonzero().flatten()
    if len(readable) < settings.batch:
        raise DataError(
            f"{images} holds {len(readable)} photographs, fewer than a batch of {settings.batch}; add some or give a smaller --batch."
        )
    teacher = _teacher(settings, folders, out / f"{name}.teacher.pt", device, report)

    # Weights and dropout draw from torch's own generator; what the caller had in it comes back.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        student = Student(len(folders.classes), settings, teacher.maps.shape[1] if teacher else 0)
        if settings.start and not state:
            start_from(
                settings.start,
                student.network,
                geometry_of(settings.size).normalize(decoded.views[readable[:: max(1, len(readable) // 256)]]),
            )
        student = student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(_groups(student, settings.weight_decay), settings.learning_rate, settings.momentum, nesterov=True)
        first, history = 0, []
        if state:
            student.load_state_dict(state["student"])
            optimizer.load_state_dict(state["optimiser"])
            first, history = state["epoch"], state["history"]
            clock.add(*state["seconds"])
        for epoch in range(first, settings.epochs):
            before = clock.read()[0]
            facts = _epoch(student, optimizer, decoded.views, folders.labels, readable, teacher, settings, epoch, device, report)
            history.append(facts)
            checkpoint.write(
                {
                    "student": student.state_dict(),
                    "optimiser": optimizer.state_dict(),
                    "epoch": epoch + 1,
                    "seconds": clock.read(),
                    "history": history,
                }
            )
            if progress:
                line = ", ".join(f"{key} {value}" for key, value in facts.items())
                progress(
                    Progress(
                        "epochs", epoch + 1, settings.epochs, f"{line}, {clock.read()[0] - before:.0f} s, {clock.read()[0]:.0f} s in all"
                    )
                )
        facts = {
            **run, "settings": settings.as_dict(), "photographs": len(readable), "unreadable": list(decoded.unreadable), "seconds": round(clock.read()[0], 1),
            "cpu_seconds": round(clock.read()[1], 1), "history": history,
        }  # fmt: skip
        if settings.flatten:
            _settle(
                student.network, decoded.views, _order(folders.labels, readable, settings, np.random.default_rng(settings.seed)), settings
            )
        weights = {key: value.detach().cpu().contiguous() for key, value in student.network.state_dict().items()}
        return saved.write(out, name, weights, settings, folders.classes, geometry_of(settings.size), facts)


@torch.no_grad()
def _settle(network: nn.Module, views: Tensor, order: Tensor, settings: TrainSettings) -> None:
    """Batch norm's statistics anew: of whole images, with no unit dropped, as the network is used.

    Crops and dropout shift them (Touvron et al. 2019; Li et al. 2019), most of all behind fc6.
    """
    norms = [one for one in network.modules() if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d) and one.weight.requires_grad]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    geometry = geometry_of(settings.size)
    device = next(network.parameters()).device
    for which in order[: max(settings.batch, 2048)].split(settings.batch):
        if len(which) == settings.batch:
            network(geometry.normalize(views[which].to(device)).contiguous(memory_format=torch.channels_last))


class _Clock:
    """Seconds on the wall and of all processors since it was made, added to those of an earlier run that was interrupted."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def add(self, wall: float, cpu: float) -> None:
        self._wall -= wall
        self._cpu -= cpu

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def _teacher(
    settings: TrainSettings, folders: ClassFolders, path: Path, device: torch.device, report: Callable[[str, int, int], None]
) -> Guide | None:
    """The teacher's guide, read from ``path`` where this run, or an earlier one on the same images, left it."""
    if not settings.teacher:
        return None
    network = load_network(settings.teacher, device=device)
    run = f"{network.weights_sha256} {folders.fingerprint}" + (f" {settings.balance}" if settings.balance != 1 else "")
    known = Guide.load(path, run)
    if known is None:
        known = guide(network, folders, report, settings.balance)
        known.save(path, run)
    return known


def _groups(student: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and batch norm's scales do not, for shrinking them limits nothing."""
    learning = [p for p in student.parameters() if p.requires_grad]
    matrices = [p for p in learning if p.ndim > 1]
    vectors = [p for p in learning if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _order(labels: Tensor, readable: Tensor, settings: TrainSettings, random: np.random.Generator) -> Tensor:
    """The images of an epoch, as many as there are: each once, or drawn by their class's size and ``settings.balance``."""
    known = labels[readable] >= 0
    if settings.balance == 1 and known.all():
        return readable[torch.from_numpy(random.permutation(len(readable)))]
    counts = torch.bincount(labels[readable][known]).double()
    weights = torch.where(known, counts[labels[readable].clamp(min=0)] ** (settings.balance - 1), 0.0)
    weights = weights / weights.sum()
    if not known.all():
        weights = (1 - settings.unlabeled) * weights + settings.unlabeled * (~known).double() / (~known).sum()
    return readable[torch.from_numpy(random.choice(len(readable), len(readable), p=(weights / weights.sum()).numpy()))]


def _epoch(
    student: Student, optimizer: torch.optim.Optimizer, views: Tensor, labels: Tensor, readable: Tensor, teacher: Guide | None,
    settings: TrainSettings, epoch: int, device: torch.device, report: Callable[[str, int, int], None],
) -> dict[str, Any]:  # fmt: skip
    """One pass over the images in random order; returns what a log says about it."""
    random = np.random.default_rng((settings.seed, epoch))
    torch.manual_seed(settings.seed * 100_003 + epoch + 1)
    student.train()
    order = _order(labels, readable, settings, random)
    steps = len(order) // settings.batch  # a last, smaller batch would upset batch norm
    size = settings.crop(epoch)
    how, geometry = Augmentation(area=(0.35, 1.0)) if settings.flatten else Augmentation(), geometry_of(settings.size)
    sums = torch.zeros(3, dtype=torch.float64)
    for step in range(steps):
        which = order[step * settings.batch : (step + 1) * settings.batch]
        theta = crops(len(which), how, random)
        x = views[which].to(device).permute(0, 3, 1, 2).float().div_(255)
        x = recolor(cut(x, theta.to(device), size), how, random)
        x = erase(geometry.normalize(x.permute(0, 2, 3, 1) * 255), how, random).contiguous(memory_format=torch.channels_last)
        truth = labels[which].to(device)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(epoch + step / steps)
        with mixed_precision(device):
            scores, imitated = student(x)
        # The share of labeled images stands before their mean, so that a image without a class takes nothing from it.
        known = truth >= 0
        loss = class_loss = (
            functional.cross_entropy(scores.float(), truth, label_smoothing=settings.smoothing, ignore_index=-1) * known.float().mean()
            if known.any()
            else scores.sum() * 0
        )
        if teacher is not None and imitated is not None:
            maps = teacher.maps[which].to(device).float()
            theta = theta.to(device)
            soft = functional.cross_entropy(scores.float(), teacher.to(device).scores(cut(maps, theta, 7)).softmax(1))
            alike = functional.cosine_similarity(imitated.float(), cut(maps, theta, imitated.shape[-1]), dim=1).mean()
            loss = (1 - settings.teacher_share) * class_loss + settings.teacher_share * soft + settings.imitation * (1 - alike)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = (scores.argmax(1) == truth).sum() / known.sum().clamp(min=1)
        sums += torch.stack([loss.detach(), class_loss.detach(), right]).cpu().double()
        report(f"epoch {epoch + 1}", step + 1, steps)
    if not torch.isfinite(sums).all():
        raise DataError(f"the loss became infinite in epoch {epoch + 1}; give a lower --learning-rate.")
    total, of_class, right_share = (sums / steps).tolist()
    return {
        "epoch": epoch + 1,
        "crop": size,
        "loss": round(total, 4),
        "class_loss": round(of_class, 4),
        "training_top1": round(right_share, 4),
    }
