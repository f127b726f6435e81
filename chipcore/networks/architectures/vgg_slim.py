"""VGG16 at a fraction of its width (Simonyan and Zisserman 2015, configuration D; batch norm after Ioffe and Szegedy 2015).

Thirteen 3 x 3 convolutions in five blocks, each block closed by a 2 x 2 max-pool, as in VGG16. Two things
differ: every width is divided by four (16 to 128 channels in place of 64 to 512), and the two hidden layers
of 4,096 units, which hold nine tenths of VGG16's weights, are one of ``16 * width`` units behind a global
average, so that any input size works. Batch norm helps training and is folded into the convolutions of
what ships, which leaves convolution, ReLU and max-pool: every feature map is non-negative.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # (channels in units of the width, convolutions)
HIDDEN = 60  # units of fc6 and fc7 in units of the width; VGG16 has 64
LAYERS = (
    ("pool1", "features.pool1"), ("pool2", "features.pool2"), ("pool3", "features.pool3"),
    ("pool4", "features.pool4"), ("conv5_3", "features.conv5_3"), ("pool5", "features.pool5"),
)  # fmt: skip

# The classes of the network that ships, in the order of its outputs: Imagenette's ten and four kinds of animals.
FOURTEEN = (
    "cassette player", "cat", "chain saw, chainsaw", "church, church building", "elephant", "English springer, English springer spaniel",
    "French horn, horn", "frog", "garbage truck, dustcart", "gas pump, petrol pump", "golf ball", "parachute, chute", "tench, Tinca tinca", "zebra",
)  # fmt: skip

# The classes of the one that flattens, in the order of its outputs. Breeds of cats are one class and so are the two elephants:
# WordNet's synsets above them, which ILSVRC has not.
CATS_AND_ELEPHANTS = (("n02121808", "cat, domestic cat, house cat"), ("n02503517", "elephant"))
SYNSETS = (
    "n01440764", "n01443537", "n01484850", "n01491361", "n01494475", "n01496331", "n01498041", "n01514668", "n01514859", "n01518878",
    "n01530575", "n01531178", "n01532829", "n01534433", "n01537544", "n01558993", "n01560419", "n01580077", "n01641577", "n01644373",
    "n01768244", "n01770393", "n01873310", "n01968897", "n01983481", "n02007558", "n02071294", "n02085620", "n02102040", "n02110341",
    "n02114367", "n02119022", "n02128385", "n02129604", "n02317335", "n02363005", "n02391049", "n02437616", "n02480855", "n02481823",
    "n02510455", "n02672831", "n02690373", "n02795169", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042", "n03425413",
    "n03445777", "n03452741", "n03642806", "n03888257", "n04086273", "n04141076", "n04147183", "n04254680", "n04507155", "n07747607",
    "n07749582", "n07753592",
)  # fmt: skip


class VGGSlim(nn.Module):
    """VGG16's convolutions and pools for ``classes`` classes; the five blocks have width x (1, 2, 4, 8, 8) channels.

    ``features.conv5_3`` and the like are a convolution with its ReLU (and, while training, the batch norm
    between them); ``features.pool1`` to ``features.pool5`` halve height and width. VGG16 has width 64.
    Input (B, 3, H, W) with H and W at least 32; output: scores before softmax (B, classes).
    """

    def __init__(self, classes: int, width: int = 16, *, batch_norm: bool = False, dropout: float = 0.2) -> None:
        super().__init__()
        self.features = _features(width, batch_norm)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(8 * width, 16 * width)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(16 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def head(self, features: Tensor) -> Tensor:
        """Scores (B, classes) from the output of pool5, (B, 8 * width, u, v)."""
        pooled = torch.flatten(self.average(features), 1)
        return self.classifier(self.dropout(self.relu(self.hidden(pooled))))


class VGG(nn.Module):
    """VGG16 itself at a fraction of its width: pool5 is flattened, and fc6, fc7 and fc8 read every place of it.

    fc6 and fc7 have ``HIDDEN * width`` units (VGG16: 4,096 at width 64), so weights in half precision stay below 8 MB at
    width 16. Input (B, 3, size, size) with a fixed size, a multiple of 32; output: scores before softmax (B, classes).
    """

    def __init__(self, classes: int, width: int = 16, size: int = 128, *, batch_norm: bool = False, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = _features(width, batch_norm)
        self.flatten = nn.Flatten()
        self.fc6 = _linear(8 * width * (size // 32) ** 2, HIDDEN * width, batch_norm)
        self.drop6 = nn.Dropout(dropout)
        self.fc7 = _linear(HIDDEN * width, HIDDEN * width, batch_norm)
        self.drop7 = nn.Dropout(dropout)
        self.fc8 = nn.Linear(HIDDEN * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def head(self, features: Tensor) -> Tensor:
        """Scores (B, classes) from the output of pool5, (B, 8 * width, size / 32, size / 32)."""
        hidden = self.drop6(self.fc6(self.flatten(features)))
        return self.fc8(self.drop7(self.fc7(hidden)))


def _features(width: int, batch_norm: bool) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = 3
    for block, (times, convolutions) in enumerate(BLOCKS, 1):
        outputs = times * width
        for step in range(1, convolutions + 1):
            parts[f"conv{block}_{step}"] = _convolution(inputs, outputs, batch_norm)
            inputs = outputs
        parts[f"pool{block}"] = nn.MaxPool2d(2)
    return nn.Sequential(parts)


def _linear(inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["linear"] = nn.Linear(inputs, outputs, bias=not batch_norm)
    if batch_norm:
        parts["norm"] = nn.BatchNorm1d(outputs)
    parts["relu"] = nn.ReLU()
    return nn.Sequential(parts)


def _convolution(inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv"] = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batch_norm)
    if batch_norm:
        parts["norm"] = nn.BatchNorm2d(outputs)
    parts["relu"] = nn.ReLU()
    return nn.Sequential(parts)


def fold_batch_norm(weights: Mapping[str, Tensor], eps: float = 1e-5) -> dict[str, Tensor]:
    """The state_dict of a VGGSlim or VGG with batch norm as that of the one without which gives the same scores.

    ``y = gamma * (conv(x) - mean) / sqrt(var + eps) + beta`` is a convolution (or a linear layer) whose filters are multiplied by
    ``gamma / sqrt(var + eps)``; computed in float64, so that folding costs no more than one rounding.
    """
    folded: dict[str, Tensor] = {}
    for key, value in weights.items():
        if ".norm." in key:
            continue
        norm = key.removesuffix("conv.weight").removesuffix("linear.weight") + "norm."
        if f"{norm}weight" not in weights:
            folded[key] = value.clone()
            continue
        gamma, beta, mean, var = (weights[norm + name].double() for name in ("weight", "bias", "running_mean", "running_var"))
        scale = gamma / (var + eps).sqrt()
        folded[key] = (value.double() * scale.view(-1, *[1] * (value.ndim - 1))).to(value.dtype).contiguous()
        folded[key.removesuffix("weight") + "bias"] = (beta - mean * scale).to(value.dtype)
    return folded
