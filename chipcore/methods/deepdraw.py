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
    size, octaves, steps = network.geometry.size, options["octaves"], options["steps"]
    random = torch.Generator().manual_seed(options["seed"])
    mean, std = (torch.tensor(values, device=network.device).view(1, 3, 1, 1) for values in (network.geometry.mean, network.geometry.std))
    drawn = mean + 0.02 * torch.randn(1, 3, size, size, generator=random).to(network.device)
    for octave in range(octaves):
        share = 1.0 if octaves == 1 else _SMALLEST ** (1 - octave / (octaves - 1))
        drawn = _resized(drawn, max(1, round(size * share)))
        for number in range(steps):
            shift = [int(one) for one in torch.randint(-(size // 16), size // 16 + 1, (2,), generator=random)]
            gradient = _gradient(request, drawn, mean, std, shift)
            drawn = drawn + options["step"] * gradient / gradient.square().mean().sqrt().clamp(min=1e-12)
            drawn = _blurred(drawn, 0.9 - 0.5 * number / steps).clamp(0, 1)
            request.report(octave * steps + number + 1, octaves * steps)
    image = _resized(drawn, size).clamp(0, 1)
    return Explanation((image - mean).abs().mean(1)[0], passes=2 * octaves * steps, image=image[0])


def _gradient(request: MethodInputs, drawn: Tensor, mean: Tensor, std: Tensor, shift: list[int]) -> Tensor:
    with torch.enable_grad():
        leaf = drawn.detach().requires_grad_()
        seen = (_resized(leaf, request.network.geometry.size) - mean) / std
        score = request.network.model(torch.roll(seen, shift, (2, 3)).contiguous(memory_format=torch.channels_last))[0, request.target]
        return torch.autograd.grad(score, leaf)[0]


def _resized(image: Tensor, size: int) -> Tensor:
    return image if image.shape[-1] == size else functional.interpolate(image, (size, size), mode="bilinear", align_corners=False)


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur over 3 x 3 pixels."""
    edge = torch.exp(torch.tensor(-0.5 / sigma**2))
    line = torch.stack([edge, torch.ones(()), edge]).to(image) / (1 + 2 * edge)
    kernel = torch.outer(line, line).expand(3, 1, 3, 3)
    return functional.conv2d(functional.pad(image, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
