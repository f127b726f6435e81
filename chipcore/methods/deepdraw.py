"""DeepDraw (Qygar 2015): an image that the network takes for the class, by gradient ascent over octaves."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from chipcore.methods.base import Explanation, MethodInputs, Properties, register

_SMALLEST = 0.25  # side of the first octave as a share of the input's


@register(
    "deepdraw", "DeepDraw", "Qygar 2015, https://github.com/auduno/deepdraw",
    Properties(general=True, class_discriminative=True, high_resolution=True, row="DeepDraw"),
    options={"octaves": 4, "steps": 32, "step": 0.04, "seed": 0}, order=140, slow=True, is_image=True, shows_image=True,
)  # fmt: skip
def deepdraw(request: MethodInputs) -> Explanation:
    """The image (3, size, size) that gradient ascent on the class score arrives at; the image plays no part.

    From noise around the data set's mean color, the image is drawn ``octaves`` times, from a quarter of the
    input's side up to all of it, ``steps`` steps each: coarse forms first, detail on top of them. A step goes
    ``step`` (pixel values run from 0 to 1) times the gradient over its root mean square. The image is shifted
    at random before every step and blurred a little after it, less and less, so that no single pixel counts.
    The network always sees its own input size. Raw: mean absolute deviation from the mean color, (size, size).
    Two passes a step.
    """
    network, options = request.network, request.options
    (height, width), octaves, steps = network.geometry.shape, options["octaves"], options["steps"]
    random = torch.Generator().manual_seed(options["seed"])
    mean, std = (torch.tensor(values, device=network.device).view(1, -1, 1, 1) for values in (network.geometry.mean, network.geometry.std))
    drawn = mean + 0.02 * torch.randn(network.example.shape, generator=random).to(network.device)
    for octave in range(octaves):
        share = 1.0 if octaves == 1 else _SMALLEST ** (1 - octave / (octaves - 1))
        drawn = _resized(drawn, (max(1, round(height * share)), max(1, round(width * share))))
        for number in range(steps):
            reach = min(height, width) // 16
            shift = [int(one) for one in torch.randint(-reach, reach + 1, (2,), generator=random)]
            gradient = _gradient(request, drawn, mean, std, shift)
            drawn = drawn + options["step"] * gradient / gradient.square().mean().sqrt().clamp(min=1e-12)
            drawn = _blurred(drawn, 0.9 - 0.5 * number / steps).clamp(0, 1)
            request.report(octave * steps + number + 1, octaves * steps)
    image = _resized(drawn, (height, width)).clamp(0, 1)
    return Explanation((image - mean).abs().mean(1)[0], passes=2 * octaves * steps, image=image[0].expand(3, -1, -1))


def _gradient(request: MethodInputs, drawn: Tensor, mean: Tensor, std: Tensor, shift: list[int]) -> Tensor:
    with torch.enable_grad():
        leaf = drawn.detach().requires_grad_()
        seen = (_resized(leaf, request.network.geometry.shape) - mean) / std
        score = request.network.model(request.network.arrange(torch.roll(seen, shift, (2, 3))))[0, request.target]
        return torch.autograd.grad(score, leaf)[0]


def _resized(image: Tensor, shape: tuple[int, int]) -> Tensor:
    return image if image.shape[-2:] == shape else functional.interpolate(image, shape, mode="bilinear", align_corners=False)


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur over 3 x 3 pixels."""
    edge = torch.exp(torch.tensor(-0.5 / sigma**2))
    line = torch.stack([edge, torch.ones(()), edge]).to(image) / (1 + 2 * edge)
    channels = image.shape[1]
    kernel = torch.outer(line, line).expand(channels, 1, 3, 3)
    return functional.conv2d(functional.pad(image, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)
