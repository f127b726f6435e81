"""Training a small VGG16 on anyone's class folders: ``python -m chipcore train``."""

from chipcore.training.saved import load_trained
from chipcore.training.settings import TrainSettings
from chipcore.training.trainer import train

__all__ = ["TrainSettings", "load_trained", "train"]
