"""What a training run is made of, and the schedule that follows from it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from chipcore.errors import SettingsError

STRIDE = 32  # five pools halve the input five times


@dataclass(frozen=True)
class TrainSettings:
    """The recipe of a run.

    The learning rate warms up, stays flat and falls linearly to zero over the last ``cooldown`` of the
    epochs (a 'warm-up, stable, decay' schedule: Hu et al. 2024). Nothing in the flat part depends on the
    number of epochs, so an interrupted run may be resumed with more or fewer of them and is still the run that
    would have been had that number been given at once. The flat part trains on smaller crops, which
    halves its cost (progressive resizing, as in fast.ai's DAWNBench entries).

    ``size`` is the side of the network's input when it is used, in pixels. Training crops are 0.8 times as large: random
    crops enlarge what they show, and testing on a larger input makes up for it (Touvron et al. 2019). A network with
    ``flatten`` has no larger input: its last crops are as large as its input.

    ``flatten`` builds :class:`~chipcore.networks.architectures.vgg_slim.VGG` in place of ``VGGSlim``. ``balance`` is the power of a
    class's images by which it is drawn: 1 draws every image alike, 0 every class; ``unlabeled`` is the share of
    the draws that goes to images without a class. ``start`` is a network whose convolutions are the first weights,
    and the first ``frozen`` of its five blocks keep them: a step costs less, and few images cannot spoil what many have taught.
    """

    epochs: int = 30
    size: int = 160
    width: int = 16
    seed: int = 0
    batch: int = 64
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: int = 2  # epochs
    cooldown: float = 0.4
    smoothing: float = 0.1
    teacher: str = ""
    teacher_share: float = 0.5  # of the class loss
    imitation: float = 2.0  # weight of the loss on the teacher's feature maps
    flatten: bool = False
    dropout: float = 0.2
    balance: float = 1.0
    unlabeled: float = 0.1
    start: str = ""
    frozen: int = 0  # blocks

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise SettingsError(f"epochs is {self.epochs}; give at least 1.")
        if not 2 * STRIDE <= self.size <= 512:
            raise SettingsError(f"size is {self.size} px; give {2 * STRIDE} to 512, which five pools halve to 2 x 2 or more.")
        if not 1 <= self.width <= 64:
            raise SettingsError(f"width is {self.width} channels; give 1 to 64 (VGG16 itself has 64).")
        if self.batch < 2:
            raise SettingsError(f"batch is {self.batch} photographs; batch norm needs at least 2.")
        if self.flatten and self.size % STRIDE:
            raise SettingsError(f"size is {self.size} px; a network that flattens its last maps needs a multiple of {STRIDE}.")
        if not 0 < self.cooldown <= 1:
            raise SettingsError(
                f"cooldown is {self.cooldown}; give the share of the epochs in which the learning rate falls, above 0, at most 1."
            )
        if not 0 <= self.balance <= 1:
            raise SettingsError(f"balance is {self.balance}; give 0 (every class alike) to 1 (every photograph alike).")
        if not 0 <= self.dropout < 1 or not 0 <= self.unlabeled < 1:
            raise SettingsError(f"dropout is {self.dropout} and unlabeled {self.unlabeled}; give shares from 0 to below 1.")
        if not 0 <= self.frozen <= 4:
            raise SettingsError(f"frozen is {self.frozen} blocks; give 0 to 4, the fifth has to learn.")
        if self.frozen and not self.start:
            raise SettingsError("frozen blocks need a network whose weights they keep; give --start.")
        if not 0 < self.learning_rate < math.inf:
            raise SettingsError(f"the learning rate is {self.learning_rate}; give a number above 0.")

    @property
    def flat_epochs(self) -> int:
        """Epochs before the learning rate begins to fall."""
        return self.epochs - max(1, round(self.cooldown * self.epochs))

    def crop(self, epoch: int) -> int:
        """The side of the training crops of an epoch (from 0), in pixels: a multiple of 32."""
        if self.flatten:  # at the full size only the last fifth, and none of the flat part
            share = 0.75 if epoch < max(self.flat_epochs, self.epochs - max(1, round(self.epochs / 5))) else 1.0
        else:
            share = 0.6 if epoch < self.flat_epochs else 0.8
        return max(STRIDE, round(share * self.size / STRIDE) * STRIDE)

    def rate(self, epoch: float) -> float:
        """The learning rate at a moment of the run, counted in epochs."""
        falling = min(1.0, (self.epochs - epoch) / (self.epochs - self.flat_epochs))
        rising = min(1.0, (epoch + 0.02) / self.warmup) if self.warmup and self.flat_epochs > self.warmup else 1.0
        return self.learning_rate * rising * falling

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def same_until(self, other: dict[str, Any], epoch: int) -> list[str]:
        """The settings in which a run that stands at ``epoch`` differs from this one in what has been done so far.

        The number of epochs does not count as long as both runs are still in their flat part.
        """
        changed = [name for name, value in self.as_dict().items() if name != "epochs" and other.get(name) != value]
        if other.get("epochs") != self.epochs:
            earlier = TrainSettings(**{**self.as_dict(), "epochs": int(other.get("epochs", 0))})
            if epoch > min(self.flat_epochs, earlier.flat_epochs) or _warms(self) != _warms(earlier):
                changed.append("epochs")
        return changed


def _warms(settings: TrainSettings) -> bool:
    return settings.flat_epochs > settings.warmup
